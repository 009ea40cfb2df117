"""sigmoid, softplus and log sigmoid."""

import jax
import mpmath

from benchmarks.stability.case import Case
from benchmarks.stability.grids import WHOLE
from jaxpartials import stable

CASES = (
    Case(
        "sigmoid",
        stable.sigmoid,
        jax.nn.sigmoid,
        lambda x: 1 / (1 + mpmath.exp(-x)),
        (WHOLE,),
        bounds=(8, 8, 8, 8),
        torch=lambda torch: torch.sigmoid,
    ),
    Case(
        "softplus",
        stable.softplus,
        jax.nn.softplus,
        lambda x: mpmath.log1p(mpmath.exp(x)),
        (WHOLE,),
        bounds=(8, 8, 8, 8),
        torch=lambda torch: torch.nn.functional.softplus,
    ),
    Case(
        "log_sigmoid",
        stable.log_sigmoid,
        jax.nn.log_sigmoid,
        lambda x: -mpmath.log1p(mpmath.exp(-x)),
        (WHOLE,),
        bounds=(8, 8, 8, 8),
        torch=lambda torch: torch.nn.functional.logsigmoid,
    ),
)
