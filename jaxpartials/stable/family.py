"""Families of functions that are closed under differentiation.

The derivative of an operation is made here not by differentiating the formula of its value, which may be accurate
while its derivative is not, but by another member of its family: the partial derivative of any order, each with a
formula of its own. Every order is then as accurate as its own formula.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jax.typing import ArrayLike

from jaxpartials.errors import StableError

Orders = tuple[int, ...]
Nth = Callable[..., jax.Array]


def family(name: str, nth: Nth, *, complex: Callable[..., jax.Array] | None = None) -> Callable[..., jax.Array]:
    """The elementwise function f whose partial derivative of orders (i, j, …) is `nth((i, j, …), x, y, …)`.

    Args:
        name: what errors call it.
        nth: gets the orders, one for each argument, and arrays of one shape and one dtype, float32 or float64.
        complex: what complex arguments are given to; without it they are refused.

    Returns:
        f, which broadcasts and promotes its arguments as NumPy does. Halves are computed in float32 and rounded once.
    """

    def evaluate(orders: Orders, *xs: jax.Array) -> jax.Array:
        return nth(orders, *xs)

    # What programs print.
    evaluate.__name__ = name
    # The orders are static: each member is compiled on its own, and shares with the others what XLA finds equal.
    compiled = jax.jit(evaluate, static_argnums=0)

    def member(orders: Orders, *xs: jax.Array) -> jax.Array:
        return compiled(orders, *xs)

    member.__name__ = name
    member = jax.custom_jvp(member, nondiff_argnums=(0,))

    @functools.partial(member.defjvp, symbolic_zeros=True)
    def tangent(orders: Orders, xs: tuple[jax.Array, ...], dxs: tuple[Any, ...]):
        value = member(orders, *xs)
        total = None
        for k, dx in enumerate(dxs):
            if not isinstance(dx, SymbolicZero):
                term = member(raised(orders, k), *xs) * dx
                total = term if total is None else total + term
        return value, jnp.zeros_like(value) if total is None else total

    def f(*xs: ArrayLike) -> jax.Array:
        arrays, dtype = promoted(name, *xs)
        if jnp.issubdtype(dtype, jnp.complexfloating):
            if complex is None:
                raise StableError(
                    f"{name} takes real numbers, and got {described(*xs)}. Take its real part or absolute value first."
                )
            return complex(*arrays)
        return member((0,) * len(arrays), *arrays).astype(dtype)

    return f


def raised(orders: Orders, k: int) -> Orders:
    """One derivative more by argument k."""
    return orders[:k] + (orders[k] + 1,) + orders[k + 1 :]


def promoted(name: str, *xs: ArrayLike) -> tuple[tuple[jax.Array, ...], jnp.dtype]:
    """The arguments in one shape and the dtype to compute in, and the dtype of the result."""
    try:
        dtype = jnp.result_type(*xs, float)
        shape = jnp.broadcast_shapes(*map(jnp.shape, xs))
    except TypeError as error:
        raise StableError(f"{name} takes arrays of numbers, and got {described(*xs)}.") from error
    except ValueError as error:
        raise StableError(
            f"{name} got shapes that do not broadcast: {described(*xs)}. Add axes of length 1 (x[:, None]), or vmap it."
        ) from error
    # Sixteen bits are computed in thirty-two, and rounded once.
    wide = jnp.promote_types(dtype, jnp.float32)
    return tuple(jnp.broadcast_to(jnp.asarray(x, wide), shape) for x in xs), dtype


def described(*xs: Any) -> str:
    """Shapes and dtypes, for errors."""
    return ", ".join(
        f"{jnp.result_type(x)}{list(jnp.shape(x))}" if hasattr(x, "shape") else f"{type(x).__name__} {x!r}" for x in xs
    )
