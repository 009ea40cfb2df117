"""Fitting: a `Partial` found among the arrays of a call, with a label for every axis, as einsum has them."""

import itertools
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jax import tree_util

from jaxpartials.errors import DerivativeError
from jaxpartials.notation.parse import PART, check_outputs, output_position
from jaxpartials.notation.spec import (
    Block,
    Operand,
    Partial,
    all_axes,
    axis_names,
    did_you_mean,
    free_axes,
    keep_shared,
    misfit,
    shared_axes,
    spell,
)
from jaxpartials.notation.tree import (
    BOX_KEYS,
    children_of,
    describe,
    is_differentiable,
    is_number,
    is_sequence,
    listing,
    spelling_of,
    unbox,
)


@dataclass(frozen=True)
class _Leaf:
    position: int  # among the flattened arguments, or outputs
    shape: tuple[int, ...]


@dataclass(frozen=True)
class _Part:
    """What an operand names: a part of the arguments or of the outputs."""

    operand: Operand
    tree: Any
    first: int  # position of its first leaf

    @property
    def name(self) -> str:
        return self.operand.name

    @property
    def arrays(self) -> list[Any]:
        return [leaf for leaf in tree_util.tree_leaves(self.tree) if is_number(leaf)]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of its only array."""
        (array,) = self.arrays
        return np.shape(array)

    def leaves(self, every: bool) -> list[_Leaf | None]:
        """Its leaves; None where one is not differentiable, unless every leaf is asked for."""
        return [
            _Leaf(position, np.shape(leaf)) if every or is_differentiable(leaf) else None
            for position, leaf in enumerate(tree_util.tree_leaves(self.tree), self.first)
        ]


def resolve(partial: Partial, arguments: Mapping[str, Any], result: Any, outputs: Sequence[str] | None = None) -> Any:
    """Find every operand of `partial` in the arguments and outputs of a call, and label every axis.

    Args:
        arguments: each argument's value by name, in the order of the signature; `*args` is a tuple and
            `**kwargs` a dict under its own name. Leaves are arrays, `ShapeDtypeStruct`s, Python numbers, or
            static.
        result: what the function returns, with arrays or `ShapeDtypeStruct`s as leaves.
        outputs: names for the positions of a tuple that the function returns, or None.

    Returns: a pytree of `Block`s, structured as nested `jax.jacfwd` would: the output's structure, in it that
        of the first input, in it that of the second. None stands for a leaf that is not differentiable.

    Raises: NotationError when the spec does not fit; DerivativeError when what it names has no derivative.
    """
    parts = [_find_output(partial, result, outputs)]
    parts += [_find_input(partial, operand, arguments) for operand in partial.wrt]
    for part in parts:
        _check_axes(partial, part)
    if partial.wrt:
        for part in (*parts[1:], parts[0]):  # an integer input makes an integer output
            _check_differentiable(partial, part)
    _check_all_named(partial, parts)
    _check_sizes(partial, parts)

    def build(remaining: list[_Part], chosen: tuple[_Leaf, ...]) -> Any:
        if not remaining:
            return _block(partial, chosen)
        part, *rest = remaining
        leaves = part.leaves(every=not partial.wrt)
        inside = [None if leaf is None else build(rest, (*chosen, leaf)) for leaf in leaves]
        return tree_util.tree_unflatten(tree_util.tree_structure(part.tree), inside)

    return build(parts, ())


def _block(partial: Partial, leaves: tuple[_Leaf, ...]) -> Block:
    fresh = (f"#{n}" for n in itertools.count())  # no axis can be written so
    labels = [
        tuple(next(fresh) for _ in leaf.shape) if operand.axes is None else operand.axes
        for operand, leaf in zip(partial.operands, leaves, strict=True)
    ]
    sizes = {
        label: size
        for axes, leaf in zip(labels, leaves, strict=True)
        for label, size in zip(axes, leaf.shape, strict=True)
        if isinstance(label, str)
    }
    output, *wrt = labels
    result = partial.kept if partial.kept is not None else free_axes(itertools.chain(output, *wrt))
    position, *positions = (leaf.position for leaf in leaves)
    return Block(partial, position, tuple(positions), output, tuple(wrt), result, sizes)


# Finding what a path names.


def _find_input(partial: Partial, operand: Operand, arguments: Mapping[str, Any]) -> _Part:
    name = unicodedata.normalize("NFKC", operand.path[0])  # as Python does to the names in a signature
    if name in arguments:
        value, first = _child(arguments, name)
        return _descend(partial, operand, 1, value, first)
    for last in list(arguments)[-1:]:  # **kwargs comes last, and its keys may be written by themselves
        value, first = _child(arguments, last)
        if isinstance(value, dict) and name in value:
            value, further = _child(children_of(value) or {}, name)
            return _descend(partial, operand, 1, value, first + further)
    raise misfit(
        partial,
        f"no argument named {name} was passed; there are {listing(arguments) or 'none'}."
        + did_you_mean(partial, operand, 0, arguments),
    )


def _find_output(partial: Partial, result: Any, outputs: Sequence[str] | None) -> _Part:
    operand = partial.output
    children = children_of(result)
    if result is None:
        raise misfit(partial, f"the function returns None, so there is no output {operand.name}.")
    if outputs is None and children is not None:
        return _descend(partial, operand, 0, result, 0)
    if outputs is None:  # the only output answers to any name
        if operand.path[0].isdigit() and int(operand.path[0]) > 0:
            raise misfit(partial, _no_such_part(partial, operand, 0, result))
        return _descend(partial, operand, 1, result, 0)
    check_outputs(outputs)
    if len(outputs) != (1 if children is None else len(result) if is_sequence(result) else -1):
        its_own = children is not None and not is_sequence(result)
        raise misfit(
            partial,
            f"outputs={tuple(outputs)!r} names the positions of a tuple of length {len(outputs)}, "
            f"but the function returns {describe(result)}."
            + ("\n  Leave outputs= out: the parts have names of their own." if its_own else ""),
        )
    position = output_position(partial, outputs)
    if children is None:
        return _descend(partial, operand, 1, result, 0)
    return _descend(partial, operand, 1, *_child(children, str(position)))


def _descend(partial: Partial, operand: Operand, level: int, tree: Any, first: int) -> _Part:
    """Follow `operand.path[level:]` into `tree`, whose first leaf has position `first`, one key at a time."""
    path = operand.path
    while level < len(path):
        children = children_of(tree)
        if children is None and path[level] in BOX_KEYS and tree is not unbox(tree):
            tree, level = unbox(tree), level + 1
            continue
        key, taken = _match(children or {}, path[level:])
        if key is None:
            raise misfit(partial, _no_such_part(partial, operand, level, tree))
        tree, further = _child(children or {}, key)
        first += further
        level += taken
    return _Part(operand, unbox(tree), first)


def _match(children: Mapping[str, Any], path: Sequence[str]) -> tuple[str | None, int]:
    """The child where a path continues, and how many of its names spell that key ("layers.0" may be one)."""
    for taken in range(1, len(path) + 1):
        key = ".".join(path[:taken])
        for spelling in (key, unicodedata.normalize("NFKC", key)):
            if spelling in children:
                return spelling, taken
    return None, 0


def _child(children: Mapping[str, Any], key: str) -> tuple[Any, int]:
    """The child under a key, and how many leaves come before it."""
    before = itertools.takewhile(lambda name: name != key, children)
    return children[key], sum(len(tree_util.tree_leaves(children[name])) for name in before)


def _no_such_part(partial: Partial, operand: Operand, level: int, tree: Any) -> str:
    """The message for a path that leads nowhere at `level`, inside `tree`."""
    missing, holder = operand.path[level], ".".join(operand.path[:level])
    if holder:
        message = f"{holder} has no part {missing}; it is {describe(tree)}."
    else:
        message = f"there is no output {missing}; the function returns {describe(tree)}."
    children = children_of(tree)
    if children is None:
        rank = np.ndim(tree) if is_number(tree) else 0
        if missing.isdigit() and rank and holder:
            axes = ",".join([missing, *_letters(partial, rank - 1)])
            message += f"\n  A component is written in brackets: {holder}[{axes}]."
        return message
    keys = [key for key in children if all(re.fullmatch(PART, part) for part in key.split("."))]
    if not holder and is_sequence(tree):
        spelled = replace(partial, output=replace(operand, path=("0", *operand.path[1:])))
        message += f'\n  Name it by position, as in "{spell(spelled)}", or name the outputs: outputs=(...).'
    if missing in getattr(tree, "__dict__", {}):
        message += f"\n  Its attribute {missing} is static, not a part of the pytree."
    if len(keys) < len(children):
        others = listing(repr(key) for key in children if key not in keys)
        message += f"\n  A spec spells identifiers and positions only, so it cannot name {others}."
    return message + did_you_mean(partial, operand, level, keys)


# Checking what was found.


def _check_axes(partial: Partial, part: _Part) -> None:
    """What has its axes named is one array, of that many axes, with the positions asked for."""
    operand, axes = part.operand, part.operand.axes
    if axes is None:
        return
    leaves = tree_util.tree_leaves(part.tree)
    if len(leaves) != 1:
        raise misfit(
            partial,
            f"{operand} names the axes of one array, but {part.name} is {describe(part.tree)}."
            + (
                _meant_part(part)
                or (f"\n  Name one array of it, as in {_example(partial, part)}." if part.arrays else "")
            ),
        )
    if not is_number(leaves[0]):
        raise misfit(partial, f"{operand} names axes, but {part.name} is {describe(leaves[0])}.")
    shape = part.shape
    if len(shape) != len(axes):
        joined = len(axes) == 1 and isinstance(axes[0], str) and len(axes[0]) == len(shape)
        every = list(str(axes[0])) if joined else [*axes, *_letters(partial, len(shape))][: len(shape)]
        fitting = replace(operand, axes=tuple(every) or None)
        raise misfit(
            partial,
            f"{operand} names {len(axes)} {'axis' if len(axes) == 1 else 'axes'}, but {part.name} "
            f"has {len(shape)}: its shape is {shape}."
            + (
                _meant_part(part)
                or f"\n  {'Name every axis' if shape else 'A scalar has no axes to name'}, as in {fitting}."
            ),
        )
    for place, (axis, size) in enumerate(zip(axes, shape, strict=True)):
        if isinstance(axis, int) and axis >= size:
            raise misfit(
                partial,
                f"{operand} asks for position {axis} on axis {place} of {part.name}, whose shape is "
                f"{shape}.\n  " + (f"Its positions there are 0 to {size - 1}." if size else "It is empty there."),
            )


def _meant_part(part: _Part) -> str:
    """The hint for axes that are a key or a position in a pytree: params[w] for params.w."""
    (first, *axes) = part.operand.axes or ("",)
    if str(first) not in (children_of(part.tree) or {}):
        return ""
    meant = Operand((*part.operand.path, str(first)), tuple(axes) or None)
    return f"\n  A part of a pytree is named after a dot: {meant}."


def _check_differentiable(partial: Partial, part: _Part) -> None:
    leaves = tree_util.tree_leaves(part.tree)
    if any(map(is_differentiable, leaves)) or (not leaves and part.tree is not None):
        return
    is_output = part.operand is partial.output
    is_leaf = part.tree is None or tree_util.all_leaves([part.tree])
    message = f'"{partial.text}": {part.name} is {describe(part.tree)}'
    message += "" if is_leaf else ", with no floating-point array in it"
    message += f"; derivatives need floating-point {'outputs' if is_output else 'inputs'}."
    if is_output:
        value = spell(replace(partial, wrt=(), kept=None))
        message += f'\n  Cast it inside the function, or ask for its value alone: "{value}".'
    elif not is_leaf or not is_number(part.tree):
        message += "\n  It is passed through unchanged; name an argument that holds floating-point numbers."
    elif isinstance(part.tree, int) and not isinstance(part.tree, bool):
        message += f"\n  If it is a number to differentiate by, pass {part.tree}.0 rather than {part.tree}."
    else:
        convert = f"jnp.asarray({part.operand.path[-1]}, float)"
        message += f"\n  If a float was meant, pass one, 3.0 rather than 3, or convert it: {convert}."
    raise DerivativeError(message)


def _check_all_named(partial: Partial, parts: list[_Part]) -> None:
    """If one array of rank >= 1 names its axes, all do; and an arrow needs named axes to keep or to sum."""
    named = next((part for part in parts if part.operand.axes), None)
    unnamed = next((part for part in parts if part.operand.axes is None and any(map(np.ndim, part.arrays))), None)
    if unnamed is None or (named is None and partial.kept is None):
        return
    size = len(tree_util.tree_leaves(unnamed.tree))
    of = f"{unnamed.name}, " + (f"of shape {unnamed.shape}," if size == 1 else f"a pytree of {size} leaves,")
    tree = next((part for part in parts if len(tree_util.tree_leaves(part.tree)) > 1), None)
    if tree is None:
        every = f'Name them all: "{spell(_name_all(partial, parts))}"'
    else:
        every = f"Name one array at a time with its axes, as in {_example(partial, tree)}"
    bare = replace(
        partial,
        output=replace(partial.output, axes=None),
        wrt=tuple(replace(x, axes=None) for x in partial.wrt),
        kept=None,
    )
    if named is None:
        raise misfit(
            partial,
            f"the arrow says which axes stay, but {of} names no axes.\n"
            f'  {every}, or keep all of them: "{spell(bare)}".',
        )
    axes = axis_names(named.operand.axes or ())
    what = f"ax{'is' if len(axes) == 1 else 'es'} {listing(axes)}"
    if not axes:
        what = f"position {listing(named.operand.axes or ())}"
    only_names = all(isinstance(axis, str) for axis in all_axes(partial))
    raise misfit(
        partial,
        f"{what} {'are' if len(axes) > 1 else 'is'} named on {named.name} but {of} names no axes.\n"
        f"  {every}" + (f', or none: "{spell(bare)}".' if only_names and partial.kept is None else "."),
    )


def _name_all(partial: Partial, parts: list[_Part]) -> Partial:
    """The spec with every axis named: first axes of one size by one name, the others by new letters."""
    batch = next((x.operand.axes[0] for x in parts if x.operand.axes and isinstance(x.operand.axes[0], str)), None)
    sizes = [x.shape[0] for x in parts if x.operand.axes and x.operand.axes[0] == batch]
    letters = iter(_letters(partial, sum(len(x.shape) for x in parts if x.arrays)))
    operands: list[Operand] = []
    for part in parts:
        axes = part.operand.axes
        if axes is None and part.arrays:
            first = [batch] if batch and part.shape[:1] and part.shape[0] in sizes else []
            axes = (*first, *itertools.islice(letters, len(part.shape) - len(first)))
        operands.append(replace(part.operand, axes=axes or None))
    new = replace(partial, output=operands[0], wrt=tuple(operands[1:]))
    if partial.kept:
        return replace(new, kept=tuple(dict.fromkeys((*partial.kept, *axis_names(all_axes(new))))))
    return keep_shared(new) if partial.kept is None and shared_axes(new) else new


def _letters(partial: Partial, count: int) -> list[str]:
    """Axis names that the spec does not use."""
    used = set(all_axes(partial))
    candidates = itertools.chain("ijklmnopqrstuvw", (f"i{n}" for n in itertools.count()))
    return list(itertools.islice((letter for letter in candidates if letter not in used), count))


def _example(partial: Partial, part: _Part) -> str:
    """One array of a pytree with its axes named, as a spec spells it."""
    found = tree_util.tree_flatten_with_path(part.tree)[0]
    numbers = [(path, np.ndim(leaf)) for path, leaf in found if is_number(leaf)]
    path, rank = next((each for each in numbers if each[1]), numbers[0])
    keys = [spelling_of(key) for key in path]
    if keys[-1] in BOX_KEYS:
        keys.pop()
    return str(Operand((*part.operand.path, *keys), tuple(_letters(partial, rank)) or None))


def _check_sizes(partial: Partial, parts: list[_Part]) -> None:
    seen: dict[str, tuple[int, _Part]] = {}
    for part in parts:
        for axis, size in zip(part.operand.axes or (), part.shape if part.operand.axes else (), strict=True):
            if not isinstance(axis, str):
                continue
            other_size, other = seen.setdefault(axis, (size, part))
            if size == other_size:
                continue
            where = f"{other.operand}, of shape {other.shape}"
            if part.operand != other.operand:
                where += f", and {part.operand}, of shape {part.shape}"
            raise misfit(
                partial,
                f"{axis} names axes of two sizes, {other_size} and {size}: {where}.\n"
                "  Axes that differ in size need names that differ.",
            )
