"""Indices that only count: `x[jnp.arange(n), k]` takes row i for i, and so keeps lanes apart."""

import numpy as np

from jaxpartials import _jax
from jaxpartials.graph.graph import CONSTANT, LITERAL, Value, reach
from jaxpartials.structure.numbers import numbers

LARGEST = 1 << 22  # elements; what is larger is not looked into
# What index arithmetic is made of; nothing else is computed while a program is only being looked at.
ARITHMETIC = frozenset({
    CONSTANT, LITERAL,
    "add", "and", "broadcast_in_dim", "clamp", "concatenate", "convert_element_type", "copy", "div", "eq", "ge",
    "gt", "iota", "le", "lt", "max", "min", "mul", "ne", "not", "or", "rem", "reshape", "rev", "select_n",
    "slice", "squeeze", "stack", "sub", "tile", "transpose",
})  # fmt: skip


def counted_axis(indices: Value, position: int | None) -> int | None:
    """The axis along which `indices[..., position]` is 0, 1, 2, ...; None if there is none or it is not known."""
    if position is None:
        return None
    column = _column(indices, position)
    if column is None:
        return None
    for axis, length in enumerate(column.shape):
        count = np.arange(length).reshape([-1 if a == axis else 1 for a in range(column.ndim)])
        if length > 1 and (column == count).all():
            return axis
    return None


def _column(indices: Value, position: int) -> np.ndarray | None:
    """`indices[..., position]`, where it can be computed now."""
    node, last = indices.node, len(indices.shape) - 1
    if node.name == "concatenate" and node.params["dimension"] == last:
        for part in node.operands:
            if position < part.shape[last]:
                return _column(part, position)
            position -= part.shape[last]
    if node.name == "stack" and node.params["axis"] == last:
        return _known(node.operands[position])
    array = _known(indices)
    return None if array is None else array[..., position]


def _known(value: Value) -> np.ndarray | None:
    """The value, where it depends on no input and on nothing that is being traced."""
    if np.prod(value.shape) > LARGEST:
        return None
    for node in reach([value]):
        if node.name not in ARITHMETIC or isinstance(node.params.get("value"), _jax.Tracer):
            return None
    return numbers(value)
