"""Where elements lie: rules for transposes, reshapes, broadcasts and slices, and for what is summed along axes."""

import functools
from collections.abc import Sequence

import numpy as np
from jax import lax

from jaxpartials.graph.graph import Graph, Rule, Value
from jaxpartials.rewrite import local
from jaxpartials.rewrite.local import (
    broadcast,
    equation,
    fill,
    is_number,
    made_by,
    number,
    ordinary,
    reshape,
    says_nothing,
    transpose,
)

RULES: dict[str, list[Rule]] = {}
rewrite = functools.partial(local.rewrite, RULES)


# ---- arrangement of elements


@rewrite("transpose")
def merge_transposes(graph, x, *, permutation):
    """transpose(x, identity) -> x, and transpose(transpose(x, p), q) -> transpose(x, p∘q)."""
    if permutation == tuple(range(len(permutation))):
        return x
    if made_by(x, "transpose"):
        inner = x.node.params["permutation"]
        return transpose(graph, x.node.operands[0], [inner[axis] for axis in permutation])
    return None


@rewrite("transpose")
def transpose_broadcast(graph, x, *, permutation):
    """transpose(broadcast(x)) -> broadcast(transpose(x)), which moves the fewer elements of x. Exact."""
    return within_broadcast(graph, x, permutation) if becomes_broadcast(x, permutation) else None


@rewrite("transpose")
def transpose_outer_product(graph, x, *, permutation):
    """transpose(broadcast(u) * broadcast(v)) -> broadcast(u) * broadcast(v), axes in the new order already. Exact.

    Only where no transpose of a whole operand is left: that one would sink below the product again, without end.
    """
    if not made_by(x, "mul") or not all(
        y.aval.ndim == x.aval.ndim and becomes_broadcast(y, permutation) for y in x.node.operands
    ):
        return None
    u, v = (within_broadcast(graph, y, permutation) for y in x.node.operands)
    return equation(graph, lax.mul_p, u, v, **x.node.params)


def becomes_broadcast(x: Value, permutation: Sequence[int]) -> bool:
    """Whether x transposed is a broadcast of fewer elements than x has, or of elements in the order they are in."""
    if not made_by(x, "broadcast_in_dim") or len(x.node.operands) != 1:
        return False
    (inner,) = x.node.operands
    dimensions = places(x, permutation)
    return ordinary(inner.aval) and (dimensions == sorted(dimensions) or inner.aval.size < x.aval.size)


def within_broadcast(graph: Graph, x: Value, permutation: Sequence[int]) -> Value:
    (inner,) = x.node.operands
    dimensions = places(x, permutation)
    if dimensions != sorted(dimensions):
        inner = transpose(graph, inner, sorted(range(len(dimensions)), key=dimensions.__getitem__))
    return broadcast(graph, inner, [x.shape[axis] for axis in permutation], sorted(dimensions))


def places(x: Value, permutation: Sequence[int]) -> list[int]:
    """Where the axes of the array that x is a broadcast of are once x is transposed."""
    new = {axis: place for place, axis in enumerate(permutation)}
    return [new[axis] for axis in x.node.params["broadcast_dimensions"]]


@rewrite("transpose")
def transpose_dot_outer_product(graph, x, *, permutation):
    """transpose(dot(u, v)) -> dot(v, u), where nothing is contracted and the axes of u and v change places. Exact."""
    if not made_by(x, "dot_general") or x.node.params["dimension_numbers"] != (((), ()), ((), ())):
        return None
    u, v = x.node.operands
    swapped = (*range(u.aval.ndim, x.aval.ndim), *range(u.aval.ndim))
    return equation(graph, lax.dot_general_p, v, u, **x.node.params) if tuple(permutation) == swapped else None


@rewrite("reshape")
def merge_reshapes(graph, x, *, new_sizes):
    """reshape(x, shape of x) -> x, and reshape(y) -> reshape(x) for y that is x reshaped or squeezed."""
    if new_sizes == x.shape:
        return x
    if reshapes(x) or made_by(x, "squeeze") or expands(x):
        return reshape(graph, x.node.operands[0], new_sizes)
    return None


