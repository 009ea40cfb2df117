"""Candidates, their costs, and the Plan that prints itself.

Every candidate of every partial is built in one graph, so that what two of them share is there once; the cost of the
whole set decides, not the cost of each alone.
"""

import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import jax.numpy as jnp

from jaxpartials.derive import FORWARD, REVERSE, Candidate, Deriver, Stage, count_passes
from jaxpartials.errors import DerivativeError
from jaxpartials.graph.cost import Cost, cost, cost_of
from jaxpartials.graph.graph import LEAVES, Graph, Node, Value, dependents, reach
from jaxpartials.notation import Block, Partial
from jaxpartials.rewrite.pipeline import settle, tidy
from jaxpartials.structure.axes import independent

# Tracing a candidate costs time, so those far behind by a first estimate are not built: how many times dearer than
# the cheapest a candidate may look, by order.
PROSPECTS = {1: 8.0, 2: 3.0}
CLOSE = 1.2
# One forward pass computes value and tangent; a reverse pass also keeps and reads back what it needs.
PASS_COST = {FORWARD: 2.0, REVERSE: 3.0}
# At most so many candidates of one partial are built, by order.
MOST = {1: 4, 2: 6}
# What a reverse pass must keep is not among the flops, and an outer gradient pays for it again: near ties go forward.
KEEPING = 1.05
# Sets of at most this many combinations are costed one by one; larger ones partial by partial.
EXHAUSTIVE = 96
# So many of the cheapest sets are finished, to be measured or because loops in them may be merged.
FINISHED = 4


@dataclass(frozen=True)
class PartialPlan:
    """How one partial is computed, and why.

    Attributes:
        spec: the spec as written.
        mode: the stages in words, outermost first: "forward x over reverse params".
        passes: how many directions are pushed or pulled through the program, lanes not counted.
        lanes: the axes along which every element is independent, computed in one pass together.
        shares: for each other partial, the part of this one's equations that it also uses.
        notes: what blocked a better plan, and what was found out on the way.
        cost: what this partial would cost alone.
        considered: the modes that were built and costed, with the time estimate of each alone.
    """

    spec: str
    mode: str
    passes: int
    lanes: tuple[str, ...]
    shares: dict[str, float]
    notes: tuple[str, ...]
    cost: Cost
    considered: tuple[tuple[str, float], ...]
    candidate: Candidate | None = None

    def noted(self, note: str) -> "PartialPlan":
        return replace(self, notes=(*self.notes, note))


@dataclass(frozen=True)
class Plan:
    """The decision: one program that computes every partial, and the reasons.

    Attributes:
        partials: one `PartialPlan` for each spec, in the order of `jax.tree.leaves(wanted)`.
        cost: of the whole program, what is shared counted once.
        plain_cost: an estimate of the same by plain nesting: each partial alone, nested `jvp` or `grad` without
            sharing (which triples the program at every order), over all entries of the arrays it names.
        equations: how many equations the program has.
        graph: the program itself.
        seconds: how long planning took.
        chunks: how many lanes there are, and how many of them the program computes in one turn; None where all.
        measured: with tune="measure", the combinations that were timed and their seconds, fastest first.
    """

    partials: tuple[PartialPlan, ...]
    cost: Cost
    plain_cost: Cost
    equations: int
    graph: Graph = field(repr=False)
    seconds: float = 0.0
    measured: tuple[tuple[str, float], ...] = ()
    chunks: tuple[int, int] | None = None

    def in_chunks(self, lanes: int, size: int) -> "Plan":
        """The plan for one chunk as the plan for all lanes."""
        times = lanes / size
        return replace(self, cost=self.cost * times, plain_cost=self.plain_cost * times, chunks=(lanes, size))

    def __str__(self) -> str:
        from jaxpartials.planprint import render

        return render(self)


@dataclass
class Choice:
    """One candidate of one partial, built: its values, one per block, in the shared graph."""

    candidate: Candidate
    values: list[Value]
    passes: int
    alone: Cost


@dataclass
class _Wanted:
    partial: Partial
    blocks: Sequence[Block]
    lanes: frozenset[str] = frozenset()
    apart: frozenset[str] = frozenset()
    notes: list[str] = field(default_factory=list)
    siblings: Sequence[Sequence[int]] = ()  # by slot, the input leaves that one reverse pass serves together
    prospects: list[tuple[float, float, Candidate]] = field(default_factory=list)
    choices: list[Choice] = field(default_factory=list)


