"""`simplify`: any JAX function, the same values, less work.

fn, args - trace -> Graph - rewrite -> Graph - emit -> function
"""

import inspect
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax

from jaxpartials import _jax
from jaxpartials.call import ByShape, Call, Results, emitted
from jaxpartials.graph.cost import Cost, cost_of
from jaxpartials.graph.graph import Graph
from jaxpartials.graph.trace import CONTROL, donated, read
from jaxpartials.planprint import as_text, operations, plain_table, quantity
from jaxpartials.rederive import rederived
from jaxpartials.rewrite.pipeline import PASSES, RULES

ANY = inspect.Signature(
    [
        inspect.Parameter("args", inspect.Parameter.VAR_POSITIONAL),
        inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD),
    ]
)


def simplify(fn: Callable[..., Any]) -> "Simplified":
    """Return a function that computes the same values as `fn` with less work.

    The program of `fn` is traced once for each signature of shapes and rewritten:

        equal equations are one, dead ones none               f(x) + f(x) -> 2 uses of one f(x)
        sums move towards the inputs through what is linear   sum_d (a b_d + c_d @ W) -> a sum_d b_d + (sum_d c_d) @ W
        loops over the same run once                          scan f; scan (f, f') -> scan (f, f')
        derivatives are taken in the better mode              grad (sum (grad (grad u))^2) -> grad (sum (u/x^2)^2)

    Every rewrite keeps the values, to rounding, and is taken only where the program gets cheaper. Inside a gradient it
    makes the derivatives of what is differentiated cheap, around one it removes what value and gradient share. What
    cannot be handled stays as it is: custom rules, `jax.checkpoint`, shardings, callbacks, random keys and effects, in
    their order.

    Examples:
        >>> import jax.numpy as jnp
        >>> def energy(x):
        ...     return jnp.sum(jnp.sin(x) ** 2), jax.grad(lambda x: jnp.sum(jnp.sin(x) ** 2))(x)
        >>> value, slope = simplify(energy)(jnp.array([0.0, 1.0]))
        >>> print(f"{value:.4f} {slope[1]:.4f}")
        0.7081 0.9093

    Args:
        fn: any function that `jax.jit` accepts, jitted or not. Arguments that are no arrays (functions, strings,
            flags, Python integers) are fixed at trace time, and so are results that are no arrays.

    Returns:
        A jitted function with the signature of `fn`; `.stats(*args)` tells what was done. It composes with every
        JAX transformation. What a jitted `fn` was allowed to overwrite (`donate_argnums`) it may overwrite too.

    Raises:
        TypeError: `fn` is not callable.

    Source:
        Aho, Lam, Sethi & Ullman, Compilers, 2nd ed., Pearson 2006, chapter 9; Alpern, Wegman & Zadeck, Detecting
        equality of variables in programs, POPL 1988 (loops); Li et al., A computational framework for neural
        network-based variational Monte Carlo with forward Laplacian, Nat. Mach. Intell. 6, 2024 (sums).
    """
    return Simplified(fn)


@dataclass(frozen=True)
class Step:
    """The program after one stage: its equations and loops, those inside loops and branches too, and its cost."""

    name: str
    equations: int
    loops: int
    cost: Cost


@dataclass(frozen=True)
class Stats:
    """What `simplify` did, stage by stage; prints as a table.

    Attributes:
        steps: the program as traced, as read into the graph, and after each pass.
        seconds: how long reading and rewriting took, tracing not counted.
        problem: why the function was left as it is, where it was.
    """

    steps: tuple[Step, ...]
    seconds: float
    problem: str | None = None

    @property
    def before(self) -> Step:
        return self.steps[0]

    @property
    def after(self) -> Step:
        return self.steps[-1]

    def __str__(self) -> str:
        table = plain_table()
        for title in ("program", "equations", "loops", "operations", "bytes"):
            table.add_column(title, justify="left" if title == "program" else "right")
        for step in self.steps:
            table.add_row(
                step.name, str(step.equations), str(step.loops),
                quantity(operations(step.cost)), quantity(step.cost.bytes),
            )  # fmt: skip
        return as_text(table) + (f"\nleft as it is: {self.problem}" if self.problem else "")


