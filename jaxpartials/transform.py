"""`partials`: the whole pipeline on one screen.

wanted - notation -> specs
fn, args - trace -> Graph - structure, planner, derive, rewrite -> Graph - emit -> function
"""

import functools
import inspect
import itertools
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax

from jaxpartials import _jax
from jaxpartials.call import ByShape, Call, emitted
from jaxpartials.chunked import batch_size, chunked_blocks, in_chunks, resized
from jaxpartials.errors import DerivativeError, NotationError
from jaxpartials.graph.emit import emit
from jaxpartials.graph.trace import trace
from jaxpartials.notation import Block, check_signature, parse_wanted, resolve
from jaxpartials.plain import plain
from jaxpartials.planner import Plan, plain_plan, plan, unplanned
from jaxpartials.rewrite.pipeline import RULES
from jaxpartials.structure.chunks import Unchunkable
from jaxpartials.tuning import measure


def partials(
    fn: Callable[..., Any],
    wanted: Any,
    *,
    outputs: Sequence[str] | None = None,
    chunk_size: int | None = None,
    tune: str = "estimate",
) -> "Partials":
    """Return one JAX function that computes every partial derivative named in `wanted`.

    A spec `"u[b]/X[b,0] X[b,1]^2 -> b"` asks for the array

        result[b] = d^3 u[b] / dX[b,0] dX[b,1]^2

    Axes named in several arrays are one axis, integers are components, powers are repeated derivatives, and names
    that `->` does not keep are summed. `"z/a"` alone is the dense Jacobian block, axes of z first, as
    `jax.jacfwd` gives it; `"u"` is the value.

    Examples:
        >>> heat = partials(lambda t, x: t * x**2, {"u_t": "u/t", "u_xx": "u/x^2"})
        >>> {name: float(d) for name, d in heat(2.0, 3.0).items()}
        {'u_t': 9.0, 'u_xx': 4.0}

        >>> import jax.numpy as jnp
        >>> laplacian = partials(lambda x: jnp.sum(x**3), "u/x[i]^2")
        >>> float(laplacian(jnp.array([1.0, 2.0])))
        18.0

    Args:
        fn: a pure JAX function of arrays, or pytrees of arrays, of any shapes. Arguments that are no arrays
            (functions, strings, flags, Python integers) are passed through and fixed at trace time.
        wanted: a spec, or any pytree of specs. The result has the same structure.
        outputs: names for the outputs of a function that returns a tuple.
        chunk_size: at most this many lanes are alive at once, where the batch can be taken apart, or else this many
            directions; the rest waits its turn in a loop.
        tune: "estimate" chooses by the cost model; "measure" compiles and times the best few at the first call.

    Returns:
        A function with the signature of `fn`. It is planned once for each signature of shapes and dtypes, and
        jitted; `.plan(*args)` tells how it computes and why. It composes with every JAX transformation.

    Raises:
        NotationError: a spec cannot be read, or does not fit the signature (here) or the arguments (at the call).
        DerivativeError: at the call, where a derivative does not exist or no mode can compute it.

    Source:
        Griewank & Walther, Evaluating Derivatives, 2nd ed., SIAM 2008, chapters 3 (modes), 6 (sharing) and 13
        (higher orders).
    """
    return Partials(fn, wanted, outputs, chunk_size, tune)


