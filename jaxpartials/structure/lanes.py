"""What the lane rules speak of: where the lanes of a value lie, if they lie anywhere.

A program has B lanes when some of its inputs have an axis of length B, one slice per lane. A value keeps its
lanes apart when each of its elements depends on one lane alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from jaxpartials.graph.graph import Node


@dataclass(frozen=True)
class Free:
    """The value depends on no lane."""


@dataclass(frozen=True)
class Lane:
    """Element i depends on lane `(i[axis] // stride) % B` alone.

    The stride makes reshapes exact that merge axes: (B, N) to (B * N,) has stride N, (N, B) to (N * B,) stride 1.
    The length of the axis is always a multiple of `stride * B`.
    """

    axis: int
    stride: int = 1


@dataclass(frozen=True)
class Iteration:
    """The whole value depends on one lane: iteration i of the loop around it works on lane `(i // stride) % B`."""

    stride: int = 1


@dataclass(frozen=True)
class Mixed:
    """Why the lanes of a value are not apart.

    `node` is the operation that mixes them, the innermost one for a loop or a branch, or None when it is not an
    operation; `reason` is one phrase for a person.
    """

    node: Node | None
    reason: str

    def __str__(self) -> str:
        return self.reason if self.node is None else f"{self.reason}, at {self.node.where}"


State = Free | Lane | Iteration | Mixed
FREE = Free()
Key = tuple[int, int]  # of a value: the number of its node, its place among the node's outputs


class Mixes(Exception):
    """Raised by a rule that cannot keep the lanes apart: with a phrase, or with the operand that is mixed already."""

    def __init__(self, why: str | Mixed):
        super().__init__(str(why))
        self.why = why


def lane_of(state: State) -> Lane:
    """The lane of an operand, for a rule that moves its axes."""
    if isinstance(state, Mixed):
        raise Mixes(state)
    assert isinstance(state, Lane), state
    return state


def moved(lane: Lane, axis: int) -> Lane:
    return replace(lane, axis=axis)


def common(states: Sequence[State]) -> State:
    """The state of what is computed element by element from values in these states."""
    found: State = FREE
    for state in states:
        if isinstance(state, Mixed):
            raise Mixes(state)
        if state in (FREE, found):
            continue
        if found != FREE:
            raise Mixes(f"pairs lanes along {described(found)} with lanes along {described(state)}")
        found = state
    return found


def joined(node: Node, first: State, second: State) -> State:
    """The state of a value that is now this, now that: of a carry before and after, of two branches."""
    if isinstance(first, Mixed) or second in (first, FREE):
        return first
    if first == FREE or isinstance(second, Mixed):
        return second
    return Mixed(node, f"{node.name} has lanes along {described(first)} here and along {described(second)} there")


def described(state: State) -> str:
    if isinstance(state, Iteration):
        return "the iterations"
    assert isinstance(state, Lane)
    return f"axis {state.axis}" + (f" with stride {state.stride}" if state.stride != 1 else "")


def reshaped(lane: Lane, old: Sequence[int], new: Sequence[int], lanes: int) -> Lane | None:
    """Where the lanes of an array of shape `old` lie once it has the shape `new`; None if along no single axis."""
    # In row-major order element k belongs to lane (k // stride) % lanes.
    stride = size(old[lane.axis + 1 :]) * lane.stride
    inner = 1
    for axis in reversed(range(len(new))):
        outer = inner * new[axis]
        if inner and stride % inner == 0 and outer % (stride * lanes) == 0:
            return Lane(axis, stride // inner)
        inner = outer
    return None


def size(shape: Sequence[Any]) -> int:
    return int(np.prod([int(n) for n in shape], dtype=np.int64))