class Simplified(ByShape):
    """A function made cheaper by `simplify`."""

    def __init__(self, fn: Callable[..., Any]):
        if not callable(fn):
            raise TypeError(f"simplify() takes a function, and got {type(fn).__name__} {fn!r}.")
        super().__init__(fn, signature(fn), with_defaults=False)

    def stats(self, *args: Any, **kwargs: Any) -> Stats:
        """What was done to the function for arguments like these.

        Examples:
            >>> stats = simplify(lambda x: (x + 0.0) * 2.0 + 2.0 * x).stats(1.0)
            >>> stats.before.equations, stats.after.equations
            (4, 2)

        Args:
            *args: arrays or `jax.ShapeDtypeStruct`s, as the function takes them.
            **kwargs: likewise.

        Returns:
            A `Stats`, which prints as a table and has the same facts as attributes.
        """
        return self._program(self._bind(args, kwargs)).stats

    def __repr__(self) -> str:
        return f"simplify({self._name})"

    def _build(self, call: Call) -> "_Program":
        results: list[Results] = []
        closed, _ = _jax.trace(self._on_arrays(call, results), call.arrays)
        started = time.perf_counter()
        traced = read(closed, shared=False)
        before = _step("as traced", traced)

        def made(graph: Graph, steps: list[Step], problem: str | None = None) -> _Program:
            stats = Stats(tuple(steps), time.perf_counter() - started, problem)
            program = _Program(graph.with_outputs(graph.outputs), closed, results[0], stats, self._name)
            program.check(call.arrays)
            return program

        try:
            graph, steps = _rewritten(read(closed, RULES), "equal equations once, algebra")
            again, found = rederived(traced)
            if found:
                other, more = _rewritten(again, "derivatives taken again")
                if more[-1].cost.time < steps[-1].cost.time:
                    graph, steps = other, [steps[0], *more]
            return made(graph, [before, *steps])
        except Exception as error:  # a fault of ours must not stand between the user and the values
            problem = f"{type(error).__name__}: {error}"
            warnings.warn(f"{self!r} runs {self._name} as it is: {problem}. Please report this.", stacklevel=4)
            return made(read(closed, shared=False), [before], problem)


class _Program:
    """A simplified program made runnable."""

    def __init__(self, program: Graph, traced: Any, results: Results, stats: Stats, name: str):
        self.stats = stats
        self.captured = [array for _, array in program.constants.values()]
        self._given, self._results = donated(traced), results
        compute = emitted(program)
        weak = [_jax.is_weak(output.aval) for output in _jax.open_jaxpr(traced).outputs]

        def run(captured, kept, overwritten):
            kept, overwritten = iter(kept), iter(overwritten)
            arrays = [next(overwritten if i in self._given else kept) for i in range(len(program.inputs))]
            # Which types are weak was settled by the trace: inside none is, and the results have it from there.
            captured, arrays = ([_jax.with_weakness(a, False) for a in part] for part in (captured, arrays))
            return list(map(_jax.with_weakness, compute(captured, arrays), weak))

        run.__name__ = run.__qualname__ = f"simplify_{name}"
        self._jitted = jax.jit(run, donate_argnums=2 if self._given else ())

    def run(self, captured: Sequence[Any], arrays: Sequence[Any]) -> Any:
        return self._results.rebuild(self._jitted(captured, *self._sorted(arrays)))

    def check(self, arrays: Sequence[Any]) -> None:
        """Trace it, which is where it would fail; `run` finds the trace again."""
        self._jitted.eval_shape(self.captured, *self._sorted(arrays))

    def _sorted(self, arrays: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        """The arrays that are kept, and those that may be overwritten."""
        kept = [array for i, array in enumerate(arrays) if i not in self._given]
        return kept, [arrays[i] for i in sorted(self._given)]


def _rewritten(graph: Graph, name: str) -> tuple[Graph, list[Step]]:
    """A program after every pass, and what each has made of it."""
    steps = [_step(name, graph)]
    for title, run in PASSES.items():
        graph.outputs = run(graph, graph.outputs, graph.effects)
        steps.append(_step(title, graph))
    return graph, steps


def _step(name: str, graph: Graph) -> Step:
    equations, loops = _count(graph)
    return Step(name, equations, loops, cost_of(graph.outputs, graph.effects))


def _count(graph: Graph) -> tuple[int, int]:
    equations = loops = 0
    for node in graph.nodes:
        equations += 1
        loops += node.name in CONTROL
        for body in node.bodies if node.name in CONTROL else ():
            inner = _count(body)
            equations, loops = equations + inner[0], loops + inner[1]
    return equations, loops


def signature(fn: Callable) -> inspect.Signature:
    try:
        return inspect.signature(fn)
    except (TypeError, ValueError):
        return ANY
