"""What the formulas with sums over axes share: which axes, of what, and in which shape."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from jaxpartials.graph.emit import evaluate
from jaxpartials.graph.graph import Node, Value
from jaxpartials.graph.trace import extend
from jaxpartials.stability.identities.algebra import Algebra
from jaxpartials.stability.identities.conversions import is_exact
from jaxpartials.stability.identities.values import VIEWS, is_nonnegative, plain


def seen(value: Value, *more: str) -> Value:
    """What a value shows, without what only changes its shape; |s| shows s where s cannot be negative."""
    while True:
        node = value.node
        if (
            (
                node.name in VIEWS
                and len(node.operands) == 1
                and (node.name != "convert_element_type" or is_exact(value))
            )
            or (node.name == "abs" and is_nonnegative(node.operands[0]))
            or node.name in more
        ):
            value = node.operands[0]
        else:
            return value


def shown(value: Value, base: Value, array: Any) -> Any:
    """A value in the shape that it has, given what it shows."""
    if value is base:
        return array
    inner = shown(value.node.operands[0], base, array)
    return inner if value.node.name == "abs" else evaluate([value], [(value.node.operands[0], inner)])[0]


def axes_of(node: Node) -> tuple[int, ...]:
    return tuple(node.params["axes"])


def flat(array: Any, axes: Sequence[int]) -> Any:
    """An array whose last axis is these axes together."""
    rest = [axis for axis in range(array.ndim) if axis not in axes]
    return jnp.transpose(array, (*rest, *axes)).reshape([array.shape[axis] for axis in rest] + [-1])


def sum_of_exps(value: Value) -> tuple[Value, tuple[int, ...]] | None:
    """u and the axes, if a value shows Σ exp u."""
    node = seen(value).node
    if node.name != "reduce_sum":
        return None
    inner = plain(node.operands[0])
    return (inner.node.operands[0], axes_of(node)) if inner.node.name == "exp" else None


def kept(algebra: Algebra, value: Value, axes: Sequence[int], shape: tuple[int, ...]) -> Value:
    """What was reduced along some axes, in the shape that it had before."""
    if len(value.shape) == len(shape):
        return value
    (made,) = extend(
        algebra.graph, lambda a: [jnp.broadcast_to(jnp.expand_dims(a, tuple(axes)), shape)], [value]
    )  # fmt: skip
    return made


def constant_along(algebra: Algebra, value: Value, axes: Sequence[int]) -> bool:
    """Whether a value repeats itself along some axes."""
    form = algebra.forms[value]
    return not value.shape or all(form.axes[axis] is None for axis in axes)


def unshifted(algebra: Algebra, value: Value, axes: Sequence[int]) -> Value:
    """x, if the value is x − m with m the same along the axes: what softmax is given does not depend on m."""
    node = plain(value).node
    if node.name == "sub" and node.operands[0].shape == value.shape and constant_along(algebra, node.operands[1], axes):
        return node.operands[0]
    return value


def squares(algebra: Algebra, value: Value) -> tuple[Value, tuple[int, ...]] | None:
    """x and the axes, if a value is Σ x²: of x·x, x**2, square x, |x|², or as a dot product."""
    node = value.node
    if node.name == "reduce_sum":
        base = squared(algebra, node.operands[0])
        return None if base is None or base.shape != node.operands[0].shape else (base, axes_of(node))
    if node.name == "dot_general":
        (contracted, batch), (a, b) = node.params["dimension_numbers"], node.operands
        everything = tuple(range(len(a.shape)))
        whole = sorted(contracted[0]) == list(everything) and contracted[0] == contracted[1] and not batch[0]
        if whole and algebra.same(a, b) and a.dtype == value.dtype:
            return a, everything
    return None


def squared(algebra: Algebra, value: Value) -> Value | None:
    """x, if a value is x²."""
    node = plain(value).node
    if node.name == "mul" and algebra.same(*node.operands):
        return node.operands[0]
    c, factors = algebra.factors(value)
    if c != 1 or not factors or any(p != 2 for _, p in factors):
        return None
    return algebra.product([(v, p / 2) for v, p in factors])
