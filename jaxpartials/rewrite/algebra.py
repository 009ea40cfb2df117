"""Local algebra, applied before an equation becomes a node: `Graph(rules=RULES)`.

Every rule keeps every value: the same numbers, nan and inf included, up to rounding where its docstring says
so. The sign of a zero may change only where XLA changes it in the same way (x + 0). What is false for some
input is not here: 0 * x is nan where x is inf, x - x and x / x are nan there too.

Each rule makes a program smaller, or moves a transpose out of elementwise equations or into a broadcast, so
that applying rules ends.
Arrays with explicit shardings and extended dtypes (random keys) are left alone.
"""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax import lax

from jaxpartials import _jax
from jaxpartials.graph.graph import LITERAL, Graph, Rule, Value

RULES: dict[str, list[Rule]] = {}


def rewrite(*names: str) -> Callable[[Callable], Callable]:
    """Make a rule of a function of an equation's operands, and by keyword of the parameters it reads.

    The keyword `params` stands for all of them together. An equation with any other parameter that is set (a
    sharding, an output dtype) asks for something that the rule does not know about, and is left alone.
    """

    def enter(function: Callable) -> Callable:
        read = tuple(
            name
            for name, parameter in inspect.signature(function).parameters.items()
            if parameter.kind is parameter.KEYWORD_ONLY
        )

        @functools.wraps(function)
        def rule(graph: Graph, operands: Sequence[Value], params: dict[str, Any]) -> Value | None:
            for name, setting in params.items():
                if name not in read and setting and not says_nothing(setting):
                    return None
            for operand in operands:
                if not ordinary(operand.aval):
                    return None
            return function(graph, *operands, **{k: params if k == "params" else params[k] for k in read})

        for name in names:
            RULES.setdefault(name, []).append(rule)
        return function

    return enter


def says_nothing(setting: Any) -> bool:
    """Some releases write a sharding over no devices where others write None."""
    return getattr(getattr(setting, "mesh", None), "empty", False)


# ---- what the rules ask about values


@functools.lru_cache(maxsize=4096)
def ordinary(aval: Any) -> bool:
    """Whether this is an array of numbers or truth values without an explicit sharding."""
    return (
        isinstance(aval, _jax.ShapedArray)
        and isinstance(aval.dtype, np.dtype)
        and aval.dtype.names is None
        and all(axis is None for axis in aval.sharding.spec)
    )


def number(x: Value) -> np.ndarray | None:
    """The number that every element of x is known to be."""
    node = x.node
    if node.name == "broadcast_in_dim":
        node = node.operands[0].node
    return node.params["value"] if node.name == LITERAL else None


def is_number(x: Value, wanted: int) -> bool:
    found = number(x)
    return found is not None and bool(found == wanted)


def made_by(x: Value, name: str) -> bool:
    return x.node.name == name


@functools.cache
def is_real(dtype: Any) -> bool:
    return bool(jax.dtypes.issubdtype(dtype, np.floating))


@functools.cache
def is_integral(dtype: Any) -> bool:
    return bool(jax.dtypes.issubdtype(dtype, np.integer))


# ---- what the rules make


def equation(graph: Graph, primitive: Any, *operands: Value, **params: Any) -> Value:
    """A simpler equation in the place of the one that is being made."""
    aval, _ = primitive.abstract_eval(*(x.aval for x in operands), **params)
    source, context = graph.origin
    (out,) = graph.add(primitive, operands, params, [aval], source=source, context=context)
    return out


def broadcast(graph: Graph, x: Value, shape: Sequence[int], dimensions: Sequence[int] = ()) -> Value:
    return equation(
        graph, lax.broadcast_in_dim_p, x,
        shape=tuple(shape), broadcast_dimensions=tuple(dimensions), sharding=None,
    )  # fmt: skip


def reshape(graph: Graph, x: Value, shape: Sequence[int]) -> Value:
    return equation(graph, lax.reshape_p, x, new_sizes=tuple(shape), dimensions=None, sharding=None)


def transpose(graph: Graph, x: Value, permutation: Sequence[int]) -> Value:
    return equation(graph, lax.transpose_p, x, permutation=tuple(permutation))


