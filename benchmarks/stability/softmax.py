"""logsumexp, softmax, log softmax and cross-entropies, of three logits."""

import jax
import jax.numpy as jnp
import mpmath

from benchmarks.stability.case import Case
from benchmarks.stability.grids import positive, signed
from jaxpartials import stable

# Of the range in which softmax takes all values, and beyond.
LOGITS = signed(positive(24, 1e-3, 200.0))
GRIDS = (LOGITS,) * 3
# Two equal logits that outweigh the rest are a root of all third derivatives at once.
BOUNDS = (8, 8, 8, 9.5)


def true_logsumexp(*a):
    return mpmath.log(sum(map(mpmath.exp, a)))


def away_from_root(*a):
    """The value has roots, at which it is no more accurate than the largest of a."""
    with mpmath.workdps(30):
        return abs(true_logsumexp(*map(mpmath.mpf, a))) > abs(max(a)) / 2


def of_three(fn, *more):
    return lambda x, y, z: fn(jnp.stack([x, y, z]), *more)


def second(a):
    """The label of each row."""
    return jnp.ones(len(a), int)


def soft(a):
    """A label for all rows, which gives each class some of it."""
    return jax.nn.softmax(jnp.arange(a.shape[1]) / 8.0)


CASES = (
    Case(
        "logsumexp",
        of_three(stable.logsumexp),
        of_three(jax.nn.logsumexp),
        true_logsumexp,
        GRIDS,
        bounds=BOUNDS,
        vector=True,
        common_roots=3,
        within=away_from_root,
        torch=lambda torch: lambda x, y, z: torch.logsumexp(torch.stack([x, y, z]), 0),
        rows=(lambda a: stable.logsumexp(a, 1), lambda a: jax.nn.logsumexp(a, 1)),
    ),
    Case(
        "softmax",
        lambda x, y, z: stable.softmax(jnp.stack([x, y, z]))[0],
        lambda x, y, z: jax.nn.softmax(jnp.stack([x, y, z]))[0],
        lambda x, y, z: mpmath.exp(x) / (mpmath.exp(x) + mpmath.exp(y) + mpmath.exp(z)),
        GRIDS,
        # Its second derivatives by two equal elements are small beside the first.
        bounds=(8, 8, 9.5, 9.5),
        vector=True,
        common_roots=2,
        torch=lambda torch: lambda x, y, z: torch.softmax(torch.stack([x, y, z]), 0)[0],
        rows=(stable.softmax, jax.nn.softmax),
    ),
    Case(
        "log_softmax",
        lambda x, y, z: stable.log_softmax(jnp.stack([x, y, z]))[0],
        lambda x, y, z: jax.nn.log_softmax(jnp.stack([x, y, z]))[0],
        lambda x, y, z: -mpmath.log1p(mpmath.exp(y - x) + mpmath.exp(z - x)),
        GRIDS,
        bounds=BOUNDS,
        vector=True,
        common_roots=3,
        torch=lambda torch: lambda x, y, z: torch.log_softmax(torch.stack([x, y, z]), 0)[0],
        rows=(stable.log_softmax, jax.nn.log_softmax),
    ),
    Case(
        "softmax_cross_entropy",
        of_three(stable.softmax_cross_entropy, jnp.array([0.0, 1.0, 0.0])),
        lambda x, y, z: -jax.nn.log_softmax(jnp.stack([x, y, z]))[1],
        lambda x, y, z: mpmath.log1p(mpmath.exp(x - y) + mpmath.exp(z - y)),
        GRIDS,
        bounds=BOUNDS,
        vector=True,
        common_roots=3,
        torch=lambda torch: lambda *xs: -torch.log_softmax(torch.stack(xs), 0)[1],
        rows=(
            lambda a: stable.softmax_cross_entropy(a, soft(a)),
            lambda a: -jnp.sum(soft(a) * jax.nn.log_softmax(a), 1),
        ),
    ),
    Case(
        "softmax_cross_entropy_with_integer_labels",
        of_three(stable.softmax_cross_entropy_with_integer_labels, 1),
        lambda x, y, z: jax.nn.logsumexp(jnp.stack([x, y, z])) - y,
        lambda x, y, z: mpmath.log1p(mpmath.exp(x - y) + mpmath.exp(z - y)),
        GRIDS,
        bounds=BOUNDS,
        vector=True,
        common_roots=3,
        rows=(
            lambda a: stable.softmax_cross_entropy_with_integer_labels(a, second(a)),
            lambda a: jax.nn.logsumexp(a, 1) - jnp.take_along_axis(a, second(a)[:, None], 1)[:, 0],
        ),
        torch=lambda torch: (
            lambda *xs: torch.nn.functional.cross_entropy(
                torch.stack(xs, 1), torch.ones(len(xs[0]), dtype=torch.int64), reduction="none"
            )
        ),
    ),
)
