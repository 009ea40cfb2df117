"""What rewrites are made of besides the operations of `stable`: functions with accurate derivatives of their own."""

import jax
import jax.numpy as jnp

from jaxpartials.stable.family import Orders, family


def _nth_expm1(orders: Orders, x: jax.Array) -> jax.Array:
    return jnp.expm1(x) if orders == (0,) else jnp.exp(x)


# The plain derivative is expm1(x) + 1, which cancels: it is 0 for x < −17 in float32.
expm1 = family("expm1", _nth_expm1, complex=jnp.expm1)


def covariance(x: jax.Array, y: jax.Array, axis: tuple[int, ...]) -> jax.Array:
    """E[(x − E[x])(y − E[y])] along some axes."""
    dx, dy = _off_mean(x, axis), _off_mean(y, axis)
    return jnp.mean(dx * dy, axis).astype(jnp.result_type(x, y))


def _off_mean(a: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """a − E[a], from the middle of the range: what the first subtraction leaves of the mean the second takes away."""
    a = a.astype(jnp.promote_types(a.dtype, jnp.float32))
    low, high = (jax.lax.stop_gradient(end(a, axes, keepdims=True)) for end in (jnp.min, jnp.max))
    d = a - (low / 2 + high / 2)
    return d - jnp.mean(d, axes, keepdims=True)


@jax.custom_jvp
def difference_of_squares(a: jax.Array, b: jax.Array) -> jax.Array:
    """a² − b² = (a − b)(a + b), which is exact to rounding wherever a − b is."""
    return (a - b) * (a + b)


@difference_of_squares.defjvp
def _difference_tangent(xs, dxs):
    """2 (a da − b db): that of the product, da (a + b) + (a − b) da + …, cancels where db = 0 and a is small."""
    (a, b), (da, db) = xs, dxs
    return difference_of_squares(a, b), 2 * (a * da - b * db)
