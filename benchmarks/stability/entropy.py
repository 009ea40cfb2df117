"""x log x, x log y, relative entropy, Kullback–Leibler divergence."""

import jax.numpy as jnp
import mpmath
from jax.scipy import special

from benchmarks.stability.case import Case
from benchmarks.stability.grids import POSITIVE, WHOLE, everyday, positive
from jaxpartials import stable

# Ratios near 1 and near 1/e, where values and derivatives cancel.
NEAR = tuple(x * s for x in everyday(6, seed=5) for s in (1.0, 1 + 1e-6, 1 + 1e-3, 1.1, 2.5, 2.7182817, 2.719, 4.0))
BOTH = positive(20) + NEAR


CASES = (
    Case(
        "xlogx",
        stable.xlogx,
        lambda x: x * jnp.log(x),
        lambda x: x * mpmath.log(x),
        (POSITIVE + (0.36787945, 0.36787942, 0.36787948, 0.368, 0.9999, 1.0001),),
        (4, 8, 8, 8),
        torch=lambda torch: lambda x: torch.xlogy(x, x),
    ),
    Case(
        "xlogy",
        stable.xlogy,
        special.xlogy,
        lambda x, y: x * mpmath.log(y),
        (WHOLE, POSITIVE),
        (4, 8, 8, 8),
        torch=lambda torch: torch.xlogy,
    ),
    Case(
        "rel_entr",
        stable.rel_entr,
        special.rel_entr,
        lambda x, y: x * mpmath.log(x / y),
        (BOTH, BOTH),
        (8, 8, 8, 8),
        torch=lambda torch: lambda x, y: x * torch.log(x / y),
    ),
    Case(
        "kl_div",
        stable.kl_div,
        special.kl_div,
        lambda x, y: x * mpmath.log(x / y) - x + y,
        (BOTH, BOTH),
        (16, 8, 8, 8),
        torch=lambda torch: lambda x, y: x * torch.log(x / y) - x + y,
    ),
)
