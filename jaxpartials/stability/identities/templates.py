"""Functions known by their trace: what a call of one is made of, and what it was called on."""

import functools
from collections.abc import Callable
from typing import Any

import jax

from jaxpartials import _jax
from jaxpartials.graph.graph import INPUT, LITERAL, Graph, Node, Value, what
from jaxpartials.graph.trace import trace


@functools.cache
def template(function: Callable, inputs: int, shape: tuple[int, ...], dtype: Any, context: Any) -> Graph | None:
    """What a function of arrays of one shape and type is made of, None if it takes none of this type."""
    try:
        return trace(function, *[jax.ShapeDtypeStruct(shape, dtype)] * inputs)[0]
    except _jax.REFUSALS:
        return None


def arguments(
    same: Callable[[Value, Value], bool], function: Callable, inputs: int, value: Value
) -> tuple[Value, ...] | None:
    """What the function was called on, if the value is what it gives."""
    made = template(function, inputs, value.shape, value.dtype, _jax.trace_context())
    if made is None:
        return None
    (output,) = made.outputs
    if output.node.name == value.node.name == "custom_jvp_call" and list(output.node.operands) == made.inputs:
        # The operands may be scalars or of a shape that is broadcast: only the rule counts.
        equal = _rule(value.node) == _rule(output.node) and output.index == value.index
        return value.node.operands if equal else None
    at: dict[Value, Value] = {}
    pairs = [(output, value)]
    while pairs:
        expected, found = pairs.pop()
        one, other = expected.node, found.node
        if one.name == INPUT:
            if not same(at.setdefault(expected, found), found):
                return None
        elif one.name == LITERAL:
            if other.name != LITERAL or one.params["value"].tobytes() != other.params["value"].tobytes():
                return None
        elif (
            one.name != other.name
            or expected.index != found.index
            or len(one.operands) != len(other.operands)
            or _what(one) != _what(other)
        ):
            return None
        else:
            pairs += zip(one.operands, other.operands, strict=True)
    return tuple(at[v] for v in made.inputs) if len(at) == inputs else None


def _rule(node: Node) -> Any:
    """What tells a custom rule from others; for one of JAX's it may be no more than where it stands."""
    rule = _jax.rule_identity(node.params)
    if rule is None and _jax.is_jax_function(node.params):
        return _jax.function_info(node.params), [n.name for n in node.bodies[0].nodes]
    return object() if rule is None else rule


def _what(node: Node) -> Any:
    if node.name == "custom_jvp_call":
        return _rule(node)
    return what(node.name, node.params, node.bodies, node.opaque, node.context)
