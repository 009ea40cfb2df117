"""The parts of a pytree by the names that a spec gives them, and what each is called in a message."""

from collections.abc import Iterable
from typing import Any

import jax.numpy as jnp
from jax import tree_util

BOX_KEYS = ("value", "raw_value")


def children_of(tree: Any) -> dict[str, Any] | None:
    """The children of a pytree node by the spelling of their keys, in order; None for a leaf."""
    tree = unbox(tree)
    if tree_util.all_leaves([tree]):
        return None
    found = tree_util.tree_flatten_with_path(tree, is_leaf=lambda y: y is not tree)[0]
    children: dict[str, Any] = {}
    for path, child in found:
        spelling = spelling_of(path[0])
        while spelling in children:
            spelling += "'"  # keys spelled alike: only the first can be named
        children[spelling] = child
    return children


def unbox(tree: Any) -> Any:
    """The array in a box that stands for its array, as a Flax `Variable` does; anything else as it is."""
    if not _is_array(tree) or tree_util.all_leaves([tree]):
        return tree
    found = tree_util.tree_flatten_with_path(tree, is_leaf=lambda y: y is not tree)[0]
    if len(found) == 1 and spelling_of(found[0][0][0]) in BOX_KEYS:
        return found[0][1]
    return tree


def spelling_of(key: Any) -> str:
    for attribute in ("key", "idx", "name"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key).strip(".[]'\"")


# Telling numbers from the rest, and describing both.


def is_sequence(x: Any) -> bool:
    return isinstance(x, (tuple, list)) and not hasattr(x, "_fields")


def _is_array(x: Any) -> bool:
    return hasattr(x, "shape") and hasattr(x, "dtype")


def is_number(x: Any) -> bool:
    return _is_array(x) or isinstance(x, (bool, int, float, complex))


def is_differentiable(x: Any) -> bool:
    if not _is_array(x):
        return isinstance(x, (float, complex))
    try:
        return jnp.issubdtype(x.dtype, jnp.inexact)
    except TypeError:  # another library's array
        return False


def describe(x: Any) -> str:
    """What something is, in a phrase that follows "is"."""
    if x is None:
        return "None"
    if _is_array(x):
        return f"{f'an array of shape {tuple(x.shape)} and' if x.shape else 'a scalar of'} dtype {x.dtype}"
    if isinstance(x, (bool, int, float, complex)):
        return f"the Python {type(x).__name__} {x}"
    if isinstance(x, str):
        return f"the string {x!r}"
    children = children_of(x)
    if children is None and callable(x):
        return f"the function {getattr(x, '__name__', type(x).__name__)}"
    name = type(x).__name__
    kind = f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"
    if children is None:
        return kind
    if is_sequence(x):
        return f"{kind} of length {len(x)}"
    return f"{kind} with {listing(key for key in children if not key.startswith('_')) or 'nothing in it'}"


def listing(names: Iterable[Any], most: int = 10) -> str:
    names = [str(name) for name in names]
    return ", ".join(names if len(names) <= most else [*names[:most], "..."])
