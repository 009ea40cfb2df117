"""Loops and branches in normal form, applied as they are made: `Graph(rules=algebra.RULES | loops.RULES)`.

Of a scan x, c_1, ..., c_k -> body, and likewise of a while and of its predicate:

    consts, xs       equal ones are one, unused ones are dropped, numbers known outside are known inside
    c' = c           an array that is carried and never changes is a const
    c_i = c_j        carries that start equal and stay equal are one (below)
    y_i = f(consts)  what no turn of the loop changes is computed once, before it; stacked, it is a broadcast
    y_i = x_i        is xs itself; results that are equal are computed, stored and stacked once

Congruent carries are found by optimistic partition refinement (Alpern, Wegman & Zadeck, POPL 1988): carries with
equal initial values are taken for one, the body is rebuilt with one input for each class, which makes equal
equations one node, and classes whose next values differ are split, until none does. That a class is one is then
an induction over the turns. In the same way a carry is taken to keep the number it starts from until it is seen not to.

The same functions make one loop out of several (`merge`): their carries, congruent or not, side by side.

Values are the same numbers, and no operation is added to a loop that turns at all (a while that does not was taken to).
A value hoisted is alive during the whole loop, so what is hoisted is bounded: `HOISTED` bytes, or as much as the loop
reads and writes outside, whichever is more. Loops with effects inside are left alone, as are scans of length 0.
"""

import itertools
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from jax import lax

from jaxpartials.graph.cost import cost
from jaxpartials.graph.graph import (
    CONSTANT,
    INPUT,
    LEAVES,
    LITERAL,
    Graph,
    Identity,
    Node,
    Rule,
    Value,
    dependents,
    freeze,
    reach,
)
from jaxpartials.graph.memory import size
from jaxpartials.rewrite.algebra import broadcast, number, says_nothing

HOISTED = 2**20

# Rounds of refinement after which carries not yet proved equal are left apart.
ROUNDS = 50

# Made anew where they are read rather than kept: they cost nothing, or less than to be read from memory.
CHEAP = frozenset({"broadcast_in_dim", "reshape", "squeeze", "iota", "convert_element_type"})
# They say where in the program something is to be computed.
PINNED = frozenset({"optimization_barrier"})

Origin = tuple[Any, Any]
# A pass over the bodies under construction, such as `fuse`: equal values in the same graph.
Pass = Callable[[Graph, Sequence[Value]], Sequence[Value]]


def as_it_is(graph: Graph, values: Sequence[Value]) -> Sequence[Value]:
    return values


class Carry(NamedTuple):
    inside: Value  # the input of the body
    init: Value  # outside
    next: Value  # the output of the body
    aval: Any


@dataclass
class Part:
    """One loop, or one of several that are to become one.

    `consts` and `xs` are pairs (value in the body, value outside). A value in the body need not be an input of it.
    """

    body: Graph
    consts: list[tuple[Value, Value]]
    carries: list[Carry]
    xs: list[tuple[Value, Value]] = field(default_factory=list)
    ys: list[tuple[Value, Any]] = field(default_factory=list)  # output of the body, type of the stacked array
    test: Graph | None = None
    test_consts: list[tuple[Value, Value]] = field(default_factory=list)
    test_carries: list[Value] = field(default_factory=list)


class Inside:
    """A body under construction: a graph, and what the values outside are in it."""

    def __init__(self, outer: Graph):
        self.outer = outer
        self.graph = Graph(outer.rules)
        self.consts: dict[Value, Value] = {}  # outside -> inside
        self.xs: dict[Value, Value] = {}
        self.carried: dict[int, Value] = {}  # class of carries -> inside

    def const(self, value: Value) -> Value:
        if value not in self.consts:
            known = is_known(value)
            self.consts[value] = self.graph.include([value], {})[value] if known else self.graph.input(value.aval)
        return self.consts[value]

    def x(self, value: Value) -> Value:
        same = unstacked(self.outer, value)
        if same is not None:
            return self.const(same)
        if value not in self.xs:
            self.xs[value] = self.graph.input(value.aval.update(shape=value.shape[1:]))
        return self.xs[value]

    def carry(self, label: int, aval: Any) -> Value:
        if label not in self.carried:
            self.carried[label] = self.graph.input(aval)
        return self.carried[label]

    @property
    def moving(self) -> list[Value]:
        return [*self.xs.values(), *self.carried.values()]

    @property
    def outside(self) -> dict[Value, Value]:
        return {inside: value for value, inside in self.consts.items()}

    def needed(self, pairs: dict[Any, Value], outputs: Sequence[Value]) -> dict[Any, Value]:
        """Those of the consts, or xs, that the outputs need."""
        used = {node.number for node in reach(outputs) if node.name == INPUT}
        return {value: inside for value, inside in pairs.items() if inside.node.number in used}


