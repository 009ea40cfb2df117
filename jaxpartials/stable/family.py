"""Families of functions that are closed under differentiation.

The derivative of an operation is made here not by differentiating the formula of its value, which may be accurate
while its derivative is not, but by another member of its family: the partial derivative of any order, each with a
formula of its own. Every order is then as accurate as its own formula.
"""

import functools
import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jax.typing import ArrayLike

from jaxpartials._jax import with_weakness
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
            value = complex(*arrays)
        else:
            value = member((0,) * len(arrays), *arrays).astype(dtype)
        return with_weakness(value, gives_way(*xs))

    return f


def raised(orders: Orders, k: int) -> Orders:
    """One derivative more by argument k."""
    return orders[:k] + (orders[k] + 1,) + orders[k + 1 :]


def promoted(name: str, *xs: ArrayLike) -> tuple[tuple[jax.Array, ...], jnp.dtype]:
    """The arguments in one shape and the dtype to compute in, and the dtype of the result."""
    dtype = common_dtype(name, *xs)
    try:
        shape = jnp.broadcast_shapes(*map(jnp.shape, xs))
    except ValueError as error:
        raise StableError(
            f"{name} got shapes that do not broadcast: {described(*xs)}. Add axes of length 1 (x[:, None]), or vmap it."
        ) from error
    # Sixteen bits are computed in thirty-two, and rounded once.
    wide = jnp.promote_types(dtype, jnp.float32)
    return tuple(jnp.broadcast_to(jnp.asarray(x, wide), shape) for x in xs), dtype


def common_dtype(name: str, *xs: ArrayLike) -> jnp.dtype:
    """The dtype of the result: that of the arguments together, a float or complex one."""
    try:
        dtype = jnp.result_type(*xs, float)
        # None counts as a float to `result_type`.
        if any(x is None for x in xs) or not jnp.issubdtype(dtype, jnp.inexact):
            raise TypeError(f"no dtype of numbers: {dtype}")
    except (TypeError, ValueError) as error:
        raise StableError(f"{name} takes arrays of numbers, and got {described(*xs)}.") from error
    return dtype


def positions(name: str, axis: Any, x: jax.Array, refusal: str | None = None) -> tuple[int, ...]:
    """The axes as positions from the front; None: all. One axis is an integer of any kind, several a sequence.

    Args:
        refusal: what is said where x has no such axis.
    """
    if axis is None:
        return tuple(range(x.ndim))
    try:
        several: tuple[Any, ...] = tuple(axis) if isinstance(axis, tuple | list | range) else (axis,)
        found = tuple(range(x.ndim)[operator.index(k)] for k in several)
    except (TypeError, IndexError) as error:
        unknown = f"{name} got axis={axis!r} for an array of {x.ndim} axes. Count them from 0, or from -1 backwards."
        raise StableError(refusal or unknown) from error
    if len(set(found)) < len(found):
        raise StableError(f"{name} got axis={axis!r} for {described(x)}, which names an axis twice. Name each once.")
    return found


def gives_way(*xs: ArrayLike) -> bool:
    """Whether the dtype of what is computed elementwise from these gives way to others, as that of Python numbers."""
    return jax.dtypes.result_type(*xs, return_weak_type_flag=True)[1]


def described(*xs: Any) -> str:
    """Shapes and dtypes, for errors."""
    return ", ".join(f"{x.dtype}{list(x.shape)}" if hasattr(x, "shape") else f"{type(x).__name__} {x!r}" for x in xs)
