"""Logarithms of sums and differences of exponentials.

Of two arguments they are one of them plus a function of the difference d = x − y. Where exp(−|d|) is small, an error of
half a unit in the last place of d is many of the result, so d is held as an unevaluated sum of two numbers. Where the
two cancel, the value is log1p(exp(x) ± exp(y) − 1), of exponentials with more than twice the bits.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxpartials.stable.errorfree import two_sum
from jaxpartials.stable.exponential_sums import exponential_sum_less_one
from jaxpartials.stable.family import Orders, family
from jaxpartials.stable.logistic import sigmoid_derivative
from jaxpartials.stable.polynomials import derivative, horner, times


def logaddexp(x: ArrayLike, y: ArrayLike) -> jax.Array:
    """log(exp(x) + exp(y)).

    ∂f/∂x = σ(x − y),   ∂f/∂y = σ(y − x),   ∂²f/∂x² = ∂²f/∂y² = −∂²f/∂x∂y = σ(x − y) σ(y − x).

    The plain second derivatives cancel: in float32 that of `jnp.logaddexp` at (18, 0) by x is 0; it should be 1.5e-8.

    >>> float(jax.grad(jax.grad(logaddexp))(18.0, 0.0)) > 1.5e-8
    True

    Args:
        x: any shape; complex numbers are given to `jax.numpy.logaddexp`.
        y: broadcast against x.

    Returns:
        log(exp(x) + exp(y)), within 16 ulp, near its roots exp(x) + exp(y) = 1, too: down to 3e-10 of the larger
        argument (1e-19 in float64), below within 16 ulp of that. Derivatives of orders 1 and 2 within 16 ulp; of order
        3 within 16 ulp of |f‴| + |x ∂ₓf‴| + |y ∂ᵧf‴|. Of equal arguments, infinite ones too, the derivatives are ½ and
        ±¼.

    Raises:
        StableError: if an argument is no array of numbers, or they do not broadcast.

    Source: NIST Digital Library of Mathematical Functions, 4.28, 4.34: f = y + log(1 + exp(x − y)).
    """
    return _logaddexp(x, y)


def log1mexp(x: ArrayLike) -> jax.Array:
    """log(1 − exp(−x)), for x > 0.

    With u = 1/(exp(x) − 1):   f′ = u,   f″ = −u (1 + u).

    The plain second derivative is exp(x)/(exp(x) − 1)², whose parts leave the range: in float32 that of
    `jax.nn.log1mexp` at 80 is 0; it should be −1.8e-35.

    >>> float(jax.grad(jax.grad(log1mexp))(80.0)) < -1.8e-35
    True

    Args:
        x: any shape; real.

    Returns:
        log(1 − exp(−x)), and its derivatives of orders 1 and 2, within 8 ulp; order 3 within 8 ulp of |f‴| + |x f⁗|. At
        0 it is −inf, and its derivatives are ±inf; at +inf it is −0, and its derivatives are 0. For x < 0 it is nan.

    Raises:
        StableError: if x is no array of numbers, or complex.

    Source: M. Mächler, Accurately computing log(1 − exp(−|a|)) (2012); u′ = −u (1 + u).
    """
    return _log1mexp(x)


def logdiffexp(x: ArrayLike, y: ArrayLike) -> jax.Array:
    """log(exp(x) − exp(y)), for x > y.

    With d = x − y and u = 1/(exp(d) − 1):   ∂f/∂x = 1 + u,   ∂f/∂y = −u,   ∂²f/∂x² = ∂²f/∂y² = −∂²f/∂x∂y = −u (1 + u).

    Written out plainly it overflows; x + log1p(−exp(y − x)) cancels where x is near y: in float32 its derivative by x
    at (1, 0.999) is 1000.49; it should be 1000.513.

    >>> round(float(logdiffexp(1000.0, 999.0)), 3)
    999.541

    Args:
        x: any shape; real.
        y: broadcast against x.

    Returns:
        log(exp(x) − exp(y)), within 16 ulp, near its roots exp(x) − exp(y) = 1, too: down to 3e-10 of exp(x) − 1
        (1e-19 in float64), below within 16 ulp of that. Derivatives of orders 1 and 2 within 16 ulp; of order 3 within
        16 ulp of |f‴| + |x ∂ₓf‴| + |y ∂ᵧf‴|. For x = y it is −inf, and its derivatives are ±inf; for x < y it is nan.

    Raises:
        StableError: if an argument is no array of numbers, or complex, or they do not broadcast.

    Source: M. Mächler, Accurately computing log(1 − exp(−|a|)) (2012); f = x + log(1 − exp(−d)).
    """
    return _logdiffexp(x, y)


def difference(x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    """x − y, and 1 plus its rounding error: exp(x − y) = exp(first)·second."""
    high, low = two_sum(x, -y)
    # Beyond, the exponential has underflowed or overflowed, and infinite numbers have no rounding error.
    low = jnp.where(jnp.abs(high) < 1000, low, 0)
    return jnp.where(x == y, 0, high), 1 + low


def _nth_logaddexp(orders: Orders, x: jax.Array, y: jax.Array) -> jax.Array:
    d, more = difference(x, y)
    e = jnp.exp(-jnp.abs(d)) * jnp.where(d < 0, more, 2 - more)
    n = sum(orders)
    if n == 0:
        larger = jnp.maximum(x, y)
        return _near_root(larger, jnp.minimum(x, y), 1, larger + jnp.log1p(e))
    if orders[0] == 0 and n == 1:
        return sigmoid_derivative(0, -d, e)
    return math.pow(-1, orders[1]) * sigmoid_derivative(n - 1, d, e)


def _near_root(x: jax.Array, y: jax.Array, sign: int, value: jax.Array) -> jax.Array:
    """log(exp(x) + sign·exp(y)) for x ≥ y, given a value that errs by an ulp or two of x."""
    near = jnp.abs(value) < jnp.abs(x) / 2

    def careful(x, y, value):
        # Without a barrier XLA compiles the sum into each of its uses in log1p, and each part of it into each of its.
        return jnp.where(near, jnp.log1p(lax.optimization_barrier(exponential_sum_less_one(x, y, sign))), value)

    # The sum takes ten times as long as all the rest, and few arrays have an element near a root.
    return lax.cond(jnp.any(near), careful, lambda x, y, value: value, x, y, value)


def _nth_log1mexp(orders: Orders, x: jax.Array) -> jax.Array:
    (n,) = orders
    if n == 0:
        return jnp.where(x < math.log(2), jnp.log(-jnp.expm1(-x)), jnp.log1p(-jnp.exp(-x)))
    return jnp.where(x < 0, jnp.nan, _bose_derivative(n - 1, x, jnp.ones_like(x)))


def _nth_logdiffexp(orders: Orders, x: jax.Array, y: jax.Array) -> jax.Array:
    d, more = difference(x, y)
    if orders == (0, 0):
        e = jnp.exp(-d) * (2 - more)
        return _near_root(x, y, -1, x + jnp.where(d < math.log(2), jnp.log(-jnp.expm1(-d)), jnp.log1p(-e)))
    if orders == (1, 0):
        value = -1 / jnp.expm1(-d)
    else:
        value = math.pow(-1, orders[1]) * _bose_derivative(sum(orders) - 1, d, more)
    return jnp.where(d < 0, jnp.nan, value)


def _bose_derivative(n: int, x: jax.Array, more: jax.Array) -> jax.Array:
    """The n-th derivative of u = 1/(exp(x) − 1): terms of one sign in u > 0, by u′ = −u (1 + u).

    Where u is small it is exp(−x), and counts the rounding error of x, `more` − 1.
    """
    e = jnp.exp(-x)
    u = jnp.where(x < 1, 1 / _expm1_below_one(x), e * (2 - more) / (1 - e))
    if n == 0:
        return u
    # Factor by factor: a partial product is at most the whole, or as small as u.
    return (u * (1 + u)) * horner(_bose_polynomial(n), u)


def _expm1_below_one(x: jax.Array) -> jax.Array:
    """exp(x) − 1 for x in [0, 1], within 2 ulp: `jnp.expm1` is off by up to 5, which derivatives would multiply."""
    degree = 10 if jnp.finfo(x.dtype).nmant < 30 else 18
    return x * horner([1 / math.factorial(k + 1) for k in range(degree + 1)], x)


@functools.cache
def _bose_polynomial(n: int) -> tuple[float, ...]:
    """P with u⁽ⁿ⁾ = u (1 + u) P(u): P₁ = −1, and (u (1 + u) P)′ = −u (1 + u) (u (1 + u) P)′ in u."""
    if n == 1:
        return (-1,)
    return times((-1,), derivative(times((0, 1, 1), _bose_polynomial(n - 1))))


_logaddexp = family("logaddexp", _nth_logaddexp, complex=jnp.logaddexp)
_log1mexp = family("log1mexp", _nth_log1mexp)
_logdiffexp = family("logdiffexp", _nth_logdiffexp)