def reshapes(x: Value) -> bool:
    return made_by(x, "reshape") and x.node.params["dimensions"] is None


def expands(x: Value) -> bool:
    """Whether x is a broadcast that only adds axes of size 1."""
    return made_by(x, "broadcast_in_dim") and len(x.node.operands) == 1 and (
        int(np.prod(x.shape)) == int(np.prod(x.node.operands[0].shape))
    )  # fmt: skip


@rewrite("reshape")
def reshape_filled(graph, x, *, new_sizes):
    """reshape(broadcast(s)) -> broadcast(s) for a scalar s."""
    if made_by(x, "broadcast_in_dim") and x.node.operands[0].shape == ():
        return broadcast(graph, x.node.operands[0], new_sizes)
    return None


@rewrite("squeeze")
def merge_squeezes(graph, x, *, dimensions):
    """squeeze of no axes -> x; squeeze of a squeeze -> one squeeze; squeeze of a reshape -> one reshape."""
    if not dimensions:
        return x
    if made_by(x, "squeeze"):
        (origin,) = x.node.operands
        gone = x.node.params["dimensions"]
        kept = [axis for axis in range(len(origin.shape)) if axis not in gone]
        both = sorted([*gone, *(kept[axis] for axis in dimensions)])
        return equation(graph, lax.squeeze_p, origin, dimensions=tuple(both))
    if reshapes(x):
        return reshape(graph, x.node.operands[0], without(x.shape, dimensions))
    return None


@rewrite("squeeze")
def squeeze_broadcast(graph, x, *, dimensions):
    """squeeze(broadcast(x)) -> broadcast(x) without those axes, when they are not axes of x."""
    if not made_by(x, "broadcast_in_dim") or len(x.node.operands) > 1:
        return None
    placed = x.node.params["broadcast_dimensions"]
    if set(placed) & set(dimensions):
        return None
    moved = [axis - sum(gone < axis for gone in dimensions) for axis in placed]
    return broadcast(graph, x.node.operands[0], without(x.shape, dimensions), moved)


def without(shape: Sequence[int], axes: Sequence[int]) -> tuple[int, ...]:
    return tuple(size for axis, size in enumerate(shape) if axis not in axes)


@rewrite("broadcast_in_dim")
def merge_broadcasts(graph, x, *, shape, broadcast_dimensions):
    """broadcast(x, shape of x) -> x, and broadcast(broadcast(x)) -> one broadcast."""
    if shape == x.shape and broadcast_dimensions == tuple(range(len(shape))):
        return x
    if made_by(x, "broadcast_in_dim") and len(x.node.operands) == 1:
        inner = x.node.params["broadcast_dimensions"]
        return broadcast(graph, x.node.operands[0], shape, [broadcast_dimensions[axis] for axis in inner])
    return None


@rewrite("broadcast_in_dim")
def broadcast_squeezed(graph, x, *, shape, broadcast_dimensions):
    """broadcast(squeeze(x)) -> broadcast(x), when every axis taken away has a new one to go to."""
    if not made_by(x, "squeeze"):
        return None
    (origin,) = x.node.operands
    kept = iter(broadcast_dimensions)
    gone = set(x.node.params["dimensions"])
    new, free = [], 0
    for axis in range(len(origin.shape)):
        if axis not in gone:
            free = next(kept) + 1
            new.append(free - 1)
        elif free < len(shape) and free not in broadcast_dimensions:
            new.append(free)
            free += 1
        else:
            return None
    return broadcast(graph, origin, shape, new)


@rewrite("slice")
def drop_whole_slice(graph, x, *, start_indices, limit_indices, strides):
    """x[0:n] -> x when n is the size of every axis."""
    return x if limit_indices == x.shape and not any(start_indices) and set(strides or (1,)) <= {1} else None


@rewrite("slice")
def slice_broadcast(graph, x, *, start_indices, limit_indices, strides):
    """broadcast(x)[...] -> broadcast(x) to the smaller shape, when no axis of x itself is cut."""
    if not made_by(x, "broadcast_in_dim") or len(x.node.operands) > 1:
        return None
    steps = strides or (1,) * len(x.shape)
    cuts = zip(start_indices, limit_indices, steps, strict=True)
    shape = tuple(len(range(start, limit, step)) for start, limit, step in cuts)
    placed = x.node.params["broadcast_dimensions"]
    if any(shape[axis] != x.shape[axis] for axis in placed):
        return None
    return broadcast(graph, x.node.operands[0], shape, placed)


