"""Which values are linear in which others.

    linear:  f(a x + b y) = a f(x) + b f(y)          affine:  f(x) - f(0) is linear

with x all the inputs in question together, over the real numbers (so `conj` is linear), and everything else fixed.
One forward pass; in which operands a primitive is linear is a column of `rules`. For a custom rule both its value and
its derivative program must say so.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum

import jax
import numpy as np

from jaxpartials import _jax
from jaxpartials.graph.graph import LEAVES, Graph, Node, Value, dependents, reach
from jaxpartials.structure.axes_calls import inexact, pullback, pushforward
from jaxpartials.structure.lanes import Key
from jaxpartials.structure.rules import EACH, INSIDE, NEVER, RULES, SAME


class Degree(Enum):
    ZERO = "zero"
    CONSTANT = "constant"
    LINEAR = "linear"
    AFFINE = "affine"


ZERO, CONSTANT, LINEAR, AFFINE = Degree
FIXED = (ZERO, CONSTANT)

LARGEST = 4096  # elements; a constant larger than that is not searched for zeros

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
    """What each value that `outputs` need is in all the inputs together: ZERO, CONSTANT, LINEAR, AFFINE, or else the
    first node that is none of these. The keys: the number of the value's node, its place among the node's outputs.
    """
    inputs = list(inputs)
    return _pass(outputs, {(v.node.number, v.index): LINEAR for v in inputs}, inputs)


def _pass(outputs: Iterable[Value], known: Mapping[Key, Known], cut: Iterable[Value]) -> dict[Key, Known]:
    found = dict(known)
    for node in reach(outputs, cut):
        operands = [found[v.node.number, v.index] for v in node.operands]
        for value, state in zip(node.outputs, node_degrees(node, operands), strict=True):
            found.setdefault((node.number, value.index), state)
    return found


def _through(graph: Graph, states: Sequence[Known]) -> list[Known]:
    known = {(v.node.number, v.index): state for v, state in zip(graph.inputs, states, strict=True)}
    found = _pass(graph.outputs, known, graph.inputs)
    return [found[v.node.number, v.index] for v in graph.outputs]


def node_degrees(node: Node, states: Sequence[Known]) -> Sequence[Known]:
    """What the outputs of one equation are, from what its operands are."""
    count = len(node.outputs)
    moving = [i for i, state in enumerate(states) if state not in FIXED]
    rule = RULES.get(node.name)
    if node.name in LEAVES:
        return [ZERO if _is_zero(node) else CONSTANT]
    if node.effects and (not node.bodies or rule is None):
        return [node] * count  # what it reads may have been written from any input
    if rule is None or rule.linear == NEVER:
        return [_first_curved(states, node) if moving else CONSTANT] * count
    if rule.linear == INSIDE:
        return PROGRAMS.get(node.name, _call)(node, states) if moving or node.effects else [CONSTANT] * count
    if rule.linear == SAME:
        return states
    if not all(map(inexact, [*node.outputs, *(node.operands[i] for i in moving)])) and moving:
        return [_first_curved(states, node)] * count
    if rule.linear == EACH:
        if len(moving) == 1:
            return [states[moving[0]]] * count
        return [_first_curved(states, node) if moving else ZERO if ZERO in states else CONSTANT] * count
    assert isinstance(rule.linear, slice)
    joint = range(len(states))[rule.linear]
    if not set(moving) <= set(joint):
        return [_first_curved(states, node)] * count
    return [_together([states[i] for i in joint])] * count


def _first_curved(states: Sequence[Known], otherwise: Node) -> Node:
    return next((state for state in states if isinstance(state, Node)), otherwise)


def _together(states: Sequence[Known]) -> Known:
    """What is linear in all of these together: a sum of them, or now one, now the other."""
    for state in states:
        if isinstance(state, Node):
            return state
    for result, parts in ((ZERO, (ZERO,)), (CONSTANT, FIXED), (LINEAR, (ZERO, LINEAR))):
        if all(state in parts for state in states):
            return result
    return AFFINE


def _is_zero(leaf: Node) -> bool:
    array = leaf.params.get("value")
    if array is None or isinstance(array, _jax.Tracer) or np.size(array) > LARGEST:
        return False
    numeric = jax.dtypes.issubdtype(leaf.outputs[0].dtype, np.number)
    return numeric and bool((np.asarray(array) == 0).all())


# ---- programs inside


def _call(node: Node, states: Sequence[Known]) -> Sequence[Known]:
    return _through(node.bodies[0], states)


def _cond(node: Node, states: Sequence[Known]) -> Sequence[Known]:
    index, *rest = states
    if index not in FIXED:
        return [_first_curved([index], node)] * len(node.outputs)
    outs = [_through(branch, rest) for branch in node.bodies]
    return [_together(branches) for branches in zip(*outs, strict=True)]


def _scan(node: Node, states: Sequence[Known]) -> Sequence[Known]:
    consts, carried = node.params["num_consts"], node.params["num_carry"]
    (body,) = node.bodies
    fixed, carry, xs = states[:consts], list(states[consts : consts + carried]), states[consts + carried :]
    while True:
        outs = _through(body, [*fixed, *carry, *xs])
        after = [_together(pair) for pair in zip(carry, outs[:carried], strict=True)]
        if after == carry:
            return [*carry, *outs[carried:]]
        carry = after


def _while(node: Node, states: Sequence[Known]) -> Sequence[Known]:
    in_test, in_body = node.params["cond_nconsts"], node.params["body_nconsts"]
    test, body = node.bodies
    carry = list(states[in_test + in_body :])
    while True:
        (go,) = _through(test, [*states[:in_test], *carry])
        if go not in FIXED:
            return [_first_curved([go], node)] * len(node.outputs)
        outs = _through(body, [*states[in_test : in_test + in_body], *carry])
        after = [_together(pair) for pair in zip(carry, outs, strict=True)]
        if after == carry:
            return carry
        carry = after


def _linear_solve(node: Node, states: Sequence[Known]) -> Sequence[Known]:
    """A x = b is linear in b, by whatever means it is solved."""
    matrices = sum(node.params["const_lengths"])
    if any(state not in FIXED for state in states[:matrices]):
        return [_first_curved(states, node)] * len(node.outputs)
    return [_together(states[matrices:])] * len(node.outputs)


def _custom(derivative: Callable[[Node], Graph]) -> Callable[[Node, Sequence[Known]], Sequence[Known]]:
    """The value says what it is linear in, and the derivative program must not depend on where it is taken."""

    def rule(node: Node, states: Sequence[Known]) -> Sequence[Known]:
        value = _through(node.bodies[0], states)
        moving = [i for i, state in enumerate(states) if state not in FIXED]
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
