"""Norms, directions and angles of vectors.

With n = ‖x‖ₚ and t = x/n the gradient of the norm is g = φ(t), φ(t) = sign(t)·|t|^(p−1). The set {n, 1/n, t, φ} is
closed:

    dn = Σ g dx,   d(1/n) = −Σ (g/n)/n dx,   dt = dx/n − (t/n) Σ g dx,   dφ = (p − 1)|t|^(p−2) dt,

and none of these forms a sum of squares outside the range: vectors are scaled by a power of two to a size of about 1.
"""

import functools
import math
import operator
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from jaxpartials.errors import StableError
from jaxpartials.stable.family import Orders, described, family, positions, promoted
from jaxpartials.stable.radii import hypot

Axes = tuple[int, ...]
NUMBER = int | float | np.integer | np.floating


def norm(x: ArrayLike, ord: Any = None, axis: int | Sequence[int] | None = None, keepdims: bool = False) -> jax.Array:
    """The norm of vectors, (Σ |xᵢ|ᵖ)^(1/p), as `numpy.linalg.norm` has it.

    For p = 2, with u = x/‖x‖:   ∂ᵢ = uᵢ,   ∂ᵢⱼ = (δᵢⱼ − uᵢuⱼ)/‖x‖.

    The plain norm squares: in float32 `jnp.linalg.norm` of (3e-25, 4e-25) is 0, of (3e25, 4e25) inf; they should be
    5e-25 and 5e25. Its gradient at 0 is nan.

    >>> bool(abs(norm(jnp.array([3e25, 4e25])) / 5e25 - 1) < 1e-6)
    True
    >>> jax.grad(norm)(jnp.zeros(2)).tolist()
    [0.0, 0.0]

    Args:
        x: any shape, real or complex.
        ord: p ≥ 1; 2 if it is None; inf and −inf for the largest and smallest |xᵢ|, 0 for the number of nonzero ones.
            Matrix norms other than the Frobenius norm are not here.
        axis: the axis of the vectors; without `ord`, or with that of Frobenius, several of them, or None: all.
        keepdims: whether the axes remain, with length 1.

    Returns:
        The norm, within 4 ulp for up to a thousand elements (the sum rounds as `jnp.sum` does); orders 1 and 2 within
        8 ulp, order 3 within 16 ulp of the largest of the derivatives of their order; for p ≠ 2, order n ≥ 2 within
        32 ulp of ‖x‖^(1−n) if no element is much below the largest. Where one of the derivatives of an order
        overflows, the others of that order may be nan; those below four times the smallest normal number may be 0. Of 0
        the norm is 0, and all its derivatives are 0: the first is the subgradient of least norm. ±inf among the
        elements gives inf and nan for derivatives, nan gives nan. For 1 < p < 2 the second derivative at a vector with
        a zero element is inf or nan; in truth it is inf.

    Raises:
        StableError: if x is no array of numbers, if `ord` is no norm of vectors, or the axes do not fit it.

    Source: J. L. Blue, A portable Fortran program to find the Euclidean norm of a vector, ACM TOMS 4 (1978);
    G. H. Golub, C. F. Van Loan, Matrix Computations, 2.2.
    """
    (array,), dtype = promoted("norm", x)
    axes = _axes("norm", axis, array)
    p = _exponent(ord, axes, array)
    if jnp.iscomplexobj(array):
        array = hypot(array.real, array.imag)
        dtype = array.dtype
    if p in (math.inf, -math.inf):
        extreme = jnp.max if p > 0 else jnp.min
        # |x| has the derivative 1 at 0 in JAX.
        if p < 0 and array.shape[axes[0]] == 0:
            raise StableError(f"norm with ord=-inf takes vectors of at least one element, and got {described(array)}.")
        result = extreme(
            jnp.where(array == 0, 0, jnp.abs(array)), axes, keepdims=keepdims, initial=0 if p > 0 else math.inf
        )
    elif p == 0:
        result = jnp.sum(array != 0, axes, keepdims=keepdims, dtype=array.dtype)
    else:
        result = _norm(p, axes, array)
        result = result if keepdims else jnp.squeeze(result, axes)
    return result.astype(dtype)


