"""Where the wrong points lie, in words."""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxpartials.stability.ranges import Leaf

Array = np.ndarray[Any, Any]

GAP = 4  # right points between two wrong ones that do not part a region
MOST = 4  # regions of one derivative


class Region(NamedTuple):
    """Some of the points, and how to say which."""

    rows: Array
    text: str


def regions(leaves: Sequence[Leaf], bad: Array, known: Array) -> list[Region]:
    """The wrong points: in intervals of the one argument that varies, else all together in a box."""
    if not bad.any():
        return []
    varied = [leaf for leaf in leaves if leaf.real and leaf.range is not None]
    if len(varied) == 1 and varied[0].shape == ():
        return _intervals(varied[0], bad, known)
    rows = np.flatnonzero(bad)
    told = [text for leaf in varied if (text := _box(leaf, rows))]
    return [Region(rows, ", ".join(told) or "throughout" if varied else "at the arguments given")]


def _intervals(leaf: Leaf, bad: Array, known: Array) -> list[Region]:
    order = [i for i in np.argsort(leaf.sample, kind="stable") if known[i]]
    groups: list[list[int]] = []
    last = -GAP - 2
    for position, i in enumerate(order):
        if bad[i]:
            if position - last > GAP + 1:
                groups.append([])
            groups[-1].append(int(i))
            last = position
    while len(groups) > MOST:
        # The two that lie nearest become one.
        place = {i: position for position, i in enumerate(order)}
        gaps = [place[b[0]] - place[a[-1]] for a, b in itertools.pairwise(groups)]
        k = int(np.argmin(gaps))
        groups[k : k + 2] = [groups[k] + groups[k + 1]]
    return [Region(np.asarray(group), _interval(leaf.name, leaf.sample[group])) for group in groups]


def _interval(name: str, values: Array) -> str:
    low, high = float(values.min()), float(values.max())
    return f"{name} = {low:.2g}" if low == high else f"{name} in [{low:.2g}, {high:.2g}]"


def _box(leaf: Leaf, rows: Array) -> str:
    """The sizes of an argument at the wrong points, "" where they are those of its whole range."""
    sizes, here = (np.abs(leaf.sample[which].astype(np.float64)) for which in (slice(None), rows))
    low, high = float(here.min()), float(here.max())
    lowest, highest = float(sizes.min()), float(sizes.max())
    if low <= 100 * lowest and high >= highest / 100:
        return ""
    sign = "" if leaf.range is not None and leaf.range.low >= 0 else "|"
    return f"{sign}{leaf.name}{sign} in [{low:.2g}, {high:.2g}]"
