"""The tables of the documentation: bad points per operation and order, and the time beside the plain operation."""

import functools
import importlib
import itertools
import statistics
import time
from collections.abc import Iterable, Iterator, Sequence
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.stability import accuracy
from benchmarks.stability.case import Case

Table = tuple[tuple[str, ...], Iterable[tuple[str, ...]]]
# A point is bad where the error is over this many ulp: what the issue of accuracy is about are 30 % errors, infs and
# zeros, and the operations promise less.
BAD = {1: 8, 2: 16}


def accuracy_rows(cases: Sequence[Case], smoke: bool = False) -> Table:
    """Points at which an order is further off than 8 ulp (16 of several arguments): JAX · torch → ours / points.

    They are counted once for each derivative of the order, and only where its true value is a normal number.
    """
    torch = _torch()
    header = ("operation", "points", *(f"order {n}" for n in range(4)), "ours, worst ulp", "promised")
    return header, (_accuracy_row(case, torch, 16 if smoke else 200) for case in cases)


def _accuracy_row(case: Case, torch: ModuleType | None, most: int) -> tuple[str, ...]:
    cells, worst = [], []
    bad = BAD[min(len(case.grids), 2)]
    for n in range(4):
        counts = np.zeros(4, int)
        furthest = 0.0
        for orders in accuracy.multi_orders(len(case.grids), n):
            ours = accuracy.errors(case, case.stable, orders, most=most)
            plain = accuracy.errors(case, case.plain, orders, most=most)
            counts += (plain.bad(bad), 0, ours.bad(bad), len(ours.ulp))
            if torch is not None and case.torch is not None:
                counts[1] += accuracy.torch_errors(case, torch, orders, most=most).bad(bad)
            furthest = max(furthest, ours.worst)
        peers = str(counts[0]) if torch is None or case.torch is None else f"{counts[0]} · {counts[1]}"
        cells.append(f"{peers} → {counts[2]} / {counts[3]}")
        worst.append(f"{furthest:.2g}")
    return (
        case.name,
        str(len(accuracy.points(case, most))),
        *cells,
        " ".join(worst),
        " ".join(f"{b:g}" for b in case.bounds),
    )


def _torch() -> ModuleType | None:
    try:
        return importlib.import_module("torch")
    except ImportError:
        return None


def speed_rows(cases: Sequence[Case], smoke: bool = False) -> Table:
    """The time of a million elements over that of the plain operation, in turns in one process.

    Vectors have 64 elements each.
    """
    header = ("operation", "forward", "reverse")
    return header, (_speed_row(case, 1_000 if smoke else 1_000_000, 3 if smoke else 60) for case in cases)


def _speed_row(case: Case, size: int, rounds: int) -> tuple[str, ...]:
    args = (_matrix(size),) if case.rows else tuple(_sample(case, size))
    ratios = []
    for make in (_forward, _pulled_back):
        runs = [make(fn, args) for fn in case.rows or (case.stable, case.plain)]
        times = [_times(runs) for _ in range(rounds)]
        ratios.append(statistics.median(ours / plain for ours, plain in times))
    return case.name, *(f"{ratio:.2f}" for ratio in ratios)


def _sample(case: Case, size: int) -> Iterator[jax.Array]:
    """Everyday numbers of the domain: the plain operation is not to be slowed by subnormals and nans."""
    rng = np.random.default_rng(3)
    rows = [row for row in accuracy.points(case) if all(1e-3 <= abs(x) <= 1e2 for x in row)]
    chosen = np.asarray(rows, np.float32)[rng.integers(len(rows), size=size)]
    return map(jnp.asarray, np.ascontiguousarray(chosen.T))


def _matrix(size: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(4).normal(size=(size // 64, 64)), np.float32)


def _forward(fn, args):
    return functools.partial(jax.jit(fn), *args)


def _pulled_back(fn, args):
    shape = jax.eval_shape(fn, *args).shape
    cotangent = jnp.asarray(np.random.default_rng(5).normal(size=shape), np.float32)

    @jax.jit
    def run(cotangent, *args):
        value, pull = jax.vjp(fn, *args)
        return value, pull(cotangent)

    return functools.partial(run, cotangent, *args)


def _times(runs) -> list[float]:
    found = []
    for run in runs:
        jax.block_until_ready(run())
        started = time.perf_counter()
        for _ in itertools.repeat(None, 3):
            jax.block_until_ready(run())
        found.append(time.perf_counter() - started)
    return found
