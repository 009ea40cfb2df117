"""Which equation of a program loses the accuracy at a point.

Every equation is run once more in its own precision on its exact operands, correctly rounded: what is then wrong in its
result is its local error, which large cancellation and what overflows or underflows inside have and ordinary rounding
has not. The culprit is the equation whose local error alone, put into the exact program, makes its result wrong.

Source: Sanchez-Stern, Panchekha, Lerner & Tatlock, Finding root causes of floating point error, PLDI 2018.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxpartials import _jax
from jaxpartials.graph.graph import Graph, Node
from jaxpartials.stability.arithmetic import Multiple
from jaxpartials.stability.measure import Array, as_floats, measure, significand
from jaxpartials.stability.reference import Step, Tape, own_types
from jaxpartials.stability.truth import rowwise

# An equation is suspected from this local error on, and convicted where it alone gives all wrong bits but so many.
SUSPECT = 3.0
FORGIVEN = 4.0
OUT_OF_RANGE = 1000.0
MOST = 60  # suspects tried at a point

OVERFLOW, UNDERFLOW, CANCELLATION, ROUNDING = "overflow", "underflow", "cancellation", "rounding"
COMPILER = "compiler"


@dataclass(frozen=True)
class Guilt:
    """An equation and what it does: "overflow", "underflow", "cancellation", or "rounding" that others enlarge."""

    node: Node
    how: str


def guilty(
    at_point: Callable, arrays: Sequence[Array], which: tuple[int, int], bits: float, digits: int
) -> Guilt | None:
    """The culprit at one point, for the results of output and element `which`, `bits` of which are wrong."""
    graph = rowwise(at_point, arrays)
    exact = Tape.of(graph, arrays, Multiple(digits))
    output, element = which
    dtype = np.dtype(graph.outputs[output].dtype)
    true = exact.values[exact.outputs[output]].reshape(1, -1)[:, element : element + 1]

    suspects = []
    for k in exact.reaching():
        step = exact.steps[k]
        if not step.moves:
            made, error, how = _local(exact, step)
            if error > 0:
                suspects.append((error, k, made, how))
    # The largest local error first; of several that leave the range, the one that does so first.
    suspects.sort(key=lambda each: (-each[0], each[1]))

    def effect(k: int, made: list[Array]) -> float:
        result = exact.again(k, made)[output].reshape(1, -1)[:, element : element + 1]
        got = as_floats(result).astype(dtype)
        return float(measure(got, true, np.ones(1, bool)).bits[0])

    best: tuple[float, Guilt] | None = None
    for error, k, made, how in suspects[:MOST]:
        if error < SUSPECT and best is not None and best[0] >= bits - FORGIVEN:
            break
        alone = effect(k, made)
        guilt = Guilt(exact.steps[k].node, how)
        if error >= SUSPECT and alone >= bits - FORGIVEN:
            return guilt
        if best is None or alone > best[0]:
            best = alone, guilt
    return None if best is None else best[1]


def compilers(graph: Graph) -> Guilt | None:
    """The quotient of a quotient, which XLA turns into a quotient by a product, or whatever else divides last."""
    quotients = [node for node in graph.nodes if node.name == "div"]
    for node in quotients:
        if any(v.node.name == "div" for v in node.operands):
            return Guilt(node, COMPILER)
    return Guilt(quotients[-1], COMPILER) if quotients else None


def _local(exact: Tape, step: Step) -> tuple[list[Array], float, str]:
    """What an equation makes of its exact operands once these are rounded, how many bits of it are wrong, and why."""
    node = step.node
    made, worst, how = [], 0.0, ROUNDING
    with own_types(node):
        operands = [
            jnp.asarray(_rounded(exact.values[i], v.dtype).reshape(v.shape))
            for i, v in zip(step.operands, node.operands, strict=True)
        ]
        results = _jax.bind(node.primitive, node.params, operands)
    for i, result in zip(step.outputs, results, strict=True):
        true, got = exact.values[i], np.asarray(result)
        if true.dtype != object:
            made.append(true)
            continue
        error, kind = _bits(got.astype(np.float64).ravel(), true.ravel(), got.dtype)
        made.append(exact.arithmetic.lift(got).reshape(true.shape))
        if error > worst:
            worst, how = error, kind
    return made, worst, how


def _bits(got: Array, true: Array, dtype: Any) -> tuple[float, str]:
    info, p = jnp.finfo(dtype), significand(dtype)
    worst, how = 0.0, ROUNDING
    for g, t in zip(got.tolist(), true.tolist(), strict=True):
        if t != t or abs(t) == float("inf"):
            continue
        size = abs(t)
        if size > float(info.max):
            error, kind = OUT_OF_RANGE, OVERFLOW
        elif 0 < size < float(info.tiny):
            error, kind = OUT_OF_RANGE, UNDERFLOW
        elif g != g or abs(g) == float("inf"):
            error, kind = OUT_OF_RANGE, OVERFLOW
        elif g == t:
            continue
        elif t == 0:
            error, kind = float(p), CANCELLATION
        else:
            wrong = float(np.log2(max(float(abs((t - g) / t)) * 2.0**p, 1e-9)))
            error, kind = min(max(wrong, 0.01), p), CANCELLATION if wrong >= SUSPECT else ROUNDING
        if error > worst:
            worst, how = error, kind
    return worst, how


def _rounded(value: Array, dtype: Any) -> Array:
    if value.dtype != object:
        return np.asarray(value)
    return as_floats(value).astype(dtype)
