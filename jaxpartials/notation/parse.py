"""Reading: the text of a spec made into a `Partial`, and its names compared with a function's signature.

    partial  =  output [ "/" wrt { wrt } ] [ "->" axes ]
    output   =  path [ "[" axes "]" ]           wrt  =  path [ "[" axes "]" ] [ "^" order ]
    path     =  name { "." name }               axes =  axis { (space | comma) axis }
    axis     =  letter-name or integer

Nothing here knows an array; `resolve` fits what was read to those.
"""

import inspect
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, NoReturn

from jax import tree_util

from jaxpartials.errors import NotationError
from jaxpartials.notation.spec import (
    Axis,
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
from jaxpartials.notation.tree import describe, listing

_SUPERSCRIPT = "[²³¹⁰⁴-⁹]"
_NAME = rf"(?!{_SUPERSCRIPT})[^\W\d](?:(?!{_SUPERSCRIPT})\w)*"  # an identifier
_AXIS = rf"(?!{_SUPERSCRIPT})[^\W\d_](?:(?!{_SUPERSCRIPT})\w)*"  # an identifier that starts with a letter
_INTEGER = r"[0-9]+(?!\w)"
PART = rf"{_NAME}|{_INTEGER}"

# What people write instead: a pattern where something else was expected, and the spelling that works.
_SEVERAL = (r";", 'One spec asks for one partial; several are a list or a dict of specs: ["u", "u/x"].')
_HABITS = (
    _SEVERAL,
    (rf"\*\*|{_SUPERSCRIPT}", 'A power is written with ^: "u/x^2".'),
    (r"\*", 'Inputs are separated by spaces: "u/x y".'),
    (r"/", 'Inputs are separated by spaces: "u/x y" is a second derivative.'),
    (r",", 'Inputs are separated by spaces, "u/x y"; commas separate axes, "u/x[i,j]".'),
    (r"\(", 'Axes are written in square brackets: "u/x[i]".'),
    (r"\^", 'A power belongs to an input and comes after its axes: "u/x[i]^2".'),
    (r"-", 'The arrow is written "->", and a part is named by an identifier or a position.'),
    (r"=>|→|⟶|>", 'The arrow is written "->".'),
)
_START_HABITS = (
    (r"/|-|$", 'A spec starts with the name of an output: "u", "u/x".'),
    (r"\(", 'A spec starts with the name of an output, and axes are written in square brackets: "u[b]".'),
    (r"∂", 'The derivative of u with respect to x is written "u/x".'),
)
_AXIS_HABITS = (
    (
        r"\.\.\.|…",
        'Every axis is named, as in "u[b]/X[b,i] -> b i", or none, as in "u/X"; nothing stands for the others.',
    ),
    (r"\(", 'Axes are separated by spaces or commas, and not grouped: "u/x[i,j]".'),
    _SEVERAL,
    (r"$|/|->", 'The bracket "[" is not closed.'),
    (r"['\"]", 'A part of a pytree is named after a dot: "y/params.w".'),
    (r":|\.", 'An axis that stays is named, as in "u[b]/X[b,0] -> b"; there are no slices.'),
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
    (r"[\[(]", 'The axes that stay are listed without brackets: "-> b i".'),
    (r"\.\.\.|…", 'Every axis that stays is listed: "-> b i".'),
    _SEVERAL,
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
    output = _read_operand(reader, "the name of an output", PART, _START_HABITS)
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
            (
                r"\[",
                'A part of a pytree is named after a dot: "y/params.w[i,j]".'
                if order is None
                else 'Axes come before the order: "u/x[i]^2".',
            ),
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
                f"wanted{where} is {describe(leaf)}.\n"
                '  It takes specs, strings such as "u/x^2": one, or a dict, list or any other pytree of them.'
            )
    return tuple(parse(leaf) for _, leaf in leaves), treedef


def _read_operand(reader: _Reader, expected: str, first: str, habits: Iterable[tuple[str, str]]) -> Operand:
    name = reader.take(first)
    if name is None:
        reader.fail(expected, habits)
    path = [name]
    while reader.take(r"\."):
        part = reader.take(PART)
        if part is None:
            reader.fail(
                "a key, attribute or position",
                [
                    (r"\.", "Every axis is named, or none: nothing stands for the others."),
                    ("", "A part is named by an identifier or a position: params.layers.0.weight."),
                ],
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
    known = axis_names(axis for operand in operands for axis in operand.axes or ())
    kept: list[str] = []
    comma = None
    while comma or not reader.sees("$"):
        reader.skip()
        start, axis = reader.at, reader.take(_AXIS)
        if axis is None:
            reader.fail("an axis that stays" if comma or not kept else "another axis or the end", _KEPT_HABITS)
        if axis not in known or axis in kept:
            reader.at = start
            hint = f"No array names an axis {axis}" + (f"; they name {listing(known)}." if known else ".")
            if axis in kept:
                hint = f"The axis {axis} is listed twice."
            reader.fail("an axis of the output or an input, once,", [("", hint)])
        kept.append(axis)
        comma = reader.take(",")
    return tuple(kept)


def _check_shared_axes(partial: Partial) -> None:
    """A silent sum over the batch is the classic mistake, so an axis on both sides of "/" has no default."""
    shared = shared_axes(partial)
    if partial.kept is not None or not shared:
        return
    keep, total = keep_shared(partial), replace(partial, kept=free_axes(all_axes(partial)))
    holders = dict.fromkeys(x.name for x in partial.wrt if set(shared) & set(x.axes or ()))
    axis, it = ("axis", "it") if len(shared) == 1 else ("axes", "them")
    raise misfit(
        partial,
        f"the output {partial.output.name} and the input{'s' * (len(holders) > 1)} {listing(holders)} "
        f"share the {axis} {listing(shared)}, and nothing says whether to keep {it} or to sum over {it}.\n"
        f'  Keep {it}: "{spell(keep)}", or sum: "{spell(total)}".',
    )


# ----------------------------------------------------------------------------------------------------------
# Comparing with the signature
# ----------------------------------------------------------------------------------------------------------


def check_signature(partial: Partial, signature: inspect.Signature, outputs: Sequence[str] | None) -> None:
    """Check the names that are known before there are any arrays: the arguments', and the outputs' if given.

    Raises: NotationError for a name that is not there, with the nearest one that is.
    """
    if outputs is not None:
        check_outputs(outputs)
        output_position(partial, outputs)
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in signature.parameters.values()):
        return
    names = list(signature.parameters)
    for operand in partial.wrt:
        if unicodedata.normalize("NFKC", operand.path[0]) not in names:
            has = f"its arguments are {listing(names)}" if names else "it takes no arguments"
            raise misfit(
                partial,
                f"the function has no argument named {operand.path[0]}; {has}."
                + did_you_mean(partial, operand, 0, names),
            )


def check_outputs(outputs: Sequence[str]) -> None:
    if isinstance(outputs, str):
        raise NotationError(f'outputs="{outputs}" should be a tuple of names: outputs=("{outputs}",).')
    for name in outputs:
        if not isinstance(name, str) or not re.fullmatch(_NAME, name):
            raise NotationError(f"outputs={outputs!r}: {name!r} is not a name that a spec can spell.")
    if len(set(outputs)) < len(outputs):
        raise NotationError(f"outputs={outputs!r}: every output needs a name of its own.")


def output_position(partial: Partial, outputs: Sequence[str]) -> int:
    name = partial.output.path[0]
    if name in outputs:
        return outputs.index(name)
    if name.isdigit() and int(name) < len(outputs):
        return int(name)
    raise misfit(
        partial,
        f"there is no output named {name}; outputs= names {listing(outputs)}."
        + did_you_mean(partial, partial.output, 0, outputs),
    )
