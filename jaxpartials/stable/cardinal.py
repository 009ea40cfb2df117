"""sin x / x and (1 − cos x)/x², each the integral of a cosine over a unit interval."""

import functools
import math
from collections.abc import Callable
from fractions import Fraction

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxpartials.stable.errorfree import Pair, add, divide, multiply, negative, rounded, single
from jaxpartials.stable.family import Orders, family
from jaxpartials.stable.polynomials import horner
from jaxpartials.stable.trigonometric import PI, constant, half_turns, radians, sin_cos

# Terms of a power series: the coefficient of xᵏ.
Terms = Callable[[int], Fraction]


def sinc(x: ArrayLike, normalized: bool = True) -> jax.Array:
    """sin(πx)/(πx), or with `normalized=False` sin x / x; 1 at 0.

    With f = sin x / x:   f′ = (cos x − f)/x,   f″ = −(sin x + 2 f′)/x.

    The plain derivative is cos(x)/x − sin(x)/x², which cancels near 0 and near its roots: in float32, that of
    jnp.sin(x)/x at 1e-3 is −3.66e-4; it should be −3.33e-4. That of `jax.numpy.sinc` at 1.4302967 is −1.5e-8; it should
    be +1.4e-8.

    >>> f"{float(jax.grad(lambda x: sinc(x, normalized=False))(1e-3)):.4e}"
    '-3.3333e-04'

    Args:
        x: any shape; complex numbers are given to `jax.numpy.sinc`.
        normalized: whether x is counted in half turns, as in NumPy, or in radians.

    Returns:
        sinc x, within 4 ulp; orders 1 and 2 within 8 ulp, however large x is and however near the roots; order 3 within
        8 ulp of |f‴| + |x f⁗|. At ±0 it is 1 and odd orders are 0; at ±inf all are 0, their limits.

    Raises:
        StableError: if x is no array of numbers.

    Source: f⁽ⁿ⁾(x) = ∫₀¹ tⁿ cos(xt + nπ/2) dt, and x f⁽ⁿ⁾ + n f⁽ⁿ⁻¹⁾ = sin⁽ⁿ⁾(x); sine and cosine as in
    `jaxpartials.stable.trigonometric`.
    """
    return _sinc_of_half_turns(x) if normalized else _sinc_of_radians(x)


def cosc(x: ArrayLike) -> jax.Array:
    """(1 − cos x)/x²; 1/2 at 0.

    With s = sinc of radians:   f = s(x/2)²/2,   f′ = s(x/2) s′(x/2)/2,   f″ = (s′(x/2)² + s(x/2) s″(x/2))/4.

    The plain formula cancels at 0 and at each multiple of 2π: in float32 (1 − jnp.cos(x))/x² at 1e-4 is 0, and its
    derivative 1e4; they should be 0.5 and −8.3e-6.

    >>> f"{float(cosc(1e-4)):.4f}"
    '0.5000'

    Args:
        x: any shape; no complex numbers.

    Returns:
        (1 − cos x)/x², within 4 ulp; orders 1 and 2 within 8 ulp, however large x is and however near the roots;
        order 3 within 8 ulp of |f‴| + |x f⁗|. At ±0 it is 1/2 and odd orders are 0; at ±inf all are 0, their limits.

    Raises:
        StableError: if x is no array of numbers, or complex.

    Source: f⁽ⁿ⁾(x) = ∫₀¹ (1 − t) tⁿ cos(xt + nπ/2) dt, and x² f⁽ⁿ⁾ + 2n x f⁽ⁿ⁻¹⁾ + n(n−1) f⁽ⁿ⁻²⁾ = −cos⁽ⁿ⁾(x).
    """
    return _cosc(x)


def _nth_sinc_of_radians(orders: Orders, x: jax.Array) -> jax.Array:
    (n,) = orders
    a = jnp.abs(x)
    if n == 0:
        # The sine of inf is nan.
        return jnp.where(_rounds_to_zero(a), 1, jnp.where(a < jnp.inf, jnp.sin(a), 0) / a)
    near = _series(n, a, _sinc_terms, 1)
    sine, cosine = sin_cos(radians(a))
    h = _sinc_recurrence(n, sine, cosine, _inverse(a, Fraction(1)))
    if _needs_middle(n, x.dtype):
        middle = _phase_series(n, a, sine[0], cosine[0], lambda k: Fraction(1, math.perm(n + k + 1, k + 1)))
        near = jnp.where(a <= 1, near, middle)
    return _parity(n, x, jnp.where(a <= _edge(n, x.dtype), near, h / a))


