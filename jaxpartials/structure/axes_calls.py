"""How loops, branches, calls and custom rules carry lanes: the rules of `axes_rules` for what has a program inside.

These see `Mixed` operands too, since not every output need depend on them.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxpartials import _jax
from jaxpartials.graph.graph import Graph, Node, Value
from jaxpartials.graph.trace import trace
from jaxpartials.structure.lanes import FREE, Iteration, Lane, Mixed, Mixes, State, described, joined, moved


def call(node: Node, states: Sequence[State], flow: Any) -> Sequence[State]:
    """A call means its body."""
    return flow.through(node.bodies[0], states)


def cond(node: Node, states: Sequence[State], flow: Any) -> Sequence[State]:
    index, *rest = states
    if index != FREE:
        raise Mixes(index if isinstance(index, Mixed) else "chooses a branch by the lanes")
    outs = [flow.through(branch, rest) for branch in node.bodies]
    found = list(outs[0])
    for other in outs[1:]:
        found = [joined(node, a, b) for a, b in zip(found, other, strict=True)]
    return found


def scan(node: Node, states: Sequence[State], flow: Any) -> Sequence[State]:
    """Lanes along other axes go through all steps; lanes along the scanned axis are steps, if nothing is carried."""
    consts, carried = node.params["num_consts"], node.params["num_carry"]
    fixed, carry, xs = states[:consts], list(states[consts : consts + carried]), states[consts + carried :]
    slices = [_slice(x) for x in xs]
    (body,) = node.bodies
    while True:
        outs = flow.through(body, [*fixed, *carry, *slices])
        after = [joined(node, a, _carried(node, b)) for a, b in zip(carry, outs[:carried], strict=True)]
        if after == carry:
            return [*carry, *map(_stacked, outs[carried:])]
        carry = after


def _slice(x: State) -> State:
    if not isinstance(x, Lane):
        return x
    return Iteration(x.stride) if x.axis == 0 else moved(x, x.axis - 1)


def _carried(node: Node, state: State) -> State:
    return Mixed(node, "scan carries a value from one lane to the next") if isinstance(state, Iteration) else state


def _stacked(y: State) -> State:
    if isinstance(y, Iteration):
        return Lane(0, y.stride)
    return moved(y, y.axis + 1) if isinstance(y, Lane) else y


def while_(node: Node, states: Sequence[State], flow: Any) -> Sequence[State]:
    """Under vmap the test has one answer per lane, and a lane that is done keeps what it has."""
    in_test, in_body = node.params["cond_nconsts"], node.params["body_nconsts"]
    test, body = node.bodies
    test_consts, body_consts = states[:in_test], states[in_test : in_test + in_body]
    carry = list(states[in_test + in_body :])
    while True:
        (go,) = flow.through(test, [*test_consts, *carry])
        if isinstance(go, Mixed):
            raise Mixes(go)
        outs = flow.through(body, [*body_consts, *carry])
        after = [joined(node, joined(node, a, b), go) for a, b in zip(carry, outs, strict=True)]
        if after == carry:
            return carry
        carry = after


def linear_solve(node: Node, states: Sequence[State], flow: Any) -> Sequence[State]:
    """A x = b, with A and its solvers as programs; derivatives apply any of the four to values like b or x."""
    lengths, programs = node.params["const_lengths"], node.params["jaxprs"]
    bodies = iter(node.bodies)
    calls, start = {}, 0
    for name in ("matvec", "vecmat", "solve", "transpose_solve"):
        count = getattr(lengths, name)
        if getattr(programs, name) is not None:
            calls[name] = next(bodies), states[start : start + count]
        start += count
    x = list(states[start:])
    while True:
        after = x
        for body, consts in reversed(calls.values()):  # the solvers first: they are what a person looks for
            outs = flow.through(body, [*consts, *x])
            after = [joined(node, a, b) for a, b in zip(after, outs, strict=True)]
        if after == x:
            return x
        x = after


# ---- custom rules: the primal and the derivative program must both keep the lanes apart


def custom_jvp(node: Node, states: Sequence[State], flow: Any) -> Sequence[State]:
    return _with_tangents(node, states, flow.through(node.bodies[0], states), flow)


def hi_primitive(node: Node, states: Sequence[State], flow: Any) -> Sequence[State]:
    """An operation that JAX keeps whole, with a derivative rule of its own, and can expand."""
    return _with_tangents(node, states, flow.through(flow.program(node, expansion), states), flow)


def _with_tangents(node: Node, states: Sequence[State], primal: Sequence[State], flow: Any) -> Sequence[State]:
    moving = [i for i, v in enumerate(node.operands) if inexact(v)]
    if flow.order == 0 or not moving or not any(map(inexact, node.outputs)):
        return primal
    graph = flow.program(node, pushforward)
    tangents = iter(flow.lower().through(graph, [*states, *(states[i] for i in moving)]))
    found = list(primal)
    for i, out in enumerate(node.outputs):
        if inexact(out):
            tangent = next(tangents)
            if isinstance(tangent, Mixed):
                tangent = Mixed(node, f"its derivative rule mixes lanes: {tangent.reason}")
            found[i] = joined(node, primal[i], tangent)
    return found


def custom_vjp(node: Node, states: Sequence[State], flow: Any) -> Sequence[State]:
    primal = list(flow.through(node.bodies[0], states))
    if flow.order == 0:
        return primal
    outs = [i for i, v in enumerate(node.outputs) if inexact(v)]
    graph = flow.program(node, pullback)
    lower = flow.lower()

    def pulled(cotangents: Sequence[State]) -> Mixed | None:
        """Why the operands' cotangents do not lie in the operands' own lanes."""
        results = iter(lower.through(graph, [*states, *cotangents]))
        for i, operand in enumerate(node.operands):
            if not inexact(operand):
                continue
            result = next(results)
            if states[i] == FREE or isinstance(states[i], Mixed) or result in (FREE, states[i]):
                continue  # what all lanes share may take its cotangent from all lanes
            if isinstance(result, Mixed):
                return Mixed(node, f"its derivative rule mixes lanes: {result.reason}")
            return Mixed(node, f"its derivative rule moves lanes from {described(states[i])} to {described(result)}")
        return None

    # The pullback is linear in the cotangents, so those of the other outputs may be anything that has no lanes.
    mixed = pulled([primal[i] if isinstance(primal[i], Lane) else FREE for i in outs])
    if mixed is not None:
        return [mixed if inexact(v) else p for p, v in zip(primal, node.outputs, strict=True)]
    # An output without lanes must not send a cotangent to what has them.
    unlaned = [i for i in outs if primal[i] == FREE]
    probe = Mixed(node, "a value that depends on no lane has a derivative with respect to them")
    if unlaned and pulled([probe if i in unlaned else FREE for i in outs]) is not None:
        for i in unlaned:
            primal[i] = probe
    return primal


def expansion(node: Node) -> Graph:
    with _jax.user_context(node.source, node.context):
        return trace(lambda operands: _jax.expand(node.params, operands), _shapes(node.operands))[0]


def pushforward(node: Node) -> Graph:
    """The derivative program (operands, their tangents) -> tangents, of what can have a tangent."""
    moving = [i for i, v in enumerate(node.operands) if inexact(v)]

    def program(primals, tangents):
        _, out = jax.jvp(_moving(node, primals, moving), [primals[i] for i in moving], tangents)
        return [t for t, v in zip(out, node.outputs, strict=True) if inexact(v)]

    shapes = _shapes(node.operands)
    with _jax.user_context(node.source, node.context):
        return trace(program, shapes, [shapes[i] for i in moving])[0]


def pullback(node: Node) -> Graph:
    """The derivative program (operands, cotangents) -> the operands' cotangents, of what can have one."""
    moving = [i for i, v in enumerate(node.operands) if inexact(v)]

    def program(primals, cotangents):
        _, pull = jax.vjp(_moving(node, primals, moving), *(primals[i] for i in moving))
        given = iter(cotangents)
        return pull([next(given) if inexact(v) else np.zeros(v.shape, jax.dtypes.float0) for v in node.outputs])

    with _jax.user_context(node.source, node.context):
        return trace(program, _shapes(node.operands), _shapes(filter(inexact, node.outputs)))[0]


def _moving(node: Node, primals: Sequence[Any], moving: Sequence[int]) -> Any:
    def function(*arrays):
        operands = list(primals)
        for i, array in zip(moving, arrays, strict=True):
            operands[i] = array
        return _jax.bind(node.primitive, node.params, operands)

    return function


def _shapes(values: Any) -> list[Any]:
    return [jax.ShapeDtypeStruct(v.shape, v.dtype, weak_type=getattr(v.aval, "weak_type", False)) for v in values]


def inexact(value: Value) -> bool:
    return jax.dtypes.issubdtype(value.dtype, np.inexact)