def plan(
    graph: Graph,
    requests: Sequence[tuple[Partial, Sequence[Block]]],
    names: Sequence[str],
    *,
    chunk_size: int | None = None,
    measure: Callable[[list[tuple[str, Graph]]], list[float]] | None = None,
) -> Plan:
    """Choose how to compute every requested partial of the program `graph`.

    Args:
        graph: the traced program; grows by all the candidates, and is left as it was as far as its outputs go.
        requests: each spec with its blocks.
        names: how the user calls the input leaves, for the plan to print.
        chunk_size: at most so many directions alive at once.
        measure: given a few finished programs, returns their seconds; by default the estimate decides.
    """
    started = time.perf_counter()
    deriver = Deriver(graph, list(graph.inputs), list(graph.outputs), chunk_size)
    wanted = [_Wanted(partial, blocks) for partial, blocks in requests]
    for want in wanted:
        _prepare(deriver, want)
    # To trace a loop backwards takes long, and helps only where something is to be had backwards at less cost.
    first = [want.prospects[0][2] for want in wanted if want.prospects]
    forward = all(stage.mode == FORWARD for candidate in first for stage in candidate)
    nodes = list(_all_nodes(deriver.outputs))
    narrow = forward and any(node.bodies for node in nodes) and not any(node.name in ONE_WAY for node in nodes)
    for want in wanted:
        _build(deriver, want, CLOSE if narrow else _limit(want.partial.order))
    ranked = _rank(deriver, [want.choices for want in wanted])
    measured: tuple[tuple[str, float], ...] = ()
    if measure is not None and len(ranked) > 1:
        finished = [_finish(deriver, picked) for picked in ranked[:FINISHED]]
        labels = [_describe_set(wanted, picked, names) for picked in ranked[:FINISHED]]
        seconds = measure(list(zip(labels, finished, strict=True)))
        measured = tuple(sorted(zip(labels, seconds, strict=True), key=lambda pair: pair[1]))
    else:
        # What loops share shows only when they are merged.
        with_loops = any(node.bodies for choice in ranked[0] for node in reach(choice.values))
        finished = [_finish(deriver, picked) for picked in ranked[: FINISHED if with_loops else 1]]
        seconds = [_time(program, picked) for program, picked in zip(finished, ranked, strict=False)]
    best = min(range(len(seconds)), key=seconds.__getitem__)
    picked, program = ranked[best], finished[best]
    return Plan(
        partials=tuple(_explain(wanted, picked, names)),
        cost=cost_of(program.outputs, program.effects),
        plain_cost=_plain_cost(deriver, wanted),
        equations=len(program.nodes),
        graph=program,
        seconds=time.perf_counter() - started,
        measured=measured,
    )


def plain_plan(graph: Graph, requests: Sequence[tuple[Partial, Sequence[Block]]], reason: str) -> Plan:
    """What is known when the plain path is taken."""
    deriver = Deriver(graph, list(graph.inputs), list(graph.outputs))
    plain = _plain_cost(deriver, [_Wanted(partial, blocks) for partial, blocks in requests])
    rows = tuple(PartialPlan(partial.text, "plain", 0, (), {}, (reason,), Cost(), ()) for partial, _ in requests)
    return Plan(rows, plain, plain, len(graph.nodes), graph)


# ---- one partial: what is possible


def _prepare(deriver: Deriver, want: _Wanted) -> None:
    """Find the lanes, and what might be built."""
    if want.blocks and want.partial.order:
        _find_lanes(deriver, want)
        want.siblings = [sorted({block.wrt[slot] for block in want.blocks}) for slot in range(want.partial.order)]
        want.apart = _apart(deriver, want, want.siblings)
        want.prospects = _prospects(want)


