"""Variance and standard deviation of a few numbers."""

import functools

import jax.numpy as jnp
import mpmath

from benchmarks.stability.case import Case
from benchmarks.stability.grids import everyday, positive, signed
from jaxpartials import stable

FAR = tuple(1e4 + x for x in signed(everyday(8, 1e-3, 10.0, seed=7)))
# Squares leave the range at 1e±19.
ANYWHERE = signed(positive(12, seed=3) + everyday(8, seed=4))


def _variance(xs):
    mean = mpmath.fsum(xs) / len(xs)
    return mpmath.fsum((x - mean) ** 2 for x in xs) / len(xs)


def _of(f):
    return lambda *xs: f(jnp.stack(xs))


CASES = tuple(
    Case(
        name + place,
        _of(stable_op),
        _of(plain),
        true,
        (grid,) * 3,
        bounds,
        vector=True,
        # Of equal numbers the deviation has no derivative.
        within=lambda x, y, z: len({x, y, z}) > 1,
        plain_is_accurate=name == "var" and not place,
        rows=(functools.partial(stable_op, axis=1), functools.partial(plain, axis=1)),
        torch=lambda torch, name=name: lambda *xs: getattr(torch, name)(torch.stack(xs), 0, correction=0),
    )
    for place, grid in (("", ANYWHERE), (" far from 0", FAR))
    for name, stable_op, plain, true, bounds in (
        ("var", stable.var, jnp.var, lambda *xs: _variance(xs), (8, 8, 8, 8)),
        ("std", stable.std, jnp.std, lambda *xs: mpmath.sqrt(_variance(xs)), (8, 8, 8, 16)),
    )
)
