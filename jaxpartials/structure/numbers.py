"""Numbers that are known before a program runs: arrays made by counting and comparing, computed with NumPy.

It takes microseconds where JAX, one operation at a time, takes a compilation each.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from jaxpartials import _jax
from jaxpartials.graph.emit import evaluate
from jaxpartials.graph.graph import CONSTANT, LITERAL, Node, Value, reach

SMALL = 1 << 14  # elements of an array that JAX computes

ARITHMETIC: dict[str, Callable[..., Any]] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "neg": np.negative, "eq": np.equal, "ne": np.not_equal,
    "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal, "max": np.maximum, "min": np.minimum,
    "and": np.logical_and, "or": np.logical_or, "not": np.logical_not, "copy": np.array,
}  # fmt: skip


def numbers(value: Value) -> np.ndarray:
    """The numbers of a value that depends on no input."""
    known: dict[Value, np.ndarray] = {}
    for node in reach([value]):
        if node.name in (LITERAL, CONSTANT):
            found: Sequence[Any] | None = [np.asarray(node.params["value"])]
        else:
            found = computed(node, [known[v] for v in node.operands])
        if found is None:  # a rare operation, or a rare dtype
            with jax.ensure_compile_time_eval():
                (array,) = evaluate([value], [])
            return np.asarray(array)
        known |= {v: np.asarray(a).astype(v.dtype) for v, a in zip(node.outputs, found, strict=True)}
    return known[value]


def plain(value: Value) -> bool:
    """Whether a value has numbers that NumPy knows."""
    return getattr(value.dtype, "kind", "V") in "biufc"


def computed(node: Node, x: Sequence[Any]) -> Sequence[Any] | None:
    """What an operation makes of these numbers, in any dtype that holds it; None where NumPy is not asked."""
    params = node.params
    if not all(map(plain, node.outputs)):
        return None
    out = node.outputs[0]
    if node.name in ARITHMETIC:
        if node.name in ("and", "or", "not") and x[0].dtype != bool:
            return None
        with np.errstate(over="ignore"):  # integers go round
            return [ARITHMETIC[node.name](*x)]
    if node.name == "iota":
        line = np.arange(out.shape[params["dimension"]])
        return [along(line, params["dimension"], out.shape)]
    if node.name == "convert_element_type":
        return [x[0].astype(out.dtype)]
    if node.name == "select_n":
        return [np.choose(x[0].astype(int), x[1:])] if len(x) <= 30 and x[0].shape == out.shape else None
    if node.name in ("scatter", "scatter-add") and math.prod(out.shape) <= SMALL:
        with jax.ensure_compile_time_eval():
            return [np.asarray(made) for made in _jax.bind(node.primitive, node.params, list(x))]
    return moved(node, x)


def along(line: np.ndarray, axis: int, shape: Sequence[int]) -> np.ndarray:
    """Numbers that go along one axis of an array of this shape."""
    return np.broadcast_to(line.reshape([-1 if a == axis else 1 for a in range(len(shape))]), shape)


def moved(node: Node, x: Sequence[np.ndarray]) -> Sequence[np.ndarray] | None:
    """What an operation that only moves elements makes of arrays of its operands' shapes; None for any other."""
    params = node.params
    shape = node.outputs[0].shape
    if node.name == "broadcast_in_dim":
        (array,) = x[:1]
        wide = [1] * len(shape)
        for axis, n in zip(params["broadcast_dimensions"], array.shape, strict=True):
            wide[axis] = n
        return [np.broadcast_to(array.reshape(wide), shape)]
    if node.name in ("reshape", "squeeze") and params.get("dimensions", None) is not None and node.name == "reshape":
        return None
    if node.name in ("reshape", "squeeze", "expand_dims"):
        return [x[0].reshape(shape)]
    if node.name == "transpose":
        return [x[0].transpose(params["permutation"])]
    if node.name == "slice":
        strides = params["strides"] or [1] * x[0].ndim
        return [x[0][tuple(map(slice, params["start_indices"], params["limit_indices"], strides))]]
    if node.name == "split":
        return np.split(x[0], np.cumsum(params["sizes"])[:-1], axis=params["axis"])
    if node.name == "concatenate":
        return [np.concatenate(x, axis=params["dimension"])]
    if node.name == "stack":
        return [np.stack(x, axis=params.get("axis", 0))]
    if node.name == "rev":
        return [np.flip(x[0], params["dimensions"])]
    if node.name in ("copy", "stop_gradient", "optimization_barrier") and len(x) == len(node.outputs):
        return list(x)
    return None
