"""How each kind of primitive carries lanes from its operands to its outputs.

A rule is `rule(node, states, flow)`, with the states of the operands, at least one of them not `FREE`. It answers with
one state for all outputs or with a list, or raises `Mixes` with a phrase that follows the primitive's name.
`flow.lanes` is B. What depends on one loop iteration alone never comes here.
"""

from collections.abc import Callable, Sequence
from typing import Any

from jaxpartials.graph.graph import Node
from jaxpartials.structure.indices import counted_axis
from jaxpartials.structure.lanes import FREE, Lane, Mixed, Mixes, State, common, lane_of, moved, reshaped

AxesRule = Callable[[Node, Sequence[State], Any], State | Sequence[State]]


def only(states: Sequence[State], *positions: int) -> None:
    """Only these operands may depend on the lanes."""
    for i, state in enumerate(states):
        if isinstance(state, Mixed):
            raise Mixes(state)
        if i not in positions and state != FREE:
            raise Mixes(f"depends on the lanes through its operand {i}")


# ---- element by element


def elementwise(node: Node, states: Sequence[State], flow: Any) -> State:
    """Operands of the output's rank; an axis of length 1, or a scalar, is repeated."""
    return common(states)


def each(node: Node, states: Sequence[State], flow: Any) -> Sequence[State]:
    """Output i is operand i."""
    return states


def leading(node: Node, states: Sequence[State], flow: Any) -> State:
    """The operands' own axes come first and are kept, as far as the outputs have them."""
    found = lane_of(common(states))
    if any(found.axis >= len(v.shape) or v.shape[found.axis] % (found.stride * flow.lanes) for v in node.outputs):
        raise Mixes("does not keep the lane axis")
    return found


# ---- moving elements


def broadcast_in_dim(node: Node, states: Sequence[State], flow: Any) -> State:
    lane = lane_of(states[0])
    only(states, 0)
    axis = int(node.params["broadcast_dimensions"][lane.axis])
    if node.outputs[0].shape[axis] != node.operands[0].shape[lane.axis]:
        raise Mixes("repeats the lane axis")
    return moved(lane, axis)


def reshape(node: Node, states: Sequence[State], flow: Any) -> State:
    only(states, 0)
    lane, shape = lane_of(states[0]), node.operands[0].shape
    order = node.params["dimensions"]
    if order is not None:  # transposed first
        lane, shape = moved(lane, list(order).index(lane.axis)), [shape[a] for a in order]
    found = reshaped(lane, shape, node.outputs[0].shape, flow.lanes)
    if found is None:
        raise Mixes("splits the lane axis")
    return found


def transpose(node: Node, states: Sequence[State], flow: Any) -> State:
    lane = lane_of(states[0])
    return moved(lane, [int(a) for a in node.params["permutation"]].index(lane.axis))


def squeeze(node: Node, states: Sequence[State], flow: Any) -> State:
    return _without(lane_of(states[0]), node.params["dimensions"], "drops the lane axis")


def stack(node: Node, states: Sequence[State], flow: Any) -> State:
    lane = lane_of(common(states))
    return moved(lane, lane.axis + (lane.axis >= node.params["axis"]))


def unstack(node: Node, states: Sequence[State], flow: Any) -> State:
    return _without(lane_of(states[0]), (node.params["axis"],), "takes the lane axis apart")


def tile(node: Node, states: Sequence[State], flow: Any) -> State:
    # Repeating whole blocks along the lane axis keeps (i // stride) % B.
    lane = lane_of(states[0])
    return moved(lane, lane.axis + len(node.outputs[0].shape) - len(node.operands[0].shape))


def concatenate(node: Node, states: Sequence[State], flow: Any) -> State:
    lane = lane_of(common(states))
    if lane.axis == node.params["dimension"]:
        # Whole blocks of B lanes one after another keep (i // stride) % B.
        _whole_blocks(lane, flow, *(v.shape[lane.axis] for v in node.operands), what="joins parts of the lane axis")
    return lane


def split(node: Node, states: Sequence[State], flow: Any) -> State:
    lane = lane_of(states[0])
    if lane.axis == node.params["axis"]:
        _whole_blocks(lane, flow, *node.params["sizes"], what="splits the lane axis")
    return lane