def fill(graph: Graph, value: Any, dtype: Any, shape: Sequence[int]) -> Value:
    """The array of this shape that holds one number everywhere."""
    scalar = graph.literal(np.asarray(value, dtype), _jax.ShapedArray((), dtype))
    return broadcast(graph, scalar, shape) if shape else scalar


def joint_shape(x: Value, y: Value) -> tuple[int, ...]:
    """The shape of an elementwise equation: operands have one rank, or none, and axes of size 1 stretch."""
    if x.shape == y.shape or not y.shape:
        return x.shape
    if not x.shape:
        return y.shape
    return tuple(n if m == 1 else m for m, n in zip(x.shape, y.shape, strict=True))


def spread(graph: Graph, x: Value, shape: Sequence[int]) -> Value:
    """x in the shape of an elementwise equation that it is an operand of."""
    return x if x.shape == shape else broadcast(graph, x, shape, range(len(x.shape)))


# ---- arithmetic


@rewrite("mul")
def drop_unit_factor(graph, x, y):
    """1 * y -> y and x * 1 -> x.

    Exact. For complex x with infinite parts the product by definition has nan where x has none; XLA drops the
    factor all the same, so this is the value that compiled JAX gives.
    """
    if is_number(y, 1):
        return spread(graph, x, joint_shape(x, y))
    if is_number(x, 1):
        return spread(graph, y, joint_shape(x, y))
    return None


@rewrite("mul")
def negate_for_minus_one(graph, x, y):
    """(-1) * y -> -y for real and signed integer y. Exact: both only flip the sign."""
    if is_number(x, -1):
        x, y = y, x
    if is_number(y, -1) and x.dtype.kind != "c":
        return equation(graph, lax.neg_p, spread(graph, x, joint_shape(x, y)))
    return None


@rewrite("mul")
def cancel_two_signs(graph, x, y):
    """(-x) * (-y) -> x * y. Exact: rounding does not depend on signs."""
    if made_by(x, "neg") and made_by(y, "neg"):
        return equation(graph, lax.mul_p, x.node.operands[0], y.node.operands[0], out_dtype=None)
    return None


@rewrite("add", "add_any")
def drop_zero_term(graph, x, y):
    """x + 0 -> x and 0 + y -> y. Exact but for -0.0 + 0.0, which is 0.0; XLA makes it -0.0 too."""
    if is_number(y, 0):
        return spread(graph, x, joint_shape(x, y))
    if is_number(x, 0):
        return spread(graph, y, joint_shape(x, y))
    return None


@rewrite("add_any")
def add_is_add(graph, x, y):
    """add_any x y -> x + y: the sum that differentiation makes is an ordinary one."""
    return equation(graph, lax.add_p, x, y)


@rewrite("add")
def subtract_for_negated_term(graph, x, y):
    """x + (-y) -> x - y and (-x) + y -> y - x. Exact: that is how subtraction is defined."""
    if made_by(y, "neg"):
        return equation(graph, lax.sub_p, x, y.node.operands[0])
    if made_by(x, "neg"):
        return equation(graph, lax.sub_p, y, x.node.operands[0])
    return None


@rewrite("sub")
def drop_zero_subtrahend(graph, x, y):
    """x - 0 -> x. Exact but for -0.0 - (-0.0), which is 0.0; XLA makes it -0.0 too. 0 - y is not -y at 0."""
    return spread(graph, x, joint_shape(x, y)) if is_number(y, 0) else None


@rewrite("sub")
def add_for_negated_subtrahend(graph, x, y):
    """x - (-y) -> x + y. Exact: that is how subtraction is defined."""
    return equation(graph, lax.add_p, x, y.node.operands[0]) if made_by(y, "neg") else None


@rewrite("div")
def drop_unit_divisor(graph, x, y):
    """x / 1 -> x. Exact; for complex x see 1 * y."""
    return spread(graph, x, joint_shape(x, y)) if is_number(y, 1) else None


@rewrite("pow")
def drop_unit_exponent(graph, x, y):
    """x ** 1 -> x. Exact."""
    return spread(graph, x, joint_shape(x, y)) if x.dtype.kind != "c" and is_number(y, 1) else None


