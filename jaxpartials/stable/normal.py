"""The logarithm of the normal distribution function, and the scaled complementary error function."""

import functools
import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxpartials.stable.errorfree import two_product
from jaxpartials.stable.family import Orders, family
from jaxpartials.stable.mills import cumulant, moment
from jaxpartials.stable.polynomials import Coefficients, derivative, horner, plus, times

# Beyond it the normal density underflows in float64, too.
FARTHEST = 64.0
# Until φ's product with a large factor is taken, it is kept so many times larger, lest it underflow before.
LIFT = 16.0


def log_ndtr(x: ArrayLike) -> jax.Array:
    """log Φ(x), with the normal distribution function Φ and density φ.

    With m = φ/Φ:   f′ = m,   f″ = −m (m + x).

    For x → −∞, m → −x, and m + x cancels in the plain second derivative: in float32 that of
    `jax.scipy.special.log_ndtr` at −1e4 is 2e7; it should be −1.

    >>> float(jax.grad(jax.grad(log_ndtr))(-1e4))
    -1.0

    Args:
        x: any shape; real.

    Returns:
        log Φ(x), and its derivatives of orders 1 and 2, within 8 ulp; order 3 within 8 ulp of |f‴| + |x f⁗|. At −inf
        it is −inf, its derivative +inf, the second −1, all others 0; at +inf it and all derivatives are 0.

    Raises:
        StableError: if x is no array of numbers, or complex.

    Source: NIST Digital Library of Mathematical Functions, 7.8 (Mills' ratio), 7.18. For x ≤ 0, with y = −x:
    f = −y²/2 − log √(2π) + log R(y), and the derivatives of log R are cumulants.
    """
    return _log_ndtr(x)


def erfcx(x: ArrayLike) -> jax.Array:
    """exp(x²) erfc(x), the scaled complementary error function.

    f′ = 2x f − 2/√π,   f″ = 2x f′ + 2 f;   f⁽ⁿ⁾ = (−2)ⁿ n! exp(x²) iⁿerfc(x).

    For x → ∞ these differences cancel, and erfc itself underflows: in float32 `exp(x*x)*erfc(x)` is nan at x = 20; it
    should be 0.0282. JAX has no such function.

    >>> round(float(erfcx(20.0)), 4)
    0.0282

    Args:
        x: any shape; real.

    Returns:
        exp(x²) erfc(x), and its derivatives of orders 1 and 2, within 8 ulp; order 3 within 8 ulp of |f‴| + |x f⁗|. At
        +inf it and all derivatives are 0; at −inf they are ±inf.

    Raises:
        StableError: if x is no array of numbers, or complex.

    Source: W. Gautschi, Recursive computation of the repeated integrals of the error function, Math. Comp. 15 (1961);
    NIST Digital Library of Mathematical Functions, 7.18. For x ≥ 0 see `mills`.
    """
    return _erfcx(x)


def _nth_log_ndtr(orders: Orders, x: jax.Array) -> jax.Array:
    (n,) = orders
    # Where the formula on the left gives way to the one on the right. From order 2 the latter cancels near 0.
    border = 0.0 if n < 2 else 0.5
    left = _left(n, jnp.minimum(x, border), border)
    right = _right(n, jnp.clip(x, 0, FARTHEST))
    return jnp.where(x > border, right, left)


def _left(n: int, x: jax.Array, border: float) -> jax.Array:
    """Derivatives of log Φ = −y²/2 − log √(2π) + log R(y) at y = −x."""
    y = -x
    if n == 0:
        return jnp.log(moment(0, y) * (1 / math.sqrt(2 * math.pi))) - (0.5 * y) * y
    kappa = cumulant(n, y, -border)
    return y + kappa if n == 1 else kappa - 1 if n == 2 else kappa


def _right(n: int, x: jax.Array) -> jax.Array:
    """Derivatives of log Φ = log(1 − φ R), for x ≥ 0; from the second on, polynomials in x and m = φ/Φ."""
    high, low = two_product(x, x)
    exponent = -0.5 * high
    far = exponent < -4 * LIFT
    # Exact: both are multiples of the last place of numbers below 128.
    exponent = jnp.where(far, exponent + LIFT, exponent)
    lifted = jnp.exp(exponent) * (1 - 0.5 * low) * (1 / math.sqrt(2 * math.pi))
    lower = jnp.where(far, math.exp(-LIFT), 1.0).astype(x.dtype)
    tail = lifted * moment(0, x)
    if n == 0:
        log = jnp.log1p(-tail)
        if jnp.finfo(x.dtype).nmant > 30:
            # On JAX 0.10 log1p of float64 is off by up to 120 ulp between −0.42 and −0.3.
            log = jnp.where(tail > 0.25, jnp.log(1 - tail), log)
        return jnp.where(far, -tail * lower, log)
    m = jnp.where(far, lifted, lifted / (1 - tail))
    total = jnp.zeros_like(x)
    for p in reversed(_right_polynomial(n)):
        total = total * (m * lower) + horner(p, x)
    return (m * total) * lower


@functools.cache
def _right_polynomial(n: int) -> tuple[Coefficients, ...]:
    """p₀, p₁, … with f⁽ⁿ⁾ = m·P, P = Σ mⁱ pᵢ(x): by m′ = −m (m + x), (m P)′ = m (∂ₓP − (m + x)(P + m ∂ₘP))."""
    if n == 1:
        return ((1,),)
    before = _right_polynomial(n - 1)
    after: list[Coefficients] = [(0,)] * (len(before) + 1)
    for i, p in enumerate(before):
        after[i] = plus(after[i], plus(derivative(p), times((0, -(i + 1)), p)))
        after[i + 1] = plus(after[i + 1], times((-(i + 1),), p))
    return tuple(after)


def _nth_erfcx(orders: Orders, x: jax.Array) -> jax.Array:
    (n,) = orders
    right = moment(n, jnp.maximum(x, 0), math.sqrt(2)) * (math.pow(-1, n) / math.sqrt(math.pi))
    # For x < 0, terms of one sign: f = 2 exp(x²) − erfcx(−x), f⁽ⁿ⁾ = 2x f⁽ⁿ⁻¹⁾ + 2(n−1) f⁽ⁿ⁻²⁾.
    minus = jnp.clip(x, -FARTHEST, 0)
    high, low = two_product(minus, minus)
    before = None
    left = 2 * jnp.exp(high) * (1 + low) - moment(0, -minus, math.sqrt(2)) * (1 / math.sqrt(math.pi))
    for k in range(1, n + 1):
        other = jnp.full_like(x, -2 / math.sqrt(math.pi)) if before is None else 2 * (k - 1) * before
        before, left = left, 2 * minus * left + other
    return jnp.where(x < 0, left, right)


_log_ndtr = family("log_ndtr", _nth_log_ndtr)
_erfcx = family("erfcx", _nth_erfcx)
