"""One thing that a program does and need not do."""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from jaxpartials import _jax
from jaxpartials.graph.cost import Cost, cost, total
from jaxpartials.graph.graph import Node

# The kinds of findings, as they are printed and as `ignore` takes them.
TWICE = "computed twice"
UNUSED = "never used"
EQUAL_CARRIES = "carries always equal"
INVARIANT = "the same at every turn"
LOOPS = "loops that could be one"
THROWN_AWAY = "asked for and thrown away"
ZEROS = "zeros computed"
WRONG_MODE = "wrong mode"
SUPERSET = "contained in another"
ADDED = "added by XLA"
UNDONE = "checkpoint undone"
KINDS = (TWICE, UNUSED, EQUAL_CARRIES, INVARIANT, LOOPS, THROWN_AWAY, ZEROS, WRONG_MODE, SUPERSET, ADDED, UNDONE)

# NumPy's functions call those of arrays: nothing that the user wrote.
_NUMPY = os.path.dirname(np.__file__) + os.sep

REMOVED, KEPT, UNKNOWN = "removed", "kept", "unknown"


class Place(NamedTuple):
    """A line of the user's code."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{self.file.replace(chr(92), '/').rsplit('/', 1)[-1]}:{self.line} ({self.function})"


class Work(NamedTuple):
    """An equation as traced, how often it runs, and how often it need not."""

    node: Node
    runs: float
    spare: float

    @property
    def cost(self) -> Cost:
        return self.spare * cost(self.node)


@dataclass(frozen=True)
class Finding:
    """Work that a program does and need not do.

    Attributes:
        kind: one of `KINDS`.
        places: the lines of the user's code involved, those with most of the work first.
        cost: what would be saved, loop bodies times their turns; of a checkpoint undone, what was to be done again.
        share: that part of the estimated time of the whole program as traced, from 0 to 1.
        message: what was found, in one sentence.
        advice: what to write instead.
        xla: whether XLA removes it on this backend, "removed", "kept" or "unknown".
        factor: how many times dearer the program takes its way than the better one, where that is known.
        work: the equations involved, and how often each need not run.
    """

    kind: str
    places: tuple[Place, ...]
    cost: Cost
    share: float
    message: str
    advice: str
    xla: str = UNKNOWN
    factor: float | None = None
    work: tuple[Work, ...] = field(default=(), repr=False, compare=False)

    @property
    def operations(self) -> float:
        return self.cost.flops + self.cost.transcendentals

    def __str__(self) -> str:
        where = ", ".join(map(str, self.places)) or "an unknown line"
        return f"{self.kind} ({self.share:.1%}, XLA: {self.xla}) at {where}: {self.message} {self.advice}"


def finding(
    kind: str, work: Iterable[Work], whole: Cost, message: str, advice: str, *,
    saved: Cost | None = None, places: Sequence[Place] | None = None, factor: float | None = None,
) -> Finding:  # fmt: skip
    """A finding on this work, in a program that costs `whole`."""
    work = tuple(work)
    found = total(each.cost for each in work) if saved is None else saved
    share = min(found.time / whole.time, 1.0) if whole.time else 0.0
    where = places_of(work) if places is None else tuple(places)
    return Finding(kind, where, found, share, message, advice, factor=factor, work=work)


def place(node: Node) -> Place | None:
    """The innermost line of the user's own code; of an installed library where there is no other."""
    line = node.line
    if line is None or not _installed(line[0]):
        return None if line is None else Place(*line)
    return next(iter(calls(node)), None)


def calls(node: Node) -> list[Place]:
    """The lines of the user's own code around an equation, innermost first."""
    lines = frames(node)
    return [line for line in lines if not _installed(line.file)] or lines


def frames(node: Node) -> list[Place]:
    """The same with the lines of installed libraries."""
    return [Place(*line) for line in _jax.user_lines(node.source) if not line[0].startswith(_NUMPY)]


def library(file: str) -> str | None:
    """The installed library that a file belongs to."""
    if not _installed(file):
        return None
    return re.split(r"-packages[/\\]", file)[-1].replace("\\", "/").split("/")[0].removesuffix(".py")


def _installed(file: str) -> bool:
    return "site-packages" in file or "dist-packages" in file


def places_of(work: Iterable[Work]) -> tuple[Place, ...]:
    """The lines that equations come from, those with most work first."""
    times: dict[Place, float] = {}
    for each in work:
        where = place(each.node)
        if where is not None:
            times[where] = times.get(where, 0.0) + each.cost.time
    return tuple(sorted(times, key=lambda where: (-times[where], where)))
