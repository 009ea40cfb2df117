"""Which elements of a program's values can be other than zero, and which are read, in its loops and branches too.

What a loop carries is a fixed point: nonzero is what the start or any turn makes so, read is what the result or the
next turn reads. Of a scan it counts, besides, which turns' outputs are read: turns after the last one that matters do
nothing for the result, and a turn whose output is not read computes what the carries need and no more.
"""

import copy
from collections.abc import Iterator, Sequence

import numpy as np

from jaxpartials.graph.graph import Graph, Node, Value
from jaxpartials.graph.trips import trips
from jaxpartials.inspection.bases import Basis, bases
from jaxpartials.inspection.elements import Known, Mask, compressed, everywhere, needed, nonzero, part, read
from jaxpartials.inspection.liveness import Liveness, is_call
from jaxpartials.inspection.scopes import turns
from jaxpartials.rewrite.nested import is_loop

# So many turns are followed before a carry is taken to be nonzero, or read, everywhere.
ROUNDS = 4

Given = tuple[Mask, np.ndarray | None]  # which elements of an input can be nonzero; its numbers, where they are known


class Elements:
    """Which elements are nonzero, and which are read, in a traced program, or in the body of a loop or branch in it.

    Attributes:
        nodes: the equations that are needed.
        nonzero, asked: for each value which elements can be other than zero, which are read.
        bases: the Jacobians computed here.
        inside: for each loop or branch its bodies, and how often each runs; the body of a scan twice where some turns
            compute less than others.
        stacked: for each scan in how many turns its outputs are read.
    """

    def __init__(self, graph: Graph, live: Liveness, given: Sequence[Given] | None = None):
        self.graph, self.live = graph, live
        self.nodes = live.nodes[graph]
        self.known = Known()
        self.nonzero: dict[Value, Mask] = {}
        self.asked: dict[Value, Mask] = {}
        self.inside: dict[Node, list[tuple[Elements, float]]] = {}
        self.stacked: dict[Node, float] = {}
        for i, v in enumerate(graph.inputs):
            mask, array = (everywhere(v), None) if given is None else given[i]
            self.nonzero[v] = mask
            if array is not None:
                self.known.arrays[v] = array
        for node in self.nodes:
            self.known.note(node)
            for v in node.operands:
                if v not in self.nonzero:
                    array = self.known.get(v)
                    self.nonzero[v] = everywhere(v) if array is None else everywhere(v, bool((array != 0).any()))
            self.nonzero |= dict(zip(node.outputs, self._nonzero(node), strict=True))
        self.bases: list[Basis] = bases(live, graph, self.known.arrays)
        self.loops = set(self.inside)
        self.moved = {node for basis in self.bases for node in basis.nodes}

    # ---- forward

    def _nonzero(self, node: Node) -> Sequence[Mask]:
        given = [(self.nonzero[v], self.known.get(v)) for v in node.operands]
        if is_call(node):
            return self._enter(node, given)
        if not is_loop(node):
            return nonzero(node, self.nonzero, self.known)
        if node.name == "cond":
            return self._enter(node, given[1:])
        if node.name == "while":
            fixed = node.params["cond_nconsts"] + node.params["body_nconsts"]
            test = given[: node.params["cond_nconsts"]]
            found = self._turned(node, given[len(test) : fixed], given[fixed:], [])
            carried = [(mask, None) for mask in found]
            tested = Elements(node.bodies[0], self.live, [*test, *carried])
            self.inside[node] = [(tested, trips(node)), *self.inside[node]]
            return found
        fixed, carries = node.params["num_consts"], node.params["num_carry"]
        rows: list[Given] = [(np.asarray(mask.any(axis=0)), None) for mask, _ in given[fixed + carries :]]
        return self._turned(node, given[:fixed], given[fixed : fixed + carries], rows)

    def _enter(self, node: Node, given: Sequence[Given]) -> list[Mask]:
        """What is nonzero after one of several branches."""
        branches = [Elements(body, self.live, given) for body in node.bodies]
        self.inside[node] = [(each, 1.0) for each in branches]
        found = []
        for i, v in enumerate(node.outputs):
            masks = [each.of_output(i) for each in branches]
            found.append(compressed(np.logical_or.reduce(np.broadcast_arrays(*masks)).reshape(_widest(masks, v))))
        return found

    def _turned(self, node: Node, fixed: Sequence[Given], start: Sequence[Given], rows: Sequence[Given]) -> list[Mask]:
        """What is nonzero after any number of turns, and in what they stack."""
        carried = [mask for mask, _ in start]
        for turn in range(ROUNDS):
            body = Elements(node.bodies[-1], self.live, [*fixed, *((mask, None) for mask in carried), *rows])
            after = [compressed(before | body.of_output(i)) for i, before in enumerate(carried)]
            if _same(carried, after):
                break
            carried = after if turn < ROUNDS - 2 else [everywhere(v) for v in node.outputs[: len(carried)]]
        self.inside[node] = [(body, float(turns(node)))]
        stacked = [body.of_output(i)[None] for i in range(len(carried), len(node.outputs))]
        return [*after, *stacked]

    def of_output(self, i: int) -> Mask:
        value = self.graph.outputs[i]
        if value in self.nonzero:
            return self.nonzero[value]
        array = self.known.get(value)
        return everywhere(value) if array is None else everywhere(value, bool((array != 0).any()))

    # ---- backward

    def ask(self, outputs: Sequence[Mask | None], sparse: bool = False) -> None:
        """Note which elements are read where these of the outputs are.

        Of a Jacobian, and with `sparse` of everything, what is multiplied by zero, or not selected, is not read.
        """
        self.asked, self.stacked = {}, {}
        moved = set(self.nodes) if sparse else self._after()
        for v, mask in zip(self.graph.outputs, outputs, strict=True):
            if mask is not None:
                self._note(v, mask)
        for node in reversed(self.nodes):
            asked = [self.asked.get(v) for v in node.outputs]
            if node.effects:
                found: Sequence[Mask | None] = [everywhere(v) for v in node.operands]
            elif node in self.inside:
                found = self._asked(node, asked, node in moved)
            else:
                found = read(node, asked, self.nonzero, self.known, node in moved)
            for v, mask in zip(node.operands, found, strict=True):
                if mask is not None:
                    self._note(v, mask)

    def _after(self) -> set[Node]:
        moved = set(self.moved)
        for node in self.nodes if moved else ():
            if any(v.node in moved for v in node.operands):
                moved.add(node)
        return moved

    def _note(self, value: Value, mask: Mask) -> None:
        before = self.asked.get(value)
        self.asked[value] = mask if before is None else before | mask

    def _asked(self, node: Node, asked: Sequence[Mask | None], sparse: bool) -> list[Mask | None]:
        if node.name == "while":
            return self._while(node, asked, sparse)
        if node.name == "scan":
            return self._scan(node, asked, sparse)
        first: list[Mask | None] = [everywhere(node.operands[0])] if node.name == "cond" else []
        masks: list[Mask | None] = [None] * (len(node.operands) - len(first))
        for branch, _ in self.inside[node]:
            branch.ask(asked, sparse)
            masks = [_joined(a, branch.asked.get(v)) for a, v in zip(masks, branch.graph.inputs, strict=True)]
        return first + masks

    def _while(self, node: Node, asked: Sequence[Mask | None], sparse: bool) -> list[Mask | None]:
        (test, _), (body, _) = self.inside[node]
        test.ask([everywhere(test.graph.outputs[0])], sparse)
        in_test, in_body = node.params["cond_nconsts"], node.params["body_nconsts"]
        wanted = [_joined(a, test.asked.get(v)) for a, v in zip(asked, test.graph.inputs[in_test:], strict=True)]
        wanted = body._until_settled(wanted, [], in_body, sparse)
        fixed = [*(test.asked.get(v) for v in test.graph.inputs[:in_test])]
        return [*fixed, *(body.asked.get(v) for v in body.graph.inputs[:in_body]), *wanted]

    def _scan(self, node: Node, asked: Sequence[Mask | None], sparse: bool) -> list[Mask | None]:
        (body, _), *_ = self.inside[node]
        length, carries = node.params["length"], node.params["num_carry"]
        read_at = np.zeros(length, bool)  # in the order of the turns
        rows: list[Mask | None] = []
        for mask in asked[carries:]:
            rows.append(None if mask is None or not mask.any() else np.asarray(mask.any(axis=0)))
            if mask is not None:
                read_at |= np.broadcast_to(mask.any(axis=tuple(range(1, mask.ndim))), (length,))
        if node.params["reverse"]:
            read_at = read_at[::-1]
        some = int(read_at.sum())
        last = length if any(mask is not None and mask.any() for mask in asked[:carries]) else _last(read_at)
        wanted = body._until_settled(list(asked[:carries]), rows, node.params["num_consts"], sparse)
        inputs = [body.asked.get(v) for v in body.graph.inputs]
        found = inputs[: node.params["num_consts"] + carries]
        turns = np.arange(length) < last
        if node.params["reverse"]:
            turns = turns[::-1]
        for mask in inputs[len(found) :]:
            along = turns.reshape(-1, *[1] * mask.ndim) if mask is not None else turns
            found.append(None if mask is None else compressed(mask[None] & along))
        self.inside[node] = [(body, float(some or last))]
        if 0 < some < last:
            less = body._again()
            less._until_settled(list(asked[:carries]), [None] * len(rows), node.params["num_consts"], sparse, wanted)
            self.inside[node].append((less, float(last - some)))
        if rows:
            self.stacked[node] = some
        return found

    def _until_settled(
        self, last: list[Mask | None], rows: list[Mask | None], fixed: int, sparse: bool,
        later: Sequence[Mask | None] | None = None,
    ) -> list[Mask | None]:  # fmt: skip
        """Ask for these elements after the last turn and for these rows at every one; what is read before the first.

        With `later`, what other turns read of the carries is asked for, too.
        """
        carried = last if later is None else [_joined(a, b) for a, b in zip(last, later, strict=True)]
        inside = self.graph.inputs[fixed : fixed + len(carried)]
        for turn in range(ROUNDS):
            self.ask([*carried, *rows], sparse)
            before = [_joined(mask, self.asked.get(v)) for mask, v in zip(carried, inside, strict=True)]
            if _same(carried, before):
                break
            carried = before if turn < ROUNDS - 2 else [everywhere(v) for v in inside]
        return before

    def _again(self) -> "Elements":
        """The same, to be asked something else."""
        other = copy.copy(self)
        other.inside = {node: [(each._again(), n) for each, n in found] for node, found in self.inside.items()}
        return other

    # ---- results

    def scopes(self, runs: float = 1.0) -> Iterator[tuple["Elements", float]]:
        """This program and the bodies in it, each once, and how often each runs."""
        yield self, runs
        for node, found in self.inside.items():
            for each, _ in found[:1] if node.name == "scan" else found:
                yield from each.scopes(runs * turns(node))

    def extents(self, runs: float = 1.0, into: "dict[Node, Extent] | None" = None) -> "dict[Node, Extent]":
        """How often each equation runs, and how often it would if it computed only what is read, and not zero."""
        into = {} if into is None else into
        for each, n in self.scopes(runs):
            for node in each.nodes:
                into.setdefault(node, Extent()).runs += n
        self._extend(runs, into)
        return into

    def _extend(self, runs: float, into: "dict[Node, Extent]") -> None:
        for node in self.nodes:
            asked, other_than_zero = self._parts(node)
            into[node].asked += runs * asked
            into[node].nonzero += runs * other_than_zero
            for each, n in self.inside.get(node, ()):
                each._extend(runs * n, into)

    def _parts(self, node: Node) -> tuple[float, float]:
        """The parts of an equation's work that are read, and that are read and not zero."""
        if node in self.inside or node.bodies:
            wanted = any(v in self.asked and self.asked[v].any() for v in node.outputs) or bool(node.effects)
            return float(wanted), float(wanted)
        values = node.operands[:1] if node.name.startswith("reduce_") and node.operands else node.outputs
        masks: Sequence[Mask | None] = [self.asked.get(v, everywhere(v, bool(node.effects))) for v in values]
        if values is node.outputs:
            masks = needed(node, masks)
        asked, other_than_zero = 0.0, 0.0
        for v, mask in zip(values, masks, strict=True):
            assert mask is not None
            nonzero = self.nonzero[v]
            asked = max(asked, part(mask))
            both = mask if nonzero.size == 1 and nonzero.item() else mask & nonzero
            other_than_zero = max(other_than_zero, part(both))
        return asked, other_than_zero


class Extent:
    """How often an equation runs; the part of it that is read, and that is read and not zero, in runs."""

    def __init__(self) -> None:
        self.runs = self.asked = self.nonzero = 0.0


def _last(read_at: np.ndarray) -> int:
    return int(np.flatnonzero(read_at)[-1]) + 1 if read_at.any() else 0


def _joined(a: Mask | None, b: Mask | None) -> Mask | None:
    return b if a is None else a if b is None else compressed(a | b)


def _same(before: Sequence[Mask | None], after: Sequence[Mask | None]) -> bool:
    """Whether masks that can only have grown have not."""
    pairs = zip(before, after, strict=True)
    return all((a is None and b is None) or (a is not None and b is not None and (a == b).all()) for a, b in pairs)


def _widest(masks: Sequence[Mask], value: Value) -> tuple[int, ...]:
    return np.broadcast_shapes(*(mask.shape for mask in masks)) if value.shape else ()