@rewrite("dynamic_slice")
def drop_whole_dynamic_slice(graph, x, *starts, slice_sizes):
    """dynamic_slice(x, i, shape of x) -> x: JAX moves the start to where the slice fits."""
    return x if slice_sizes == x.shape else None


@rewrite("dynamic_update_slice")
def drop_whole_update(graph, x, update, *starts):
    """dynamic_update_slice(x, y, i) -> y when y is as large as x."""
    return update if update.shape == x.shape and update.dtype == x.dtype else None


@rewrite("pad")
def drop_empty_padding(graph, x, value, *, padding_config):
    """pad(x, nothing) -> x."""
    return x if all(tuple(widths) == (0, 0, 0) for widths in padding_config) else None


@rewrite("concatenate")
def drop_single_concatenation(graph, x, *others, dimension):
    """concatenate([x]) -> x."""
    return None if others else x


@rewrite("split")
def drop_single_split(graph, x, *, sizes, axis):
    """split(x, one piece) -> x."""
    return x if len(sizes) == 1 else None


@rewrite("rev")
def drop_double_reversal(graph, x, *, dimensions):
    """rev(x, no axes) -> x, and rev(rev(x, axes), axes) -> x."""
    if not dimensions:
        return x
    same = made_by(x, "rev") and set(x.node.params["dimensions"]) == set(dimensions)
    return x.node.operands[0] if same else None


# ---- reductions and contractions

REDUCTIONS = tuple(f"reduce_{kind}" for kind in ("sum", "prod", "max", "min", "and", "or", "xor"))


@rewrite(*REDUCTIONS)
def reduce_nothing(graph, x, *, axes):
    """A reduction over no axes -> x; over axes of size 1 -> squeeze. Exact but for -0.0, as in x + 0."""
    if not axes:
        return x
    if all(x.shape[axis] == 1 for axis in axes):
        return equation(graph, lax.squeeze_p, x, dimensions=tuple(sorted(axes)))
    return None


@rewrite("reduce_sum")
def sum_zeros(graph, x, *, axes):
    """sum(0) -> 0."""
    return fill(graph, 0, x.dtype, without(x.shape, axes)) if is_number(x, 0) else None


def reduce_transposed(primitive, graph, x, *, axes, params):
    """reduce(transpose(x)) -> reduce(x), when the axes that stay keep their order. To rounding."""
    if not made_by(x, "transpose"):
        return None
    permutation = x.node.params["permutation"]
    stay = [origin for axis, origin in enumerate(permutation) if axis not in axes]
    if stay != sorted(stay):
        return None
    gone = tuple(sorted(permutation[axis] for axis in axes))
    return equation(graph, primitive, x.node.operands[0], **{**params, "axes": gone})


for _name in REDUCTIONS:
    rewrite(_name)(functools.partial(reduce_transposed, getattr(lax, f"{_name}_p")))


@rewrite("dot_general")
def contract_transposed(graph, x, y, *, dimension_numbers, precision, preferred_element_type, params):
    """dot(transpose(x), y) -> dot(x, y) along x's own axes, if its free axes keep order. To rounding."""
    (contracted_x, contracted_y), (batch_x, batch_y) = dimension_numbers
    new_x = own_axes(x, contracted_x, batch_x)
    new_y = own_axes(y, contracted_y, batch_y)
    if new_x is None and new_y is None:
        return None
    if new_x is not None:
        x, (contracted_x, batch_x) = x.node.operands[0], new_x
    if new_y is not None:
        y, (contracted_y, batch_y) = y.node.operands[0], new_y
    numbers = (contracted_x, contracted_y), (batch_x, batch_y)
    return equation(graph, lax.dot_general_p, x, y, **{**params, "dimension_numbers": numbers})


