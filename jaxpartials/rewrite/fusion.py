"""Several loops made one: a pass over a whole program.

    scan f over n;  scan g over n          ->  scan (f, g) over n         f and g share work
    cond(i, f_0, f_1);  cond(i, g_0, g_1)  ->  cond(i, (f_0, g_0), (f_1, g_1))
    while p: f;  while q: g                ->  while p: (f, g)            p and q are the same value in the fused loop

neither needing a result of the other. What the two share is found by the rules of `loops`, which merge the carries that
are congruent. A loop and its derivative, two derivatives of one loop, and the forward passes of a value and of its
gradient become one loop in this way.

Fused only if the bodies together cost less than apart by `SHARED` of the smaller, never with more operations than
before, and as long as the peak of live bytes stays within `GROWTH` times what it was, plus `SLACK` bytes.
"""

import itertools
import weakref
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from jaxpartials import _jax
from jaxpartials.graph.cost import cost, total
from jaxpartials.graph.graph import Graph, Node, Value, freeze
from jaxpartials.graph.memory import peak_bytes
from jaxpartials.rewrite.loops import merge
from jaxpartials.rewrite.nested import is_loop, live, loops_of, replaced
from jaxpartials.rewrite.numbering import Numbering, work
from jaxpartials.rewrite.scans import scan_settings
from jaxpartials.rewrite.unread import drop_unread

SHARED = 0.1
GROWTH = 1.1
SLACK = 2**20

# Loops that a loop is tried to be fused with, those that read most of the same values first.
TRIALS = 4

# Loops with more equations together must share so much of the larger: every fusion reads both bodies.
LARGEST = 300

# Each round may make fusible what reads the loops fused before; a bound in case two rewrites undo each other.
ROUNDS = 50


def fuse(graph: Graph, values: Sequence[Value], effects: Sequence[Node] = ()) -> list[Value]:
    """Equal values computed with fewer and smaller loops, in the same graph.

    `effects` are the nodes with effects to be kept, in order, with all that they need. Where what they read is
    replaced, they are placed anew, in the same order, and `graph.effects` holds them.
    """
    values = list(values)
    if not loops_of(values, effects):
        return values
    for _ in range(ROUNDS):
        before = values
        for step in (drop_unread, _enter, _join):
            values, effects = step(graph, values, effects)
        if values == before:
            break
    return values


# ---- loops inside loops

# Bodies in which nothing is left to do.
_done: weakref.WeakSet[Graph] = weakref.WeakSet()


def _enter(graph: Graph, values: Sequence[Value], effects: Sequence[Node]) -> tuple[list[Value], Sequence[Node]]:
    """The same pass in the bodies of loops and branches."""
    by: dict[Value, Value] = {}
    for node in loops_of(values, effects):
        by.update(zip(node.outputs, _entered(graph, node), strict=True))
    return replaced(graph, values, effects, by)


def _entered(graph: Graph, node: Node) -> Sequence[Value]:
    """The outputs of a loop, its bodies fused."""
    if all(body in _done for body in node.bodies):
        return node.outputs
    _done.update(node.bodies)
    if not any(is_loop(inner) for body in node.bodies for inner in body.nodes):
        return node.outputs
    found = merge(graph, [node], tidy=fuse)
    assert found is not None
    for v in found[0]:
        if is_loop(v.node):
            _done.update(v.node.bodies)
    return found[0]


# ---- fusion


@dataclass(eq=False)
class Group:
    """Loops that are one: bits of its members, and what has become of each of their outputs."""

    node: Node
    members: int
    outputs: dict[Value, Value]

    def settled(self, same: dict[Value, Value]) -> dict[Value, Value]:
        """What stands for each output: what stands for the first that has become the same."""
        first: dict[Value, Value] = {}
        return {old: first.setdefault(new, same[old]) for old, new in self.outputs.items() if old in same}


