"""sin and cos as pairs: what derivatives of sinc need near their roots, where sine and cosine cancel.

The argument is taken modulo π/2 with as many bits of 2/π as its exponent asks for, in integers (Payne, Hanek, Radian
reduction for trigonometric functions, ACM SIGNUM Newsletter 18, 1983): no argument is too large. Short series in pair
arithmetic follow.
"""

import functools
import itertools
import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxpartials.stable.errorfree import Pair, multiply, quick_two_sum, single, two_product
from jaxpartials.stable.polynomials import horner


def pi_bits(bits: int) -> int:
    """⌊π·2^bits⌋, up to the last bit, by Machin's formula π = 16 atan(1/5) − 4 atan(1/239)."""
    one = 1 << (bits + 16)

    def inverse_tangent(n: int) -> int:
        power, total, k = one // n, 0, 0
        while power:
            total += (-1) ** k * power // (2 * k + 1)
            power, k = power // (n * n), k + 1
        return total

    return (16 * inverse_tangent(5) - 4 * inverse_tangent(239)) >> 16


PI = Fraction(pi_bits(300), 1 << 300)

# An angle is (q + t)·π/2 with an integer q and |t| ≤ 1/2, t a pair.
Angle = tuple[jax.Array, Pair]


def sin_cos(angle: Angle) -> tuple[Pair, Pair]:
    """sin and cos of an angle, each relative to itself: to 41 bits or more in float32, to 100 in float64."""
    quadrant, t = angle
    square = multiply(t, t)
    sine = multiply(t, _series(square, 1))
    cosine = _series(square, 0)
    odd = (quadrant & 1) == 1
    high = [jnp.where(odd, cosine[k], sine[k]) for k in (0, 1)]
    low = [jnp.where(odd, sine[k], cosine[k]) for k in (0, 1)]
    sine_sign = jnp.where((quadrant & 2) == 2, -1, 1).astype(t[0].dtype)
    cosine_sign = jnp.where(((quadrant + 1) & 2) == 2, -1, 1).astype(t[0].dtype)
    return (high[0] * sine_sign, high[1] * sine_sign), (low[0] * cosine_sign, low[1] * cosine_sign)


def radians(x: jax.Array) -> Angle:
    """The angle of x ≥ 1/2 radians; of 1/2 for what is smaller, not finite or nan."""
    x = jnp.where((x >= 0.5) & (x < jnp.inf), x, 0.5)
    whole, exponent = _integer(x)
    info = jnp.finfo(x.dtype)
    count = 3 if info.bits == 32 else 7
    words = _two_over_pi(exponent + 1, info.nmant + 3, count, info.maxexp)
    product = _product(whole, words)
    quadrant = (product[0] + np.uint32(1 << 29)) >> 30
    product = [product[0] - (quadrant << 30), *product[1:]]
    negative = product[0] >> 31 == 1
    # Complementing every bit negates, up to one unit of the last word.
    product = [jnp.where(negative, ~word, word) for word in product]
    high, low = _as_pair(product, x.dtype)
    sign = jnp.where(negative, -1, 1).astype(x.dtype)
    return quadrant.astype(jnp.int32), (high * sign, low * sign)


def half_turns(x: jax.Array) -> Angle:
    """The angle of x half turns, π·x, for x ≥ 0: exactly."""
    # From here on every number is an even integer.
    x = jnp.where(x < 2.0 ** (jnp.finfo(x.dtype).nmant + 1), x, 0)
    quadrant = lax.round(2 * x, lax.RoundingMethod.TO_NEAREST_EVEN)
    rest = 2 * x - quadrant
    turns = jnp.floor(quadrant / 4)
    return (quadrant - 4 * turns).astype(jnp.int32), single(rest)


def constant(value: Fraction, dtype: jnp.dtype) -> Pair:
    """A number as a pair."""
    kind = np.dtype(dtype).type
    high = kind(float(value))
    return jnp.asarray(high), jnp.asarray(kind(float(value - Fraction(float(high)))))


def _series(z: Pair, odd: int) -> Pair:
    """With y = z π²/4, Σ (−y)ᵏ/(2k)!: cos √y; if odd, π/2 Σ (−y)ᵏ/(2k + 1)!. Its late terms need no pairs."""
    paired, terms = _terms(odd, jnp.finfo(z[0].dtype).nmant)
    high = horner(tuple(map(float, terms[paired:])), z[0])
    low = jnp.zeros_like(high)
    for c in reversed(terms[:paired]):
        c_high, c_low = constant(c, z[0].dtype)
        product, rest = two_product(high, z[0])
        rest = rest + (high * z[1] + low * z[0])
        high, lost = quick_two_sum(c_high, product)
        low = lost + (c_low + rest)
    return quick_two_sum(high, low)


