"""The program: a hash-consed graph of equations in single-assignment form.

Two equal equations are one node from the moment they are made, so common subexpressions never exist; what no
output reaches is never visited, so dead code does not either; and local algebra (`rules`) is applied before a
node is made. Node numbers grow as nodes are made, so increasing numbers are a topological order.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxpartials import _jax

INPUT = "input"
LITERAL = "literal"
CONSTANT = "constant"
LEAVES = (INPUT, LITERAL, CONSTANT)

# Operands may change places: `mul a b` and `mul b a` are one node.
COMMUTATIVE = frozenset({"add", "mul", "max", "min", "and", "or", "xor", "eq", "ne"})

# Bytes of an array that is compared by its elements: `jnp.array([1.0, 0.0])` is another array each time it is traced.
WRITTEN = 1024

# How far the equations that rules make may be nested in one another. Rules that end stay far below; should two of
# them ever undo each other, the equation is left as it stands here, which is never wrong.
DEEPEST = 60


class Value:
    """One array of the program: an output of a node, or a leaf."""

    __slots__ = ("aval", "index", "node")

    def __init__(self, node: "Node", index: int, aval: Any):
        self.node = node
        self.index = index
        self.aval = aval

    @property
    def shape(self) -> tuple[int, ...]:
        return getattr(self.aval, "shape", ())

    @property
    def dtype(self) -> Any:
        return self.aval.dtype

    def __repr__(self) -> str:
        return _typed(self, {})


class Node:
    """One equation: a primitive applied to operands.

    `bodies` are the graphs inside it (a scan's body, a cond's branches, ...). For a node whose `opaque` is true they
    are there to be read only: it is emitted from its `params`, with the custom rule, remat or mesh that those hold.
    """

    __slots__ = (
        "__weakref__",
        "bodies",
        "context",
        "effects",
        "name",
        "number",
        "opaque",
        "operands",
        "outputs",
        "params",
        "primitive",
        "source",
    )  # fmt: skip

    def __init__(self, number: int, name: str, operands: Sequence[Value] = (), params: dict | None = None):
        self.number = number
        self.name = name
        self.operands = tuple(operands)
        self.params: dict[str, Any] = params or {}
        self.outputs: tuple[Value, ...] = ()
        self.primitive: Any = None
        self.bodies: tuple[Graph, ...] = ()
        self.opaque = False
        self.effects: Any = frozenset()
        self.source: Any = None
        self.context: Any = None

    @property
    def line(self) -> tuple[str, int, str] | None:
        """File, line and function of the user's code that this equation comes from."""
        return _jax.user_line(self.source)

    @property
    def where(self) -> str:
        """The same for a person: `model.py:12 (energy)`."""
        if self.line is None:
            # A function that is itself a custom rule has no frame of the user's around it.
            return _jax.function_info(self.params) or "an unknown line"
        file, line, function = self.line
        return f"{file.rsplit('/', 1)[-1]}:{line} ({function})"

    def __repr__(self) -> str:
        return _equation(self, {})


def _equation(node: Node, numbers: Mapping[int, int]) -> str:
    outputs = " ".join(_typed(value, numbers) for value in node.outputs)
    operands = " ".join(_named(value, numbers) for value in node.operands)
    return f"{outputs} = {node.name} {operands}"


def _typed(value: Value, numbers: Mapping[int, int]) -> str:
    short = value.aval.str_short() if hasattr(value.aval, "str_short") else value.aval
    return f"{_named(value, numbers)}:{short}"


def _named(value: Value, numbers: Mapping[int, int]) -> str:
    """A literal as its number; any other value by the number of its node, as `numbers` has it."""
    node = value.node
    if node.name == LITERAL:
        return str(node.params["value"])
    return f"%{numbers.get(node.number, node.number)}" + (f".{value.index}" if len(node.outputs) > 1 else "")


# (graph, operands, params) -> a value equal to the equation's, or None. The rules of loops and branches take the
# bodies and the types of the outputs as well, and give all the outputs.
Rule = Callable[..., Any]


