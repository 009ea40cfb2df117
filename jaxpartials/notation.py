"""The notation: `"u/x[i]^2 -> i"` read into a `Partial`, and fitted to a function's arguments and outputs.

    partial  =  output [ "/" wrt { wrt } ] [ "->" axes ]
    output   =  path [ "[" axes "]" ]           wrt  =  path [ "[" axes "]" ] [ "^" order ]
    path     =  name { "." name }               axes =  axis { (space | comma) axis }
    axis     =  letter-name or integer

`parse` knows the text alone, `check_signature` the names of the arguments, and `resolve` the arrays: it finds
every operand in the arguments and outputs and labels every axis of every derivative block, as einsum would.
"""

from __future__ import annotations

import difflib
import inspect
import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

import jax.numpy as jnp
import numpy as np
from jax import tree_util

from .errors import DerivativeError, NotationError

Axis = str | int


@dataclass(frozen=True)
class Operand:
    """One array, or pytree of arrays, named in a spec: `params.layers.0.weight[i,j]`."""

    path: tuple[str, ...]
    axes: tuple[Axis, ...] | None = None  # None: not named; "x[]" gives ()

    @property
    def name(self) -> str:
        return ".".join(self.path)

    def __str__(self) -> str:
        return self.name + ("" if self.axes is None else f"[{','.join(map(str, self.axes))}]")


@dataclass(frozen=True)
class Partial:
    """One partial derivative as written: an output, one input per order, and the axes that stay."""

    text: str
    output: Operand
    wrt: tuple[Operand, ...]  # one entry per order: x^2 gives it twice
    kept: tuple[str, ...] | None  # the axes after "->"; None without an arrow

    @property
    def order(self) -> int:
        return len(self.wrt)

    @property
    def operands(self) -> tuple[Operand, ...]:
        return (self.output, *self.wrt)


@dataclass(frozen=True)
class Block:
    """One derivative block: one output leaf, one input leaf per order, and a label for every axis of each.

    The block is what einsum makes of the dense derivative tensor, whose axes are those of the output and then
    those of each input in turn: an integer label takes that position, equal names run together, and names
    that are not in `result` are summed.
    """

    partial: Partial
    output: int  # position among the flattened output leaves
    wrt: tuple[int, ...]  # positions among the flattened input leaves, one per order
    output_labels: tuple[Axis, ...]
    wrt_labels: tuple[tuple[Axis, ...], ...]
    result: tuple[str, ...]  # labels of the block's own axes, in order
    sizes: Mapping[str, int] = field(hash=False)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.sizes[label] for label in self.result)


# ----------------------------------------------------------------------------------------------------------
# Reading
# ----------------------------------------------------------------------------------------------------------

_SUPERSCRIPT = "[²³¹⁰⁴-⁹]"
_NAME = rf"(?!{_SUPERSCRIPT})[^\W\d](?:(?!{_SUPERSCRIPT})\w)*"  # an identifier
_AXIS = rf"(?!{_SUPERSCRIPT})[^\W\d_](?:(?!{_SUPERSCRIPT})\w)*"  # an identifier that starts with a letter
_INTEGER = r"[0-9]+(?!\w)"

# What people write instead: a pattern where something else was expected, and the spelling that works.
_HABITS = (
    (rf"\*\*|{_SUPERSCRIPT}", 'A power is written with ^: "u/x^2".'),
    (r"\*", 'Inputs are separated by spaces: "u/x y".'),
    (r"/", 'Inputs are separated by spaces: "u/x y" is a second derivative.'),
    (r",", 'Inputs are separated by spaces, "u/x y"; commas separate axes, "u/x[i,j]".'),
    (r"\(", 'Axes are written in square brackets: "u/x[i]".'),
    (r"\^", 'A power belongs to an input and comes after its axes: "u/x[i]^2".'),
    (r"-", 'The arrow is written "->", and a part is named by an identifier or a position.'),
    (r"=>|→|⟶", 'The arrow is written "->".'),
)
_START_HABITS = (
    (r"/|-|$", 'A spec starts with the name of an output: "u", "u/x".'),
    (r"∂", 'The derivative of u with respect to x is written "u/x".'),
)
_AXIS_HABITS = (
    (r"$|/|->", 'The bracket "[" is not closed.'),
    (r":", 'An axis that stays is named, as in "u[b]/X[b,0] -> b"; there are no slices.'),
    (r"-", "Positions are counted from the front, 0, 1, 2, ..."),
    (r"_", "The name of an axis starts with a letter."),
    (r"[0-9]", "An axis is a position, 0, 1, 2, ..., or a name that starts with a letter."),
)
_ORDER_HABITS = (
    (r"[0-9]+[^\W\d]", 'Inputs are separated by spaces: "u/x^2 y".'),
    (r"", 'An order is written in digits: "u/x^2".'),
)
_KEPT_HABITS = (
    (r"[0-9]", "A position leaves no axis in the result, so it is not listed."),
    (r"\[", 'The axes that stay are listed without brackets: "-> b i".'),
)


