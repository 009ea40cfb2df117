"""A program run for one chunk of its batch after the other, and when partials may be computed so."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxpartials import _jax
from jaxpartials.graph.trace import read
from jaxpartials.notation import Block
from jaxpartials.structure.chunks import SAME, Part, Unchunkable, parts
from jaxpartials.structure.lanes import Lane


def chunked_blocks(
    run: Callable[[Sequence[Any]], Any], arrays: Sequence[Any], blocks: Sequence[Block], size: int
) -> tuple[list[int | None], int, list[Part]]:
    """The lane axis of each input, the lanes of a chunk, and what each block of one is of the block of the whole batch.

    Raises: Unchunkable, with the reason in words.
    """
    shapes = [jnp.shape(array) for array in arrays]
    reason = Unchunkable("no axis is shared by an output and an input")
    for lanes, axes in _batches(blocks, shapes):
        if lanes <= size:
            reason = Unchunkable(f"there are {lanes} lanes")
            continue
        try:
            most = chunk_of(lanes, size)
            found = proved(traced(run, arrays), run, arrays, axes, most, derivatives=True)
            return axes, most, [_block(block, found[block.output], axes, lanes) for block in blocks]
        except Unchunkable as error:
            reason = error
    raise reason


def traced(run: Callable[[Sequence[Any]], Any], arrays: Sequence[Any]) -> Any:
    """The jaxpr of a program in which no size decides how partials are computed: what a proof reads."""
    with _jax.alike():
        return _jax.trace(run, arrays)[0]


def proved(
    whole: Any,
    run: Callable[[Sequence[Any]], Any],
    arrays: Sequence[Any],
    axes: Sequence[int | None],
    size: int,
    *,
    derivatives: bool,
) -> list[Part]:
    """What each result of `run` for a chunk is of that for all lanes, whose program is `whole`.

    Raises: Unchunkable, with the reason in words.
    """
    program = read(whole, shared=False)
    lanes = batch_size(arrays, axes)
    found: list[Part] = []
    for n in dict.fromkeys(n for n in (size, lanes % size) if n):
        try:
            chunk = read(traced(run, resized(arrays, axes, n)), shared=False)
        except _jax.REFUSALS as error:
            raise Unchunkable(f"the function does not take arrays of {n} lanes beside the others") from error
        these = parts(program, chunk, axes, lanes, n, derivatives=derivatives)
        if found and these != found:
            raise Unchunkable(f"{n} lanes are another part of the whole than {size}")
        found = these
    for value, part in zip(program.outputs, found, strict=True):
        if isinstance(part.lane, Lane) and value.shape[part.lane.axis] != part.lane.stride * lanes:
            raise Unchunkable("a result has every lane several times, not in one piece")
    return found


def chunk_of(lanes: int, size: int) -> int:
    """At most `size` lanes, so that no single one is left over: programs for one are often other ones."""
    return next((n for n in range(size, 1, -1) if lanes % n != 1), size)


def batch_size(arrays: Sequence[Any], axes: Sequence[int | None]) -> int:
    """How many lanes there are."""
    return next(jnp.shape(array)[axis] for array, axis in zip(arrays, axes, strict=True) if axis is not None)


def _batches(blocks: Sequence[Block], shapes: Sequence[tuple[int, ...]]) -> Iterator[tuple[int, list[int | None]]]:
    """Lane axes of the inputs as the specs name them: with those of arrays that no spec names, and without."""
    named: dict[int, int] = {}
    lanes = set()
    for block in blocks:
        for leaf, labels in zip(block.wrt, block.wrt_labels, strict=True):
            for axis, label in enumerate(labels):
                if isinstance(label, str) and label in block.output_labels:
                    if named.setdefault(leaf, axis) != axis:
                        raise Unchunkable(f"{label} names two axes of one array")
                    lanes.add(block.sizes[label])
    if len(lanes) != 1:
        return
    (count,) = lanes
    others = [i for i, shape in enumerate(shapes) if i not in named and shape[:1] == (count,)]
    for also in dict.fromkeys([tuple(others), ()]):
        axes: list[int | None] = [named.get(i, 0 if i in also else None) for i in range(len(shapes))]
        yield count, axes


def _block(block: Block, part: Part, axes: Sequence[int | None], lanes: int) -> Part:
    """What a block is, from what its output is."""
    text = block.partial.text
    wrt = zip(block.wrt, block.wrt_labels, strict=True)
    batched = [(axis, labels) for leaf, labels in wrt if (axis := axes[leaf]) is not None]
    if part == SAME and not batched:
        return SAME
    if not isinstance(part.lane, Lane) or part.power or part.summed or part.lane.stride != 1:
        raise Unchunkable(f'the output of "{text}" does not have one slice for each lane')
    label = block.output_labels[part.lane.axis]
    places = list(itertools.chain(block.output_labels, *block.wrt_labels))
    if not isinstance(label, str) or block.sizes[label] != lanes or places.count(label) != 1 + len(batched):
        raise Unchunkable(f'"{text}" does not keep the lanes apart')
    if any(labels[axis] != label for axis, labels in batched):
        raise Unchunkable(f'"{text}" does not keep the lanes apart')
    return Part(Lane(block.result.index(label))) if label in block.result else Part(summed=True)


def resized(arrays: Sequence[Any], axes: Sequence[int | None], size: int) -> list[jax.ShapeDtypeStruct]:
    """The shapes of a chunk's arrays."""
    shapes = []
    for array, axis in zip(arrays, axes, strict=True):
        aval = array if isinstance(array, jax.ShapeDtypeStruct) else _jax.typeof(array)
        shape = list(aval.shape)
        if axis is not None:
            shape[axis] = size
        weak = getattr(aval, "weak_type", False)
        shapes.append(jax.ShapeDtypeStruct(tuple(shape), aval.dtype, weak_type=weak))
    return shapes


