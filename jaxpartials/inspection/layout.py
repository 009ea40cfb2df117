"""Where the boxes of a graph stand on a page: layers by longest path, order within them by barycentre.

Time and memory are linear in boxes and edges but for the sorting of layers: no edge is cut into more than `WIRE`
pieces, and the passes that order the layers are a few.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

# Free space between neighbours and between layers, and the width of a wire that goes past a box.
BESIDE, BETWEEN, THIN = 14.0, 30.0, 9.0
# An edge over fewer layers than these goes round the boxes in them, a longer one straight over.
WIRE = 10
# A layer wider than this, and than the page is high, becomes several.
WIDEST = 2600.0
# Beside boxes higher than this a wire runs straight down.
HIGH = 60.0


@dataclass(frozen=True)
class Segment:
    """A piece of a wire that begins at box `source`; `target` is the box it ends at, or -1 between pieces."""

    x0: float
    y0: float
    x1: float
    y1: float
    source: int
    target: int


@dataclass(frozen=True)
class Layout:
    """The left upper corners of boxes, the wires between them, and the size of all."""

    corners: list[tuple[float, float]]
    segments: list[Segment]
    width: float
    height: float


def layered(sizes: Sequence[tuple[float, float]], edges: Sequence[tuple[int, int]]) -> Layout:
    """Lay out boxes of these sizes (width, height), each edge from a box to a later one, from top to bottom."""
    if not sizes:
        return Layout([], [], 0.0, 0.0)
    assert all(a < b for a, b in edges)
    layer = _split_wide(_longest_paths(len(sizes), edges), sizes)
    widths = [width for width, _ in sizes]
    before: list[list[int]] = [[] for _ in sizes]
    after: list[list[int]] = [[] for _ in sizes]
    pieces: list[tuple[int, int, int, int]] = []  # from, to, source, target

    def connect(a: int, b: int, source: int) -> None:
        after[a].append(b)
        before[b].append(a)
        pieces.append((a, b, source, b if b < len(sizes) else -1))

    # The readers of a box within reach hang on one wire.
    wires: dict[int, list[int]] = {}
    for a, b in dict.fromkeys(edges):
        span = layer[b] - layer[a]
        if span > WIRE:
            connect(a, b, a)
            continue
        wire = wires.setdefault(a, [a])
        while len(wire) < span:
            end = len(widths)
            widths.append(THIN)
            layer.append(layer[a] + len(wire))
            before.append([])
            after.append([])
            connect(wire[-1], end, a)
            wire.append(end)
        connect(wire[span - 1], b, a)

    rows: list[list[int]] = [[] for _ in range(max(layer) + 1)]
    for i, row in enumerate(layer):
        rows[row].append(i)
    x = _across(rows, widths, before, after)
    left = min(x[i] - widths[i] / 2 for i in range(len(x)))

    tops, depths, height = [], [], 0.0
    for row in rows:
        depth = max((sizes[i][1] for i in row if i < len(sizes)), default=0.0)
        tops.append(height)
        depths.append(depth)
        height += depth + BETWEEN
    height -= BETWEEN
    middle = [tops[layer[i]] + depths[layer[i]] / 2 for i in range(len(x))]

    def half(i: int) -> float:
        if i < len(sizes):
            return sizes[i][1] / 2
        return depths[layer[i]] / 2 if depths[layer[i]] > HIGH else 0.0

    segments = [
        Segment(x[a] - left, middle[a] + half(a), x[b] - left, middle[b] - half(b), source, target)
        for a, b, source, target in pieces
    ]
    segments += [
        Segment(x[i] - left, tops[layer[i]], x[i] - left, tops[layer[i]] + depths[layer[i]], wire[0], -1)
        for wire in wires.values()
        for i in wire[1:]
        if depths[layer[i]] > HIGH
    ]
    corners = [(x[i] - left - widths[i] / 2, middle[i] - sizes[i][1] / 2) for i in range(len(sizes))]
    width = max(x[i] - left + widths[i] / 2 for i in range(len(x)))
    return Layout(corners, segments, width, height)


def _longest_paths(count: int, edges: Sequence[tuple[int, int]]) -> list[int]:
    """The layer of each box: below all that it reads. What reads nothing stands just above its first reader."""
    layer = [0] * count
    first = [count] * count
    reads = [False] * count
    for a, b in sorted(edges, key=lambda edge: edge[1]):
        layer[b] = max(layer[b], layer[a] + 1)
        reads[b] = True
    for a, b in edges:
        first[a] = min(first[a], layer[b])
    return [layer[i] if reads[i] or first[i] == count else first[i] - 1 for i in range(count)]


def _split_wide(layer: list[int], sizes: Sequence[tuple[float, float]]) -> list[int]:
    """Layers with more boxes than fit beside each other become several; no edge joins boxes of one layer."""
    widest = max(WIDEST, 1.6 * math.sqrt(sum((w + BESIDE) * (h + BETWEEN) for w, h in sizes)))
    rows: list[list[int]] = [[] for _ in range(max(layer) + 1)]
    for i, row in enumerate(layer):
        rows[row].append(i)
    split, here = [0] * len(layer), -1
    for row in rows:
        here, used = here + 1, 0.0
        for i in row:
            width = sizes[i][0] + BESIDE
            if used and used + width > widest:
                here, used = here + 1, 0.0
            split[i] = here
            used += width
    return split


def _across(rows: list[list[int]], widths: list[float], before: list[list[int]], after: list[list[int]]) -> list[float]:
    """The centres of the boxes: each near the mean of its neighbours, none over another."""
    x = [0.0] * len(widths)
    for row in rows:
        # At first in the order of the program, each row about the same middle.
        total = sum(widths[i] + BESIDE for i in row)
        here = -total / 2
        for i in row:
            x[i] = here + (widths[i] + BESIDE) / 2
            here += widths[i] + BESIDE
    both = [above + below for above, below in zip(before, after, strict=True)]
    for order, near in ((rows, before), (rows[::-1], after), (rows, before), (rows[::-1], both)):
        for row in order:
            wish = [sum(x[j] for j in near[i]) / len(near[i]) if near[i] else x[i] for i in row]
            ranked = sorted(range(len(row)), key=wish.__getitem__)
            row[:] = [row[k] for k in ranked]
            for i, centre in zip(row, _apart([wish[k] for k in ranked], [widths[i] for i in row]), strict=True):
                x[i] = centre
    return x


def _apart(wish: Sequence[float], widths: Sequence[float]) -> list[float]:
    """The centres nearest to the wished ones, in squares, at which boxes in this order do not overlap.

    With the boxes pushed together on the left the wishes need only not decrease: pool adjacent violators.
    """
    pushed, here = [], 0.0
    for width in widths:
        pushed.append(here + width / 2)
        here += width + BESIDE
    blocks: list[tuple[float, int]] = []  # sum of wishes, how many
    for want, at in zip(wish, pushed, strict=True):
        total, count = want - at, 1
        while blocks and blocks[-1][0] * count >= total * blocks[-1][1]:
            more, others = blocks.pop()
            total, count = total + more, count + others
        blocks.append((total, count))
    shifts = [total / count for total, count in blocks for _ in range(count)]
    return [at + shift for at, shift in zip(pushed, shifts, strict=True)]
