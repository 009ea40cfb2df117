"""Axes of length 1 are taken out of a program, so that equal work is equal equations whatever axes stand around it.

`jax.vmap` over one cotangent, and derivatives of one output, leave such axes everywhere. Exact.
"""

from collections.abc import Sequence

from jaxpartials.graph.graph import LEAVES, Graph, Node, Value, reach
from jaxpartials.rewrite.slices import Origins, expanded_at, lost, make, origins, plain, reshaped, sliced, spread


def without_unit_axes(graph: Graph, values: Sequence[Value]) -> list[Value]:
    """The same values, computed with as few axes of length 1 as may be."""
    made: dict[Value, tuple[Value, tuple[int, ...]]] = {}  # without some axes of length 1, and which

    def given(value: Value, gone: Sequence[int]) -> Value:
        """The value without just these axes."""
        small, dropped = made[value]
        if tuple(gone) == dropped:
            return small
        rank = len(value.shape)
        if not set(gone) <= set(dropped):
            return reshaped(graph, given(value, ()), [n for a, n in enumerate(value.shape) if a not in gone])
        left = [a for a in range(rank) if a not in gone]
        return expanded_at(graph, small, [left.index(a) for a in left if a not in dropped], len(left))

    for node in reach(values):
        if node.name in LEAVES or node.effects:
            made.update((v, (v, ())) for v in node.outputs)
            continue
        units, drops = _units(node)
        operands = [given(v, drop) for v, drop in zip(node.operands, drops, strict=True)]
        if units:
            made[node.outputs[0]] = stretched(graph, sliced(graph, node, 0, operands, drops, units)), units
            continue
        outputs: Sequence[Value] = node.outputs
        if any(new is not old for new, old in zip(operands, node.operands, strict=True)):
            outputs = graph.add(
                node.primitive, operands, node.params, [v.aval for v in node.outputs], name=node.name,
                bodies=node.bodies, opaque=node.opaque, source=node.source, context=node.context,
            )  # fmt: skip
        made.update((old, (stretched(graph, new), ())) for old, new in zip(node.outputs, outputs, strict=True))
    return [given(v, ()) for v in values]


def _units(node: Node) -> tuple[tuple[int, ...], list[tuple[int, ...]]]:
    """Axes of length 1 of the output that an equation can do without, and those of its operands."""
    none: list[tuple[int, ...]] = [()] * len(node.operands)
    if len(node.outputs) != 1 or not plain(node) or not node.operands:
        return (), none
    places: dict[int, Origins] = {}
    for axis, length in enumerate(node.outputs[0].shape):
        if length == 1 and (found := origins(node, 0, axis)) is not None:
            places[axis] = found
    drops = [tuple(drop) for drop in lost(list(places.values()), len(node.operands))]
    clear = all(v.shape[a] == 1 for drop, v in zip(drops, node.operands, strict=True) for a in drop)
    once = all(len([p for p in places.values() if p[k] is not None]) == len(drop) for k, drop in enumerate(drops))
    return (tuple(places), drops) if clear and once else ((), none)


def stretched(graph: Graph, value: Value) -> Value:
    """mul(broadcast(x), y) -> mul(x, y), where y has the axes that x is repeated along and x is left length 1."""
    node = value.node
    if node.name not in ("mul", "add", "sub") or not plain(node):
        return value
    operands = list(node.operands)
    for k in (0, 1):
        x, y = operands[k], operands[1 - k]
        if x.node.name != "broadcast_in_dim" or not (y.shape and x.shape):
            continue
        (inner, *_), placed = x.node.operands, x.node.params["broadcast_dimensions"]
        own = {a for p, a in enumerate(placed) if inner.shape[p] == x.shape[a]}
        shape = [1 if a not in own and y.shape[a] == n else n for a, n in enumerate(x.shape)]
        operands[k] = spread(graph, inner, shape, placed)
    if operands == list(node.operands):
        return value
    return make(graph, node.primitive, operands, node.params, node)[0]
