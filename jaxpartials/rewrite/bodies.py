"""The bodies of loops and branches under construction, and what all kinds of them have in common.

A loop is taken apart into a `Part`: a body, and what its inputs are outside. Its new body is put together in a graph
of its own (`Inside`), placed, and marked as being in normal form, so that it is left alone from then on.
"""

import weakref
from collections.abc import Callable, Collection, Iterable, Sequence
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
    Value,
    dependents,
    freeze,
    reach,
)
from jaxpartials.graph.memory import size
from jaxpartials.rewrite.local import broadcast, equation, ordinary, reshape, says_nothing

HOISTED = 2**20

# Made anew where they are read rather than kept: they cost nothing, or less than to be read from memory.
VIEWS = frozenset({"broadcast_in_dim", "reshape", "squeeze"})
CHEAP = VIEWS | {"iota", "convert_element_type"}
# They say where in the program something is to be computed.
PINNED = frozenset({"optimization_barrier"})

Origin = tuple[Any, Any]
# A pass over the bodies under construction, such as `fuse`: equal values in the same graph.
Pass = Callable[[Graph, Sequence[Value]], Sequence[Value]]


def as_it_is(graph: Graph, values: Sequence[Value]) -> Sequence[Value]:
    return values


class Equation(NamedTuple):
    """A loop or a branching that is there, or about to be made."""

    operands: Sequence[Value]
    params: dict[str, Any]
    bodies: Sequence[Graph]
    avals: Sequence[Any]  # of its outputs


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

    def __init__(self, outer: Graph, sunk: Collection[Node] = ()):
        self.outer = outer
        self.sunk = sunk  # of these, the values outside are made inside again
        self.graph = Graph(outer.rules)
        self.consts: dict[Value, Value] = {}  # outside -> inside
        self.xs: dict[Value, Value] = {}
        self.views: dict[Value, Value] = {}  # of consts, and what else is made of them
        self.carried: dict[int, Value] = {}  # class of carries -> inside

    def const(self, value: Value) -> Value:
        if value in self.views:
            return self.views[value]
        if value not in self.consts:
            if value.node in self.sunk or (is_view(value) and not is_known(value)):
                made = {v: self.const(v) for v in value.node.operands}
                self.views[value] = self.graph.include([value], made)[value]
                return self.views[value]
            known = is_known(value)
            self.consts[value] = self.graph.include([value], {})[value] if known else self.graph.input(value.aval)
        return self.consts[value]

    def x(self, value: Value) -> Value:
        same = unstacked(self.outer, value)
        if same is not None:
            return self.const(same)
        if is_view_of_turns(value):
            return viewed(self.graph, value.node, self.x(value.node.operands[0]), value.shape[1:], -1)
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
        return {inside: value for value, inside in [*self.views.items(), *self.consts.items()]}

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


def is_view(value: Value) -> bool:
    """Whether a value is another one in a different shape."""
    node = value.node
    if node.name not in VIEWS or len(node.operands) != 1:
        return False
    params = node.params
    if node.name == "reshape" and params["dimensions"] is not None:
        return False
    sharding = params.get("sharding")
    return (sharding is None or says_nothing(sharding)) and ordinary(value.aval) and ordinary(node.operands[0].aval)


def is_view_of_turns(value: Value) -> bool:
    """Whether what an xs is at each turn is what another one is, in a different shape."""
    if not is_view(value):
        return False
    node = value.node
    (x,) = node.operands
    if node.name == "broadcast_in_dim":
        kept = node.params["broadcast_dimensions"][:1] == (0,)
    else:
        kept = node.name == "reshape" or 0 not in node.params["dimensions"]
    return kept and x.shape[:1] == value.shape[:1] != ()


def viewed(graph: Graph, node: Node, x: Value, shape: Sequence[int], by: int) -> Value:
    """The view that `node` makes, made of one turn (`by` = -1) or of all turns (1) of what it is made of."""
    if node.name == "reshape":
        return reshape(graph, x, shape)
    if node.name == "squeeze":
        return equation(graph, lax.squeeze_p, x, dimensions=tuple(a + by for a in node.params["dimensions"]))
    axes = [a + by for a in node.params["broadcast_dimensions"]]
    return broadcast(graph, x, shape, [0, *axes] if by > 0 else axes[1:])


def restacked(outer: Graph, xs: dict[Value, Value], y: Value) -> Value | None:
    """What is stacked of a value in the body that is one of the `xs` (inside -> outside), or a view of one."""
    if y in xs:
        return xs[y]
    if not is_view(y):
        return None
    x = restacked(outer, xs, y.node.operands[0])
    return None if x is None else viewed(outer, y.node, x, (x.shape[0], *y.shape), 1)


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


# ---- placing, and not doing twice what is done


# What loops in normal form look like from outside, by their last body: such a loop stays as it is.
_normal: weakref.WeakKeyDictionary[Graph, set] = weakref.WeakKeyDictionary()


def place(outer: Graph, primitive, operands, params, bodies, avals, origin: Origin) -> tuple[Value, ...]:
    _normal.setdefault(bodies[-1], set()).add(view(primitive.name, operands, params, bodies))
    source, context = origin
    return outer.place(
        primitive, operands, params, avals, name=primitive.name, bodies=bodies, source=source, context=context
    )


def is_normal(name: str, loop: Equation) -> bool:
    body = loop.bodies[-1]
    return body in _normal and view(name, loop.operands, loop.params, loop.bodies) in _normal[body]


def view(name: str, operands: Sequence[Value], params: dict[str, Any], bodies: Sequence[Graph]) -> Any:
    """All that the normal form of a loop depends on, but for the last of its bodies: which operands are equal, what is
    known of them, and whether an xs is one array over and over."""
    first: dict[Value, int] = {}
    shown = []
    for value in operands:
        known = None
        if is_known(value):
            known = sketch(value)
        elif value.node.name in VIEWS:
            seen = value.node.operands[0]
            known = value.node.name, freeze(value.node.params), seen.shape, first.setdefault(seen, len(first))
        shown.append((first.setdefault(value, len(first)), known))
    return name, freeze(params), tuple(map(Identity, bodies[:-1])), tuple(shown)
