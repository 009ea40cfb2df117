"""`report` and `assert_no_redundant_work`: what a function computes twice, for nothing, or in the wrong mode."""

import functools
import inspect
import os
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, overload

import jax

from jaxpartials import _jax
from jaxpartials.call import ByShape, Call
from jaxpartials.graph.cost import Cost, body_cost, cost
from jaxpartials.graph.graph import Graph
from jaxpartials.graph.trace import read
from jaxpartials.graph.trips import ASSUMED_TRIPS
from jaxpartials.inspection.checkpoints import CHECKPOINTS
from jaxpartials.inspection.finding import ADDED, KINDS, REMOVED, Finding, Place, place
from jaxpartials.inspection.findings import findings_in, traced_cost
from jaxpartials.inspection.page import page_html, summary_html
from jaxpartials.inspection.scopes import Program, turns
from jaxpartials.inspection.xla import judge
from jaxpartials.planprint import as_text, operations, plain_table, quantity, times
from jaxpartials.simplification import ANY, simplify

WIDTH = 100
DEAREST = 3


def report(fn: Callable[..., Any]) -> Callable[..., "Report"]:
    """Return a function of the arguments of `fn` that tells what `fn` does on them and need not do.

    The program is traced, and compared with itself once equal equations are one, with what its results need of it, and
    with what better modes and fewer loops would take; then it is compiled, and each finding looked up in what XLA made.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> def energy(x):
        ...     return jnp.sum(jnp.sin(x))
        >>> def both(x):
        ...     return energy(x), jax.jvp(energy, (x,), (x,))[0]
        >>> found = report(both)(jax.ShapeDtypeStruct((1000,), "float32"))
        >>> [(finding.kind, finding.xla) for finding in found.findings]
        [('computed twice', 'removed')]

    Args:
        fn: any function that `jax.jit` accepts, jitted or not.

    Returns:
        A function that takes what `fn` takes, or `jax.ShapeDtypeStruct`s for arrays, and gives a `Report`. It does not
        run `fn`.

    Raises:
        TypeError: `fn` is not callable.

    Source:
        Aho, Lam, Sethi & Ullman, Compilers, 2nd ed., Pearson 2006, chapter 9 (equal and dead work); Griewank & Walther,
        Evaluating Derivatives, 2nd ed., SIAM 2008, chapter 3 (modes).
    """
    return _Reporting(fn)


