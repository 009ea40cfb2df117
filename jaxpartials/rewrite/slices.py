"""One equation for all slices of an axis: what it is for each of them, with the axis gone.

An axis goes through an equation when slice i of the output is the same function of slice i of the operands for every
i. The axes column of `rules` says which axis of an operand slice i is taken from; that the function is the same for
every i holds when every other operand that has the axis is constant along it.

This is the inverse of `batch`: there an equation gets an axis, here it loses one.
"""

import functools
from collections.abc import Sequence
from typing import Any

from jax import lax

from jaxpartials.graph.graph import LEAVES, Graph, Node, Value, freeze
from jaxpartials.rewrite.local import ordinary
from jaxpartials.structure.axes import Flow
from jaxpartials.structure.axes_rules import elementwise
from jaxpartials.structure.lanes import FREE, Lane
from jaxpartials.structure.rules import RULES, SAME

DEEPEST = 60  # operands behind operands looked at to prove that a value is constant along an axis

# Slice i has a function of its own, by the group it lies in.
UNEQUAL = frozenset({"ragged_dot_general", "optimization_barrier"})

Origins = tuple[int | None, ...]
Known = dict[tuple[Value, tuple[int, ...]], Value | None]


def is_elementwise(node: Node) -> bool:
    row = RULES.get(node.name)
    return row is not None and row.axes is elementwise


def plain(node: Node) -> bool:
    """Whether an equation is a primitive on arrays of numbers, with no effects and no program inside."""
    return (
        node.name not in LEAVES
        and not node.effects
        and (not node.bodies or node.name.startswith("scatter"))
        and node.name not in UNEQUAL
        and node.name in RULES
        and RULES[node.name].linear != SAME
        and all(ordinary(v.aval) for v in (*node.operands, *node.outputs))
        and node.params.get("sharding") is None
        and node.params.get("out_sharding") is None
    )


def origins(node: Node, index: int, axis: int) -> Origins | None:
    """For each operand, its axis that goes to `axis` of output `index`: None where it has none.

    An axis of length 1 that is stretched goes there too. The answer is None where the axis does not go through.
    """
    out = node.outputs[index]
    if not all(all(v.shape) for v in (out, *node.operands)):
        return None  # nothing to be said of no elements
    if node.name == "reshape" and node.params["dimensions"] is not None:
        return None  # a transpose within
    if node.name == "conv_general_dilated" and not _is_batch(node, axis):
        return None  # features come in groups
    if is_elementwise(node):
        return tuple(axis if len(v.shape) == len(out.shape) else None for v in node.operands)
    if node.name == "broadcast_in_dim":
        placed = [int(a) for a in node.params["broadcast_dimensions"]]
        return (placed.index(axis) if axis in placed else None,)
    length = out.shape[axis]
    flow = Flow(length, 0)
    found: list[int | None] = []
    for k, operand in enumerate(node.operands):
        carried = [a for a, n in enumerate(operand.shape) if n == length and _carries(node, k, a, flow, index, axis)]
        if len(carried) > 1 or not (carried or _stands_apart(node, k)):
            return None
        found.append(carried[0] if carried else None)
    return tuple(found) if any(a is not None for a in found) else None


def _is_batch(node: Node, axis: int) -> bool:
    """Whether an axis of a convolution is that of its images, each convolved by itself."""
    return axis == node.params["dimension_numbers"].out_spec[0] and node.params["batch_group_count"] == 1


def _stands_apart(node: Node, k: int) -> bool:
    """Whether an operand that does not have the axis is the same for every slice, not a part of some of them."""
    if node.name == "gather" or node.name.startswith("scatter"):
        return k == 1  # the indices
    whole = node.name in ("dot_general", "conv_general_dilated", "triangular_solve", "tridiagonal_solve")
    return whole or not node.operands[k].shape


def _carries(node: Node, k: int, a: int, flow: Flow, index: int, axis: int) -> bool:
    states = [Lane(a) if i == k else FREE for i in range(len(node.operands))]
    return flow.step(node, states)[index] == Lane(axis)


def lost(places: Sequence[Origins | None], operands: int) -> list[list[int]]:
    """For each operand, its axes among these origins."""
    return [sorted({p[k] for p in places if p is not None and p[k] is not None}) for k in range(operands)]  # pyright: ignore


