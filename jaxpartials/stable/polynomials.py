"""Polynomials with constant coefficients, lowest power first: what derivatives of a family are made of."""

from collections.abc import Sequence
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
