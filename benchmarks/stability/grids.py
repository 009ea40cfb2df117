"""Where operations are tried: over the whole normal range of float32, not only where it is easy."""

import numpy as np

TINY, HUGE = 1.1754944e-38, 3.4028235e38


def positive(count: int = 40, low: float = TINY, high: float = HUGE, seed: int = 0) -> tuple[float, ...]:
    """Log-spaced numbers in [low, high], each moved at random within its cell, so that no power of two is favoured."""
    rng = np.random.default_rng(seed)
    edges = np.linspace(np.log(low), np.log(high), count + 1)
    drawn = np.exp(edges[:-1] + rng.uniform(size=count) * np.diff(edges))
    return tuple(map(float, np.clip(drawn, low, high).astype(np.float32)))


def everyday(count: int = 40, low: float = 1e-3, high: float = 1e2, seed: int = 1) -> tuple[float, ...]:
    """The same where most numbers are."""
    return positive(count, low, high, seed)


def signed(points: tuple[float, ...]) -> tuple[float, ...]:
    """Both signs."""
    return tuple(-x for x in reversed(points)) + points


# All of float32's normal numbers, more densely where most functions bend.
WHOLE = signed(positive() + everyday())
POSITIVE = positive() + everyday()
