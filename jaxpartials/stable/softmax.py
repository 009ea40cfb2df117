"""Softmax, and the logarithm of a sum of exponentials, over any axes.

With p = softmax(a), the derivatives of logsumexp, log_softmax and softmax are

    d logsumexp = Σ pⱼ daⱼ,   d log_softmaxᵢ = daᵢ − Σ pⱼ daⱼ,   d pᵢ = pᵢ (daᵢ − Σ pⱼ daⱼ).

The difference cancels when one pₖ is nearly 1. Since Σ pⱼ = 1, da may be replaced by tⱼ = daⱼ − daₖ, and tₖ is 0: what
is left of pₖ is then the sum of the others, which loses nothing. All orders are made of these three.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxpartials.errors import StableError
from jaxpartials.stable.errorfree import two_sum
from jaxpartials.stable.family import described, positions, promoted

Axes = tuple[int, ...]
Axis = int | Sequence[int] | None


def logsumexp(
    a: ArrayLike,
    axis: Axis = None,
    b: ArrayLike | None = None,
    keepdims: bool = False,
    return_sign: bool = False,
    where: ArrayLike | None = None,
) -> jax.Array | tuple[jax.Array, jax.Array]:
    """log Σ bᵢ exp(aᵢ), with b = 1 unless given.

    With p = softmax(a):   ∂/∂aᵢ = pᵢ,   ∂²/∂aᵢ∂aⱼ = pᵢ (δᵢⱼ − pⱼ).   With b, exp(aᵢ)/Σ bⱼ exp(aⱼ) stands for pᵢ/bᵢ.

    The plain second derivative cancels where one p is nearly 1: in float32 that of `jax.nn.logsumexp` at (0, 18) is 0
    by the second element; it should be 1.5e-8.

    >>> float(jax.hessian(logsumexp)(jnp.array([0.0, 18.0]))[1, 1]) > 1.5e-8
    True

    Args:
        a: real; complex numbers are given to `jax.nn.logsumexp`.
        axis: one axis or several; None: all.
        b: factors, broadcast against a; where they are 0, a does not count.
        keepdims: whether the axes stay, with length 1.
        return_sign: whether to return (log |Σ|, sign of Σ). Without it, negative sums give nan.
        where: which elements count.

    Returns:
        With n elements, and without b, within 8 + n/2 ulp of the largest derivative of that order, up to order 2; at
        order 3 of the largest of orders 2 and 3, since two equal elements that outweigh the rest are a root of all
        third derivatives; at order 0 of the larger of |value| and |largest a|, since the value has roots (that of two
        numbers, `logaddexp`, is accurate there, too). If all a are −inf it is −inf, and its derivative by each is 1/n,
        as in the limit a → −∞ of equal ones. If one is +inf, it is +inf, and its derivative by that one 1.

    Raises:
        StableError: if a or b is no array of numbers, they do not broadcast, or there is no such axis.

    Source: P. Blanchard, D. J. Higham, N. J. Higham, Accurately computing the log-sum-exp and softmax functions, IMA
    J. Numer. Anal. 41 (2021).
    """
    arrays, dtype = promoted("logsumexp", *([a] if b is None else [a, b]))
    if jnp.issubdtype(dtype, jnp.complexfloating):
        return jax.nn.logsumexp(a, axis, b, keepdims, return_sign, where)
    axes = positions("logsumexp", axis, arrays[0])
    exponents = masked(arrays[0], where)
    factors = None if b is None else arrays[1] if where is None else jnp.where(where, arrays[1], 0)
    if factors is not None:
        # 0·nan would be nan; what is finite counts for the derivative by its factor.
        exponents = jnp.where((factors == 0) & jnp.isnan(exponents), -jnp.inf, exponents)
    value = _logsumexp(axes, exponents, factors)
    sign = jnp.ones_like(value) if factors is None else _sign(axes, exponents, factors)
    if not return_sign:
        value = jnp.where(sign < 0, jnp.nan, value)
    value, sign = (x.astype(dtype) if keepdims else jnp.squeeze(x, axes).astype(dtype) for x in (value, sign))
    return (value, sign) if return_sign else value


def softmax(x: ArrayLike, axis: Axis = -1, where: ArrayLike | None = None) -> jax.Array:
    """pᵢ = exp(xᵢ)/Σ exp(xⱼ).

    ∂pᵢ/∂xⱼ = pᵢ (δᵢⱼ − pⱼ),   ∂²pᵢ/∂xⱼ∂xₖ = pᵢ ((δᵢⱼ − pⱼ)(δᵢₖ − pₖ) − pⱼ (δⱼₖ − pₖ)).

    The plain derivative cancels where one p is nearly 1: in float32 that of `jax.nn.softmax` at (0, 18), of the second
    element by itself, is 0; it should be 1.5e-8.

    >>> float(jax.jacobian(softmax)(jnp.array([0.0, 18.0]))[1, 1]) > 1.5e-8
    True

    Args:
        x: real.
        axis: over which the results add up to 1; None: all.
        where: which elements count; the others get 0.

    Returns:
        With n elements, each p, and each of their first derivatives, is within 8 + n/2 ulp; further
        derivatives of the largest one of a pᵢ of that order and the one below. If all x are −inf, each p is 1/n, as in
        the limit x → −∞ of equal ones; elements at +inf share 1 equally.

    Raises:
        StableError: if x is no array of real numbers, or there is no such axis.

    Source: P. Blanchard, D. J. Higham, N. J. Higham, Accurately computing the log-sum-exp and softmax functions, IMA
    J. Numer. Anal. 41 (2021).
    """
    (x,), dtype, axes = real("softmax", axis, x)
    p = weights(axes, masked(x, where), None)
    return (p if where is None else jnp.where(where, p, 0)).astype(dtype)


def log_softmax(x: ArrayLike, axis: Axis = -1, where: ArrayLike | None = None) -> jax.Array:
    """log pᵢ = xᵢ − log Σ exp(xⱼ).

    ∂/∂xⱼ = δᵢⱼ − pⱼ,   ∂²/∂xⱼ∂xₖ = −pⱼ (δⱼₖ − pₖ).

    The plain value and derivative cancel where one p is nearly 1: in float32 `jax.nn.log_softmax` at (0, 18) gives 0 as
    its second element, with the derivative 0 by itself; they should be ∓1.5e-8.

    >>> float(log_softmax(jnp.array([0.0, 18.0]))[1]) < -1.5e-8
    True

    Args:
        x: real.
        axis: over which the exponentials of the results add up to 1; None: all.
        where: which elements count; the others get −inf.

    Returns:
        With n elements, each value, and each of their first derivatives, is within 8 + n/2 ulp; second derivatives of
        the largest; of order 3, of the largest of orders 2 and 3. If all x are −inf, each value is −log n, as
        in the limit x → −∞ of equal ones.

    Raises:
        StableError: if x is no array of real numbers, or there is no such axis.

    Source: P. Blanchard, D. J. Higham, N. J. Higham, Accurately computing the log-sum-exp and softmax functions, IMA
    J. Numer. Anal. 41 (2021).
    """
    (x,), dtype, axes = real("log_softmax", axis, x)
    value = _log_softmax(axes, masked(x, where))
    return (value if where is None else jnp.where(where, value, -jnp.inf)).astype(dtype)


def real(name: str, axis: Axis, *xs: ArrayLike) -> tuple[tuple[jax.Array, ...], jnp.dtype, Axes]:
    """The arguments as `promoted` gives them, the dtype of the result, and the axes."""
    arrays, dtype = promoted(name, *xs)
    if jnp.issubdtype(dtype, jnp.complexfloating):
        raise StableError(
            f"{name} takes real numbers, and got {described(*xs)}. Take its real part or absolute value first."
        )
    return arrays, dtype, positions(name, axis, arrays[0])


def masked(x: jax.Array, where: ArrayLike | None) -> jax.Array:
    """x, with −inf where it does not count."""
    return x if where is None else jnp.where(where, x, -jnp.inf)


# Compiled, for no nan of inf − inf, which the selections drop, to be seen by `jax_debug_nans`.
@functools.partial(jax.jit, static_argnums=0, inline=True)
def relative(axes: Axes, a: jax.Array, b: jax.Array | None = None) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The largest element m of those that count, a − m, and exp(a − m)."""
    counted = a if b is None else jnp.where(b == 0, -jnp.inf, a)
    m = jnp.max(counted, axes, keepdims=True, initial=-jnp.inf)
    high, low = two_sum(a, -m)
    # Equal infinities differ by nothing. A factor 0 leaves elements that may exceed m by any amount.
    high = jnp.where(a == m, 0, high if b is None else jnp.minimum(high, 0.9 * jnp.log(jnp.finfo(a.dtype).max)))
    low = jnp.where((high < 0) & (high > -1000), low, 0)
    # Not e + e·low, of which the second may underflow.
    return m, high, jnp.exp(high) * (1 + low)


