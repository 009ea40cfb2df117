"""One partial: the ways in which it might be computed, and those of them that are built.

A first estimate, the number of passes and what one costs, says which are worth building: tracing takes time.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from jaxpartials import _jax
from jaxpartials.at_once import POLARISED, TAYLOR, at_once
from jaxpartials.derive import FORWARD, REVERSE, Candidate, Deriver, Stage, count_passes
from jaxpartials.errors import DerivativeError
from jaxpartials.graph.cost import Cost, cost_of
from jaxpartials.graph.graph import Value
from jaxpartials.notation import Block, Partial
from jaxpartials.refusals import dtype_refusal, refusal_of
from jaxpartials.rewrite.pipeline import settle
from jaxpartials.structure.axes import independent
from jaxpartials.taylor import Unsuitable

# Tracing a candidate costs time, so those far behind by a first estimate are not built: how many times dearer than
# the cheapest a candidate may look, by order.
PROSPECTS = {1: 8.0, 2: 3.0}
CLOSE = 1.2
# One forward pass computes value and tangent; a reverse pass also keeps and reads back what it needs.
PASS_COST = {FORWARD: 2.0, REVERSE: 3.0}
# At most so many candidates of one partial are built, by order.
MOST = {1: 4, 2: 6}
# From this order on all orders are also taken at once. That costs little to build and is what most often wins: of the
# towers the most promising will do.
AT_ONCE = 3
# At order two it differs by how arrays are laid out, which tells where a partial takes longer than this, in seconds.
LONG = 2e-4


@dataclass
class Choice:
    """One candidate of one partial, built: its values, one per block, in the shared graph."""

    candidate: Candidate
    values: list[Value]
    passes: int
    alone: Cost


@dataclass
class Wanted:
    partial: Partial
    blocks: Sequence[Block]
    lanes: frozenset[str] = frozenset()
    apart: Mapping[str, float] = field(default_factory=dict)  # names that one reverse pass keeps apart
    notes: list[str] = field(default_factory=list)
    siblings: Sequence[Sequence[int]] = ()  # by slot, the input leaves that one reverse pass serves together
    prospects: list[tuple[float, Candidate]] = field(default_factory=list)
    choices: list[Choice] = field(default_factory=list)


def prepare(deriver: Deriver, want: Wanted) -> None:
    """Find the lanes, and what might be built."""
    if want.blocks and want.partial.order:
        find_lanes(deriver, want)
        want.siblings = [sorted({block.wrt[slot] for block in want.blocks}) for slot in range(want.partial.order)]
        want.apart = _apart(deriver, want, want.siblings)
        want.prospects = _prospects(want)


def build(deriver: Deriver, want: Wanted, limit: float) -> None:
    """Build every promising candidate of one partial: none that looks `limit` times dearer than the cheapest."""
    if not want.blocks or not want.partial.order:
        values = settle(deriver.graph, [deriver.value(block) for block in want.blocks])
        want.choices = [Choice((), values, 0, cost_of(values))]
        return
    siblings, order = want.siblings, want.partial.order
    refused: list[str] = []
    unexplained = False
    best = math.inf
    if order >= AT_ONCE:
        _build_at_once(deriver, want)
    most = 1 + len(want.choices) if want.choices else MOST.get(order, 3)
    for estimate, candidate in want.prospects:
        if estimate > limit * best:
            break
        if len(want.choices) >= most and estimate >= best:
            break
        refusal = dtype_refusal(deriver, want.blocks, candidate)
        if refusal is None:
            try:
                built = [deriver.derivative(block, candidate, want.lanes, siblings) for block in want.blocks]
            except _jax.REFUSALS as error:
                refusal, explained = refusal_of(deriver, want.blocks, candidate, error)
                unexplained = unexplained or not explained
        if refusal is None:
            values = settle(deriver.graph, [value for value, _ in built])
            passes = int(_total(want, candidate, [count for _, count in built]))
            want.choices.append(Choice(candidate, values, passes, cost_of(values)))
            best = min(best, estimate)
        elif refusal not in refused:
            refused.append(refusal)
    want.notes += refused
    if order == 2 and min((choice.alone.time for choice in want.choices), default=0.0) > LONG:
        _build_at_once(deriver, want)
    if not want.choices:
        message = f'"{want.partial.text}" cannot be computed: no mode of differentiation goes through.\n'
        message += "\n".join(f"  {reason}" for reason in refused)
        # Where no operation of the user's is to blame, it may be us: the plain path has the last word.
        raise RuntimeError(message) if unexplained else DerivativeError(message)


def _build_at_once(deriver: Deriver, want: Wanted) -> None:
    """All orders of one partial together, with mixed and with single directions, where the program allows it."""
    order = want.partial.order
    for mode in (TAYLOR, POLARISED) if order > 2 else (TAYLOR,):
        candidate = tuple(Stage(mode, slot) for slot in range(order))
        try:
            built = [at_once(deriver, block, want.lanes, polarise=mode == POLARISED) for block in want.blocks]
        except Unsuitable:
            continue
        values = [value for value, _ in built]
        want.choices.append(Choice(candidate, values, sum(count for _, count in built), cost_of(values)))


def _apart(deriver: Deriver, want: Wanted, siblings: Sequence[Sequence[int]]) -> dict[str, float]:
    """The output's axis names that a reverse pass keeps apart, whichever wrt it is by, and its work in passes."""
    found = {name: 1.0 for name in want.blocks[0].output_labels if isinstance(name, str) and name not in want.lanes}
    try:
        for block in want.blocks:
            for slot in range(want.partial.order):
                kept = deriver.keeps_apart(block, slot, siblings[slot]) if found else {}
                found = {name: max(work, kept[name]) for name, work in found.items() if name in kept}
    except _jax.REFUSALS:  # no reverse mode
        return {}
    return found