@rewrite("integer_pow")
def drop_unit_power(graph, x, *, y):
    """integer_pow(x, 1) -> x and integer_pow(x, 0) -> 1. Exact: JAX defines nan ** 0 as 1."""
    if y == 1:
        return x
    return fill(graph, 1, x.dtype, x.shape) if y == 0 else None


@rewrite("neg")
def drop_double_negation(graph, x):
    """-(-x) -> x. Exact."""
    return x.node.operands[0] if made_by(x, "neg") else None


def fold_arithmetic(operation, graph, x, y):
    """c + d, c - d, c * d -> the number, for known real c and d.

    IEEE arithmetic rounds alike everywhere; where processors differ (see `robust`) the equation stays.
    """
    c, d = number(x), number(y)
    if c is None or d is None or not (is_real(x.dtype) or is_integral(x.dtype)):
        return None
    with np.errstate(all="ignore"):
        result = np.asarray(operation(c, d))
    return fill(graph, result, x.dtype, joint_shape(x, y)) if all(map(robust, (c, d, result))) else None


def robust(value: np.ndarray) -> bool:
    """Whether every processor holds this number as NumPy does: no infinite, undefined or subnormal float."""
    if not is_real(value.dtype):
        return True
    return bool(value == 0) or bool(jax.numpy.finfo(value.dtype).tiny <= abs(value) < np.inf)


for _name, _operation in {"add": np.add, "sub": np.subtract, "mul": np.multiply}.items():
    rewrite(_name)(functools.partial(fold_arithmetic, _operation))


@rewrite("neg")
def fold_negation(graph, x):
    """-c -> the number, for a known real c. Exact."""
    c = number(x)
    if c is None or not (is_real(x.dtype) or is_integral(x.dtype)):
        return None
    with np.errstate(all="ignore"):
        return fill(graph, np.negative(c), x.dtype, x.shape)


@rewrite("max", "min", "and", "or")
def drop_equal_operands(graph, x, y):
    """max(x, x) -> x; the same for min, and, or. Exact."""
    return x if x is y else None


@rewrite("and")
def absorb_in_conjunction(graph, x, y):
    """x & True -> x and x & False -> False, for truth values."""
    return _absorb(graph, x, y, absorbing=False)


@rewrite("or")
def absorb_in_disjunction(graph, x, y):
    """x | False -> x and x | True -> True, for truth values."""
    return _absorb(graph, x, y, absorbing=True)


def _absorb(graph: Graph, x: Value, y: Value, absorbing: bool) -> Value | None:
    for this, other in ((x, y), (y, x)):
        known = number(this)
        if known is not None and known.dtype == np.bool_:
            return spread(graph, this if bool(known) is absorbing else other, joint_shape(x, y))
    return None


@rewrite("not")
def drop_double_complement(graph, x):
    """~~x -> x. Exact, for truth values and integers."""
    return x.node.operands[0] if made_by(x, "not") else None


# ---- choice


@rewrite("select_n")
def drop_needless_choice(graph, which, *cases):
    """select(p, x, x) -> x, and select(c, x0, x1, ...) -> xc for a known c."""
    if all(case is cases[0] for case in cases):
        return cases[0]
    c = number(which)
    return None if c is None or not 0 <= c < len(cases) else cases[int(c)]


@rewrite("clamp")
def drop_needless_clamp(graph, low, x, high):
    """clamp(l, clamp(l, x, h), h) -> clamp(l, x, h), and clamp(l, n, h) -> n for an integer n known to fit.

    The second is what remains of the index of a two-way branch, clamp(0, int(p), 1), when it is emitted anew.
    """
    if made_by(x, "clamp") and x.node.operands[0] is low and x.node.operands[2] is high:
        return x
    if not is_integral(x.dtype):
        return None
    least, most = number(low), number(high)
    known = bounds(x)
    if known is None or least is None or most is None:
        return None
    return x if least <= known[0] and known[1] <= most else None


