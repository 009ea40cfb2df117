"""Ratios and powers."""

import jax.numpy as jnp

from benchmarks.stability.case import Case
from benchmarks.stability.grids import POSITIVE, WHOLE, everyday, positive, signed
from jaxpartials import stable

CASES = (
    Case(
        "divide",
        stable.divide,
        jnp.divide,
        lambda x, y: x / y,
        (WHOLE, WHOLE),
        bounds=(1, 4, 4, 8),
        strict=3,
        torch=lambda torch: torch.divide,
    ),
    Case(
        "power",
        stable.power,
        jnp.power,
        lambda x, y: x**y,
        (POSITIVE, signed(everyday(60, 1e-3, 60.0) + positive(10))),
        bounds=(4, 16, 16, 16),
        torch=lambda torch: torch.pow,
    ),
    *(
        Case(
            f"power, y = {p}",
            lambda x, p=p: stable.power(x, p),
            lambda x, p=p: jnp.power(x, p),
            lambda x, p=p: x**p,
            (POSITIVE if p != round(p) else WHOLE,),
            plain_is_accurate=p in (-3, -1),
            torch=lambda torch, p=p: lambda x: torch.pow(x, p),
        )
        for p in (-3, -1, 0.3125, 2.5)
    ),
)