def excess(axes: Axes, a: jax.Array, m: jax.Array, e: jax.Array) -> jax.Array:
    """Σ exp(aⱼ − m) − 1, to full accuracy where one element outweighs the others."""
    total = jnp.sum(e, axes, keepdims=True)
    rest = jnp.sum(jnp.where(a == m, 0, e), axes, keepdims=True)
    # Below 1.5, only one element is the largest.
    return jnp.where(total < 1.5, rest, total - 1)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def weights(axes: Axes, a: jax.Array, b: jax.Array | None) -> jax.Array:
    """exp(aᵢ)/Σ bⱼ exp(aⱼ): softmax, where there is no b."""
    _, _, e = relative(axes, a, b)
    return e / jnp.sum(e if b is None else b * e, axes, keepdims=True)


@weights.defjvp
def _weights_tangent(axes: Axes, primals, tangents):
    r = weights(axes, *primals)
    return r, r * centred(axes, r, primals[1], *tangents)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _logsumexp(axes: Axes, a: jax.Array, b: jax.Array | None) -> jax.Array:
    m, _, e = relative(axes, a, b)
    if b is None:
        return m + jnp.log1p(excess(axes, a, m, e))
    return m + jnp.log(jnp.abs(jnp.sum(b * e, axes, keepdims=True)))


