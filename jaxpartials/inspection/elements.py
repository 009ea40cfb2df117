"""Which elements of arrays can be other than zero, and which are read: one array of truth values for each value.

An axis along which nothing varies has length 1, so the arrays are small however large the values are. What no rule
knows is taken to be nonzero and to be read.
"""

import functools
import math
from collections.abc import Iterable, Mapping, Sequence

import jax
import numpy as np

from jaxpartials import _jax
from jaxpartials.graph import cost
from jaxpartials.graph.graph import CONSTANT, LITERAL, Node, Value
from jaxpartials.structure.numbers import computed, moved, plain

LARGEST = 1 << 20  # elements of an array that is looked into
Mask = np.ndarray


# ---- numbers known at trace time


class Known:
    """The numbers of values that depend on no input, as far as they are counted and compared to be made."""

    def __init__(self) -> None:
        self.arrays: dict[Value, np.ndarray] = {}

    def note(self, node: Node) -> None:
        if any(v not in self.arrays for v in node.operands if v.node.name not in (LITERAL, CONSTANT)):
            return
        if any(math.prod(v.shape) > LARGEST for v in (*node.outputs, *node.operands)):
            return
        operands = [self.get(v) for v in node.operands]
        if any(array is None for array in operands):
            return
        arrays = computed(node, operands)
        if arrays is not None:
            self.arrays |= {v: np.asarray(a).astype(v.dtype) for v, a in zip(node.outputs, arrays, strict=True)}

    def get(self, value: Value) -> np.ndarray | None:
        if value.node.name in (LITERAL, CONSTANT) and value not in self.arrays:
            array = value.node.params["value"]
            if isinstance(array, _jax.Tracer) or math.prod(value.shape) > LARGEST or not plain(value):
                return None
            if value.node.name == CONSTANT and value.aval.dtype.kind == "f" and len(value.shape) < 2:
                return None
            self.arrays[value] = np.asarray(array)
        return self.arrays.get(value)


# ---- elements that come only together

# How many of the last axes are the matrix that is taken apart, or the vector of pivots.
FACTORED = {
    **dict.fromkeys(
        ("cholesky", "eig", "eigh", "geqp3", "geqrf", "hessenberg", "householder_product", "lu", "ormqr"), 2
    ),
    **dict.fromkeys(("cholesky_update", "qr", "schur", "svd", "symmetric_product", "tridiagonal"), 2),
    "lu_pivots_to_permutation": 1,
}
CUMULATIVE = frozenset({"cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp"})
MOVING = frozenset({
    "broadcast_in_dim", "reshape", "squeeze", "transpose", "slice", "split", "rev", "copy", "stop_gradient",
    "concatenate", "stack",
})  # fmt: skip
# Each element of the result can be had without the others.
APART = MOVING | frozenset(cost.ELEMENTWISE) | frozenset({
    "integer_pow", "copy_p", "iota", "pad", "tile", "unstack", "dot_general", "conv_general_dilated", "gather",
    "dynamic_slice", "dynamic_update_slice", "argmax", "argmin", "select_and_scatter_add", "select_and_gather_add",
    "scatter", "scatter-add", "scatter-sub", "scatter-mul", "scatter-min", "scatter-max", "bitcast_convert_type",
    "optimization_barrier", "expand_dims", "random_gamma",
})  # fmt: skip


def needed(node: Node, asked: Sequence[Mask | None]) -> list[Mask | None]:
    """Which elements of the outputs have to be computed where these are read.

    The leading vectors of a matrix take all of it, the last of cumulative sums the sums before it; of many matrices, or
    of many rows, each is apart. Of what is not known all is computed, if any is.
    """
    if node.name in APART or node.name.startswith(("reduce", "argm")) or all(mask is None for mask in asked):
        return list(asked)
    given = [everywhere(v, False) if mask is None else mask for v, mask in zip(node.outputs, asked, strict=True)]
    if node.name in CUMULATIVE:
        return [_before(given[0], node.params["axis"], node.params["reverse"], node.outputs[0].shape)]
    axis = _axis(node)
    if node.name in FACTORED or node.name == "fft":
        apart = _batch(node)
        batches = [mask.any(axis=tuple(range(apart, mask.ndim))) for mask in given]
        together = np.logical_or.reduce(np.broadcast_arrays(*batches))
        return [compressed(together.reshape(*together.shape, *[1] * (mask.ndim - apart))) for mask in given]
    if axis is not None:
        together = np.logical_or.reduce(np.broadcast_arrays(*(mask.any(axis=axis, keepdims=True) for mask in given)))
        return [compressed(together) for _ in given]
    some = any(mask.any() for mask in given)
    return [everywhere(v, some) for v in node.outputs]