def _build(deriver: Deriver, want: _Wanted, limit: float) -> None:
    """Build every promising candidate of one partial: none that looks `limit` times dearer than the cheapest."""
    if not want.blocks or not want.partial.order:
        values = settle(deriver.graph, [deriver.value(block) for block in want.blocks])
        want.choices = [Choice((), values, 0, cost_of(values))]
        return
    siblings = want.siblings
    refused: list[str] = []
    unexplained = False
    best = math.inf
    for estimate, weight, candidate in want.prospects:
        if estimate > limit * best:
            break
        if len(want.choices) >= MOST.get(want.partial.order, 3) and estimate >= best:
            break
        refusal = _dtype_refusal(deriver, want, candidate)
        if refusal is None:
            try:
                built = [deriver.derivative(block, candidate, want.lanes, siblings) for block in want.blocks]
            except (TypeError, ValueError, NotImplementedError) as error:  # how JAX refuses a mode
                refusal, explained = _refusal(deriver, want, candidate, error)
                unexplained = unexplained or not explained
        if refusal is None:
            values = settle(deriver.graph, [value for value, _ in built])
            passes = _total(want, candidate, [count for _, count in built])
            want.choices.append(Choice(candidate, values, passes, cost_of(values)))
            best = min(best, weight * max(1, passes))
        elif refusal not in refused:
            refused.append(refusal)
    want.notes += refused
    if not want.choices:
        message = f'"{want.partial.text}" cannot be computed: no mode of differentiation goes through.\n'
        message += "\n".join(f"  {reason}" for reason in refused)
        # Where no operation of the user's is to blame, it may be us: the plain path has the last word.
        raise RuntimeError(message) if unexplained else DerivativeError(message)


def _apart(deriver: Deriver, want: _Wanted, siblings: Sequence[Sequence[int]]) -> frozenset[str]:
    """The output's axis names that a reverse pass keeps apart, whichever wrt it is by."""
    kept = {name for name in want.blocks[0].output_labels if isinstance(name, str)} - want.lanes
    try:
        for block in want.blocks:
            for slot in range(want.partial.order):
                kept &= deriver.keeps_apart(block, slot, siblings[slot]) if kept else kept
    except (TypeError, ValueError, NotImplementedError):  # no reverse mode
        return frozenset()
    return frozenset(kept)


def _limit(order: int) -> float:
    return PROSPECTS.get(order, 1.4)


def _prospects(want: _Wanted) -> list[tuple[float, float, Candidate]]:
    """Candidates with a first estimate of their cost, at best, and the weight of one pass; cheapest first."""
    found = []
    for candidate in _candidates(want.partial):
        weight = math.prod(PASS_COST[stage.mode] for stage in candidate)
        counts = [count_passes(block, candidate, want.lanes, want.apart) for block in want.blocks]
        found.append((weight * max(1, _total(want, candidate, counts)), weight, candidate))
    return sorted(found, key=lambda found: found[0])


def _candidates(partial: Partial) -> Iterator[Candidate]:
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


def _total(want: _Wanted, candidate: Candidate, counts: Sequence[int]) -> int:
    """Directions pushed and pulled for all blocks; one reverse pass serves all leaves at its slot."""
    dearest: dict[tuple, int] = {}
    last = max((i for i, stage in enumerate(candidate) if stage.mode == REVERSE), default=-1)
    for block, count in zip(want.blocks, counts, strict=True):
        # All leaves of the last reverse pass come out of it together; every other stage is one leaf's own.
        own = tuple(block.wrt[stage.slot] for i, stage in enumerate(candidate) if stage.mode == FORWARD or i != last)
        dearest[block.output, own] = max(dearest.get((block.output, own), 0), count)
    return sum(dearest.values())


def _find_lanes(deriver: Deriver, want: _Wanted) -> None:
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


# ---- what cannot be


def _dtype_refusal(deriver: Deriver, want: _Wanted, candidate: Candidate) -> str | None:
    """JAX's own rules for complex numbers: forward from real inputs, reverse from real outputs, or holomorphic."""
    for block in want.blocks:
        out = deriver.outputs[block.output]
        complex_value = _is_complex(out)
        for stage in candidate:
            wrt = deriver.inputs[block.wrt[stage.slot]]
            complex_wrt = _is_complex(wrt)
            if not complex_wrt and not complex_value:
                continue
            if complex_wrt and complex_value:
                culprit = _not_holomorphic([out], [wrt])
                if culprit is not None:
                    return (
                        f"{stage.mode} differentiation of a complex output with respect to a complex input needs a"
                        f" holomorphic function, and {culprit.name} at {culprit.where} is not"
                        " (differentiate by the real and imaginary parts instead)"
                    )
                continue
            if stage.mode == FORWARD and complex_wrt:
                return "forward differentiation needs a real input; this one is complex"
            if stage.mode == REVERSE and complex_value:
                return "reverse differentiation needs a real output; this one is complex"
            complex_value = complex_value or complex_wrt
    return None


