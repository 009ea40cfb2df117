"""Error-free transformations, and numbers held as unevaluated sums of two.

A sum or product of two floating-point numbers of precision p is the rounded result plus an error that is itself a
number of that precision, and can be computed (Dekker 1971; Knuth, TAOCP 2, 4.2.2). A pair (high, low) with
high = fl(high + low) carries about 2p bits.

Products are split by rounding to half the bits, so that each partial product is exact and nothing depends on whether a
compiler contracts a·b + c into one operation. All of it holds where nothing underflows or overflows.

Source: T. J. Dekker, A floating-point technique for extending the available precision, Numer. Math. 18 (1971);
Joldes, Muller, Popescu, Tight and rigorous error bounds for basic building blocks of double-word arithmetic, ACM TOMS
44 (2017).
"""

import jax
import jax.numpy as jnp
from jax import lax

Pair = tuple[jax.Array, jax.Array]


def split(x: jax.Array) -> Pair:
    """x = high + low exactly, each with no more than half the bits."""
    info = jnp.finfo(x.dtype)
    word = jnp.uint32 if info.bits == 32 else jnp.uint64
    dropped = info.nmant // 2 + 1
    # As reduce_precision rounds, but for ties; that takes fifteen times as long on CPUs.
    rounded_up = lax.bitcast_convert_type(x, word) + word(1 << (dropped - 1))
    high = lax.bitcast_convert_type(rounded_up & word((1 << info.bits) - (1 << dropped)), x.dtype)
    return high, x - high


def two_sum(a: jax.Array, b: jax.Array) -> Pair:
    """a + b = high + low exactly."""
    high = a + b
    b_seen = high - a
    return high, (a - (high - b_seen)) + (b - b_seen)


def quick_two_sum(a: jax.Array, b: jax.Array) -> Pair:
    """a + b = high + low exactly, for |a| ≥ |b|."""
    high = a + b
    # Not b − (high − a): where a is a constant, XLA takes (b + a) − a to be b.
    return high, (a - high) + b


def two_product(a: jax.Array, b: jax.Array) -> Pair:
    """a·b = high + low exactly, |low| at most a unit in the last place of high."""
    (a1, a0), (b1, b0) = split(a), split(b)
    first = a1 * b1
    # Not a·b: a compiler may contract a product with the sum that uses it, which then holds low already.
    high = first + (a1 * b0 + (a0 * b1 + a0 * b0))
    return high, ((first - high) + a1 * b0 + a0 * b1) + a0 * b0


def add(x: Pair, y: Pair) -> Pair:
    """x + y, to about 2p bits of the larger of the two."""
    high, low = two_sum(x[0], y[0])
    high2, low2 = two_sum(x[1], y[1])
    high, low = quick_two_sum(high, low + high2)
    return quick_two_sum(high, low + low2)


def multiply(x: Pair, y: Pair) -> Pair:
    """x·y."""
    high, low = two_product(x[0], y[0])
    return quick_two_sum(high, low + (x[0] * y[1] + x[1] * y[0]))


def divide(x: Pair, y: Pair) -> Pair:
    """x/y."""
    quotient = x[0] / y[0]
    product = multiply(y, (quotient, jnp.zeros_like(quotient)))
    rest = ((x[0] - product[0]) - product[1]) + x[1]
    return quick_two_sum(quotient, rest / y[0])


def negative(x: Pair) -> Pair:
    """−x."""
    return -x[0], -x[1]


def single(x: jax.Array) -> Pair:
    """x itself, as a pair."""
    return x, jnp.zeros_like(x)


def rounded(x: Pair) -> jax.Array:
    """The nearest number."""
    return x[0] + x[1]
