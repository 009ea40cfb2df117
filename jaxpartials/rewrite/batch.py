"""Replace symbolic directions by many at once, with the direction axis where the layout is fast.

`jax.vmap` moves the mapped axis to the front of every operation it meets. Behind the lane axes, (N, d, W) instead of
(d, N, W), elementwise operations and matrix products run over memory in order; so those are batched here, in place,
and `jax.vmap` does the rest one equation at a time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxpartials import _jax
from jaxpartials.graph.emit import emit_node, evaluate
from jaxpartials.graph.graph import LEAVES, Graph, Node, Value, dependents, frontier, reach
from jaxpartials.graph.trace import extend

# Elementwise primitives whose parameters do not mention the shape.
ELEMENTWISE = frozenset(
    """
    abs acos acosh add add_any and asin asinh atan atan2 atanh cbrt ceil clamp conj
    convert_element_type copy cos cosh digamma div eq erf erf_inv erfc exp exp2 expm1 floor ge gt
    imag integer_pow is_finite le lgamma log log1p logistic lt max min mul ne neg nextafter not
    one_minus_square or pow real rem round rsqrt select_n sign sin sinh sqrt square sub tan tanh xor
    """.split()  # noqa: SIM905
)


@dataclass(frozen=True)
class Batched:
    """A symbol, the values to take its place, and where those have their additional axis."""

    symbol: Value
    values: Value
    axis: int


def batch(
    graph: Graph, value: Value, seeds: Sequence[Batched], count: int, chunk_size: int | None = None
) -> tuple[Value, int]:
    """Evaluate `value` for all seeds; return it and the place of the new axis.

    With `chunk_size`, no more than that many directions are alive at once: `jax.lax.map` goes through the chunks.
    """
    symbols = [seed.symbol for seed in seeds]
    moving = dependents([value], symbols)
    used = [seed for seed in seeds if seed.symbol.node.number in moving]
    known = frontier([value], moving, symbols)
    place = 0

    def whole(*arrays):
        nonlocal place
        env: dict[tuple[int, int], tuple[Any, int | None]] = {}
        for seed, array in zip(used, arrays, strict=False):
            env[_key(seed.symbol)] = array, seed.axis
        for v, array in zip(known, arrays[len(used) :], strict=True):
            env[_key(v)] = array, None
        array, axis = _interpret(value, env, count)
        place = 0 if axis is None else axis
        return jnp.broadcast_to(array, (count, *array.shape)) if axis is None else array

    def chunked(*arrays):
        fixed = list(zip(known, arrays[len(used) :], strict=True))
        seeds_first = tuple(jnp.moveaxis(array, seed.axis, 0) for seed, array in zip(used, arrays, strict=False))

        def one(directions):
            symbols = zip((seed.symbol for seed in used), directions, strict=True)
            (out,) = evaluate([value], [*symbols, *fixed])
            return out

        return jax.lax.map(one, seeds_first, batch_size=chunk_size)

    operands = [*(seed.values for seed in used), *known]
    if chunk_size is not None and count > chunk_size:
        return extend(graph, chunked, operands), 0
    return extend(graph, whole, operands), place


def _key(value: Value) -> tuple[int, int]:
    return value.node.number, value.index


def _interpret(value: Value, env: dict, count: int) -> tuple[Any, int | None]:
    stop = [v for node in reach([value]) for v in node.outputs if _key(v) in env]
    for node in reach([value], stop):
        if all(_key(v) in env for v in node.outputs):
            continue
        if node.name in LEAVES:
            leaf = node.params["value"]
            env[_key(node.outputs[0])] = leaf[()] if node.name == "literal" else leaf, None
            continue
        operands = [env[_key(v)] for v in node.operands]
        with _jax.user_context(node.source, node.context):
            results = batched_equation(node, operands, count)
        for v, result in zip(node.outputs, results, strict=True):
            env.setdefault(_key(v), result)
    return env[_key(value)]


def batched_equation(node: Node, operands: list[tuple[Any, int | None]], count: int) -> list[tuple[Any, int | None]]:
    arrays = [array for array, _ in operands]
    axes = [None if axis is None else int(axis) for _, axis in operands]  # rewritten parameters may be NumPy's
    if all(axis is None for axis in axes):
        return [(array, None) for array in emit_node(node, arrays, keep_effects=False)]
    wished = next(axis for axis in axes if axis is not None)
    if node.name in ELEMENTWISE and _aligned(node):
        return _elementwise(node, arrays, axes, count)
    if node.name == "dot_general" and sum(axis is not None for axis in axes) == 1:
        result = _dot_general(node, arrays, axes)
        if result is not None:
            return [result]
    if node.name.startswith("reduce_") and "axes" in node.params and len(operands) == 1:
        return [_reduce(node, arrays[0], wished)]
    places = [min(wished, len(v.shape)) for v in node.outputs]

    def plain(*arrays):
        return tuple(emit_node(node, list(arrays), keep_effects=False))

    results = jax.vmap(plain, in_axes=tuple(axes), out_axes=tuple(places), axis_size=count)(*arrays)
    return [(result, place) for result, place in zip(results, places, strict=True)]


def _aligned(node: Node) -> bool:
    """Every operand has the result's rank, or none."""
    rank = len(node.outputs[0].shape)
    return all(len(v.shape) in (0, rank) for v in node.operands)