class _Reader:
    """A position in a spec's text."""

    def __init__(self, text: str):
        self.text = re.sub(r"\s", " ", text)  # keeps the caret under its character
        self.at = 0

    def skip(self) -> None:
        while self.text[self.at : self.at + 1] == " ":
            self.at += 1

    def sees(self, pattern: str) -> bool:
        self.skip()
        return re.compile(pattern).match(self.text, self.at) is not None

    def take(self, pattern: str) -> str | None:
        self.skip()
        found = re.compile(pattern).match(self.text, self.at)
        if found is None:
            return None
        self.at = found.end()
        return found.group()

    def fail(self, expected: str, habits: Iterable[tuple[str, str]] = _HABITS) -> NoReturn:
        self.skip()
        hint = next((f"\n  {hint}" for pattern, hint in habits if self.sees(pattern)), "")
        found = f"{self.text[self.at]!r} found" if self.at < len(self.text) else "the spec ends"
        raise NotationError(
            f'cannot read "{self.text}": {found} where {expected} was expected.\n'
            f"  {self.text}\n"
            f"  {' ' * self.at}^{hint}"
        )


def parse(text: str) -> Partial:
    """Read one spec.

    >>> partial = parse("u[b]/X[b,0]^2 -> b")
    >>> str(partial.output), [str(x) for x in partial.wrt], partial.kept
    ('u[b]', ['X[b,0]', 'X[b,0]'], ('b',))

    Raises: NotationError, with a caret under the character that does not fit and what was expected there.
    """
    reader = _Reader(text)
    output = _read_operand(reader, "the name of an output", rf"{_NAME}|{_INTEGER}", _START_HABITS)
    expected = ('"[", ' if output.axes is None else "") + '"/" or "->"'
    habits = _HABITS
    wrt: list[Operand] = []
    if reader.take("/"):
        while not wrt or reader.sees(_NAME):
            operand = _read_operand(reader, "the name of an input", _NAME, _HABITS)
            order = _read_order(reader)
            wrt += [operand] * (order or 1)
        expected = 'another input, "->" or the end'
        if order is None:
            expected = ('"[", ' if operand.axes is None else "") + '"^", ' + expected
        habits = (
            (r"\[", 'Axes come before the order: "u/x[i]^2".'),
            (r"[0-9]", "An input is named by the signature; a position names a part of it, as in args.0."),
            *_HABITS,
        )
    kept = None
    if reader.take("->"):
        kept = _read_kept(reader, (output, *wrt))
    elif not reader.sees("$"):
        reader.fail(expected, habits)
    partial = Partial(text, output, tuple(wrt), kept)
    _check_shared_axes(partial)
    return partial


def parse_wanted(wanted: Any) -> tuple[tuple[Partial, ...], Any]:
    """Read every spec in a pytree of strings; returns them in a row, with the structure they came in.

    Raises: NotationError when a leaf is not a string or does not parse.
    """
    leaves, treedef = tree_util.tree_flatten_with_path(wanted, is_leaf=lambda leaf: leaf is None)
    for path, leaf in leaves:
        if not isinstance(leaf, str):
            where = f" at {tree_util.keystr(path)}" if path else ""
            raise NotationError(
                f"wanted{where} is {_describe(leaf)}.\n"
                '  It takes specs, strings such as "u/x^2": one, or a dict, list or any other pytree of them.'
            )
    return tuple(parse(leaf) for _, leaf in leaves), treedef


