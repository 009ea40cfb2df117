"""Norms over axes, and what is divided by them."""

import functools
import math
from fractions import Fraction

import jax.numpy as jnp

from jaxpartials import stable
from jaxpartials.graph.graph import Value
from jaxpartials.graph.trace import extend
from jaxpartials.stability.identities import rows
from jaxpartials.stability.identities.algebra import Algebra
from jaxpartials.stability.identities.reductions import flat, kept, seen, squares
from jaxpartials.stability.identities.rows import Rewrite, Row

ROWS: list[Row] = []
pattern = functools.partial(rows.pattern, ROWS)


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
    (u, axes), shape = found, value.shape

    def emit(array):
        rows = flat(array, axes) if scale == 1 else math.sqrt(scale) * flat(array, axes)
        if epsilon:
            more = jnp.full((*rows.shape[:-1], 1), math.sqrt(epsilon), rows.dtype)
            rows = jnp.concatenate([rows, more], axis=-1)
        return jnp.reshape(stable.norm(rows, axis=-1), shape)

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
        others = rows.as_multiplied(algebra, value, [factor for factor in left[1] if factor[0] is not below])
        if others is None:
            continue
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

    shape = value.shape

    def give(x, y):
        return jnp.reshape(stable.cosine_similarity(flat(x, axes), flat(y, axes), axis=-1), shape)

    return rows.times(algebra, c * ratio, [], give, [x, y])