def _batch(node: Node) -> int:
    """How many of the first axes count matrices, or rows, that are taken apart by themselves."""
    return len(node.operands[0].shape) - FACTORED.get(node.name, len(node.params.get("fft_lengths", ())))


def _axis(node: Node) -> int | None:
    """The one axis along which elements come only together, if it is one."""
    if node.name == "sort":
        return node.params["dimension"]
    if node.name == "top_k":
        return node.params.get("axis", len(node.outputs[0].shape) - 1)
    if node.name == "triangular_solve":
        return len(node.outputs[0].shape) - (2 if node.params["left_side"] else 1)
    return None


def _before(mask: Mask, axis: int, reverse: bool, shape: Sequence[int]) -> Mask:
    """What comes before the elements that are read, and these."""
    wide = np.broadcast_to(mask, [shape[a] if a == axis else n for a, n in enumerate(mask.shape)])
    if reverse:
        return compressed(np.logical_or.accumulate(wide, axis))
    return compressed(np.flip(np.logical_or.accumulate(np.flip(wide, axis), axis), axis))


# ---- masks


def compressed(mask: Mask) -> Mask:
    """The same truth values, with axes of length 1 where nothing varies."""
    for axis, n in enumerate(mask.shape):
        if n > 1:
            first = mask.take([0], axis)
            if (mask == first).all():
                mask = first
    return mask


def whole(mask: Mask, shape: Sequence[int]) -> Mask | None:
    return None if math.prod(shape) > LARGEST else np.broadcast_to(mask, shape)


def everywhere(value: Value, truth: bool = True) -> Mask:
    return _everywhere(len(value.shape), truth)


@functools.cache
def _everywhere(rank: int, truth: bool) -> Mask:
    mask = np.full((1,) * rank, truth)
    mask.flags.writeable = False
    return mask


def part(mask: Mask) -> float:
    """The part of the elements for which it is true."""
    if mask.size == 1:
        return float(mask.item())
    return float(mask.mean()) if mask.size else 0.0


# Zero for a zero operand.
ODD = frozenset({
    "neg", "convert_element_type", "copy", "real", "imag", "conj", "stop_gradient", "reduce_precision", "sin", "tan",
    "tanh", "asin", "atan", "sinh", "asinh", "atanh", "expm1", "log1p", "sqrt", "cbrt", "erf", "abs", "sign", "square",
    "copy_p",
})  # fmt: skip
SUMS = frozenset({"add", "sub", "add_any"})
# Each element of the result is computed from the element in the same place of every operand.
ELEMENTWISE = ODD | SUMS | frozenset({
    "mul", "div", "max", "min", "exp", "log", "cos", "logistic", "pow", "integer_pow", "rsqrt", "select_n", "eq", "ne",
    "lt", "le", "gt", "ge", "and", "or", "not", "is_finite", "one_minus_square", "erfc", "erf_inv", "exp2", "atan2",
    "cosh", "acosh", "acos", "floor", "ceil", "round", "rem", "nextafter", "lgamma", "digamma",
})  # fmt: skip


def nonzero(node: Node, masks: Mapping[Value, Mask], known: Known) -> list[Mask]:
    """Which elements of the outputs can be other than zero."""
    arrays = [known.arrays.get(v) for v in node.outputs]
    if all(array is not None for array in arrays):
        return [compressed(np.asarray(array != 0)) for array in arrays]
    everything = [everywhere(v) for v in node.outputs]
    x = [masks[v] for v in node.operands]
    if all(mask.all() for mask in x):
        return everything
    out = node.outputs[0]
    if node.name in ODD or (node.name == "integer_pow" and node.params["y"] > 0):
        return [x[0]]
    if node.name in SUMS:
        return [compressed(x[0] | x[1])]
    if node.name == "mul":
        return [compressed(x[0] & x[1])]
    if node.name == "div":
        return [x[0]]
    if node.name == "select_n":
        return [compressed(_chosen(node, x[1:], known, np.logical_or.reduce(np.broadcast_arrays(*x[1:]))))]
    if node.name == "reduce_sum":
        return [compressed(x[0].any(axis=tuple(node.params["axes"])))]
    if node.name == "dot_general":
        found = _product(node, *x)
        return everything if found is None else [found]
    wide = [whole(mask, v.shape) for mask, v in zip(x, node.operands, strict=True)]
    if node.name == "pad" and wide[0] is not None:
        return [everywhere(out) if x[1].any() else _spread(node, wide[0])]
    if all(mask is not None for mask in wide):
        found = moved(node, wide)  # pyright: ignore[reportArgumentType]
        if found is not None:
            return [compressed(mask) for mask in found]
    if node.name in LINEAR and not x[0].any():
        return [everywhere(v, False) for v in node.outputs]
    return everything


