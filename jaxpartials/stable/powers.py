"""Powers x^y.

∂xⁱ ∂yʲ x^y = x^(y−i) Σₖ C(j, k) (y)ᵢ⁽ᵏ⁾ (log x)^(j−k), with the falling factorial (y)ᵢ = y (y−1) … (y−i+1), a
polynomial in y, and its k-th derivative. The powers are computed as two equal halves, between which the coefficient
stands: the product leaves the range only where the result does.
"""

import functools
import math
from collections.abc import Callable
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxpartials._jax import with_weakness
from jaxpartials.stable import errorfree
from jaxpartials.stable.family import Orders, common_dtype, family, gives_way
from jaxpartials.stable.polynomials import Coefficients, derivative, horner, times


def power(x: ArrayLike, y: ArrayLike) -> jax.Array:
    """x^y, as `numpy.power`.

    ∂x = y x^(y−1),   ∂y = x^y log x;
    ∂xx = y (y−1) x^(y−2),   ∂xy = x^(y−1) (1 + y log x),   ∂yy = x^y log² x.

    The plain derivatives round y − 1, which for large or small x costs up to 40 ulp, and leave the range where the
    result does not: in float32 the second derivative of x**1e-30 at 1e-25 is −inf; it should be −1e20. The third
    derivative of `jnp.power(x, 2.0)` at 0 is nan; it should be 0.

    >>> float(jax.grad(jax.grad(jax.grad(lambda x: power(x, 2.0))))(0.0))
    0.0

    Args:
        x: real or complex.
        y: of a shape that broadcasts with x. Of a Python or NumPy number the small whole ones are powers by
            multiplication. Whole numbers are promoted to floats.

    Returns:
        x^y, within 4 ulp; orders 1 and 2 within 16 ulp, ∂xy too unless |1 + y log x| < 1e-8; order 3 within 16 ulp of
        |f‴| + Σ|xₖ ∂ₖf‴|. All with y as rounded to the precision of the result. Special points are those of
        `jnp.power`: x^0 = 1 and 1^y = 1 for all x and y; a negative x has powers for whole y only. Where
        y (y−1) … (y−i+1) = 0, ∂xⁱ is 0 at x = 0 and ±inf, too. With respect to y the derivative is 0 at x = 0, y ≥ 0,
        by convention, nan at x = 0, y < 0, and nan for x < 0. Complex numbers are given to `jnp.power`.

    Raises:
        StableError: if x or y is no array of numbers, or their shapes do not broadcast.

    Source: NIST Digital Library of Mathematical Functions, 4.2(iv).
    """
    if isinstance(y, int | float | np.integer | np.floating) and not np.iscomplexobj(x):
        return _known_power(float(y))(_promoted_base(x, y))
    return _power(x, y)


def _promoted_base(x: ArrayLike, y: ArrayLike) -> ArrayLike:
    """x in the dtype of x^y, for an exponent of which only the value is kept."""
    dtype, weak = common_dtype("power", x, y), gives_way(x, y)
    if dtype == common_dtype("power", x) and weak == gives_way(x):
        return x
    return with_weakness(jnp.asarray(x, dtype), weak)


@functools.cache
def _known_power(p: float) -> Callable[[ArrayLike], jax.Array]:
    """x ↦ xᵖ."""

    def nth(orders: Orders, x: jax.Array) -> jax.Array:
        (n,) = orders
        # Exact for all p that matter: whole ones, and few factors.
        c = math.prod(p - k for k in range(n))
        return jnp.zeros_like(x) if c == 0 else _scaled_power(c, x, p, n)

    return family("power", nth)


def _scaled_power(c: float, x: jax.Array, p: float, n: int) -> jax.Array:
    """c·x^(p−n), p and n known."""
    q = p - n
    if q.is_integer() and abs(q) <= 4:
        # Where 1/x is subnormal, so is the result: every further factor is as small.
        factors = [x if q > 0 else 1 / x] * int(abs(q))
        return functools.reduce(jnp.multiply, factors if c == 1 and factors else [jnp.full_like(x, c), *factors])
    exponent = jnp.full_like(x, p)
    return jnp.power(x, exponent) if n == 0 else _times_power(jnp.full_like(x, c), x, exponent, n)


def _nth_power(orders: Orders, x: jax.Array, y: jax.Array) -> jax.Array:
    i, j = orders
    if i == j == 0:
        return jnp.power(x, y)
    c = _coefficient(i, j, jnp.abs(x), y)
    # Of a negative number there are no powers near a whole one.
    return _times_power(jnp.where(x < 0, jnp.nan, c) if j else c, x, y, i)