def pad(node: Node, states: Sequence[State], flow: Any) -> State:
    only(states, 0)
    lane = lane_of(states[0])
    low, high, interior = node.params["padding_config"][lane.axis]
    if interior:
        raise Mixes("pads between the lanes")
    _whole_blocks(lane, flow, low, high, what="pads the lane axis")
    return lane


def slice_(node: Node, states: Sequence[State], flow: Any) -> State:
    lane = lane_of(states[0])
    steps = node.params["strides"]
    start, limit = node.params["start_indices"][lane.axis], node.params["limit_indices"][lane.axis]
    what = "takes a part of the lane axis"
    if steps is not None and steps[lane.axis] != 1:
        raise Mixes(what)
    _whole_blocks(lane, flow, start, limit - start, what=what)
    return lane


def rev(node: Node, states: Sequence[State], flow: Any) -> State:
    return _along(lane_of(states[0]), node.params["dimensions"], "reverses the lane axis")


def dynamic_slice(node: Node, states: Sequence[State], flow: Any) -> State:
    only(states, 0)
    lane = lane_of(states[0])
    if node.params["slice_sizes"][lane.axis] != node.operands[0].shape[lane.axis]:
        raise Mixes("takes a part of the lane axis")
    return lane


def dynamic_update_slice(node: Node, states: Sequence[State], flow: Any) -> State:
    only(states, 0, 1)
    lane = lane_of(common(states[:2]))
    whole, update = (v.shape[lane.axis] for v in node.operands[:2])
    if states[1] != FREE and whole != update:
        raise Mixes("writes at a place along the lane axis")
    return lane


def bitcast(node: Node, states: Sequence[State], flow: Any) -> State:
    lane = lane_of(states[0])
    if lane.axis >= min(len(node.operands[0].shape), len(node.outputs[0].shape)):
        raise Mixes("joins the lanes' bytes")
    return lane


def _along(lane: Lane, axes: Sequence[int], what: str) -> Lane:
    if lane.axis in [int(a) for a in axes]:
        raise Mixes(what)
    return lane


def _without(lane: Lane, axes: Sequence[int], what: str) -> Lane:
    _along(lane, axes, what)
    return moved(lane, lane.axis - sum(int(a) < lane.axis for a in axes))


def _whole_blocks(lane: Lane, flow: Any, *lengths: int, what: str) -> None:
    if any(int(n) % (lane.stride * flow.lanes) for n in lengths):
        raise Mixes(what)


# ---- reductions and scans along axes

REDUCTIONS = {
    "reduce_sum": "sums", "reduce_prod": "multiplies", "reduce_max": "takes the maximum",
    "reduce_min": "takes the minimum", "argmax": "takes the maximum", "argmin": "takes the minimum",
}  # fmt: skip


def reduce(node: Node, states: Sequence[State], flow: Any) -> State:
    """The arrays come first; a general `reduce` has their initial values, scalars, after them."""
    lane = lane_of(common(states))
    axes = node.params["axes"] if "axes" in node.params else node.params["dimensions"]
    return _without(lane, axes, f"{REDUCTIONS.get(node.name, 'reduces')} over the lane axis")


def cumulative(node: Node, states: Sequence[State], flow: Any) -> State:
    return _along(lane_of(states[0]), (node.params["axis"],), "accumulates along the lane axis")


def sort(node: Node, states: Sequence[State], flow: Any) -> State:
    """Every operand is put in the order of the keys, so all outputs depend on all operands."""
    return _along(lane_of(common(states)), (node.params["dimension"],), "sorts along the lane axis")


def top_k(node: Node, states: Sequence[State], flow: Any) -> State:
    axis = node.params.get("axis", node.params.get("reduction_dimension", -1))
    rank = len(node.operands[0].shape)
    return _along(lane_of(common(states)), (axis % rank,), "selects along the lane axis")


def fft(node: Node, states: Sequence[State], flow: Any) -> State:
    rank = len(node.operands[0].shape)
    transformed = range(rank - len(node.params["fft_lengths"]), rank)
    return _along(lane_of(states[0]), transformed, "transforms along the lane axis")