# ---- what is known about values


def is_known(value: Value) -> bool:
    """Whether a value is numbers known at trace time: cheaper made anew than handed over."""
    node = value.node
    return node.name == LITERAL or (node.name in CHEAP and all(map(is_known, node.operands)))


def sketch(value: Value) -> Any:
    """A known value as a key that is the same in every graph."""
    node = value.node
    return node.name, str(value.aval), freeze(node.params), tuple(map(sketch, node.operands))


def unstacked(graph: Graph, value: Value) -> Value | None:
    """The array that an xs has at every turn, where it is the same one."""
    node = value.node
    if node.name != "broadcast_in_dim" or len(node.operands) != 1 or not unsharded(value.aval):
        return None
    dimensions = node.params["broadcast_dimensions"]
    sharding = node.params.get("sharding")
    if 0 in dimensions or (sharding is not None and not says_nothing(sharding)):
        return None
    return broadcast(graph, node.operands[0], value.shape[1:], [axis - 1 for axis in dimensions])


def unsharded(aval: Any) -> bool:
    sharding = getattr(aval, "sharding", None)
    return sharding is None or all(axis is None for axis in sharding.spec)


def constants_of(outer: Graph, *graphs: Graph) -> list[tuple[Value, Value]]:
    """The arrays that bodies close over, which become consts."""
    found = []
    for graph in graphs:
        for node in reach(graph.outputs):
            if node.name == CONSTANT:
                (value,) = node.outputs
                found.append((value, outer.constant(node.params["value"], value.aval)))
    return found


# ---- congruence


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


def attempt(outer: Graph, parts: Sequence[Part], labels: list[int], held: dict[int, Value], tidy: Pass) -> Settled:
    """The body rebuilt as if the carries of one label were equal, and those `held` never changed."""
    inside = Inside(outer)
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


# ---- loop-invariant code motion


def hoistable(inside: Inside, outputs: Sequence[Value], budget: float) -> list[Value]:
    """What the loop reads and no turn of it changes, where it costs anything to compute, within `budget` bytes."""
    moving = dependents(outputs, inside.moving)
    read = [v for node in reach(outputs) if node.number in moving for v in node.operands]
    stack = [v for v in [*outputs, *read] if v.node.number not in moving]
    found: dict[Value, None] = {}
    seen = set()
    while stack:
        value = stack.pop()
        if value in seen or value.node.name in LEAVES:
            continue
        seen.add(value)
        if value.node.name in CHEAP or value.node.name in PINNED:
            stack.extend(value.node.operands)
        else:
            found[value] = None
    chosen, spent = [], 0.0
    for value in sorted(found, key=lambda v: -cost(v.node).time / max(size(v.aval), 1)):
        spent += size(value.aval)
        if spent <= budget:
            chosen.append(value)
    return sorted(chosen, key=lambda v: (v.node.number, v.index))


def allowance(values: Iterable[Value], avals: Iterable[Any] = ()) -> float:
    return max(HOISTED, sum(size(v.aval) for v in values) + sum(map(size, avals)))


def hoist(inside: Inside, chosen: Sequence[Value]) -> list[tuple[Value, Value]]:
    """The chosen values computed outside: pairs (inside, outside), those of the consts among them."""
    outside = inside.outside
    done = inside.outer.include(chosen, outside)
    return [*outside.items(), *((value, done[value]) for value in chosen)]


# ---- scan


