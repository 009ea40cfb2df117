"""The traced program beside its hash-consed form: which equations compute the same value, and how often each runs.

Every equation as traced is mapped to the value that it becomes once equal equations are one and algebra is done (its
image). The body of a loop is a scope of its own, in which carries that are always equal are one; what no turn of the
loop changes has its image outside. A branch is read as if it stood where the branching stands.
"""

from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from jaxpartials.graph.graph import INPUT, LEAVES, LITERAL, Graph, Node, Rule, Value
from jaxpartials.graph.trips import trips
from jaxpartials.inspection.liveness import Liveness, is_call
from jaxpartials.rewrite.bodies import Equation, Inside, Part, as_it_is
from jaxpartials.rewrite.congruence import attempt, settle
from jaxpartials.rewrite.loops import TAKEN_APART
from jaxpartials.rewrite.nested import is_loop
from jaxpartials.rewrite.pipeline import RULES

Branch = tuple[Node, int]
# What decides about derivatives alone has no value of its own.
SAME_VALUES: dict[str, Sequence[Rule]] = {**RULES, "stop_gradient": [lambda graph, operands, params: operands[0]]}


@dataclass(eq=False)
class Scope:
    """A program, or the body of a loop or branch in it.

    Attributes:
        traced: the equations as traced.
        graph: those they become.
        images: of the values of `traced` that are needed, in `graph`.
        apart: the same with every carry taken by itself.
        runs: how often it runs.
        branches: the branches that must be taken for it to run.
        outer: the scope around the loop that `graph` is the body of; `outside` is what values of `graph` are there.
        loop: the loop that it is the body of.
    """

    traced: Graph
    graph: Graph
    images: dict[Value, Value]
    apart: dict[Value, Value]
    runs: float
    branches: tuple[Branch, ...] = ()
    outer: "Scope | None" = None
    outside: dict[Value, Value] = field(default_factory=dict)
    turning: frozenset[int] = frozenset()  # the inputs of `graph` that change from turn to turn
    loop: Node | None = None
    moving: dict[int, bool] = field(default_factory=dict)

    def varies(self, value: Value) -> bool:
        """Whether a value changes from turn to turn."""
        stack = [value.node]
        while stack:
            node = stack[-1]
            if node.number in self.moving:
                stack.pop()
                continue
            if node.name in LEAVES:
                self.moving[node.number] = node.number in self.turning
                continue
            waiting = [v.node for v in node.operands if v.node.number not in self.moving]
            if waiting:
                stack += waiting
                continue
            moves = bool(node.effects) or any(self.moving[v.node.number] for v in node.operands)
            self.moving[node.number] = moves
        return self.moving[value.node.number]


@dataclass(eq=False)
class Occurrence:
    """An equation as traced, and the outermost scope in which its image can be computed."""

    scope: Scope
    node: Node
    home: Scope
    image: tuple[Value, ...]

    @property
    def key(self) -> Any:
        return self.home.graph, self.node.name, self.image