class Graph:
    """A program under construction, or finished: inputs, outputs, and the nodes between them."""

    def __init__(self, rules: Mapping[str, Sequence[Rule]] | None = None, shared: bool = True):
        self.rules = rules or {}
        self.shared = shared  # False: equal equations stay apart, as they were traced
        self.inputs: list[Value] = []
        self.outputs: list[Value] = []
        self.constants: dict[Any, tuple[Value, Any]] = {}  # by elements or id; the entry keeps the array alive
        self.effects: list[Node] = []  # in the order of execution
        self.traced: list[Node] = []  # if not `shared`: every equation, dead ones too
        self.origin: tuple[Any, Any] = (None, None)  # source and context of the equation being made, for its rules
        self._table: dict[Any, Node] = {}
        self._count = 0
        self._nested = 0
        self._fingerprint: Any = None

    # ---- leaves

    def input(self, aval: Any) -> Value:
        value = self._leaf(INPUT, aval)
        self.inputs.append(value)
        return value

    def placeholder(self, aval: Any) -> Value:
        """A value to be replaced before emission, such as a direction not yet chosen; not an input."""
        return self._leaf(INPUT, aval)

    def literal(self, number: Any, aval: Any) -> Value:
        """A scalar known at trace time."""
        array = np.asarray(number)
        if array.dtype != aval.dtype and jax.dtypes.issubdtype(aval.dtype, np.generic):
            array = array.astype(aval.dtype)
        key = (LITERAL, str(aval.dtype), array.tobytes())
        if key not in self._table:
            node = self._leaf(LITERAL, aval).node
            node.params = {"value": array}
            self._table[key] = node
        return self._table[key].outputs[0]

    def constant(self, array: Any, aval: Any) -> Value:
        """An array closed over; the same array is the same value, and of short ones written out equal ones are."""
        written = isinstance(array, np.ndarray) and array.nbytes <= WRITTEN
        key = (aval, np.asarray(array).tobytes()) if written else id(array)
        if key not in self.constants:
            value = self._leaf(CONSTANT, aval)
            value.node.params = {"value": array}
            self.constants[key] = value, array
        return self.constants[key][0]

    def _leaf(self, name: str, aval: Any) -> Value:
        node = Node(self._next(), name)
        node.outputs = (Value(node, 0, aval),)
        return node.outputs[0]

    def _next(self) -> int:
        self._count += 1
        return self._count

    # ---- equations

    def add(
        self,
        primitive: Any,
        operands: Sequence[Value],
        params: dict[str, Any],
        avals: Sequence[Any],
        *,
        name: str | None = None,
        bodies: Sequence["Graph"] = (),
        opaque: bool = False,
        effects: Any = frozenset(),
        source: Any = None,
        context: Any = None,
    ) -> tuple[Value, ...]:
        """The outputs of an equation: those of an equal one, of a simpler one, or of a new node.

        Loops and branches (`bodies`, not `opaque`) with effects inside have them too, and no rule is asked.
        """
        name = primitive.name if name is None else name
        assert name is not None
        self.origin = source, context
        if not effects and not (opaque and bodies) and self._nested < DEEPEST:
            self._nested += 1
            try:
                for rule in self.rules.get(name, ()):
                    simpler = rule(self, operands, params, *((bodies, avals) if bodies else ()))
                    if simpler is not None:
                        return tuple(simpler) if bodies else (simpler,)
            finally:
                self._nested -= 1
        return self.place(
            primitive, operands, params, avals, name=name, bodies=bodies, opaque=opaque, effects=effects,
            source=source, context=context,
        )  # fmt: skip

    def place(
        self,
        primitive: Any,
        operands: Sequence[Value],
        params: dict[str, Any],
        avals: Sequence[Any],
        *,
        name: str,
        bodies: Sequence["Graph"] = (),
        opaque: bool = False,
        effects: Any = frozenset(),
        source: Any = None,
        context: Any = None,
    ) -> tuple[Value, ...]:
        """The outputs of an equation as it stands, no rule asked: those of an equal one, or of a new node."""
        self._fingerprint = None
        key = None
        if not effects:
            key = self._key(name, operands, params, bodies, opaque, context)
            found = self._table.get(key)
            if found is not None and self.shared:
                return found.outputs
        node = Node(self._next(), name, operands, params)
        node.outputs = tuple(Value(node, i, aval) for i, aval in enumerate(avals))
        node.primitive, node.bodies, node.opaque = primitive, tuple(bodies), opaque
        node.effects, node.source, node.context = effects, source, context
        if not self.shared:
            self.traced.append(node)
        if effects:
            self.effects.append(node)
        else:
            self._table[key] = node
        return node.outputs

    def _key(self, name, operands, params, bodies, opaque, context) -> Any:
        where = [(v.node.number, v.index) for v in operands]
        if name in COMMUTATIVE:
            where.sort()
        return (name, tuple(where), *what(name, params, bodies, opaque, context))

    def replace(self, values: Sequence[Value], by: Mapping[Value, Value]) -> dict[Value, Value]:
        """`values`, and all they need, with some values replaced by equal ones: old to new, nothing traced again.

        Where a replacement needs what it replaces, that stays.
        """
        return self._rebuild(values, by, {}, foreign=False)

    def include(self, values: Sequence[Value], known: Mapping[Value, Value]) -> dict[Value, Value]:
        """`values` of another graph, and all they need, made here: there to here, nothing traced again.

        `known` says what values here those of the other graph are, its inputs among them.
        """
        return self._rebuild(values, {}, dict(known), foreign=True)

    def _rebuild(self, values, by, done, foreign):
        begun: set[Value] = set()
        for root in values:
            stack = [root]
            while stack:
                value = stack[-1]
                if value in done:
                    stack.pop()
                    continue
                new = by.get(value, value)
                if new is not value and new in done:
                    done[value] = done[new]
                    continue
                if new is not value and value not in begun:
                    begun.add(value)
                    stack.append(new)
                    continue
                node = value.node
                waiting = [v for v in node.operands if v not in done]
                if waiting:
                    stack.extend(waiting)
                    continue
                if foreign and node.name in LEAVES:
                    done[value] = self._leaf_like(value)
                    continue
                operands = [done[v] for v in node.operands]
                if not foreign and all(new is old for new, old in zip(operands, node.operands, strict=True)):
                    done[value] = value
                    continue
                outputs = self.add(
                    node.primitive, operands, node.params, [v.aval for v in node.outputs], name=node.name,
                    bodies=node.bodies, opaque=node.opaque, effects=node.effects, source=node.source,
                    context=node.context,
                )  # fmt: skip
                for old, new in zip(node.outputs, outputs, strict=True):
                    if old is value or by.get(old, old) is old:
                        done.setdefault(old, new)
        return done

    def _leaf_like(self, value: Value) -> Value:
        node = value.node
        assert node.name != INPUT, f"{value} is an input of another graph, and nobody said which value it is here"
        make = self.literal if node.name == LITERAL else self.constant
        return make(node.params["value"], value.aval)

    def with_outputs(self, values: Sequence[Value]) -> "Graph":
        """The program on the same nodes, effects and inputs, that has `values` for outputs."""
        program = Graph(self.rules)
        program.inputs, program.outputs, program.effects = list(self.inputs), list(values), list(self.effects)
        used = {node.number for node in reach([*values, *(v for node in self.effects for v in node.operands)])}
        program.constants = {key: entry for key, entry in self.constants.items() if entry[0].node.number in used}
        return program

    # ---- reading

    @property
    def nodes(self) -> list[Node]:
        """The equations that the outputs and the effects need, in order."""
        roots = [*self.outputs, *(v for node in self.effects for v in node.operands)]
        live = {node.number: node for node in reach(roots)}
        live |= {node.number: node for node in self.effects}
        return [live[n] for n in sorted(live) if live[n].name not in LEAVES]

    @property
    def fingerprint(self) -> Any:
        """Equal for two graphs that compute the same outputs from the same inputs by the same equations."""
        if self._fingerprint is None:
            numbers = {value.node.number: i for i, value in enumerate(self.inputs)}
            listing: list[Any] = [tuple(str(value.aval) for value in self.inputs)]
            roots = [*self.outputs, *(v for node in self.effects for v in node.operands)]
            reached = {node.number: node for node in [*reach(roots), *self.effects]}
            for number in sorted(reached):
                node = reached[number]
                if node.name == INPUT:
                    continue
                numbers[node.number] = len(numbers)
                where = tuple((numbers[v.node.number], v.index) for v in node.operands)
                if node.name in COMMUTATIVE:
                    where = tuple(sorted(where))
                if node.name in LEAVES:
                    array = node.params["value"]
                    leaf = array.tobytes() if node.name == LITERAL else id(array)
                    listing.append((node.name, str(node.outputs[0].aval), leaf))
                elif node.bodies and not node.opaque:
                    inner = tuple(body.fingerprint for body in node.bodies)
                    listing.append((node.name, where, freeze(node.params), inner))
                else:
                    listing.append((node.name, where, freeze(node.params)))
                if node.effects:
                    listing.append(object())  # an effect is equal to no other
            outs = tuple((numbers[v.node.number], v.index) for v in self.outputs)
            self._fingerprint = (tuple(listing), outs)
        return self._fingerprint

    def __repr__(self) -> str:
        # Numbered as they are printed: the numbers of the nodes have gaps where candidates were dropped.
        nodes = self.nodes
        used = [value for node in nodes for value in node.operands]
        leaves = [value.node for value in (*self.inputs, *used, *self.outputs) if value.node.name in (INPUT, CONSTANT)]
        order = dict.fromkeys(node.number for node in (*leaves, *nodes))
        numbers = {number: i for i, number in enumerate(order, start=1)}
        lines = ["inputs  " + " ".join(_typed(value, numbers) for value in self.inputs)]
        lines += [f"  {_equation(node, numbers)}" for node in nodes]
        lines += ["outputs " + " ".join(_named(value, numbers) for value in self.outputs)]
        return "\n".join(lines)


