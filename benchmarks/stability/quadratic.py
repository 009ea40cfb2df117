"""The roots of a quadratic polynomial, one by one."""

import jax.numpy as jnp
import mpmath

from benchmarks.stability.case import Case
from benchmarks.stability.grids import everyday, positive, signed
from jaxpartials import stable

GRID = signed(positive(10, seed=11) + everyday(10, seed=12))


def _stable(k):
    return lambda a, b, c: stable.quadratic_roots(a, b, c)[k]


def _plain(sign):
    return lambda a, b, c: (-b + sign * jnp.sqrt(b * b - 4 * a * c)) / (2 * a)


def _true(sign):
    return lambda a, b, c: (-b + sign * mpmath.sqrt(b * b - 4 * a * c)) / (2 * a)


def _real(a, b, c):
    a, b, c = map(mpmath.mpf, (a, b, c))
    return b * b > 4 * a * c


CASES = tuple(
    Case(
        f"quadratic_roots[{k}]",
        _stable(k),
        _plain(sign),
        _true(sign),
        (GRID,) * 3,
        (4, 8, 16, 32),
        vector=True,
        within=_real,
        torch=lambda torch, sign=sign: lambda a, b, c: (-b + sign * torch.sqrt(b * b - 4 * a * c)) / (2 * a),
    )
    for k, sign in enumerate((-1, 1))
)
