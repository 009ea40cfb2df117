"""How every case is checked, timed and shown.

The variants of a case compute the same values; this is checked first. They are then timed in one process, in turns, so
that whatever else the machine does falls on all of them alike: in every round each variant runs for a few milliseconds,
in an order drawn anew and after one run untimed, so that none inherits the caches that another has left. The ratio to
the reference is taken within the round. The medians of those ratios are the result. Compilation is not part of them.
"""

import random
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import hlo

SAMPLE = 0.005  # seconds that one variant runs in one round


@dataclass(frozen=True)
class Target:
    """`variant` is to take at most `ratio` times what `of` takes."""

    variant: str
    of: str
    ratio: float


@dataclass(frozen=True)
class Prepared:
    """A variant ready to run, and what is known of it without running it."""

    run: Callable[[], Any]
    compile_seconds: float | None = None
    equations: int | None = None
    flops: float | None = None
    temporaries: int | None = None


def compiled(fn: Callable[..., Any], args: tuple) -> Prepared:
    """A JAX function, traced and compiled for these arguments."""
    jitted = jax.jit(fn)
    started = time.perf_counter()
    traced = jitted.trace(*args)
    executable = traced.lower().compile()
    seconds = time.perf_counter() - started
    memory = executable.memory_analysis()
    return Prepared(
        # Not the executable: calling the jitted function takes JAX's fast path, and does not compile again.
        run=lambda: jax.block_until_ready(jitted(*args)),
        compile_seconds=seconds,
        equations=count_equations(traced.jaxpr),
        flops=hlo.flops(executable.as_text() or ""),
        temporaries=None if memory is None else memory.temp_size_in_bytes,
    )


def eager(fn: Callable[..., Any], args: tuple) -> Prepared:
    """A function that is called as it is."""
    return Prepared(run=lambda: jax.block_until_ready(fn(*args)))


def hastily_compiled(fn: Callable[..., Any], args: tuple) -> Prepared:
    """A JAX function compiled without optimisation, for its values alone."""
    return eager(jax.jit(fn, compiler_options={"xla_backend_optimization_level": 0}), args)


@dataclass(frozen=True)
class Result:
    """The table of one case: a row for each variant, and what became of the targets."""

    case: str
    columns: tuple[str, ...]
    rows: Mapping[str, Mapping[str, Any]]
    targets: tuple[Mapping[str, Any], ...] = ()
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Case:
    """Variants of one computation.

    Attributes:
        variants: by name, functions of `args` that return the same pytree of arrays.
        reference: the variant that values and times are compared with.
        targets: the ratios wanted.
        tolerance: how far a variant's values may be from the reference's, in units of the largest value of the array.
        differs: variants that are known to give other values, and why; these are timed all the same, and those that
            differ for one reason are compared with each other.
        prepare: makes a variant runnable.
    """

    name: str
    variants: Mapping[str, Callable[..., Any]]
    args: tuple
    reference: str
    targets: tuple[Target, ...] = ()
    tolerance: float = 2e-4
    differs: Mapping[str, str] = field(default_factory=dict)
    prepare: Callable[[Callable[..., Any], tuple], Prepared] = compiled

    def measure(self, rounds: int, console: Console) -> Result:
        """Compile, compare the values, then time `rounds` rounds."""
        prepared = {}
        for name, fn in self.variants.items():
            with console.status(f"{self.name}: preparing {name}"):
                prepared[name] = self.prepare(fn, self.args)
        self.check({name: variant.run() for name, variant in prepared.items()})
        with console.status(f"{self.name}: {rounds} rounds of {len(prepared)} variants"):
            seconds = take_turns({name: variant.run for name, variant in prepared.items()}, rounds)
        rows = {name: self._row(name, prepared[name], seconds) for name in self.variants}
        targets = tuple(_verdict(target, seconds) for target in self.targets)
        return Result(self.name, COLUMNS, rows, targets, self._exceptions())

    def compare(self, console: Console) -> Result:
        """The values alone, untimed."""
        prepare = hastily_compiled if self.prepare is compiled else self.prepare
        with console.status(f"{self.name}: comparing values"):
            self.check({name: prepare(fn, self.args).run() for name, fn in self.variants.items()})
        agree = f"{len(self.variants) - len(self.differs)} variants, the same values."
        return Result(self.name, (), {}, notes=(agree, *self._exceptions()))

    def _exceptions(self) -> tuple[str, ...]:
        return tuple(f"{name}: {reason}" for name, reason in self.differs.items())

    def check(self, values: Mapping[str, Any]) -> None:
        """Every variant's values against the reference's.

        Raises:
            WrongValues: for the first variant that is further off than `tolerance`.
        """
        standards: dict[str | None, str] = {None: self.reference}
        for name, value in values.items():
            standard = standards.setdefault(self.differs.get(name), name)
            where, error = furthest(value, values[standard])
            if not error <= self.tolerance:
                raise WrongValues(
                    f"{self.name}: {name!r} differs from {standard!r} by {error:.2g} of the largest value of"
                    f" {where or 'the result'}; {self.tolerance:.0e} is allowed."
                )

    def _row(self, name: str, variant: Prepared, seconds: Mapping[str, list[float]]) -> dict[str, Any]:
        ratios = [a / b for a, b in zip(seconds[name], seconds[self.reference], strict=True)]
        return {
            "ratio": statistics.median(ratios),
            "spread": spread(ratios),
            "ms": 1e3 * statistics.median(seconds[name]),
            "compile s": variant.compile_seconds,
            "equations": variant.equations,
            "flops": variant.flops,
            "temporaries": variant.temporaries,
        }


