"""Linear systems with fewer right-hand sides.

    sum_i A^-1 b_i  =  A^-1 sum_i b_i

JAX keeps a linear system whole, with programs for A x, for x A, and for the two solutions: its derivatives are made of
those. All four are written for as many right-hand sides as there were. Where each right-hand side goes through them by
itself, they are written anew for one: the axis that the right-hand sides lie along (`structure.lanes`) becomes so many
times shorter in every equation.
"""

from collections.abc import Callable, Sequence
from typing import Any

from jax import lax

from jaxpartials import _jax
from jaxpartials.graph.emit import emit_node
from jaxpartials.graph.graph import LEAVES, Graph, Node, Value, reach
from jaxpartials.graph.trace import extend
from jaxpartials.rewrite.slices import is_elementwise, plain, thin
from jaxpartials.structure.axes import Flow
from jaxpartials.structure.lanes import FREE, Lane, State
from jaxpartials.structure.linearity import LINEAR, degrees

PROGRAMS = ("matvec", "vecmat", "solve", "transpose_solve")


def is_solve(node: Node) -> bool:
    """Whether this is one linear system, with solvers that are linear, not iterated until something is small."""
    if node.name != "custom_linear_solve" or node.effects or len(node.outputs) != 1:
        return False
    (out,), b = node.outputs, node.operands[-1]
    if sum(node.params["const_lengths"]) != len(node.operands) - 1 or b.aval != out.aval:
        return False
    return all(_is_linear(body) for body in node.bodies)


def _is_linear(body: Graph) -> bool:
    if not all(plain(node) for node in reach(body.outputs) if node.operands):
        return False
    (out,) = body.outputs
    return degrees([out], [body.inputs[-1]])[out.node.number, out.index] == LINEAR


def solved_once(graph: Graph, node: Node, axis: int, b: Value) -> Value | None:
    """The solution for `b`, which is as the right-hand side of `node` with length 1 along an axis.

    None where the right-hand sides along that axis do not go through the programs each by itself, and all alike.
    """
    lengths, programs = node.params["const_lengths"], node.params["jaxprs"]
    bodies, shorter, start = iter(node.bodies), {}, 0
    counts = {name: getattr(lengths, name) for name in PROGRAMS}
    for name in PROGRAMS:
        if getattr(programs, name) is not None:
            found = _shorter(next(bodies), axis)
            if found is None:
                return None
            shorter[name] = found, slice(start, start + counts[name])
        start += counts[name]

    def solve(*arrays):
        *fixed, b = arrays

        def call(name):
            run, own = shorter[name]
            return lambda x: run([*fixed[own], x])

        backwards = call("transpose_solve") if "transpose_solve" in shorter else None
        return lax.custom_linear_solve(
            call("matvec"), b,
            solve=lambda _, b: call("solve")(b),
            transpose_solve=None if backwards is None else lambda _, b: backwards(b),
        )  # fmt: skip

    return extend(graph, solve, [*node.operands[:-1], b])


def _shorter(body: Graph, axis: int) -> Callable[[Sequence[Any]], Any] | None:
    """The program for a last input of length 1 along an axis; None where that is not evident."""
    x = body.inputs[-1]
    flow = Flow(x.shape[axis], 0)
    states = flow.states(body.outputs, _known(body, axis), body.inputs)
    (out,) = body.outputs
    if states[_key(out)] != Lane(axis):
        return None
    nodes = [node for node in reach(body.outputs, body.inputs) if node.name not in LEAVES]
    made: dict[Node, tuple[dict[str, Any], Sequence[int | None]]] = {}
    for node in nodes:
        if any(states[_key(v)] != FREE for v in node.outputs):
            found = _changes(body, node, states, flow.lanes)
            if found is None:
                return None
            made[node] = found

    def run(arrays):
        env = {_key(v): array for v, array in zip(body.inputs, arrays, strict=True)}
        for node in reach(body.outputs, body.inputs):
            if _key(node.outputs[0]) in env:
                continue
            if node.name in LEAVES:
                leaf = node.params["value"]
                env[_key(node.outputs[0])] = leaf[()] if node.name == "literal" else leaf
                continue
            operands = [env[_key(v)] for v in node.operands]
            with _jax.user_context(node.source, node.context):
                if node in made:
                    params, cuts = made[node]
                    operands = [_cut(a, along, flow.lanes) for a, along in zip(operands, cuts, strict=True)]
                    results = _jax.bind(node.primitive, params, operands)
                else:
                    results = emit_node(node, operands)
            env.update(zip(map(_key, node.outputs), results, strict=True))
        return env[_key(out)]

    return run


def _known(body: Graph, axis: int) -> dict[tuple[int, int], State]:
    *fixed, x = body.inputs
    return {_key(x): Lane(axis), **{_key(v): FREE for v in fixed}}


def _key(value: Value) -> tuple[int, int]:
    return value.node.number, value.index


def _cut(array: Any, axis: int | None, lanes: int) -> Any:
    """An array that is the same all along an axis, as short as its partners have become."""
    return array if axis is None else lax.slice_in_dim(array, 0, array.shape[axis] // lanes, axis=axis)


def _changes(
    body: Graph, node: Node, states: dict[tuple[int, int], State], lanes: int
) -> tuple[dict[str, Any], Sequence[int | None]] | None:
    """The parameters of the equation for one lane, and the axes along which other operands are to be cut."""
    (out,) = node.outputs if len(node.outputs) == 1 else (None,)
    if out is None or not isinstance(lane := states[_key(out)], Lane):
        return None
    axis, none = lane.axis, [None] * len(node.operands)
    laned = [k for k, v in enumerate(node.operands) if states[_key(v)] != FREE]
    if is_elementwise(node):
        cuts: list[int | None] = []
        for k, v in enumerate(node.operands):
            cut = k not in laned and len(v.shape) == len(out.shape) and v.shape[axis] > 1
            if cut and thin(body, v, [axis]) is None:
                return None
            cuts.append(axis if cut else None)
        return node.params, cuts
    if len(laned) != 1:
        return None
    if node.name in ("transpose", "squeeze", "reduce_sum"):
        return node.params, none
    if node.name == "triangular_solve":
        columns = len(out.shape) - (1 if node.params["left_side"] else 2)
        return (node.params, none) if laned == [1] and axis == columns else None
    if node.name == "dot_general":
        _, batch = node.params["dimension_numbers"]
        return (node.params, none) if axis >= len(batch[0]) else None
    if node.name in SIZES and laned == [0]:
        name = SIZES[node.name]
        place = states[_key(node.operands[0])].axis if node.name == "gather" else axis  # pyright: ignore
        sizes = list(node.params[name])
        if sizes[place] % (lane.stride * lanes) or (node.name == "reshape" and node.params["dimensions"] is not None):
            return None
        sizes[place] //= lanes
        return {**node.params, name: tuple(sizes)}, none
    return None


# Equations that move elements, with the parameter that says how long the axes are.
SIZES = {"reshape": "new_sizes", "broadcast_in_dim": "shape", "gather": "slice_sizes"}
