"""Arithmetic, choice, dtypes and complex numbers: rules for what happens to each element by itself."""

import functools
from typing import Any

import jax
import numpy as np
from jax import lax

from jaxpartials.graph.graph import Graph, Rule, Value
from jaxpartials.rewrite import local
from jaxpartials.rewrite.local import (
    equation,
    fill,
    is_integral,
    is_number,
    is_real,
    joint_shape,
    made_by,
    number,
    ordinary,
    spread,
)

RULES: dict[str, list[Rule]] = {}
rewrite = functools.partial(local.rewrite, RULES)


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