def _times_power(c: jax.Array, x: jax.Array, y: jax.Array, i: int) -> jax.Array:
    """c·x^(y−i)."""
    size, whole_c = jnp.abs(x), c
    # Where the coefficient overflows, the power is 0 or inf whatever it is, and 0·inf would be nan.
    c = jnp.where(jnp.isinf(c), jnp.copysign(jnp.finfo(x.dtype).max, c), c)
    if i < 2:
        half = size ** (y / 2)
        if i == 0:
            product = (c * half) * half
        else:
            # Neither x^y nor a half of it over x alone leaves the range before the result does.
            first = jnp.abs(y) <= 1
            product = (c * half * jnp.where(first, half, 1)) / size * jnp.where(first, 1, half)
    else:
        # Rounding y − i alone would cost as many ulp as log x is large.
        rest, lost = errorfree.two_sum(y, jnp.full_like(y, -i))
        half = size ** (rest / 2)
        product = (c * half) * half
        product = jnp.where(jnp.isinf(product), product, product + product * (lost * _log(size)))
    # 0 and inf, where halves and quotients are nan.
    at_zero, exponent = size == 0, y - i
    limit = jnp.where(exponent == 0, whole_c, c * jnp.where((exponent > 0) == at_zero, 0, jnp.inf))
    product = jnp.where(at_zero | jnp.isinf(size), jnp.where((c == 0) & (i > 0), 0, limit), product)
    parity = _parity(y) * (-1) ** i
    return product * jnp.where(jnp.signbit(x), jnp.where(at_zero & jnp.isnan(parity), 1, parity), 1)


def _parity(y: jax.Array) -> jax.Array:
    """(−1)^y; nan where y is not whole."""
    return jnp.where(y == jnp.floor(y), jnp.where(y / 2 == jnp.floor(y / 2), 1, -1), jnp.nan).astype(y.dtype)


def _log(x: jax.Array) -> jax.Array:
    """log x, and 0 for x = 0."""
    return jnp.log(jnp.where(x == 0, 1, x))


def _coefficient(i: int, j: int, x: jax.Array, y: jax.Array) -> jax.Array:
    """Σₖ C(j, k) (y)ᵢ⁽ᵏ⁾ (log x)^(j−k)."""
    if j == 0:
        return functools.reduce(jnp.multiply, (y - k for k in range(i)))
    log = _log(x)
    if i == 0:
        return functools.reduce(jnp.multiply, [log] * j)
    if i == j == 1:
        return _one_plus_product(x, y)
    falling: Coefficients = functools.reduce(times, [(-k, 1) for k in range(i)])
    terms = []
    for k in range(j + 1):
        if any(falling):
            coefficient = math.comb(j, k) * horner(falling, y)
            terms.append(functools.reduce(jnp.multiply, [coefficient] + [log] * (j - k)))
        falling = derivative(falling)
    return functools.reduce(jnp.add, terms)


def _one_plus_product(x: jax.Array, y: jax.Array) -> jax.Array:
    """1 + y log x, accurate also near its roots."""
    product = errorfree.multiply(errorfree.single(y), log_pair(jnp.where(x == 0, 1, x)))
    careful = errorfree.rounded(errorfree.add(errorfree.single(jnp.ones_like(y)), product))
    return jnp.where(jnp.isfinite(careful), careful, 1 + y * _log(x))


LOG2 = Fraction("0.6931471805599453094172321214581765680755001343602552541206800094933936219696947156058633")


def log_pair(x: jax.Array) -> errorfree.Pair:
    """log x for normal x > 0 as a pair.

    x = 2ᵉ m, √½ ≤ m < √2, log m = 2 artanh s, s = (m − 1)/(m + 1): 2s·(1 + s²/3 + s⁴/5 + …), where s² < 1/33.
    """
    digits = jnp.finfo(x.dtype).nmant + 1
    m, e = jnp.frexp(x)
    low = m < math.sqrt(0.5)
    m, e = jnp.where(low, 2 * m, m), jnp.where(low, e - 1, e).astype(x.dtype)
    s = errorfree.divide(errorfree.single(m - 1), errorfree.two_sum(m, jnp.ones_like(m)))
    square = errorfree.multiply(s, s)
    # Each term is 2⁻⁵ of the one before: the last half of them need single accuracy only.
    careful = digits // 5 + 1
    tail = horner([1 / (2 * k + 1) for k in range(careful, 2 * careful + 1)], square[0])
    total = errorfree.single(tail)
    for k in reversed(range(careful)):
        first, second = _parts(Fraction(1, 2 * k + 1), x.dtype, digits, 2)
        total = errorfree.add(errorfree.multiply(total, square), (jnp.full_like(x, first), jnp.full_like(x, second)))
    log_m = errorfree.multiply((2 * s[0], 2 * s[1]), total)
    # e has at most 11 bits: its product with the first part is exact.
    first, second, third = _parts(LOG2, x.dtype, digits - 11, 3)
    high, low = errorfree.two_product(e, jnp.full_like(e, second))
    whole = errorfree.add(errorfree.single(e * first), (high, low + e * third))
    return errorfree.add(whole, log_m)


def _parts(exact: Fraction, dtype: jnp.dtype, digits: int, count: int) -> list[float]:
    """Numbers that sum to `exact`, the first of so many digits."""
    parts = []
    for k in range(count):
        if k == 0:
            _, exponent = math.frexp(exact)
            part = float(Fraction(round(exact * 2 ** (digits - exponent)), 2 ** (digits - exponent)))
        else:
            part = float(np.asarray(float(exact), dtype))
        parts.append(part)
        exact -= Fraction(part)
    return parts


_power = family("power", _nth_power, complex=jnp.power)
