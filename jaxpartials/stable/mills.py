"""Mills' ratio of the normal distribution and what follows from it, each as one polynomial on a half line.

    R(y) = (1 − Φ(y))/φ(y) = ∫ exp(−ys − s²/2) ds over s ≥ 0,   R⁽ⁿ⁾(y) = (−1)ⁿ Mₙ(y),   Mₙ = ∫ sⁿ exp(−ys − s²/2) ds.

With v = 1/(y + c), Mₙ (y + d)ⁿ⁺¹ is smooth in v up to v = 0, where it is n!, so that a polynomial of low degree in
t = 1 − 2cv holds it on all of y ≥ 0, to one relative accuracy. So are the cumulants of the density in the integral,
the derivatives of log R, over vⁿ. The coefficients are computed by quadrature, in float64, when an operation is traced.

Source: M. M. Shepherd, J. G. Laframboise, Chebyshev approximation of (1 + 2x) exp(x²) erfc x in 0 ≤ x < ∞, Math.
Comp. 36 (1981), for the variable; NIST Digital Library of Mathematical Functions, 7.8 and 7.18.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from jaxpartials.stable.errorfree import two_product, two_sum
from jaxpartials.stable.polynomials import Coefficients

# Where the middle of t's range falls, y = c: near it the fewest terms are needed.
CENTRE = 2.0
NODES = 48


def moment(n: int, x: jax.Array, scale: float = 1.0) -> jax.Array:
    """Mₙ(x·scale)·scaleⁿ⁺¹, for x ≥ 0."""
    d = _base(n + 1, math.factorial(n) / (2 ** ((n - 1) / 2) * math.gamma((n + 1) / 2)), scale)
    return _over_power(x, scale, d, n + 1, _moment_coefficients(n, d * scale, _tolerance(x)))


def cumulant(n: int, y: jax.Array, start: float = 0.0) -> jax.Array:
    """The n-th cumulant of the density exp(−ys − s²/2)/R(y), (−1)ⁿ (log R)⁽ⁿ⁾, for y ≥ start and n > 0."""
    at_start = float(_cumulant(n, start, np.array([1 / CENTRE]))[0]) / CENTRE**n
    d = _base(n, math.factorial(n - 1) / at_start)
    return _over_power(y - start, 1.0, d, n, _cumulant_coefficients(n, start, d, _tolerance(y)))


def _over_power(x: jax.Array, scale: float, d: float, n: int, coefficients: Coefficients) -> jax.Array:
    """P(t)/(x + d)ⁿ, with the Chebyshev series P."""
    # Beyond, 1/x underflows.
    x = jnp.minimum(x, jnp.finfo(x.dtype).max / 4)
    centre = CENTRE / scale
    value = clenshaw(coefficients, 1 - (2 * centre) * (1 / (x + centre)))
    high, low = two_sum(x, jnp.full_like(x, d))
    w = 1 / high
    product, rest = two_product(w, high)
    # The power would multiply the rounding error of w by n, so it is taken out; where w is tiny, it would underflow.
    error = jnp.where(w > 1e-25, ((1 - product) - rest) - w * low, 0)
    value = value * (1 + n * error)
    # One by one: a power of w might underflow where the product does not.
    for _ in range(n):
        value = value * w
    return value


def clenshaw(coefficients: Coefficients, t: jax.Array) -> jax.Array:
    """c₀ + c₁ T₁(t) + c₂ T₂(t) + …, with the Chebyshev polynomials Tₖ.

    As powers of t the same polynomial has large coefficients that cancel.
    """
    twice, last, total = 2 * t, jnp.zeros_like(t), jnp.full_like(t, coefficients[-1])
    for c in reversed(coefficients[1:-1]):
        last, total = total, c + (twice * total - last)
    return coefficients[0] + (t * total - last)


def _base(n: int, power: float, scale: float = 1.0) -> float:
    """The n-th root d of f(∞)/f(0), where f(∞) is the limit of yⁿ f(y): f·(y + d)ⁿ hardly varies, and P cancels little.

    It is rounded to few bits, so that it is the same number in any precision.
    """
    return max(round(64 * abs(power) ** (1 / n) / scale), 1) / 64


def _tolerance(x: jax.Array) -> float:
    # Below, coefficients computed in float64 are noise.
    return max(float(jnp.finfo(x.dtype).eps) / 8, 3e-16)


@functools.cache
def _moment_coefficients(n: int, d: float, tolerance: float) -> Coefficients:
    v = _nodes()
    s, density = _density(0.0, v)
    return _fitted((density * s**n).sum(1) * (1 - (CENTRE - d) * v) ** (n + 1), tolerance)


@functools.cache
def _cumulant_coefficients(n: int, start: float, d: float, tolerance: float) -> Coefficients:
    v = _nodes()
    return _fitted(_cumulant(n, start, v) * (1 - (CENTRE - d) * v) ** n, tolerance)


def _cumulant(n: int, start: float, v: np.ndarray) -> np.ndarray:
    """The n-th cumulant over vⁿ."""
    s, density = _density(start, v)
    density = density / density.sum(1, keepdims=True)
    mean = (density * s).sum(1, keepdims=True)
    # κₙ = mₙ − Σ C(n−1, k−1) κₖ mₙ₋ₖ, with the central moments m, of which m₁ = 0.
    central = [(density * (s - mean) ** k).sum(1) for k in range(n + 1)]
    cumulants = [np.zeros_like(v), mean[:, 0]]
    for k in range(2, n + 1):
        lower = sum(math.comb(k - 1, j - 1) * cumulants[j] * central[k - j] for j in range(2, k - 1))
        cumulants.append(central[k] - lower)
    return cumulants[n]


def _density(start: float, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points s and weighted values of exp(−ys − s²/2) ds in units of v = 1/(y − start + CENTRE), one row for each v.

    The trapezoidal rule in u, s = exp(u − exp(−u)), converges exponentially.
    """
    u = np.arange(-6, 6, 1 / 32)
    s = np.exp(u - np.exp(-u))
    ds = s * (1 + np.exp(-u)) / 32
    v = v[:, None]
    return s, ds * np.exp(-s * (1 - (CENTRE - start) * v) - (s * v) ** 2 / 2)


def _nodes() -> np.ndarray:
    """v at the Chebyshev nodes of t."""
    return np.sin((2 * np.arange(NODES) + 1) * (np.pi / (4 * NODES))) ** 2 / CENTRE


def _fitted(values: np.ndarray, tolerance: float) -> Coefficients:
    """As many terms as the tolerance asks for of the Chebyshev series in t through the values at the nodes."""
    series = _cosines(np.outer(np.arange(NODES), 2 * np.arange(NODES) + 1)) @ values * (2 / NODES)
    series[0] /= 2
    wanted = np.flatnonzero(np.abs(series) > tolerance * np.abs(values).min())[-1]
    return tuple(map(float, series[: wanted + 1]))


def _cosines(k: np.ndarray) -> np.ndarray:
    """cos(πk/(2·NODES)), of angles up to π/4: the error of π times a larger one would be the same in every term."""
    k = k % (4 * NODES)
    k = np.minimum(k, 4 * NODES - k)
    sign, k = np.where(k > NODES, -1, 1), np.minimum(k, 2 * NODES - k)
    angle = np.pi / (2 * NODES) * np.minimum(k, NODES - k)
    return sign * np.where(2 * k > NODES, np.sin(angle), np.cos(angle))
