"""Log-sum-exps and softmaxes over axes."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxpartials import stable
from jaxpartials.graph.emit import evaluate
from jaxpartials.graph.graph import Node, Value, reach
from jaxpartials.stability.identities import rows
from jaxpartials.stability.identities.algebra import Algebra
from jaxpartials.stability.identities.reductions import constant_along, kept, seen, shown, sum_of_exps, unshifted
from jaxpartials.stability.identities.rows import Rewrite, Row
from jaxpartials.stability.identities.values import plain

ROWS: list[Row] = []
pattern = functools.partial(rows.pattern, ROWS)


@pattern("log")
def log_of_softmax(algebra: Algebra, value: Value) -> Rewrite | None:
    """log(exp x/Σ exp x) → stable.log_softmax(x): also of some of its elements, taken by index, slice or reshape."""
    moves = ("gather", "slice", "dynamic_slice", "transpose", "rev")
    (inner,) = value.node.operands
    base = seen(inner, *moves)
    found = _softmax(algebra, base)
    if found is None:
        return None
    # What chooses the elements, such as the indices of a gather, is an operand as well.
    chosen: list[Value] = []
    at = inner
    while at is not base:
        chosen += at.node.operands[1:]
        at = at.node.operands[0]
    u, axes = found
    if any(map(_fills, reach([inner], [base]))):
        return None

    def emit(array, *others):
        made = stable.log_softmax(array, axis=axes)
        return evaluate([inner], [(base, made), *zip(chosen, others, strict=True)])[0]

    return Rewrite(emit, (u, *chosen))


def _fills(node: Node) -> bool:
    """Whether indices out of bounds give a number: its logarithm is another. That of nan, the default, is nan."""
    fill = node.params["fill_value"] if node.name == "gather" else None
    return fill is not None and not np.isnan(fill)


@pattern("div", "mul")
def exp_over_its_sum(algebra: Algebra, value: Value) -> Rewrite | None:
    """exp x/Σ exp x → stable.softmax(x): everywhere; x may be shifted by anything that is constant along the axes."""
    found = _softmax(algebra, value)
    if found is None:
        return None
    u, axes = found
    return Rewrite(lambda a: stable.softmax(a, axis=axes), (u,))


def _softmax(algebra: Algebra, value: Value) -> tuple[Value, tuple[int, ...]] | None:
    value = plain(value)
    if value.node.name not in ("div", "mul"):
        return None
    c, factors = algebra.factors(value)
    if c != 1 or len(factors) != 2:
        return None
    above = [v for v, p in factors if p == 1 and v.node.name == "exp" and v.shape == value.shape]
    below = [v for v, p in factors if p == -1]
    if len(above) != 1 or len(below) != 1:
        return None
    u = above[0].node.operands[0]
    found = sum_of_exps(below[0])
    if found is None or not algebra.same(u, found[0]):
        return None
    axes = found[1]
    total = kept(algebra, seen(below[0]), axes, value.shape)
    if not algebra.same(total, below[0]):  # spread along other axes than it was summed along
        return None
    return unshifted(algebra, u, axes), axes


@pattern("sub", "add")
def less_its_logsumexp(algebra: Algebra, value: Value) -> Rewrite | None:
    """x − log Σ exp x → stable.log_softmax(x): everywhere; x may be shifted as for softmax."""
    terms = algebra.terms(value)
    for c, v in terms:
        found = logsumexp_of(algebra, v) if c == -1 and v is not None else None
        if found is None or v is None or found[0].shape != value.shape:
            continue
        u, axes = found
        left = [term for term in terms if term[1] is not v]
        whole = bool(left) and algebra.without_terms(left, algebra.terms(u)) == []
        if whole and constant_along(algebra, v, axes) and aligned(algebra, v, u, axes):
            x = unshifted(algebra, u, axes)
            return Rewrite(lambda a, axes=axes: stable.log_softmax(a, axis=axes), (x,))
    return None


@pattern("add", "sub")
def log_of_shifted_sum(algebra: Algebra, value: Value) -> Rewrite | None:
    """log Σ exp(x − m) + m → stable.logsumexp(x): for m constant along the axes, and the same in both places."""
    found = _shifted_logsumexp(algebra, value)
    if found is None:
        return None
    (x, axes), shape = found, value.shape
    return Rewrite(lambda a: jnp.reshape(jnp.asarray(stable.logsumexp(a, axis=axes)), shape), (x,))


def logsumexp_of(algebra: Algebra, value: Value) -> tuple[Value, tuple[int, ...]] | None:
    """x and the axes, if a value shows log Σ exp x."""
    inner = seen(value)
    if inner.node.name == "log":
        return sum_of_exps(inner.node.operands[0])
    return _shifted_logsumexp(algebra, inner)


def _shifted_logsumexp(algebra: Algebra, value: Value) -> tuple[Value, tuple[int, ...]] | None:
    terms = algebra.terms(value)
    if len(terms) != 2 or any(c != 1 for c, _ in terms):
        return None
    for (_, v), (_, m) in (terms, terms[::-1]):
        if v is None or m is None:
            return None
        logarithm = seen(v)
        found = sum_of_exps(logarithm.node.operands[0]) if logarithm.node.name == "log" else None
        if found is None or v.shape != value.shape:
            continue
        u, axes = found
        shift = plain(u).node
        if shift.name != "sub" or shift.operands[0].shape != u.shape:
            continue
        x, by = shift.operands
        one, other = (_reduced_form(algebra, w, axes, u.shape) for w in (by, m))
        size = math.prod(u.shape) // math.prod(u.shape[axis] for axis in axes)
        if constant_along(algebra, by, axes) and one is not None and one == other and size == math.prod(v.shape):
            return x, axes
    return None


def _reduced_form(algebra: Algebra, value: Value, axes: Sequence[int], shape: tuple[int, ...]) -> Any:
    if len(value.shape) != len(shape):
        if len(value.shape) != len(shape) - len(axes):
            return None
        value = kept(algebra, value, axes, shape)
    form = algebra.forms[value]
    return form.number, form.core, form.axes


def aligned(algebra: Algebra, value: Value, u: Value, axes: Sequence[int]) -> bool:
    """Whether what a value shows, reduced from u, lies along the axes of u that are left."""
    inner = seen(value)
    if len(inner.shape) == len(u.shape):
        return all(n == 1 or n == m for n, m in zip(inner.shape, u.shape, strict=True)) and _in_order(value)
    return algebra.same(kept(algebra, inner, axes, u.shape), value)


def _in_order(value: Value) -> bool:
    """Whether each axis of what a value shows is that axis of the value."""
    while value is not seen(value):
        node = value.node
        if (node.name == "broadcast_in_dim" and len(node.operands[0].shape) == len(value.shape)) or node.name in (
            "convert_element_type",
            "copy",
            "abs",
        ):
            value = node.operands[0]
        else:
            return False
    return True


@pattern("log")
def log_sum_of_exps(algebra: Algebra, value: Value) -> Rewrite | None:
    """log Σ exp x → stable.logsumexp(x): everywhere."""
    (inner,) = value.node.operands
    found = sum_of_exps(inner)
    if found is None:
        return None
    u, axes = found
    base = seen(inner)
    return Rewrite(lambda a: shown(inner, base, stable.logsumexp(a, axis=axes)), (u,))
