"""What rewrites are made of besides the operations of `stable`: functions with accurate derivatives of their own."""

import jax
import jax.numpy as jnp

from jaxpartials.stable.family import Orders, family


def _nth_expm1(orders: Orders, x: jax.Array) -> jax.Array:
    return jnp.expm1(x) if orders == (0,) else jnp.exp(x)


# The plain derivative is expm1(x) + 1, which cancels: it is 0 for x < −17 in float32.
expm1 = family("expm1", _nth_expm1, complex=jnp.expm1)


@jax.custom_jvp
def difference_of_squares(a: jax.Array, b: jax.Array) -> jax.Array:
    """a² − b² = (a − b)(a + b), which is exact to rounding wherever a − b is."""
    return (a - b) * (a + b)


@difference_of_squares.defjvp
def _difference_tangent(xs, dxs):
    """2 (a da − b db): that of the product, da (a + b) + (a − b) da + …, cancels where db = 0 and a is small."""
    (a, b), (da, db) = xs, dxs
    return difference_of_squares(a, b), 2 * (a * da - b * db)
