"""Evaluation in float64, whether or not JAX is set to it."""

import contextlib
from typing import Any

import jax
import jax.numpy as jnp

from jaxpartials.errors import StableError

WIDER = {"float16": "float64", "bfloat16": "float64", "float32": "float64", "complex64": "complex128"}


def wider() -> contextlib.AbstractContextManager:
    """A context in which float64 is float64."""
    return jax.enable_x64(True)


def widened(array: Any, as_type: bool = False) -> Any:
    """An array in double precision, or its type; integers and truth values stay what they are."""
    now = jnp.result_type(array)
    dtype = WIDER.get(str(now))
    if as_type:
        return jax.ShapeDtypeStruct(jnp.shape(array), dtype or now)
    if dtype is None:
        return array
    wide = jnp.asarray(array).astype(dtype)
    if str(wide.dtype) != dtype:
        raise StableError(
            f'precision="float64" got {wide.dtype}{list(wide.shape)} where it needs {dtype}: float64 is not to be had '
            f'here. Set jax.config.update("jax_enable_x64", True) before the outermost jit.'
        )
    return wide


def narrowed(array: jax.Array, like: Any) -> jax.Array:
    """A result in the type that the function itself gives."""
    return array.astype(like.dtype)
