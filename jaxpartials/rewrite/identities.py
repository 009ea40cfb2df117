"""Basis vectors in a program: constant arrays made by counting, and identity matrices among them."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxpartials.graph.graph import CONSTANT, Graph, Node, Value, reach
from jaxpartials.graph.trace import extend
from jaxpartials.rewrite.slices import plain, transposed
from jaxpartials.structure.indices import ARITHMETIC
from jaxpartials.structure.numbers import numbers

LARGEST = 1 << 20  # elements of a constant that is looked into
COUNTING = ARITHMETIC - {CONSTANT} | {"iota"}  # what such constants are made of


def varied(nodes: Sequence[Node]) -> set[int]:
    """The nodes that need basis vectors: constant arrays whose elements are made by counting."""
    known: set[int] = set()
    found: set[int] = set()
    for node in nodes:
        if node.name in COUNTING and all(v.node.number in known for v in node.operands):
            known.add(node.number)
            out = node.outputs[0]
            if jnp.issubdtype(out.dtype, jnp.floating) and len(out.shape) > 1 and not _uniform(out):
                found.add(node.number)
        elif any(v.node.number in found for v in node.operands):
            found.add(node.number)
    return found


def _uniform(value: Value) -> bool:
    while value.node.name in ("broadcast_in_dim", "convert_element_type", "reshape"):
        value = value.node.operands[0]
    return not value.shape


def identity(graph: Graph, n: int, dtype: Any) -> Value:
    return extend(graph, lambda: jnp.eye(n, dtype=dtype), [])


def is_identity(value: Value) -> bool:
    shape = value.shape
    if len(shape) != 2 or shape[0] != shape[1] or shape[0] < 2 or value.aval.size > LARGEST:
        return False
    if not jnp.issubdtype(value.dtype, jnp.inexact):
        return False
    seen, names, stack = set(), set(), [value.node]
    while stack:
        node = stack.pop()
        if node.name not in COUNTING:
            return False
        if node.number not in seen:
            seen.add(node.number)
            names.add(node.name)
            stack.extend(v.node for v in node.operands)
    return "iota" in names and bool((numbers(value) == np.eye(shape[0])).all())


def with_identities(graph: Graph, values: Sequence[Value]) -> list[Value]:
    """Every identity matrix is one and the same, however it was made."""
    known: set[int] = set()
    by = {}
    for node in reach(values):
        if node.name in COUNTING and all(v.node.number in known for v in node.operands):
            known.add(node.number)
            (out,) = node.outputs
            if is_identity(out):
                by[out] = identity(graph, out.shape[0], out.dtype)
    by = {old: new for old, new in by.items() if new is not old}
    moved = graph.replace(values, by)
    return [moved[v] for v in values]


def without_identities(graph: Graph, values: Sequence[Value]) -> list[Value]:
    """dot(identity, y) -> y: its contracted axis goes where the free one of the identity was.

    Of finite numbers, these are the same; where y holds an inf, the product by definition has 0 * inf = nan beside it.
    What a derivative is where the function is not finite is not kept by taking the identities of its seeds out; only
    programs from which contractions have been pulled back come here.
    """
    by = {}
    for node in reach(values):
        if node.name == "dot_general" and plain(node):
            for side in (0, 1):
                made = _without_identity(graph, node, side)
                if made is not None:
                    by[node.outputs[0]] = made
    moved = graph.replace(values, by)
    return [moved[v] for v in values]


def _without_identity(graph: Graph, node: Node, side: int) -> Value | None:
    contracted, batch = node.params["dimension_numbers"]
    eye, y = node.operands[side], node.operands[1 - side]
    (out,) = node.outputs
    if batch[0] or len(contracted[0]) != 1 or y.dtype != out.dtype or not is_identity(eye):
        return None
    (axis,) = contracted[1 - side]
    free = [a for a in range(len(y.shape)) if a != axis]
    return transposed(graph, y, [axis, *free] if side == 0 else [*free, axis])