def _spread(node: Node, mask: Mask) -> Mask:
    """Which elements of a padded array are not padding."""
    out, config = node.outputs[0], node.params["padding_config"]
    if any(lo < 0 or hi < 0 for lo, hi, _ in config):
        return everywhere(out)
    found = np.zeros(out.shape, bool)
    found[tuple(slice(lo, n - hi, k + 1) for (lo, hi, k), n in zip(config, out.shape, strict=True))] = mask
    return compressed(found)


# Zero for a zero first operand, whatever the others are.
LINEAR = frozenset({"gather", "dynamic_slice", "cumsum", "conv_general_dilated", "reduce_window_sum", "reshape"}) | {
    "broadcast_in_dim", "transpose", "slice", "split", "squeeze", "rev",
}  # fmt: skip


def _chosen(node: Node, cases: Sequence[Mask], known: Known, otherwise: Mask) -> Mask:
    which = known.get(node.operands[0])
    if which is None or which.shape != node.outputs[0].shape or len(cases) > 30:
        return otherwise
    return np.choose(which.astype(int), [np.broadcast_to(case, which.shape) for case in cases])


def _product(node: Node, x: Mask, y: Mask) -> Mask | None:
    """any_k x[b, i, k] and y[b, j, k]"""
    (cx, cy), (bx, by) = node.params["dimension_numbers"]
    fx = [a for a in range(x.ndim) if a not in (*cx, *bx)]
    fy = [a for a in range(y.ndim) if a not in (*cy, *by)]
    shapes = [node.operands[0].shape[a] for a in cx]
    vary = [x.shape[a] > 1 or y.shape[b] > 1 for a, b in zip(cx, cy, strict=True)]
    depth = [n if v else 1 for n, v in zip(shapes, vary, strict=True)]
    left = x.transpose([*bx, *fx, *cx])
    right = y.transpose([*by, *cy, *fy])
    nb, k = len(bx), math.prod(depth)
    left = np.broadcast_to(left, (*left.shape[: nb + len(fx)], *depth))
    right = np.broadcast_to(right, (*right.shape[:nb], *depth, *right.shape[nb + len(cy) :]))
    rows, columns = left.shape[nb : nb + len(fx)], right.shape[nb + len(cy) :]
    if max(left.size, right.size, math.prod(rows) * math.prod(columns)) > LARGEST:
        return None
    a = left.reshape(*left.shape[:nb], math.prod(rows), k).astype(np.float32)
    b = right.reshape(*right.shape[:nb], k, math.prod(columns)).astype(np.float32)
    made = np.matmul(a, b) > 0
    return compressed(made.reshape((*made.shape[:nb], *rows, *columns)))


def read(
    node: Node, asked: Sequence[Mask | None], nonzero: Mapping[Value, Mask], known: Known, sparse: bool
) -> list[Mask | None]:
    """Which elements of the operands are read for these elements of the outputs.

    With `sparse`, what is multiplied by zero, or not selected, is not read; without, this is so of a diagonal alone,
    which JAX takes in this way.
    """
    everything: list[Mask | None] = [everywhere(v) for v in node.operands]
    if all(mask is None for mask in asked):
        return [None] * len(node.operands)
    out, d = node.outputs[0], asked[0]
    if len(node.outputs) == 1 and d is not None:
        if not d.any():
            return [everywhere(v, False) for v in node.operands]
        if node.name in ELEMENTWISE:
            found = [d] * len(node.operands)
            if node.name == "mul" and (sparse or any(of_a_diagonal(known.get(v)) for v in node.operands)):
                found = [compressed(d & nonzero[node.operands[1]]), compressed(d & nonzero[node.operands[0]])]
            if node.name == "select_n":
                which = known.get(node.operands[0])
                if which is not None and which.shape == out.shape and (sparse or of_a_diagonal(which)):
                    found = [d, *(compressed(d & (which.astype(int) == k)) for k in range(len(node.operands) - 1))]
            return [m if v.shape == out.shape else everywhere(v) for m, v in zip(found, node.operands, strict=True)]
        if d.all():
            if node.name == "slice" and math.prod(node.operands[0].shape) <= LARGEST:
                return [_placed(node, [d], node.operands[0])]
            if node.name not in ("dynamic_slice", "gather"):
                return everything
        if node.name.startswith("reduce_") and len(node.operands) == 1 and "axes" in node.params:
            return [np.expand_dims(d, tuple(node.params["axes"]))]
        if node.name == "dot_general":
            return list(_factors_read(node, d))
    if node.name in MOVING:
        operand = node.operands[0]
        if node.name == "concatenate":
            return _parts_read(node, asked)
        if node.name == "stack":
            return _rows_read(node, asked)
        if math.prod(operand.shape) > LARGEST or math.prod(out.shape) > LARGEST:
            return everything
        return [_placed(node, asked, operand), *everything[1:]]
    if node.name in ("gather", "dynamic_slice"):
        return [_indexed(node, d, known), *everything[1:]]
    if node.name in CUMULATIVE or node.name == "sort":
        return needed(node, asked)[:1] * len(node.operands)
    if node.name in FACTORED or node.name == "fft":
        return _batches_read(node, asked)
    return everything


