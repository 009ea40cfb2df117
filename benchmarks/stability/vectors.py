"""Norms, directions and angles of vectors."""

import jax.numpy as jnp
import mpmath

from benchmarks.stability.case import Case
from benchmarks.stability.grids import everyday, positive, signed
from jaxpartials import stable

# Three arguments: fewer values of each.
FEW = signed(positive(12) + everyday(8))
# What directions are compared with; exact in float32.
OTHER = (0.75, -1.125)


def _vector(fn):
    return lambda *xs: fn(jnp.stack(xs))


def _true_norm(p):
    return lambda *xs: sum((abs(x) ** p for x in xs), mpmath.mpf(0)) ** (mpmath.mpf(1) / p)


def _plain_cosine(x, y):
    return x @ y / (jnp.linalg.norm(x) * jnp.linalg.norm(y))


def _plain_cosines(x, y):
    return jnp.sum(x * y, 1) / (jnp.linalg.norm(x, axis=1) * jnp.linalg.norm(y, axis=1))


CASES = (
    Case(
        "norm",
        _vector(stable.norm),
        _vector(jnp.linalg.norm),
        lambda *xs: mpmath.sqrt(sum(x * x for x in xs)),
        (FEW,) * 3,
        bounds=(4, 8, 8, 16),
        vector=True,
        torch=lambda torch: lambda *xs: torch.linalg.norm(torch.stack(xs), dim=0),
        rows=(lambda x: stable.norm(x, axis=1), lambda x: jnp.linalg.norm(x, axis=1)),
    ),
    Case(
        "norm, p = 3",
        _vector(lambda x: stable.norm(x, 3)),
        _vector(lambda x: jnp.linalg.norm(x, 3)),
        _true_norm(3),
        (FEW,) * 2,
        bounds=(4, 8, 16, 32),
        vector=True,
        # Errors are relative to ‖x‖^(1 − order); second derivatives at a nearly axial vector are much less than that.
        within=lambda x, y: abs(x / 8) <= abs(y) <= abs(x * 8),
        torch=lambda torch: lambda *xs: torch.linalg.norm(torch.stack(xs), 3, dim=0),
        rows=(lambda x: stable.norm(x, 3, axis=1), lambda x: jnp.linalg.norm(x, 3, axis=1)),
    ),
    Case(
        "normalize",
        _vector(lambda x: stable.normalize(x)[0]),
        _vector(lambda x: x[0] / jnp.linalg.norm(x)),
        lambda x, *rest: x / mpmath.sqrt(x * x + sum(y * y for y in rest)),
        (FEW,) * 2,
        bounds=(4, 8, 8, 16),
        vector=True,
        # Of one element of u the derivatives are all small where it is nearly 1; the bound is that of all of u.
        within=lambda x, y: abs(x) <= abs(y),
        torch=lambda torch: lambda *xs: torch.nn.functional.normalize(torch.stack(xs), dim=0, eps=0.0)[0],
        rows=(stable.normalize, lambda x: x / jnp.linalg.norm(x, axis=1, keepdims=True)),
    ),
    Case(
        "cosine_similarity",
        lambda a, b: stable.cosine_similarity(jnp.stack([a, b]), jnp.stack(OTHER)),
        lambda a, b: _plain_cosine(jnp.stack([a, b]), jnp.stack(OTHER)),
        lambda a, b: (a * OTHER[0] + b * OTHER[1]) / mpmath.sqrt((a * a + b * b) * (OTHER[0] ** 2 + OTHER[1] ** 2)),
        (FEW,) * 2,
        bounds=(8, 16, 16, 32),
        vector=True,
        # Errors are relative to ‖x‖^−order; for nearly parallel vectors the gradient is much less than that.
        within=lambda a, b: abs(a * OTHER[1] - b * OTHER[0]) > 0.3 * max(abs(a), abs(b)),
        torch=lambda torch: (
            lambda *xs: torch.nn.functional.cosine_similarity(torch.stack(xs), torch.tensor(OTHER)[:, None], 0, 0.0)
        ),
        rows=(lambda x: stable.cosine_similarity(x[:, 32:], x[:, :32]), lambda x: _plain_cosines(x[:, 32:], x[:, :32])),
    ),
)
