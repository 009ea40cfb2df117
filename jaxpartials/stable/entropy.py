"""x log x, x log y, and the terms of relative entropy and of the Kullback–Leibler divergence."""

import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy import special
from jax.typing import ArrayLike

from jaxpartials.stable.errorfree import two_product, two_sum
from jaxpartials.stable.family import Orders, family
from jaxpartials.stable.polynomials import horner
from jaxpartials.stable.ratios import over_power, reciprocal_power

# e, of which a float holds 24 or 53 bits.
E = sum((Fraction(1, math.factorial(k)) for k in range(60)), Fraction(0))


def xlogx(x: ArrayLike) -> jax.Array:
    """x log x; 0 at 0.

    f′ = 1 + log x,   f″ = 1/x.

    The plain derivative at 0 is nan, and loses its bits near the root 1/e of f′: in float32, that of x·jnp.log(x) at
    0.36787945 is 0; it should be 2.5e-8.

    >>> f"{float(jax.grad(xlogx)(0.36787945)):.1e}"
    '2.5e-08'

    Args:
        x: any shape; no complex numbers. Below 0 the result is nan.

    Returns:
        x log x, orders 0 to 3 within 8 ulp. At 0 it is 0, f′ = −inf, f″ = inf; at inf it is inf, and so is f′.

    Raises:
        StableError: if x is no array of numbers, or complex.

    Source: near 1/e, f′ = log1p((x − 1/e) e), with 1/e in two parts. It is minus the `scipy.special.entr`.
    """
    return _xlogx(x)


def xlogy(x: ArrayLike, y: ArrayLike) -> jax.Array:
    """x log y; 0 where x = 0.

    ∂x = log y,   ∂y = x/y;   ∂xx = 0,   ∂xy = 1/y,   ∂yy = −x/y².

    The plain second derivative forms y⁻²: in float32, that of `jax.scipy.special.xlogy` with respect to y at
    (1e-30, 1e-25) is −inf; it should be −1e20.

    >>> f"{float(jax.grad(jax.grad(xlogy, 1), 1)(1e-30, 1e-25)):.0e}"
    '-1e+20'

    Args:
        x: of shapes that broadcast; complex numbers are given to `jax.scipy.special.xlogy`.
        y: as `x`.

    Returns:
        x log y, within 4 ulp; all derivatives within 8 ulp. Where x = 0 it is 0, unless y is nan, and ∂y and its
        derivatives by y are 0, also at y = 0: a convention, f being 0 along that line. ∂x is −inf at y = 0.

    Raises:
        StableError: if x or y is no array of numbers, or their shapes do not broadcast.

    Source: as `scipy.special.xlogy`.
    """
    return _xlogy(x, y)


def rel_entr(x: ArrayLike, y: ArrayLike) -> jax.Array:
    """The relative entropy's terms: x log(x/y) where x > 0 and y > 0; 0 where x = 0 and y ≥ 0; else inf.

    ∂x = 1 + log(x/y),   ∂y = −x/y;   ∂xx = 1/x,   ∂xy = −1/y,   ∂yy = x/y².

    That of `jax.scipy.special.rel_entr` with respect to x at (0, 1) is 0; it is −inf. 1 + log(x/y) cancels near
    x/y = 1/e: at (1, 2.7182817) it gives 0 in float32; it should be 3.0e-8.

    >>> float(jax.grad(rel_entr)(0.0, 1.0))
    -inf

    Args:
        x: of shapes that broadcast; no complex numbers.
        y: as `x`.

    Returns:
        x log(x/y), orders 0 to 3 within 8 ulp, whether or not x/y is representable. At x = 0 < y: ∂x = −inf, ∂y = 0,
        ∂xx = inf, ∂xy = −1/y. At (0, 0) it is 0, ∂y = 0, ∂x = −inf: conventions, of the limit x → 0 first.
        Outside the domain the derivatives are nan.

    Raises:
        StableError: if x or y is no array of numbers, complex, or their shapes do not broadcast.

    Source: as `scipy.special.rel_entr`. For x near y, log(x/y) = log1p((x − y)/y), where x − y is exact; near y/e,
    1 + log(x/y) = log1p((e x − y)/y), with e x as an unevaluated sum.
    """
    return _rel_entr(x, y)