class Partials(ByShape):
    """A function that computes named partial derivatives; made by `partials`."""

    def __init__(self, fn, wanted, outputs, chunk_size, tune):
        self.wanted, self._chunk_size, self._tune = wanted, chunk_size, tune
        self._outputs = _checked_outputs(outputs)
        _check_options(fn, chunk_size, tune)
        self._specs, self._structure = parse_wanted(wanted)
        super().__init__(fn, _signature(fn), with_defaults=True)
        for spec in self._specs:
            check_signature(spec, self._signature, self._outputs)

    def plan(self, *args: Any, **kwargs: Any) -> Plan:
        """How the partials are computed for arguments like these, and why.

        Examples:
            >>> g = partials(lambda x, y: (x * y).sum(), "f/x")
            >>> spec = jax.ShapeDtypeStruct((3,), "float32")
            >>> [(p.spec, p.mode, p.passes) for p in g.plan(spec, spec).partials]
            [('f/x', 'reverse x', 1)]

        Args:
            *args: arrays or `jax.ShapeDtypeStruct`s, as the function takes them.
            **kwargs: likewise.

        Returns:
            A `Plan`, which prints as a table and has the same facts as attributes.
        """
        return self._program(self._bind(args, kwargs)).plan

    def __repr__(self) -> str:
        return f"partials({self._name}, {self.wanted!r})"

    def _alike(self, call: Call) -> Any:
        graph, shapes = trace(self._on_arrays(call), call.arrays)
        structures, placed = self._blocks(call, shapes)
        values = unplanned(graph, list(zip(self._specs, placed, strict=True)))
        if values is None:
            program = self._program(call)
            return program.run(program.captured, call.arrays)
        blocks = emit(graph.with_outputs(values), call.arrays)
        return _unflattened(blocks, structures, self._structure)

    def _build(self, call: Call) -> "_Program":
        if self._chunk_size is None:
            return self._whole(call)
        try:
            return self._in_chunks(call, self._chunk_size)
        except Unchunkable as reason:
            return self._whole(call, self._chunk_size, f"its lanes are computed all at once: {reason}")

    def _whole(self, call: Call, directions: int | None = None, note: str | None = None) -> "_Program":
        """The program for all lanes together, and at most so many directions."""
        run_fn = self._on_arrays(call)
        graph, shapes = trace(run_fn, call.arrays, rules=RULES)
        structures, placed = self._blocks(call, shapes)
        timer = functools.partial(measure, arrays=call.arrays) if self._tune == "measure" else None
        requests = list(zip(self._specs, placed, strict=True))
        try:
            made = plan(graph, requests, call.names, chunk_size=directions, measure=timer)
        except DerivativeError as error:
            raise DerivativeError(f"{error}\n  Called with {call.describe()}.") from error.__cause__
        except Exception as error:  # a fault of ours must not stand between the user and the derivative
            wanted = list(itertools.chain(*placed))
            try:
                run = plain(lambda *arrays: jax.tree.leaves(run_fn(arrays)), call.arrays, wanted)
            except _jax.REFUSALS:
                raise DerivativeError(f"{error}\n  Called with {call.describe()}.") from error
            warnings.warn(
                f"{self!r} is computed by plain jacfwd and jacrev, densely: planning failed with"
                f" {type(error).__name__}: {error}. Please report this.",
                stacklevel=5,
            )
            made = plain_plan(graph, requests, f"plain JAX, because planning failed with {error!r}")
            captured = [array for _, array in graph.constants.values()]  # for what they tell of enclosing traces
            return _Program(made, captured, lambda _, arrays: run(arrays), structures, self._structure, self._name)
        if note is not None:
            made = replace(made, partials=tuple(row.noted(note) if row.lanes else row for row in made.partials))
        captured = [array for _, array in made.graph.constants.values()]
        return _Program(made, captured, emitted(made.graph), structures, self._structure, self._name)

    def _in_chunks(self, call: Call, size: int) -> "_Program":
        """One program for a chunk of the lanes, and one for what is left over, run in a loop."""
        run_fn = self._on_arrays(call)
        structures, placed = self._blocks(call, jax.eval_shape(run_fn, call.arrays))
        axes, size, found = chunked_blocks(run_fn, call.arrays, list(itertools.chain(*placed)), size)
        lanes = batch_size(call.arrays, axes)
        sizes = [n for n in (size, lanes % size) if n]
        programs = [self._whole(call.with_arrays(resized(call.arrays, axes, n))) for n in sizes]
        counts = [len(program.captured) for program in programs]

        def compute(captured, arrays):
            ends = list(itertools.accumulate(counts, initial=0))

            def run(chunk):
                i = sizes.index(batch_size(chunk, axes))
                return programs[i].compute(captured[ends[i] : ends[i + 1]], chunk)

            return in_chunks(run, arrays, axes=axes, size=size, found=found)

        made = programs[0].plan.in_chunks(lanes, size)
        captured = list(itertools.chain(*(program.captured for program in programs)))
        return _Program(made, captured, compute, structures, self._structure, self._name)

    def _blocks(self, call: Call, shapes: Any) -> tuple[list[Any], list[list[Block]]]:
        """For each spec the structure of its result, and its blocks."""
        # Positions among all leaves, static ones too, are what `resolve` speaks of.
        trees = [resolve(spec, call.arguments, shapes, self._outputs) for spec in self._specs]
        is_block = lambda x: isinstance(x, Block)
        placed = [[call.place(block) for block in jax.tree.leaves(tree, is_leaf=is_block)] for tree in trees]
        return [jax.tree.structure(tree, is_leaf=is_block) for tree in trees], placed


class _Program:
    """A plan made runnable."""

    def __init__(
        self, made: Plan, captured: list[Any], compute: Callable, structures: Sequence[Any], outer: Any, name: str
    ):
        self.plan = made
        self.compute = compute  # from `captured` and the arrays to the blocks of all specs, one after the other
        self.captured = captured  # what the function closes over

        def run(captured, arrays):
            return _unflattened(compute(captured, arrays), structures, outer)

        run.__name__ = run.__qualname__ = f"partials_{name}"
        self.run = jax.jit(run)


def _unflattened(blocks: Sequence[Any], structures: Sequence[Any], outer: Any) -> Any:
    """The blocks of all specs, one after the other, as what was wanted."""
    flat = iter(blocks)
    return jax.tree.unflatten(outer, [jax.tree.unflatten(tree, [next(flat) for _ in range(tree.num_leaves)])
                                      for tree in structures])  # fmt: skip


def _signature(fn: Callable) -> inspect.Signature:
    try:
        return inspect.signature(fn)
    except (TypeError, ValueError) as error:
        raise NotationError(
            f"partials() needs a function whose arguments have names; {fn!r} has no signature.\n"
            "  Wrap it: partials(lambda x: fn(x), ...)."
        ) from error


def _checked_outputs(outputs: Any) -> tuple[str, ...] | None:
    if isinstance(outputs, str):
        raise NotationError(f'outputs={outputs!r} is one string.\n  Write a tuple of names: outputs=("{outputs}",).')
    return None if outputs is None else tuple(outputs)


def _check_options(fn: Any, chunk_size: Any, tune: Any) -> None:
    if not callable(fn):
        raise NotationError(f"partials() takes a function first, and got {type(fn).__name__} {fn!r}.")
    if chunk_size is not None and (not isinstance(chunk_size, int) or isinstance(chunk_size, bool) or chunk_size < 1):
        raise NotationError(
            f"chunk_size={chunk_size!r}: a positive number of lanes or directions, or None for all at once."
        )
    if tune not in ("estimate", "measure"):
        raise NotationError(f'tune={tune!r}: write tune="estimate" or tune="measure".')