def reach(roots: Iterable[Value], stop: Iterable[Value] = ()) -> list[Node]:
    """The nodes that `roots` need, in topological order, not going past the values in `stop`."""
    stopped = {(v.node.number, v.index) for v in stop}
    found: dict[int, Node] = {}
    stack = [v for v in roots if (v.node.number, v.index) not in stopped]
    while stack:
        node = stack.pop().node
        if node.number in found:
            continue
        found[node.number] = node
        stack.extend(v for v in node.operands if (v.node.number, v.index) not in stopped)
    return [found[n] for n in sorted(found)]


def dependents(roots: Iterable[Value], on: Iterable[Value]) -> set[int]:
    """Numbers of the nodes that `roots` need and that need one of the values `on` (their own nodes included)."""
    seeds = {(v.node.number, v.index) for v in on}
    found = {number for number, _ in seeds}
    for node in reach(roots):
        if any((v.node.number, v.index) in seeds or v.node.number in found for v in node.operands):
            found.add(node.number)
    return found


def what(name: str, params: dict[str, Any], bodies: Sequence[Graph], opaque: bool, context: Any) -> tuple:
    """What an equation does with its operands, as a key: equal for two that do the same."""
    settings = None if context is None else _jax.context_key(context)
    if name == "custom_jvp_call":
        rule = _jax.rule_identity(params)
        if rule is not None:
            flags = (params["num_consts"], params["symbolic_zeros"])
            return (rule, flags, bodies[0].fingerprint, settings)
    if bodies and not opaque:
        return (freeze(params), tuple(body.fingerprint for body in bodies), settings)
    return (freeze(params), settings)


