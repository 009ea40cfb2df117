"""The distance h = √(x² + y²), its powers, and the angle: hypot, arctan2, and what is made of them.

With u = x/h and v = y/h every derivative of hᵐ is h^(m−n)·P(u, v), P homogeneous of degree n:

    ∂x (h^(m−n) P) = h^(m−n−1) · ((m − n) u P + v² P_u − u v P_v),

where u² + v² = 1 has been used to leave nothing that cancels: hypot_xx is v²/h, not (1 − u²)/h. The derivatives of the
angle are the real and imaginary parts of those of log(x + iy), which are c·((u − iv)/h)ⁿ.
"""

import functools
import math
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxpartials.stable.errorfree import two_product
from jaxpartials.stable.family import Orders, family

# {(a, b): c}: the sum of c·uᵃvᵇ.
Polynomial = dict[tuple[int, int], int]


def hypot(x: ArrayLike, y: ArrayLike) -> jax.Array:
    """√(x² + y²), as `numpy.hypot`.

    With h = hypot(x, y):   ∂x = x/h,   ∂xx = y²/h³,   ∂xy = −x y/h³.

    The plain √(x² + y²) overflows or underflows with the squares, and its derivatives cancel: in float32 ∂xx at
    (1e4, 1) is 7e-12, and of `jnp.hypot` 0 on some versions and nan at (1e-25, 1e-25) on others; it should be 1e-12.

    >>> bool(abs(jax.grad(jax.grad(hypot))(1e4, 1.0) / 1e-12 - 1) < 1e-6)
    True

    Args:
        x: real, of shapes that broadcast.
        y: as `x`.

    Returns:
        h, within 3 ulp; orders 1 and 2 within 8 ulp; order 3 within 16 ulp of |f‴| + Σ|xₖ ∂ₖf‴|. At x = y = 0 the
        value is 0 and all derivatives are 0: the first is the subgradient of least norm. hypot(±inf, y) is inf, even
        for y = nan; its gradient is the direction, (±1, 0) for finite y, and all higher derivatives are 0.

    Raises:
        StableError: if x or y is complex or no array of numbers, or their shapes do not broadcast.

    Source: NIST Digital Library of Mathematical Functions, 1.9; C. Moler, D. Morrison, Replacing square roots by
    pythagorean sums, IBM J. Res. Dev. 27 (1983).
    """
    return _hypot(x, y)


def arctan2(y: ArrayLike, x: ArrayLike) -> jax.Array:
    """The angle of the point (x, y), as `numpy.arctan2`.

    With h = hypot(x, y):   ∂y = x/h²,   ∂x = −y/h²;   ∂yy = −∂xx = −2 x y/h⁴,   ∂xy = (y² − x²)/h⁴.

    The plain derivative divides by x² + y², which overflows or underflows: in float32
    `jax.grad(jnp.arctan2)(1e-25, 1e-25)` is inf; it should be 5e24.

    >>> bool(abs(jax.grad(arctan2)(1e-25, 1e-25) / 5e24 - 1) < 1e-6)
    True

    Args:
        y: real, of shapes that broadcast.
        x: as `y`.

    Returns:
        The angle in [−π, π], within 4 ulp; orders 1 and 2 within 12 ulp; order 3 within 16 ulp of
        |f‴| + Σ|xₖ ∂ₖf‴|. At x = y = 0 the value is that of `jnp.arctan2`, and all derivatives are 0, by convention;
        at infinity they are 0, too.

    Raises:
        StableError: if x or y is complex or no array of numbers, or their shapes do not broadcast.

    Source: NIST Digital Library of Mathematical Functions, 4.23(iv), 4.24.
    """
    return _arctan2(y, x)


def asinh(x: ArrayLike) -> jax.Array:
    """The inverse hyperbolic sine.

    With h = √(1 + x²):   asinh′ = 1/h,   asinh″ = −x/h³.

    The plain derivatives square x: in float32 `jax.grad(jax.grad(jnp.arcsinh))(1e15)` is 0; it should be −1e-30.

    >>> bool(abs(jax.grad(jax.grad(asinh))(1e15) / -1e-30 - 1) < 1e-6)
    True

    Args:
        x: any shape; complex numbers are given to `jax.numpy.arcsinh`.

    Returns:
        asinh x, as exact as `jnp.arcsinh` (4 ulp); orders 1 and 2 within 8 ulp; order 3 within 8 ulp of |f‴| + |x f⁗|.
        At ±inf it is ±inf and all derivatives are 0; at −0 it is −0.

    Raises:
        StableError: if x is no array of numbers.

    Source: NIST Digital Library of Mathematical Functions, 4.37, 4.40.
    """
    return _asinh(x)