def in_chunks(
    run: Callable[[Sequence[Any]], Sequence[Any]],
    arrays: Sequence[Any],
    *,
    axes: Sequence[int | None],
    size: int,
    found: Sequence[Part],
) -> list[Any]:
    """The results of `run` for the whole batch from those for its chunks, one after the other in a loop."""
    lanes = batch_size(arrays, axes)
    turns, rest = divmod(lanes, size)

    def chunk(start, length):
        return [
            array if axis is None else jax.lax.dynamic_slice_in_dim(array, start, length, axis)
            for array, axis in zip(arrays, axes, strict=True)
        ]

    def scaled(value, part, n):
        if not part.power:
            return value
        if jnp.issubdtype(jnp.result_type(value), jnp.integer):
            return value // n**part.power * lanes**part.power  # a multiple of n^power
        return value * jnp.asarray((lanes / n) ** part.power, value.dtype)

    def turn(sums, start):
        values = [scaled(v, part, size) for v, part in zip(run(chunk(start, size)), found, strict=True)]
        kept = [v for v, part in zip(values, found, strict=True) if not isinstance(part.lane, Lane)]
        summed = [part.summed for part in found if not isinstance(part.lane, Lane)]
        sums = [old + new if add else new for old, new, add in zip(sums, kept, summed, strict=True)]
        return sums, [v for v, part in zip(values, found, strict=True) if isinstance(part.lane, Lane)]

    shapes = jax.eval_shape(run, chunk(0, size))
    zeros = [
        jnp.zeros(s.shape, s.dtype) for s, part in zip(shapes, found, strict=True) if not isinstance(part.lane, Lane)
    ]
    sums, stacked = jax.lax.scan(turn, zeros, jnp.arange(turns) * size)
    last = run(chunk(turns * size, rest)) if rest else [None] * len(found)
    sums, stacked = iter(sums), iter(stacked)
    results = []
    for part, end in zip(found, last, strict=True):
        if isinstance(part.lane, Lane):
            axis = part.lane.axis
            value = jnp.moveaxis(next(stacked), 0, axis)
            value = value.reshape(*value.shape[:axis], -1, *value.shape[axis + 2 :])
            results.append(value if end is None else jnp.concatenate([value, scaled(end, part, rest)], axis))
        else:
            value = next(sums)
            results.append(value + scaled(end, part, rest) if part.summed and end is not None else value)
    return results
