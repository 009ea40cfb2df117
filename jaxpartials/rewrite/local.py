"""What rules for a single equation are written with: how they are entered, what they ask, and what they make."""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax import lax

from jaxpartials import _jax
from jaxpartials.graph.graph import LITERAL, Graph, Rule, Value


def rewrite(table: dict[str, list[Rule]], *names: str) -> Callable[[Callable], Callable]:
    """Make a rule of a function of an equation's operands, and by keyword of the parameters it reads; enter it.

    The keyword `params` stands for all of them together. An equation with any other parameter that is set (a
    sharding, an output dtype) asks for something that the rule does not know about, and is left alone.
    """

    def enter(function: Callable) -> Callable:
        read = tuple(
            name
            for name, parameter in inspect.signature(function).parameters.items()
            if parameter.kind is parameter.KEYWORD_ONLY
        )

        @functools.wraps(function)
        def rule(graph: Graph, operands: Sequence[Value], params: dict[str, Any]) -> Value | None:
            for name, setting in params.items():
                if name not in read and setting and not says_nothing(setting):
                    return None
            for operand in operands:
                if not ordinary(operand.aval):
                    return None
            return function(graph, *operands, **{k: params if k == "params" else params[k] for k in read})

        for name in names:
            table.setdefault(name, []).append(rule)
        return function

    return enter


def says_nothing(setting: Any) -> bool:
    """Some releases write a sharding over no devices where others write None."""
    return getattr(getattr(setting, "mesh", None), "empty", False)


# ---- what the rules ask about values


@functools.lru_cache(maxsize=4096)
def ordinary(aval: Any) -> bool:
    """Whether this is an array of numbers or truth values without an explicit sharding."""
    return (
        isinstance(aval, _jax.ShapedArray)
        and isinstance(aval.dtype, np.dtype)
        and aval.dtype.names is None
        and all(axis is None for axis in aval.sharding.spec)
    )


def number(x: Value) -> np.ndarray | None:
    """The number that every element of x is known to be."""
    node = x.node
    if node.name == "broadcast_in_dim":
        node = node.operands[0].node
    return node.params["value"] if node.name == LITERAL else None


def is_number(x: Value, wanted: int) -> bool:
    found = number(x)
    return found is not None and bool(found == wanted)


def made_by(x: Value, name: str) -> bool:
    return x.node.name == name


@functools.cache
def is_real(dtype: Any) -> bool:
    return bool(jax.dtypes.issubdtype(dtype, np.floating))


@functools.cache
def is_integral(dtype: Any) -> bool:
    return bool(jax.dtypes.issubdtype(dtype, np.integer))


# ---- what the rules make


def equation(graph: Graph, primitive: Any, *operands: Value, **params: Any) -> Value:
    """A simpler equation in the place of the one that is being made."""
    aval, _ = primitive.abstract_eval(*(x.aval for x in operands), **params)
    source, context = graph.origin
    (out,) = graph.add(primitive, operands, params, [aval], source=source, context=context)
    return out


def broadcast(graph: Graph, x: Value, shape: Sequence[int], dimensions: Sequence[int] = ()) -> Value:
    return equation(
        graph, lax.broadcast_in_dim_p, x,
        shape=tuple(shape), broadcast_dimensions=tuple(dimensions), sharding=None,
    )  # fmt: skip


def reshape(graph: Graph, x: Value, shape: Sequence[int]) -> Value:
    return equation(graph, lax.reshape_p, x, new_sizes=tuple(shape), dimensions=None, sharding=None)


def transpose(graph: Graph, x: Value, permutation: Sequence[int]) -> Value:
    return equation(graph, lax.transpose_p, x, permutation=tuple(permutation))


def fill(graph: Graph, value: Any, dtype: Any, shape: Sequence[int]) -> Value:
    """The array of this shape that holds one number everywhere."""
    scalar = graph.literal(np.asarray(value, dtype), _jax.ShapedArray((), dtype))
    return broadcast(graph, scalar, shape) if shape else scalar


def joint_shape(x: Value, y: Value) -> tuple[int, ...]:
    """The shape of an elementwise equation: operands have one rank, or none, and axes of size 1 stretch."""
    if x.shape == y.shape or not y.shape:
        return x.shape
    if not x.shape:
        return y.shape
    return tuple(n if m == 1 else m for m, n in zip(x.shape, y.shape, strict=True))


def spread(graph: Graph, x: Value, shape: Sequence[int]) -> Value:
    """x in the shape of an elementwise equation that it is an operand of."""
    return x if x.shape == shape else broadcast(graph, x, shape, range(len(x.shape)))