def kl_div(x: ArrayLike, y: ArrayLike) -> jax.Array:
    """The Kullback–Leibler divergence's terms: x log(x/y) − x + y where x, y > 0; y where x = 0, y ≥ 0; else inf.

    ∂x = log(x/y),   ∂y = (y − x)/y;   ∂xx = 1/x,   ∂xy = −1/y,   ∂yy = x/y².

    The plain value cancels near x = y, where it is (x − y)²/(2y): in float32 x·jnp.log(x/y) − x + y at (1, 1.001) is
    6.0e-7; it should be 5.0e-7. The derivative of `jax.scipy.special.kl_div` with respect to x at (0, 1) is 0 or −1, as
    the release has it; it is −inf. The second by y forms y⁻².

    >>> f"{float(kl_div(1.0, 1.001)):.3e}"
    '4.997e-07'

    Args:
        x: of shapes that broadcast; no complex numbers.
        y: as `x`.

    Returns:
        x log(x/y) − x + y, within 16 ulp; orders 1 to 3 within 8 ulp, whether or not x/y is representable. At
        x = 0 < y: ∂x = −inf, ∂y = 1, ∂xx = inf, ∂xy = −1/y. At (0, 0) it is 0, ∂y = 1, ∂x = −inf: conventions, of the
        limit x → 0 first. At y = inf it is inf, and ∂y = 1. Outside the domain the derivatives are nan.

    Raises:
        StableError: if x or y is no array of numbers, complex, or their shapes do not broadcast.

    Source: as `scipy.special.kl_div`. With z = (y − x)/(x + y), log(x/y) = −2 atanh z, and the value is
    x (z (y − x)/x − 2 (atanh z − z)).
    """
    return _kl_div(x, y)


def _nth_xlogx(orders: Orders, x: jax.Array) -> jax.Array:
    (n,) = orders
    if n == 0:
        return jnp.where(x == 0, 0, x * jnp.log(x))
    if n == 1:
        first, second, _ = _in_parts(1 / E, x.dtype)
        # Not ((x − first) − second)·e: XLA adds constants up first.
        d = (x - first) * math.e - second * math.e
        # log(1 + d) = 2 atanh z: a few terms cost less than a second logarithm.
        z = d / (2 + d)
        return jnp.where(jnp.abs(d) < 0.25, 2 * (z + _atanh_beyond(z, 1 / 7)), 1 + jnp.log(x))
    return _within(x >= 0, reciprocal_power((-1.0) ** n * math.factorial(n - 2), jnp.abs(x), n - 1))


def _nth_xlogy(orders: Orders, x: jax.Array, y: jax.Array) -> jax.Array:
    i, j = orders
    if i > 1:
        return jnp.zeros_like(x)
    if j == 0:
        log = jnp.log(y)
        return log if i else jnp.where((x == 0) & ~jnp.isnan(y), 0, x * log)
    return _minus_x_log_y((i, j), x, y, -1)


def _nth_rel_entr(orders: Orders, x: jax.Array, y: jax.Array) -> jax.Array:
    if orders == (0, 0):
        value = jnp.where(x == 0, 0, x * log_ratio(x, y))
        return _extended(x, y, value)
    if orders == (1, 0):
        return _within((x >= 0) & (y >= 0), _one_plus_log_ratio(x, y))
    return _higher(orders, x, y)


def _nth_kl_div(orders: Orders, x: jax.Array, y: jax.Array) -> jax.Array:
    if orders == (0, 0):
        return _extended(x, y, _divergence(x, y))
    if orders == (1, 0):
        return _within((x >= 0) & (y >= 0), log_ratio(x, y))
    if orders == (0, 1):
        return _within((x >= 0) & (y >= 0), jnp.where(x == 0, 1, jnp.where(y == jnp.inf, 1 - x / y, -_excess(x, y))))
    return _higher(orders, x, y)


def _higher(orders: Orders, x: jax.Array, y: jax.Array) -> jax.Array:
    """∂xⁱ∂yʲ of x log x − x log y, for i ≥ 2 or j ≥ 1."""
    i, j = orders
    inside = (x >= 0) & (y >= 0)
    if i > 1 and j:
        return _within(inside, jnp.zeros_like(x))
    x, y = jnp.abs(x), jnp.abs(y)
    if j:
        return _within(inside, _minus_x_log_y(orders, x, y, 1))
    return _within(inside, reciprocal_power((-1.0) ** i * math.factorial(i - 2), x, i - 1))


def _minus_x_log_y(orders: Orders, x: jax.Array, y: jax.Array, sign: int) -> jax.Array:
    """∂xⁱ∂yʲ of −sign·x log y, for i ≤ 1 ≤ j."""
    i, j = orders
    c = sign * (-1) ** j * math.factorial(j - 1)
    if i:
        return reciprocal_power(float(c), y, j)
    ratio = float(c) * (x / y) if j == 1 else over_power(c, x, y, j, jnp.ones_like(y))
    # 0/0 where f is 0 along a line.
    return jnp.where(x == 0, jnp.where(jnp.isnan(y), y, 0), ratio)


def _within(domain: jax.Array, value: jax.Array) -> jax.Array:
    return jnp.where(domain, value, jnp.nan)


