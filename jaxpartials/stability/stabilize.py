"""`stabilize`: the same function, computed by operations whose derivatives stay accurate.

fn, args - trace -> Graph - formulas found -> Graph with stable operations - emit -> function
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxpartials import _jax
from jaxpartials.call import ByShape, Call, Results, emitted
from jaxpartials.errors import StableError
from jaxpartials.graph.emit import evaluate
from jaxpartials.graph.graph import Graph, Node, Value
from jaxpartials.graph.trace import CONTROL, extend, read
from jaxpartials.inspection.finding import Place
from jaxpartials.planprint import as_text, plain_table
from jaxpartials.simplification import signature
from jaxpartials.stability.emission import Emission
from jaxpartials.stability.patterns import Match, matches
from jaxpartials.stability.wider import enclosed, refuse_random_numbers, unsettled, wide_type, wider

REMAT = frozenset({"checkpoint", "remat", "remat2"})


def stabilize(fn: Callable[..., Any], *, precision: Literal["float64"] | None = None) -> "Stabilized":
    """Return a function equal to `fn` whose value and derivatives are computed by the operations of `stable`.

    The program of `fn` is traced once for each signature of shapes, and formulas that lose accuracy, in the value or in
    a derivative, are replaced by the operation that computes the same:

        log(1 + exp x)      -> stable.softplus(x)         x/y                -> stable.divide(x, y)
        √(x² + y²)          -> stable.hypot(x, y)         exp x/Σ exp x      -> stable.softmax(x)
        E[x²] − E[x]²       -> stable.var(x)              (1 − cos x)/x²     -> stable.cosc(x)
        E[xy] − E[x] E[y]   -> E[(x − E[x])(y − E[y])]    log Σ exp x        -> stable.logsumexp(x)

    Every replacement is an identity of real numbers, so derivatives of any order are those of `fn` in exact arithmetic.
    Where a formula is undefined, at 0/0, it has the limit. Halves that JAX widens to sum them are read as the sums that
    they are; other conversions from a wide type to a narrow one stay.

    What `fn` calls through `jit` and `vmap` is searched as its own equations are, and so are the bodies of `scan`,
    `while_loop`, `cond` and `jax.checkpoint`. A function with a rule of its own, by `custom_jvp`, `custom_vjp` or
    `custom_vmap`, stays as it is, body and rule: what its derivative is, is the word of whoever wrote it, and need not
    be the derivative of the body. What `fn` itself differentiates has the rule's equations, and is searched. Functions
    of JAX with rules, such as `jax.nn.softplus`, are replaced where an operation stands for them.

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
        places: the lines of the user's code that the formula is written in.
    """

    operation: str
    formula: str
    condition: str
    places: tuple[Place, ...]

    @property
    def where(self) -> str:
        """`model.py:12 (energy), model.py:13 (energy)`."""
        return ", ".join(map(str, self.places))


class Replacements(tuple[Replacement, ...]):
    """What `stabilize` replaced, in the order of the program; prints as a table."""

    def __str__(self) -> str:
        if not self:
            return "nothing replaced"
        table = plain_table()
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
        closed, narrow = _jax.trace(self._on_arrays(call, []), call.arrays)
        if not jax.config.jax_enable_x64:
            refuse_random_numbers(_jax.open_jaxpr(closed).equations, self._name)
        types = list(map(wide_type, call.arrays))
        with wider():
            try:
                program = _Program(self._on_arrays, call, types, self._name)
            except _jax.REFUSALS as error:
                raise StableError(
                    f'{self!r} with precision="float64": {self._name} takes its arguments as they are, but not in '
                    f"float64. Where it makes arrays itself, such as the first carry of a scan, give them the type of "
                    f"an argument, jnp.zeros_like(x) rather than jnp.zeros(3, jnp.float32). JAX says: {error}"
                ) from error
        return _Wider(program, narrow)


class _Program:
    """A stabilized program made runnable."""

    def __init__(self, on_arrays: Callable, call: Call, arrays: Sequence[Any], name: str):
        results: list[Results] = []
        closed, _ = _jax.trace(on_arrays(call, results), arrays)
        self.results = results[0]
        graph, found = rewritten(read(closed), Emission())
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
        self.replacements = program.replacements
        captured = zip(program.captured, unsettled(program.captured), strict=True)
        self.captured = [array for array, kept in captured if not kept]
        self._results, self._narrow = program.results, narrow
        self._compute = enclosed(program.compute, program.captured, narrow)

    def run(self, captured: Sequence[Any], arrays: Sequence[Any]) -> Any:
        results = self._compute(*captured, *map(jnp.asarray, arrays))
        weak = map(_jax.is_weak, self._narrow)
        return self._results.rebuild(list(map(_jax.with_weakness, results, weak)))


# ---- the program


def rewritten(graph: Graph, emission: Emission) -> tuple[Graph, list[Replacement]]:
    """A program with every formula replaced that a row knows, and what was replaced, in the order of the program."""
    by: dict[Value, Value] = {}
    found: list[tuple[int, list[Replacement]]] = []
    for match in matches(graph):
        by[match.value] = emission.made(graph, match)
        found.append((match.value.node.number, [_replacement(match)]))
    for node in graph.nodes:
        outputs, inside = _with_bodies(graph, node, emission)
        if inside:
            by.update(zip(node.outputs, outputs, strict=True))
            found.append((node.number, inside))
    done = graph.replace(graph.outputs, by)
    ordered = [one for _, some in sorted(found, key=lambda pair: pair[0]) for one in some]
    return graph.with_outputs([done[value] for value in graph.outputs]), ordered


def _replacement(match: Match) -> Replacement:
    return Replacement(match.operation, match.row.formula, match.row.condition, match.places)


def _with_bodies(graph: Graph, node: Node, emission: Emission) -> tuple[Sequence[Value], list[Replacement]]:
    """The outputs of a loop, a branching or a checkpoint whose bodies have been rewritten."""
    if node.effects or not (node.name in CONTROL or node.name in REMAT):
        return (), []
    pairs = [rewritten(body, emission) for body in node.bodies]
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