class WrongValues(AssertionError):
    """Two variants of a case do not compute the same."""


@dataclass(frozen=True)
class Absent:
    """A case that cannot run here, and why."""

    name: str
    reason: str

    def measure(self, rounds: int, console: Console) -> Result:
        """An empty table with the reason."""
        return Result(self.name, (), {}, notes=(self.reason,))

    def compare(self, console: Console) -> Result:
        return self.measure(0, console)


def furthest(value: Any, right: Any) -> tuple[str, float]:
    """The leaf that is furthest off, with its largest error in units of that leaf's largest value."""
    if jax.tree.structure(value) != jax.tree.structure(right):
        raise WrongValues(f"one returns {jax.tree.structure(value)}, the reference {jax.tree.structure(right)}")
    worst = "", 0.0
    pairs = zip(jax.tree_util.tree_leaves_with_path(value), jax.tree.leaves(right), strict=True)
    for (path, got), wanted in pairs:
        got, wanted = np.asarray(got), np.asarray(wanted)
        if got.shape != wanted.shape:
            raise WrongValues(f"{jax.tree_util.keystr(path)} has shape {got.shape}, the reference's {wanted.shape}")
        size = float(np.max(np.abs(wanted), initial=0.0)) or 1.0
        error = float(np.max(np.abs(got - wanted), initial=0.0)) / size
        if not error <= worst[1]:
            worst = jax.tree_util.keystr(path), error
    return worst


def take_turns(runs: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds per run of every variant in every round."""
    order, names = random.Random(0), list(runs)
    repeats = {name: max(1, round(SAMPLE / min(_seconds(run, 1) for _ in range(3)))) for name, run in runs.items()}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        order.shuffle(names)
        for name in names:
            runs[name]()
            seconds[name].append(_seconds(runs[name], repeats[name]))
    return seconds


def _seconds(run: Callable[[], Any], times: int) -> float:
    started = time.perf_counter()
    for _ in range(times):
        run()
    return (time.perf_counter() - started) / times


def spread(numbers: list[float]) -> float:
    """Half the distance between the quartiles."""
    low, high = np.percentile(numbers, [25, 75])
    return float(high - low) / 2


def _verdict(target: Target, seconds: Mapping[str, list[float]]) -> dict[str, Any]:
    ratios = [a / b for a, b in zip(seconds[target.variant], seconds[target.of], strict=True)]
    return verdict(f"{target.variant} / {target.of}", statistics.median(ratios), target.ratio, spread(ratios))


def verdict(what: str, measured: float, wanted: float, spread: float | None = None) -> dict[str, Any]:
    """One target: what was measured, what is wanted at most, and whether it is met."""
    return {"what": what, "measured": measured, "spread": spread, "wanted": wanted, "met": measured <= wanted}


def count_equations(jaxpr: Any) -> int:
    """Equations, those of inner programs (calls, loop bodies, branches) instead of the call itself."""
    total = 0
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        inner = [count_equations(body) for body in _bodies(equation.params.values())]
        total += sum(inner) if inner else 1
    return total


def _bodies(params: Iterable[Any]) -> Iterable[Any]:
    for param in params:
        if hasattr(getattr(param, "jaxpr", param), "eqns"):
            yield param
        elif isinstance(param, (tuple, list)):
            yield from _bodies(param)


# ---- as a table

COLUMNS = ("ratio", "ms", "compile s", "equations", "flops", "temporaries")


def show(result: Result, console: Console) -> None:
    """One table, its targets and its notes."""
    console.print(f"[bold]{result.case}[/]")
    if result.rows:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column("  variant")
        for column in result.columns:
            table.add_column(column, justify="right")
        for name, row in result.rows.items():
            table.add_row("  " + name, *(_cell(column, row) for column in result.columns))
        console.print(table)
    for target in result.targets:
        met = "[green]met[/]" if target["met"] else "[red]missed[/]"
        spread = "" if target["spread"] is None else f" ± {target['spread']:.2g}"
        measured = f"{target['what']} = {target['measured']:.3g}{spread}"
        console.print(f"  {measured}, wanted at most {quantity(target['wanted'])}: {met}")
    for note in result.notes:
        console.print(f"  {note}", markup=False)
    console.print()


def _cell(column: str, row: Mapping[str, Any]) -> str:
    value = row.get(column)
    if value is None:
        return ""
    if column == "ratio":
        return f"{value:.2f} ± {row['spread']:.2f}"
    if column in ("flops", "temporaries"):
        return quantity(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"


def quantity(number: float) -> str:
    """Three digits and a letter: 1.23k, 45.6M."""
    for letter in ("", "k", "M", "G", "T"):
        if abs(number) < 999.5:
            return f"{number:.3g}{letter}"
        number /= 1000
    return f"{number:.3g}P"
