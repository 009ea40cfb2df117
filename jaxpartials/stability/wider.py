"""Evaluation in float64, whether or not JAX is set to it."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxpartials import _jax
from jaxpartials.errors import StableError

WIDER = {"float16": "float64", "bfloat16": "float64", "float32": "float64", "complex64": "complex128"}


@contextlib.contextmanager
def wider() -> Iterator[None]:
    """A context in which float64 is float64."""
    with jax.enable_x64(True):
        if jax.dtypes.canonicalize_dtype(np.float64) != np.float64:
            raise StableError(
                'stabilize(…, precision="float64"): JAX makes float32 of float64 here, and that cannot be changed for '
                'one function. Set jax.config.update("jax_enable_x64", True) before JAX is first used.'
            )
        yield


def widened(array: Any) -> Any:
    """An array in double precision; integers and truth values stay what they are."""
    dtype = WIDER.get(str(jnp.result_type(array)))
    return array if dtype is None else jnp.asarray(array).astype(dtype)


def wide_type(array: Any) -> jax.ShapeDtypeStruct:
    """The shape and the type that `widened` gives."""
    now = jnp.result_type(array)
    return jax.ShapeDtypeStruct(jnp.shape(array), WIDER.get(str(now)) or now)


def in_float64(fn: Callable[..., list[Any]], *args: Any) -> Callable[..., list[Any]]:
    """A function of arguments like these, traced in `wider()` together with its derivatives.

    JAX traces the rule of a custom function where it is differentiated: of what is inside `jit`, `scan` or `checkpoint`
    that is later, outside the context.
    """
    closed, _ = _jax.trace(fn, *args)
    run = jax.jit(_jax.as_function(_jax.ruled(closed, wider)))
    return lambda *args: run(*jax.tree.leaves(args))


def narrowed(array: jax.Array, like: Any) -> jax.Array:
    """A result in the type that the function itself gives."""
    return array.astype(like.dtype)