def _read_operand(reader: _Reader, expected: str, first: str, habits: Iterable[tuple[str, str]]) -> Operand:
    name = reader.take(first)
    if name is None:
        reader.fail(expected, habits)
    path = [name]
    while reader.take(r"\."):
        part = reader.take(rf"{_NAME}|{_INTEGER}")
        if part is None:
            reader.fail(
                "a key, attribute or position",
                [("", "A part is named by an identifier or a position: params.layers.0.weight.")],
            )
        path.append(part)
    return Operand(tuple(path), _read_axes(reader) if reader.take(r"\[") else None)


def _read_axes(reader: _Reader) -> tuple[Axis, ...]:
    axes: list[Axis] = []
    comma = None
    while comma or not reader.take(r"\]"):
        if axes and not comma and reader.text[reader.at - 1] != " ":
            reader.fail('",", a space or "]"', _AXIS_HABITS)
        name = reader.take(_AXIS)
        position = None if name else reader.take(_INTEGER)
        if name:
            axes.append(name)
        elif position:
            axes.append(int(position))
        else:
            reader.fail("an axis" if comma else 'an axis or "]"', _AXIS_HABITS)
        comma = reader.take(",")
    return tuple(axes)


def _read_order(reader: _Reader) -> int | None:
    if not reader.take(r"\^"):
        return None
    if not reader.sees(r"0*[1-9][0-9]*(?!\w)"):
        reader.fail("an order (1, 2, 3, ...)", _ORDER_HABITS)
    return int(reader.take(_INTEGER) or "")


def _read_kept(reader: _Reader, operands: Iterable[Operand]) -> tuple[str, ...]:
    known = _names(axis for operand in operands for axis in operand.axes or ())
    kept: list[str] = []
    comma = None
    while comma or not reader.sees("$"):
        reader.skip()
        start, axis = reader.at, reader.take(_AXIS)
        if axis is None:
            reader.fail(
                "an axis that stays" if comma or not kept else "another axis or the end", _KEPT_HABITS
            )
        if axis not in known or axis in kept:
            reader.at = start
            hint = f"No array names an axis {axis}" + (f"; they name {_listing(known)}." if known else ".")
            if axis in kept:
                hint = f"The axis {axis} is listed twice."
            reader.fail("an axis of the output or an input, once,", [("", hint)])
        kept.append(axis)
        comma = reader.take(",")
    return tuple(kept)


def _check_shared_axes(partial: Partial) -> None:
    """A silent sum over the batch is the classic mistake, so an axis on both sides of "/" has no default."""
    shared = _shared(partial)
    if partial.kept is not None or not shared:
        return
    keep, total = _keep_shared(partial), replace(partial, kept=_free(_all_axes(partial)))
    holders = dict.fromkeys(x.name for x in partial.wrt if set(shared) & set(x.axes or ()))
    axis, it = ("axis", "it") if len(shared) == 1 else ("axes", "them")
    raise _misfit(
        partial,
        f"the output {partial.output.name} and the input{'s' * (len(holders) > 1)} {_listing(holders)} "
        f"share the {axis} {_listing(shared)}, and nothing says whether to keep {it} or to sum over {it}.\n"
        f'  Keep {it}: "{_spell(keep)}", or sum: "{_spell(total)}".',
    )


def _shared(partial: Partial) -> list[str]:
    """The axes named by both the output and an input."""
    return [
        name for name in _names(partial.output.axes or ()) if any(name in (x.axes or ()) for x in partial.wrt)
    ]


def _keep_shared(partial: Partial) -> Partial:
    """The spec with an arrow that keeps the shared axes, and whatever stays without it."""
    stay = {*_shared(partial), *_free(_all_axes(partial))}
    return replace(partial, kept=tuple(name for name in _names(_all_axes(partial)) if name in stay))