@dataclass(frozen=True)
class Report:
    """What a function does and need not do; prints as a table.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> def loss(w, x):
        ...     return jnp.sum(jnp.exp(x @ w))
        >>> def step(w, x):
        ...     return loss(w, x), jax.grad(loss)(w, x)
        >>> found = report(step)(jnp.ones((40, 8)), jnp.ones((300, 40)))
        >>> print(found.verdict)
        traced 588k operations, ...B; after XLA ... operations, ...B; after jaxpartials 389k operations, ...B
        >>> print(found.findings[0])
        computed twice (..., XLA: removed) at ... (loss): dot_general, exp twice on the same values. ...
        >>> found.name, found.inputs
        ('step', ('w', 'x'))
        >>> found.traced.contractions / found.after_jaxpartials.contractions  # forward, forward again, and back
        1.5

    Attributes:
        name: of the function.
        findings: the dearest first.
        traced: what the program costs as it was traced, loop bodies times their turns.
        after_xla: what it costs as compiled, None where it could not be compiled. Bytes are those that go between
            kernels; before compilation they are estimated.
        after_jaxpartials: what it costs once simplified, None where it could not be.
        lines: the three dearest lines of the user's code, with what they cost.
        program: as it was traced, equal equations apart.
        inputs: the names of its inputs, by argument and path.
    """

    name: str
    findings: tuple[Finding, ...]
    traced: Cost
    after_xla: Cost | None
    after_jaxpartials: Cost | None
    lines: tuple[tuple[Place, Cost], ...]
    program: Graph = field(repr=False, compare=False)
    inputs: tuple[str, ...] = ()

    def to_html(self, path: str | os.PathLike[str]) -> None:
        """Write one page that needs no other file and no network: the program as a graph, the findings as a table."""
        Path(path).write_text(page_html(self), encoding="utf-8")

    def _repr_html_(self) -> str:
        return summary_html(self)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data, for CI: every key below is always there, and stays.

        name                 the function
        traced, after_xla, after_jaxpartials
                             {flops, transcendentals, bytes, seconds, assumed_trips}, or None; seconds are an estimate
        lines                [{file, line, function, share}], the dearest first
        findings             [{kind, places: [{file, line, function}], flops, transcendentals, bytes, seconds, share,
                             factor, xla, message, advice}], the dearest first
        """
        return {
            "name": self.name,
            "traced": _as_dict(self.traced),
            "after_xla": _as_dict(self.after_xla),
            "after_jaxpartials": _as_dict(self.after_jaxpartials),
            "lines": [{**where._asdict(), "share": self._share(here)} for where, here in self.lines],
            "findings": [
                {
                    "kind": one.kind,
                    "places": [where._asdict() for where in one.places],
                    "flops": one.cost.flops,
                    "transcendentals": one.cost.transcendentals,
                    "bytes": one.cost.bytes,
                    "seconds": one.cost.time,
                    "share": one.share,
                    "factor": one.factor,
                    "xla": one.xla,
                    "message": one.message,
                    "advice": one.advice,
                }
                for one in self.findings
            ],
        }

    def __str__(self) -> str:
        text = _table(self.findings) if self.findings else f"{self.name}: nothing found."
        notes = [f"{i}. {one.message} {one.advice}" for i, one in enumerate(self.findings, start=1)]
        if self.traced.unknown_trips:
            notes.append(f"While loops whose turns depend on data are taken to turn {ASSUMED_TRIPS} times.")
        lines = [f"{where} {self._share(here):.0%}" for where, here in self.lines]
        return "\n".join([text, *notes, *([f"dearest lines: {', '.join(lines)}"] if lines else []), self.verdict])

    @property
    def verdict(self) -> str:
        """One line: operations and bytes as traced, after XLA, after jaxpartials."""
        stages = {"traced": self.traced, "after XLA": self.after_xla, "after jaxpartials": self.after_jaxpartials}
        told = [
            f"{name} {'unknown' if one is None else f'{quantity(operations(one))} operations, {quantity(one.bytes)}B'}"
            for name, one in stages.items()
        ]  # fmt: skip
        return "; ".join(told)

    def _share(self, here: Cost) -> float:
        return here.time / self.traced.time if self.traced.time else 0.0


def _as_dict(here: Cost | None) -> dict[str, Any] | None:
    if here is None:
        return None
    return {
        "flops": here.flops, "transcendentals": here.transcendentals, "bytes": here.bytes, "seconds": here.time,
        "assumed_trips": here.unknown_trips,
    }  # fmt: skip


def _table(findings: Iterable[Finding]) -> str:
    table = plain_table()
    for title in ("", "finding", "where", "operations", "bytes", "share", "XLA"):
        table.add_column(title, justify="left" if title in ("finding", "where", "XLA") else "right", overflow="fold")
    for i, one in enumerate(findings, start=1):
        kind = one.kind if one.factor is None else f"{one.kind}, {times(one.factor)} x"
        where = "\n".join(map(str, one.places[:DEAREST])) or "an unknown line"
        more = len(one.places) - DEAREST
        table.add_row(
            str(i), kind, where + (f"\nand {more} more" if more > 0 else ""), quantity(one.operations),
            quantity(one.cost.bytes), f"{one.share:.1%}", one.xla,
        )  # fmt: skip
    return as_text(table, WIDTH)


class _Reporting(ByShape):
    """A function that reports on another, whatever arguments that takes."""

    def __init__(self, fn: Callable[..., Any]):
        if not callable(fn):
            raise TypeError(f"report() takes a function, and got {type(fn).__name__} {fn!r}.")
        try:
            signature = inspect.signature(fn)
        except (TypeError, ValueError):
            signature = ANY
        super().__init__(fn, signature, with_defaults=False)

    def __call__(self, *args: Any, **kwargs: Any) -> Report:
        call = self._bind(args, kwargs)
        program, findings, after_xla = self.judged(call)
        return Report(
            self._name,
            findings,
            traced_cost(program.traced),
            after_xla,
            self._simplified(args, kwargs),
            _dearest(program.traced),
            program.traced,
            tuple(call.names_of_arrays),
        )

    @property
    def name(self) -> str:
        return self._name

    def call(self, args: tuple, kwargs: dict) -> Call:
        """A call, in which the values of an enclosing transformation are shapes alone."""
        call = self._bind(args, kwargs)
        if not any(isinstance(array, _jax.Tracer) for array in call.arrays):
            return call
        types = [_jax.typeof(array) for array in call.arrays]
        return call.with_arrays([jax.ShapeDtypeStruct(t.shape, t.dtype, weak_type=t.weak_type) for t in types])

    def key(self, args: tuple, kwargs: dict) -> Any:
        """Equal for calls with equal shapes, dtypes and fixed arguments."""
        return self._bind(args, kwargs).key, _jax.trace_context()

    def judged(self, call: Call) -> tuple[Program, tuple[Finding, ...], Cost | None]:
        """The program of a call, the findings on it with XLA's verdicts, the dearest first, and its cost after XLA."""
        on_arrays = self._on_arrays(call, [])  # one function, which JAX traces once
        closed, _ = _jax.trace(on_arrays, call.arrays)
        program = Program(read(closed, shared=False))
        whole = traced_cost(program.traced)
        findings, after_xla = findings_in(program), None
        text = self._compiled(on_arrays, call)
        if text is not None:
            findings, after_xla = judge(findings, text, program, whole)
        return program, tuple(sorted(findings, key=lambda one: -one.cost.time)), after_xla

    def _compiled(self, on_arrays: Callable[..., Any], call: Call) -> str | None:
        try:
            return jax.jit(on_arrays).lower(call.arrays).compile().as_text()
        except Exception as error:  # a backend that cannot, or a program for another one
            warnings.warn(f"{self._name} could not be compiled ({type(error).__name__}: {error}).", stacklevel=3)
            return None

    def _simplified(self, args: tuple, kwargs: dict) -> Cost | None:
        stats = simplify(self._fn).stats(*args, **kwargs)
        return None if stats.problem else stats.after.cost


