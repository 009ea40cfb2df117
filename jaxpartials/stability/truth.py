"""What a program should give at the points of a sample: float64 where that is enough, else mpmath."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxpartials.errors import StabilityError
from jaxpartials.graph.graph import Graph
from jaxpartials.graph.trace import trace
from jaxpartials.stability.arithmetic import Multiple, NoisyFloat64, have_mpmath
from jaxpartials.stability.reference import Tape

Array = np.ndarray[Any, Any]

AGREED = 2.0**-26  # a quarter of float32's last place
RUNS = 3


class Truth(NamedTuple):
    """The true results of a program.

    `values` are numbers of float64 or of mpmath, one row for each point; `decided` says which rows are known; `digits`
    how many decimal digits it took, 0 where float64 was enough; `without` why rows are not known.
    """

    values: tuple[Array, ...]
    decided: Array
    digits: int
    without: str


def digits_of(dtype: Any) -> int:
    """So many that the numbers of a dtype can cancel to the square of the smallest of them, and more."""
    info = jnp.finfo(dtype)
    return 60 - 4 * int(np.floor(np.log10(float(info.tiny)))) + (200 if info.bits >= 32 or info.nexp > 7 else 0)


def rowwise(at_point: Callable, arrays: Sequence[Array]) -> Graph:
    """The program at every row of `arrays`."""
    return _traced(at_point, tuple((array.shape, array.dtype) for array in arrays))


@functools.lru_cache(maxsize=16)
def _traced(at_point: Callable, kinds: tuple[tuple[tuple[int, ...], Any], ...]) -> Graph:
    return trace(jax.vmap(at_point), *(jax.ShapeDtypeStruct(*kind) for kind in kinds))[0]


def truth(at_point: Callable, arrays: Sequence[Array], wide: bool, digits: int) -> Truth:
    """The results at every row of `arrays`. `wide`: float64 is wider than what the program computes in."""
    points = arrays[0].shape[0]
    graph = rowwise(at_point, arrays)
    values = [np.full(v.shape, np.nan, object) for v in graph.outputs]
    decided, without = np.zeros(points, bool), ""
    if wide:
        runs = [Tape.of(graph, arrays, NoisyFloat64(seed)).results for seed in range(RUNS)]
        decided = np.ones(points, bool)
        for first, *others in zip(*runs, strict=True):
            with np.errstate(invalid="ignore"):
                same = np.isfinite(first) & (first != 0)
                for other in others:
                    same &= np.abs(first - other) <= AGREED * np.abs(first)
            decided &= same.reshape(points, -1).all(axis=1)
        for value, run in zip(values, runs[0], strict=True):
            value[decided] = run[decided]
    rest = np.flatnonzero(~decided)
    if rest.size and have_mpmath():
        try:
            exact = exactly(at_point, [array[rest] for array in arrays], digits)
        except StabilityError as error:
            without = str(error)
        else:
            for value, row in zip(values, exact, strict=True):
                value[rest] = row
            return Truth(tuple(values), np.ones(points, bool), digits, "")
    elif rest.size:
        without = "mpmath is not installed"
    return Truth(tuple(values), decided, 0, without)


def exactly(
    at_point: Callable, arrays: Sequence[Array], digits: int, wider: Sequence[Array] | None = None
) -> list[Array]:
    """The results at every row of `arrays` in mpmath, or of `wider` ones, which may lie between their numbers."""
    return Tape.of(rowwise(at_point, arrays), arrays if wider is None else wider, Multiple(digits)).results
