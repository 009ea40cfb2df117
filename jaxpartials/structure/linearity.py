"""Which values are linear in which others.

    linear:  f(a x + b y) = a f(x) + b f(y)          affine:  f(x) - f(0) is linear

with x all the inputs in question together, over the real numbers (so `conj` is linear), and everything else fixed.
One forward pass; in which operands a primitive is linear is a column of `rules`. For a custom rule both its value and
its derivative program must say so.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import IntEnum

from jaxpartials.graph.graph import LITERAL, Graph, Node, Value, dependents, reach
from jaxpartials.structure.axes_calls import inexact, pullback, pushforward
from jaxpartials.structure.lanes import Key
from jaxpartials.structure.rules import EACH, INSIDE, NEVER, RULES, SAME


class Degree(IntEnum):
    CONSTANT = 0
    LINEAR = 1
    AFFINE = 2


CONSTANT, LINEAR, AFFINE = Degree

# What is not affine is known by the first node that is not.
Known = Degree | Node


def nonlinear(outputs: Iterable[Value], inputs: Iterable[Value]) -> Node | None:
    """None where the outputs are proved to be affine in all the inputs together; else the first node that is not.

    Affine includes constant and linear; `degrees` tells them apart.
    """
    outputs = list(outputs)
    found = degrees(outputs, inputs)
    for value in outputs:
        known = found[value.node.number, value.index]
        if isinstance(known, Node):
            return known
    return None


def degrees(outputs: Iterable[Value], inputs: Iterable[Value]) -> dict[Key, Known]:
    """For every value that `outputs` need: CONSTANT, LINEAR or AFFINE in all the inputs together, or the first node
    that is none of these. The keys are the number of the value's node and its place among that node's outputs."""
    inputs = list(inputs)
    return _pass(outputs, {(v.node.number, v.index): LINEAR for v in inputs}, inputs)


def _pass(outputs: Iterable[Value], known: Mapping[Key, Known], cut: Iterable[Value]) -> dict[Key, Known]:
    found = dict(known)
    for node in reach(outputs, cut):
        operands = [found[v.node.number, v.index] for v in node.operands]
        for value, state in zip(node.outputs, _node(node, operands), strict=True):
            found.setdefault((node.number, value.index), state)
    return found


def _through(graph: Graph, states: Sequence[Known]) -> list[Known]:
    known = {(v.node.number, v.index): state for v, state in zip(graph.inputs, states, strict=True)}
    found = _pass(graph.outputs, known, graph.inputs)
    return [found[v.node.number, v.index] for v in graph.outputs]


def _node(node: Node, states: Sequence[Known]) -> Sequence[Known]:
    count = len(node.outputs)
    moving = [i for i, state in enumerate(states) if state != CONSTANT]
    if not moving:
        return [CONSTANT] * count
    rule = RULES.get(node.name)
    if rule is not None and rule.linear == INSIDE:
        return PROGRAMS.get(node.name, _call)(node, states)
    if rule is not None and rule.linear == SAME:
        return states
    for state in states:
        if isinstance(state, Node):
            return [state] * count
    exact = not all(map(inexact, [*node.outputs, *(node.operands[i] for i in moving)]))
    if rule is None or rule.linear == NEVER or exact:
        return [node] * count
    if rule.linear == EACH:
        return [states[moving[0]] if len(moving) == 1 else node] * count
    joint = range(len(states))[rule.linear]
    if not set(moving) <= set(joint):
        return [node] * count
    return [_together([(states[i], node.operands[i]) for i in joint])] * count


def _together(parts: Sequence[tuple[Known, Value]]) -> Known:
    """What is linear in all of these together: a sum of them, or now one, now the other."""
    states = [state for state, _ in parts]
    for state in states:
        if isinstance(state, Node):
            return state
    if all(state == CONSTANT for state in states):
        return CONSTANT
    homogeneous = all(state == LINEAR or (state == CONSTANT and _is_zero(value)) for state, value in parts)
    return LINEAR if homogeneous else AFFINE


def _is_zero(value: Value) -> bool:
    node = value.node
    if node.name == LITERAL:
        return bool((node.params["value"] == 0).all())
    return node.name in ("broadcast_in_dim", "reshape", "convert_element_type", "copy") and _is_zero(node.operands[0])


# ---- programs inside


def _call(node: Node, states: Sequence[Known]) -> Sequence[Known]:
    return _through(node.bodies[0], states)


def _cond(node: Node, states: Sequence[Known]) -> Sequence[Known]:
    index, *rest = states
    if index != CONSTANT:
        return [index if isinstance(index, Node) else node] * len(node.outputs)
    outs = [list(zip(_through(branch, rest), branch.outputs, strict=True)) for branch in node.bodies]
    return [_together(branches) for branches in zip(*outs, strict=True)]


def _scan(node: Node, states: Sequence[Known]) -> Sequence[Known]:
    consts, carried = node.params["num_consts"], node.params["num_carry"]
    (body,) = node.bodies
    fixed, init, xs = states[:consts], states[consts : consts + carried], states[consts + carried :]
    starts = node.operands[consts : consts + carried]
    carry = list(init)
    while True:
        outs = _through(body, [*fixed, *carry, *xs])
        after = _carried(carry, init, starts, outs, body)
        if after == carry:
            return [*carry, *outs[carried:]]
        carry = after


def _while(node: Node, states: Sequence[Known]) -> Sequence[Known]:
    in_test, in_body = node.params["cond_nconsts"], node.params["body_nconsts"]
    test, body = node.bodies
    init, starts = states[in_test + in_body :], node.operands[in_test + in_body :]
    carry = list(init)
    while True:
        (go,) = _through(test, [*states[:in_test], *carry])
        if go != CONSTANT:
            return [go if isinstance(go, Node) else node] * len(node.outputs)
        outs = _through(body, [*states[in_test : in_test + in_body], *carry])
        after = _carried(carry, init, starts, outs, body)
        if after == carry:
            return carry
        carry = after


def _carried(
    carry: Sequence[Known], init: Sequence[Known], starts: Sequence[Value], outs: Sequence[Known], body: Graph
) -> list[Known]:
    """The carries of the next round: what they started as, or what the body gives."""
    given = zip(carry, init, starts, outs, body.outputs, strict=False)
    return [
        was if isinstance(was, Node) or was == out else _together([(begin, start), (out, value)])
        for was, begin, start, out, value in given
    ]


def _linear_solve(node: Node, states: Sequence[Known]) -> Sequence[Known]:
    """A x = b is linear in b, by whatever means it is solved."""
    matrices = sum(node.params["const_lengths"])
    for state in states[:matrices]:
        if state != CONSTANT:
            return [state if isinstance(state, Node) else node] * len(node.outputs)
    return [_together(list(zip(states, node.operands, strict=True))[matrices:])] * len(node.outputs)


def _custom(derivative: Callable[[Node], Graph]) -> Callable[[Node, Sequence[Known]], Sequence[Known]]:
    """The value says what it is linear in, and the derivative program must not depend on where it is taken."""

    def rule(node: Node, states: Sequence[Known]) -> Sequence[Known]:
        value = _through(node.bodies[0], states)
        moving = [i for i, state in enumerate(states) if state != CONSTANT]
        try:
            graph = derivative(node)
        except Exception:  # whatever the user's rule raises
            return [node] * len(node.outputs)
        touched = dependents(graph.outputs, [graph.inputs[i] for i in moving])
        if any(out.node.number in touched for out in graph.outputs):
            return [state if isinstance(state, Node) else node for state in value]
        return value

    return rule


PROGRAMS = {
    "cond": _cond,
    "scan": _scan,
    "while": _while,
    "custom_linear_solve": _linear_solve,
    "custom_jvp_call": _custom(pushforward),
    "custom_vjp_call": _custom(pullback),
}