class Program:
    """A traced program with its scopes and the occurrences of all needed equations that depend on inputs."""

    def __init__(self, traced: Graph):
        self.traced = traced
        self.live = Liveness(traced)
        graph = Graph(SAME_VALUES)
        known = {value: graph.input(value.aval) for value in traced.inputs}
        images = self._images(graph, traced, known)
        self.top = Scope(traced, graph, images, images, 1.0)
        self.scopes: list[Scope] = []
        self.occurrences: list[Occurrence] = []
        self._seen: dict[Any, list[Scope]] = {}
        self._enter(self.top)

    def outputs(self, scope: Scope) -> list[Value]:
        """What the needed outputs of a scope are, in its graph."""
        wanted = range(len(scope.traced.outputs)) if scope.loop is None else self.live.outputs[scope.loop]
        return [scope.images[scope.traced.outputs[i]] for i in wanted]

    def _images(self, graph: Graph, traced: Graph, known: dict[Value, Value]) -> dict[Value, Value]:
        values = [v for node in self.live.nodes[traced] for v in node.outputs]
        values += [v for v in traced.outputs if v.node.name in LEAVES and (v.node.name != INPUT or v in known)]
        return dict(known) | graph.include(_reachable(values, known), known)

    def _enter(self, scope: Scope) -> None:
        self.scopes.append(scope)
        nodes = [node for node in self.live.nodes[scope.traced] if node.outputs and node.outputs[0] in scope.images]
        found = [(node, tuple(scope.images[v] for v in self._used(node))) for node in nodes]
        lifted = self._lift(scope, [v for _, image in found for v in image])
        for node, image in found:
            homes = {lifted[v][0] for v in image}
            home = homes.pop() if len(homes) == 1 else scope
            values = tuple(lifted[v][1] for v in image) if home is not scope else image
            here = Occurrence(scope, node, home, values)
            again = any(_runs_whenever(first, scope) for first in self._seen.get(here.key, ()))
            self._seen.setdefault(here.key, []).append(scope)
            if not node.effects:
                self.occurrences.append(here)
            if not again and (is_loop(node) or (is_call(node) and home is scope)):
                for inner in self._bodies(scope, node):
                    self._enter(inner)

    def _used(self, node: Node) -> list[Value]:
        return [node.outputs[i] for i in self.live.outputs[node]] if is_loop(node) else list(node.outputs)

    def _lift(self, scope: Scope, values: Iterable[Value]) -> dict[Value, tuple[Scope, Value]]:
        """Each value as far out as it can be computed."""
        values = list(dict.fromkeys(values))
        outer = scope.outer
        if outer is None:
            return {v: (scope, v) for v in values}
        still = [v for v in values if not scope.varies(v)]
        above = outer.graph.include(still, scope.outside)
        further = self._lift(outer, [above[v] for v in still])
        return {v: (scope, v) for v in values} | {v: further[above[v]] for v in still}

    def _bodies(self, scope: Scope, node: Node) -> Iterator[Scope]:
        operands = [scope.images.get(v) for v in node.operands]
        filled = [
            scope.graph.placeholder(v.aval) if o is None else o for v, o in zip(node.operands, operands, strict=True)
        ]
        used = self.live.outputs[node]
        if node.name == "cond" or is_call(node):
            first = int(node.name == "cond")
            for i, branch in enumerate(node.bodies):
                images = self._images(scope.graph, branch, dict(zip(branch.inputs, filled[first:], strict=True)))
                branches = (*scope.branches, (node, i)) if first else scope.branches
                yield Scope(
                    branch, scope.graph, images, images, scope.runs, branches, scope.outer,
                    scope.outside, scope.turning, node, scope.moving,
                )  # fmt: skip
            return
        part = TAKEN_APART[node.name](
            scope.graph, Equation(filled, node.params, node.bodies, [v.aval for v in node.outputs]), used
        )
        state = settle(scope.graph, [part], as_it_is)
        images = self._inside(part, state.inside, state.heads)
        apart = images
        if len(set(state.labels)) < len(state.labels) or state.held:
            alone = attempt(scope.graph, [part], list(range(len(part.carries))), {}, as_it_is)
            apart = self._inside(part, alone.inside, alone.heads)
        inside = state.inside
        turning = frozenset(v.node.number for v in inside.moving)
        yield Scope(
            part.body, inside.graph, images, apart, scope.runs * turns(node), scope.branches, scope, inside.outside,
            turning, node,
        )  # fmt: skip

    def _inside(self, part: Part, inside: Inside, heads: list[Value]) -> dict[Value, Value]:
        known = {v: inside.const(value) for v, value in part.consts}
        known |= {v: inside.x(value) for v, value in part.xs}
        known |= {carry.inside: head for carry, head in zip(part.carries, heads, strict=True)}
        return self._images(inside.graph, part.body, known)


def _reachable(values: Iterable[Value], known: dict[Value, Value]) -> list[Value]:
    """Those values that need no input but the known ones."""
    good: dict[int, bool] = {}
    found = []
    for value in values:
        stack = [value.node]
        while stack:
            node = stack[-1]
            if node.number in good:
                stack.pop()
            elif node.name in LEAVES:
                good[node.number] = node.name != INPUT or node.outputs[0] in known
            else:
                waiting = [v.node for v in node.operands if v.node.number not in good]
                stack += waiting
                if not waiting:
                    good[node.number] = all(good[v.node.number] for v in node.operands)
        if good[value.node.number]:
            found.append(value)
    return found


def _runs_whenever(first: Scope, second: Scope) -> bool:
    """Whether the first scope has run whenever the second does."""
    return second.branches[: len(first.branches)] == first.branches


def turns(node: Node) -> float:
    """How often the bodies inside an equation run each time that it does."""
    return node.params["length"] if node.name == "scan" else trips(node) if node.name == "while" else 1


def known_at_trace_time(traced: Graph, leaves: Container[str] = (LITERAL,)) -> set[Node]:
    """The equations that depend on no input: XLA computes them while it compiles, or they cost nothing."""
    found: set[Node] = set()
    for node in traced.traced:
        # The arrays that a function closes over are inputs in all but name, unless `leaves` names them.
        if not node.effects and all(v.node.name in leaves or v.node in found for v in node.operands):
            found.add(node)
    return found