def scan_part(
    outer: Graph,
    operands: Sequence[Value],
    params: dict[str, Any],
    bodies: Sequence[Graph],
    avals: Sequence[Any],
    used: Iterable[int] | None = None,
) -> Part:
    """A scan taken apart; with `used`, only those outputs of it, which need no others."""
    (body,) = bodies
    consts, carried = params["num_consts"], params["num_carry"]
    wanted = range(len(avals)) if used is None else sorted(used)
    inputs = list(zip(body.inputs, operands, strict=True))
    return Part(
        body,
        [*inputs[:consts], *constants_of(outer, body)],
        [
            Carry(body.inputs[consts + i], operands[consts + i], body.outputs[i], avals[i])
            for i in wanted
            if i < carried
        ],
        inputs[consts + carried :],
        [(body.outputs[i], avals[i]) for i in wanted if i >= carried],
    )


def scan(
    outer: Graph, parts: Sequence[Part], settings: dict[str, Any], origin: Origin, tidy: Pass = as_it_is
) -> list[list[Value]]:
    """One scan in normal form that does what the parts do: for each part its last carries, then its ys."""
    carries = [carry for part in parts for carry in part.carries]
    stacks = [aval for part in parts for _, aval in part.ys]
    state = settle(outer, parts, tidy)
    inside = state.inside
    changing = classes(state, carries)
    moving = dependents([*state.nexts, *state.ys], inside.moving)
    taken = {v: value for value, v in inside.xs.items()}
    results: dict[Value, Value] = {}  # ys that need no loop, or not this one
    stacked: dict[Value, Any] = {}
    for y, aval in zip(state.ys, stacks, strict=True):
        if y in taken:
            results[y] = taken[y]
        elif y.node.number not in moving and unsharded(aval):
            once = outer.include([y], inside.outside)[y]
            results[y] = broadcast(outer, once, aval.shape, range(1, len(aval.shape)))
        else:
            stacked[y] = aval
    outputs = [*(carry.next for carry in changing.values()), *stacked]
    given = [*inside.consts, *inside.xs, *(carry.init for carry in changing.values())]
    chosen = hoistable(inside, outputs, allowance(given, [*(c.aval for c in changing.values()), *stacked.values()]))
    if chosen:
        xs = [(v, value) for value, v in inside.xs.items()]
        again = Part(inside.graph, hoist(inside, chosen), list(changing.values()), xs, list(stacked.items()))
        (found,) = scan(outer, [again], settings, origin, tidy)
    else:
        found = place_scan(inside, changing, stacked, settings, origin) if outputs else []
    last = dict(zip(changing, found, strict=False))
    results.update(zip(stacked, found[len(changing) :], strict=True))
    return deal(parts, state, last, [results[y] for y in state.ys])


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


def place_scan(inside: Inside, changing, stacked, settings, origin) -> Sequence[Value]:
    graph, outer = inside.graph, inside.outer
    graph.outputs = [*(carry.next for carry in changing.values()), *stacked]
    consts, xs = inside.needed(inside.consts, graph.outputs), inside.needed(inside.xs, graph.outputs)
    heads = [carry.inside for carry in changing.values()]
    graph.inputs = [*consts.values(), *heads, *xs.values()]
    operands = [*consts, *(carry.init for carry in changing.values()), *xs]
    params = {**settings, "num_consts": len(consts), "num_carry": len(heads)}
    avals = [*(carry.aval for carry in changing.values()), *stacked.values()]
    return place(outer, lax.scan_p, operands, params, [graph], avals, origin)


def scan_rule(graph: Graph, operands, params, bodies, avals) -> list[Value] | None:
    if params["length"] == 0 or any(body.effects for body in bodies) or is_normal("scan", operands, params, bodies):
        return None
    origin = graph.origin
    (outputs,) = scan(graph, [scan_part(graph, operands, params, bodies, avals)], scan_settings(params), origin)
    return outputs


def scan_settings(params: dict[str, Any]) -> dict[str, Any]:
    return {name: setting for name, setting in params.items() if name not in ("num_consts", "num_carry")}


# ---- while


