"""What XLA makes of the program: which findings it removes, and what it adds.

For each line and primitive the traced program computes T elements, of which a finding says R are spare; the optimised
program computes H, not counting what it copies into further fusions. The finding is removed if H <= T - R, and kept if
H >= T, for the operations that XLA carries over one to one: transcendental functions, contractions, sorts,
factorizations, loops. Other operations it rewrites into one another: of what is computed twice it can only be said that
it is gone, of what is not needed only that it is there. Where H is known to lie between two numbers only, both must say
the same.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from jaxpartials.graph.cost import Cost, cost
from jaxpartials.graph.graph import Graph
from jaxpartials.graph.trips import ASSUMED_TRIPS
from jaxpartials.inspection.balance import DOT, PLAIN, WHOLE, Balance, Key, flat, key_of, size
from jaxpartials.inspection.checkpoints import Repetition, repetitions
from jaxpartials.inspection.compiled_cost import compiled_cost
from jaxpartials.inspection.duplicates import described
from jaxpartials.inspection.finding import (
    ADDED,
    EQUAL_CARRIES,
    INVARIANT,
    KEPT,
    LOOPS,
    REMOVED,
    TWICE,
    UNDONE,
    UNKNOWN,
    UNUSED,
    Finding,
    Place,
    Work,
    finding,
    places_of,
)
from jaxpartials.inspection.hlo import Line, Module
from jaxpartials.inspection.scopes import Program, turns
from jaxpartials.planprint import quantity

# What has a cost of its own, however little time the rest says it takes.
HEAVY = WHOLE | {DOT, "conv_general_dilated", "sort", "fft"}
# Findings that are gone once equal equations are one, dead ones none, and loops emptied of what does not change.
MERGED = frozenset({TWICE, UNUSED, INVARIANT, EQUAL_CARRIES})
# So much of the work of a finding must be gone.
GONE = 0.95
# So much of the second computation of a line must be merged with the first.
UNDONE_FROM = 0.5
# What XLA computes more often than it was traced is told from this part of the program on.
ADDED_FROM = 0.02

Span = tuple[float, float]


class Compiled:
    """An optimised program beside the traced one."""

    def __init__(self, text: str, program: Program):
        self.module = Module(text, _loops(program.traced))
        self.balance = Balance(self.module, program)
        self.made = self.balance.made
        self.places: dict[Line, int] = {}  # how many loops are on a line
        for one, *_ in self.module.runs:
            if one.opcode == "while" and one.line:
                self.places[one.line] = self.places.get(one.line, 0) + 1

    def judged(self, found: Finding) -> Finding:
        return replace(found, xla=self._verdict(found))

    def _verdict(self, found: Finding) -> str:
        if found.kind == LOOPS:
            return self._loops_verdict(found)
        extra: dict[Key, float] = {}
        times: dict[Key, float] = {}
        for node, part in flat(found.work):
            key = key_of(node)
            if key in self.balance.nodes and part > 0:
                extra[key] = extra.get(key, 0.0) + part * size(node)
                times[key] = times.get(key, 0.0) + part * cost(node).time
        gone = {key: self._gone(found.kind, key, n) for key, n in extra.items() if n > 0}
        firm = [key for key in gone if key[2] not in PLAIN]
        if sum(times[key] for key in firm) > 0:
            heavy = [key for key in firm if key[2] in HEAVY]
            means = [_mean(gone, times, keys) for keys in (firm, heavy) if sum(times[key] for key in keys) > 0]
            if any(high < GONE for _, high in means):
                return KEPT
            return REMOVED if all(low >= GONE for low, _ in means) else UNKNOWN
        if found.kind in MERGED:
            return REMOVED if gone and min(low for low, _ in gone.values()) >= GONE else UNKNOWN
        # Nothing but arithmetic: still there if it is as it was.
        return KEPT if gone and not any(high for _, high in gone.values()) else UNKNOWN

    def _loops_verdict(self, found: Finding) -> str:
        lines = {each.node.line[:2] for each in found.work if each.node.line}
        loops = sum(self.places.get(line, 0) for line in lines)
        traced = sum(1 for each in found.work if each.node.name in ("scan", "while"))
        if not loops or not traced:
            return UNKNOWN
        return KEPT if loops >= traced else REMOVED if loops == 1 else KEPT

    def _gone(self, kind: str, key: Key, spare: float) -> Span:
        """The part of the spare elements that XLA does not compute, at least and at most."""
        balance = self.balance
        low, high = balance.span(key)
        traced, merged, folded = balance.traced(key), balance.merged(key), balance.folded(key)
        if kind in MERGED:
            # Of all that is equal or dead on this line, so much is gone; which, nobody can tell.
            spare = max(spare, traced - merged)
        else:
            traced = merged
        return _part(traced - folded - high, spare), _part(traced - low, spare)

    def added(self, whole: Cost) -> list[Finding]:
        """What XLA copies into several fusions."""
        findings = []
        for key, made in self.made.items():
            once, nodes = self.balance.distinct[key], self.balance.nodes.get(key)
            if key[2] in PLAIN or not nodes or made < 1.2 * once:
                continue
            node = nodes[0]
            more = (made - once) / max(size(node), 1) * cost(node)
            one = finding(
                ADDED, [Work(each, 1.0, 0.0) for each in nodes], whole,
                f"{node.name} is computed {made / once:.2g} times on the same values.",
                "XLA repeats it in each fusion that reads it rather than store it; optimization_barrier may stop it.",
                saved=more,
            )  # fmt: skip
            if one.share >= ADDED_FROM:
                findings.append(replace(one, xla=KEPT))
        return findings

    def undone(self, again: Sequence[Repetition], whole: Cost) -> list[Finding]:
        """The checkpoints whose second computation XLA has merged with the first."""
        extra: dict[Key, float] = {}
        for one in again:
            for each in one.work:
                if (key := key_of(each.node)) is not None:
                    extra[key] = extra.get(key, 0.0) + each.runs * size(each.node)
        balance = self.balance
        gone = {key: _part(balance.merged(key) - balance.span(key)[1], n) for key, n in extra.items()}
        merged: dict[tuple[tuple[Place, ...], bool], list[Repetition]] = {}
        for one in again:
            work = tuple(
                each._replace(spare=each.runs * gone[key])
                for each in one.work if (key := key_of(each.node)) and key[2] not in PLAIN and gone[key] >= UNDONE_FROM
            )  # fmt: skip
            if work:
                merged.setdefault((places_of(work), one.allowed), []).append(replace(one, work=work))
        findings = []
        for (_, allowed), alike in merged.items():
            work = [each for one in alike for each in one.work]
            held = quantity(sum(one.held for one in alike))
            one = finding(
                UNDONE, work, whole,
                f"{described(each.node for each in work)} of jax.checkpoint: XLA has merged the second computation with"
                f" the first, whose results, up to {held}B, stay in memory.",
                "Leave prevent_cse=True, or put it into a scan, whose turns are not merged."
                if allowed else "Put it into a scan, whose turns are not merged: this backend drops the barriers.",
            )  # fmt: skip
            if one.share >= ADDED_FROM:
                findings.append(replace(one, xla=REMOVED))
        return findings


def _loops(traced: Graph) -> dict[Line, float | None]:
    """The turns of the loops on each line, if all on it turn equally often; None where the turns are assumed."""
    found: dict[Line, set[float | None]] = {}

    def visit(graph: Graph) -> None:
        for node in graph.traced:
            if node.name in ("scan", "while") and node.line is not None:
                count = turns(node)
                assumed = node.name == "while" and count == ASSUMED_TRIPS
                found.setdefault(node.line[:2], set()).add(None if assumed else count)
            for body in node.bodies:
                visit(body)

    visit(traced)
    return {line: next(iter(counts)) for line, counts in found.items() if len(counts) == 1}


def _part(elements: float, of: float) -> float:
    return min(max(elements / of, 0.0), 1.0) if of else float(elements >= 0)


def _mean(gone: Mapping[Key, Span], times: Mapping[Key, float], keys: Iterable[Key]) -> Span:
    weight = sum(times[key] for key in keys)
    low, high = (sum(times[key] * gone[key][i] for key in keys) / weight for i in (0, 1))
    return low, high


def judge(findings: Sequence[Finding], text: str, program: Program, whole: Cost) -> tuple[list[Finding], Cost]:
    """The findings with XLA's verdict, what XLA adds, and what the program costs after it."""
    compiled = Compiled(text, program)
    further = [*compiled.added(whole), *compiled.undone(repetitions(program), whole)]
    return [*map(compiled.judged, findings), *further], compiled_cost(compiled.module, compiled.balance)