def limit_of(order: int) -> float:
    return PROSPECTS.get(order, 1.4)


def _prospects(want: Wanted) -> list[tuple[float, Candidate]]:
    """Candidates with a first estimate of their cost, cheapest first."""
    found = []
    for candidate in candidates(want.partial):
        weight = math.prod(PASS_COST[stage.mode] for stage in candidate)
        counts = [count_passes(block, candidate, want.lanes, want.apart) for block in want.blocks]
        found.append((weight * max(1.0, _total(want, candidate, counts)), candidate))
    return sorted(found, key=lambda found: found[0])


def candidates(partial: Partial) -> Iterator[Candidate]:
    """Forward towers, reverse innermost or outermost, and reverse throughout; any wrt innermost."""
    order = partial.order
    seen = set()
    for slots in itertools.islice(itertools.permutations(range(order)), 24):
        spelled = tuple(str(partial.wrt[slot]) for slot in slots)
        if spelled in seen:
            continue
        seen.add(spelled)
        for modes in dict.fromkeys(
            [
                (FORWARD,) * order,
                (REVERSE, *(FORWARD,) * (order - 1)),
                (*(FORWARD,) * (order - 1), REVERSE),
                (REVERSE,) * order,
            ]
        ):
            yield tuple(Stage(mode, slot) for mode, slot in zip(modes, slots, strict=True))


def _total(want: Wanted, candidate: Candidate, counts: Sequence[float]) -> float:
    """Directions pushed and pulled for all blocks; one reverse pass serves all leaves at its slot."""
    dearest: dict[tuple, float] = {}
    last = max((i for i, stage in enumerate(candidate) if stage.mode == REVERSE), default=-1)
    for block, count in zip(want.blocks, counts, strict=True):
        # All leaves of the last reverse pass come out of it together; every other stage is one leaf's own.
        own = tuple(block.wrt[stage.slot] for i, stage in enumerate(candidate) if stage.mode == FORWARD or i != last)
        dearest[block.output, own] = max(dearest.get((block.output, own), 0), count)
    return sum(dearest.values())


def find_lanes(deriver: Deriver, want: Wanted) -> None:
    """The axis names shared by output and wrts along which the program is proven independent."""
    first = want.blocks[0]
    shared = {
        label
        for label in first.output_labels
        if isinstance(label, str) and any(label in labels for labels in first.wrt_labels)
    }
    lanes = set()
    for label in sorted(shared):
        reason = None
        for block in want.blocks:
            reason = reason or _mixing(deriver, block, label, want.partial.order)
        if reason is None:
            lanes.add(label)
        else:
            want.notes.append(f"{label} is no lane: {reason}")
    want.lanes = frozenset(lanes)


def _mixing(deriver: Deriver, block: Block, label: str, order: int) -> str | None:
    value, labels = deriver.output(block)
    inputs: list[tuple[Value, int]] = []
    for leaf, slot_labels in zip(block.wrt, block.wrt_labels, strict=True):
        if slot_labels.count(label) > 1:
            return f"{label} names two axes of one array"
        if label in slot_labels:
            pair = (deriver.inputs[leaf], slot_labels.index(label))
            if pair not in inputs:
                inputs.append(pair)
    if len({leaf for leaf, _ in inputs}) < len(inputs):
        return f"{label} names different axes of one array"
    mixed = independent(value, labels.index(label), inputs, order)
    if mixed is None:
        return None
    return mixed.reason if mixed.node is None else f"{mixed.reason}, at {mixed.node.where}"