def while_part(
    outer: Graph,
    operands: Sequence[Value],
    params: dict[str, Any],
    bodies: Sequence[Graph],
    avals: Sequence[Any],
    used: Iterable[int] | None = None,
) -> Part:
    """A while taken apart; with `used`, only those carries of it, which need no others, nor does the predicate."""
    test, body = bodies
    in_test, in_body = params["cond_nconsts"], params["body_nconsts"]
    wanted = range(len(avals)) if used is None else sorted(used)
    fixed, steps, inits = operands[:in_test], operands[in_test : in_test + in_body], operands[in_test + in_body :]
    return Part(
        body,
        [*zip(body.inputs[:in_body], steps, strict=True), *constants_of(outer, body)],
        [Carry(body.inputs[in_body + i], inits[i], body.outputs[i], avals[i]) for i in wanted],
        test=test,
        test_consts=[*zip(test.inputs[:in_test], fixed, strict=True), *constants_of(outer, test)],
        test_carries=[test.inputs[in_test + i] for i in wanted],
    )


def while_loop(outer: Graph, parts: Sequence[Part], origin: Origin, tidy: Pass = as_it_is) -> list[list[Value]] | None:
    """One while in normal form that does what the parts do; None where their predicates are not the same value."""
    carries = [carry for part in parts for carry in part.carries]
    state = settle(outer, parts, tidy)
    inside, testing = state.inside, Inside(outer)
    changing = classes(state, carries)
    label = iter(state.labels)
    tests = []
    for part in parts:
        assert part.test is not None
        known = {v: testing.const(value) for v, value in part.test_consts}
        for v in part.test_carries:
            which = next(label)
            known[v] = testing.const(state.held[which]) if which in state.held else testing.carry(which, v.aval)
        (go,) = part.test.outputs
        tests.append(testing.graph.include([go], known)[go])
    if any(go is not tests[0] for go in tests):
        return None
    outputs = [carry.next for carry in changing.values()]
    given = [*inside.consts, *testing.consts, *(carry.init for carry in changing.values())]
    budget = allowance(given, [carry.aval for carry in changing.values()])
    chosen = hoistable(inside, outputs, budget)
    chosen_tests = hoistable(testing, tests[:1], budget) if changing else []
    heads = [testing.carry(which, carry.inside.aval) for which, carry in changing.items()]
    if chosen or chosen_tests:
        testing.graph.outputs = tests[:1]
        again = Part(
            inside.graph, hoist(inside, chosen), list(changing.values()),
            test=testing.graph, test_consts=hoist(testing, chosen_tests), test_carries=heads,
        )  # fmt: skip
        found = while_loop(outer, [again], origin, tidy)
        assert found is not None
        (last,) = found
    else:
        last = place_while(inside, testing, changing, heads, tests[0], origin) if changing else []
    return deal(parts, state, dict(zip(changing, last, strict=True)), [])


def place_while(inside: Inside, testing: Inside, changing, heads, go, origin) -> Sequence[Value]:
    testing.graph.outputs, inside.graph.outputs = [go], [carry.next for carry in changing.values()]
    fixed = testing.needed(testing.consts, [go])
    consts = inside.needed(inside.consts, inside.graph.outputs)
    testing.graph.inputs = [*fixed.values(), *heads]
    inside.graph.inputs = [*consts.values(), *(carry.inside for carry in changing.values())]
    operands = [*fixed, *consts, *(carry.init for carry in changing.values())]
    params = {"cond_nconsts": len(fixed), "body_nconsts": len(consts)}
    avals = [carry.aval for carry in changing.values()]
    return place(inside.outer, lax.while_p, operands, params, [testing.graph, inside.graph], avals, origin)


def while_rule(graph: Graph, operands, params, bodies, avals) -> list[Value] | None:
    if any(body.effects for body in bodies) or is_normal("while", operands, params, bodies):
        return None
    origin = graph.origin
    found = while_loop(graph, [while_part(graph, operands, params, bodies, avals)], origin)
    assert found is not None
    return found[0]


# ---- cond


@dataclass
class Choice:
    """One conditional: the values outside that the inputs of its branches are, and the outputs wanted of it."""

    branches: Sequence[Graph]
    operands: Sequence[Value]
    avals: dict[int, Any]


def cond_part(
    outer: Graph,
    operands: Sequence[Value],
    params: dict[str, Any],
    bodies: Sequence[Graph],
    avals: Sequence[Any],
    used: Iterable[int] | None = None,
) -> Choice:
    wanted = range(len(avals)) if used is None else sorted(used)
    return Choice(bodies, operands[1:], {i: avals[i] for i in wanted})


