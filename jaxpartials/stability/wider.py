"""Evaluation in float64, whether or not JAX is set to it."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxpartials import _jax
from jaxpartials.errors import StableError

WIDER = {"float16": "float64", "bfloat16": "float64", "float32": "float64", "complex64": "complex128"}
ONLY_WIDER = frozenset({"float64", "int64", "uint64", "complex128"})
RANDOM = frozenset({"random_bits", "threefry2x32", "rng_bit_generator", "rng_uniform", "random_gamma"})


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
    dtype = WIDER.get(str(array.dtype))  # of a weak type it is not what `jnp.result_type` says
    return array if dtype is None else array.astype(dtype)


def wide_type(array: Any) -> jax.ShapeDtypeStruct:
    """The shape and the type that `widened` gives."""
    now = jnp.result_type(array)
    return jax.ShapeDtypeStruct(jnp.shape(array), WIDER.get(str(now)) or now)


def unsettled(captured: Sequence[Any]) -> list[bool]:
    """Which arrays have types that there are in `wider()` alone."""
    return [not jax.config.jax_enable_x64 and str(array.dtype) in ONLY_WIDER for array in captured]


def enclosed(fn: Callable[..., list[Any]], captured: Sequence[Any], narrow: Sequence[Any]) -> _jax.Enclosed:
    """A function of captured and other arrays, computed in `wider()` together with all of its derivatives.

    It takes arrays of the user's types and gives results of the types of `narrow`; what it captures that exists in
    `wider()` alone it keeps, the rest comes first among its arguments.
    """
    inner = unsettled(captured)

    def run(*arrays: Any) -> list[Any]:
        given = iter(arrays)
        known = [array if kept else next(given) for array, kept in zip(captured, inner, strict=True)]
        return list(map(narrowed, fn(known, list(map(widened, given))), narrow))

    return _jax.Enclosed(run, narrow, wider)


def narrowed(array: jax.Array, like: Any) -> jax.Array:
    """A result in the type that the function itself gives."""
    return array if array.dtype == like.dtype else array.astype(like.dtype)


def refuse_random_numbers(equations: Sequence[Any], name: str) -> None:
    """Raise where a program draws random numbers: in float64 they are other ones."""
    for equation in equations:
        if equation.primitive.name in RANDOM:
            raise StableError(
                f'stabilize({name}, precision="float64"): {name} draws random numbers ({equation.primitive.name}), and '
                "in float64 JAX draws others. Draw them before the call and pass them as an argument."
            )
        for value in equation.params.values():
            for each in value if isinstance(value, (tuple, list)) else (value,):
                if _jax.is_jaxpr(each):
                    refuse_random_numbers(_jax.open_jaxpr(each).equations, name)
