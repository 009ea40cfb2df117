"""Ratios x/y and reciprocal powers x/yⁿ.

Every partial derivative of a ratio is c·x/yⁿ. It is computed one factor at a time, in an order in which each
intermediate lies between a ratio that is representable and the result: so it overflows or underflows only where the
result does. The factors are multiplied by reciprocals, not divided: XLA turns (a/b)/c into a/(b·c), which does
overflow.
"""

import functools
import math
import operator

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jax.typing import ArrayLike

from jaxpartials._jax import with_weakness
from jaxpartials.stable.family import Orders, family, gives_way, promoted


def divide(x: ArrayLike, y: ArrayLike) -> jax.Array:
    """The ratio x/y, as `numpy.divide`.

    ∂x = 1/y,   ∂y = −x/y²;   ∂xx = 0,   ∂xy = −1/y²,   ∂yy = 2x/y³.

    The plain derivative with respect to y forms y⁻² first, which overflows or underflows where x/y² does not: in
    float32 `jax.grad(jnp.divide, 1)(1e-30, 1e-25)` is −inf; it should be −1e20.

    >>> bool(abs(jax.grad(divide, 1)(1e-30, 1e-25) / -1e20 - 1) < 1e-6)
    True

    A cotangent g is multiplied in so that g·x/y² does not overflow or underflow on the way, either, where x/y is
    representable: that of log(x/y) is 1/y even where x/y² is outside the range, if y/x is in it. Forwards, an argument
    that is held has no part in the derivative; a tangent that is computed to be 0, as that by x in the columns of
    `jax.jacfwd` by (x, y), gives nan with an infinite derivative, 0·inf, as that of `jnp.divide` does.

    Args:
        x: real or complex, of shapes that broadcast.
        y: as `x`.

    Returns:
        x/y, as exact as `jnp.divide`; orders 1 and 2 within 4 ulp, order 3 within 8 ulp wherever the true value is a
        normal number. x/±0 is ±inf, and so are its derivatives with respect to y, of the sign of the limit; 0/0 and its
        derivative with respect to y are nan. At y = ±inf and finite x the value and all derivatives are 0. Subnormal y
        count as 0 on CPUs, as everywhere in XLA. Complex ratios are as exact as XLA's division; their derivatives
        multiply by 1/y and never form y².

    Raises:
        StableError: if x or y is no array of numbers, or their shapes do not broadcast.

    Source: NIST Digital Library of Mathematical Functions, 1.4(iii).
    """
    arrays, dtype = promoted("divide", x, y)
    of = _complex_ratio if jnp.issubdtype(dtype, jnp.complexfloating) else _ratio
    return with_weakness(of(*arrays).astype(dtype), gives_way(x, y))


@jax.custom_jvp
def _ratio(x: jax.Array, y: jax.Array) -> jax.Array:
    # XLA makes a/(b·c) of a ratio of ratios, (a/b)/c, and a·c/b of a/(b/c). It does not look through these two, which
    # change nothing: where one is nan, so is the ratio. Neither is constant where y is.
    by = jnp.where(jnp.isnan(x), x, y)
    return jnp.where(jnp.isnan(by), by, x) / by


@functools.partial(_ratio.defjvp, symbolic_zeros=True)
def _ratio_tangent(xs, dxs):
    (x, y), (dx, dy) = xs, dxs
    terms = []
    # Where an argument is held, its term is left out: 0 times a derivative that is infinite would be nan.
    if not isinstance(dx, SymbolicZero):
        s = downscale(y)
        # 1/y alone would be subnormal for the largest y.
        terms.append((dx * s) * _reciprocal(y * s))
    if not isinstance(dy, SymbolicZero):
        terms.append(-((dy * _over_square(x, y)) * _unit(x, y)))
    value = _ratio(x, y)
    return value, functools.reduce(operator.add, terms) if terms else jnp.zeros_like(value)


def downscale(y: jax.Array) -> jax.Array:
    """A power of two s ≤ 1, so that 1/(s·y) is a normal number for every normal y and s·y is on the same side of 1."""
    half = jnp.finfo(y.dtype).maxexp // 2
    return jnp.where(jnp.abs(y) > 2.0**half, 2.0**-half, 1.0).astype(y.dtype)