def of_a_diagonal(which: np.ndarray | None) -> bool:
    """Whether an array is zero but for one number in each row and column, or fewer, of matrices."""
    if which is None or which.ndim < 2 or min(which.shape[-2:]) < 2:
        return False
    chosen = which != 0
    return bool(chosen.any() and (chosen.sum(axis=-1) <= 1).all() and (chosen.sum(axis=-2) <= 1).all())


def _placed(node: Node, asked: Sequence[Mask | None], operand: Value) -> Mask:
    """The elements of an operand that are moved to the elements asked for."""
    positions = np.arange(math.prod(operand.shape)).reshape(operand.shape)
    found = moved(node, [positions, *(np.zeros(v.shape) for v in node.operands[1:])])
    if found is None:
        return everywhere(operand)
    mask = np.zeros(positions.size, bool)
    for places, wanted in zip(found, asked, strict=True):
        if wanted is not None:
            mask[places[np.broadcast_to(wanted, places.shape)]] = True
    return compressed(mask.reshape(operand.shape))


def _parts_read(node: Node, asked: Sequence[Mask | None]) -> list[Mask | None]:
    axis, (d,) = node.params["dimension"], asked
    assert d is not None
    found: list[Mask | None] = []
    start = 0
    for v in node.operands:
        n = v.shape[axis]
        along = [slice(None)] * d.ndim
        if d.shape[axis] > 1:
            along[axis] = slice(start, start + n)
        found.append(compressed(d[tuple(along)]))
        start += n
    return found


def _rows_read(node: Node, asked: Sequence[Mask | None]) -> list[Mask | None]:
    axis, (d,) = node.params["axis"], asked
    assert d is not None
    rows = (d.take([i if d.shape[axis] > 1 else 0], axis).squeeze(axis) for i in range(len(node.operands)))
    return list(map(compressed, rows))


def _batches_read(node: Node, asked: Sequence[Mask | None]) -> list[Mask | None]:
    """All of each matrix of which anything is read."""
    (found, *_), apart = needed(node, asked), _batch(node)
    assert found is not None
    shape = found.shape[:apart]
    return [found.reshape(*shape, *[1] * (len(v.shape) - apart)) for v in node.operands]


def _factors_read(node: Node, d: Mask) -> Iterable[Mask]:
    (cx, cy), (bx, by) = node.params["dimension_numbers"]
    x, y = node.operands
    fx = [a for a in range(len(x.shape)) if a not in (*cx, *bx)]
    fy = [a for a in range(len(y.shape)) if a not in (*cy, *by)]
    batch = len(bx)
    for own, other, b, free, operand in (
        (range(batch, batch + len(fx)), range(batch + len(fx), d.ndim), bx, fx, x),
        (range(batch + len(fx), d.ndim), range(batch, batch + len(fx)), by, fy, y),
    ):
        kept = d.any(axis=tuple(other))
        shape = [1] * len(operand.shape)
        order = [*b, *free]
        lengths = [d.shape[a] for a in (*range(batch), *own)]
        for a, n in zip(order, lengths, strict=True):
            shape[a] = n
        ranked = kept.reshape(lengths).transpose(sorted(range(len(order)), key=lambda i: order[i]))
        yield compressed(ranked.reshape(shape))


def _indexed(node: Node, d: Mask | None, known: Known) -> Mask:
    """What an operation reads at indices that are known."""
    operand = node.operands[0]
    indices = [known.get(v) for v in node.operands[1:]]
    if d is None or any(index is None for index in indices) or math.prod(operand.shape) > LARGEST:
        return everywhere(operand)
    positions = np.arange(math.prod(operand.shape), dtype=np.int32).reshape(operand.shape)
    if node.name == "dynamic_slice":
        sizes = node.params["slice_sizes"]
        starts = [
            min(max(int(i), 0), n - size)  # pyright: ignore[reportArgumentType]
            for i, n, size in zip(indices, operand.shape, sizes, strict=True)
        ]
        places = positions[tuple(slice(i, i + size) for i, size in zip(starts, sizes, strict=True))]
    else:
        with jax.ensure_compile_time_eval():
            params = {**node.params, "fill_value": -1 if "fill_value" in node.params else None}
            (made,) = _jax.bind(node.primitive, params, [positions, *indices])
        places = np.asarray(made)
    mask = np.zeros(positions.size, bool)
    wanted = places[np.broadcast_to(d, places.shape)]
    mask[wanted[(wanted >= 0) & (wanted < positions.size)]] = True
    return compressed(mask.reshape(operand.shape))