def window(node: Node, states: Sequence[State], flow: Any) -> State:
    """Windows over any axis but the lane axis. Scalars after the arrays are initial values."""
    lane = lane_of(common(states))
    params, axis = node.params, lane.axis
    trivial = {"window_dimensions": 1, "window_strides": 1, "padding": (0, 0), "base_dilation": 1}
    for name, plain in trivial.items():
        given = params.get(name)
        if given is not None and (tuple(given[axis]) if name == "padding" else given[axis]) != plain:
            raise Mixes("slides its window over the lane axis")
    return lane


# ---- contractions


def dot_general(node: Node, states: Sequence[State], flow: Any) -> State:
    (contracted, batch) = node.params["dimension_numbers"]
    carried = []
    for side in (0, 1):
        if states[side] == FREE:
            continue
        lane = lane_of(states[side])
        mine = [int(a) for a in batch[side]]
        summed = [int(a) for a in contracted[side]]
        if lane.axis in summed:
            raise Mixes("contracts the lane axis")
        if lane.axis in mine:
            carried.append(moved(lane, mine.index(lane.axis)))
            continue
        if states[1 - side] != FREE:
            raise Mixes("pairs every lane with every other")
        free = [a for a in range(len(node.operands[side].shape)) if a not in mine and a not in summed]
        before = len(mine)
        if side == 1:
            before += len(node.operands[0].shape) - len(batch[0]) - len(contracted[0])
        carried.append(moved(lane, before + free.index(lane.axis)))
    only(states, 0, 1)
    return common(carried)


