"""What cannot be differentiated in a mode, and why: in the user's words, with the line where it is written."""

from collections.abc import Iterator, Sequence

import jax.numpy as jnp

from jaxpartials.derive import FORWARD, REVERSE, Candidate, Deriver
from jaxpartials.graph.graph import LEAVES, Node, Value, dependents, reach
from jaxpartials.notation import Block


def dtype_refusal(deriver: Deriver, blocks: Sequence[Block], candidate: Candidate) -> str | None:
    """JAX's own rules for complex numbers: forward from real inputs, reverse from real outputs, or holomorphic."""
    for block in blocks:
        out = deriver.outputs[block.output]
        complex_value = _is_complex(out)
        for stage in candidate:
            wrt = deriver.inputs[block.wrt[stage.slot]]
            complex_wrt = _is_complex(wrt)
            if not complex_wrt and not complex_value:
                continue
            if complex_wrt and complex_value:
                culprit = _not_holomorphic([out], [wrt])
                if culprit is not None:
                    return (
                        f"{stage.mode} differentiation of a complex output with respect to a complex input needs a"
                        f" holomorphic function, and {culprit.name} at {culprit.where} is not"
                        " (differentiate by the real and imaginary parts instead)"
                    )
                continue
            if stage.mode == FORWARD and complex_wrt:
                return "forward differentiation needs a real input; this one is complex"
            if stage.mode == REVERSE and complex_value:
                return "reverse differentiation needs a real output; this one is complex"
            complex_value = complex_value or complex_wrt
    return None


def _not_holomorphic(values: Sequence[Value], wrt: Sequence[Value]) -> Node | None:
    """The first operation between `wrt` and `values` that is not, or not known to be, complex-differentiable."""
    moving = dependents(values, wrt)
    for node in _reach_numbers(values):
        if node.number not in moving or node.name in LEAVES:
            continue
        real = any(_is_inexact(v) and not _is_complex(v) for v in node.outputs)
        if real or node.name in ("conj", "sign") or (node.bodies and node.opaque):
            return node
        for body in node.bodies:
            inner = _not_holomorphic(body.outputs, [v for v in body.inputs if _is_complex(v)])
            if inner is not None:
                return inner
    return None


def _reach_numbers(values: Sequence[Value]) -> list[Node]:
    """The nodes that `values` need, not going through truth values and integers, which carry no derivative."""
    found: dict[int, Node] = {}
    stack = [v for v in values if _is_inexact(v)]
    while stack:
        node = stack.pop().node
        if node.number not in found:
            found[node.number] = node
            stack.extend(v for v in node.operands if _is_inexact(v))
    return [found[number] for number in sorted(found)]


def _is_inexact(value: Value) -> bool:
    return jnp.issubdtype(value.dtype, jnp.inexact)


def _is_complex(value: Value) -> bool:
    return jnp.issubdtype(value.dtype, jnp.complexfloating)


# What JAX differentiates in one mode only, or not at all: primitive name -> the mode it blocks.
ONE_WAY = {
    "custom_vjp_call": FORWARD,
    "custom_vjp_call_jaxpr": FORWARD,
    "while": REVERSE,
}


def refusal_of(deriver: Deriver, blocks: Sequence[Block], candidate: Candidate, error: Exception) -> tuple[str, bool]:
    """Which operation stands in the way of a mode, and where the user wrote it; and whether one was found."""
    modes = [stage.mode for stage in candidate]
    message = str(error).strip().split("\n")[0]
    culprit = _culprit(deriver, blocks, modes, message)
    mode = " and ".join(dict.fromkeys(modes))
    if culprit is None:
        return f"{mode} mode: {message or type(error).__name__}", False
    if culprit.name in ONE_WAY:
        return f"{culprit.name} at {culprit.where} cannot be differentiated in {ONE_WAY[culprit.name]} mode", True
    return f"{culprit.name} at {culprit.where} cannot be differentiated in {mode} mode: {message}", True


def _culprit(deriver: Deriver, blocks: Sequence[Block], modes: Sequence[str], message: str) -> Node | None:
    suspects = []
    for block in blocks:
        value = deriver.outputs[block.output]
        wrts = [deriver.inputs[leaf] for leaf in block.wrt]
        moving = dependents([value], wrts)
        suspects += [node for node in all_nodes([value]) if node.number in moving or node.bodies == ()]
    for node in suspects:
        if node.name in ONE_WAY and ONE_WAY[node.name] in modes:
            return node
    named = message.lower().replace("_", " ")
    for node in suspects:
        if "callback" in node.name or (len(node.name) > 3 and node.name.replace("_", " ") in named):
            return node
    return None


def all_nodes(values: Sequence[Value]) -> Iterator[Node]:
    for node in reach(values):
        if node.name not in LEAVES:
            yield node
        for body in node.bodies:
            yield from all_nodes(body.outputs)
