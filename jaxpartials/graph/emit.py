"""From a Graph back to JAX: every equation is bound again, loops and branches through their public functions.

No jaxpr is ever constructed by hand, so whatever transformation is active sees ordinary JAX operations.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxpartials import _jax
from jaxpartials.graph.graph import LEAVES, Graph, Node, Value, reach


def emit(graph: Graph, arrays: Sequence[Any]) -> list[Any]:
    """The outputs of the whole program on `arrays`, its effects in order."""
    return evaluate(graph.outputs, zip(graph.inputs, arrays, strict=True), effects=graph.effects)


def evaluate(outputs: Sequence[Value], known: Iterable[tuple[Value, Any]], effects: Sequence[Node] = ()) -> list[Any]:
    """Compute `outputs` from the values already known, which may be any cut through the graph.

    Only what the outputs need is emitted; equations with effects only if they are asked for or needed.
    """
    known = list(known)
    env: dict[tuple[int, int], Any] = {(v.node.number, v.index): array for v, array in known}
    cut = [v for v, _ in known]
    roots = [*outputs, *(v for node in effects for v in node.operands)]
    nodes = {node.number: node for node in [*reach(roots, cut), *effects]}
    for number in sorted(nodes):
        node = nodes[number]
        if node.name in LEAVES:
            if (number, 0) not in env:
                assert node.name != "input", f"{node} is needed, but its value is not known"
                value = node.params["value"]
                scalar = node.name == "literal" and value.dtype.kind != "V"  # of float0 there are no scalars
                env[number, 0] = value[()] if scalar else value
            continue
        operands = [env[v.node.number, v.index] for v in node.operands]
        with _jax.user_context(node.source, node.context):
            results = emit_node(node, operands, keep_effects=bool(effects))
        for value, array in zip(node.outputs, results, strict=True):
            env.setdefault((number, value.index), array)
    return [env[v.node.number, v.index] for v in outputs]


def emit_node(node: Node, operands: list[Any], keep_effects: bool = True) -> list[Any]:
    """Bind one equation."""
    emitter = CONTROL.get(node.name)
    if emitter is not None:
        return list(emitter(node, operands, keep_effects))
    if node.name == "copy":
        return operands
    return _jax.bind(node.primitive, node.params, operands)


def _run(body: Graph, arrays: Sequence[Any], keep_effects: bool) -> list[Any]:
    effects = body.effects if keep_effects else ()
    return evaluate(body.outputs, zip(body.inputs, arrays, strict=True), effects)


def _scan(node: Node, operands: list[Any], keep_effects: bool) -> list[Any]:
    params = dict(node.params)
    consts, carried = params.pop("num_consts"), params.pop("num_carry")
    fixed, init, xs = operands[:consts], operands[consts : consts + carried], operands[consts + carried :]
    (graph,) = node.bodies

    def step(carry, x):
        out = _run(graph, [*fixed, *carry, *x], keep_effects)
        return tuple(out[:carried]), tuple(out[carried:])

    carry, ys = jax.lax.scan(step, tuple(init), tuple(xs), **params)
    return [*carry, *ys]


def _while(node: Node, operands: list[Any], keep_effects: bool) -> list[Any]:
    in_test, in_body = node.params["cond_nconsts"], node.params["body_nconsts"]
    test_consts, body_consts = operands[:in_test], operands[in_test : in_test + in_body]
    test_graph, body_graph = node.bodies
    init = tuple(operands[in_test + in_body :])
    (test_out,) = test_graph.outputs
    batched = len(test_out.shape)

    def test(carry):
        (go,) = _run(test_graph, [*test_consts, *carry], keep_effects)
        # A while of a vmap runs until the last lane is done ...
        return jnp.any(go) if batched else go

    def step(carry):
        out = _run(body_graph, [*body_consts, *carry], keep_effects)
        if batched:
            # ... and a lane that is done keeps what it has.
            (go,) = _run(test_graph, [*test_consts, *carry], False)
            out = [jnp.where(jnp.reshape(go, go.shape + (1,) * (jnp.ndim(new) - batched)), new, old)
                   for new, old in zip(out, carry, strict=True)]  # fmt: skip
        return tuple(out)

    return list(jax.lax.while_loop(test, step, init))


def _cond(node: Node, operands: list[Any], keep_effects: bool) -> list[Any]:
    index, *rest = operands

    def branch(graph):
        return lambda *arrays: tuple(_run(graph, arrays, keep_effects))

    return list(jax.lax.switch(index, [branch(graph) for graph in node.bodies], *rest))


CONTROL = {"scan": _scan, "while": _while, "cond": _cond}