def thin(graph: Graph, value: Value, axes: Sequence[int], known: Known | None = None, depth: int = 0) -> Value | None:
    """A value without axes along which all its slices are equal; None where that is not evident.

    `known` keeps the answers.
    """
    if not axes:
        return value
    key = value, tuple(sorted(axes))
    known = {} if known is None else known
    if key not in known:
        known[key] = _thin(graph, value, key[1], known, depth)
    return known[key]


def _thin(graph: Graph, value: Value, axes: tuple[int, ...], known: Known, depth: int) -> Value | None:
    node = value.node
    if all(value.shape[a] == 1 for a in axes):
        return squeeze(graph, value, axes)
    if not plain(node) or depth > DEEPEST or len(node.outputs) > 1 or not node.operands:
        return None
    places = [origins(node, 0, a) for a in axes]
    if any(place is None for place in places):
        return None
    drops = lost(places, len(node.operands))
    operands = []
    for operand, drop in zip(node.operands, drops, strict=True):
        thinned = thin(graph, operand, drop, known, depth + 1)
        if thinned is None:
            return None
        operands.append(thinned)
    return sliced(graph, node, 0, operands, drops, axes)


# ---- small equations


class Parameters:
    """The parameters of an equation, as a key."""

    def __init__(self, params: dict[str, Any]):
        self.params, self.key = params, freeze(params)

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Parameters) and self.key == other.key


@functools.lru_cache(maxsize=4096)
def _avals(primitive: Any, operands: tuple[Any, ...], parameters: Parameters) -> list[Any]:
    avals, _ = primitive.abstract_eval(*operands, **parameters.params)
    return list(avals) if primitive.multiple_results else [avals]


def make(graph: Graph, primitive: Any, operands: Sequence[Value], params: dict[str, Any], like: Node) -> list[Value]:
    """An equation in the place of `like`."""
    avals = _avals(primitive, tuple(v.aval for v in operands), Parameters(params))
    bodies = like.bodies if primitive is like.primitive else ()
    return list(
        graph.add(
            primitive, operands, params, avals, bodies=bodies, opaque=bool(bodies),
            source=like.source, context=like.context,
        )
    )  # fmt: skip


def reshaped(graph: Graph, value: Value, shape: Sequence[int]) -> Value:
    if tuple(shape) == value.shape:
        return value
    params = {"new_sizes": tuple(shape), "dimensions": None, "sharding": None}
    return make(graph, lax.reshape_p, [value], params, value.node)[0]