def _join(graph: Graph, values: Sequence[Value], effects: Sequence[Node]) -> tuple[list[Value], Sequence[Node]]:
    """Fuse the loops that share work, as far as the peak of live bytes allows."""
    steps = _fusions(graph, values, effects)
    if not steps:
        return list(values), effects
    bound = GROWTH * peak_bytes(values, effects) + SLACK

    def within(count: int) -> bool:
        kept = graph.effects  # this is a trial: nodes with effects that it places are not part of the program
        found, placed = replaced(graph, values, effects, _substitution(steps[:count]))
        graph.effects = kept
        return peak_bytes(found, placed) <= bound

    # The longest run of fusions that stays within the bound.
    most = len(steps)
    if not within(most):
        least = 0
        while most - least > 1:
            middle = (least + most) // 2
            least, most = (middle, most) if within(middle) else (least, middle)
        most = least
    return replaced(graph, values, effects, _substitution(steps[:most]))


def _substitution(steps: Sequence[dict[Value, Value]]) -> dict[Value, Value]:
    """What has become of each output after some steps."""
    by: dict[Value, Value] = {}
    for step in steps:
        by |= step
    return by


def _fusions(graph: Graph, values: Sequence[Value], effects: Sequence[Node]) -> list[dict[Value, Value]]:
    """Each fusion as what becomes of the outputs of all members, in the order in which they were made."""
    nodes = live(values, effects)
    loops = [node for node in nodes if is_loop(node)]
    kinds = Counter(map(_family, loops))
    loops = [node for node in loops if kinds[_family(node)] > 1]
    if not loops:
        return []
    fusing = _Fusing(graph, nodes, loops)
    for node in nodes:
        fusing.visit(node)
    return fusing.steps


class _Fusing:
    """One pass over all nodes, in order.

    Of several values that fusion has shown to be equal, the first stands for all (`same`). So loops that read the
    results of loops are seen to share work as soon as those are one, and a chain of loops takes one pass. What stands
    for others is never an output of a fused loop, which may yet become part of another.
    """

    def __init__(self, graph: Graph, nodes: Sequence[Node], loops: Sequence[Node]):
        self.graph = graph
        self.place = {node: i for i, node in enumerate(loops)}
        self.needs = _dependences(nodes, loops)
        self.numbering = Numbering()
        self.groups: dict[tuple[Hashable, int], list[Group]] = {}  # by what their first turn computes
        self.owner: dict[Node, Group] = {}
        self.same: dict[Value, Value] = {}
        self.steps: list[dict[Value, Value]] = []

    def visit(self, node: Node) -> None:
        outputs = self._made_anew(node)
        made = dict(zip(node.outputs, outputs, strict=True))
        self.same |= made
        if node not in self.place:
            return
        if node in self.owner:  # it is what others have become
            self.same |= self.owner[node].settled(self.same)
            return
        loop = outputs[0].node
        if any(v.node is not loop for v in outputs) or not is_loop(loop):
            return
        bit = 1 << self.place[node]
        if loop in self.owner:  # it has become a loop that is there already
            group = self.owner[loop]
            self._put(group, Group(group.node, bit, {old: group.outputs.get(v, v) for old, v in made.items()}))
            return
        self.same.update((v, v) for v in outputs)
        own = Group(loop, bit, {v: v for v in loop.outputs} | made)
        if loop is not node:
            self.steps.append(dict(own.outputs))
        self._enter(own, needed=self.needs[self.place[node]])

    def _made_anew(self, node: Node) -> Sequence[Value]:
        """The outputs of an equation, made of what stands for its operands; effects stay as they are."""
        operands = [self.same[v] for v in node.operands]
        if node.effects or all(new is old for new, old in zip(operands, node.operands, strict=True)):
            return node.outputs
        return self.graph.add(
            node.primitive, operands, node.params, [v.aval for v in node.outputs], name=node.name, bodies=node.bodies,
            opaque=node.opaque, source=node.source, context=node.context,
        )  # fmt: skip

    def _enter(self, own: Group, needed: int) -> None:
        """A loop joins the first group that it shares enough with, or is the first of one."""
        node = own.node
        kind, computed = _kind(node), self.numbering.first_turn(node)
        tried = 0
        group = own
        for other in self._near(kind, computed, node):
            if needed & other.members or any(self.needs[i] & own.members for i in _bits(other.members)):
                continue
            joined = _fuse_pair(self.graph, other, own)
            if joined is not None:
                # What comes out may be a loop that is there already: it joins the group, unless it is in another one.
                if self.owner.get(joined.node, other) is not other and joined.node is not node:
                    continue
                group = other
                self._put(group, joined)
                break
            tried += 1
            if tried == TRIALS:
                break
        self.owner[node] = self.owner[group.node] = group
        for number in computed:
            members = self.groups.setdefault((kind, number), [])
            if group not in members:
                members.append(group)

    def _near(self, kind: Hashable, computed: dict[int, float], node: Node) -> list[Group]:
        """The groups that may share enough with a loop, those first that may share most."""
        shared: dict[int, float] = {}
        found: dict[int, Group] = {}
        for number, time in computed.items():
            for group in self.groups.get((kind, number), ()):
                shared[id(group)] = shared.get(id(group), 0.0) + time
                found[id(group)] = group
        order = sorted(shared, key=lambda one: -shared[one])
        return [found[one] for one in order if shared[one] >= self._enough(found[one].node, node)]

    @staticmethod
    def _enough(one: Node, other: Node) -> float:
        """How much two loops must share."""
        which = min if _size(one) + _size(other) <= LARGEST else max
        return SHARED * which(work(one), work(other))

    def _put(self, group: Group, joined: Group) -> None:
        """The group, after others have joined it."""
        group.node = joined.node
        group.members |= joined.members
        group.outputs |= joined.outputs
        if joined.node in self.place:
            group.members |= 1 << self.place[joined.node]
            group.outputs |= {v: v for v in joined.node.outputs}
        self.owner[joined.node] = group
        _depend_together(self.needs, group.members)
        self.steps.append(dict(group.outputs))
        self.same |= group.settled(self.same)


