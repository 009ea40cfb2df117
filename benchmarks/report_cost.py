"""What a report costs: seconds besides XLA's own, and memory, as programs grow."""

import time
import tracemalloc
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from rich.console import Console

import jaxpartials as jp
from benchmarks.harness import Result, WrongValues, count_equations, verdict
from jaxpartials.inspection.finding import TWICE

SIZES = (200, 2000, 20000)


def report_cost(small: bool) -> list["ReportCost"]:
    """Networks, their gradients and loops in a row: the seconds and the memory that a report on them takes."""
    return [ReportCost((200,) if small else SIZES)]


@dataclass
class ReportCost:
    """Programs of about so many equations, of which a known part is computed twice."""

    sizes: tuple[int, ...]
    name: str = "report_cost"

    def measure(self, rounds: int, console: Console) -> Result:
        self.compare(console)
        rows: dict[str, dict[str, Any]] = {}
        for size in self.sizes:
            with console.status(f"{self.name}: {size} equations"):
                fn = _program(size)
                equations = count_equations(jax.make_jaxpr(fn)(*_args()))
                spans = [_seconds(fn) for _ in range(1 if size > 2000 else min(3, rounds))]
                compiling, own = min(spans, key=lambda span: span[1])
                simplifying = jp.simplify(fn).stats(*_args()).seconds
                tracemalloc.start()
                found = jp.report(fn)(*_args())
                _, peak = tracemalloc.get_traced_memory()
                tracemalloc.stop()
            rows[f"{size}"] = {
                "equations": equations, "findings": len(found.findings), "XLA s": compiling, "s": own,
                "simplify s": simplifying, "ms per equation": 1e3 * own / equations, "MB": peak / 1e6,
                "kB per equation": peak / 1e3 / equations,
            }  # fmt: skip
        targets = tuple(self._targets(rows))
        return Result(self.name, COLUMNS, rows, targets, NOTES)

    def _targets(self, rows: dict[str, dict[str, Any]]):
        if "2000" not in rows:
            return
        yield verdict("s of 2000 equations", rows["2000"]["s"], 5.0)
        largest = rows[str(self.sizes[-1])]
        for what in ("ms per equation", "kB per equation"):
            yield verdict(f"{what}, the largest / of 2000", largest[what] / rows["2000"][what], 1.5)

    def compare(self, console: Console) -> Result:
        size = self.sizes[0]
        found = jp.report(_program(size))(*_args())
        twice = [one for one in found.findings if one.kind == TWICE]
        blocks = -(-size // BLOCK)
        if not sum(one.cost.contractions for one in twice) >= blocks * TWICE_IN_A_BLOCK:
            raise WrongValues(f"of {blocks} blocks that compute products twice, the report finds {len(twice)}.")
        return Result(self.name, (), {}, notes=(f"{size} equations, what is computed twice is found.",))


COLUMNS = ("equations", "findings", "XLA s", "s", "simplify s", "ms per equation", "MB", "kB per equation")
NOTES = (
    "s: all but XLA's own compilation, the seconds of simplify, which tells what jaxpartials would leave, among them.",
    "MB: what Python allocates at most at one time.",
)
COMPILED = "/jax/core/compile/backend_compile_duration"
N, K, ROWS = 24, 40, 6
BLOCK = 47  # equations
TWICE_IN_A_BLOCK = 2 * ROWS * N * K


def _args() -> tuple:
    return tuple(jax.ShapeDtypeStruct(shape, "float32") for shape in ((ROWS, N), (N, K), (K, N)))


def _seconds(fn) -> tuple[float, float]:
    """Of XLA, and of the rest of a report."""
    compiling = []

    def note(event: str, seconds: float, **_: Any) -> None:
        if event == COMPILED:
            compiling.append(seconds)

    jax.monitoring.register_event_duration_secs_listener(note)
    try:
        started = time.perf_counter()
        jp.report(fn)(*_args())
        whole = time.perf_counter() - started
    finally:
        jax.monitoring.unregister_event_duration_listener(note)
    return sum(compiling), whole - sum(compiling)


def _program(size: int):
    def fn(x, w, v):
        total = 0.0
        for i in range(-(-size // BLOCK)):

            def layer(x, i=i):
                return jnp.tanh(jnp.sin(x @ w * (1 + i)) @ v)

            x = 0.5 * x + layer(layer(x)) * jnp.sum(layer(x))
            total += jnp.sum(jax.grad(lambda x, layer=layer: jnp.sum(layer(x) ** 2))(x))
            steps = jax.lax.scan(lambda c, _, i=i: (jnp.cos(c * (2 + i)), jnp.sum(c)), x[0], None, length=5)
            total += jnp.sum(steps[0]) + jnp.sum(steps[1])
        return total

    return fn