def normalize(x: ArrayLike, ord: Any = 2, axis: int | Sequence[int] | None = -1) -> jax.Array:
    """x/‖x‖, vectors of length 1.

    For p = 2, with u = x/‖x‖:   ∂ⱼuᵢ = (δᵢⱼ − uᵢuⱼ)/‖x‖,   and of second order (3uᵢuⱼuₖ − δᵢⱼuₖ − δⱼₖuᵢ − δₖᵢuⱼ)/‖x‖².

    The plain x/√(Σx²) is inf, 0 or nan where the squares leave the range: in float32 (inf, inf) for (3e-25, 4e-25); it
    should be (0.6, 0.8).

    Examples:
        >>> [round(float(u), 3) for u in normalize(jnp.array([3e-25, 4e-25]))]
        [0.6, 0.8]

    Args:
        x: real, any shape.
        ord: p ≥ 1, finite.
        axis: the axis of the vectors, or several; None: all.

    Returns:
        x/‖x‖, within 4 ulp; orders 1 and 2 within 8 ulp, order 3 within 16 ulp of the largest derivative of their
        order of any element; where that overflows, they may be nan. Of 0 it is 0, and so are all its derivatives, by
        convention.

    Raises:
        StableError: if x is complex or no array of numbers, or `ord` is no such p.

    Source: as `norm`.
    """
    (array,), dtype = promoted("normalize", x)
    if jnp.iscomplexobj(array):
        raise StableError(f"normalize takes real vectors, and got {described(x)}. Divide by `norm(x, keepdims=True)`.")
    if not (isinstance(ord, NUMBER) and 1 <= ord < math.inf):
        raise StableError(f"normalize takes a finite ord of at least 1, and got {ord!r}. The usual one is 2.")
    return _direction(float(ord), _axes("normalize", axis, array), array).astype(dtype)


def cosine_similarity(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    epsilon: ArrayLike = 0.0,
    axis: int | Sequence[int] | None = -1,
    where: ArrayLike | None = None,
) -> jax.Array:
    """The cosine of the angle between vectors, x·y/(‖x‖ ‖y‖), as `optax.cosine_similarity`.

    With u = x/‖x‖, w = y/‖y‖, c = u·w:   ∂x = (w − c u)/‖x‖,   ∂xy = (1 − w wᵀ − u uᵀ + c u wᵀ)/(‖x‖ ‖y‖).

    The plain form squares and multiplies norms: in float32 it is inf for x = (3e-25, 4e-25), y = (1, 0), and nan at 0.

    >>> x = jnp.array([3e-25, 4e-25])
    >>> bool(abs(cosine_similarity(x, jnp.array([1.0, 0.0])) - 0.6) < 1e-6)
    True

    Args:
        predictions: real, of shapes that broadcast.
        targets: as `predictions`.
        epsilon: what smaller squares of norms count as: c is x·y/(√ε ‖y‖) where ‖x‖² < ε.
        axis: the axis of the vectors, or several; None: all.
        where: which elements count.

    Returns:
        c, within 8 ulp of 1; orders 1 and 2 within 16 ulp, order 3 within 32 ulp of 1/(‖x‖ⁱ ‖y‖ʲ), i + j = n. For
        nearly parallel vectors they are themselves much smaller than that: no vectors of this precision determine them
        better. Where 1/(‖x‖ⁱ ‖y‖ʲ) overflows, they may be nan. Of a zero vector c is 0 and its derivatives with
        respect to it are 0, by convention.

    Raises:
        StableError: if an argument is complex or no array of numbers, or their shapes do not broadcast.

    Source: optax.cosine_similarity; G. H. Golub, C. F. Van Loan, Matrix Computations, 2.5.
    """
    (x, y), dtype = promoted("cosine_similarity", predictions, targets)
    if jnp.iscomplexobj(x):
        raise StableError(f"cosine_similarity takes real vectors, and got {described(predictions, targets)}.")
    if where is not None:
        x, y = jnp.where(where, x, 0), jnp.where(where, y, 0)
    axes = _axes("cosine_similarity", axis, x)
    if isinstance(epsilon, NUMBER) and epsilon == 0:
        cosine = _cosine(axes, x, y)
    else:
        cosine = _bounded_cosine(axes, x, y, jnp.sqrt(jnp.asarray(epsilon, x.dtype)))
    return jnp.squeeze(cosine, axes).astype(dtype)