def over_power(c: int, x: jax.Array | None, y: jax.Array, n: int, unit: jax.Array) -> jax.Array:
    """c·x/yⁿ, n ≥ 2, or c/yⁿ for x = None, over `unit`: overflows or underflows only where that does.

    Args:
        unit: 1, or a power of two near 1/y.
    """
    q = 1 / y if x is None else x / y
    early = late = None
    if c != 1:
        # Multiplied in where it carries the running product towards the result.
        first = (jnp.abs(q) < 1) | (jnp.abs(y) >= abs(c))
        early, late = jnp.where(first, float(c), 1.0), jnp.where(first, 1.0, float(c))
    total = q if early is None else q * early.astype(q.dtype)
    s = downscale(y)
    for _ in range(n - 2):
        total = (total * s) * (1 / (y * s))
    # A division used in two places is not fused into either, so this one is another than the above.
    plain = unit == 1
    total = (total * jnp.where(plain, s, 1)) * (1 / (y * jnp.where(plain, s, unit)))
    return total if late is None else total * late.astype(q.dtype)


def reciprocal_power(c: float, x: jax.Array, n: int) -> jax.Array:
    """c/xⁿ, n ≥ 1."""
    # Where 1/x is subnormal, so is the result: every further factor is as small.
    r = 1 / x
    total = r if c == 1 else c * r
    for _ in range(n - 1):
        total = total * r
    return total


def _nth_reciprocal(orders: Orders, y: jax.Array) -> jax.Array:
    (k,) = orders
    return reciprocal_power((-1) ** k * math.factorial(k), y, k + 1)


# g·x/y² is computed as g·(x/y²/u)·u. Where x/y and 1/y lie on different sides of 1, x/y² lies between them, and u = 1.
# Where they lie on the same side, it could leave the range on its own; u is then a power of two near 1/y. As u changes
# in steps it is a constant at each point, and the first factor's derivatives are those of x/y², over u.
def _same_side(x: jax.Array, y: jax.Array) -> jax.Array:
    return (jnp.abs(x) > jnp.abs(y)) == (jnp.abs(y) < 1)


def _near_reciprocal(y: jax.Array) -> jax.Array:
    """A power of two near 1/|y|, and not above it where that is below 1: 1/y over it does not lead out of the range."""
    info = jnp.finfo(y.dtype)
    word = jnp.int32 if info.bits == 32 else jnp.int64
    field = lambda e: word(e << info.nmant)
    one, top = info.maxexp - 1, 2 * info.maxexp - 1
    exponent = lax.bitcast_convert_type(y, word) & field(top)
    exponent = jnp.clip(exponent + jnp.where(exponent >= field(one), field(1), field(0)), field(1), field(top - 2))
    return lax.bitcast_convert_type(field(2 * one) - exponent, y.dtype)


def _unit(x: jax.Array, y: jax.Array) -> jax.Array:
    x, y = lax.stop_gradient((x, y))
    return jnp.where(_same_side(x, y), _near_reciprocal(y), 1.0)


def _nth_over_square(orders: Orders, x: jax.Array, y: jax.Array) -> jax.Array:
    """∂xⁱ ∂yᵏ x/y², over u."""
    i, k = orders
    if i > 1:
        return jnp.zeros_like(x)
    return over_power((-1) ** k * math.factorial(k + 1), x if i == 0 else None, y, k + 2, _unit(x, y))


_reciprocal = family("divide", _nth_reciprocal)
_over_square = family("divide", _nth_over_square)


@jax.custom_jvp
def _complex_ratio(x: jax.Array, y: jax.Array) -> jax.Array:
    return x / y


@_complex_ratio.defjvp
def _complex_ratio_tangent(xs, dxs):
    (x, y), (dx, dy) = xs, dxs
    q = _complex_ratio(x, y)
    return q, (dx - q * dy) * _complex_reciprocal(y)


@jax.custom_jvp
def _complex_reciprocal(y: jax.Array) -> jax.Array:
    return 1 / y


@_complex_reciprocal.defjvp
def _complex_reciprocal_tangent(ys, dys):
    r = _complex_reciprocal(*ys)
    return r, -(r * dys[0]) * r