def _extended(x: jax.Array, y: jax.Array, value: jax.Array) -> jax.Array:
    """The value where x ≥ 0 and y ≥ 0; inf outside, and nan for nan."""
    outside = jnp.where((x < 0) | (y < 0), jnp.inf, value)
    return jnp.where(jnp.isnan(x) | jnp.isnan(y), jnp.nan, outside)


def log_ratio(x: jax.Array, y: jax.Array) -> jax.Array:
    """log(x/y), for x ≥ 0 and y ≥ 0."""
    # −0 counts as 0.
    x, y = jnp.abs(x), jnp.abs(y)
    ratio = x / y
    step = jnp.finfo(x.dtype).maxexp // 2
    large, small = ratio > 2.0 ** (2 * step - 28), ratio < 2.0 ** (28 - 2 * step)
    # A ratio that leaves the range is brought back by 2^(2·step), in two factors that x and y can bear.
    up, down = 2.0**step, 2.0**-step
    by_x, by_y = (jnp.where(large, a, jnp.where(small, b, 1)) for a, b in ((down, up), (up, down)))
    scaled = (x * by_x) / (y * by_y)
    far = jnp.log(scaled) + jnp.where(large, 1, jnp.where(small, -1, 0)).astype(x.dtype) * (2 * step * math.log(2))
    far = jnp.where(jnp.isinf(x) | jnp.isinf(y), jnp.log(ratio), far)
    near = jnp.log1p(_excess(x, y))
    value = jnp.where(jnp.abs(ratio - 1) < 0.5, near, far)
    return jnp.where(x == 0, -jnp.inf, value)


def _excess(x: jax.Array, y: jax.Array) -> jax.Array:
    """x/y − 1, for x ≥ 0 and y ≥ 0."""
    # The difference of small numbers must not underflow.
    up = jnp.where(jnp.maximum(x, y) < 1, 2.0**64, 1.0).astype(x.dtype)
    x, y = x * up, y * up
    return (x - y) / y


def _one_plus_log_ratio(x: jax.Array, y: jax.Array) -> jax.Array:
    """1 + log(x/y)."""
    # The products of parts must not underflow.
    up = jnp.where(y < 1, 2.0 ** (jnp.finfo(x.dtype).maxexp // 2), 2.0**-32).astype(x.dtype)
    x_up, y_up = x * up, y * up
    first, second, third = (jnp.broadcast_to(part, x.shape) for part in _in_parts(E, x.dtype))
    product, rest = two_product(x_up, first)
    product2, rest2 = two_product(x_up, second)
    middle, last = two_sum(rest, product2)
    d = (((product - y_up) + middle) + (last + (rest2 + x_up * third))) / y_up
    return jnp.where(jnp.abs(d) < 0.5, jnp.log1p(d), 1 + log_ratio(x, y))


def _in_parts(value: Fraction, dtype: jnp.dtype) -> tuple[jax.Array, ...]:
    """value = Σ parts, as far as three numbers go."""
    rest, parts = value, []
    for _ in range(3):
        parts.append(np.dtype(dtype).type(float(rest)))
        rest -= Fraction(float(parts[-1]))
    return tuple(map(jnp.asarray, parts))


def _divergence(x: jax.Array, y: jax.Array) -> jax.Array:
    """x log(x/y) − x + y, for x ≥ 0 and y ≥ 0."""
    edge = 0.5
    halved = jnp.where(jnp.maximum(x, y) > 1, 0.5, 1).astype(x.dtype)
    z = ((y - x) * halved) / (x * halved + y * halved)
    rest = _atanh_beyond(z, edge)
    # x last: alone, the smaller term could underflow where the sum does not.
    near = x * (z * ((y - x) / x) - 2 * rest)
    log = log_ratio(x, y)
    far = jnp.where(x > y, x * (log - 1) + y, jnp.where(x == 0, 0, x * log) + (y - x))
    return jnp.where((y == jnp.inf) & (x < jnp.inf), jnp.inf, jnp.where(jnp.abs(z) < edge, near, far))


def _atanh_beyond(z: jax.Array, edge: float) -> jax.Array:
    """atanh z − z, for |z| ≤ edge."""
    terms = math.ceil((jnp.finfo(z.dtype).nmant + 3) / -math.log2(edge**2))
    square = z * z
    return z * square * horner(tuple(1 / (2 * k + 3) for k in range(terms)), square)


_xlogx = family("xlogx", _nth_xlogx)
_xlogy = family("xlogy", _nth_xlogy, complex=special.xlogy)
_rel_entr = family("rel_entr", _nth_rel_entr)
_kl_div = family("kl_div", _nth_kl_div)
