"""Carries that are always equal, found by optimistic partition refinement.

Carries with equal initial values are taken for one, the body is rebuilt with one input for each class, which makes
equal equations one node, and classes whose next values differ are split, until none does. That a class is one is then
an induction over the turns. In the same way a carry is taken to keep the number it starts from until it is seen not to.

Source: Alpern, Wegman & Zadeck, Detecting equality of variables in programs, POPL 1988.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from jaxpartials.graph.graph import Graph, Node, Value
from jaxpartials.rewrite.bodies import Carry, Inside, Part, Pass, is_known

# Rounds of refinement after which carries not yet proved equal are left apart.
ROUNDS = 50


@dataclass
class Settled:
    """A body with one input for each class of carries, and what the parts' carries and ys are in it."""

    inside: Inside
    labels: list[int]  # the class of each carry
    held: dict[int, Value]  # classes that never change: their values, outside
    heads: list[Value]  # of each carry: its value in the body ...
    nexts: list[Value]  # ... and at the next turn
    ys: list[Value]


def settle(outer: Graph, parts: Sequence[Part], tidy: Pass) -> Settled:
    """The coarsest classes of carries that stay equal, by refinement; linear work in each round."""
    carries = [carry for part in parts for carry in part.carries]
    first: dict[Value, int] = {}
    labels = [first.setdefault(carry.init, len(first)) for carry in carries]
    count = len(first)
    held = {label: carry.init for label, carry in zip(labels, carries, strict=True) if is_known(carry.init)}
    for _ in range(ROUNDS):
        state = attempt(outer, parts, labels, held, tidy)
        refined, kept = split(state, carries)
        if len(set(refined)) == count and len(kept) == len(held):
            # A carry that is handed on as it came needs no induction.
            still = {
                label: carry.init
                for label, carry, head, step in zip(labels, carries, state.heads, state.nexts, strict=True)
                if head is step and label not in held
            }
            if not still:
                return state
            held = held | still
        else:
            labels, held, count = refined, kept, len(set(refined))
    return attempt(outer, parts, list(range(len(carries))), {}, tidy)


def attempt(
    outer: Graph,
    parts: Sequence[Part],
    labels: list[int],
    held: dict[int, Value],
    tidy: Pass,
    sunk: Collection[Node] = (),
) -> Settled:
    """The body rebuilt as if the carries of one label were equal, and those `held` never changed."""
    inside = Inside(outer, sunk)
    heads, nexts, ys = [], [], []
    label = iter(labels)
    for part in parts:
        known = {v: inside.const(value) for v, value in part.consts}
        known |= {v: inside.x(value) for v, value in part.xs}
        for carry in part.carries:
            which = next(label)
            head = inside.const(held[which]) if which in held else inside.carry(which, carry.inside.aval)
            known[carry.inside] = head
            heads.append(head)
        done = inside.graph.include([*(c.next for c in part.carries), *(y for y, _ in part.ys)], known)
        nexts += [done[carry.next] for carry in part.carries]
        ys += [done[y] for y, _ in part.ys]
    tidied = list(tidy(inside.graph, [*nexts, *ys]))
    return Settled(inside, labels, held, heads, tidied[: len(nexts)], tidied[len(nexts) :])


def split(state: Settled, carries: Sequence[Carry]) -> tuple[list[int], dict[int, Value]]:
    """The classes divided by their next values, and those that did not change, held as before."""
    numbers: dict[Any, int] = {}
    labels, held = [], {}
    for label, carry, head, step in zip(state.labels, carries, state.heads, state.nexts, strict=True):
        stays = label in state.held and step is head
        new = numbers.setdefault((label, None if stays else step), len(numbers))
        labels.append(new)
        if stays:
            held[new] = carry.init
    return labels, held


def classes(state: Settled, carries: Sequence[Carry]) -> dict[int, Carry]:
    """The carries that are left: one for each class that changes."""
    found: dict[int, Carry] = {}
    for label, carry, head, step in zip(state.labels, carries, state.heads, state.nexts, strict=True):
        if label not in state.held:
            found.setdefault(label, Carry(head, carry.init, step, carry.aval))
    return found


def deal(parts: Sequence[Part], state: Settled, last: dict[int, Value], ys: Sequence[Value]) -> list[list[Value]]:
    """The results of the whole, dealt out to the parts."""
    finals = iter([state.held[label] if label in state.held else last[label] for label in state.labels])
    stacks = iter(ys)
    return [[*(next(finals) for _ in part.carries), *(next(stacks) for _ in part.ys)] for part in parts]
