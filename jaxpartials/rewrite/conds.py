"""Branchings in normal form, one or several as one."""

import itertools
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from jax import lax

from jaxpartials.graph.graph import Graph, Node, Value
from jaxpartials.rewrite.bodies import Equation, Inside, Origin, Pass, as_it_is, constants_of, is_known, place
from jaxpartials.rewrite.local import made_by, number


@dataclass
class Choice:
    """One conditional: the values outside that the inputs of its branches are, and the outputs wanted of it."""

    branches: Sequence[Graph]
    operands: Sequence[Value]
    avals: dict[int, Any]


def cond_part(outer: Graph, loop: Equation, used: Iterable[int] | None = None) -> Choice:
    wanted = range(len(loop.avals)) if used is None else sorted(used)
    return Choice(loop.bodies, loop.operands[1:], {i: loop.avals[i] for i in wanted})


def cond(
    outer: Graph,
    index: Value,
    parts: Sequence[Choice],
    origin: Origin,
    tidy: Pass = as_it_is,
    sunk: Collection[Node] = (),
) -> list[list[Value]]:
    """One conditional in normal form that does what the parts do, all by one index.

    cond(i, b_0, b_1, ...) -> b_i for a known i, and cond(i, b, b, ...) -> b. An output that is the same operand in all
    branches is that operand; one that is the same known number is that number.
    """
    count = len(parts[0].branches)
    chosen = known_branch(index, count)
    numbers = range(count) if chosen is None else [chosen]
    rooms = [Inside(outer, sunk) for _ in numbers]
    columns: list[list[Value]] = []  # for each branch, the outputs of all parts
    for room, i in zip(rooms, numbers, strict=True):
        column = []
        for part in parts:
            branch = part.branches[i]
            known = {v: room.const(value) for v, value in zip(branch.inputs, part.operands, strict=True)}
            known |= {v: room.const(value) for v, value in constants_of(outer, branch)}
            wanted = [branch.outputs[k] for k in part.avals]
            done = room.graph.include(wanted, known)
            column += [done[v] for v in wanted]
        columns.append(list(tidy(room.graph, column)))
    rows = list(zip(*columns, strict=True))
    avals = dict(zip(rows, (aval for part in parts for aval in part.avals.values()), strict=True))
    results = {row: same for row in avals if (same := common(outer, rooms, row)) is not None}
    apart = [row for row in avals if row not in results]
    if apart:
        outputs = list(zip(*apart, strict=True))
        needed = [room.needed(room.consts, column) for room, column in zip(rooms, outputs, strict=True)]
        operands = list(dict.fromkeys(itertools.chain(*needed)))
        for room, column in zip(rooms, outputs, strict=True):
            room.graph.inputs, room.graph.outputs = [room.const(v) for v in operands], list(column)
        if len({room.graph.fingerprint for room in rooms}) == 1:
            done = outer.include(outputs[0], rooms[0].outside)
            found = [done[v] for v in outputs[0]]
        else:
            graphs = [room.graph for room in rooms]
            found = place(outer, lax.cond_p, [index, *operands], {}, graphs, [avals[row] for row in apart], origin)
        results.update(zip(apart, found, strict=True))
    dealt = iter(rows)
    return [[results[next(dealt)] for _ in part.avals] for part in parts]


def known_branch(index: Value, count: int) -> int | None:
    """The branch that is taken, where that is known: an index out of range takes the nearest."""
    limits = [(0, count - 1)]
    while made_by(index, "clamp"):
        low, index, high = index.node.operands
        least, most = number(low), number(high)
        if least is None or most is None:
            return None
        limits.append((int(least), int(most)))
    found = number(index)
    if found is None:
        return None
    chosen = int(found)
    for least, most in reversed(limits):
        chosen = min(max(chosen, least), most)
    return chosen


def common(outer: Graph, rooms: Sequence[Inside], row: Sequence[Value]) -> Value | None:
    """The value outside that an output is in all branches."""
    found = set()
    for room, v in zip(rooms, row, strict=True):
        value = room.outside.get(v)
        if value is None and is_known(v):
            value = outer.include([v], {})[v]
        found.add(value)
    return found.pop() if len(found) == 1 else None
