"""Compile and time finished programs, side by side."""

import statistics
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.progress import Progress

from jaxpartials import _jax
from jaxpartials.graph.emit import evaluate
from jaxpartials.graph.graph import Graph

ROUNDS = 7
LONG_ENOUGH = 2e-3  # seconds a round must last, so that the clock and the dispatch do not count


def measure(programs: Sequence[tuple[str, Graph]], arrays: Sequence[Any]) -> list[float]:
    """Seconds for one run of each program on data like `arrays`: the median of interleaved rounds."""
    data = [_like(array) for array in arrays]
    with Progress(console=Console(stderr=True), transient=True) as bar:
        compiling = bar.add_task("compiling candidates", total=len(programs))
        runs = []
        for _, program in programs:
            runs.append(_compile(program, data))
            bar.advance(compiling)
        repeats = [max(1, int(LONG_ENOUGH / max(_seconds(run, data, 1), 1e-6))) for run in runs]
        timing = bar.add_task("timing candidates", total=ROUNDS)
        rounds = []
        for _ in range(ROUNDS):
            rounds.append([_seconds(run, data, n) for run, n in zip(runs, repeats, strict=True)])
            bar.advance(timing)
    return [statistics.median(column) for column in zip(*rounds, strict=True)]


def _compile(program: Graph, data: Sequence[Any]) -> Any:
    constants = [(value, _like(array)) for value, array in program.constants.values()]

    def run(*arrays):
        return evaluate(program.outputs, [*constants, *zip(program.inputs, arrays, strict=True)])

    # Compiled ahead of time, so that it can be run even while an enclosing function is being traced.
    return jax.jit(run).lower(*data).compile()


def _seconds(run: Any, data: Sequence[Any], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        out = run(*data)
    jax.block_until_ready(out)
    return (time.perf_counter() - start) / repeats


def _like(array: Any) -> Any:
    """The array itself, or numbers in its place where it is only known by its shape."""
    if not isinstance(array, (_jax.Tracer, jax.ShapeDtypeStruct)):
        return np.asarray(array) if isinstance(array, (float, complex)) else array
    aval = array if isinstance(array, jax.ShapeDtypeStruct) else _jax.typeof(array)
    if not jax.numpy.issubdtype(aval.dtype, np.inexact):
        return np.zeros(aval.shape, aval.dtype)
    return np.random.default_rng(0).uniform(0.1, 1.0, aval.shape).astype(aval.dtype)