def _not_holomorphic(values: Sequence[Value], wrt: Sequence[Value]) -> Node | None:
    """The first operation between `wrt` and `values` that is not, or not known to be, complex-differentiable."""
    moving = dependents(values, wrt)
    for node in _reach_numbers(values):
        if node.number not in moving or node.name in LEAVES:
            continue
        real = any(_is_inexact(v) and not _is_complex(v) for v in node.outputs)
        if real or node.name in ("conj", "sign") or (node.bodies and node.opaque):
            return node
        for body in node.bodies:
            inner = _not_holomorphic(body.outputs, [v for v in body.inputs if _is_complex(v)])
            if inner is not None:
                return inner
    return None


def _reach_numbers(values: Sequence[Value]) -> list[Node]:
    """The nodes that `values` need, not going through truth values and integers, which carry no derivative."""
    found: dict[int, Node] = {}
    stack = [v for v in values if _is_inexact(v)]
    while stack:
        node = stack.pop().node
        if node.number not in found:
            found[node.number] = node
            stack.extend(v for v in node.operands if _is_inexact(v))
    return [found[number] for number in sorted(found)]


def _is_inexact(value: Value) -> bool:
    return jnp.issubdtype(value.dtype, jnp.inexact)


def _is_complex(value: Value) -> bool:
    return jnp.issubdtype(value.dtype, jnp.complexfloating)


# What JAX differentiates in one mode only, or not at all: primitive name -> the mode it blocks.
ONE_WAY = {
    "custom_vjp_call": FORWARD,
    "custom_vjp_call_jaxpr": FORWARD,
    "while": REVERSE,
}


def _refusal(deriver: Deriver, want: _Wanted, candidate: Candidate, error: Exception) -> tuple[str, bool]:
    """Which operation stands in the way of a mode, and where the user wrote it; and whether one was found."""
    modes = [stage.mode for stage in candidate]
    message = str(error).strip().split("\n")[0]
    culprit = _culprit(deriver, want, modes, message)
    mode = " and ".join(dict.fromkeys(modes))
    if culprit is None:
        return f"{mode} mode: {message or type(error).__name__}", False
    if culprit.name in ONE_WAY:
        return f"{culprit.name} at {culprit.where} cannot be differentiated in {ONE_WAY[culprit.name]} mode", True
    return f"{culprit.name} at {culprit.where} cannot be differentiated in {mode} mode: {message}", True


def _culprit(deriver: Deriver, want: _Wanted, modes: Sequence[str], message: str) -> Node | None:
    suspects = []
    for block in want.blocks:
        value = deriver.outputs[block.output]
        wrts = [deriver.inputs[leaf] for leaf in block.wrt]
        moving = dependents([value], wrts)
        suspects += [node for node in _all_nodes([value]) if node.number in moving or node.bodies == ()]
    for node in suspects:
        if node.name in ONE_WAY and ONE_WAY[node.name] in modes:
            return node
    named = message.lower().replace("_", " ")
    for node in suspects:
        if "callback" in node.name or (len(node.name) > 3 and node.name.replace("_", " ") in named):
            return node
    return None


def _all_nodes(values: Sequence[Value]) -> Iterator[Node]:
    for node in reach(values):
        if node.name not in LEAVES:
            yield node
        for body in node.bodies:
            yield from _all_nodes(body.outputs)


# ---- the set


def _rank(deriver: Deriver, choices: Sequence[list[Choice]]) -> list[list[Choice]]:
    """Combinations of one choice each: the cheapest (of all, or the best found partial by partial), those that agree on
    a mode, and the others, cheapest first."""

    seconds: dict[int, float] = {}
    needs: dict[int, frozenset[int]] = {}
    for choice in itertools.chain(*choices):
        nodes = [node for node in reach(choice.values) if node.name not in LEAVES]
        seconds |= {node.number: cost(node).time for node in nodes if node.number not in seconds}
        needs[id(choice)] = frozenset(node.number for node in nodes)

    def total(picked: Sequence[Choice]) -> float:
        shared = frozenset().union(*(needs[id(choice)] for choice in picked))
        return sum(map(seconds.__getitem__, shared)) * _keeping(picked)

    # One mode for all, where every partial has it: sharing needs agreement, which single steps do not find.
    agreed = [
        [
            min(options, key=lambda c: (c.candidate[:1] == () or c.candidate[0].mode != mode, c.alone.time))
            for options in choices
        ]
        for mode in (FORWARD, REVERSE)
    ]
    if math.prod(map(len, choices)) <= EXHAUSTIVE:
        combinations = sorted((list(picked) for picked in itertools.product(*choices)), key=total)
        return _distinct([combinations[0], *agreed, *combinations])
    picked = min([[min(options, key=lambda choice: choice.alone.time) for options in choices], *agreed], key=total)
    best, improved = total(picked), True
    while improved:
        improved = False
        for i, options in enumerate(choices):
            for option in options:
                trial = [*picked[:i], option, *picked[i + 1 :]]
                if option is not picked[i] and (seconds_now := total(trial)) < best * 0.999:
                    picked, best, improved = trial, seconds_now, True
    # The runners-up, to be finished or measured: one partial done in another way.
    others = [
        [*picked[:i], option, *picked[i + 1 :]]
        for i, options in enumerate(choices)
        for option in options
        if option is not picked[i]
    ]
    return _distinct([picked, *agreed, *sorted(others, key=total)])