def regrouped(old: Sequence[int], new: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """How a reshape pairs axes, none of length 0: runs of old and of new axes, as short as may be, of equal sizes."""
    groups: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(old) or j < len(new):
        mine, theirs, m, n = [], [], 1, 1
        while m != n or not (mine or theirs):
            if m <= n and i < len(old):
                mine.append(i)
                m, i = m * old[i], i + 1
            else:
                theirs.append(j)
                n, j = n * new[j], j + 1
        groups.append((mine, theirs))
    return groups


def squeeze(graph: Graph, value: Value, axes: Sequence[int]) -> Value:
    node = value.node
    if node.name == "broadcast_in_dim" and len(node.operands) == 1:
        (inner,) = node.operands
        drop = [p for p, a in enumerate(node.params["broadcast_dimensions"]) if a in axes]
        return sliced(graph, node, 0, [squeeze(graph, inner, drop) if drop else inner], [drop], axes)
    if node.name == "dot_general" and plain(node):
        places = [origins(node, 0, a) for a in axes]
        drops = lost(places, 2)
        if None not in places and all(
            v.node.name == "broadcast_in_dim" or not drop for v, drop in zip(node.operands, drops, strict=True)
        ):
            pairs = zip(node.operands, drops, strict=True)
            return sliced(graph, node, 0, [squeeze(graph, v, drop) if drop else v for v, drop in pairs], drops, axes)
    return reshaped(graph, value, without(value.shape, axes))


def expanded(graph: Graph, value: Value, axes: Sequence[int], rank: int) -> Value:
    """The value with axes of length 1 put where `axes` are in the result of that rank."""
    return expanded_at(graph, value, [a for a in range(rank) if a not in axes], rank)


def expanded_at(graph: Graph, value: Value, places: Sequence[int], rank: int) -> Value:
    """The value with its own axes at these places of that rank, and axes of length 1 elsewhere."""
    shape = [1] * rank
    for a, n in zip(places, value.shape, strict=True):
        shape[int(a)] = n
    return spread(graph, value, shape, places)


def spread(graph: Graph, value: Value, shape: Sequence[int], places: Sequence[int]) -> Value:
    if tuple(shape) == value.shape:
        return value
    params = {"shape": tuple(shape), "broadcast_dimensions": tuple(places), "sharding": None}
    return make(graph, lax.broadcast_in_dim_p, [value], params, value.node)[0]


def transposed(graph: Graph, value: Value, permutation: Sequence[int]) -> Value:
    if list(permutation) == list(range(len(permutation))):
        return value
    return make(graph, lax.transpose_p, [value], {"permutation": tuple(permutation)}, value.node)[0]


def without(entries: Sequence[Any], axes: Sequence[int]) -> tuple[Any, ...]:
    return tuple(entry for a, entry in enumerate(entries) if a not in axes)


def renumbered(axes: Sequence[int], gone: Sequence[int]) -> tuple[int, ...]:
    """What axes are called once others are gone."""
    return tuple(int(a) - sum(g < a for g in gone) for a in axes)


# ---- the equation on a slice


def sliced(
    graph: Graph, node: Node, index: int, operands: Sequence[Value], drops: Sequence[Sequence[int]], gone: Sequence[int]
) -> Value:
    """Output `index` of the equation on operands that have lost the axes `drops`, so that it has lost `gone`.

    The axes are those that `origins` pairs.
    """
    params = PARAMS.get(node.name)
    if is_elementwise(node) or params is not None:
        changed = params(node, drops, gone) if params is not None else node.params
        if node.name in ("dynamic_slice", "dynamic_update_slice"):
            operands = _starts(node, operands, drops)
        return make(graph, node.primitive, operands, changed, node)[index]
    # Axes of length 1 do as well for all others.
    kept = [
        expanded(graph, new, drop, len(old.shape)) if drop else new
        for new, old, drop in zip(operands, node.operands, drops, strict=True)
    ]
    changed = dict(node.params)
    if node.name == "gather":
        changed["slice_sizes"] = tuple(1 if a in drops[0] else n for a, n in enumerate(node.params["slice_sizes"]))
    result = make(graph, node.primitive, kept, changed, node)[index]
    return reshaped(graph, result, without(result.shape, gone))


def _starts(node: Node, operands: Sequence[Value], drops: Sequence[Sequence[int]]) -> list[Value]:
    arrays = 1 if node.name == "dynamic_slice" else 2
    return [*operands[:arrays], *without(operands[arrays:], drops[0])]


def _broadcast(node, drops, gone):
    placed = without(node.params["broadcast_dimensions"], drops[0])
    shape = without(node.params["shape"], gone)
    return {**node.params, "shape": shape, "broadcast_dimensions": renumbered(placed, gone)}


def _transpose(node, drops, gone):
    return {"permutation": renumbered(without(node.params["permutation"], gone), drops[0])}


def _slice(node, drops, gone):
    return {name: None if p is None else without(p, gone) for name, p in node.params.items()}


def _dot_general(node, drops, gone):
    contracted, batch = node.params["dimension_numbers"]
    numbers = tuple(
        tuple(renumbered([a for a in axes if a not in drop], drop) for axes, drop in zip(pair, drops, strict=True))
        for pair in (contracted, batch)
    )
    return {**node.params, "dimension_numbers": numbers}


def _axes(name):
    return lambda node, drops, gone: {**node.params, name: renumbered(node.params[name], drops[0])}


def _axis(name):
    return lambda node, drops, gone: {**node.params, name: renumbered([node.params[name]], drops[0])[0]}


PARAMS = {
    "broadcast_in_dim": _broadcast,
    "transpose": _transpose,
    "slice": _slice,
    "dot_general": _dot_general,
    "pad": lambda node, drops, gone: {"padding_config": without(node.params["padding_config"], gone)},
    "dynamic_slice": lambda node, drops, gone: {"slice_sizes": without(node.params["slice_sizes"], gone)},
    "dynamic_update_slice": lambda node, drops, gone: node.params,
    "squeeze": _axes("dimensions"),
    "rev": _axes("dimensions"),
    "concatenate": _axis("dimension"),
    "split": _axis("axis"),
    **{f"reduce_{kind}": _axes("axes") for kind in ("sum", "max", "min", "prod")},
    **{name: _axis("axis") for name in ("cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp")},
}


def _reshape(node, drops, gone):
    return {**node.params, "new_sizes": without(node.params["new_sizes"], gone)}


PARAMS["reshape"] = _reshape