def is_zero(value: Value) -> bool:
    """Whether a value is zero by construction: a literal zero, or one spread over a shape."""
    node = value.node
    while node.name in ("broadcast_in_dim", "convert_element_type"):
        node = node.operands[0].node
    return node.name == LITERAL and not node.params["value"]


def frontier(values: Sequence[Value], moving: set[int], cut: Iterable[Value]) -> list[Value]:
    """The values outside `moving` that nodes inside it read; literals stay where they are."""
    stop = {(v.node.number, v.index) for v in cut}
    found: dict[tuple[int, int], Value] = {}
    for node in reach(values, cut):
        if node.number in moving:
            for v in node.operands:
                key = (v.node.number, v.index)
                if v.node.number not in moving and key not in stop and v.node.name != LITERAL:
                    found[key] = v
    for v in values:
        key = (v.node.number, v.index)
        if v.node.number not in moving and key not in stop and v.node.name != LITERAL:
            found[key] = v
    return list(found.values())


def freeze(thing: Any) -> Any:
    """A hashable key, equal for equal parameters; by identity where nothing better is known."""
    if isinstance(thing, dict):
        return ("dict", *((k, freeze(thing[k])) for k in sorted(thing, key=str)))
    if isinstance(thing, (tuple, list)):
        # A named tuple and a plain one with equal fields are different parameters.
        return (type(thing).__name__, *map(freeze, thing))
    if isinstance(thing, np.ndarray):
        return (thing.shape, str(thing.dtype), thing.tobytes())
    if isinstance(thing, float):
        return ("float", np.float64(thing).tobytes())  # nan is equal to itself, -0.0 not to 0.0
    if _jax.is_jaxpr(thing):
        return ("id", Identity(thing))
    try:
        hash(thing)
    except TypeError:
        return ("id", Identity(thing))
    return (type(thing), thing)


class Identity:
    """Equality by identity for what has none, keeping the thing alive so that its id stays its own."""

    __slots__ = ("thing",)

    def __init__(self, thing: Any):
        self.thing = thing

    def __hash__(self) -> int:
        return id(self.thing)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Identity) and self.thing is other.thing