@functools.cache
def _terms(odd: int, digits: int) -> tuple[int, tuple[Fraction, ...]]:
    """The coefficients that matter for |z| ≤ 1/4, and how many of them are needed as pairs."""
    terms = tuple((-1) ** k * (PI / 2) ** (2 * k + odd) / math.factorial(2 * k + odd) for k in range(30))
    sizes = [abs(float(c)) / 4**k for k, c in enumerate(terms)]
    last = next(k for k, size in enumerate(sizes) if size < 2.0 ** (-2 * digits - 4))
    paired = next(k for k, size in enumerate(sizes) if size < 2.0 ** (3 - digits))
    return paired, terms[: last + 1]


# ---- integers of many words, the most significant first


def _integer(x: jax.Array) -> tuple[list[jax.Array], jax.Array]:
    """x ≥ 1/2 as words of an integer of its precision, and its binary exponent."""
    info = jnp.finfo(x.dtype)
    bits = lax.bitcast_convert_type(x, jnp.uint32 if info.bits == 32 else jnp.uint64)
    exponent = (bits >> info.nmant).astype(jnp.int32) - (info.maxexp - 1)
    whole = (bits & ((1 << info.nmant) - 1)) | (1 << info.nmant)
    if info.bits == 32:
        return [whole], exponent
    return [(whole >> 32).astype(jnp.uint32), whole.astype(jnp.uint32)], exponent


def _two_over_pi(exponent: jax.Array, lead: int, count: int, most: int) -> list[jax.Array]:
    """`count` words of 2/π·2^(exponent + 2 − lead), of which the first begins with the bits of 2 and 1."""
    table = _table(lead, most // 32 + count + 1)
    first, shift = exponent >> 5, (exponent & 31).astype(jnp.uint32)
    chosen = [_choose(table[k : len(table) - count + k], first) for k in range(count + 1)]
    return [(a << shift) | ((b >> 1) >> (31 - shift)) for a, b in itertools.pairwise(chosen)]


def _choose(words: tuple[int, ...], index: jax.Array) -> jax.Array:
    """words[index]: by comparisons, which vectorise, where they are few."""
    if len(words) > 8:
        return jnp.asarray(words, jnp.uint32)[index]
    total = jnp.zeros(index.shape, jnp.uint32)
    for k, word in enumerate(words):
        total = jnp.where(index >= k, np.uint32(word), total)
    return total


@functools.cache
def _table(lead: int, count: int) -> tuple[int, ...]:
    """`count` words that begin with `lead` zeros, then 2/π."""
    bits = 32 * count
    value = (2 << (2 * bits - lead)) // pi_bits(bits)
    return tuple(value >> (bits - 32 * (k + 1)) & 0xFFFFFFFF for k in range(count))


def _product(x: list[jax.Array], y: list[jax.Array]) -> list[jax.Array]:
    """x·y modulo 2^32 per word of y."""
    total = [jnp.zeros_like(word) for word in y]
    for j, a in enumerate(reversed(x)):
        carry = jnp.zeros_like(a)
        for k in range(len(y) - 1, j - 1, -1):
            place = k - j
            high, low = lax.mulhi(a, y[k]), a * y[k]
            low = low + carry
            high = high + (low < carry)
            total[place] = total[place] + low
            carry = high + (total[place] < low)
    return total


def _as_pair(words: list[jax.Array], dtype: jnp.dtype) -> Pair:
    """The words as a pair, in units of 2^30 of the first."""
    pieces = [(word.astype(jnp.uint32), -30 - 32 * k) for k, word in enumerate(words)]
    if jnp.finfo(dtype).bits == 32:
        pieces = [
            piece for word, power in pieces for piece in ((word >> 16, power + 16), (word & np.uint32(0xFFFF), power))
        ]
    # Pieces of 16 bits fit a signed integer, whose conversion is the faster one.
    word = jnp.int32 if jnp.finfo(dtype).bits == 32 else jnp.int64
    floats = [piece.astype(word).astype(dtype) * 2.0**power for piece, power in pieces]
    total = single(floats[-1])
    for piece in reversed(floats[:-1]):
        high, low = quick_two_sum(piece, total[0])
        total = high, low + total[1]
    return total
