"""logaddexp, log1mexp and logdiffexp."""

import jax
import jax.numpy as jnp
import mpmath

from benchmarks.stability.case import Case
from benchmarks.stability.grids import POSITIVE, WHOLE, everyday, signed
from jaxpartials import stable

EXPONENTS = WHOLE + signed(everyday(40, 1e-1, 1e2, seed=3))


def true_logaddexp(x, y):
    # Either branch is smooth where they are equal.
    return x + mpmath.log1p(mpmath.exp(y - x)) if x > y else y + mpmath.log1p(mpmath.exp(x - y))


def true_logdiffexp(x, y):
    return x + mpmath.log(-mpmath.expm1(y - x))


CASES = (
    Case(
        "logaddexp",
        stable.logaddexp,
        jnp.logaddexp,
        true_logaddexp,
        (EXPONENTS, EXPONENTS),
        bounds=(16, 16, 16, 16),
        torch=lambda torch: torch.logaddexp,
    ),
    Case(
        "log1mexp",
        stable.log1mexp,
        jax.nn.log1mexp,
        lambda x: mpmath.log(-mpmath.expm1(-x)),
        (POSITIVE,),
        bounds=(8, 8, 8, 8),
        torch=lambda torch: lambda x: torch.log(-torch.expm1(-x)),
    ),
    Case(
        "logdiffexp",
        stable.logdiffexp,
        lambda x, y: x + jnp.log1p(-jnp.exp(y - x)),
        true_logdiffexp,
        (EXPONENTS, EXPONENTS),
        bounds=(16, 16, 16, 16),
        torch=lambda torch: lambda x, y: x + torch.log1p(-torch.exp(y - x)),
        within=lambda x, y: x > y,
    ),
)
