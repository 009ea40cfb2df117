"""`accumulate`: a function of a batch, chunk by chunk, with the memory of one chunk.

fn, args - trace for the batch and for a chunk - structure: what each result of a chunk is of the whole - a loop
"""

import functools
import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxpartials import _jax
from jaxpartials.call import ByShape, Call, Results
from jaxpartials.chunked import chunk_of, in_chunks, proved, traced
from jaxpartials.errors import BatchError
from jaxpartials.structure.chunks import OwnRule, Unchunkable


def accumulate(fn: Callable[..., Any], batch_args: str | int | Iterable[str | int], chunk_size: int) -> "Accumulated":
    """Return a function that computes `fn` chunk by chunk over the batch, exactly, with the memory of one chunk.

    For a mean over B lanes and its gradient, in chunks c of n_c lanes,

        1/B sum_b l_b = sum_c (n_c/B) mean_c        d/dp 1/B sum_b l_b = sum_c (n_c/B) d mean_c / dp

    The function is traced for the whole batch and for a chunk, and the programs are read side by side. Each result is
    proved to be a mean over the lanes, a sum over them, a value for each lane, or the same in every chunk; these are
    added up, stacked, or taken as they are. A function that does otherwise with fewer lanes is an error.

    Examples:
        >>> def loss(w, x, y):
        ...     return jnp.mean((w * x - y) ** 2)
        >>> x, y = jnp.arange(10.0), jnp.ones(10)
        >>> value, slope = accumulate(jax.value_and_grad(loss), ("x", "y"), chunk_size=4)(0.5, x, y)
        >>> print(f"{value:.4f} {slope:.4f}")
        3.6250 19.5000

    Args:
        fn: a function of arrays with the batch along their first axis, and of anything else; mostly
            `jax.value_and_grad(loss)`, with or without auxiliary results.
        batch_args: the arguments that have the batch: a name, a position, or several. All arrays in them have it.
        chunk_size: at most so many lanes are alive at once. The last chunk may be smaller.

    Returns:
        A jitted function with the signature of `fn` and its results, to rounding.

    Raises:
        BatchError: `batch_args` are not arguments of `fn` (here); at the call, where their arrays differ in length, or
            where a result is not made of its chunks. It names the operation and its line.

    Source:
        Bottou, Curtis & Nocedal, Optimization methods for large-scale machine learning, SIAM Review 60, 2018, section
        3 (sums over samples); the proof is by abstract interpretation, Cousot & Cousot, POPL 1977.
    """
    return Accumulated(fn, batch_args, chunk_size)


class Accumulated(ByShape):
    """A function computed chunk by chunk; made by `accumulate`."""

    def __init__(self, fn: Callable[..., Any], batch_args: Any, chunk_size: int):
        if not isinstance(chunk_size, int) or isinstance(chunk_size, bool) or chunk_size < 1:
            raise BatchError(f"chunk_size={chunk_size!r}: a positive number of lanes.")
        super().__init__(fn, inspect.signature(fn), with_defaults=False)
        self._size = chunk_size
        self._batched = frozenset(_names(self._name, self._signature, batch_args))

    def __repr__(self) -> str:
        return f"accumulate({self._name}, {sorted(self._batched)}, {self._size})"

    def _build(self, call: Call) -> "_Program":
        results: list[Results] = []
        run_fn = self._on_arrays(call, results)
        axes = [0 if name in self._batched else None for name in call.arguments_of_arrays]
        lanes = _lanes(self._name, call, axes)
        whole = traced(run_fn, call.arrays)
        captured = [array for _, array in _jax.open_jaxpr(whole).constants]
        if lanes <= self._size:
            return _Program(captured, run_fn, results[0], self._name)
        size = chunk_of(lanes, self._size)
        prove = functools.partial(proved, whole, run_fn, call.arrays, axes, size)
        try:
            try:
                found, ruled = prove(derivatives=True), None
            except OwnRule as error:
                found, ruled = prove(derivatives=False), error
        except Unchunkable as error:
            raise BatchError(
                f"{self._name} cannot be computed in chunks of {size} of its {lanes} lanes: {error}.\n"
                f"  Called with {call.describe()}; the batch is in {', '.join(sorted(self._batched))}.\n"
                "  What is accumulated must be a mean or a sum over the lanes, or have one value for each of\n"
                "  them: compute what follows from it (a root, a ratio of means) afterwards."
            ) from error
        run = functools.partial(in_chunks, run_fn, axes=axes, size=size, found=found)
        return _Program(captured, run if ruled is None else self._values_only(run, ruled), results[0], self._name)

    def _values_only(self, run: Callable, ruled: OwnRule) -> Callable:
        """`run`, with no derivatives: what they are of the whole batch, a rule of the user's decides."""
        values = jax.custom_jvp(run)

        @values.defjvp
        def _(primals, tangents):
            raise BatchError(
                f"The derivative of accumulate({self._name}) is not known to be made of its chunks: {ruled}.\n"
                f"  Take it inside: accumulate(jax.value_and_grad({self._name}), ...)."
            )

        return values


class _Program:
    def __init__(self, captured: list[Any], compute: Callable, results: Results, name: str):
        self.captured = captured

        def run(arrays):
            return compute(arrays)

        run.__name__ = run.__qualname__ = f"accumulate_{name}"
        jitted = jax.jit(run)
        self.run = lambda captured, arrays: results.rebuild(jitted(arrays))


def _names(name: str, signature: inspect.Signature, wanted: Any) -> list[str]:
    """The arguments meant by names and positions."""
    known = list(signature.parameters)
    found = []
    for one in [wanted] if isinstance(wanted, (str, int)) else list(wanted):
        if isinstance(one, str) and one in known:
            found.append(one)
        elif isinstance(one, int) and not isinstance(one, bool) and -len(known) <= one < len(known):
            found.append(known[one])
        else:
            raise BatchError(
                f"batch_args={wanted!r}: {name} has no argument {one!r}.\n  It is called {name}{signature}:"
                f" write names or positions of {', '.join(known)}."
            )
    return found


def _lanes(name: str, call: Call, axes: Sequence[int | None]) -> int:
    """The length of the batch, the same in all of its arrays."""
    lengths = {
        label: jnp.shape(array)[:1]
        for label, array, axis in zip(call.names_of_arrays, call.arrays, axes, strict=True)
        if axis is not None
    }
    if not lengths:
        raise BatchError(
            f"{name} got no array in the arguments that batch_args names.\n  Called with {call.describe()}."
        )
    if len(set(lengths.values())) > 1 or () in lengths.values():
        listed = ", ".join(f"{label}: {n[0] if n else 'no axis'}" for label, n in lengths.items())
        raise BatchError(
            f"The arrays of the batch must all have it along their first axis; {name} got {listed}.\n"
            "  Leave an argument without the batch out of batch_args."
        )
    ((lanes,),) = set(lengths.values())
    return lanes
