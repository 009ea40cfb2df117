"""What XLA makes of the program: which findings it removes, what it adds, and what the whole costs after it.

For each line and primitive the traced program computes T elements, of which a finding says R are spare; the optimised
program computes H, not counting what it copies into further fusions. The finding is removed if H <= T - R, and kept if
H >= T, for the operations that XLA carries over one to one: transcendental functions, contractions, sorts,
factorizations, loops. Other operations it rewrites into one another: of what is computed twice it can only be said that
it is gone, of what is not needed only that it is there.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

from jaxpartials.graph.cost import ASSUMED_TRIPS, ELEMENTWISE, Cost, cost, total
from jaxpartials.graph.graph import CONSTANT, LITERAL, Graph, Node
from jaxpartials.inspection.checkpoints import Repetition, repetitions
from jaxpartials.inspection.duplicates import described, spare
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
from jaxpartials.inspection.hlo import Branches, Instruction, Module
from jaxpartials.inspection.scopes import Program, known_at_trace_time, turns
from jaxpartials.inspection.unused import dead
from jaxpartials.planprint import quantity

# Opcodes by the primitives that they carry out.
OPCODES = {
    "sin": "sine", "cos": "cosine", "tan": "tan", "tanh": "tanh", "exp": "exponential", "log": "log",
    "log1p": "log-plus-one", "expm1": "exponential-minus-one", "logistic": "logistic", "sqrt": "sqrt", "rsqrt": "rsqrt",
    "cbrt": "cbrt", "pow": "power", "atan2": "atan2", "erf": "erf", "sort": "sort", "fft": "fft",
    "conv_general_dilated": "convolution", "exp2": "exponential",
}  # fmt: skip
PRIMITIVES = {
    opcode: name for name, opcode in reversed(OPCODES.items()) if opcode not in ("sort", "fft", "convolution")
}  # fmt: skip
WHOLE = frozenset({"svd", "eigh", "eig", "schur", "cholesky", "lu", "qr", "geqrf", "householder_product", "hessenberg"})
PRODUCTS = frozenset({"dot"})
CONTRACTED = PRODUCTS | {"custom-call", "reduce", "convolution"}
PLAIN = {
    "add": "add", "add_any": "add", "sub": "subtract", "mul": "multiply", "div": "divide", "max": "maximum",
    "min": "minimum", "reduce_sum": "reduce", "reduce_max": "reduce", "neg": "negate",
}  # fmt: skip
ARITHMETIC = frozenset({
    "add", "subtract", "multiply", "divide", "maximum", "minimum", "negate", "abs", "compare", "select", "and", "or",
    "not", "xor", "floor", "ceil", "sign", "remainder", "clamp",
})  # fmt: skip
SILENT = frozenset({
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "call", "conditional", "after-all",
    "iota",
})  # fmt: skip
# Findings that are gone once equal equations are one, dead ones none, and loops emptied of what does not change.
MERGED = frozenset({TWICE, UNUSED, INVARIANT, EQUAL_CARRIES})
# So much of the work of a finding must be gone.
GONE = 0.95
# So much of the second computation of a line must be merged with the first.
UNDONE_FROM = 0.5
# What XLA computes more often than it was traced is told from this part of the program on.
ADDED_FROM = 0.02

Key = tuple[str, int, str]


class Compiled:
    """An optimised program beside the traced one."""

    def __init__(self, text: str, program: Program):
        self.module = Module(text)
        self.traced: dict[Key, float] = {}
        self.nodes: dict[Key, list[Node]] = {}
        self._trace(program.traced, 1.0)
        # What is left once equal equations are one and dead ones gone, which XLA does first.
        self.merged = dict(self.traced)
        for node, part in _flat([*spare(program), *dead(program)]):
            self._take(node, part)
        # XLA may multiply by the arrays that are closed over while it compiles.
        self.folded: dict[Key, float] = {}
        for node in known_at_trace_time(program.traced, (LITERAL, CONSTANT)) & set(program.live.nodes[program.traced]):
            self._take(node, 1.0)
            key = _key(node)
            if key is not None:
                self.folded[key] = self.folded.get(key, 0.0) + _size(node)
        self.made: dict[Key, float] = {}
        self.distinct: dict[Key, float] = {}  # the same without the copies in further fusions
        self.places: dict[tuple[str, int], int] = {}
        self.products = 0.0  # the elements of all products
        self.nameless = False  # whether nothing tells where some of them come from
        values: set[tuple[Key, int]] = set()
        for one, runs, _, _, value in self.module.runs:
            if one.opcode in PRODUCTS:
                # What is folded into a product, a transpose say, may have given it its name.
                self.nameless = self.nameless or not one.line
                self.products += runs * one.size
                one = replace(one, primitive="dot_general")
            if one.opcode == "while" and one.line:
                self.places[one.line] = self.places.get(one.line, 0) + 1
            if one.line and _carries_out(one.opcode, one.primitive):
                key = (*one.line, one.primitive)
                size = 1 if one.primitive in WHOLE else one.size
                self.made[key] = self.made.get(key, 0.0) + runs * size
                if (key, value) not in values:
                    values.add((key, value))
                    self.distinct[key] = self.distinct.get(key, 0.0) + runs * size

    def _trace(self, graph: Graph, runs: float) -> None:
        for node in graph.traced:
            key = _key(node)
            if key is not None:
                self.traced[key] = self.traced.get(key, 0.0) + runs * _size(node)
                self.nodes.setdefault(key, []).append(node)
            for body in node.bodies:
                self._trace(body, runs * turns(node))

    def _take(self, node: Node, part: float) -> None:
        key = _key(node)
        if key is not None:
            self.merged[key] -= part * _size(node)

    def judged(self, found: Finding) -> Finding:
        return replace(found, xla=self._verdict(found))

    def _verdict(self, found: Finding) -> str:
        if found.kind == LOOPS:
            lines = {each.node.line[:2] for each in found.work if each.node.line}
            loops = sum(self.places.get(line, 0) for line in lines)
            traced = sum(1 for each in found.work if each.node.name in ("scan", "while"))
            if not loops or not traced:
                return UNKNOWN
            return KEPT if loops >= traced else REMOVED if loops == 1 else KEPT
        extra: dict[Key, float] = {}
        times: dict[Key, float] = {}
        for node, part in _flat(found.work):
            key = _key(node)
            if key is not None:
                extra[key] = extra.get(key, 0.0) + part * _size(node)
                times[key] = times.get(key, 0.0) + part * cost(node).time
        extra = {key: n for key, n in extra.items() if n > 0}
        firm = {key for key in extra if key[2] not in PLAIN}
        if firm and sum(times[key] for key in firm) > 0:
            weight = sum(times[key] for key in firm)
            gone = sum(times[key] * self._gone(found.kind, key, extra[key]) for key in firm) / weight
            spare = sum(extra[key] for key in firm if key[2] == "dot_general")
            traced = sum(n for key, n in self.traced.items() if key[2] == "dot_general")
            if gone >= GONE and spare and self.nameless and self.products > traced - GONE * spare:
                return UNKNOWN  # the products without a line may be these
            return REMOVED if gone >= GONE else KEPT
        gone = [self._gone(found.kind, key, extra[key]) for key in extra]
        if found.kind in MERGED:
            return REMOVED if gone and min(gone) >= GONE else UNKNOWN
        # Nothing but arithmetic: still there if it is as it was.
        return KEPT if gone and not any(gone) else UNKNOWN

    def _gone(self, kind: str, key: Key, spare: float) -> float:
        """The part of the spare elements that XLA does not compute."""
        traced, merged, made = self.traced.get(key, 0.0), self.merged.get(key, 0.0), self.distinct.get(key, 0.0)
        if kind in MERGED:
            # Of all that is equal or dead on this line, so much is gone; which, nobody can tell.
            folded = self.folded.get(key, 0.0)
            spare = max(spare, traced - merged - folded)
            traced -= folded if traced - made >= max(spare, folded) else 0.0
        else:
            traced = merged
        return min(max((traced - made) / spare, 0.0), 1.0)

    def added(self, whole: Cost) -> list[Finding]:
        """What XLA copies into several fusions."""
        findings = []
        for key, made in self.made.items():
            once, nodes = self.distinct[key], self.nodes.get(key)
            if key[2] in PLAIN or not nodes or made < 1.2 * once:
                continue
            node = nodes[0]
            more = (made - once) / max(_size(node), 1) * cost(node)
            one = finding(
                ADDED, [Work(each, 1.0, 0.0) for each in nodes], whole,
                f"{key[2]} is computed {made / once:.2g} times on the same values.",
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
                if (key := _key(each.node)) is not None:
                    extra[key] = extra.get(key, 0.0) + each.runs * _size(each.node)
        gone = {key: min((self.merged[key] - self.distinct.get(key, 0.0)) / n, 1.0) for key, n in extra.items()}
        merged: dict[tuple[tuple[Place, ...], bool], list[Repetition]] = {}
        for one in again:
            work = tuple(
                each._replace(spare=each.runs * gone[key])
                for each in one.work if (key := _key(each.node)) and key[2] not in PLAIN and gone[key] >= UNDONE_FROM
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

    def cost(self) -> Cost:
        """The whole program after XLA: operations as they are counted before it, bytes between its kernels.

        Of the branches of a conditional the dearest is counted, as before XLA.
        """
        listings = [one for listing in self.module.computations.values() for one in listing]
        sizes = {one.name: one.shapes[0][1] for one in listings if one.shapes}
        widths = {one.name: one.bytes for one in listings}
        costs: dict[Branches, list[Cost]] = {(): []}
        for one, times, fused, branches, _ in self.module.runs:
            here = self._operations(one, sizes)
            if not fused and one.opcode not in SILENT:
                here += Cost(bytes=one.bytes + sum(widths.get(v, 0.0) for v in one.operands))
            costs.setdefault(branches, []).append(times * here)
        # Inner conditionals before outer ones.
        for branches in sorted(costs, key=len, reverse=True):
            if branches and branches in costs:
                *around, (name, _) = branches
                siblings = [other for other in costs if other[:-1] == tuple(around) and other and other[-1][0] == name]
                alternatives = [total(costs.pop(other)) for other in siblings]
                costs.setdefault(tuple(around), []).append(max(alternatives, key=lambda each: each.time))
        return total(costs[()])

    def _operations(self, one: Instruction, sizes: dict[str, tuple[int, ...]]) -> Cost:
        """Of one instruction that runs once."""
        if one.opcode == "dot":
            flops = 2.0 * one.size * self.module.depth(one, sizes)
            return Cost(flops, contractions=flops)
        if one.opcode in ARITHMETIC:
            return Cost(one.size)
        if one.opcode == "reduce" and one.operands:
            return Cost(max(math.prod(sizes.get(one.operands[0], ())) - one.size, 0))
        if one.opcode in PRIMITIVES:
            arithmetic, transcendental = ELEMENTWISE.get(PRIMITIVES[one.opcode], (1, 0))
            return Cost(one.size * arithmetic, transcendentals=one.size * transcendental)
        if one.opcode in ("custom-call", "sort", "fft", "convolution") and one.line:
            for node in self.nodes.get((*one.line, one.primitive), ())[:1]:
                per = (1 if one.primitive in WHOLE else one.size) / max(_size(node), 1) * cost(node)
                return Cost(per.flops, contractions=per.contractions)
        if one.opcode == "while":
            return Cost(turns=ASSUMED_TRIPS if one.turns is None else one.turns, unknown_trips=one.turns is None)
        return Cost()


def _flat(work: Iterable[Work]) -> Iterable[tuple[Node, float]]:
    """The equations of some work, those in the bodies of its loops too, with how much of each is spare."""

    def into(node: Node, spare: float) -> Iterable[tuple[Node, float]]:
        yield node, spare
        for body in node.bodies:
            for inner in body.traced:
                yield from into(inner, spare * turns(node))

    for each in work:
        if each.spare:
            yield from into(each.node, each.spare)


def _key(node: Node) -> Key | None:
    known = node.name in OPCODES or node.name in WHOLE or node.name in PLAIN or node.name == "dot_general"
    if not known or node.line is None:
        return None
    return node.line[0], node.line[1], node.name


def _size(node: Node) -> int:
    """The elements of a result; a factorization is one thing, however many results it has."""
    if node.name in WHOLE:
        return 1
    return math.prod(node.outputs[0].shape)


def _carries_out(opcode: str, primitive: str) -> bool:
    if primitive == "dot_general":
        return opcode in CONTRACTED
    if primitive in WHOLE:
        return opcode == "custom-call"
    if primitive == "mul" and opcode == "select":  # by zeros and ones
        return True
    return opcode in (OPCODES.get(primitive), PLAIN.get(primitive)) and opcode is not None


def judge(findings: Sequence[Finding], text: str, program: Program, whole: Cost) -> tuple[list[Finding], Cost]:
    """The findings with XLA's verdict, what XLA adds, and what the program costs after it."""
    compiled = Compiled(text, program)
    further = [*compiled.added(whole), *compiled.undone(repetitions(program), whole)]
    return [*map(compiled.judged, findings), *further], compiled.cost()