def _axes(name: str, axis: Any, x: jax.Array) -> Axes:
    """The axes that hold one vector."""
    return positions(name, axis, x, f"axis {axis!r} is none of {described(x)}.")


def _exponent(ord: Any, axes: Axes, x: jax.Array) -> float:
    """p of the norm of vectors along the axes."""
    if ord is None or (isinstance(ord, str) and ord == "fro" and len(axes) == 2):
        return 2.0
    if not (isinstance(ord, NUMBER) and (ord >= 1 or ord in (0, -math.inf))):
        raise StableError(
            f"norm takes ord None, a p of at least 1, inf, -inf or 0 for vectors, 'fro' over two axes, and got {ord!r}."
        )
    if len(axes) != 1:
        raise StableError(
            f"norm with ord={ord!r} takes vectors, and got {x.dtype}{list(x.shape)} with {len(axes)} axes for each. "
            "Name one axis, or ravel it; matrix norms are in jax.numpy.linalg."
        )
    return float(ord)


def _bounded_cosine(axes: Axes, x: jax.Array, y: jax.Array, least: jax.Array) -> jax.Array:
    """x·y/(max(‖x‖, least) max(‖y‖, least)), its axes kept."""
    short_x, short_y = (lax.stop_gradient(_norm(2.0, axes, z)) < least for z in (x, y))
    either = short_x | short_y
    # What is not chosen is computed at 0, where all derivatives are 0: 0 times an infinite one would be nan.
    units = (
        jnp.where(short, z / least, _direction(2.0, axes, jnp.where(either & ~short, z, 0)))
        for z, short in ((x, short_x), (y, short_y))
    )
    product = jnp.sum(operator.mul(*units), axes, keepdims=True)
    return jnp.where(either, product, _cosine(axes, *(jnp.where(either, 0, z) for z in (x, y))))


def near_power_of_two(largest: jax.Array) -> tuple[jax.Array, jax.Array]:
    """A power of two near `largest`, and one over it, both normal."""
    info = jnp.finfo(largest.dtype)
    within = jnp.clip(largest, float(info.tiny), 0.25 / float(info.tiny))
    power = lax.reduce_precision(within, info.bits - 1 - info.nmant, 0)
    return power, 1 / power


