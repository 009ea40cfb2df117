"""Where a program has formulas that lose accuracy, and which operations of `stable` compute the same.

Every row is an identity of real numbers, so that the value and every derivative stay what they are in exact arithmetic.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from jaxpartials.graph.graph import LEAVES, Graph, Node, Value, reach
from jaxpartials.graph.trace import CONTROL
from jaxpartials.inspection.finding import Place, place
from jaxpartials.stability.identities import differences, elementwise, library, norms, quotients, softmaxes, variances
from jaxpartials.stability.identities.algebra import Algebra
from jaxpartials.stability.identities.rows import Rewrite, Row
from jaxpartials.stability.identities.values import is_numeric, root_of
from jaxpartials.stability.reference import CALLS

# The particular before the general: of two rows that apply to a value the first is taken.
ROWS = (
    *library.ROWS,
    *softmaxes.ROWS,
    *variances.ROWS,
    *norms.ROWS,
    *elementwise.ROWS,
    *quotients.ROWS,
    *differences.ROWS,
    *quotients.LAST,
)


@dataclass(frozen=True)
class Match:
    """A place in a program where a row applies.

    Attributes:
        row: the identity; `row.operation` is what replaces the formula, as users write it: "stable.hypot".
        value: the value that is replaced.
        rewrite: what it is equal to.
        nodes: the equations that the formula is made of, in order.
    """

    row: Row
    value: Value
    rewrite: Rewrite
    nodes: tuple[Node, ...]

    @property
    def operation(self) -> str:
        return self.row.operation

    @property
    def operands(self) -> tuple[Value, ...]:
        """The values that the formula is one of."""
        return self.rewrite.operands

    @property
    def places(self) -> tuple[Place, ...]:
        """The lines of the user's code that the equations come from, in order."""
        return tuple(dict.fromkeys(where for where in map(place, self.nodes) if where is not None))


def matches(graph: Graph) -> list[Match]:
    """Where the rows apply in a graph, in the order of the program; bodies of loops and branches not counted.

    Of two places that overlap the one nearer to the results is taken, and of two rows the more particular. What a row
    needs and the program does not have, such as the rest of a sum, is made in the graph, where nothing uses it.
    """
    algebra = Algebra(graph, _by_root(ROWS))
    found: list[Match] = []
    seen: set[Value] = set()
    stack = list(graph.outputs)
    while stack:
        value = stack.pop()
        if value in seen:
            continue
        seen.add(value)
        match = _first(algebra, value)
        if match is None:
            stack += value.node.operands
        else:
            found.append(match)
            stack += match.operands
    return sorted(found, key=lambda match: match.value.node.number)


def matches_inside(graph: Graph) -> list[Match]:
    """The same, and where they apply in the bodies of loops, branches and calls, whoever owns their derivative."""
    inner = [body for node in graph.nodes if node.name in CONTROL | CALLS for body in node.bodies]
    return [*matches(graph), *(match for body in inner for match in matches_inside(body))]


def _first(algebra: Algebra, value: Value) -> Match | None:
    """The first row that applies to a value."""
    node = value.node
    for row in algebra.rows.get(root_of(value), ()):
        if node.effects or not is_numeric(value):
            return None
        algebra.graph.origin = node.source, node.context
        rewrite = row.look(algebra, value)
        if rewrite is not None:
            inside = reach([value], rewrite.operands)
            nodes = tuple(n for n in inside if n.name not in LEAVES)
            return Match(rewrite.row or row, value, rewrite, nodes)
    return None


def _by_root(rows: Iterable[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        for root in row.roots:
            found.setdefault(root, []).append(row)
    return found
