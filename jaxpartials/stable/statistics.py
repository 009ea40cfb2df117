"""Variance and standard deviation.

With d = a − mean(a), N the number of elements less the correction, σ the standard deviation and w = d/σ, the set
{σ², σ, 1/σ, d, w} is closed:

    d(σ²) = 2/N Σ d da,   dσ = 1/N Σ w da,   d(1/σ) = −(dσ/σ)/σ,   dd = da − mean(da),   dw = (dd − w dσ)/σ.

d is computed from the middle of the range of the data, by two subtractions, and scaled by a power of two: what is far
from 0 does not cancel, and squares stay in range.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxpartials.errors import StableError
from jaxpartials.stable.family import positions, promoted
from jaxpartials.stable.radii import hypot
from jaxpartials.stable.vectors import near_power_of_two

Axis = int | Sequence[int] | None
Axes = tuple[int, ...]
Mask = jax.Array | None


def var(
    a: ArrayLike,
    axis: Axis = None,
    dtype: Any = None,
    out: None = None,
    ddof: float = 0,
    keepdims: bool = False,
    *,
    where: ArrayLike | None = None,
    mean: None = None,
    correction: float | None = None,
) -> jax.Array:
    """The variance Σ (aᵢ − m)²/N, m the mean, N the number of elements less ddof; as `numpy.var`.

    ∂ᵢ = 2 (aᵢ − m)/N,   ∂ᵢⱼ = 2 (δᵢⱼ − 1/n)/N for n elements.

    The plain variance loses what the mean rounds away: in float32 `jnp.var` of (16777216, 16777218, 16777218) is 2.67;
    it should be 0.89.

    >>> f"{float(var(jnp.array([16777216.0, 16777218.0, 16777218.0]))):.4f}"
    '0.8889'

    Args:
        a: any shape; complex numbers give the sum of the variances of both parts.
        axis: as in `jax.numpy.var`.
        dtype: in which it is computed, and that of the result: a float, or complex.
        keepdims: as `axis`.
        ddof: what is taken from the number of elements; one of them.
        correction: as `ddof`.
        where: which elements count.
        out: None. The mean is computed here.
        mean: as `out`.

    Returns:
        The variance, within 8 ulp; derivatives of one order within 8 ulp of the largest of them. Of equal elements it
        is exactly 0. Where N is not positive, and where an element is inf or nan, it is nan.

    Raises:
        StableError: if a is no array of numbers, `axis` or `dtype` does not fit it, `out` or `mean` is given, or ddof
            beside correction.

    Source: T. F. Chan, G. H. Golub, R. J. LeVeque, Algorithms for computing the sample variance, Amer. Statist. 37
    (1983).
    """
    return _apply("var", _variance, lambda real, imaginary: real + imaginary, a, axis, dtype, keepdims, where,
                  _correction("var", out, mean, ddof, correction))  # fmt: skip


def std(
    a: ArrayLike,
    axis: Axis = None,
    dtype: Any = None,
    out: None = None,
    ddof: float = 0,
    keepdims: bool = False,
    *,
    where: ArrayLike | None = None,
    mean: None = None,
    correction: float | None = None,
) -> jax.Array:
    """The standard deviation σ = √var, as `numpy.std`.

    With wᵢ = (aᵢ − m)/σ:   ∂ᵢ = wᵢ/N,   ∂ᵢⱼ = (δᵢⱼ − 1/n − wᵢwⱼ/N)/(Nσ) for n elements.

    The plain one has nan for a derivative where all elements are equal and where the squares leave the range: in
    float32 at (1e-25, 3e-25), where the derivatives are ∓1/2.

    >>> jax.grad(std)(jnp.array([1e-25, 3e-25])).tolist()
    [-0.5, 0.5]
    >>> jax.grad(std)(jnp.ones(3)).tolist()
    [0.0, 0.0, 0.0]

    Args:
        a: as for `var`.
        axis: as for `var`.
        dtype: as for `var`.
        out: as for `var`.
        ddof: as for `var`.
        keepdims: as for `var`.
        where: as for `var`.
        mean: as for `var`.
        correction: as for `var`.

    Returns:
        σ, within 8 ulp; derivatives of one order within 8 ulp of the largest of them, order 3 within 16 ulp. Of equal
        elements it is exactly 0, and so are all its derivatives: the first is the subgradient of least norm. Where N
        is not positive, and where an element is inf or nan, it is nan.

    Raises:
        StableError: as `var`.

    Source: as `var`.
    """
    return _apply("std", _deviation, hypot, a, axis, dtype, keepdims, where,
                  _correction("std", out, mean, ddof, correction))  # fmt: skip


def _apply(name, of, joined, a, axis: Axis, dtype: Any, keepdims: bool, where: Any, correction: float) -> jax.Array:
    (array,), result = promoted(name, a)
    if dtype is not None:
        result = _wanted(name, dtype, array)
        array = array.astype(jnp.promote_types(result, jnp.float32))
    unknown = f"axis {axis!r} is not one of the axes of an array of shape {array.shape}."
    axes = positions(name, axis, array, unknown)
    mask = None if where is None else jnp.broadcast_to(jnp.asarray(where, bool), array.shape)
    if jnp.iscomplexobj(array):
        value = joined(of(axes, correction, array.real, mask), of(axes, correction, array.imag, mask))
        result = jnp.finfo(result).dtype if dtype is None else result
    else:
        value = of(axes, correction, array, mask)
    return (value if keepdims else jnp.squeeze(value, axes)).astype(result)


def _wanted(name: str, dtype: Any, a: jax.Array) -> jnp.dtype:
    """The dtype asked for."""
    try:
        wanted = jnp.result_type(dtype)
    except TypeError as error:
        raise StableError(f"{name} got dtype={dtype!r}, which is no dtype.") from error
    if not jnp.issubdtype(wanted, jnp.inexact):
        raise StableError(f"{name} got dtype={wanted}, and computes in it. Name a float dtype, and round the result.")
    if jnp.iscomplexobj(a) and not jnp.issubdtype(wanted, jnp.complexfloating):
        raise StableError(f"{name} got dtype={wanted} for {a.dtype}. Leave it out: the result is real anyway.")
    return wanted


def _correction(name: str, out: Any, mean: Any, ddof: float, correction: float | None) -> float:
    if out is not None or mean is not None:
        given = "out" if out is not None else "mean"
        raise StableError(
            f"{name} got {given}=…; it takes none: results are new arrays, and the mean is computed here."
        )
    if correction is None:
        return ddof
    if ddof:
        raise StableError(f"{name} got ddof={ddof!r} and correction={correction!r}, two names of one number. Give one.")
    return correction


# ---- the closed set; axes stay, with length 1


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _variance(axes: Axes, correction: float, a: jax.Array, mask: Mask) -> jax.Array:
    d, scale = _centred(axes, a, mask)
    return scale * (scale * _mean_square(axes, correction, d, mask))


@_variance.defjvp
def _variance_tangent(axes, correction, args, tangents):
    (a, mask), (da, _) = args, tangents
    weight = 2 / _degrees(axes, correction, a, mask)
    return _variance(axes, correction, a, mask), _sum(axes, _difference(axes, a, mask) * weight * da, mask)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _difference(axes: Axes, a: jax.Array, mask: Mask) -> jax.Array:
    """a − mean(a)."""
    d, scale = _centred(axes, a, mask)
    return d * scale


@_difference.defjvp
def _difference_tangent(axes, args, tangents):
    (a, mask), (da, _) = args, tangents
    return _difference(axes, a, mask), _off_mean(axes, da, mask)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _deviation(axes: Axes, correction: float, a: jax.Array, mask: Mask) -> jax.Array:
    d, scale = _centred(axes, a, mask)
    return scale * jnp.sqrt(_mean_square(axes, correction, d, mask))


@_deviation.defjvp
def _deviation_tangent(axes, correction, args, tangents):
    (a, mask), (da, _) = args, tangents
    return _deviation(axes, correction, a, mask), _change(axes, correction, a, mask, da)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _score(axes: Axes, correction: float, a: jax.Array, mask: Mask) -> jax.Array:
    """w = (a − mean(a))/σ; 0 where σ is."""
    d, _ = _centred(axes, a, mask)
    sigma = jnp.sqrt(_mean_square(axes, correction, d, mask))
    return jnp.where(sigma == 0, 0, d / jnp.where(sigma == 0, 1, sigma))


@_score.defjvp
def _score_tangent(axes, correction, args, tangents):
    (a, mask), (da, _) = args, tangents
    w = _score(axes, correction, a, mask)
    turned = _off_mean(axes, da, mask) - w * _change(axes, correction, a, mask, da)
    return w, turned * _precision(axes, correction, a, mask)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _precision(axes: Axes, correction: float, a: jax.Array, mask: Mask) -> jax.Array:
    """1/σ; 0 where σ is."""
    sigma = _deviation(axes, correction, a, mask)
    return jnp.where(sigma == 0, 0, 1 / jnp.where(sigma == 0, 1, sigma))


@_precision.defjvp
def _precision_tangent(axes, correction, args, tangents):
    (a, mask), (da, _) = args, tangents
    r = _precision(axes, correction, a, mask)
    return r, -r * (r * _change(axes, correction, a, mask, da))


def _change(axes: Axes, correction: float, a: jax.Array, mask: Mask, da: jax.Array) -> jax.Array:
    """dσ."""
    weight = 1 / _degrees(axes, correction, a, mask)
    return _sum(axes, _score(axes, correction, a, mask) * weight * da, mask)


# ---- sums


def _centred(axes: Axes, a: jax.Array, mask: Mask) -> tuple[jax.Array, jax.Array]:
    """(a − mean(a))/s and s, a power of two near the largest of the differences."""
    low = jnp.min(a, axes, keepdims=True, where=mask, initial=jnp.inf)
    high = jnp.max(a, axes, keepdims=True, where=mask, initial=-jnp.inf)
    # Halves: neither the sum nor the difference need be in range.
    scale, inverse = near_power_of_two(lax.stop_gradient(high / 2 - low / 2))
    return _off_mean(axes, (a - (low / 2 + high / 2)) * inverse, mask), scale


def _off_mean(axes: Axes, a: jax.Array, mask: Mask) -> jax.Array:
    d = a - _sum(axes, a, mask) / _count(axes, a, mask)
    return d if mask is None else jnp.where(mask, d, 0)


def _mean_square(axes: Axes, correction: float, d: jax.Array, mask: Mask) -> jax.Array:
    n = _degrees(axes, correction, d, mask)
    return jnp.where(n > 0, _sum(axes, d * d, mask) / n, jnp.nan)


def _sum(axes: Axes, a: jax.Array, mask: Mask) -> jax.Array:
    return jnp.sum(a, axes, keepdims=True, where=mask)


def _count(axes: Axes, a: jax.Array, mask: Mask) -> jax.Array:
    if mask is None:
        return jnp.asarray(_size(axes, a), a.dtype)
    return jnp.sum(mask, axes, keepdims=True, dtype=a.dtype)


def _size(axes: Axes, a: jax.Array) -> int:
    total = 1
    for axis in axes:
        total *= a.shape[axis]
    return total


def _degrees(axes: Axes, correction: float, a: jax.Array, mask: Mask) -> jax.Array:
    return _count(axes, a, mask) - correction