@functools.partial(jax.jit, static_argnums=(0, 1))
def _value(p: float, axes: Axes, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """‖x‖ over a power of two, and that power."""
    # One pass where no vector needs scaling.
    powers = _sum_of_powers(p, axes, x)
    plain = lambda x, powers: (_root(p, powers), jnp.ones_like(powers))
    return lax.cond(_fits(powers), plain, lambda x, powers: _scaled_value(p, axes, x), x, powers)


def _fits(sums: jax.Array) -> jax.Array:
    """Whether no sum of powers left the range: powers below the smallest normal number do not count beside these.

    Nor what is near the largest number: one over it would be subnormal."""
    e = jnp.finfo(sums.dtype).maxexp
    return jnp.all((sums > 2.0 ** -(e * 5 // 8)) & (sums < 2.0 ** (e - 4)))


def _sum_of_powers(p: float, axes: Axes, x: jax.Array) -> jax.Array:
    """Σ |x|ᵖ."""
    powers = x * x if p == 2 else jnp.abs(x) if p == 1 else jnp.abs(x) ** p
    return jnp.sum(powers, axes, keepdims=True)


def _root(p: float, sums: jax.Array) -> jax.Array:
    return jnp.sqrt(sums) if p == 2 else sums if p == 1 else sums ** (1 / p)


def _scaled_value(p: float, axes: Axes, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    power, scale = near_power_of_two(jnp.max(jnp.abs(x), axes, keepdims=True, initial=0))
    return _root(p, _sum_of_powers(p, axes, x * scale)), power


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _norm(p: float, axes: Axes, x: jax.Array) -> jax.Array:
    """‖x‖, its axes kept."""
    scaled, power = _value(p, axes, x)
    return scaled * power


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _reciprocal_norm(p: float, axes: Axes, x: jax.Array) -> jax.Array:
    """1/‖x‖; 0 for x = 0."""
    scaled, power = _value(p, axes, x)
    return jnp.where(scaled == 0, 0, 1 / scaled) / power


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _direction(p: float, axes: Axes, x: jax.Array) -> jax.Array:
    """x/‖x‖; 0 for x = 0."""
    scaled, power = _value(p, axes, x)
    return (x * (1 / power)) * jnp.where(scaled == 0, 0, 1 / scaled)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _cosine(axes: Axes, x: jax.Array, y: jax.Array) -> jax.Array:
    """x·y/(‖x‖ ‖y‖), its axes kept; 0 for x = 0 or y = 0."""
    squares, others = (_sum_of_powers(2.0, axes, z) for z in (x, y))
    plain = lambda x, y: jnp.sum(x * y, axes, keepdims=True) / jnp.sqrt(squares) / jnp.sqrt(others)
    return lax.cond(_fits(squares) & _fits(others), plain, functools.partial(_scaled_cosine, axes), x, y)


def _scaled_cosine(axes: Axes, x: jax.Array, y: jax.Array) -> jax.Array:
    (a, p), (b, q) = (_scaled_value(2.0, axes, z) for z in (x, y))
    # In units of the powers, a product that underflows does not count.
    product = jnp.sum((x * (1 / p)) * (y * (1 / q)), axes, keepdims=True)
    return jnp.where((a == 0) | (b == 0), 0, product / a / b)


@_norm.defjvp
def _norm_tangent(p: float, axes: Axes, xs, dxs):
    return _norm(p, axes, *xs), jnp.sum(_gradient(p, axes, *xs) * dxs[0], axes, keepdims=True)


@_reciprocal_norm.defjvp
def _reciprocal_norm_tangent(p: float, axes: Axes, xs, dxs):
    r = _reciprocal_norm(p, axes, *xs)
    return r, -jnp.sum(((_gradient(p, axes, *xs) * r) * r) * dxs[0], axes, keepdims=True)


@_direction.defjvp
def _direction_tangent(p: float, axes: Axes, xs, dxs):
    r, t = _reciprocal_norm(p, axes, *xs), _direction(p, axes, *xs)
    along = jnp.sum(_gradient(p, axes, *xs) * dxs[0], axes, keepdims=True)
    return t, dxs[0] * r - (t * r) * along


@_cosine.defjvp
def _cosine_tangent(axes: Axes, xs, dxs):
    c = _cosine(axes, *xs)
    terms = []
    for (x, y), dx in zip((xs, xs[::-1]), dxs, strict=True):
        r, u, w = _reciprocal_norm(2.0, axes, x), _direction(2.0, axes, x), _direction(2.0, axes, y)
        terms.append(jnp.sum(((w - c * u) * r) * dx, axes, keepdims=True))
    return c, sum(terms)


def _gradient(p: float, axes: Axes, x: jax.Array) -> jax.Array:
    """φ(x/‖x‖)."""
    t = _direction(p, axes, x)
    if p == 2:
        return t
    zero = jnp.all(lax.stop_gradient(x) == 0, axes, keepdims=True)
    # For p < 2, φ′ is inf at 0, where all derivatives are to be 0.
    return jnp.where(zero, 0, _signed_power(p - 1)(jnp.where(zero, 1, t)))


@functools.cache
def _signed_power(q: float):
    """sign(t)·|t|^q."""

    def nth(orders: Orders, t: jax.Array) -> jax.Array:
        (n,) = orders
        c = math.prod(q - k for k in range(n))
        if c == 0:
            return jnp.zeros_like(t)
        power = jnp.abs(t) ** (q - n) if q != n else jnp.ones_like(t)
        return c * (power if n % 2 else jnp.sign(t) * power)

    return family("norm", nth)
