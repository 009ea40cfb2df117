"""Which axis of a value carries the lanes: where element b of an axis depends on element b of the inputs' axes alone.

One forward pass over the graph; what each primitive does is a row of `rules`. A custom rule is also read off its
derivative program, since its derivative need not be the derivative of its value.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

from jaxpartials.graph.graph import Graph, Node, Value, reach
from jaxpartials.structure.lanes import FREE, Iteration, Key, Lane, Mixed, Mixes, State, described
from jaxpartials.structure.rules import RULES

__all__ = ["FREE", "Lane", "Mixed", "State", "independent", "lane_states"]

Inputs = Mapping[Value, int] | Sequence[tuple[Value, int]]


def independent(output: Value, axis: int, inputs: Inputs, order: int = 1) -> Mixed | None:
    """None where it is proved that each slice of `output` depends on its own slices of the inputs alone.

        ∂ output[.., b, ..] / ∂ input[.., b', ..] = 0   for b ≠ b',

    with b at `axis` of the output and b' at the given axis of each input, for the values and for every derivative up
    to `order` that JAX would compute. All other inputs of the program may be anything. Where it cannot be proved, the
    answer says which operation stands in the way.

    Args:
        output: A value of the graph.
        axis: Its lane axis, of the same length as the inputs' lane axes.
        inputs: Values of the graph, each with its lane axis.
        order: Up to which derivative the custom rules are followed; 0 looks at values alone.
    """
    pairs = _pairs(inputs)
    axis = axis % len(output.shape)
    lengths = {value.shape[a] for value, a in pairs} | {output.shape[axis]}
    if len(lengths) > 1:
        return Mixed(None, f"the lane axes differ in length: {', '.join(map(str, sorted(lengths)))}")
    if max(lengths) <= 1:
        return None  # one lane has nothing to mix with
    state = lane_states([output], pairs, order)[output.node.number, output.index]
    if isinstance(state, Mixed):
        return state
    if state in (FREE, Lane(axis)):
        return None
    return Mixed(None, f"the lanes of the output lie along {described(state)}, not along axis {axis}")


def lane_states(values: Iterable[Value], inputs: Inputs, order: int = 1) -> dict[Key, State]:
    """The state of every value that `values` need, by the number of its node and its place among the outputs.

    A value is `FREE` of the lanes, or has them along one axis, or they are mixed by a node that `Mixed` names.
    The arguments are those of `independent`.
    """
    pairs = _pairs(inputs)
    (lanes,) = {value.shape[axis] for value, axis in pairs}
    return Flow(lanes, order).states(
        values, {(v.node.number, v.index): Lane(axis) for v, axis in pairs}, [v for v, _ in pairs]
    )


def _pairs(inputs: Inputs) -> list[tuple[Value, int]]:
    items = inputs.items() if isinstance(inputs, Mapping) else inputs
    return [(value, axis % len(value.shape)) for value, axis in items]


class Flow:
    """The forward pass, with what its rules need to look into bodies and derivative programs."""

    def __init__(self, lanes: int, order: int, programs: dict | None = None):
        self.lanes = lanes
        self.order = order
        self._programs: dict[tuple[Node, Callable], Graph | Exception] = {} if programs is None else programs

    def states(self, outputs: Iterable[Value], known: Mapping[Key, State], cut: Iterable[Value]) -> dict[Key, State]:
        found = dict(known)
        for node in reach(outputs, cut):
            operands = [found[v.node.number, v.index] for v in node.operands]
            for value, state in zip(node.outputs, self.step(node, operands), strict=True):
                found.setdefault((node.number, value.index), state)
        return found

    def through(self, graph: Graph, states: Sequence[State]) -> list[State]:
        """The states of a graph's outputs from those of its inputs."""
        known = {(v.node.number, v.index): state for v, state in zip(graph.inputs, states, strict=True)}
        found = self.states(graph.outputs, known, graph.inputs)
        return [found[v.node.number, v.index] for v in graph.outputs]

    def lower(self) -> "Flow":
        """The same one derivative further in."""
        return Flow(self.lanes, self.order - 1, self._programs)

    def program(self, node: Node, make: Callable[[Node], Graph]) -> Graph:
        """What `make` makes of a node, once: a derivative program. If it cannot be traced, everything is mixed."""
        key = node, make
        if key not in self._programs:
            try:
                self._programs[key] = make(node)
            except Exception as error:  # whatever the user's rule raises
                self._programs[key] = error
        found = self._programs[key]
        if isinstance(found, Exception):
            raise Mixes(f"has a derivative rule that cannot be traced ({type(found).__name__})")
        return found

    def step(self, node: Node, operands: Sequence[State]) -> Sequence[State]:
        """The states of a node's outputs from those of its operands."""
        laned = {state for state in operands if state != FREE}
        if node.effects and not node.bodies:  # what it reads may have been written by any lane
            return [Mixed(node, f"{node.name} has effects")] * len(node.outputs)
        if not laned and not node.effects:
            return [FREE] * len(node.outputs)
        if len(laned) == 1 and isinstance(first := next(iter(laned)), Iteration) and not node.effects:
            return [first] * len(node.outputs)  # whatever it computes, it computes it within one lane
        try:
            if any(isinstance(state, Iteration) for state in laned):
                mixed = [state for state in laned if isinstance(state, Mixed)]
                raise Mixes(mixed[0] if mixed else "combines a loop's lanes with others")
            rule = RULES.get(node.name)
            if rule is None:
                mixed = [state for state in laned if isinstance(state, Mixed)]
                raise Mixes(mixed[0] if mixed else Mixed(node, f"there is no rule for the primitive {node.name}"))
            found = rule.axes(node, operands, self)
        except Mixes as mixes:
            found = mixes.why if isinstance(mixes.why, Mixed) else Mixed(node, f"{node.name} {mixes.why}")
        return found if isinstance(found, Sequence) else [found] * len(node.outputs)
