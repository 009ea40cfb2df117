"""The oracle: every partial as part of a dense derivative tensor, by nested `jax.jacfwd` and `jax.jacrev`.

`dense(fn, wanted)` has the meaning of `jaxpartials.partials(fn, wanted)` and none of its machinery: they
share the notation alone. It builds the whole tensor with JAX's own transforms, and `numpy.einsum` keeps, sums
and selects.
"""

import inspect

import jax
import numpy as np
from jax import tree_util

from jaxpartials.notation import Block, parse_wanted, resolve

_MODES = {"fwd": jax.jacfwd, "rev": jax.jacrev}


def dense(fn, wanted, outputs=None, mode="fwd"):
    """A function that computes every partial in `wanted` the expensive way.

    Args:
        mode: "fwd" or "rev" for every order, or one per order, the first order first: "rev fwd" is forward
            over reverse.
    """
    specs, structure = parse_wanted(wanted)
    signature = inspect.signature(fn)

    def wanted_partials(*args, **kwargs):
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        names = list(bound.arguments)  # positions count in this order; a dict would be flattened in another
        leaves, treedef = tree_util.tree_flatten([bound.arguments[name] for name in names])

        def call(leaves):
            values = tree_util.tree_unflatten(treedef, leaves)
            again = inspect.BoundArguments(signature, dict(zip(names, values, strict=True)))
            return fn(*again.args, **again.kwargs)

        result = call(leaves)
        trees = [resolve(spec, bound.arguments, result, outputs) for spec in specs]
        return tree_util.tree_unflatten(structure, [_compute(call, leaves, tree, mode) for tree in trees])

    return wanted_partials


def _compute(call, leaves, tree, mode):
    return tree_util.tree_map(
        lambda block: _block(call, leaves, block, mode), tree, is_leaf=lambda x: isinstance(x, Block)
    )


def _block(call, leaves, block, mode):
    """The dense tensor with axes (output, first input, second input, ...), and of it what the labels say."""
    inputs = sorted(set(block.wrt))

    def tensor(*chosen):
        filled = list(leaves)
        for position, value in zip(inputs, chosen, strict=True):
            filled[position] = value
        return tree_util.tree_leaves(call(filled))[block.output]

    modes = mode.split() if " " in mode else [mode] * len(block.wrt)
    for position, name in zip(block.wrt, modes, strict=True):
        is_complex = bool(np.iscomplexobj(leaves[position]))
        tensor = _MODES[name](tensor, argnums=inputs.index(position), holomorphic=is_complex)
    labels = [*block.output_labels, *(label for axes in block.wrt_labels for label in axes)]
    return select(np.asarray(jax.jit(tensor)(*(leaves[position] for position in inputs))), labels, block.result)


def select(tensor, labels, result):
    """Take the positions that are integers, then let einsum bring the names that are left onto `result`."""
    tensor = tensor[tuple(label if isinstance(label, int) else slice(None) for label in labels)]
    names = [label for label in labels if not isinstance(label, int)]
    numbers = {name: n for n, name in enumerate(dict.fromkeys(names))}
    return np.einsum(tensor, [numbers[name] for name in names], [numbers[name] for name in result])
