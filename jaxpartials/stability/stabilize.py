"""`stabilize`: the same function, computed by operations whose derivatives stay accurate.

fn, args - trace -> Graph - formulas found -> Graph with stable operations - emit -> function
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from rich.table import Table

from jaxpartials import _jax
from jaxpartials.call import ByShape, Call, Results, emitted
from jaxpartials.graph.emit import evaluate
from jaxpartials.graph.graph import Graph, Node, Value
from jaxpartials.graph.trace import CONTROL, extend, read
from jaxpartials.planprint import as_text
from jaxpartials.simplification import signature
from jaxpartials.stability.patterns import Match, matches
from jaxpartials.stability.wider import narrowed, widened, wider

REMAT = frozenset({"checkpoint", "remat", "remat2"})
Place = tuple[str, int, str]


def stabilize(fn: Callable[..., Any], *, precision: Literal["float64"] | None = None) -> "Stabilized":
    """Return a function equal to `fn` whose value and derivatives are computed by the operations of `stable`.

    The program of `fn` is traced once for each signature of shapes, and formulas that lose accuracy, in the value or in
    a derivative, are replaced by the operation that computes the same:

        log(1 + exp x)      -> stable.softplus(x)         x/y                -> stable.divide(x, y)
        √(x² + y²)          -> stable.hypot(x, y)         exp x/Σ exp x      -> stable.softmax(x)
        E[x²] − E[x]²       -> stable.var(x)              (1 − cos x)/x²     -> stable.cosc(x)

    Every replacement is an identity of real numbers, so derivatives of any order are those of `fn` in exact arithmetic.
    Where a formula is undefined, at 0/0, it has the limit. Bodies of loops, branches and `jax.checkpoint` are searched
    as well; custom rules are left alone, but those of JAX that an operation stands for.

    Examples:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> def energy(x):
        ...     return jnp.log(1 + jnp.exp(x))
        >>> print(jax.grad(energy)(100.0), jax.grad(stabilize(energy))(100.0))
        nan 1.0
        >>> print(stabilize(energy).replacements(100.0)[0].operation)
        stable.softplus

    Args:
        fn: any function that `jax.jit` accepts. Arguments that are no arrays are fixed at trace time.
        precision: "float64" evaluates the whole function, its derivatives too, in float64 and rounds the results to
            the types that `fn` gives, for what no operation stands for. It does not need `jax_enable_x64`; it takes
            the time of float64, and arrays that `fn` itself makes as float32 stay float32.

    Returns:
        A function with the signature of `fn`; `.replacements(*args)` tells what was replaced. It composes with every
        JAX transformation; to be of use, differentiate the result, not the argument.

    Raises:
        TypeError: `fn` is not callable.
        StableError: float64 is asked for where it is not to be had.

    Source:
        Panchekha, Sanchez-Stern, Wilcox & Tatlock, Automatically improving accuracy for floating point expressions,
        PLDI 2015 (rewriting for the accuracy of values).
    """
    return Stabilized(fn, precision)


@dataclass(frozen=True)
class Replacement:
    """A formula of a function, and what computes it.

    Attributes:
        operation: "stable.softplus", or the formula that stands in the place of the old one.
        formula: what was replaced: "log(1 + exp x)".
        condition: where the two are equal.
        places: file, line and function of the user's code that the formula is written in.
    """

    operation: str
    formula: str
    condition: str
    places: tuple[Place, ...]

    @property
    def where(self) -> str:
        """`model.py:12,13 (energy)`."""
        lines: dict[tuple[str, str], list[str]] = {}
        for file, line, function in self.places:
            lines.setdefault((file, function), []).append(str(line))
        found = [f"{file.rsplit('/', 1)[-1]}:{','.join(n)} ({function})" for (file, function), n in lines.items()]
        return ", ".join(found)


class Replacements(tuple[Replacement, ...]):
    """What `stabilize` replaced, in the order of the program; prints as a table."""

    def __str__(self) -> str:
        if not self:
            return "nothing replaced"
        table = Table(box=None, pad_edge=False, header_style="")
        for title in ("formula", "replaced by", "in"):
            table.add_column(title)
        for one in self:
            table.add_row(one.formula, one.operation, one.where)
        return as_text(table)


class Stabilized(ByShape):
    """A function made stable by `stabilize`."""

    def __init__(self, fn: Callable[..., Any], precision: Literal["float64"] | None = None):
        if not callable(fn):
            raise TypeError(f"stabilize() takes a function, and got {type(fn).__name__} {fn!r}.")
        if precision not in (None, "float64"):
            raise ValueError(f'stabilize() takes precision="float64" or None, and got {precision!r}.')
        super().__init__(fn, signature(fn), with_defaults=False)
        self._precision = precision

    def replacements(self, *args: Any, **kwargs: Any) -> Replacements:
        """What is replaced for arguments like these.

        Args:
            *args: arrays or `jax.ShapeDtypeStruct`s, as the function takes them.
            **kwargs: likewise.

        Returns:
            A tuple of `Replacement`s, which prints as a table.
        """
        return self._program(self._bind(args, kwargs)).replacements

    def __repr__(self) -> str:
        return f"stabilize({self._name})"

    def _alike(self, call: Call) -> Any:
        program = self._program(call)
        return program.run(program.captured, call.arrays)

    def _build(self, call: Call) -> "_Program | _Wider":
        if self._precision is None:
            return _Program(self._on_arrays, call, call.arrays, self._name)
        narrow = jax.eval_shape(self._on_arrays(call, []), call.arrays)
        with wider():
            program = _Program(
                self._on_arrays, call, [widened(array, as_type=True) for array in call.arrays], self._name
            )
        return _Wider(program, narrow)


class _Program:
    """A stabilized program made runnable."""

    def __init__(self, on_arrays: Callable, call: Call, arrays: Sequence[Any], name: str):
        results: list[Results] = []
        closed, _ = _jax.trace(on_arrays(call, results), arrays)
        self.results = results[0]
        graph, found = rewritten(read(closed))
        self.replacements = Replacements(found)
        self.captured = [array for _, array in graph.constants.values()]
        compute = emitted(graph)
        weak = [_jax.is_weak(output.aval) for output in _jax.open_jaxpr(closed).outputs]

        def run(captured, arrays):
            # Which types are weak was settled by the trace: inside none is, and the results have it from there.
            captured, arrays = ([_jax.with_weakness(a, False) for a in part] for part in (captured, arrays))
            return list(map(_jax.with_weakness, compute(captured, arrays), weak))

        run.__name__ = run.__qualname__ = f"stabilize_{name}"
        self.compute = jax.jit(run)

    def run(self, captured: Sequence[Any], arrays: Sequence[Any]) -> Any:
        return self.results.rebuild(self.compute(captured, arrays))


class _Wider:
    """The same in float64, for arguments and results in the types that the user has."""

    def __init__(self, program: _Program, narrow: Sequence[Any]):
        self.replacements, self.captured = program.replacements, program.captured
        self._program, self._narrow = program, narrow

    def run(self, captured: Sequence[Any], arrays: Sequence[Any]) -> Any:
        with wider():
            results = self._program.compute(captured, list(map(widened, arrays)))
            return self._program.results.rebuild(list(map(narrowed, results, self._narrow)))


# ---- the program


def rewritten(graph: Graph) -> tuple[Graph, list[Replacement]]:
    """A program with every formula replaced that a row knows, and what was replaced, in the order of the program."""
    by: dict[Value, Value] = {}
    found: list[tuple[int, list[Replacement]]] = []
    for match in matches(graph):
        by[match.value] = _made(graph, match)
        found.append((match.value.node.number, [_replacement(match)]))
    for node in graph.nodes:
        outputs, inside = _with_bodies(graph, node)
        if inside:
            by.update(zip(node.outputs, outputs, strict=True))
            found.append((node.number, inside))
    done = graph.replace(graph.outputs, by)
    ordered = [one for _, some in sorted(found, key=lambda pair: pair[0]) for one in some]
    return graph.with_outputs([done[value] for value in graph.outputs]), ordered


def _made(graph: Graph, match: Match) -> Value:
    """What replaces a value, of its shape and type."""
    value = match.value

    def run(*arrays):
        result = jnp.asarray(match.rewrite.emit(*arrays))
        return [jnp.broadcast_to(result, value.shape).astype(value.dtype)]

    (made,) = extend(graph, run, match.operands)
    return made


def _replacement(match: Match) -> Replacement:
    return Replacement(match.operation, match.row.formula, match.row.condition, match.lines)


def _with_bodies(graph: Graph, node: Node) -> tuple[Sequence[Value], list[Replacement]]:
    """The outputs of a loop, a branching or a checkpoint whose bodies have been rewritten."""
    if node.effects or not (node.name in CONTROL or node.name in REMAT):
        return (), []
    pairs = [rewritten(body) for body in node.bodies]
    bodies, inside = [body for body, _ in pairs], [one for _, some in pairs for one in some]
    if not inside:
        return (), []
    if node.name in CONTROL:
        outputs = graph.add(
            node.primitive, node.operands, node.params, [v.aval for v in node.outputs], name=node.name, bodies=bodies,
            source=node.source, context=node.context,
        )  # fmt: skip
        return outputs, inside
    (body,) = bodies

    def run(*arrays):
        return evaluate(body.outputs, zip(body.inputs, arrays, strict=True))

    again = jax.checkpoint(run, policy=node.params["policy"], prevent_cse=node.params["prevent_cse"])
    return extend(graph, again, node.operands), inside
