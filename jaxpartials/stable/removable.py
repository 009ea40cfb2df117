"""expm1(x)/x and log1p(x)/x, of which every derivative has one sign."""

import functools
import math
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxpartials.stable.family import Orders, family
from jaxpartials.stable.polynomials import economised, horner, plus, times


def exprel(x: ArrayLike) -> jax.Array:
    """(eˣ − 1)/x; 1 at 0.

    f′ = (eˣ − f)/x,   f″ = (eˣ − 2 f′)/x.

    The plain derivative is eˣ/x − expm1(x)/x², which cancels: in float32, that of jnp.expm1(x)/x at 1e-7 is 0 or 1,
    as the release has it; it should be 0.5.

    >>> f"{float(jax.grad(exprel)(1e-7)):.4f}"
    '0.5000'

    Args:
        x: any shape; no complex numbers.

    Returns:
        expm1(x)/x, orders 0 to 3 within 8 ulp; finite where it is, also where eˣ is not. At ±0 it is 1, and f⁽ⁿ⁾ is
        1/(n + 1); all orders are inf at inf and 0 at −inf.

    Raises:
        StableError: if x is no array of numbers, or complex.

    Source: f⁽ⁿ⁾(x) = ∫₀¹ tⁿ exp(xt) dt = M(n+1, n+2, x)/(n+1): NIST Digital Library of Mathematical Functions, 13.2,
    13.4 and 8.4; as in `scipy.special.exprel`.
    """
    return _exprel(x)


def log1prel(x: ArrayLike) -> jax.Array:
    """log(1 + x)/x; 1 at 0.

    f′ = (1/(1 + x) − f)/x,   f″ = (−1/(1 + x)² − 2 f′)/x.

    The plain derivative is 1/(x(1 + x)) − log1p(x)/x², which cancels: in float32, that of jnp.log1p(x)/x at 1e-7 is
    0; it should be −0.5.

    >>> f"{float(jax.grad(log1prel)(1e-7)):.4f}"
    '-0.5000'

    Args:
        x: any shape; no complex numbers. Below −1 the result is nan.

    Returns:
        log1p(x)/x, orders 0 to 3 within 8 ulp. At ±0 it is 1, and f⁽ⁿ⁾ is (−1)ⁿ n!/(n + 1); at −1 all orders are
        infinite, f⁽ⁿ⁾ with the sign (−1)ⁿ; at inf all are 0.

    Raises:
        StableError: if x is no array of numbers, or complex.

    Source: f⁽ⁿ⁾(x) = (−1)ⁿ n! ∫₀¹ tⁿ/(1 + xt)ⁿ⁺¹ dt = (−1)ⁿ n! R(x/(1 + x))/xⁿ⁺¹ with R(w) = Σ_{j>n} wʲ/j, which
    with z = x/(2 + x), w = 2z/(1 + z) and log(1 + x) = 2 atanh z is 2 Σ zʲ/j over odd j > n, and a ratio of
    polynomials in z.
    """
    return _log1prel(x)


# ---- exprel


def _nth_exprel(orders: Orders, x: jax.Array) -> jax.Array:
    (n,) = orders
    # eˣ overflows before eˣ/x does.
    lowered = x > 50
    shift, factor = jnp.where(lowered, 11, 0).astype(x.dtype), jnp.where(lowered, math.exp(11), 1).astype(x.dtype)
    if n == 0:
        value = jnp.expm1(x - shift) * (factor / jnp.where(x == 0, 1, x))
        return jnp.where(x == 0, 1, jnp.where(x == jnp.inf, jnp.inf, value))
    edge = n + 1
    # Both series have positive terms only: Σ xᵏ/(k!(n+1+k)), and for x < 0 exp(x) Σ |x|ᵏ/((n+1)…(n+1+k)).
    a = jnp.minimum(jnp.abs(x), edge)
    below, above = _exprel_coefficients(n, edge, jnp.finfo(x.dtype).nmant)
    negative = x < 0
    total = jnp.zeros_like(x)
    for p, q in zip(reversed(below), reversed(above), strict=True):
        total = total * a + jnp.where(negative, p, q)
    cap = 2 * jnp.finfo(x.dtype).maxexp
    grown = jnp.exp(jnp.maximum(x, -cap) - shift)
    near = jnp.where(negative, grown * total, total)
    inverse = 1 / jnp.maximum(jnp.abs(x), edge)
    last = inverse
    for k in range(1, n + 1):
        # In this order the partial products decrease.
        last = last * (k * inverse)
    # x > n: eˣ (1/x − n/x² + n(n−1)/x³ − …) − (−1)ⁿ n!/xⁿ⁺¹.
    q = inverse * horner(tuple((-1.0) ** j * math.perm(n, j) for j in range(n + 1)), inverse)
    large = grown * (factor * q) - (-1) ** n * last
    # x = −a < −n: n!/aⁿ⁺¹ (1 − exp(−a) Σ_{j≤n} aʲ/j!).
    small = last * (1 - grown * horner(tuple(1 / math.factorial(j) for j in range(n + 1)), jnp.clip(-x, 0, cap)))
    far = jnp.where(negative, small, jnp.where(x == jnp.inf, jnp.inf, large))
    return jnp.where(jnp.abs(x) <= edge, near, far)