def own_axes(x: Value, *groups: Sequence[int]) -> list[tuple[int, ...]] | None:
    """The axes of the array that x is a transpose of, if its axes outside of the groups keep their order."""
    if not made_by(x, "transpose"):
        return None
    permutation = x.node.params["permutation"]
    taken = {axis for group in groups for axis in group}
    free = [origin for axis, origin in enumerate(permutation) if axis not in taken]
    if free != sorted(free):
        return None
    return [tuple(permutation[axis] for axis in group) for group in groups]


@rewrite("dot_general")
def contract_before_broadcast(graph, x, y, *, dimension_numbers, precision, preferred_element_type, params):
    """dot(broadcast(x), y) -> broadcast(dot(x, y)) along free axes: equal rows computed once. To rounding.

    The seed of a lane is the same row for every lane: without this, the first layer would multiply each of
    them.
    """
    (contracted_x, contracted_y), (batch_x, batch_y) = dimension_numbers
    thin_x, spread_x = thinned(graph, x, {*contracted_x, *batch_x})
    thin_y, spread_y = thinned(graph, y, {*contracted_y, *batch_y})
    if not spread_x and not spread_y:
        return None
    small = equation(graph, lax.dot_general_p, thin_x, thin_y, **params)
    free_x = [axis for axis in range(len(x.shape)) if axis not in {*contracted_x, *batch_x}]
    free_y = [axis for axis in range(len(y.shape)) if axis not in {*contracted_y, *batch_y}]
    shape = [x.shape[a] for a in batch_x] + [x.shape[a] for a in free_x] + [y.shape[a] for a in free_y]
    return broadcast(graph, small, shape, range(len(shape)))


def thinned(graph: Graph, x: Value, needed: set[int]) -> tuple[Value, bool]:
    """x with size 1 along the axes, outside of `needed`, that it only repeats; and whether there are any."""
    if not made_by(x, "broadcast_in_dim"):
        return x, False
    inner = x.node.operands[0]
    dimensions = x.node.params["broadcast_dimensions"]
    own = {outer for axis, outer in enumerate(dimensions) if inner.shape[axis] == x.shape[outer]}
    repeated = [a for a in range(len(x.shape)) if a not in own and a not in needed and x.shape[a] > 1]
    if not repeated or not ordinary(inner.aval):
        return x, False
    shape = [1 if axis in repeated else size for axis, size in enumerate(x.shape)]
    return broadcast(graph, inner, shape, dimensions), True


# ---- transposes move towards the outputs, where they meet and cancel

ELEMENTWISE = """
    neg sign floor ceil round is_finite abs not real imag conj convert_element_type reduce_precision
    exp exp2 log expm1 log1p tanh sin cos tan asin acos atan sinh cosh asinh acosh atanh logistic
    sqrt rsqrt cbrt square integer_pow erf erfc erf_inv lgamma digamma
    add sub mul div rem pow max min atan2 nextafter and or xor complex eq ne lt le gt ge
    shift_left shift_right_logical shift_right_arithmetic select_n clamp
"""


def sink_transposes(primitive, graph, operands, params):
    """f(transpose(x, p), transpose(y, p), c) -> transpose(f(x, y, c), p), f elementwise, c known. Exact."""
    permutation = None
    for operand in operands:
        if made_by(operand, "transpose"):
            permutation = permutation or operand.node.params["permutation"]
            if operand.node.params["permutation"] != permutation:
                return None
        elif operand.shape and number(operand) is None:
            return None
    sharding = params.get("sharding")
    if permutation is None or (sharding is not None and not says_nothing(sharding)):
        return None
    if not all(ordinary(operand.aval) for operand in operands):
        return None
    inside = []
    for operand in operands:
        if made_by(operand, "transpose"):
            operand = operand.node.operands[0]
        elif operand.shape:
            shape = [operand.shape[axis] for axis in np.argsort(permutation)]
            operand = broadcast(graph, operand.node.operands[0], shape)
        inside.append(operand)
    return transpose(graph, equation(graph, primitive, *inside, **params), permutation)


for _name in ELEMENTWISE.split():
    RULES.setdefault(_name, []).append(functools.partial(sink_transposes, getattr(lax, f"{_name}_p")))
