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
) -> tuple[list[int | None], list[Part]]:
    """The lane axis of each input, and what each block of a chunk is of the block of the whole batch.

    Raises: Unchunkable, with the reason in words.
    """
    shapes = [jnp.shape(array) for array in arrays]
    reason = Unchunkable("no axis is shared by an output and an input")
    for lanes, axes in _batches(blocks, shapes):
        if lanes <= size:
            reason = Unchunkable(f"there are {lanes} lanes")
            continue
        try:
            whole = read(_jax.trace(run, arrays)[0], shared=False)
            found: list[Part] = []
            for n in {size, lanes % size} - {0}:
                chunk = read(_jax.trace(run, resized(arrays, axes, n))[0], shared=False)
                found = parts(whole, chunk, axes, lanes, n, derivatives=True)
            return axes, [_block(block, found[block.output], axes, lanes) for block in blocks]
        except Unchunkable as error:
            reason = error
        except (TypeError, ValueError) as error:  # the function does not take arrays of these shapes
            reason = Unchunkable(str(error).strip().split("\n")[0])
    raise reason


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
    lanes = next(jnp.shape(a)[axis] for a, axis in zip(arrays, axes, strict=True) if axis is not None)
    turns, rest = divmod(lanes, size)

    def chunk(start, length):
        return [
            array if axis is None else jax.lax.dynamic_slice_in_dim(array, start, length, axis)
            for array, axis in zip(arrays, axes, strict=True)
        ]

    def scaled(value, part, n):
        return value if not part.power else value * jnp.asarray((lanes / n) ** part.power, value.dtype)

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
