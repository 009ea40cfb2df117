"""What is known about one value: the number that it is, what a function was applied to, whether it is negative."""

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from jax import lax

from jaxpartials import stable
from jaxpartials.graph.graph import LITERAL, Graph, Value
from jaxpartials.rewrite.local import equation, fill, is_real, ordinary
from jaxpartials.stability.identities.conversions import is_exact
from jaxpartials.stability.identities.templates import arguments

# They change the place of an element, or its type from weak to not weak, never its value.
VIEWS = frozenset({"broadcast_in_dim", "reshape", "squeeze", "expand_dims", "copy", "convert_element_type"})

# What people have replaced by hand already.
OPERATIONS = {"tanh": stable.tanh, "logistic": stable.sigmoid}


def plain(value: Value) -> Value:
    """The same value without conversions of its type that say nothing of real numbers."""
    while value.node.name == "copy" or is_exact(value):
        value = value.node.operands[0]
    return value


def number(value: Value) -> Fraction | None:
    """The number that every element of a value is known to be."""
    node = value.node
    while node.name in VIEWS:
        node = node.operands[0].node
    if node.name == "sub" and len(value.shape) == 0:  # the count of a variance: n − ddof
        one, other = map(number, node.operands)
        return None if one is None or other is None else one - other
    if node.name != LITERAL:
        return None
    found = node.params["value"]
    if found.dtype.kind not in "fiu" and not is_real(found.dtype):
        return None
    n = float(found)
    return Fraction(n) if math.isfinite(n) else None


def applied(value: Value, function: str) -> Value | None:
    """What a function of one argument was applied to, by the primitive of its name or by the operation of `stable`."""
    node = value.node
    if node.name == function:
        return node.operands[0]
    if node.name == "custom_jvp_call" and function in OPERATIONS:
        found = arguments(lambda one, other: one is other, OPERATIONS[function], 1, value)
        return None if found is None else found[0]
    return None


def root_of(value: Value) -> str:
    """The primitive that a value is the result of; a power of ½ is a root."""
    node = value.node
    return "sqrt" if node.name == "pow" and number(node.operands[1]) == Fraction(1, 2) else node.name


def is_numeric(value: Value) -> bool:
    """Whether this is an array of real floating-point numbers without an explicit sharding."""
    return ordinary(value.aval) and is_real(value.dtype)


def fill_with(graph: Graph, scalar: Value, shape: Sequence[int]) -> Value:
    return equation(
        graph, lax.broadcast_in_dim_p, scalar, shape=tuple(shape), broadcast_dimensions=(), sharding=None
    ) if shape else scalar  # fmt: skip


def times(graph: Graph, n: Fraction, value: Value) -> Value:
    """n times a value."""
    if n == 1:
        return value
    if n == -1:
        return equation(graph, lax.neg_p, value)
    return equation(graph, lax.mul_p, value, fill(graph, float(n), value.dtype, ()), out_dtype=None)


def converted(graph: Graph, value: Value, dtype: Any) -> Value:
    return equation(graph, lax.convert_element_type_p, value, new_dtype=dtype, weak_type=False, sharding=None)


def is_nonnegative(value: Value, depth: int = 8) -> bool:
    """Whether no element of a value can be below zero, as far as can be told."""
    node, n = value.node, number(value)
    if n is not None:
        return n >= 0
    if node.name in ("exp", "exp2", "square", "abs", "sqrt", "logistic", "cosh"):
        return True
    if node.name == "integer_pow" and node.params["y"] % 2 == 0:
        return True
    if node.name == "mul" and node.operands[0] is node.operands[1]:
        return True
    passes = node.name in VIEWS or node.name in (
        "add",
        "mul",
        "div",
        "max",
        "reduce_sum",
        "reduce_max",
        "stop_gradient",
    )
    return depth > 0 and passes and all(is_nonnegative(v, depth - 1) for v in node.operands)
