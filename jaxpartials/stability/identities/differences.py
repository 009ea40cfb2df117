"""Differences of a function at two places near each other, where what the places differ by is known."""

import functools
import math
from fractions import Fraction
from typing import Any

import jax.numpy as jnp

from jaxpartials import stable
from jaxpartials.graph.graph import Value
from jaxpartials.stability.identities import closed, rows
from jaxpartials.stability.identities.algebra import Algebra, Terms
from jaxpartials.stability.identities.rows import Rewrite, Row
from jaxpartials.stability.identities.values import plain

ROWS: list[Row] = []
pattern = functools.partial(rows.pattern, ROWS)
HALF = Fraction(1, 2)


def sides(algebra: Algebra, value: Value) -> tuple[Fraction, Value | Fraction, Value | Fraction] | None:
    """c, f and g, if a value is c·(f − g) with c > 0; a number is a number."""
    terms = algebra.terms(value)
    if len(terms) != 2 or all(v is None for _, v in terms):
        return None
    (c, f), (d, g) = sorted(terms, key=lambda term: term[0] < 0)
    if f is None or g is None:
        by = d if f is None else c
        by = abs(by)
        if c * d >= 0:
            return None
        return by, (c / by if f is None else f), (-d / by if g is None else g)
    return (c, f, g) if c == -d else None


def powers(algebra: Algebra, side: Value | Fraction, power: Fraction) -> tuple[Fraction, Value] | Fraction | None:
    """n and u, if one side is n·u to this power; a number to the power 1/power, if one side is a number."""
    if isinstance(side, Fraction):
        if power == 2:
            root = exact_root(side)
            return None if root is None else root
        return side ** int(1 / power) if (1 / power).denominator == 1 and (side > 0 or power == -1) else None
    n, factors = algebra.factors(side)
    if len(factors) == 1 and factors[0][1] == power:
        return n, factors[0][0]
    return None


def exact_root(n: Fraction) -> Fraction | None:
    """√n where it is a rational number."""
    if n <= 0:
        return None
    root = Fraction(math.isqrt(n.numerator), math.isqrt(n.denominator))
    return root if root * root == n else None


def places(
    algebra: Algebra, value: Value, power: Fraction
) -> tuple[Fraction, Value | Fraction, Value | Fraction] | None:
    """c, u and v, if a value is c·(uᵖ − vᵖ)."""
    found = sides(algebra, value)
    if found is None:
        return None
    c, f, g = found
    u, v = powers(algebra, f, power), powers(algebra, g, power)
    if u is None or v is None:
        return None
    sizes = [_size(algebra, part, power) for part in (u, v)]
    return None if sizes[0] is None or sizes[1] is None else (c, sizes[0], sizes[1])


def _size(algebra: Algebra, part: Any, power: Fraction) -> Value | Fraction | None:
    """The place u, if one side is n·uᵖ and n is a power as well."""
    if isinstance(part, Fraction):
        return part
    n, u = part
    root = exact_root(n) if power == 2 else Fraction(1) if n == 1 else None
    return None if root is None else algebra.scaled(root, u)


def parts(algebra: Algebra, u: Value | Fraction, v: Value | Fraction) -> tuple[Value, Value, Value, Value] | None:
    """d, w, p and q with u = w + p, v = w + q and d = u − v = p − q, if terms of the two cancel."""
    like = u if isinstance(u, Value) else v
    assert isinstance(like, Value)
    left, q = terms_of(algebra, u), []
    difference, common = list(left), []
    for c, w in terms_of(algebra, v):
        for i, (d, t) in enumerate(difference):
            ratio = 1 if w is t is None else None if w is None or t is None else algebra.ratio(w, t)
            if ratio is not None:
                difference[i] = (d - c * ratio, t)
                if d == c * ratio and (d, t) in left:
                    common.append((d, t))
                    left.remove((d, t))
                else:
                    q.append((c, w))
                break
        else:
            difference.append((-c, w))
            q.append((c, w))
    if not common:
        return None
    kept = [term for term in difference if term[0]]
    d, w, p, q = (algebra.sum(terms, like) for terms in (kept, common, left, q))
    return d, w, p, q


def terms_of(algebra: Algebra, side: Value | Fraction) -> Terms:
    return [(side, None)] if isinstance(side, Fraction) else list(algebra.terms(side))


def array(algebra: Algebra, u: Value | Fraction, like: Value) -> Value:
    return u if isinstance(u, Value) else algebra.number(u, like)


def between(algebra: Algebra, value: Value, power: Fraction, kind: closed.Kind) -> Rewrite | None:
    """c·(uᵖ − vᵖ), by the kind of difference, if a value is that and terms of u − v cancel."""
    found = places(algebra, value, power)
    return None if found is None else _given(algebra, value, kind, *found)


def of_functions(algebra: Algebra, value: Value, name: str) -> tuple[Fraction, Value, Value] | None:
    """c, u and v, if a value is c·(f(u) − f(v))."""
    found = sides(algebra, value)
    if found is None:
        return None
    c, f, g = found
    if not (isinstance(f, Value) and isinstance(g, Value)) or not f.node.name == g.node.name == name:
        return None
    return c, plain(f.node.operands[0]), plain(g.node.operands[0])


def between_functions(algebra: Algebra, value: Value, name: str, kind: closed.Kind) -> Rewrite | None:
    """c·(f(u) − f(v)), by the kind of difference, if a value is that and terms of u − v cancel."""
    found = of_functions(algebra, value, name)
    return None if found is None else _given(algebra, value, kind, *found)


