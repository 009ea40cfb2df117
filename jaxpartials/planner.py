"""Which candidate of every partial, and the Plan that prints itself.

Every candidate of every partial is built in one graph, so that what two of them share is there once; the cost of the
whole set decides, not the cost of each alone.
"""

import contextlib
import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from jaxpartials import _jax
from jaxpartials.candidates import CLOSE, Choice, Wanted, build, candidates, find_lanes, limit_of, prepare
from jaxpartials.derive import FORWARD, REVERSE, Candidate, Deriver
from jaxpartials.graph.cost import Cost, cost, cost_of
from jaxpartials.graph.graph import LEAVES, Graph, Value, reach
from jaxpartials.notation import Block, Partial
from jaxpartials.refusals import ONE_WAY, all_nodes, dtype_refusal
from jaxpartials.rewrite.pipeline import tidy

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
        mode: the stages in words, outermost first: "forward x over reverse params"; or how all orders are taken at
            once: "Taylor x^4", with mixed directions, or "polarised x^4", with sums and differences of them.
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
    wanted = [Wanted(partial, blocks) for partial, blocks in requests]
    for want in wanted:
        prepare(deriver, want)
    # To trace a loop backwards takes long, and helps only where something is to be had backwards at less cost.
    first = [want.prospects[0][1] for want in wanted if want.prospects]
    forward = all(stage.mode == FORWARD for candidate in first for stage in candidate)
    nodes = list(all_nodes(deriver.outputs))
    narrow = forward and any(node.bodies for node in nodes) and not any(node.name in ONE_WAY for node in nodes)
    for want in wanted:
        build(deriver, want, CLOSE if narrow else limit_of(want.partial.order))
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
    plain = _plain_cost(deriver, [Wanted(partial, blocks) for partial, blocks in requests])
    rows = tuple(PartialPlan(partial.text, "plain", 0, (), {}, (reason,), Cost(), ()) for partial, _ in requests)
    return Plan(rows, plain, plain, len(graph.nodes), graph)


def unplanned(graph: Graph, requests: Sequence[tuple[Partial, Sequence[Block]]]) -> list[Value] | None:
    """All blocks of all partials, each partial by the first candidate that JAX accepts, however much it costs.

    No size decides anything here, so for two sizes of a batch these are the same equations wherever those of the
    function itself are. None where a partial has no candidate.
    """
    deriver = Deriver(graph, list(graph.inputs), list(graph.outputs))
    values: list[Value] = []
    for partial, blocks in requests:
        want = Wanted(partial, blocks)
        if blocks and partial.order:
            find_lanes(deriver, want)
        siblings = [sorted({block.wrt[slot] for block in blocks}) for slot in range(partial.order)]
        for candidate in candidates(partial) if partial.order else ():
            if dtype_refusal(deriver, want.blocks, candidate) is None:
                with contextlib.suppress(*_jax.REFUSALS):
                    values += [deriver.derivative(block, candidate, want.lanes, siblings)[0] for block in blocks]
                    break
        else:
            if partial.order:
                return None
            values += [deriver.value(block) for block in blocks]
    return values


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


def _plain_cost(deriver: Deriver, wanted: Sequence[Wanted]) -> Cost:
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


def _describe_set(wanted: Sequence[Wanted], picked: Sequence[Choice], names: Sequence[str]) -> str:
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


def _explain(wanted: Sequence[Wanted], picked: Sequence[Choice], names: Sequence[str]) -> Iterator[PartialPlan]:
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
