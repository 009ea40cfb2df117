"""sinc, cosc, exprel and log1prel: quotients whose numerator vanishes where they are defined by continuity."""

import math

import jax.numpy as jnp
import mpmath
import numpy as np

from benchmarks.stability.case import Case
from benchmarks.stability.grids import POSITIVE, WHOLE, everyday, positive
from jaxpartials import stable

# The first roots of the first two derivatives: sinc′, sinc″, and those of cosc that are none of sinc.
SINC = (4.493409457909064, 7.725251836937707, 2.081575977818101, 5.940369990572713, 9.205840142936665)
COSC = (8.986818915818128, 15.450503673875414, 2.606163482201633, 6.283185307179586)


def _around(roots, scale=1.0):
    """The numbers next to each root, on both sides."""
    nearest = np.asarray(roots, np.float64) * scale
    nearest = nearest.astype(np.float32)
    next_to = [np.nextafter(nearest, np.float32(to)) for to in (0, np.inf)]
    return tuple(map(float, np.concatenate([nearest, *next_to])))


def _plain_sinc(x):
    return jnp.where(x == 0, 1, jnp.sin(x) / jnp.where(x == 0, 1, x))


CASES = (
    Case(
        "sinc",
        stable.sinc,
        jnp.sinc,
        lambda x: mpmath.sincpi(x),
        (WHOLE + _around(SINC, 1 / math.pi),),
        torch=lambda torch: torch.sinc,
    ),
    Case(
        "sinc of radians",
        lambda x: stable.sinc(x, normalized=False),
        _plain_sinc,
        mpmath.sinc,
        (WHOLE + _around(SINC),),
        torch=lambda torch: lambda x: torch.sinc(x / math.pi),
    ),
    Case(
        "cosc",
        stable.cosc,
        lambda x: (1 - jnp.cos(x)) / x**2,
        lambda x: (1 - mpmath.cos(x)) / x**2,
        (WHOLE + _around(COSC),),
        torch=lambda torch: lambda x: (1 - torch.cos(x)) / x**2,
    ),
    Case(
        "exprel",
        stable.exprel,
        lambda x: jnp.expm1(x) / x,
        lambda x: mpmath.expm1(x) / x,
        (WHOLE + (87.0, 88.9, 90.5, 92.7),),
        (8, 8, 8, 8),
        strict=3,
        torch=lambda torch: lambda x: torch.expm1(x) / x,
    ),
    Case(
        "log1prel",
        stable.log1prel,
        lambda x: jnp.log1p(x) / x,
        lambda x: mpmath.log1p(x) / x,
        (POSITIVE + tuple(-x for x in positive(30, high=0.9, seed=8)) + tuple(x - 1 for x in everyday(8, 1e-6, 0.5)),),
        (8, 8, 8, 8),
        strict=3,
        torch=lambda torch: lambda x: torch.log1p(x) / x,
    ),
)