@_logsumexp.defjvp
def _logsumexp_tangent(axes: Axes, primals, tangents):
    return _logsumexp(axes, *primals), _mean(axes, weights(axes, *primals), primals[1], *tangents)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _log_softmax(axes: Axes, a: jax.Array) -> jax.Array:
    m, d, e = relative(axes, a)
    return d - jnp.log1p(excess(axes, a, m, e))


@_log_softmax.defjvp
def _log_softmax_tangent(axes: Axes, primals, tangents):
    (a,), (da,) = primals, tangents
    return _log_softmax(axes, a), centred(axes, weights(axes, a, None), None, da, None)


def _sign(axes: Axes, a: jax.Array, b: jax.Array) -> jax.Array:
    """The sign of Σ bⱼ exp(aⱼ)."""
    a, b = jax.lax.stop_gradient((a, b))
    _, _, e = relative(axes, a, b)
    return jnp.sign(jnp.sum(b * e, axes, keepdims=True))


def _mean(axes: Axes, r: jax.Array, b: jax.Array | None, da: jax.Array, db: Any) -> jax.Array:
    """Σ bⱼ rⱼ daⱼ + Σ rⱼ dbⱼ."""
    if b is None:
        return jnp.sum(r * da, axes, keepdims=True)
    return jnp.sum(b * r * da + r * db, axes, keepdims=True)


def centred(axes: Axes, r: jax.Array, b: jax.Array | None, da: jax.Array, db: Any) -> jax.Array:
    """daᵢ − Σ bⱼ rⱼ daⱼ − Σ rⱼ dbⱼ, given that Σ bⱼ rⱼ = 1."""
    heavy = (r if b is None else b * r) > 0.5
    if b is not None:
        # Factors of both signs allow several.
        heavy &= jnp.sum(heavy, axes, keepdims=True) == 1
    t = jnp.where(heavy, 0, da - jnp.sum(jnp.where(heavy, da, 0), axes, keepdims=True))
    return t - _mean(axes, r, b, t, db)