def isru(x: ArrayLike) -> jax.Array:
    """The inverse square root unit, x/√(1 + x²).

    With h = √(1 + x²):   isru′ = 1/h³,   isru″ = −3x/h⁵.

    The plain x/√(1 + x²) is 0 where x² overflows, and its derivative cancels: in float32 it is 0 at x = 1e5, where it
    should be 1e-15.

    >>> bool(abs(jax.grad(isru)(1e5) / 1e-15 - 1) < 1e-6)
    True

    Args:
        x: real, any shape.

    Returns:
        isru x, within 4 ulp; orders 1 and 2 within 8 ulp; order 3 within 8 ulp of |f‴| + |x f⁗|. At ±inf it is ±1 and
        all derivatives are 0; at −0 it is −0.

    Raises:
        StableError: if x is complex or no array of numbers.

    Source: B. Carlile et al., Improving deep learning by inverse square root linear units (ISRLUs), arXiv:1710.09967
    (2017).
    """
    return _isru(x)


def smooth_abs(x: ArrayLike, epsilon: ArrayLike) -> jax.Array:
    """√(x² + ε), a smooth |x|.

    With h = √(x² + ε):   ∂x = x/h,   ∂xx = ε/h³;   ∂ε = 1/(2h),   ∂xε = −x/(2h³),   ∂εε = −1/(4h³).

    The plain form overflows and underflows with x², and its second derivative cancels: in float32, with ε = 1e-6, it is
    7.5e-9 at x = 10; it should be 1e-9.

    >>> bool(abs(jax.grad(jax.grad(smooth_abs))(10.0, 1e-6) / 1e-9 - 1) < 1e-6)
    True

    Args:
        x: real.
        epsilon: ε ≥ 0, the square of the width of the bend; of a shape that broadcasts with x.

    Returns:
        h, within 3 ulp; order 1 within 8 ulp, order 2 within 12 ulp, order 3 within 16 ulp of |f‴| + Σ|xₖ ∂ₖf‴|. At
        x = ε = 0 the value and all derivatives are 0, by convention; for ε < 0 they are nan.

    Raises:
        StableError: if x or ε is complex or no array of numbers, or their shapes do not broadcast.

    Source: the pseudo-Huber loss without its constant: P. Charbonnier et al., Deterministic edge-preserving
    regularization in computed imaging, IEEE Trans. Image Process. 6 (1997).
    """
    return _smooth_abs(x, epsilon)


class Polar(NamedTuple):
    """A point by its distance h from the origin.

    Attributes:
        h: the distance.
        r: 1/h; 0 at the origin.
        u: x/h, y/h; 0 at the origin.
        v: as `u`.
        plus: u + v, u − v, to the same relative accuracy.
        minus: as `plus`.
        error: how far r, and with it each of the others, is too small, relatively.
    """

    h: jax.Array
    r: jax.Array
    u: jax.Array
    v: jax.Array
    plus: jax.Array
    minus: jax.Array
    error: jax.Array