def _given(
    algebra: Algebra, value: Value, kind: closed.Kind, c: Fraction, u: Value | Fraction, v: Value | Fraction
) -> Rewrite | None:
    found = parts(algebra, u, v)
    if found is None:
        return None
    d, *rest = found
    operands = [d, array(algebra, u, value), array(algebra, v, value), *rest]
    return rows.times(algebra, c, [], functools.partial(_difference, kind), operands)


def _difference(kind: closed.Kind, *arrays: Any) -> Any:
    dtype = jnp.result_type(*arrays)
    return closed.difference(kind, *jnp.broadcast_arrays(*(a.astype(dtype) for a in arrays)))


@pattern("sub", "add")
def difference_of_roots(algebra: Algebra, value: Value) -> Rewrite | None:
    """√(x + a) − √x → a/(√(x + a) + √x), by expm1 and log1p: where they cancel; a is what is left
    of a difference."""
    return between(algebra, value, HALF, closed.Power(1.0, 0.5, None))


@pattern("sub", "add")
def difference_of_reciprocals(algebra: Algebra, value: Value) -> Rewrite | None:
    """1/x − 1/(x + a) → a/(x (x + a)), by expm1 and log1p: where they cancel."""
    return between(algebra, value, Fraction(-1), closed.Power(1.0, -1.0, 1))


@pattern("sub", "add")
def difference_of_reciprocal_roots(algebra: Algebra, value: Value) -> Rewrite | None:
    """1/√x − 1/√(x + a) → a/(√x √(x + a) (√x + √(x + a))), by expm1 and log1p: where they cancel."""
    return between(algebra, value, -HALF, closed.Power(1.0, -0.5, None))


@pattern("sub", "add")
def difference_of_squares(algebra: Algebra, value: Value) -> Rewrite | None:
    """x² − y² → (x − y)(x + y): everywhere."""
    found = places(algebra, value, Fraction(2))
    if found is None:
        return None
    c, u, v = found
    rewrite = _given(algebra, value, closed.Square(0), c, u, v)
    if rewrite is not None:
        return rewrite
    give = lambda u, v: closed.difference_of_squares(*jnp.broadcast_arrays(u, v))
    return rows.times(algebra, c, [], give, [array(algebra, u, value), array(algebra, v, value)])


@pattern("sub", "add")
def difference_of_logarithms(algebra: Algebra, value: Value) -> Rewrite | None:
    """log(x + a) − log x → log(1 + a/x), by log1p: where they cancel."""
    return between_functions(algebra, value, "log", closed.Logarithm())


@pattern("sub", "add")
def difference_of_cube_roots(algebra: Algebra, value: Value) -> Rewrite | None:
    """∛(x + a) − ∛x → a/(∛(x + a)² + ∛(x + a) ∛x + ∛x²), by expm1 and log1p: where they cancel."""
    return between_functions(algebra, value, "cbrt", closed.Power(1.0, 1 / 3, 1))


@pattern("sub", "add")
def difference_of_sines(algebra: Algebra, value: Value) -> Rewrite | None:
    """sin(x + a) − sin x → 2 cos(x + a/2) sin(a/2): everywhere."""
    return between_functions(algebra, value, "sin", closed.Wave(0))


@pattern("sub", "add")
def difference_of_cosines(algebra: Algebra, value: Value) -> Rewrite | None:
    """cos(x + a) − cos x → −2 sin(x + a/2) sin(a/2): everywhere."""
    return between_functions(algebra, value, "cos", closed.Wave(1))


@pattern("sub", "add")
def difference_of_angles(algebra: Algebra, value: Value) -> Rewrite | None:
    """atan(x + a) − atan x → atan2(a, 1 + x (x + a)): for a constant |a| < 2, where the denominator is positive."""
    found = of_functions(algebra, value, "atan")
    if found is None:
        return None
    c, u, v = found
    made = parts(algebra, u, v)
    if made is None:
        return None
    n = algebra.terms(made[0])
    if any(v is not None for _, v in n) or abs(sum(c for c, _ in n)) >= 2:
        return None
    return rows.times(algebra, c, [], lambda d, u, v: stable.arctan2(d, 1 + u * v), [made[0], u, v])


@pattern("sub", "add")
def root_of_quadratic(algebra: Algebra, value: Value) -> Rewrite | None:
    """√(x² − a) − x → −a/(√(x² − a) + x): for x > 0, where they cancel; −√(x² − a) − x where x < 0."""
    terms = algebra.terms(value)
    if len(terms) != 2:
        return None
    for (c, root), (d, b) in (terms, terms[::-1]):
        if root is None or b is None:
            return None
        n, factors = algebra.factors(root)
        if n != 1 or len(factors) != 1 or factors[0][1] != HALF or abs(c) != abs(d):
            continue
        square = algebra.factors(algebra.product([(b, Fraction(2))]))
        left = [(-k, v) for k, v in algebra.terms(factors[0][0])]
        for i, (k, v) in enumerate(left):
            if k == -1 and v is not None and algebra.factors(v) == square:
                rest = algebra.sum(left[:i] + left[i + 1 :], b)
                larger = c > 0
                # c √(b² − a) + d b = |c| (± √(b² − a) − b'), b' = −b where d > 0.
                scale, by = abs(c), algebra.scaled(Fraction(-1 if d > 0 else 1), b)

                def give(b, a, larger=larger):
                    b, a = jnp.broadcast_arrays(b, a)
                    return closed.root_beyond(b, a) if larger else -closed.root_beyond(-b, a)

                return rows.times(algebra, scale, [], give, [by, rest])
    return None