def _elementwise(node: Node, arrays: list, axes: list[int | None], count: int) -> list[tuple[Any, int | None]]:
    rank = len(node.outputs[0].shape)
    place = next(
        (axis for axis, v in zip(axes, node.operands, strict=True) if axis is not None and len(v.shape) == rank), 0
    )
    aligned = []
    for array, axis, v in zip(arrays, axes, node.operands, strict=True):
        if axis is not None and len(v.shape) < rank:  # one number per direction
            array = jnp.reshape(array, tuple(count if a == place else 1 for a in range(rank + 1)))
            array = jnp.broadcast_to(array, _with(node.outputs[0].shape, place, count))
        elif axis is not None:
            array = jnp.moveaxis(array, axis, place)
        elif len(v.shape) == rank and rank > 0:
            array = jnp.expand_dims(array, place)
            if node.name in ("select_n", "clamp"):  # these take no axis of size one
                array = jnp.broadcast_to(array, _with(v.shape, place, count))
        elif rank == 0:
            array = array if node.name not in ("select_n", "clamp") else jnp.broadcast_to(array, (count,))
        aligned.append(array)
    if rank == 0:
        aligned = [jnp.broadcast_to(array, (count,)) for array in aligned]
    (result,) = _jax.bind(node.primitive, node.params, aligned)
    return [(result, place)]


def _with(shape: Sequence[int], place: int, count: int) -> tuple[int, ...]:
    return (*shape[:place], count, *shape[place:])


def _dot_general(node: Node, arrays: list, axes: list[int | None]) -> tuple[Any, int | None] | None:
    """The direction axis is one more free axis of the operand that has it."""
    (lhs_contract, rhs_contract), (lhs_batch, rhs_batch) = node.params["dimension_numbers"]
    if node.params.get("out_sharding") is not None:
        return None
    first = axes[0] is not None
    axis = axes[0] if first else axes[1]
    assert axis is not None

    def shifted(dims):
        return tuple(d + (d >= axis) for d in dims)

    contract, mates = (lhs_contract, lhs_batch) if first else (rhs_contract, rhs_batch)
    rank = len(node.operands[0 if first else 1].shape)
    free = [d for d in range(rank) if d not in contract and d not in mates]
    place = len(lhs_batch) + sum(d < axis for d in free)
    if not first:
        place += len(node.operands[0].shape) - len(lhs_contract) - len(lhs_batch)
    if first:
        numbers = ((shifted(lhs_contract), rhs_contract), (shifted(lhs_batch), rhs_batch))
    else:
        numbers = ((lhs_contract, shifted(rhs_contract)), (lhs_batch, shifted(rhs_batch)))
    (result,) = _jax.bind(node.primitive, {**node.params, "dimension_numbers": numbers}, arrays)
    return result, place


def _reduce(node: Node, array: Any, axis: int) -> tuple[Any, int | None]:
    axes = node.params["axes"]
    # The direction axis stays where it is among the axes that are left.
    shifted = tuple(a + (a >= axis) for a in axes)
    params = {**node.params, "axes": shifted}
    (result,) = _jax.bind(node.primitive, params, [array])
    return result, axis - sum(a < axis for a in shifted)
