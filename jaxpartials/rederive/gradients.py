"""The gradient of a loss, recognised, and taken again of the loss made cheaper."""

from collections.abc import Sequence

from jaxpartials.graph.cost import cost_of
from jaxpartials.graph.graph import Graph, Value, is_zero, reach
from jaxpartials.rederive.program import LINEARISED, MAPPED, Program, at, gradient, is_float, names
from jaxpartials.rewrite.pipeline import tidy

WORTH = 0.98  # a gradient is taken again of a loss that costs at most so much of what it did
MOST_LOSSES = 6  # so many values are tried


def gradients(program: Program, by: dict[Value, Value]) -> dict[Value, Value]:
    """The gradients that a program computes, old to new; `by` is what in it has a cheaper equal already."""
    traced, graph = program.traced, program.graph
    found: dict[Value, Value] = {}
    wrt = [v for v in traced.inputs if is_float(v)]
    done: set[int] = set()
    program.renew()
    for loss in _losses(traced, wrt):
        if loss.node.number in done:
            continue
        value = program.made(loss)
        (cheaper,) = tidy(graph, [graph.replace([value], by)[value]])
        if cost_of([cheaper]).time > WORTH * cost_of([loss]).time:
            continue  # of the same loss it is the same gradient
        slopes = program.extend(_gradient(loss, wrt, traced.inputs), wrt)[1:]
        old = {i: here for i, slope in enumerate(slopes) if (here := program.here(slope)) is not None}
        old = {i: here for i, here in old.items() if here not in by and here not in found and not is_zero(slopes[i])}
        if not old:
            continue
        moving = [wrt[i] for i in old]
        again = _gradient(cheaper, list(map(program.made, moving)), graph.inputs)
        new = program.extend(again, moving)
        if new:
            done |= {node.number for node in reach([loss])}  # its parts have no gradients of their own
            found |= dict(zip(old.values(), new[1:], strict=True))
            here = program.here(value)
            if here is not None:
                found[here] = new[0]
    return found


def _gradient(value: Value, cut: Sequence[Value], inputs: Sequence[Value]):
    """A function of the values in `cut`, and of the inputs: `value`, and its gradient by each in `cut`."""

    def run(moving, fixed):
        out, slopes = gradient(lambda moving: at(value, cut, moving, inputs, fixed), moving)
        return [out, *slopes]

    return run


def _losses(traced: Graph, wrt: Sequence[Value]) -> list[Value]:
    """What a gradient may have been taken of: a number, or one for each of what is mapped over all. Last first."""
    moving = _moving(traced, wrt)
    found = []
    for node in reversed(traced.traced):
        stack = names(node)
        mapped = next((i for i, name in enumerate(stack) if name != MAPPED), len(stack))
        if stack[mapped : mapped + 1] == (LINEARISED,) and node.number in moving and not node.effects:
            found += [v for v in node.outputs if is_float(v) and len(v.shape) == mapped]
    return found[:MOST_LOSSES]


def _moving(traced: Graph, values: Sequence[Value]) -> set[int]:
    """The equations, dead ones too, that depend on some of these values."""
    start = {(v.node.number, v.index) for v in values}
    moving: set[int] = set()
    for node in traced.traced:
        if any(v.node.number in moving or (v.node.number, v.index) in start for v in node.operands):
            moving.add(node.number)
    return moving