@functools.cache
def _exprel_coefficients(n: int, edge: int, digits: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The two series on 0 ≤ a ≤ edge, economised, with equally many terms."""
    # The terms beyond are below a thousandth of the tolerance.
    count = digits + 8 * edge
    below = [Fraction(1, math.perm(n + 1 + k, k + 1)) for k in range(count)]
    above = [Fraction(1, math.factorial(k) * (n + 1 + k)) for k in range(count)]
    tolerance = 2.0 ** (-digits - 4) / (n + 1)
    short = [economised(p, Fraction(edge), tolerance) for p in (below, above)]
    longest = max(map(len, short))
    first, second = (p + (0.0,) * (longest - len(p)) for p in short)
    return first, second


# ---- log1prel


def _nth_log1prel(orders: Orders, x: jax.Array) -> jax.Array:
    (n,) = orders
    if n == 0:
        value = jnp.where(x == 0, 1, jnp.log1p(x) / x)
        return jnp.where(x == jnp.inf, 0, value)
    edge = Fraction(7, 10)
    z = jnp.where(x == jnp.inf, 1, x / (2 + x))
    rest, tail = _remainder(n), _tail(n, edge, jnp.finfo(x.dtype).nmant)
    sign = (-1) ** n * 2.0 * math.factorial(n)
    # 1 + z = 2(1 + x)/(2 + x), without the rounding of z.
    inverse = 1 / (2 + x)
    lifted = 0.5 / ((1 + x) * inverse)
    rational = horner(rest, z) * _power(lifted, n)
    # tail is that of atanh z beyond zⁿ, over zⁿ⁺¹.
    series = horner(tail, z * z) * (z if n % 2 else 1)
    near = sign * (rational + series) * _power(inverse, n + 1)
    inside = jnp.abs(z) <= float(edge)
    outer = jnp.where(inside, 1, x)
    known = horner(tuple(1 / (k + 1) if k % 2 == 0 else 0.0 for k in range(n)), z) * z
    far = 0.5 * jnp.log1p(outer) - known
    raised = _power(z, n + 1) * rational + far
    far, r = sign * raised, 1 / outer
    for _ in range(n + 1):
        # In this order the partial products of large x decrease; rⁿ⁺¹ alone would be subnormal before the result is.
        far = far * r
    value = jnp.where(inside, near, far)
    return jnp.where(x == -1, sign * jnp.inf, jnp.where(x == jnp.inf, 0, value))


def _power(x: jax.Array, n: int) -> jax.Array:
    total = x
    for _ in range(n - 1):
        total = total * x
    return total


@functools.cache
def _remainder(n: int) -> tuple[float, ...]:
    """N with Σ_{j odd ≤ n} zʲ/j − ½ Σ_{j≤n} wʲ/j = N(z) zⁿ⁺¹/(1 + z)ⁿ, for w = 2z/(1 + z)."""
    total: Any = (Fraction(0),)
    for j in range(1, n + 1):
        if j % 2:
            total = plus(total, times(_monomial(Fraction(1, j), j), _one_plus_z(n)))
        total = plus(total, times(_monomial(Fraction(-(2**j), 2 * j), j), _one_plus_z(n - j)))
    assert not any(total[: n + 1])
    return tuple(map(float, total[n + 1 :])) or (0.0,)


def _monomial(c: Fraction, n: int) -> Any:
    return (Fraction(0),) * n + (c,)


def _one_plus_z(n: int) -> tuple[int, ...]:
    return tuple(math.comb(n, k) for k in range(n + 1))


@functools.cache
def _tail(n: int, edge: Fraction, digits: int) -> tuple[float, ...]:
    """Coefficients of Σ zʲ⁻ⁿ⁻¹/j over odd j > n, in z², but for the factor z where n is odd."""
    first = n + 1 + n % 2
    count = math.ceil((digits + 14) / -math.log2(edge**2))
    return economised([Fraction(1, first + 2 * k) for k in range(count)], edge**2, 2.0 ** (-digits - 4) / first)


_exprel = family("exprel", _nth_exprel)
_log1prel = family("log1prel", _nth_log1prel)
