"""What computes a formula's replacement, traced once for all places of a program that differ in their operands only."""

import functools
from collections.abc import Callable
from types import FunctionType
from typing import Any

import jax
import jax.numpy as jnp

from jaxpartials.graph.graph import Graph, Identity, Value, freeze
from jaxpartials.graph.trace import trace
from jaxpartials.rewrite.local import is_real
from jaxpartials.stability.identities.conversions import holds
from jaxpartials.stability.identities.values import times
from jaxpartials.stability.patterns import Match


class Emission:
    """Replacements made in the graphs of one program."""

    def __init__(self) -> None:
        self._traced: dict[Any, Graph] = {}

    def made(self, graph: Graph, match: Match) -> Value:
        """What replaces a value, of its shape and type, computed in no narrower one."""
        value, emit, operands = match.value, match.rewrite.emit, match.operands
        key = (what_it_does(emit), value.shape, value.dtype, tuple(v.aval for v in operands))
        if key not in self._traced:
            # Halves are computed in float32 and rounded once.
            wide = jnp.promote_types(value.dtype, jnp.float32)

            def run(*arrays):
                result = jnp.asarray(emit(*[_at_least(wide, array) for array in arrays]))
                return [jnp.broadcast_to(result, value.shape).astype(value.dtype)]

            self._traced[key] = trace(run, *(v.aval for v in operands))[0]
        traced = self._traced[key]
        (output,) = traced.outputs
        made = graph.include([output], dict(zip(traced.inputs, operands, strict=True)))[output]
        return times(graph, match.rewrite.number, made)


def _at_least(dtype: Any, array: jax.Array) -> jax.Array:
    return array.astype(dtype) if is_real(array.dtype) and holds(dtype, array.dtype) else array


def what_it_does(function: Callable[..., Any]) -> Any:
    """Equal for functions of one text that have closed over equal things."""
    if isinstance(function, functools.partial):
        return (*map(_known, (function.func, function.args, tuple(sorted(function.keywords.items())))),)
    if not isinstance(function, FunctionType):
        return Identity(function)
    closed_over = (cell.cell_contents for cell in function.__closure__ or ())
    defaults = (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).items())
    return Identity(function.__code__), tuple(map(_known, closed_over)), tuple(map(_known, defaults))


def _known(thing: Any) -> Any:
    if isinstance(thing, (tuple, list)):
        return type(thing), tuple(map(_known, thing))
    if isinstance(thing, Value):
        return Identity(thing)
    return what_it_does(thing) if isinstance(thing, (FunctionType, functools.partial)) else freeze(thing)