def _dearest(traced: Graph) -> tuple[tuple[Place, Cost], ...]:
    found: dict[Place, Cost] = {}

    def visit(graph: Graph, runs: float) -> None:
        for node in graph.traced:
            if node.name == "cond":
                visit(max(node.bodies, key=lambda body: body_cost(body).time), runs)
            elif node.bodies and (not node.opaque or node.name in CHECKPOINTS):
                for body in node.bodies:
                    visit(body, runs * turns(node))
            elif (where := place(node)) is not None:
                found[where] = found.get(where, Cost()) + runs * cost(node)

    visit(traced, 1.0)
    order = sorted(found.items(), key=lambda item: (-item[1].time, item[0]))
    return tuple(item for item in order[:DEAREST] if item[1].time)


@overload
def assert_no_redundant_work(
    fn: Callable[..., Any], *args: Any, tolerance: float = 0.02, ignore: str | Iterable[str] = (), **kwargs: Any
) -> None: ...


@overload
def assert_no_redundant_work(
    *, tolerance: float = 0.02, ignore: str | Iterable[str] = ()
) -> Callable[[Callable[..., Any]], Callable[..., Any]]: ...


def assert_no_redundant_work(
    fn: Callable[..., Any] | None = None,
    *args: Any,
    tolerance: float = 0.02,
    ignore: str | Iterable[str] = (),
    **kwargs: Any,
) -> Any:
    """Fail if `fn` does work on these arguments that it need not do, and that XLA does not remove.

    What XLA adds of its own accord (ADDED) is in the report alone: it differs between backends and releases.

    Called without a function it is a decorator. The function is then checked at its first call with each set of shapes
    and dtypes, and runs as it is.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> assert_no_redundant_work(jax.value_and_grad(lambda x: jnp.sum(jnp.sin(x))), jnp.ones(8))
        >>> @assert_no_redundant_work(tolerance=0.05)
        ... def slope(x):
        ...     return jax.jacfwd(lambda x: jnp.tanh(x @ jnp.ones((8, 40))))(x)[:, 0]
        >>> slope(jnp.ones(8))
        Traceback (most recent call last):
        AssertionError: slope does redundant work, about ...

    Args:
        fn: any function that `jax.jit` accepts.
        *args: what it takes, or `jax.ShapeDtypeStruct`s for arrays.
        tolerance: findings that are at most this part of the program, by estimated time, pass; from 0 to 1.
        ignore: kinds of findings that pass, such as "wrong mode", or files and lines: "model.py", "nets/model.py:12".
        **kwargs: what it takes by name.

    Returns:
        Nothing, where it passes; without `fn` a function that takes a function, and gives it with the check before it.

    Raises:
        AssertionError: with the findings.
        ValueError: `ignore` names no kind of finding and no file, or `tolerance` is no part of a whole.
        TypeError: there are arguments, and no function.
    """
    ignore = (ignore,) if isinstance(ignore, str) else tuple(ignore)
    if not 0 <= tolerance <= 1:
        raise ValueError(f"tolerance={tolerance!r} is no part of a whole, from 0 to 1: write 0.02 for 2 %.")
    for word in ignore:
        if word not in KINDS and "." not in word:
            raise ValueError(f"ignore={word!r} is no kind of finding and no file. The kinds: {', '.join(KINDS)}.")
    if fn is not None:
        _check(_Reporting(fn), args, kwargs, tolerance, ignore)
        return None
    if args or kwargs:
        raise TypeError("assert_no_redundant_work() takes a function before its arguments, and got None.")
    return functools.partial(_checked, tolerance=tolerance, ignore=ignore)


