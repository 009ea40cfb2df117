"""Polynomials with constant coefficients, lowest power first: what derivatives of a family are made of."""

import functools
from collections.abc import Sequence
from fractions import Fraction
from itertools import zip_longest

import jax
import jax.numpy as jnp

Coefficients = tuple[float, ...]


def horner(coefficients: Sequence[float], x: jax.Array) -> jax.Array:
    """c₀ + c₁ x + c₂ x² + …"""
    total = jnp.full_like(x, coefficients[-1])
    for c in reversed(coefficients[:-1]):
        total = total * x + c
    return total


def economised(p: Sequence[Fraction], radius: Fraction, tolerance: float) -> Coefficients:
    """A polynomial of lower degree that is p up to `tolerance` for 0 ≤ x ≤ radius.

    Source: C. Lanczos, Applied Analysis (1956), ch. VII: while the sum of the changes allows, the highest power is
    replaced by what is left of the shifted Chebyshev polynomial of its degree, which is at most 1 on the interval.
    """
    rest, spent = list(p), 0.0
    while len(rest) > 1:
        n = len(rest) - 1
        chebyshev = _shifted_chebyshev(n)
        factor = rest[n] * radius**n / chebyshev[n]
        spent += abs(float(factor))
        if spent > tolerance:
            break
        rest = [c - factor * t / radius**k for k, (c, t) in enumerate(zip(rest, chebyshev, strict=True))][:n]
    return tuple(map(float, rest))


@functools.cache
def _shifted_chebyshev(n: int) -> tuple[int, ...]:
    """The coefficients of Tₙ(2x − 1) = cos(2n arccos √x)."""
    # T*ₙ₊₁ = 2 (2x − 1) T*ₙ − T*ₙ₋₁.
    before, now = (1,), (-1, 2)
    if n == 0:
        return before
    for _ in range(n - 1):
        raised = [a + b for a, b in zip((0, *(4 * c for c in now)), (*(-2 * c for c in now), 0), strict=True)]
        before, now = now, tuple(a - b for a, b in zip_longest(raised, before, fillvalue=0))
    return now


def derivative(p: Coefficients) -> Coefficients:
    """p′."""
    return tuple(k * c for k, c in enumerate(p))[1:] or (0,)


def plus(p: Coefficients, q: Coefficients) -> Coefficients:
    """p + q."""
    return tuple(a + b for a, b in zip_longest(p, q, fillvalue=0))


def times(p: Coefficients, q: Coefficients) -> Coefficients:
    """p·q."""
    total: list[float] = [0] * (len(p) + len(q) - 1)
    for i, a in enumerate(p):
        for j, b in enumerate(q):
            total[i + j] += a * b
    return tuple(total)