def _all_axes(partial: Partial) -> list[Axis]:
    return [axis for operand in partial.operands for axis in operand.axes or ()]


def _misfit(partial: Partial, message: str) -> NotationError:
    return NotationError(f'"{partial.text}": {message}')


def _names(axes: Iterable[Axis]) -> list[str]:
    return list(dict.fromkeys(axis for axis in axes if isinstance(axis, str)))


def _free(axes: Iterable[Axis]) -> tuple[str, ...]:
    """The axes that stay when there is no arrow: those named once, in order of appearance."""
    return tuple(axis for axis, count in Counter(axes).items() if count == 1 and isinstance(axis, str))


def _spell(partial: Partial) -> str:
    """The spec in its plainest spelling."""
    text = str(partial.output)
    runs = [(x, len(list(run))) for x, run in itertools.groupby(partial.wrt)]
    if runs:
        text += "/" + " ".join(str(x) if order == 1 else f"{x}^{order}" for x, order in runs)
    if partial.kept is not None:
        text += " ->" + "".join(f" {axis}" for axis in partial.kept)
    return text


def _listing(names: Iterable[Any], most: int = 10) -> str:
    names = [str(name) for name in names]
    return ", ".join(names if len(names) <= most else [*names[:most], "..."])


# ----------------------------------------------------------------------------------------------------------
# Fitting to the signature, before tracing
# ----------------------------------------------------------------------------------------------------------


def check_signature(partial: Partial, signature: inspect.Signature, outputs: Sequence[str] | None) -> None:
    """Check the names that are known before there are any arrays: the arguments', and the outputs' if given.

    Raises: NotationError for a name that is not there, with the nearest one that is.
    """
    if outputs is not None:
        _check_outputs(outputs)
        _output_position(partial, outputs)
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in signature.parameters.values()):
        return
    names = list(signature.parameters)
    for operand in partial.wrt:
        if unicodedata.normalize("NFKC", operand.path[0]) not in names:
            has = f"its arguments are {_listing(names)}" if names else "it takes no arguments"
            raise _misfit(
                partial,
                f"the function has no argument named {operand.path[0]}; {has}."
                + _did_you_mean(partial, operand, 0, names),
            )


def _check_outputs(outputs: Sequence[str]) -> None:
    if isinstance(outputs, str):
        raise NotationError(f'outputs="{outputs}" should be a tuple of names: outputs=("{outputs}",).')
    for name in outputs:
        if not isinstance(name, str) or not re.fullmatch(_NAME, name):
            raise NotationError(f"outputs={outputs!r}: {name!r} is not a name that a spec can spell.")
    if len(set(outputs)) < len(outputs):
        raise NotationError(f"outputs={outputs!r}: every output needs a name of its own.")


def _output_position(partial: Partial, outputs: Sequence[str]) -> int:
    name = partial.output.path[0]
    if name in outputs:
        return outputs.index(name)
    if name.isdigit() and int(name) < len(outputs):
        return int(name)
    raise _misfit(
        partial,
        f"there is no output named {name}; outputs= names {_listing(outputs)}."
        + _did_you_mean(partial, partial.output, 0, outputs),
    )


def _did_you_mean(partial: Partial, operand: Operand, level: int, names: Iterable[str]) -> str:
    """The spec again, with the nearest existing name in place of the unknown one."""
    plain = {name.lower(): name for name in names}
    near = difflib.get_close_matches(operand.path[level].lower(), plain, n=1)
    if not near:
        return ""
    mended = replace(operand, path=(*operand.path[:level], plain[near[0]], *operand.path[level + 1 :]))
    if operand is partial.output:
        partial = replace(partial, output=mended)
    else:
        partial = replace(partial, wrt=tuple(mended if x == operand else x for x in partial.wrt))
    return f'\n  Did you mean "{_spell(partial)}"?'


