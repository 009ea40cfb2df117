"""tanh and log cosh."""

import functools
import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxpartials.stable.family import Orders, family
from jaxpartials.stable.polynomials import Coefficients, derivative, horner, plus, times


def tanh(x: ArrayLike) -> jax.Array:
    """The hyperbolic tangent, tanh x.

    With s = sech² x:   tanh′ = s,   tanh″ = −2 s tanh x.

    The plain derivative is 1 − tanh² x, which cancels: in float32 `jax.grad(jnp.tanh)(9.0)` is 0; it should be 6.1e-8.

    >>> float(jax.grad(tanh)(9.0)) > 0
    True

    Args:
        x: any shape; complex numbers are given to `jax.numpy.tanh`.

    Returns:
        tanh x, within 5 ulp; orders 1 and 2 within 8 ulp; order 3 within 8 ulp of |f‴| + |x f⁗|. At ±inf it is ±1 and
        all derivatives are 0; at −0 it is −0.

    Raises:
        StableError: if x is no array of numbers.

    Source: NIST Digital Library of Mathematical Functions, 4.28, 4.34.
    """
    return _tanh(x)


def log_cosh(x: ArrayLike) -> jax.Array:
    """log cosh x.

    f′ = tanh x,   f″ = sech² x.

    Written out plainly, log(cosh(x)) overflows from x = 89.5 and cancels near 0; |x| + log1p(exp(−2|x|)) − log 2, or
    `jnp.logaddexp(x, -x) - jnp.log(2)`, cancels near 0: in float32 it is 0 at x = 1e-4; it should be 5e-9.

    >>> float(log_cosh(1e-4)) > 4.9e-9
    True

    Args:
        x: any shape; real.

    Returns:
        log cosh x, and its derivatives of orders 1 and 2, within 8 ulp; order 3 within 8 ulp of |f‴| + |x f⁗|. At ±inf
        it is +inf, its derivative ±1, all others 0.

    Raises:
        StableError: if x is no array of numbers, or complex.

    Source: NIST Digital Library of Mathematical Functions, 4.28, 4.35: cosh x = 1 + 2 sinh²(x/2).
    """
    return _log_cosh(x)


def sech(x: jax.Array) -> jax.Array:
    """sech x = 2e/(1 + e²) with e = exp(−|x|), which neither cancels nor overflows."""
    e = jnp.exp(-jnp.abs(x))
    return 2 * e / (1 + e * e)


def tanh_value(x: jax.Array) -> jax.Array:
    """tanh x = −expm1(−2|x|)/(1 + exp(−2|x|)), with the sign of x; XLA's own is cheaper, and twice as far off."""
    q = jnp.expm1(-2 * jnp.abs(x))
    return jnp.copysign(-q / (2 + q), x)


# log 2 in two parts, the first with so few bits that |x| − LOG2_HIGH is exact for |x| ≈ 1.
LOG2_HIGH = 0.693359375
LOG2_LOW = math.log(2) - LOG2_HIGH


def log_cosh_value(x: jax.Array) -> jax.Array:
    """log cosh x = log1p(2 sinh²(x/2)) for |x| < 3/4, else |x| − log 2 + log1p(exp(−2|x|)), which hardly cancels."""
    size = jnp.abs(x)
    small = size < 0.75
    # 2 sinh(x/2) = x (1 + x²/24 + …); its square is above the value, and so underflows after it.
    degree = 4 if jnp.finfo(x.dtype).nmant < 30 else 8
    series = [1 / (4**k * math.factorial(2 * k + 1)) for k in range(degree + 1)]
    twice_sinh = size * horner(series, size * size)
    inner = jnp.where(small, 0.5 * (twice_sinh * twice_sinh), jnp.exp(-2 * size))
    return jnp.where(small, 0, (size - LOG2_HIGH) - LOG2_LOW) + jnp.log1p(inner)


def _nth_log_cosh(orders: Orders, x: jax.Array) -> jax.Array:
    (n,) = orders
    return log_cosh_value(x) if n == 0 else _nth_tanh((n - 1,), x)


def _nth_tanh(orders: Orders, x: jax.Array) -> jax.Array:
    (n,) = orders
    if n == 0:
        return jnp.tanh(x)
    # Not sech² P: sech² underflows before the product does.
    root = sech(x)
    return (root * horner(_tanh_polynomial(n), tanh_value(x))) * root


@functools.cache
def _tanh_polynomial(n: int) -> Coefficients:
    """P with tanh⁽ⁿ⁾ = sech²·P(tanh): P₁ = 1, and (s·P(t))′ = s·((1 − t²) P′(t) − 2 t P(t))."""
    if n == 1:
        return (1,)
    p = _tanh_polynomial(n - 1)
    return plus(times((1, 0, -1), derivative(p)), times((0, -2), p))


_tanh = family("tanh", _nth_tanh, complex=jnp.tanh)
_log_cosh = family("log_cosh", _nth_log_cosh)
