"""Distances and angles."""

import jax.numpy as jnp
import mpmath

from benchmarks.stability.case import Case
from benchmarks.stability.grids import POSITIVE, WHOLE
from jaxpartials import stable

CASES = (
    Case(
        "hypot",
        stable.hypot,
        jnp.hypot,
        lambda x, y: mpmath.sqrt(x * x + y * y),
        (WHOLE, WHOLE),
        bounds=(3, 8, 8, 16),
        torch=lambda torch: torch.hypot,
    ),
    Case(
        "arctan2",
        stable.arctan2,
        jnp.arctan2,
        mpmath.atan2,
        (WHOLE, WHOLE),
        bounds=(4, 12, 12, 16),
        torch=lambda torch: torch.atan2,
    ),
    Case("asinh", stable.asinh, jnp.arcsinh, mpmath.asinh, (WHOLE,), torch=lambda torch: torch.asinh),
    Case(
        "isru",
        stable.isru,
        lambda x: x / jnp.sqrt(1 + x * x),
        lambda x: x / mpmath.sqrt(1 + x * x),
        (WHOLE,),
        torch=lambda torch: lambda x: x / torch.sqrt(1 + x * x),
    ),
    Case(
        "smooth_abs",
        stable.smooth_abs,
        lambda x, epsilon: jnp.sqrt(x * x + epsilon),
        lambda x, epsilon: mpmath.sqrt(x * x + epsilon),
        (WHOLE, POSITIVE),
        bounds=(3, 8, 12, 16),
        torch=lambda torch: lambda x, epsilon: torch.sqrt(x * x + epsilon),
    ),
)
