"""What the notation says: an operand, a partial, and the blocks a partial comes to once arrays are known."""

import difflib
import itertools
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from jaxpartials.errors import NotationError

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


def shared_axes(partial: Partial) -> list[str]:
    """The axes named by both the output and an input."""
    return [name for name in axis_names(partial.output.axes or ()) if any(name in (x.axes or ()) for x in partial.wrt)]


def keep_shared(partial: Partial) -> Partial:
    """The spec with an arrow that keeps the shared axes, and whatever stays without it."""
    stay = {*shared_axes(partial), *free_axes(all_axes(partial))}
    return replace(partial, kept=tuple(name for name in axis_names(all_axes(partial)) if name in stay))


def all_axes(partial: Partial) -> list[Axis]:
    return [axis for operand in partial.operands for axis in operand.axes or ()]


def misfit(partial: Partial, message: str) -> NotationError:
    return NotationError(f'"{partial.text}": {message}')


def axis_names(axes: Iterable[Axis]) -> list[str]:
    return list(dict.fromkeys(axis for axis in axes if isinstance(axis, str)))


def free_axes(axes: Iterable[Axis]) -> tuple[str, ...]:
    """The axes that stay when there is no arrow: those named once, in order of appearance."""
    return tuple(axis for axis, count in Counter(axes).items() if count == 1 and isinstance(axis, str))


def spell(partial: Partial) -> str:
    """The spec in its plainest spelling."""
    text = str(partial.output)
    runs = [(x, len(list(run))) for x, run in itertools.groupby(partial.wrt)]
    if runs:
        text += "/" + " ".join(str(x) if order == 1 else f"{x}^{order}" for x, order in runs)
    if partial.kept is not None:
        text += " ->" + "".join(f" {axis}" for axis in partial.kept)
    return text


def did_you_mean(partial: Partial, operand: Operand, level: int, names: Iterable[str]) -> str:
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
    return f'\n  Did you mean "{spell(partial)}"?'
