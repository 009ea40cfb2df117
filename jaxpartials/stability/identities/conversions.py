"""Conversions from one floating-point type to another that are the identity of real numbers.

JAX sums halves in float32: of x in float16, `jnp.mean(x)` is x widened, summed, divided and rounded again. Read as
mathematics neither conversion does anything. Other roundings are what the program says and stay.
"""

import functools
from typing import Any

import jax.numpy as jnp

from jaxpartials.graph.graph import Value
from jaxpartials.rewrite.local import is_real
from jaxpartials.structure.normal_form import Form, NormalForms

# What may stand between a sum and its rounding.
BETWEEN = frozenset({"broadcast_in_dim", "reshape", "squeeze", "expand_dims", "copy", "div", "mul"})


def is_exact(value: Value) -> bool:
    """Whether a value is a conversion of its operand that changes no number, but for the rounding of a wider sum."""
    node = value.node
    if node.name != "convert_element_type":
        return False
    (inner,) = node.operands
    if inner.dtype == value.dtype:
        return True
    if not (is_real(inner.dtype) and is_real(value.dtype)):
        return False
    return holds(value.dtype, inner.dtype) or (holds(inner.dtype, value.dtype) and _is_sum(inner))


@functools.cache
def holds(wide: Any, narrow: Any) -> bool:
    """Whether one floating-point type has all numbers of another."""
    one, other = jnp.finfo(wide), jnp.finfo(narrow)
    return one.nmant >= other.nmant and one.maxexp >= other.maxexp and one.minexp <= other.minexp


def _is_sum(value: Value) -> bool:
    """Whether a value is a sum over axes, or that times a single number."""
    node = value.node
    while node.name in BETWEEN:
        if node.name in ("div", "mul") and node.operands[1].shape != ():
            return False
        node = node.operands[0].node
    return node.name == "reduce_sum"


class RealForms(NormalForms):
    """Forms that are equal for values equal as real numbers, in whatever type these are held."""

    def _form(self, value: Value) -> Form:
        return self._forms[value.node.operands[0]] if is_exact(value) else super()._form(value)