def cond(
    outer: Graph, index: Value, parts: Sequence[Choice], origin: Origin, tidy: Pass = as_it_is
) -> list[list[Value]]:
    """One conditional in normal form that does what the parts do, all by one index.

    cond(i, b_0, b_1, ...) -> b_i for a known i, and cond(i, b, b, ...) -> b. An output that is the same operand in all
    branches is that operand; one that is the same known number is that number.
    """
    count = len(parts[0].branches)
    chosen = number(index)
    numbers = range(count) if chosen is None else [min(max(int(chosen), 0), count - 1)]
    rooms = [Inside(outer) for _ in numbers]
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


def common(outer: Graph, rooms: Sequence[Inside], row: Sequence[Value]) -> Value | None:
    """The value outside that an output is in all branches."""
    found = set()
    for room, v in zip(rooms, row, strict=True):
        value = room.outside.get(v)
        if value is None and is_known(v):
            value = outer.include([v], {})[v]
        found.add(value)
    return found.pop() if len(found) == 1 else None


def cond_rule(graph: Graph, operands, params, bodies, avals) -> list[Value] | None:
    if any(body.effects for body in bodies) or is_normal("cond", operands, params, bodies):
        return None
    (outputs,) = cond(graph, operands[0], [cond_part(graph, operands, params, bodies, avals)], graph.origin)
    return outputs


# ---- placing, and not doing twice what is done


# What loops in normal form look like from outside, by their last body: such a loop stays as it is.
_normal: weakref.WeakKeyDictionary[Graph, set] = weakref.WeakKeyDictionary()


def place(outer: Graph, primitive, operands, params, bodies, avals, origin: Origin) -> tuple[Value, ...]:
    _normal.setdefault(bodies[-1], set()).add(view(primitive.name, operands, params, bodies))
    source, context = origin
    return outer.place(
        primitive, operands, params, avals, name=primitive.name, bodies=bodies, source=source, context=context
    )


def is_normal(name: str, operands: Sequence[Value], params: dict[str, Any], bodies: Sequence[Graph]) -> bool:
    return bodies[-1] in _normal and view(name, operands, params, bodies) in _normal[bodies[-1]]


def view(name: str, operands: Sequence[Value], params: dict[str, Any], bodies: Sequence[Graph]) -> Any:
    """All that the normal form of a loop depends on, but for the last of its bodies: which operands are equal, what is
    known of them, and whether an xs is one array over and over."""
    first: dict[Value, int] = {}
    shown = []
    for value in operands:
        repeated = name == "scan" and value.node.name == "broadcast_in_dim"
        known = sketch(value) if is_known(value) else freeze(value.node.params) if repeated else None
        shown.append((first.setdefault(value, len(first)), known))
    return name, freeze(params), tuple(map(Identity, bodies[:-1])), tuple(shown)


# ---- several at once

TAKEN_APART: dict[str, Any] = {"scan": scan_part, "while": while_part, "cond": cond_part}


def merge(
    graph: Graph, nodes: Sequence[Node], used: Sequence[Iterable[int]] | None = None, tidy: Pass = as_it_is
) -> list[list[Value]] | None:
    """One loop, or conditional, that does what all the nodes do, none of which may need another: their outputs.

    Scans must have one length and direction, conditionals one index. Of whiles the predicates must turn out to be
    the same value; where they do not, the answer is None. With `used`, only those outputs of each. The bodies are
    passed through `tidy`: some carries are congruent only once the loops inside are fused.
    """
    name, origin = nodes[0].name, (nodes[0].source, nodes[0].context)
    parts = [
        TAKEN_APART[name](graph, n.operands, n.params, n.bodies, [v.aval for v in n.outputs], used and used[i])
        for i, n in enumerate(nodes)
    ]
    if name == "scan":
        return scan(graph, parts, scan_settings(nodes[0].params), origin, tidy)
    if name == "while":
        return while_loop(graph, parts, origin, tidy)
    return cond(graph, nodes[0].operands[0], parts, origin, tidy)


RULES: dict[str, list[Rule]] = {"scan": [scan_rule], "while": [while_rule], "cond": [cond_rule]}
