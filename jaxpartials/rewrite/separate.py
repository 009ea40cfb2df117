"""One gradient per lane from one reverse pass.

A reverse pass with ones for cotangent gives the gradient summed over the lanes,

    G(c) = sum_b c_b dV_b/dp.

Where the lanes stay apart on the way, the sum is made at known places: reductions over the lane axis, and products that
contract it. Left out there, with the lane axis kept, the same pass gives every summand, `R_b = c_b dV_b/dp`, at the
cost of one gradient instead of B: what `vmap(grad)` does for a function of one lane, done to a function of the batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from jaxpartials import _jax
from jaxpartials.graph.emit import emit_node
from jaxpartials.graph.graph import LEAVES, Graph, Node, Value, dependents, frontier, is_zero, reach
from jaxpartials.graph.trace import extend
from jaxpartials.rewrite.batch import batched_equation
from jaxpartials.structure.axes import Flow
from jaxpartials.structure.lanes import FREE, Lane
from jaxpartials.structure.rules import EACH, RULES


class Inseparable(Exception):
    """A lane cannot be followed to the end; `node` stands in the way."""

    def __init__(self, node: Node | None):
        super().__init__("the lanes do not stay apart" if node is None else f"{node.name} at {node.where}")
        self.node = node


@dataclass(frozen=True)
class _Along:
    """Zero outside of the lane, for a cotangent that is: the lanes lie along this axis."""

    axis: int


@dataclass(frozen=True)
class _Apart:
    """One array for each lane, along this additional axis."""

    axis: int


def separate(graph: Graph, value: Value, symbol: Value, axis: int) -> tuple[Value, int]:
    """`value`, linear in `symbol`, for the part of `symbol` in each lane: with a lane axis more, and where that is.

    Raises: Inseparable, where an operation mixes the lanes of `symbol` along `axis`, or no rule says how it adds them.
    """
    moving = dependents([value], [symbol])
    if value.node.number not in moving:
        raise Inseparable(None)
    known = frontier([value], moving, [symbol])
    flow = Flow(symbol.shape[axis], 0)
    place = 0

    def run(c, *arrays):
        nonlocal place
        env: dict[tuple[int, int], tuple[Any, _Along | _Apart | None]] = {_key(symbol): (c, _Along(axis))}
        for v, array in zip(known, arrays, strict=True):
            env[_key(v)] = array, None
        for node in reach([value], [symbol, *known]):
            if node.name in LEAVES:
                leaf = node.params["value"]
                env[_key(node.outputs[0])] = leaf[()] if node.name == "literal" else leaf, None
                continue
            operands = [env[_key(v)] for v in node.operands]
            with _jax.user_context(node.source, node.context):
                results = _equation(node, operands, flow)
            for v, result in zip(node.outputs, results, strict=True):
                env[_key(v)] = result
        array, state = env[_key(value)]
        if not isinstance(state, _Apart):
            raise Inseparable(None)
        place = state.axis
        return array

    return extend(graph, run, [symbol, *known]), place


def _key(value: Value) -> tuple[int, int]:
    return value.node.number, value.index


def _equation(node: Node, operands: list, flow: Flow) -> list[tuple[Any, _Along | _Apart | None]]:
    arrays = [array for array, _ in operands]
    states = [state for _, state in operands]
    laned = [state for state in states if state is not None]
    if not laned:
        return [(array, None) for array in emit_node(node, arrays, keep_effects=False)]
    _check_linear(node, states)
    if all(isinstance(state, _Apart) for state in laned):
        axes = [None if state is None else state.axis for state in states]
        results = batched_equation(node, list(zip(arrays, axes, strict=True)), flow.lanes)
        return [(array, None if place is None else _Apart(place)) for array, place in results]
    if not all(isinstance(state, _Along) for state in laned):
        raise Inseparable(node)
    lanes = [FREE if state is None else Lane(state.axis) for state in states]
    after = flow.step(node, lanes)
    # Lane i is element i: where the lanes come in blocks, or several times over, no axis of their length is left.
    if all(
        isinstance(state, Lane) and state.stride == 1 and v.shape[state.axis] == flow.lanes
        for v, state in zip(node.outputs, after, strict=True)
    ):
        results = emit_node(node, arrays, keep_effects=False)
        return [(array, _Along(state.axis)) for array, state in zip(results, after, strict=True)]  # pyright: ignore
    if node.name == "reduce_sum":
        return [_reduce_sum(node, arrays[0], states[0].axis)]
    if node.name == "dot_general" and len(laned) == 1:
        return [_dot_general(node, arrays, states)]
    raise Inseparable(node)


def _check_linear(node: Node, states: Sequence[Any]) -> None:
    """Zero must stay zero: the node is linear in all that depends on the lanes, together, and adds nothing else."""
    row = RULES.get(node.name)
    which = {i for i, state in enumerate(states) if state is not None}
    if row is not None and row.linear == EACH and len(which) == 1:
        return
    if row is not None and isinstance(row.linear, slice):
        jointly = set(range(len(states))[row.linear])
        if which <= jointly and all(is_zero(node.operands[i]) for i in jointly - which):
            return
    raise Inseparable(node)


def _reduce_sum(node: Node, array: Any, lane: int) -> tuple[Any, _Apart]:
    """Sum over the other axes only."""
    others = tuple(axis for axis in node.params["axes"] if axis != lane)
    if lane not in node.params["axes"]:
        raise Inseparable(node)
    if others:
        (array,) = _jax.bind(node.primitive, {**node.params, "axes": others}, [array])
    return array, _Apart(lane - sum(axis < lane for axis in others))


def _dot_general(node: Node, arrays: list, states: Sequence[_Along | None]) -> tuple[Any, _Apart]:
    """Contract the other axes only: the lane axes of the two become batch axes."""
    (lhs_contract, rhs_contract), (lhs_batch, rhs_batch) = node.params["dimension_numbers"]
    first = states[0] is not None
    lane = next(state.axis for state in states if state is not None)
    pairs = list(zip(lhs_contract, rhs_contract, strict=True))
    mine = [pair for pair in pairs if pair[0 if first else 1] == lane]
    if not mine:
        raise Inseparable(node)
    others = [pair for pair in pairs if pair not in mine]
    contract = tuple(a for a, _ in others), tuple(b for _, b in others)
    batch = (*lhs_batch, mine[0][0]), (*rhs_batch, mine[0][1])
    if not others and node.params.get("preferred_element_type") in (None, node.outputs[0].dtype):
        return _outer(arrays[0], arrays[1], *batch), _Apart(len(lhs_batch))
    params = {**node.params, "dimension_numbers": (contract, batch)}
    (result,) = _jax.bind(node.primitive, params, arrays)
    return result, _Apart(len(lhs_batch))


def _outer(lhs: Any, rhs: Any, lhs_batch: Sequence[int], rhs_batch: Sequence[int]) -> Any:
    """A product that contracts nothing, by broadcasting, which XLA fuses: not one matrix product per lane."""
    free_lhs = [axis for axis in range(lhs.ndim) if axis not in lhs_batch]
    free_rhs = [axis for axis in range(rhs.ndim) if axis not in rhs_batch]
    lhs = jnp.transpose(lhs, (*lhs_batch, *free_lhs))
    rhs = jnp.transpose(rhs, (*rhs_batch, *free_rhs))
    common = len(lhs_batch)
    lhs = jnp.expand_dims(lhs, tuple(range(lhs.ndim, lhs.ndim + len(free_rhs))))
    rhs = jnp.expand_dims(rhs, tuple(range(common, common + len(free_lhs))))
    return lhs * rhs