def _nth_sinc_of_half_turns(orders: Orders, x: jax.Array) -> jax.Array:
    (n,) = orders
    a = jnp.abs(x)
    if n == 0:
        return _value_of_half_turns(a)
    near = _series(n, a, _sinc_terms, PI)
    sine, cosine = sin_cos(half_turns(a))
    h = _sinc_recurrence(n, sine, cosine, _inverse(a, 1 / PI))
    if _needs_middle(n, x.dtype):
        turned = jnp.minimum(a, n) * math.pi
        middle = _phase_series(n, turned, sine[0], cosine[0], lambda k: Fraction(1, math.perm(n + k + 1, k + 1)))
        near = jnp.where(a <= 1 / math.pi, near, middle * math.pi**n)
    return _parity(n, x, jnp.where(a <= _edge(n, x.dtype) / math.pi, near, math.pi ** (n - 1) * h / a))


def _value_of_half_turns(a: jax.Array) -> jax.Array:
    """sin(πr)/(πr)·(±r/a), with r = a − round a, exactly."""
    # From here on every number is an even integer.
    a = jnp.minimum(a, 2.0 ** (jnp.finfo(a.dtype).nmant + 1))
    whole = lax.round(a, lax.RoundingMethod.TO_NEAREST_EVEN)
    r = a - whole
    even = 2 * jnp.floor(whole / 2) == whole
    ratio = jnp.where(whole == 0, 1, jnp.where(even, r, -r) / jnp.where(whole == 0, 1, a))
    return _series(0, r, _sinc_terms, PI, radius=math.pi / 2) * ratio


def _nth_cosc(orders: Orders, x: jax.Array) -> jax.Array:
    (n,) = orders
    a = jnp.abs(x)
    inverse = 1 / a
    if n == 0:
        t = jnp.where(a < jnp.inf, jnp.sin(a / 2), 0) * inverse
        return jnp.where(_rounds_to_zero(a), 0.5, 2 * t * t)
    near = _series(n, a, _cosc_terms, 1)
    sine, cosine = sin_cos(radians(a / 2))
    m = _cosc_recurrence(n, sine, cosine, _inverse(a, Fraction(1)))
    if _needs_middle(n, x.dtype):
        middle = _phase_series(
            n,
            a,
            2 * sine[0] * cosine[0],
            (cosine[0] - sine[0]) * (cosine[0] + sine[0]),
            lambda k: Fraction(k + 1, math.perm(n + k + 2, k + 2)),
        )
        near = jnp.where(a <= 1, near, middle)
    return _parity(n, x, jnp.where(a <= _edge(n, x.dtype), near, m * inverse * inverse))


def _rounds_to_zero(a: jax.Array) -> jax.Array:
    """Where f(a) is f(0): f loses less than a² there. Of subnormal numbers XLA makes 0, and 0/0."""
    return a < float(jnp.finfo(a.dtype).eps)


def _sinc_recurrence(n: int, sine: Pair, cosine: Pair, inverse: Pair) -> jax.Array:
    """x f⁽ⁿ⁾, by x f⁽ⁿ⁾ = sin⁽ⁿ⁾ − n (x f⁽ⁿ⁻¹⁾)/x; its size is 1, so that nothing underflows before it matters."""
    cycle = (sine, cosine, negative(sine), negative(cosine))
    h = sine
    for k in range(1, n + 1):
        h = add(cycle[k % 4], negative(_times(k, multiply(h, inverse))))
    return rounded(h)