def bounds(x: Value) -> tuple[int, int] | None:
    """The least and the largest integer that x can be, where that is evident."""
    if made_by(x, "convert_element_type") and x.node.operands[0].dtype == np.bool_:
        return 0, 1
    if made_by(x, "clamp"):
        least, most = number(x.node.operands[0]), number(x.node.operands[2])
        if least is not None and most is not None and least <= most:
            return int(least), int(most)
    c = number(x)
    return None if c is None else (int(c), int(c))


# ---- dtypes and complex numbers


@rewrite("copy")
def drop_copy(graph, x):
    """copy(x) -> x: arrays inside a program are never written to."""
    return x


@rewrite("convert_element_type")
def drop_conversion(graph, x, *, new_dtype, weak_type):
    """convert(x, dtype of x) -> x; only whether the dtype is weak may change."""
    return x if x.dtype == new_dtype else None


@rewrite("convert_element_type")
def merge_conversions(graph, x, *, new_dtype, weak_type):
    """convert(convert(x, d), e) -> convert(x, e), when every x is a d.

    Between integers conversion is modular, and so independent of the way; to a float it rounds once. From a
    float to an integer it depends on the float when it overflows, so there only the way back is dropped.
    """
    if not made_by(x, "convert_element_type") or not isinstance(new_dtype, np.dtype):
        return None
    (origin,) = x.node.operands
    if not ordinary(origin.aval) or not lossless(origin.dtype, x.dtype):
        return None
    if origin.dtype == new_dtype:
        return origin
    if x.dtype.kind in "iub" or is_real(new_dtype) or new_dtype.kind == "c":
        return equation(
            graph, lax.convert_element_type_p, origin, new_dtype=new_dtype, weak_type=weak_type, sharding=None
        )
    return None


@rewrite("convert_element_type")
def fold_conversion(graph, x, *, new_dtype, weak_type):
    """convert(c, d) -> the number, for a known real c that d holds exactly, or rounds from float to float."""
    c = number(x)
    if c is None or not isinstance(new_dtype, np.dtype) or new_dtype.kind == "c":
        return None
    with np.errstate(all="ignore"):
        result = np.asarray(c.astype(new_dtype))
        kept = result.astype(c.dtype) == c or (is_real(c.dtype) and is_real(new_dtype))
    return fill(graph, result, new_dtype, x.shape) if kept and robust(c) and robust(result) else None


@functools.cache
def lossless(a: Any, b: Any) -> bool:
    """Whether every number of dtype a is a number of dtype b."""
    if a == b:
        return True
    if a.kind in "biu" and b.kind in "iu":
        least, most = (0, 1) if a.kind == "b" else (np.iinfo(a).min, np.iinfo(a).max)
        return np.iinfo(b).min <= least and most <= np.iinfo(b).max
    if not is_real(b) or b.itemsize < 2:
        return False
    target = jax.numpy.finfo(b)
    if a.kind in "biu":
        digits = 1 if a.kind == "b" else np.iinfo(a).bits - (a.kind == "i")
        return digits <= target.nmant + 1 and digits < target.maxexp
    if not is_real(a) or a.itemsize < 2:
        return False
    given = jax.numpy.finfo(a)
    return given.nmant <= target.nmant and given.maxexp <= target.maxexp and given.minexp >= target.minexp


@rewrite("real")
def take_real_part(graph, z):
    """real(complex(x, y)) -> x. Exact."""
    return z.node.operands[0] if made_by(z, "complex") else None


@rewrite("imag")
def take_imaginary_part(graph, z):
    """imag(complex(x, y)) -> y. Exact."""
    return z.node.operands[1] if made_by(z, "complex") else None


@rewrite("complex")
def rejoin_parts(graph, x, y):
    """complex(real(z), imag(z)) -> z. Exact."""
    if made_by(x, "real") and made_by(y, "imag") and x.node.operands[0] is y.node.operands[0]:
        return x.node.operands[0]
    return None


@rewrite("conj")
def drop_double_conjugate(graph, z, *, input_dtype):
    """conj(conj(z)) -> z for complex z. Exact."""
    if made_by(z, "conj") and z.node.operands[0].dtype == z.dtype:
        return z.node.operands[0]
    return None


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