# ----------------------------------------------------------------------------------------------------------
# Fitting to the arrays, at tracing
# ----------------------------------------------------------------------------------------------------------


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
        return [leaf for leaf in tree_util.tree_leaves(self.tree) if _is_number(leaf)]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of its only array."""
        (array,) = self.arrays
        return np.shape(array)

    def leaves(self, every: bool) -> list[_Leaf | None]:
        """Its leaves; None where one is not differentiable, unless every leaf is asked for."""
        return [
            _Leaf(position, np.shape(leaf)) if every or _is_differentiable(leaf) else None
            for position, leaf in enumerate(tree_util.tree_leaves(self.tree), self.first)
        ]


def resolve(
    partial: Partial, arguments: Mapping[str, Any], result: Any, outputs: Sequence[str] | None = None
) -> Any:
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
        for part in parts:
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
    result = partial.kept if partial.kept is not None else _free(itertools.chain(output, *wrt))
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
            value, further = _child(_children(value) or {}, name)
            return _descend(partial, operand, 1, value, first + further)
    raise _misfit(
        partial,
        f"no argument named {name} was passed; there are {_listing(arguments) or 'none'}."
        + _did_you_mean(partial, operand, 0, arguments),
    )


def _find_output(partial: Partial, result: Any, outputs: Sequence[str] | None) -> _Part:
    operand = partial.output
    children = _children(result)
    if result is None:
        raise _misfit(partial, f"the function returns None, so there is no output {operand.name}.")
    if outputs is None and children is not None:
        return _descend(partial, operand, 0, result, 0)
    if outputs is None:  # the only output answers to any name
        if operand.path[0].isdigit() and int(operand.path[0]) > 0:
            raise _misfit(partial, _no_such_part(partial, operand, 0, result))
        return _descend(partial, operand, 1, result, 0)
    _check_outputs(outputs)
    if len(outputs) != (1 if children is None else len(result) if _is_sequence(result) else -1):
        its_own = children is not None and not _is_sequence(result)
        raise _misfit(
            partial,
            f"outputs={tuple(outputs)!r} names the positions of a tuple of length {len(outputs)}, "
            f"but the function returns {_describe(result)}."
            + ("\n  Leave outputs= out: the parts have names of their own." if its_own else ""),
        )
    position = _output_position(partial, outputs)
    if children is None:
        return _descend(partial, operand, 1, result, 0)
    return _descend(partial, operand, 1, *_child(children, str(position)))


def _descend(partial: Partial, operand: Operand, level: int, tree: Any, first: int) -> _Part:
    """Follow `operand.path[level:]` into `tree`, whose first leaf has position `first`, one key at a time."""
    path = operand.path
    while level < len(path):
        children = _children(tree)
        if children is None and path[level] in _BOX_KEYS and tree is not _unbox(tree):
            tree, level = _unbox(tree), level + 1
            continue
        key, taken = _match(children or {}, path[level:])
        if key is None:
            raise _misfit(partial, _no_such_part(partial, operand, level, tree))
        tree, further = _child(children or {}, key)
        first += further
        level += taken
    return _Part(operand, _unbox(tree), first)


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
        message = f"{holder} has no part {missing}; it is {_describe(tree)}."
    else:
        message = f"there is no output {missing}; the function returns {_describe(tree)}."
    children = _children(tree)
    if children is None:
        rank = np.ndim(tree) if _is_number(tree) else 0
        if missing.isdigit() and rank and holder:
            axes = ",".join([missing, *_letters(partial, rank - 1)])
            message += f"\n  A component is written in brackets: {holder}[{axes}]."
        return message
    keys = [
        key for key in children if all(re.fullmatch(rf"{_NAME}|{_INTEGER}", part) for part in key.split("."))
    ]
    if not holder and _is_sequence(tree):
        spelled = replace(partial, output=replace(operand, path=("0", *operand.path[1:])))
        message += f'\n  Name it by position, as in "{_spell(spelled)}", or name the outputs: outputs=(...).'
    if missing in getattr(tree, "__dict__", {}):
        message += f"\n  Its attribute {missing} is static, not a part of the pytree."
    if len(keys) < len(children):
        others = _listing(repr(key) for key in children if key not in keys)
        message += f"\n  A spec spells identifiers and positions only, so it cannot name {others}."
    return message + _did_you_mean(partial, operand, level, keys)


_BOX_KEYS = ("value", "raw_value")


def _children(tree: Any) -> dict[str, Any] | None:
    """The children of a pytree node by the spelling of their keys, in order; None for a leaf."""
    tree = _unbox(tree)
    if tree_util.all_leaves([tree]):
        return None
    found = tree_util.tree_flatten_with_path(tree, is_leaf=lambda y: y is not tree)[0]
    children: dict[str, Any] = {}
    for path, child in found:
        spelling = _spelling(path[0])
        while spelling in children:
            spelling += "'"  # keys spelled alike: only the first can be named
        children[spelling] = child
    return children


def _unbox(tree: Any) -> Any:
    """The array in a box that stands for its array, as a Flax `Variable` does; anything else as it is."""
    if not _is_array(tree) or tree_util.all_leaves([tree]):
        return tree
    found = tree_util.tree_flatten_with_path(tree, is_leaf=lambda y: y is not tree)[0]
    if len(found) == 1 and _spelling(found[0][0][0]) in _BOX_KEYS:
        return found[0][1]
    return tree


def _spelling(key: Any) -> str:
    for attribute in ("key", "idx", "name"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key).strip(".[]'\"")


# Checking what was found.


def _check_axes(partial: Partial, part: _Part) -> None:
    """What has its axes named is one array, of that many axes, with the positions asked for."""
    operand, axes = part.operand, part.operand.axes
    if axes is None:
        return
    leaves = tree_util.tree_leaves(part.tree)
    if len(leaves) != 1:
        raise _misfit(
            partial,
            f"{operand} names the axes of one array, but {part.name} is {_describe(part.tree)}."
            + (f"\n  Name one array of it, as in {_example(partial, part)}." if part.arrays else ""),
        )
    if not _is_number(leaves[0]):
        raise _misfit(partial, f"{operand} names axes, but {part.name} is {_describe(leaves[0])}.")
    shape = part.shape
    if len(shape) != len(axes):
        joined = len(axes) == 1 and isinstance(axes[0], str) and len(axes[0]) == len(shape)
        every = list(str(axes[0])) if joined else [*axes, *_letters(partial, len(shape))][: len(shape)]
        fitting = replace(operand, axes=tuple(every) or None)
        raise _misfit(
            partial,
            f"{operand} names {len(axes)} {'axis' if len(axes) == 1 else 'axes'}, but {part.name} "
            f"has {len(shape)}: its shape is {shape}.\n"
            f"  {'Name every axis' if shape else 'A scalar has no axes to name'}, as in {fitting}.",
        )
    for place, (axis, size) in enumerate(zip(axes, shape, strict=True)):
        if isinstance(axis, int) and axis >= size:
            raise _misfit(
                partial,
                f"{operand} asks for position {axis} on axis {place} of {part.name}, whose shape is "
                f"{shape}.\n  "
                + (f"Its positions there are 0 to {size - 1}." if size else "It is empty there."),
            )


def _check_differentiable(partial: Partial, part: _Part) -> None:
    leaves = tree_util.tree_leaves(part.tree)
    if any(map(_is_differentiable, leaves)) or (not leaves and part.tree is not None):
        return
    is_output = part.operand is partial.output
    is_leaf = part.tree is None or tree_util.all_leaves([part.tree])
    message = f'"{partial.text}": {part.name} is {_describe(part.tree)}'
    message += "" if is_leaf else ", with no floating-point array in it"
    message += f"; derivatives need floating-point {'outputs' if is_output else 'inputs'}."
    if is_output:
        value = _spell(replace(partial, wrt=(), kept=None))
        message += f'\n  Cast it inside the function, or ask for its value alone: "{value}".'
    elif not is_leaf or not _is_number(part.tree):
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
    unnamed = next(
        (part for part in parts if part.operand.axes is None and any(map(np.ndim, part.arrays))), None
    )
    if unnamed is None or (named is None and partial.kept is None):
        return
    size = len(tree_util.tree_leaves(unnamed.tree))
    of = f"{unnamed.name}, " + (f"of shape {unnamed.shape}," if size == 1 else f"a pytree of {size} leaves,")
    tree = next((part for part in parts if len(tree_util.tree_leaves(part.tree)) > 1), None)
    if tree is None:
        every = f'Name them all: "{_spell(_name_all(partial, parts))}"'
    else:
        every = f"Name one array at a time with its axes, as in {_example(partial, tree)}"
    bare = replace(
        partial,
        output=replace(partial.output, axes=None),
        wrt=tuple(replace(x, axes=None) for x in partial.wrt),
        kept=None,
    )
    if named is None:
        raise _misfit(
            partial,
            f"the arrow says which axes stay, but {of} names no axes.\n"
            f'  {every}, or keep all of them: "{_spell(bare)}".',
        )
    axes = _names(named.operand.axes or ())
    what = f"ax{'is' if len(axes) == 1 else 'es'} {_listing(axes)}"
    if not axes:
        what = f"position {_listing(named.operand.axes or ())}"
    only_names = all(isinstance(axis, str) for axis in _all_axes(partial))
    raise _misfit(
        partial,
        f"{what} {'are' if len(axes) > 1 else 'is'} named on {named.name} but {of} names no axes.\n"
        f"  {every}" + (f', or none: "{_spell(bare)}".' if only_names and partial.kept is None else "."),
    )


def _name_all(partial: Partial, parts: list[_Part]) -> Partial:
    """The spec with every axis named: first axes of one size by one name, the others by new letters."""
    batch = next(
        (x.operand.axes[0] for x in parts if x.operand.axes and isinstance(x.operand.axes[0], str)), None
    )
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
        return replace(new, kept=tuple(dict.fromkeys((*partial.kept, *_names(_all_axes(new))))))
    return _keep_shared(new) if partial.kept is None and _shared(new) else new


def _letters(partial: Partial, count: int) -> list[str]:
    """Axis names that the spec does not use."""
    used = set(_all_axes(partial))
    candidates = itertools.chain("ijklmnopqrstuvw", (f"i{n}" for n in itertools.count()))
    return list(itertools.islice((letter for letter in candidates if letter not in used), count))


def _example(partial: Partial, part: _Part) -> str:
    """One array of a pytree with its axes named, as a spec spells it."""
    found = tree_util.tree_flatten_with_path(part.tree)[0]
    numbers = [(path, np.ndim(leaf)) for path, leaf in found if _is_number(leaf)]
    path, rank = next((each for each in numbers if each[1]), numbers[0])
    keys = [_spelling(key) for key in path]
    if keys[-1] in _BOX_KEYS:
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
            raise _misfit(
                partial,
                f"{axis} names axes of two sizes, {other_size} and {size}: {where}.\n"
                "  Axes that differ in size need names that differ.",
            )


# Telling numbers from the rest, and describing both.


def _is_sequence(x: Any) -> bool:
    return isinstance(x, (tuple, list)) and not hasattr(x, "_fields")


def _is_array(x: Any) -> bool:
    return hasattr(x, "shape") and hasattr(x, "dtype")


def _is_number(x: Any) -> bool:
    return _is_array(x) or isinstance(x, (bool, int, float, complex))


def _is_differentiable(x: Any) -> bool:
    if not _is_array(x):
        return isinstance(x, (float, complex))
    try:
        return jnp.issubdtype(x.dtype, jnp.inexact)
    except TypeError:  # another library's array
        return False


def _describe(x: Any) -> str:
    """What something is, in a phrase that follows "is"."""
    if x is None:
        return "None"
    if _is_array(x):
        return f"{f'an array of shape {tuple(x.shape)} and' if x.shape else 'a scalar of'} dtype {x.dtype}"
    if isinstance(x, (bool, int, float, complex)):
        return f"the Python {type(x).__name__} {x}"
    if isinstance(x, str):
        return f"the string {x!r}"
    children = _children(x)
    if children is None and callable(x):
        return f"the function {getattr(x, '__name__', type(x).__name__)}"
    name = type(x).__name__
    kind = f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"
    if children is None:
        return kind
    if _is_sequence(x):
        return f"{kind} of length {len(x)}"
    return f"{kind} with {_listing(key for key in children if not key.startswith('_')) or 'nothing in it'}"
