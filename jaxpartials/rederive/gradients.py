"""The gradient of a loss, recognised, and taken again of the loss made cheaper."""

from collections.abc import Sequence
from typing import Any

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
    done: set[int] = set()
    program.renew()
    for loss, wrt in _losses(traced):
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


def _losses(traced: Graph) -> list[tuple[Value, list[Value]]]:
    """What a gradient may have been taken of: a number, or one for each of what is mapped over all. Last first.

    With each, the inputs that it may have been taken by: the function that was differentiated got them as they are, so
    all that depends on them and leads to the loss was differentiated.
    """
    wrt = [v for v in traced.inputs if is_float(v)]
    moving, outside = _moving(traced, wrt)
    found = []
    for node in reversed(traced.traced):
        by = moving.get(node.number, 0) & ~outside.get(node.number, 0)
        stack = names(node)
        mapped = next((i for i, name in enumerate(stack) if name != MAPPED), len(stack))
        if by and stack[mapped : mapped + 1] == (LINEARISED,) and not node.effects:
            inputs = [v for k, v in enumerate(wrt) if by >> k & 1]
            found += [(v, inputs) for v in node.outputs if is_float(v) and len(v.shape) == mapped]
    return found[:MOST_LOSSES]


def _moving(traced: Graph, values: Sequence[Value]) -> tuple[dict[int, int], dict[int, int]]:
    """For each equation, dead ones too, the values that it depends on, and those on which it depends by way of an
    equation that was not differentiated. Bit k stands for the k-th value."""
    moving: dict[Any, int] = {(v.node.number, v.index): 1 << k for k, v in enumerate(values)}
    outside: dict[Any, int] = {}
    for node in traced.traced:
        on = by = 0
        for v in node.operands:
            on |= moving.get(v.node.number, 0) | moving.get((v.node.number, v.index), 0)
            by |= outside.get(v.node.number, 0)
        if on:
            moving[node.number] = on
            outside[node.number] = by if LINEARISED in names(node) else on
    return moving, outside
