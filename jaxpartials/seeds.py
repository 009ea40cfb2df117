"""The directions that a partial derivative asks for: which axis of which array is seeded with what."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jaxpartials import _jax
from jaxpartials.graph.graph import Value
from jaxpartials.notation import Block

Label = str | int

# Not axis names, so that no user's name is one of them.
ONES = "+"
DIAGONAL = "="  # prefix: not a direction, but equal positions along the axes that carry it


@dataclass(frozen=True)
class Seed:
    """How one wrt (or one output) is seeded, axis by axis.

    `axes` has one entry per axis: ONES (a lane, or an axis to be summed), an integer (a component), or the name of
    a direction, which takes one basis vector per element. Equal names on one array mean its diagonal.
    """

    axes: tuple[Label, ...]

    @property
    def directions(self) -> tuple[str, ...]:
        named = (a for a in self.axes if isinstance(a, str) and a != ONES and not a.startswith(DIAGONAL))
        return tuple(dict.fromkeys(named))


def summed_labels(block: Block) -> set[str]:
    """Names that the result does not keep and that only one array of the spec has: by linearity, one ones seed."""
    homes: dict[str, set[int]] = {}
    for home, labels in enumerate((block.output_labels, *block.wrt_labels)):
        for label in labels:
            if isinstance(label, str):
                homes.setdefault(label, set()).add(home)
    return {label for label, where in homes.items() if len(where) == 1 and label not in block.result}


def wrt_seeds(block: Block, lanes: frozenset[str]) -> list[Seed]:
    """How each wrt of a block is seeded when it is pushed forward."""
    summed = summed_labels(block)
    return [Seed(tuple(_wrt_seed(label, slot, lanes, summed) for label in slot)) for slot in block.wrt_labels]


def _wrt_seed(label: Label, slot: Sequence[Label], lanes: frozenset[str], summed: set[str]) -> Label:
    if isinstance(label, int):
        return label
    if label in lanes:
        return ONES
    if label in summed:
        return ONES if slot.count(label) == 1 else f"{DIAGONAL}{label}"
    return label


def output_seed(label: Label, slot: Sequence[Label], block: Block, lanes: frozenset[str], summed: set[str]) -> Label:
    if isinstance(label, int):
        return label
    if label in summed or (label in lanes and (label in slot or label not in block.result)):
        return ONES
    return label


def canonical(seed: Seed, numbers: dict[str, int]) -> tuple:
    """A seed's name, the same in every spec that seeds alike: directions are numbered as they come up.

    `numbers` are those of this spec; a direction keeps its number throughout the tower.
    """
    for label in seed.directions:
        numbers.setdefault(label, len(numbers))
    return tuple(numbers.get(axis, axis) if isinstance(axis, str) else ("component", axis) for axis in seed.axes)


def direction_axis(seed: Seed, images: bool) -> int:
    """Where the direction axis goes: after the axes seeded with ones that lead the array, and before its last axis.

    The last axis is what matrix products contract: with the directions next to it, sums over both are over one long
    axis. Convolutions go through images one after another, and keep the axes of an image together.
    """
    lanes = next((i for i, label in enumerate(seed.axes) if label != ONES), len(seed.axes))
    return lanes if images or seed.axes[-1:] == (ONES,) else max(lanes, len(seed.axes) - 1)


def seed_array(seed: Seed, like: Value, sizes: Mapping[str, int]) -> jax.Array:
    """The seed, with the directions flattened into one leading axis where there are any.

    seed[d, k_1, ..., k_r] = prod_axes [k_a = component_a] or [k_a = direction label of a] or 1
    """
    names = list(sizes)
    rank = len(names) + len(seed.axes)
    shape = (*sizes.values(), *like.shape)
    mask = None
    equal: dict[str, int] = {}
    for axis, label in enumerate(seed.axes, start=len(names)):
        if label == ONES:
            continue
        here = jax.lax.broadcasted_iota(jnp.int32, _only(shape, axis, rank), axis)
        if isinstance(label, int):
            hit = here == label
        elif label.startswith(DIAGONAL):
            if label not in equal:
                equal[label] = axis
                continue
            other = equal[label]
            hit = here == jax.lax.broadcasted_iota(jnp.int32, _only(shape, other, rank), other)
        else:
            other = names.index(label)
            hit = here == jax.lax.broadcasted_iota(jnp.int32, _only(shape, other, rank), other)
        mask = hit if mask is None else mask & hit
    full = jnp.ones(shape, like.dtype) if mask is None else jnp.broadcast_to(mask.astype(like.dtype), shape)
    full = _jax.as_varying(full, like.aval)
    return full.reshape(math.prod(sizes.values()), *like.shape) if names else full


def _only(shape: Sequence[int], axis: int, rank: int) -> tuple[int, ...]:
    return tuple(shape[axis] if a == axis else 1 for a in range(rank))
