"""exp(x) ± exp(y) − 1 where it cancels, to more than twice the bits of a number.

With p = exp(x) rounded to four bits and r = x − log p, exp(x) = p + p·r + p·(exp(r) − 1 − r). p ± q − 1 is exact, and
so is the leading part of p·r, as log p is held in parts of which the first two are short. What is left is of second
order in r, |r| < 1/16, and is computed in pairs: in all, 52 bits of the larger exponential are right in float32, and
110 in float64.
"""

import decimal
import functools
import math
from fractions import Fraction

import jax
import jax.numpy as jnp
from jax import lax

from jaxpartials.stable.errorfree import Pair, quick_two_sum, split, two_product, two_sum


def exponential_sum_less_one(x: jax.Array, y: jax.Array, sign: int) -> jax.Array:
    """exp(x) + sign·exp(y) − 1 for x ≥ y, both exponentials normal numbers."""
    p, of_x, low_of_x = _exponential(x)
    q, of_y, low_of_y = _exponential(y)
    total, low = two_sum(p, -jnp.ones_like(p))
    low = low + low_of_x + sign * low_of_y
    for part in (sign * q, *(part for a, b in zip(of_x, of_y, strict=True) for part in (a, sign * b))):
        total, rest = two_sum(total, part)
        low = low + rest
    return total + low


def _exponential(x: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...], jax.Array]:
    """p, numbers without rounding errors, and a small one: exp(x) is the sum of all."""
    info = jnp.finfo(x.dtype)
    word = jnp.int32 if info.bits == 32 else jnp.int64
    bits = lax.bitcast_convert_type(jnp.exp(x), word) + word(1 << (info.nmant - 4))
    p = lax.bitcast_convert_type(bits & word(-(1 << (info.nmant - 3))), x.dtype)
    eighths = (bits >> word(info.nmant - 3)) & word(7)
    # p = 2ᵏ m, m from 3/4 to 11/8: near 0, k is 0, and elsewhere x − k log 2 has no rounding error.
    k = ((bits + word(1 << (info.nmant - 1))) >> word(info.nmant)) - word(info.maxexp - 1)
    k = k.astype(x.dtype)
    log2, *logs = _logarithms(info.nmant)
    m = [functools.reduce(lambda chosen, j: jnp.where(eighths == j, logs[j][i], chosen), range(1, 8), jnp.zeros_like(x))
         for i in range(3)]  # fmt: skip
    first = (x - k * log2[0]) - m[0]
    second, third = k * log2[1] + m[1], k * log2[2] + m[2]
    high, low = two_sum(first, -second)
    low = low - third
    curved, rest = _beyond_linear(high)
    rest = rest + low * (high + curved)
    # p is short: its products with halves of numbers are exact.
    high, low = split(first)
    curved_high, curved_low = split(curved)
    return p, (p * high, p * curved_high, -p * second, p * low, p * curved_low), p * (rest - third)


def _beyond_linear(r: jax.Array) -> Pair:
    """exp(r) − 1 − r, for |r| < 1/16."""
    nmant = jnp.finfo(r.dtype).nmant
    # The terms of 1/2 + r/6 + r²/24 + … that are more than a rounding error, and those more than a pair's.
    paired, degree = _terms(nmant - 4), _terms(2 * nmant)
    total, low = jnp.full_like(r, 1 / math.factorial(degree + 2)), jnp.zeros_like(r)
    for n in range(degree - 1, -1, -1):
        if n >= paired:
            total = total * r + 1 / math.factorial(n + 2)
            continue
        c, rest = _parts(Fraction(1, math.factorial(n + 2)), (nmant + 1, nmant + 1))
        if n == paired - 1:
            product, error = total * r, 0
        else:
            product, error = two_product(total, r)
        total, more = quick_two_sum(jnp.full_like(r, c), product)
        low = low * r + (error + more + rest)
    square, error = two_product(r, r)
    high, more = two_product(square, total)
    return quick_two_sum(high, more + (square * low + error * total))


def _terms(bits: int) -> int:
    """How many terms of 1/2 + r/6 + … are more than 2^−bits of it, for |r| < 1/16."""
    return next(n for n in range(40) if 2 / (2.0 ** (4 * n) * math.factorial(n + 2)) < 2.0**-bits)


@functools.cache
def _logarithms(nmant: int) -> list[tuple[float, ...]]:
    """log 2 and log m for each eighth, in parts: the first two of k log 2 + log m have no rounding error."""
    bits = (16, 16, 24) if nmant == 23 else (42, 42, 53)
    with decimal.localcontext() as context:
        context.prec = 80
        log = [Fraction(decimal.Decimal(n).ln()) for n in range(1, 17)]
    eighths = (log[7 + j] - log[7] - (log[1] if j >= 4 else 0) for j in range(8))
    return [_parts(value, bits) for value in (log[1], *eighths)]


def _parts(value: Fraction, bits: tuple[int, ...]) -> tuple[float, ...]:
    """value as a sum of numbers, of so many bits below the binary point, so many below those, and so on."""
    parts, grid = [], Fraction(1)
    for n in bits:
        grid /= 2**n
        parts.append(Fraction(round(value / grid)) * grid)
        value -= parts[-1]
    return tuple(map(float, parts))