def _family(node: Node) -> Hashable:
    """What loops that are not fused yet must have in common to be so later."""
    return node.name, freeze(scan_settings(node.params)) if node.name == "scan" else None


def _kind(node: Node) -> Hashable:
    """Only loops of one kind are fused: of one length and direction, on one index, under the same settings."""
    settings = None if node.context is None else _jax.context_key(node.context)
    if node.name == "scan":
        return "scan", freeze(scan_settings(node.params)), settings
    if node.name == "while":
        return "while", node.bodies[0].outputs[0].shape, settings
    return "cond", node.operands[0], settings


def _fuse_pair(graph: Graph, one: Group, other: Group) -> Group | None:
    """The two as one, if they share enough."""
    found = merge(graph, [one.node, other.node], tidy=fuse)
    if found is None:
        return None
    results = list(itertools.chain(*found))
    read = {v.node for node in (one.node, other.node) for v in node.operands}

    made = {v.node for v in results if v.node.name == one.node.name and v.node not in read}
    if len(made) != 1:
        return None
    (node,) = made
    apart = work(one.node), work(other.node)
    saved = sum(apart) - work(node)
    before, after = total([cost(one.node), cost(other.node)]), cost(node)
    slack = 1 + 1e-9
    if (
        saved < SHARED * min(apart)
        or saved <= 0
        or after.flops > before.flops * slack
        or after.transcendentals > before.transcendentals * slack
        or after.time > before.time * slack
    ):
        return None
    new = dict(zip([*one.node.outputs, *other.node.outputs], results, strict=True))
    outputs = {old: new.get(v, v) for old, v in (one.outputs | other.outputs).items()} | new
    return Group(node, one.members | other.members, outputs)


def _size(node: Node) -> int:
    """How many equations the bodies of a loop have, those of loops inside not counted."""
    return sum(len(body.nodes) for body in node.bodies)


def _bits(mask: int) -> list[int]:
    return [i for i in range(mask.bit_length()) if mask >> i & 1]


def _dependences(nodes: Sequence[Node], loops: Sequence[Node]) -> list[int]:
    """For each loop a set of bits: the loops that it needs. An effect comes after all that earlier effects need."""
    place = {node: i for i, node in enumerate(loops)}
    needs: dict[Node, int] = {}
    earlier = 0
    for node in nodes:
        mask = earlier if node.effects else 0
        for v in node.operands:
            mask |= needs[v.node] | (1 << place[v.node] if v.node in place else 0)
        needs[node] = mask
        if node.effects:
            earlier = mask
    return [needs[node] for node in loops]


def _depend_together(needs: list[int], members: int) -> None:
    """Whoever needs one of the members needs all of them, and what any of them needs."""
    bits = _bits(members)
    union = 0
    for i in bits:
        union |= needs[i]
    for i in bits:
        needs[i] = union
    for i, mask in enumerate(needs):
        if mask & members:
            needs[i] = mask | members | union
