"""Sums that move into loops and branches: a carry that is linear in what is summed is carried summed.

    h_{t+1,i} = L_t(h_{t,i}) + b_{t,i}     =>     sum_i h_{t+1,i} = L_t(sum_i h_{t,i}) + sum_i b_{t,i}

so that the loop carries one array in the place of one for each i. It starts from the sum of what it started from, and
reads sums of what it read. The same for what a scan stacks, for the outputs of a cond whose predicate does not depend
on i, and for the carries of a while.

A loop can be asked for several sums one after another, and what else is read of it is known only when all sums have
been moved. So every sum is a placeholder first, and the new loop is made once, at the end, without the carries that
nothing needs any more.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from jaxpartials.graph.graph import LEAVES, Graph, Node, Value, reach

LOOPS = frozenset({"scan", "while", "cond"})

Key = tuple[int, tuple[int, ...]]  # a position among inputs or outputs, and axes


def movable(node: Node) -> bool:
    return node.name in LOOPS and not node.opaque and not node.effects and not any(b.effects for b in node.bodies)


class Loop:
    """A loop or a branching, with the sums that were asked of it."""

    def __init__(self, graph: Graph, node: Node, sums: Callable[[Graph, Callable], Any]):
        self.graph, self.node = graph, node
        self.bodies = [_copied(body, graph.rules) for body in node.bodies]
        self.wanted: dict[Key, Value] = {}  # outputs: a placeholder in the graph around
        self.operands: dict[Key, Value | None] = {}  # sums of operands, by their position
        self.inputs: list[dict[Key, Value]] = [{} for _ in self.bodies]  # and the bodies' inputs for them
        self.outputs: list[dict[Key, Value]] = [{} for _ in self.bodies]  # sums of the bodies' outputs
        self.sums = {b: sums(self.bodies[b], lambda v, axes, b=b: self._input(b, v, axes)) for b in self.computing}

    # ---- where things are

    @property
    def computing(self) -> Sequence[int]:
        """The bodies that compute the outputs; a while has its test besides."""
        return (1,) if self.node.name == "while" else range(len(self.node.bodies))

    @property
    def counts(self) -> tuple[int, int]:
        """How many operands come before the carries, and how many carries there are."""
        params, node = self.node.params, self.node
        if node.name == "scan":
            return params["num_consts"], params["num_carry"]
        if node.name == "while":
            before = params["cond_nconsts"] + params["body_nconsts"]
            return before, len(node.operands) - before
        return len(node.operands), 0

    def _operand(self, position: int) -> int:
        """The operand that an input of a computing body is bound to."""
        shift = {"scan": 0, "cond": 1, "while": self.node.params.get("cond_nconsts", 0)}[self.node.name]
        return position + shift

    def _is_carry(self, operand: int) -> bool:
        before, carried = self.counts
        return before <= operand < before + carried

    def _is_stacked(self, operand: int) -> bool:
        return self.node.name == "scan" and operand >= sum(self.counts)

    # ---- asking

    def ask(self, index: int, axes: tuple[int, ...]):
        """The sum of an output; None where nothing is gained. Asks the graph around for sums of operands."""
        key = index, axes
        if key in self.wanted:
            return self.wanted[key]
        stacked = self.is_stack(index)
        if not axes or self._over_lanes(axes):
            return None
        inner = tuple(a - 1 for a in axes) if stacked else axes
        gained = [self._output(b, (index, inner)) for b in self.computing]
        if not any(gained):
            return None
        if self.counts[1] and not stacked:
            self._carry(index, inner)
        while True:
            carries = [k for k in self.operands if self._is_carry(k[0])]
            todo = [(b, (k[0] - self.counts[0], k[1])) for b in self.computing for k in carries]
            todo = [(b, k) for b, k in todo if k not in self.outputs[b]]
            for b, k in todo:
                if self._over_lanes(k[1]):
                    return None
                self._output(b, k)
            if not todo:
                break
        for operand, summed in list(self.operands):
            if self.operands[operand, summed] is None:
                outer = tuple(a + 1 for a in summed) if self._is_stacked(operand) else summed
                self.operands[operand, summed] = yield self.node.operands[operand], outer
        old = self.node.outputs[index]
        self.wanted[key] = self.graph.placeholder(_reduced(old.aval, axes))
        return self.wanted[key]

    def is_stack(self, index: int) -> bool:
        """Whether an output has an axis for the steps, its first."""
        return self.node.name == "scan" and index >= self.counts[1]

    def _over_lanes(self, axes: Sequence[int]) -> bool:
        """A while of a vmap stops lane by lane: the lanes must stay apart."""
        return self.node.name == "while" and any(a < len(self.node.bodies[0].outputs[0].shape) for a in axes)

    def _output(self, b: int, key: Key) -> bool:
        """Make the sum of a body's output; whether anything is gained by it."""
        index, axes = key
        self.outputs[b][key], gained = self.sums[b].moved(self.bodies[b].outputs[index], axes)
        return gained

    def _carry(self, index: int, axes: tuple[int, ...]) -> None:
        """The sum of a carry is carried."""
        operand = index + self.counts[0]
        for b in self.computing:
            position = operand - self._operand(0)
            self._input(b, self.bodies[b].inputs[position], axes)

    def _input(self, b: int, value: Value, axes: tuple[int, ...]) -> Value | None:
        """The sum of a body's input: another input."""
        body = self.bodies[b]
        if value not in body.inputs:
            return None
        operand = self._operand(body.inputs.index(value))
        key = operand, axes
        self.operands.setdefault(key, None)
        if key not in self.inputs[b]:
            self.inputs[b][key] = body.placeholder(_reduced(value.aval, axes))
        return self.inputs[b][key]

    # ---- making

    def replaced(self, used: set[Value]) -> dict[Value, Value]:
        """The new loop: what is used of the old one, and the sums, by what they are to be replaced with."""
        node = self.node
        old = [v for v in node.outputs if v in used]
        new = [key for key, v in self.wanted.items() if v in used]
        if not new:
            return {}
        make = {"scan": self._scan, "while": self._while, "cond": self._cond}[node.name]
        places = {v: (v.index, ()) for v in old} | {self.wanted[key]: self._inner(key) for key in new}
        outputs = make(list(places.values()))
        return dict(zip(places, outputs, strict=True))

    def _inner(self, key: Key) -> Key:
        index, axes = key
        return (index, tuple(a - 1 for a in axes)) if self.is_stack(index) else key

    def _out(self, b: int, key: Key) -> Value:
        return self.outputs[b][key] if key[1] else self.bodies[b].outputs[key[0]]

    def _in(self, b: int, key: Key) -> Value:
        """The body's input for an operand, or for the sum of one."""
        return self.inputs[b][key] if key[1] else self.bodies[b].inputs[key[0] - self._operand(0)]

    def _given(self, key: Key) -> Value:
        found = self.operands[key] if key[1] else self.node.operands[key[0]]
        assert found is not None
        return found

    def _candidates(self, b: int) -> list[Key]:
        shift = self._operand(0)
        return [*((i + shift, ()) for i in range(len(self.bodies[b].inputs))), *self.inputs[b]]

    def _needed(self, b: int, outs: Iterable[Value]) -> list[Key]:
        """The operands that outputs of a body need."""
        found = {v for node in reach(outs) if node.name in LEAVES for v in node.outputs}
        return [key for key in self._candidates(b) if self._in(b, key) in found]

    def _closed(self, b: int, carries: list[Key], outs: list[Value]) -> tuple[list[Key], list[Key], list[Value]]:
        """The carries that these carries and outputs need; all operands that those need; what the body computes."""
        before, _ = self.counts
        while True:
            updates = [self._out(b, (k - before, axes)) for k, axes in carries]
            made = self.sums[b].settled([*updates, *outs])
            needed = self._needed(b, made)
            more = [key for key in needed if self._is_carry(key[0]) and key not in carries]
            if not more:
                return carries, needed, made
            carries = [*carries, *more]

    def _scan(self, places: list[Key]) -> list[Value]:
        before, carried = self.counts
        stacked = [key for key in places if key[0] >= carried]
        carries = [(i + before, axes) for i, axes in places if i < carried]
        carries, needed, made = self._closed(0, carries, [self._out(0, key) for key in stacked])
        consts = [key for key in needed if key[0] < before]
        xs = [key for key in needed if self._is_stacked(key[0])]
        order = [*consts, *carries, *xs]
        program = _program(self.bodies[0], [self._in(0, key) for key in order], made)
        length = self.node.params["length"]
        params = {**self.node.params, "num_consts": len(consts), "num_carry": len(carries)}
        avals = [v.aval if i < len(carries) else _stacked(v.aval, length) for i, v in enumerate(made)]
        outputs = self._add([self._given(key) for key in order], params, avals, [program])
        found = dict(zip([(k - before, axes) for k, axes in carries] + stacked, outputs, strict=True))
        return [found[key] for key in places]

    def _while(self, places: list[Key]) -> list[Value]:
        before, _ = self.counts
        in_test = self.node.params["cond_nconsts"]
        test = self.bodies[0]
        read = {v for node in reach(test.outputs) if node.name in LEAVES for v in node.outputs}
        tested = [(i - in_test + before, ()) for i, v in enumerate(test.inputs) if v in read and i >= in_test]
        carries = list(dict.fromkeys([*((i + before, axes) for i, axes in places), *tested]))
        carries, needed, made = self._closed(1, carries, [])
        consts = [key for key in needed if key[0] < before]
        program = _program(self.bodies[1], [self._in(1, key) for key in [*consts, *carries]], made)
        inputs = [*test.inputs[:in_test]]
        for k, axes in carries:
            plain = test.inputs[k - before + in_test]
            inputs.append(test.placeholder(_reduced(plain.aval, axes)) if axes else plain)
        testing = _program(test, inputs, test.outputs)
        params = {**self.node.params, "body_nconsts": len(consts)}
        operands = [*self.node.operands[:in_test], *(self._given(key) for key in [*consts, *carries])]
        outputs = self._add(operands, params, [v.aval for v in made], [testing, program])
        found = dict(zip([(k - before, axes) for k, axes in carries], outputs, strict=True))
        return [found[key] for key in places]

    def _cond(self, places: list[Key]) -> list[Value]:
        outs = [self.sums[b].settled([self._out(b, key) for key in places]) for b in self.computing]
        needed = [set(self._needed(b, outs[b])) for b in self.computing]
        every = dict.fromkeys(key for b in self.computing for key in self._candidates(b))
        order = [key for key in every if any(key in some for some in needed)]
        programs = []
        for b in self.computing:
            for key in order:
                if key[1] and key not in self.inputs[b]:
                    self.inputs[b][key] = self.bodies[b].placeholder(self._given(key).aval)
            programs.append(_program(self.bodies[b], [self._in(b, key) for key in order], outs[b]))
        operands = [self.node.operands[0], *(self._given(key) for key in order)]
        return self._add(operands, self.node.params, [v.aval for v in outs[0]], programs)

    def _add(self, operands, params, avals, programs) -> list[Value]:
        node = self.node
        return list(
            self.graph.add(
                node.primitive, operands, params, avals, name=node.name, bodies=programs,
                source=node.source, context=node.context,
            )
        )  # fmt: skip


