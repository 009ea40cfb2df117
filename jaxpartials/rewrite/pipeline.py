"""All rewrites together: the rules of the constructor, and the passes over a whole program."""

import weakref
from collections.abc import Callable, Sequence

from jaxpartials.graph.graph import Graph, Node, Rule, Value
from jaxpartials.rewrite import algebra, loops
from jaxpartials.rewrite.collapse import collapse
from jaxpartials.rewrite.fusion import fuse
from jaxpartials.rewrite.nested import in_bodies

RULES: dict[str, list[Rule]] = {**algebra.RULES, **loops.RULES}

Pass = Callable[[Graph, Sequence[Value], Sequence[Node]], list[Value]]

# Bodies in which no sum is left to be moved.
_collapsed: weakref.WeakSet[Graph] = weakref.WeakSet()


def collapse_everywhere(graph: Graph, values: Sequence[Value], effects: Sequence[Node] = ()) -> list[Value]:
    """Sums moved in the program, then those inside the bodies of its loops and branches, and so on inwards."""
    values = collapse(graph, values, effects)
    return in_bodies(graph, values, effects, collapse_everywhere, _collapsed)


# In the order in which they run: loops that are one share what their sums come from.
PASSES: dict[str, Pass] = {"loops merged": fuse, "sums collapsed": collapse_everywhere}


def tidy(graph: Graph, values: Sequence[Value], effects: Sequence[Node] = ()) -> list[Value]:
    """Equal values that cost less, computed in the same graph."""
    values = list(values)
    for run in PASSES.values():
        values = run(graph, values, effects)
    return values


def settle(graph: Graph, values: Sequence[Value]) -> list[Value]:
    """The same for one candidate among many: what can be done without knowing the rest of the program."""
    return collapse_everywhere(graph, values)