def _cosc_recurrence(n: int, sine: Pair, cosine: Pair, inverse: Pair) -> jax.Array:
    """x² f⁽ⁿ⁾, from sin(x/2) and cos(x/2). The first two are products, and so relatively accurate at double roots."""
    before = _times(2, multiply(sine, sine))
    m = _times(2, multiply(sine, add(cosine, negative(_times(2, multiply(sine, inverse))))))
    full_sine = _times(2, multiply(sine, cosine))
    full_cosine = add(multiply(cosine, cosine), negative(multiply(sine, sine)))
    cycle = (negative(full_cosine), full_sine, full_cosine, negative(full_sine))
    for k in range(2, n + 1):
        rest = add(_times(2, m), _times(k - 1, multiply(before, inverse)))
        before, m = m, add(cycle[k % 4], negative(_times(k, multiply(rest, inverse))))
    return rounded(m)


def _times(k: int, x: Pair) -> Pair:
    if k & (k - 1) == 0:
        return k * x[0], k * x[1]
    return multiply(x, single(jnp.full_like(x[0], k)))


def _inverse(a: jax.Array, factor: Fraction) -> Pair:
    """factor/a. Beyond the bounds it does not matter."""
    info = jnp.finfo(a.dtype)
    a = jnp.clip(a, 0.25, 2.0 ** (3 * info.maxexp // 4))
    return divide(constant(factor, a.dtype), single(a))


def _parity(n: int, x: jax.Array, value: jax.Array) -> jax.Array:
    """f⁽ⁿ⁾(x) from f⁽ⁿ⁾(|x|), for an even f."""
    return jnp.where(x < 0, -value, value) if n % 2 else value


def _sinc_terms(k: int) -> Fraction:
    return Fraction((-1) ** k, math.factorial(2 * k + 1))


def _cosc_terms(k: int) -> Fraction:
    return Fraction((-1) ** k, math.factorial(2 * k + 2))


def _series(n: int, x: jax.Array, terms: Terms, scale: Fraction | int, radius: float = 1) -> jax.Array:
    """The n-th derivative of Σ terms(k)·(scale x)²ᵏ, for |scale x| ≤ radius."""
    total = horner(_coefficients(n, terms, Fraction(scale), radius, jnp.finfo(x.dtype).nmant), x * x)
    return total * x if n % 2 else total


@functools.cache
def _coefficients(n: int, terms: Terms, scale: Fraction, radius: float, digits: int) -> tuple[float, ...]:
    chosen: list[float] = []
    first = (n + 1) // 2
    for k in range(first, first + 40):
        c = terms(k) * math.perm(2 * k, n) * scale ** (2 * k)
        chosen.append(float(c))
        if abs(chosen[-1]) * (radius / scale) ** (2 * (k - first)) < abs(chosen[0]) * 2.0 ** (-digits - 4):
            break
    return tuple(chosen)


def _needs_middle(n: int, dtype: jnp.dtype) -> bool:
    """Whether the recurrence, whose errors grow by k/x at step k, loses more from x = 1 on than pairs have to spare."""
    return math.factorial(n) > 2 ** (jnp.finfo(dtype).nmant - 4)


def _edge(n: int, dtype: jnp.dtype) -> float:
    """From where on the recurrence serves."""
    return (n + 1) / 2 if _needs_middle(n, dtype) else 1


def _phase_series(n: int, x: jax.Array, sine: jax.Array, cosine: jax.Array, terms: Terms) -> jax.Array:
    """Re(iⁿ exp(ix) Σ terms(k)·(−ix)ᵏ): Kummer's transformation of the integral, for x ≤ (n + 1)/2."""
    x = jnp.minimum(x, (n + 1) / 2)
    coefficients = [float(terms(k)) for k in range(2 * jnp.finfo(x.dtype).nmant)]
    alternate = lambda c: tuple((-1) ** k * value for k, value in enumerate(c))
    even = horner(alternate(coefficients[::2]), x * x)
    odd = x * horner(alternate(coefficients[1::2]), x * x)
    real, imaginary = even * cosine + odd * sine, even * sine - odd * cosine
    return (real, -imaginary, -real, imaginary)[n % 4]


_sinc_of_half_turns = family("sinc", _nth_sinc_of_half_turns, complex=jnp.sinc)
_sinc_of_radians = family("sinc", _nth_sinc_of_radians, complex=lambda x: jnp.sinc(x / math.pi))
_cosc = family("cosc", _nth_cosc)