def _copied(body: Graph, rules: Any) -> Graph:
    """The body, on a graph of its own that may be extended."""
    copy = Graph(rules)
    done: dict[Value, Value] = {v: copy.input(v.aval) for v in body.inputs}
    for node in reach(body.outputs):
        if node.outputs[0] in done:
            continue
        if node.name == "literal":
            done[node.outputs[0]] = copy.literal(node.params["value"], node.outputs[0].aval)
        elif node.name == "constant":
            done[node.outputs[0]] = copy.constant(node.params["value"], node.outputs[0].aval)
        else:
            made = copy.add(
                node.primitive, [done[v] for v in node.operands], node.params, [v.aval for v in node.outputs],
                name=node.name, bodies=node.bodies, opaque=node.opaque, source=node.source, context=node.context,
            )  # fmt: skip
            done.update(zip(node.outputs, made, strict=True))
    copy.outputs = [done[v] for v in body.outputs]
    return copy


def _program(body: Graph, inputs: Sequence[Value], outputs: Sequence[Value]) -> Graph:
    program = body.with_outputs(outputs)
    program.inputs = list(inputs)
    return program


def _reduced(aval: Any, axes: Sequence[int]) -> Any:
    return aval.update(shape=tuple(n for a, n in enumerate(aval.shape) if a not in axes))


def _stacked(aval: Any, length: int) -> Any:
    return aval.update(shape=(length, *aval.shape))
