"""tanh and log cosh."""

import math

import jax.numpy as jnp
import mpmath

from benchmarks.stability.case import Case
from benchmarks.stability.grids import WHOLE
from jaxpartials import stable

CASES = (
    Case("tanh", stable.tanh, jnp.tanh, mpmath.tanh, (WHOLE,), bounds=(5, 8, 8, 8), torch=lambda torch: torch.tanh),
    Case(
        "log_cosh",
        stable.log_cosh,
        lambda x: jnp.logaddexp(x, -x) - jnp.log(2.0),
        lambda x: mpmath.log(mpmath.cosh(x)),
        (WHOLE,),
        bounds=(8, 8, 8, 8),
        torch=lambda torch: lambda x: torch.logaddexp(x, -x) - math.log(2.0),
    ),
)
