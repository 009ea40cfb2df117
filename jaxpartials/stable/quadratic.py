"""The real roots of a quadratic polynomial."""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxpartials.stable.errorfree import add, negative, rounded, two_product
from jaxpartials.stable.family import Orders, family
from jaxpartials.stable.polynomials import horner

# A number as m·2^e, 1 ≤ |m| < 2 as far as its own range goes.
Scaled = tuple[jax.Array, jax.Array]

# The exponent of 0.
NOTHING = -20000


def quadratic_roots(a: ArrayLike, b: ArrayLike, c: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """The roots (−b − √(b² − 4ac))/(2a) and (−b + √(b² − 4ac))/(2a) of a r² + b r + c, in this order.

    With T = 1/(2ar + b), which is ∓1/√(b² − 4ac):   ∂a = −r² T,   ∂b = −r T,   ∂c = −T;
    ∂cc = −2a T³,   ∂bc = T² (1 − 2 a r T),   ∂ac = 2 r T² (1 − a r T).

    The plain formula cancels in one of the roots, and b² leaves the range: in float32 for (1, 1e4, 1) it gives 0 for
    the second root, which is −1e-4, and −inf and inf for (1e25, −3e25, 2e25), whose roots are 1 and 2.

    Examples:
        >>> [round(float(r), 5) for r in quadratic_roots(1e25, -3e25, 2e25)]
        [1.0, 2.0]

    Args:
        a: real, of shapes that broadcast.
        b: as `a`.
        c: as `a`.

    Returns:
        Both roots, within 4 ulp; derivatives of order 1 within 8 ulp, of order 2 within 16, of order 3 within 32 ulp of
        the largest of their order.
        Complex roots give nan. At a double root both are −b/(2a), and derivatives are infinite or nan. At a = 0 the
        root that stays finite is −c/b, the first for b < 0, the second for b ≥ 0, with derivatives; the other is
        infinite, with the sign of −b/a. (0, 0, c) and whatever holds an inf or nan gives nan.

    Raises:
        StableError: if an argument is complex or no array of numbers, or their shapes do not broadcast.

    Source: N. J. Higham, Accuracy and Stability of Numerical Algorithms, 1.8; the discriminant by error-free products.
    As r depends on a, b and c through ∂b r = r ∂c r and ∂a r = r² ∂c r, its derivative of orders (i, j, k) is
    (∂/∂c)ⁿ rᵖ⁺¹/(p + 1) with n = i + j + k and p = 2i + j.
    """
    return _lower(a, b, c), _upper(a, b, c)


def _nth_root(sign: int, orders: Orders, a: jax.Array, b: jax.Array, c: jax.Array) -> jax.Array:
    (ma, ea), (mb, eb), (mc, ec) = map(_scaled, (a, b, c))
    # b = B·2^h and b² − 4ac = D·2^(2h), where the larger of the two terms has a size of about 1.
    h = (jnp.maximum(2 * eb, ea + ec + 2) + 1) >> 1
    big_b = _times_power(mb, eb - h)
    four_c = _times_power(mc, ea + ec + 2 - 2 * h)
    root = jnp.sqrt(rounded(add(two_product(big_b, big_b), negative(two_product(ma, four_c)))))
    q = -(big_b + jnp.where(big_b < 0, -root, root)) / 2
    by_sum = (big_b < 0) == (sign > 0)
    # b = 0 = a·c: 0, unless a = 0.
    neither = jnp.where((mc == 0) & (ma != 0), 0, jnp.nan)
    mr = jnp.where(q == 0, neither, jnp.where(by_sum, q / ma, mc / jnp.where(q == 0, 1, q)))
    er = jnp.where(by_sum, h - ea, ec - h)
    n, p = sum(orders), 2 * orders[0] + orders[1]
    if n == 0:
        return _times_power(mr, er)
    mt, et = _scaled(sign / root)
    rho = _times_power(ma * mr * mt, ea + er + et - h)
    first, coefficients = _derivative(n, p)
    total = horner(coefficients, rho)
    exponent = (n + first) * (et - h)
    for _ in range(n + first):
        total = total * mt
    if first:
        exponent += first * ea
        for _ in range(first):
            total = total * ma
    else:
        exponent += (p - n + 1) * jnp.maximum(er, NOTHING)
        for _ in range(p - n + 1):
            total = total * mr
    return _times_power(total, exponent)


@functools.cache
def _derivative(n: int, p: int) -> tuple[int, tuple[float, ...]]:
    """l₀ and the polynomial P with (∂/∂c)ⁿ rᵖ⁺¹/(p + 1) = Tⁿ r^(p−n+1) ρ^l₀ P(ρ), where ρ = a r T.

    By ∂r/∂c = −T and ∂T/∂c = 2a T³, from −rᵖ T on.
    """
    terms = {(0, 0): -1}
    for _ in range(n - 1):
        raised: dict[tuple[int, int], int] = {}
        for (s, l), value in terms.items():
            raised[s + 1, l] = raised.get((s + 1, l), 0) - (p - s) * value
            raised[s, l + 1] = raised.get((s, l + 1), 0) + 2 * (1 + s + 2 * l) * value
        terms = raised
    first = max(0, n - 1 - p)
    return first, tuple(float(terms[n - 1 - l, l]) for l in range(first, n))


def _scaled(x: jax.Array) -> Scaled:
    info = jnp.finfo(x.dtype)
    word = jnp.int32 if info.bits == 32 else jnp.int64
    bits = lax.bitcast_convert_type(x, word)
    field = (bits >> info.nmant) & (2 * info.maxexp - 1)
    ordinary = (field > 0) & (field < 2 * info.maxexp - 1)
    bare = (bits & word(~((2 * info.maxexp - 1) << info.nmant))) | word((info.maxexp - 1) << info.nmant)
    exponent = jnp.where(ordinary, field - (info.maxexp - 1), 0).astype(jnp.int32)
    mantissa = jnp.where(ordinary, lax.bitcast_convert_type(bare, x.dtype), x)
    return mantissa, jnp.where(x == 0, NOTHING, exponent)


def _times_power(m: jax.Array, e: jax.Array) -> jax.Array:
    """m·2^e, in two steps: 2^e itself may be out of range."""
    info = jnp.finfo(m.dtype)
    word = jnp.int32 if info.bits == 32 else jnp.int64
    largest = info.maxexp - 2
    e = jnp.clip(e, -2 * largest, 2 * largest)
    half = e >> 1
    power = lambda k: lax.bitcast_convert_type((k.astype(word) + (info.maxexp - 1)) << info.nmant, m.dtype)
    return (m * power(half)) * power(e - half)


_lower = family("quadratic_roots", functools.partial(_nth_root, -1))
_upper = family("quadratic_roots", functools.partial(_nth_root, 1))