def _distinct(sets: Sequence[list[Choice]]) -> list[list[Choice]]:
    return list({tuple(map(id, picked)): picked for picked in sets}.values())


def _keeping(picked: Sequence[Choice]) -> float:
    return KEEPING if any(stage.mode == REVERSE for choice in picked for stage in choice.candidate) else 1.0


def _time(program: Graph, picked: Sequence[Choice]) -> float:
    return cost_of(program.outputs, program.effects).time * _keeping(picked)


def _finish(deriver: Deriver, picked: Sequence[Choice]) -> Graph:
    """The program of one combination: its own outputs, on the shared nodes."""
    graph = deriver.graph
    return graph.with_outputs(tidy(graph, [v for choice in picked for v in choice.values], graph.effects))


def _plain_cost(deriver: Deriver, wanted: Sequence[_Wanted]) -> Cost:
    total = Cost()
    for want in wanted:
        for block in want.blocks:
            primal = cost_of([deriver.outputs[block.output]])
            everything = 1
            for leaf, labels in zip(block.wrt, block.wrt_labels, strict=True):
                shape = deriver.inputs[leaf].shape
                everything *= math.prod(n for n, label in zip(shape, labels, strict=True) if label not in want.lanes)
            outputs = math.prod(deriver.outputs[block.output].shape)
            # The first order may go backwards, one pass per output element, where those are fewer.
            if block.wrt and all(label in want.lanes for label in block.output_labels):
                outputs = 1
            if block.wrt:
                last = math.prod(deriver.inputs[block.wrt[-1]].shape)
                everything = min(everything, max(1, everything // max(1, last)) * outputs)
            total = total + primal * (3 ** len(block.wrt) * everything)
    return total


# ---- in words


def _describe_set(wanted: Sequence[_Wanted], picked: Sequence[Choice], names: Sequence[str]) -> str:
    return "; ".join(
        f"{want.partial.text}: {mode_of(want.partial, choice.candidate)}"
        for want, choice in zip(wanted, picked, strict=True)
        if choice.candidate
    )


def mode_of(partial: Partial, candidate: Candidate) -> str:
    """The stages in words, outermost first, equal neighbours joined: "forward x^2 over reverse y"."""
    if not candidate:
        return "value"
    words: list[list] = []
    for stage in candidate:
        name = partial.wrt[stage.slot].name
        if words and words[-1][:2] == [stage.mode, name]:
            words[-1][2] += 1
        else:
            words.append([stage.mode, name, 1])
    spelled = [f"{mode} {name}" + (f"^{times}" if times > 1 else "") for mode, name, times in words]
    return " over ".join(reversed(spelled))


def _explain(wanted: Sequence[_Wanted], picked: Sequence[Choice], names: Sequence[str]) -> Iterator[PartialPlan]:
    used = [{node.number for node in reach(choice.values) if node.name not in LEAVES} for choice in picked]
    for i, (want, choice) in enumerate(zip(wanted, picked, strict=True)):
        shares = {
            other.partial.text: len(used[i] & used[j]) / len(used[i])
            for j, other in enumerate(wanted)
            if j != i and used[i] and used[i] & used[j]
        }
        notes = list(want.notes)
        if want.partial.order and want.blocks and not choice.passes:
            notes.append("the output does not depend on it: zero, and nothing is computed")
        yield PartialPlan(
            spec=want.partial.text,
            mode=mode_of(want.partial, choice.candidate),
            passes=choice.passes,
            lanes=tuple(sorted(want.lanes)),
            shares=shares,
            notes=tuple(notes),
            cost=choice.alone,
            considered=tuple((mode_of(want.partial, c.candidate), c.alone.time) for c in want.choices),
            candidate=choice.candidate,
        )
