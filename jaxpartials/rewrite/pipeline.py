"""All rewrites together: the rules of the constructor, and the passes over a whole program."""

from collections.abc import Callable, Sequence

from jaxpartials.graph.graph import Graph, Node, Value
from jaxpartials.rewrite import algebra

RULES = algebra.RULES

Pass = Callable[[Graph, Sequence[Value], Sequence[Node]], list[Value]]

# In the order in which they run: a collapsed sum changes what loops compute, never the other way round.
PASSES: dict[str, Pass] = {}


def tidy(graph: Graph, values: Sequence[Value], effects: Sequence[Node] = ()) -> list[Value]:
    """Equal values that cost less, computed in the same graph."""
    values = list(values)
    for run in PASSES.values():
        values = run(graph, values, effects)
    return values
