"""Formulas with sums over axes: norms, log-sum-exps, softmaxes, variances."""

import functools
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxpartials import stable
from jaxpartials.graph.emit import evaluate
from jaxpartials.graph.graph import INPUT, LITERAL, Node, Value, reach
from jaxpartials.graph.trace import extend
from jaxpartials.stability.identities import rows
from jaxpartials.stability.identities.formulas import VIEWS, Algebra, is_nonnegative, number, plain
from jaxpartials.stability.identities.rows import Rewrite, Row

ROWS: list[Row] = []
pattern = functools.partial(rows.pattern, ROWS)


# ---- what the rows share


def seen(value: Value, *more: str) -> Value:
    """What a value shows, without what only changes its shape; |s| shows s where s cannot be negative."""
    while True:
        node = value.node
        if (
            (node.name in VIEWS and len(node.operands) == 1 and node.operands[0].dtype == value.dtype)
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


# ---- log-sum-exp and softmax


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

    def emit(array, *others):
        made = stable.log_softmax(array, axis=axes)
        return evaluate([inner], [(base, made), *zip(chosen, others, strict=True)])[0]

    return Rewrite(emit, (u, *chosen))


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
    x, axes = found
    return Rewrite(lambda a: jnp.reshape(jnp.asarray(stable.logsumexp(a, axis=axes)), value.shape), (x,))


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


# ---- variances


@pattern("sqrt")
def root_of_variance(algebra: Algebra, value: Value) -> Rewrite | None:
    """√(E[x²] − E[x]²) → stable.std(x): everywhere; also of the greater of it and 0."""
    inner = _without_guards(value.node.operands[0])
    found = _variance(algebra, inner) or _centred(algebra, inner)
    if found is None or found[2] < 0:
        return None
    u, axes, scale = found

    def emit(array):
        made = jnp.reshape(stable.std(array, axis=axes), value.shape)
        return made if scale == 1 else math.sqrt(scale) * made

    return Rewrite(emit, (u,))


@pattern("sub", "add")
def mean_square_less_squared_mean(algebra: Algebra, value: Value) -> Rewrite | None:
    """E[x²] − E[x]² → stable.var(x): everywhere."""
    found = _variance(algebra, value)
    if found is None:
        return None
    u, axes, scale = found

    def emit(array):
        made = jnp.reshape(stable.var(array, axis=axes), value.shape)
        return made if scale == 1 else float(scale) * made

    return Rewrite(emit, (u,))


@pattern("div", "mul", "reduce_sum")
def mean_square_deviation(algebra: Algebra, value: Value) -> Rewrite | None:
    """E[(x − E[x])²] → stable.var(x): everywhere."""
    found = _centred(algebra, value)
    if found is None:
        return None
    u, axes, scale = found

    def emit(array):
        made = jnp.reshape(stable.var(array, axis=axes), value.shape)
        return made if scale == 1 else float(scale) * made

    return Rewrite(emit, (u,))


def _without_guards(value: Value) -> Value:
    """A variance without what says that it is not negative, or that it is one of at least one element."""
    value = plain(value)
    node = value.node
    if node.name == "max" and any(number(v) == 0 for v in node.operands):
        return _without_guards(next(v for v in node.operands if number(v) != 0))
    if node.name == "select_n" and len(node.operands) == 3:
        test, off, on = node.operands
        known = all(n.name != INPUT for n in reach([test]))
        if known and is_nan(off):
            return _without_guards(on)
    return value


def is_nan(value: Value) -> bool:
    node = seen(value).node
    return node.name == LITERAL and bool(np.isnan(node.params["value"]))


def _centred(algebra: Algebra, value: Value) -> tuple[Value, tuple[int, ...], Fraction] | None:
    """x, the axes and c, if a value is c·E[(x − E[x])²]."""
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
    return (u, axes, c * n) if algebra.same(d, made) else None


def _variance(algebra: Algebra, value: Value) -> tuple[Value, tuple[int, ...], Fraction] | None:
    """x, the axes and c, if a value is c·(E[x²] − E[x]²)."""
    for _, v in algebra.terms(value):
        found = None if v is None else squares(algebra, seen(v))
        if found is None:
            continue
        u, axes = found
        n = math.prod(u.shape[axis] for axis in axes)

        def formula(a, axes=axes, n=n):
            keepdims = len(value.shape) == a.ndim
            total = jnp.sum(a, axes, keepdims=keepdims)
            return [jnp.sum(a * a, axes, keepdims=keepdims) - total * total / n]

        (made,) = extend(algebra.graph, formula, [u])
        if made.shape == value.shape:
            ratio = algebra.ratio(value, made)
            # Σx² − (Σx)²/n is n times the variance.
            if ratio is not None:
                return u, axes, ratio * n
    return None


# ---- norms


@pattern("sqrt")
def root_of_sum_of_squares(algebra: Algebra, value: Value) -> Rewrite | None:
    """√(Σ x² + ε) → stable.norm(x, ε^½): for a constant ε ≥ 0; also of x·x as a dot product."""
    inner = value.node.operands[0]
    epsilon, found, scale, base = Fraction(0), None, Fraction(1), inner
    for c, v in algebra.terms(inner):
        if v is None:
            epsilon += c
        elif found is None:
            found, scale, base = squares(algebra, seen(v)), c, v
            if found is None:
                return None
        else:
            return None
    if found is None or scale <= 0 or epsilon < 0 or math.prod(seen(base).shape) != math.prod(value.shape):
        return None
    u, axes = found

    def emit(array):
        rows = flat(array, axes) if scale == 1 else math.sqrt(scale) * flat(array, axes)
        if epsilon:
            more = jnp.full((*rows.shape[:-1], 1), math.sqrt(epsilon), rows.dtype)
            rows = jnp.concatenate([rows, more], axis=-1)
        return jnp.reshape(stable.norm(rows, axis=-1), value.shape)

    return Rewrite(emit, (u,))


@pattern("div", "mul")
def divided_by_its_norm(algebra: Algebra, value: Value) -> Rewrite | None:
    """x/√(Σ x²) → stable.normalize(x): where x ≠ 0."""
    c, factors = algebra.factors(value)
    for below, p in factors:
        found = squares(algebra, seen(below)) if p == Fraction(-1, 2) else None
        if found is None or found[0].shape != value.shape:
            continue
        u, axes = found
        total = kept(algebra, seen(below), axes, value.shape)
        left = algebra.without_factors(factors, u, Fraction(1))
        if left is None or not algebra.same(total, below):
            continue
        others = [factor for factor in left[1] if factor[0] is not below]
        c = c * left[0]
        return rows.times(algebra, c, others, lambda a, axes=axes: stable.normalize(a, axis=axes), [u])
    return None


@pattern("div", "mul")
def product_over_norms(algebra: Algebra, value: Value) -> Rewrite | None:
    """Σ x y/(√(Σ x²) √(Σ y²)) → stable.cosine_similarity(x, y): where neither is 0."""
    c, factors = algebra.factors(value)
    below = [(v, squares(algebra, seen(v))) for v, p in factors if p == Fraction(-1, 2)]
    if len(below) != 2 or len(factors) != 3 or any(found is None for _, found in below):
        return None
    (x, axes), (y, others) = (found for _, found in below if found is not None)
    above = next((v for v, p in factors if p == 1), None)
    if above is None or x.shape != y.shape or axes != others:
        return None
    (made,) = extend(algebra.graph, lambda x, y: [jnp.sum(x * y, axes)], [x, y])
    ratio = algebra.ratio(seen(above), made)
    if ratio is None or math.prod(made.shape) != math.prod(value.shape):
        return None

    def give(x, y):
        return jnp.reshape(stable.cosine_similarity(flat(x, axes), flat(y, axes), axis=-1), value.shape)

    return rows.times(algebra, c * ratio, [], give, [x, y])
