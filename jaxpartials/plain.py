"""The plain path: dense nested `jacfwd` and `jacrev` of the function itself, then what the labels ask for.

It shares nothing with the planned path but the labels, so it stands when that one fails.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax

from jaxpartials import _jax
from jaxpartials.derive import contract
from jaxpartials.notation import Block


def plain(fn: Callable[..., Sequence[Any]], arrays: Sequence[Any], blocks: Sequence[Block]) -> Callable:
    """A function of `arrays` that computes every block densely, in the first combination of modes that JAX accepts."""
    whole = [_dense(fn, arrays, block) for block in blocks]

    def run(arrays):
        return [_labelled(dense(*arrays), block) for dense, block in zip(whole, blocks, strict=True)]

    return run


def _dense(fn: Callable, arrays: Sequence[Any], block: Block) -> Callable:
    refusals = []
    for modes in itertools.product((jax.jacfwd, jax.jacrev), repeat=len(block.wrt)):
        dense = lambda *arrays: fn(*arrays)[block.output]
        for mode, leaf in zip(modes, block.wrt, strict=True):
            dense = mode(dense, argnums=leaf)
        try:
            jax.eval_shape(dense, *arrays)
            jax.jit(dense).lower(*arrays)  # some refusals only come here
        except _jax.REFUSALS as error:
            refusals.append(error)
            continue
        return dense
    raise refusals[-1]


def _labelled(dense: Any, block: Block) -> Any:
    labels = [*block.output_labels, *itertools.chain(*block.wrt_labels)]
    index = tuple(label if isinstance(label, int) else slice(None) for label in labels)
    return contract(dense[index], [label for label in labels if isinstance(label, str)], block.result)