def polar(x: jax.Array, y: jax.Array) -> Polar:
    """The point (x, y), or the direction of one at infinity; no square leaves the range."""
    e = jnp.finfo(x.dtype).maxexp
    infinite = jnp.isinf(x) | jnp.isinf(y)
    x, y = (jnp.where(infinite, jnp.where(jnp.isinf(z), jnp.sign(z), 0), z) for z in (x, y))
    largest = jnp.maximum(jnp.abs(x), jnp.abs(y))
    # Of the squares of the scaled numbers one is so far above the smallest normal one that what the other may lose
    # below that does not count.
    huge, small = largest > 2.0 ** (e * 15 // 32), largest < 2.0 ** -(e * 10 // 32)
    pick = lambda down, up: jnp.where(huge, 2.0**-down, jnp.where(small, 2.0**up, 1.0)).astype(x.dtype)
    down, up = e * 33 // 64, e * 5 // 8
    s = pick(down, up)
    xs, ys = x * s, y * s
    h = jnp.sqrt(xs * xs + ys * ys)
    r = jnp.where(largest == 0, 0, 1 / h)
    return Polar(
        h=jnp.where(infinite, jnp.inf, h * pick(-down, -up)),
        r=jnp.where(infinite, 0, r * s),
        u=xs * r,
        v=ys * r,
        plus=(xs + ys) * r,
        minus=(xs - ys) * r,
        error=_relative_error(r, h, xs, ys),
    )


def _relative_error(r: jax.Array, h: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
    """ε with 1/√(x² + y²) = r·(1 + ε), for r near 1/h and h near √(x² + y²)."""
    (h2, h2_low), (x2, x2_low), (y2, y2_low), (one, one_low) = (
        two_product(a, b) for a, b in ((h, h), (x, x), (y, y), (r, h))
    )
    # The larger square is at least half of h², so that the difference is exact.
    rest = (jnp.maximum(x2, y2) - h2) + jnp.minimum(x2, y2) + (x2_low + y2_low - h2_low)
    return (1 - one) - one_low - 0.5 * (rest * r) * r


def power_of_radius(m: int, orders: Orders, x: jax.Array, y: jax.Array, c: float = 1) -> jax.Array:
    """c ∂xⁱ ∂yʲ (x² + y²)^(m/2), m ≤ 1."""
    at = polar(x, y)
    n = sum(orders)
    if n - m < 0:
        return at.h
    return homogeneous({power: c * k for power, k in _radius_polynomial(m, orders).items()}, n - m, at)


@functools.cache
def _radius_polynomial(m: int, orders: Orders) -> Polynomial:
    i, j = orders
    if i + j == 0:
        return {(0, 0): 1}
    if j == 0:
        terms = _raised(m - i + 1, _radius_polynomial(m, (i - 1, 0)))
    else:
        swapped = {(b, a): c for (a, b), c in _radius_polynomial(m, (i, j - 1)).items()}
        terms = {(b, a): c for (a, b), c in _raised(m - i - j + 1, swapped).items()}
    return {power: c for power, c in terms.items() if c}


def _raised(m: int, p: Polynomial) -> Polynomial:
    """Q with ∂x (hᵐ P) = h^(m−1) Q."""
    q: Polynomial = {}
    for (a, b), c in p.items():
        for power, factor in (((a + 1, b), m - b), ((a - 1, b + 2), a)):
            q[power] = q.get(power, 0) + c * factor
    return q


def homogeneous(p: Mapping[tuple[int, int], float], k: int, at: Polar) -> jax.Array:
    """P(u, v)/hᵏ."""
    # What all terms have in common goes with the powers of 1/h; the rest is of the size of its coefficients.
    a, b = min(a for a, _ in p), min(b for _, b in p)
    rest = {(i - a, j - b): c for (i, j), c in p.items()}
    if set(rest) == {(0, 0)}:
        total = rest[0, 0]
    elif rest.get((2, 0)) == -rest.get((0, 2), 0) and len(rest) == 2:
        total = rest[2, 0] * at.plus * at.minus
    else:
        total = functools.reduce(jnp.add, (c * power(at.u, i) * power(at.v, j) for (i, j), c in rest.items()))
    # u/h and v/h as pairs, and small pairs and large ones in turn, so that the product leaves the range only where the
    # result does.
    spread = lambda n, f, late: [((i + late) / n, f) for i in range(n)]
    small = [f for _, f in sorted(spread(a, at.u, 0) + spread(b, at.v, 0), key=lambda term: term[0])]
    alone = max(len(small) - k, 0)
    pairs, rest_of_r = [f * at.r for f in small[alone:]], max(k - len(small), 0)
    mixed = sorted(spread(len(pairs), None, 0) + spread(rest_of_r, at.r, 0.5), key=lambda term: term[0])
    following = iter(pairs)
    ordered = small[:alone] + [next(following) if f is None else f for _, f in mixed]
    # 1/h is a factor of each u, v and 1/h; its rounding errors add up. Put right early, where nothing is infinite.
    count = max(i + j for i, j in p) + k
    total = jnp.asarray(total, at.u.dtype)
    return functools.reduce(jnp.multiply, ordered, total if count < 3 else total + total * (count * at.error))


def power(x: jax.Array, n: int) -> jax.Array:
    """xⁿ, n ≥ 0."""
    return functools.reduce(jnp.multiply, [x] * n) if n else jnp.ones_like(x)


def _nth_arctan2(orders: Orders, y: jax.Array, x: jax.Array) -> jax.Array:
    """(−1)^(n−1) (n−1)! Im(iʲ/zⁿ), z = x + iy, n = i + j: ∂yʲ ∂xⁱ of Im log z."""
    j, i = orders
    return jnp.arctan2(y, x) if i + j == 0 else homogeneous(_angle_polynomial(i + j, j), i + j, polar(x, y))


@functools.cache
def _angle_polynomial(n: int, j: int) -> Polynomial:
    """(−1)^(n−1) (n−1)! Im(iʲ (u − iv)ⁿ)."""
    p: Polynomial = {}
    for b in range(n + 1):
        # (−i)ᵇ iʲ = i^(j − b), and only odd powers of i are imaginary.
        power = (j - b) % 4
        if power % 2:
            p[n - b, b] = (-1) ** (n - 1) * math.factorial(n - 1) * math.comb(n, b) * (2 - power)
    return p


def _nth_hypot(orders: Orders, x: jax.Array, y: jax.Array) -> jax.Array:
    return power_of_radius(1, orders, x, y) if any(orders) else jnp.hypot(x, y)


def _nth_asinh(orders: Orders, x: jax.Array) -> jax.Array:
    (n,) = orders
    if n == 0:
        return jnp.arcsinh(x)
    if n == 1:
        return 1 / jnp.where(_one_is_lost(x), jnp.abs(x), jnp.sqrt(1 + x * x))
    return power_of_radius(-1, (n - 1, 0), x, jnp.ones_like(x))


def _nth_isru(orders: Orders, x: jax.Array) -> jax.Array:
    (n,) = orders
    if n == 0:
        return jnp.where(_one_is_lost(x), jnp.sign(x), x / jnp.sqrt(1 + x * x))
    if n == 1:
        w = 1 / (1 + x * x)
        return w * jnp.sqrt(w)
    return power_of_radius(1, (n + 1, 0), x, jnp.ones_like(x))


def _one_is_lost(x: jax.Array) -> jax.Array:
    """Where √(1 + x²) rounds to |x|."""
    return jnp.abs(x) > 2.0 ** (jnp.finfo(x.dtype).nmant // 2 + 2)


def _nth_smooth_abs(orders: Orders, x: jax.Array, epsilon: jax.Array) -> jax.Array:
    """∂xⁱ of ∂εʲ W^½ = (½)(½ − 1)…(½ − j + 1) W^(½ − j), W = x² + ε."""
    i, j = orders
    if i + j <= 1:
        h = _smooth_radius(x, epsilon)
        direction = jnp.where(jnp.isinf(x), jnp.sign(x), x / h)
        return h if i + j == 0 else jnp.where(h == 0, 0, direction if i else 0.5 / h)
    c = math.prod(0.5 - k for k in range(j))
    return power_of_radius(1 - 2 * j, (i, 0), x, jnp.sqrt(epsilon), c)


def _smooth_radius(x: jax.Array, epsilon: jax.Array) -> jax.Array:
    """√(x² + ε); no square leaves the range."""
    e = jnp.finfo(x.dtype).maxexp
    epsilon = jnp.where(epsilon < 0, jnp.nan, epsilon)
    plain = x * x + epsilon
    huge, small = plain == jnp.inf, plain < 2.0 ** -(e * 3 // 4)
    s = jnp.where(huge, 2.0 ** -(e * 33 // 64), jnp.where(small, 2.0 ** (e * 5 // 8), 1.0)).astype(x.dtype)
    back = jnp.where(huge, 2.0 ** (e * 33 // 64), jnp.where(small, 2.0 ** -(e * 5 // 8), 1.0)).astype(x.dtype)
    scaled = x * s
    return jnp.where(jnp.isinf(x), jnp.inf, jnp.sqrt(scaled * scaled + (epsilon * s) * s) * back)


_hypot = family("hypot", _nth_hypot)
_arctan2 = family("arctan2", _nth_arctan2)
_asinh = family("asinh", _nth_asinh, complex=jnp.arcsinh)
_isru = family("isru", _nth_isru)
_smooth_abs = family("smooth_abs", _nth_smooth_abs)