def _checked(fn: Callable[..., Any], tolerance: float, ignore: tuple[str, ...]) -> Callable[..., Any]:
    """The function, which is checked before its first call with each set of shapes."""
    reporting, passed = _Reporting(fn), set()

    @functools.wraps(fn)
    def run(*args, **kwargs):
        key = reporting.key(args, kwargs)
        if key not in passed:
            _check(reporting, args, kwargs, tolerance, ignore)
            passed.add(key)
        return fn(*args, **kwargs)

    return run


def _check(reporting: "_Reporting", args: tuple, kwargs: dict, tolerance: float, ignore: tuple[str, ...]) -> None:
    _, findings, _ = reporting.judged(reporting.call(args, kwargs))
    left = [one for one in redundant(findings, tolerance) if not _ignored(one, ignore)]
    if left:
        share = min(sum(one.share for one in left), 1.0)
        raise AssertionError(
            f"{reporting.name} does redundant work, about {share:.0%} of the program:\n"
            + "\n".join(f"  {one}" for one in left)
        )


def redundant(findings: Iterable[Finding], tolerance: float) -> list[Finding]:
    """Those that are more than this part of the program, and that XLA neither removes nor adds."""
    return [one for one in findings if one.share > tolerance and one.xla != REMOVED and one.kind != ADDED]


def _ignored(one: Finding, ignore: tuple[str, ...]) -> bool:
    return one.kind in ignore or (
        bool(one.places) and all(any(_names(word, where) for word in ignore) for where in one.places)
    )


def _names(word: str, where: Place) -> bool:
    """Whether a word is a file, or the end of its path, with or without this line of it."""
    path, _, line = word.rpartition(":")
    if not line.isdigit():
        path, line = word, str(where.line)
    named, parts = PurePath(path).parts, PurePath(where.file).parts
    return line == str(where.line) and parts[len(parts) - len(named) :] == named
