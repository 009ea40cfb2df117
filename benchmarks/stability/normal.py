"""log_ndtr and erfcx."""

import jax
import jax.numpy as jnp
import mpmath

from benchmarks.stability.case import Case
from benchmarks.stability.grids import WHOLE
from jaxpartials import stable


def true_log_ndtr(x):
    # erfc's argument is negative where 1 − erfc would cancel.
    tail = mpmath.erfc(abs(x) / mpmath.sqrt(2)) / 2
    return mpmath.log(tail) if x < 0 else mpmath.log1p(-tail)


def true_erfcx(x):
    return mpmath.exp(x * x) * mpmath.erfc(x)


CASES = (
    Case(
        "log_ndtr",
        stable.log_ndtr,
        jax.scipy.special.log_ndtr,
        true_log_ndtr,
        (tuple(x for x in WHOLE if x < 1e5),),
        bounds=(8, 8, 8, 8),
        torch=lambda torch: torch.special.log_ndtr,
    ),
    Case(
        "erfcx",
        stable.erfcx,
        lambda x: jnp.exp(x * x) * jax.scipy.special.erfc(x),
        true_erfcx,
        (tuple(x for x in WHOLE if x > -20),),
        bounds=(8, 8, 8, 8),
        torch=lambda torch: torch.special.erfcx,
    ),
)
