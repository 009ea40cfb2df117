"""Variances, standard deviations and covariances over axes."""

import functools
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxpartials import stable
from jaxpartials.graph.emit import evaluate
from jaxpartials.graph.graph import INPUT, LITERAL, Value, reach
from jaxpartials.graph.trace import extend
from jaxpartials.stability.identities import closed, rows
from jaxpartials.stability.identities.algebra import Algebra
from jaxpartials.stability.identities.reductions import axes_of, seen, squares
from jaxpartials.stability.identities.rows import Rewrite, Row
from jaxpartials.stability.identities.values import VIEWS, number, plain

ROWS: list[Row] = []
pattern = functools.partial(rows.pattern, ROWS)


@pattern("sqrt")
def root_of_variance(algebra: Algebra, value: Value) -> Rewrite | None:
    """√(E[x²] − E[x]²) → stable.std(x): everywhere; also of the greater of it and 0."""
    inner = _without_guards(value.node.operands[0])
    found = _variance(algebra, inner) or _centred(algebra, inner)
    return None if found is None or found.scale < 0 else found.times(stable.std, math.sqrt(found.scale), value)


@pattern("sub", "add")
def mean_square_less_squared_mean(algebra: Algebra, value: Value) -> Rewrite | None:
    """E[x²] − E[x]² → stable.var(x): everywhere."""
    found = _variance(algebra, value)
    return None if found is None else found.times(stable.var, float(found.scale), value)


@pattern("div", "mul", "reduce_sum")
def mean_square_deviation(algebra: Algebra, value: Value) -> Rewrite | None:
    """E[(x − E[x])²] → stable.var(x): everywhere."""
    found = _centred(algebra, value)
    return None if found is None else found.times(stable.var, float(found.scale), value)


@pattern("sub", "add")
def mean_product_less_product_of_means(algebra: Algebra, value: Value) -> Rewrite | None:
    """E[xy] − E[x] E[y] → E[(x − E[x])(y − E[y])]: everywhere, for means of all elements along the same axes."""
    found = _covariance(algebra, value)
    return None if found is None else found.times(closed.covariance, float(found.scale), value)


class Statistic(NamedTuple):
    """`scale` times the variance of one array, or the covariance of two, along some axes."""

    arrays: tuple[Value, ...]
    axes: tuple[int, ...]
    scale: Fraction

    def times(self, operation: Callable[..., Any], number: float, value: Value) -> Rewrite:
        """A number times an operation along the axes, in the shape of a value."""
        axes, shape = self.axes, value.shape

        def emit(*arrays):
            made = jnp.reshape(operation(*arrays, axis=axes), shape)
            return made if number == 1 else number * made

        return Rewrite(emit, self.arrays)


def _without_guards(value: Value) -> Value:
    """A variance without what says that it is not negative, or that it is one of at least one element."""
    value = plain(value)
    node = value.node
    if node.name == "max" and any(number(v) == 0 for v in node.operands):
        return _without_guards(next(v for v in node.operands if number(v) != 0))
    if node.name == "select_n" and len(node.operands) == 3:
        test, off, on = node.operands
        if is_nan(off) and _is_true(test):
            return _without_guards(on)
    return value


def _is_true(test: Value) -> bool:
    """Whether a test is one of numbers that are known, such as of a count of elements, and holds everywhere."""
    test = seen(test)
    if test.shape != () or any(node.name == INPUT or node.effects for node in reach([test])):
        return False
    with jax.ensure_compile_time_eval():
        return bool(evaluate([test], [])[0])


def is_nan(value: Value) -> bool:
    node = value.node
    while node.name in VIEWS:
        node = node.operands[0].node
    return node.name == LITERAL and bool(np.isnan(node.params["value"]))


def _centred(algebra: Algebra, value: Value) -> Statistic | None:
    """If a value is c·E[(x − E[x])²]."""
    terms = algebra.terms(value)
    c, v = terms[0]
    if len(terms) != 1 or v is None:
        return None
    found = squares(algebra, seen(v))
    if found is None or c <= 0:
        return None
    d, axes = found
    node = plain(d).node
    if node.name != "sub" or node.operands[0].shape != d.shape or math.prod(seen(v).shape) != math.prod(value.shape):
        return None
    u = node.operands[0]
    (made,) = extend(algebra.graph, lambda a: [a - jnp.mean(a, axes, keepdims=True)], [u])
    n = math.prod(u.shape[axis] for axis in axes)
    return Statistic((u,), axes, c * n) if algebra.same(d, made) else None


def _variance(algebra: Algebra, value: Value) -> Statistic | None:
    """If a value is c·(E[x²] − E[x]²)."""
    for _, v in algebra.terms(value):
        found = None if v is None else squares(algebra, seen(v))
        if found is not None:
            u, axes = found
            scale = _scale(algebra, value, (u, u), axes)
            if scale is not None:
                return Statistic((u,), axes, scale)
    return None


def _covariance(algebra: Algebra, value: Value) -> Statistic | None:
    """If a value is c·(E[xy] − E[x] E[y])."""
    for _, v in algebra.terms(value):
        factors = [] if v is None else algebra.factors(v)[1]
        sums = [seen(u).node for u, p in factors if p == 1]
        if len(factors) != 2 or [node.name for node in sums] != ["reduce_sum", "reduce_sum"]:
            continue
        x, y = (plain(node.operands[0]) for node in sums)
        axes, other = map(axes_of, sums)
        if x.shape == y.shape and axes == other:
            scale = _scale(algebra, value, (x, y), axes)
            if scale is not None:
                return Statistic((x, y), axes, scale)
    return None


def _scale(algebra: Algebra, value: Value, pair: tuple[Value, Value], axes: tuple[int, ...]) -> Fraction | None:
    """c, if a value is c·(E[xy] − E[x] E[y])."""
    rank = len(pair[0].shape)
    n = math.prod(pair[0].shape[axis] for axis in axes)

    def formula(x, y):
        total = functools.partial(jnp.sum, axis=axes, keepdims=len(value.shape) == rank)
        return [total(x * y) - total(x) * total(y) / n]

    (made,) = extend(algebra.graph, formula, pair)
    ratio = algebra.ratio(value, made) if made.shape == value.shape else None
    # Σxy − Σx Σy/n is n times the covariance.
    return None if ratio is None else ratio * n