def convolution(node: Node, states: Sequence[State], flow: Any) -> State:
    """Lanes along the batch, the features or the groups; with groups g of G, lane = (g // stride) % B."""
    params = node.params
    numbers = params["dimension_numbers"]
    lhs, out = node.operands[0], node.outputs[0]
    (batch, feature), (kernel_out, _) = numbers.lhs_spec[:2], numbers.rhs_spec[:2]
    batch_groups, feature_groups = params["batch_group_count"], params["feature_group_count"]
    groups = batch_groups * feature_groups  # one of them is 1
    per_group = out.shape[numbers.out_spec[1]] // max(groups, 1)
    carried = []
    if states[0] != FREE:
        lane = lane_of(states[0])
        axis, count = (batch, batch_groups) if lane.axis == batch else (feature, feature_groups)
        if lane.axis not in (batch, feature):
            raise Mixes("slides its window over the lane axis")
        inside = lhs.shape[axis] // max(count, 1)  # the length of one group
        if lane.axis == batch and inside % (lane.stride * flow.lanes) == 0:
            if states[1] != FREE:
                raise Mixes("pairs every lane with every other")
            return moved(lane, numbers.out_spec[0])
        if count == 1 or lane.stride % inside:
            raise Mixes("contracts the lane axis")
        carried.append(Lane(numbers.out_spec[1], lane.stride // inside * per_group))
    if states[1] != FREE:
        lane = lane_of(states[1])
        if lane.axis != kernel_out:
            raise Mixes("contracts the lane axis")
        carried.append(moved(lane, numbers.out_spec[1]))
    return common(carried)


def ragged_dot(node: Node, states: Sequence[State], flow: Any) -> State:
    """(m, k) rows in groups times (g, k, n): lanes along the rows, or along the columns of every group."""
    numbers = node.params["ragged_dot_dimension_numbers"]
    (contracted, batch) = numbers.dot_dimension_numbers
    rows = list(numbers.lhs_ragged_dimensions)
    only(states, 0)
    lane = lane_of(states[0])
    if list(batch[0]) or list(contracted[0]) != [1] or rows != [0] or lane.axis != 0:
        raise Mixes("may contract the lane axis")
    return lane


# ---- linear algebra on the last axes


def matrices(*ranks: int) -> AxesRule:
    """The operands' last axes (`ranks` says how many of each) are matrices or vectors, the others their batch."""

    def rule(node: Node, states: Sequence[State], flow: Any) -> State:
        lane = lane_of(common(states))
        for operand, rank in zip(node.operands, ranks * len(node.operands), strict=False):
            if lane.axis >= len(operand.shape) - rank:
                raise Mixes("works on whole matrices, and the lane axis is one of theirs")
        return lane

    return rule


def triangular_solve(node: Node, states: Sequence[State], flow: Any) -> State | Sequence[State]:
    """Each right-hand side is solved for by itself; else as all that works on matrices."""
    columns = len(node.outputs[0].shape) - (1 if node.params["left_side"] else 2)
    if states[0] == FREE and lane_of(states[1]).axis == columns:
        return states[1]
    return matrices(2, 2)(node, states, flow)


# ---- indexing


def gather(node: Node, states: Sequence[State], flow: Any) -> State:
    numbers, sizes = node.params["dimension_numbers"], node.params["slice_sizes"]
    operand, indices = node.operands
    out_rank = len(node.outputs[0].shape)
    offsets = [int(a) for a in numbers.offset_dims]
    # Where the axes of the indices (but the last) and the kept axes of the operand go.
    index_places = [a for a in range(out_rank) if a not in offsets]
    batching = [int(a) for a in numbers.operand_batching_dims]
    dropped = {int(a) for a in numbers.collapsed_slice_dims} | set(batching)
    kept = [a for a in range(len(operand.shape)) if a not in dropped]
    carried = []
    if states[0] != FREE:
        lane = lane_of(states[0])
        if lane.axis in batching:
            index_axis = int(numbers.start_indices_batching_dims[batching.index(lane.axis)])
            carried.append(moved(lane, index_places[index_axis]))
        elif lane.axis in kept and sizes[lane.axis] == operand.shape[lane.axis]:
            carried.append(moved(lane, offsets[kept.index(lane.axis)]))
        else:
            position = _position(numbers.start_index_map, lane.axis)
            index_axis = counted_axis(indices, position) if sizes[lane.axis] == 1 else None
            if index_axis is None or indices.shape[index_axis] != operand.shape[lane.axis]:
                raise Mixes("picks lanes by an index")
            carried.append(moved(lane, index_places[index_axis]))
    if states[1] != FREE:
        lane = lane_of(states[1])
        if lane.axis == len(indices.shape) - 1:
            raise Mixes("takes its indices from different lanes")
        carried.append(moved(lane, index_places[lane.axis]))
    return common(carried)


def scatter(node: Node, states: Sequence[State], flow: Any) -> State:
    numbers = node.params["dimension_numbers"]
    operand, indices, updates = node.operands
    if states[1] == FREE and states[2] == FREE:
        return states[0]  # each element of the operand stays where it is
    windows = [int(a) for a in numbers.update_window_dims]
    # Where the axes of the indices (but the last) lie in the updates, and which axis of the operand each window is.
    index_places = [a for a in range(len(updates.shape)) if a not in windows]
    batching = [int(a) for a in numbers.operand_batching_dims]
    dropped = {int(a) for a in numbers.inserted_window_dims} | set(batching)
    kept = [a for a in range(len(operand.shape)) if a not in dropped]

    def place(index_axis: int) -> int:
        """The operand's axis along which this axis of the indices runs."""
        partners = [int(a) for a in numbers.scatter_indices_batching_dims]
        if index_axis in partners:
            return batching[partners.index(index_axis)]
        for position, axis in enumerate(numbers.scatter_dims_to_operand_dims):
            whole = axis not in kept and operand.shape[axis] == indices.shape[index_axis]
            if whole and counted_axis(indices, position) == index_axis:
                return int(axis)
        raise Mixes("writes to lanes by an index")

    carried = [states[0]]
    if states[1] != FREE:
        lane = lane_of(states[1])
        if lane.axis == len(indices.shape) - 1:
            raise Mixes("takes its indices from different lanes")
        carried.append(moved(lane, place(lane.axis)))
    if states[2] != FREE:
        lane = lane_of(states[2])
        if lane.axis in windows:
            axis = kept[windows.index(lane.axis)]
            if operand.shape[axis] != updates.shape[lane.axis]:
                raise Mixes("writes at a place along the lane axis")
            carried.append(moved(lane, axis))
        else:
            carried.append(moved(lane, place(index_places.index(lane.axis))))
    return common(carried)


def _position(index_map: Sequence[int], axis: int) -> int | None:
    axes = [int(a) for a in index_map]
    return axes.index(axis) if axis in axes else None
