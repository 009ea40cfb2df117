"""The logistic function and its integrals: sigmoid, softplus, log sigmoid."""

import functools
import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxpartials.stable.family import Orders, family
from jaxpartials.stable.polynomials import derivative, horner, plus, times


def sigmoid(x: ArrayLike) -> jax.Array:
    """The logistic function, σ(x) = 1/(1 + exp(−x)).

    σ′ = σ(x) σ(−x),   σ″ = −σ(x) σ(−x) tanh(x/2).

    The plain derivative is σ(x) (1 − σ(x)), which cancels: in float32 `jax.grad(jax.nn.sigmoid)(18.0)` is 0; it should
    be 1.5e-8.

    >>> float(jax.grad(sigmoid)(18.0)) > 1.5e-8
    True

    Args:
        x: any shape; complex numbers are given to `jax.nn.sigmoid`.

    Returns:
        σ(x), and its derivatives of orders 1 and 2, within 8 ulp; order 3 within 8 ulp of |f‴| + |x f⁗|. At +inf it is
        1, at −inf 0, and all derivatives are 0.

    Raises:
        StableError: if x is no array of numbers.

    Source: NIST Digital Library of Mathematical Functions, 4.28, 4.34: σ(x) = (1 + tanh(x/2))/2.
    """
    return _sigmoid(x)


def softplus(x: ArrayLike) -> jax.Array:
    """log(1 + exp(x)).

    f′ = σ(x),   f″ = σ(x) σ(−x).

    The plain second derivative cancels: in float32 `jax.grad(jax.grad(jax.nn.softplus))(18.0)` is 0; it should be
    1.5e-8.

    >>> float(jax.grad(jax.grad(softplus))(18.0)) > 1.5e-8
    True

    Args:
        x: any shape; complex numbers are given to `jax.nn.softplus`.

    Returns:
        log(1 + exp(x)), and its derivatives of orders 1 and 2, within 8 ulp; order 3 within 8 ulp of |f‴| + |x f⁗|. At
        +inf it is +inf, at −inf 0; its derivative is 1 and 0 there, all others 0.

    Raises:
        StableError: if x is no array of numbers.

    Source: NIST Digital Library of Mathematical Functions, 4.28, 4.34.
    """
    return _softplus(x)


def log_sigmoid(x: ArrayLike) -> jax.Array:
    """log σ(x) = −log(1 + exp(−x)).

    f′ = σ(−x),   f″ = −σ(x) σ(−x).

    It fails plainly where `softplus` does: in float32 `jax.grad(jax.grad(jax.nn.log_sigmoid))(-18.0)` is 0; it should
    be −1.5e-8.

    >>> float(jax.grad(jax.grad(log_sigmoid))(-18.0)) < -1.5e-8
    True

    Args:
        x: any shape; complex numbers are given to `jax.nn.log_sigmoid`.

    Returns:
        log σ(x), and its derivatives of orders 1 and 2, within 8 ulp; order 3 within 8 ulp of |f‴| + |x f⁗|. At −inf it
        is −inf, at +inf −0; its derivative is 1 and 0 there, all others 0.

    Raises:
        StableError: if x is no array of numbers.

    Source: NIST Digital Library of Mathematical Functions, 4.28, 4.34.
    """
    return _log_sigmoid(x)


def sigmoid_derivative(n: int, x: jax.Array, e: jax.Array) -> jax.Array:
    """σ⁽ⁿ⁾(x), given e = exp(−|x|).

    σ⁽ⁿ⁾ = σ(x) σ(−x) Pₙ(tanh(x/2)), with σ(x) σ(−x) = e/(1 + e)².
    """
    one_plus = 1 + e
    if n == 0:
        return jnp.where(x < 0, e, 1) / one_plus
    slope = e / (one_plus * one_plus)
    if n == 1:
        return slope
    t = jnp.copysign(-jnp.expm1(-jnp.abs(x)) / one_plus, x)
    return slope * horner(_sigmoid_polynomial(n), t)


def softplus_value(x: jax.Array, e: jax.Array) -> jax.Array:
    """log(1 + exp(x)) = max(x, 0) + log1p(e), given e = exp(−|x|)."""
    return jnp.maximum(x, 0) + jnp.log1p(e)


@functools.cache
def _sigmoid_polynomial(n: int) -> tuple[float, ...]:
    """P with σ⁽ⁿ⁾ = s·P(t), t = tanh(x/2), s = (1 − t²)/4: P₁ = 1, and (s·P(t))′ = s·((1 − t²)/2 P′(t) − t P(t))."""
    if n == 1:
        return (1,)
    p = _sigmoid_polynomial(n - 1)
    return plus(times((0.5, 0, -0.5), derivative(p)), times((0, -1), p))


def _nth_sigmoid(orders: Orders, x: jax.Array) -> jax.Array:
    return sigmoid_derivative(orders[0], x, jnp.exp(-jnp.abs(x)))


def _nth_softplus(orders: Orders, x: jax.Array) -> jax.Array:
    (n,) = orders
    e = jnp.exp(-jnp.abs(x))
    return sigmoid_derivative(n - 1, x, e) if n else softplus_value(x, e)


def _nth_log_sigmoid(orders: Orders, x: jax.Array) -> jax.Array:
    # (−softplus(−x))⁽ⁿ⁾ = (−1)ⁿ⁺¹ softplus⁽ⁿ⁾(−x)
    return math.pow(-1, orders[0] + 1) * _nth_softplus(orders, -x)


_sigmoid = family("sigmoid", _nth_sigmoid, complex=jax.nn.sigmoid)
_softplus = family("softplus", _nth_softplus, complex=jax.nn.softplus)
_log_sigmoid = family("log_sigmoid", _nth_log_sigmoid, complex=jax.nn.log_sigmoid)
