"""The stable operation to write instead of an equation that loses the accuracy."""

from collections.abc import Callable, Sequence
from typing import Any

from jaxpartials.call import emitted
from jaxpartials.graph.graph import Graph, Node
from jaxpartials.inspection.finding import place
from jaxpartials.stability.emission import Emission
from jaxpartials.stability.patterns import Match

Program = Callable[..., list[Any]]


def advice(found: Sequence[Match], culprit: Node, helps: Callable[[Sequence[Match]], bool]) -> str:
    """What computes the same as the formulas on the culprit's line and helps, "" where nothing is known.

    `found` are the matches in the function itself: what differentiation makes of a line has the line of its origin.
    """
    where = place(culprit)
    needed = [match for match in found if where in match.places]
    if not needed or not helps(needed):
        return ""
    for match in list(needed) if len(needed) > 1 else ():
        others = [each for each in needed if each is not match]
        if others and helps(others):
            needed = others
    names = (f"jaxpartials.{op}" if op.startswith("stable.") else op for op in (match.operation for match in needed))
    return " and ".join(dict.fromkeys(names))


def with_replaced(graph: Graph, chosen: Sequence[Match]) -> Program | None:
    """The program with some formulas replaced; None where one is inside of a loop, a branch or a call."""
    emission = Emission()
    by = {match.value: emission.made(graph, match) for match in chosen}
    if not by.keys() <= {value for node in graph.nodes for value in node.outputs}:
        return None
    done = graph.replace(graph.outputs, by)
    program = graph.with_outputs([done[value] for value in graph.outputs])
    captured = [array for _, array in program.constants.values()]
    compute = emitted(program)
    return lambda *leaves: compute(captured, leaves)
