"""Loops and branches in normal form, applied as they are made: `Graph(rules=algebra.RULES | loops.RULES)`.

Of a scan x, c_1, ..., c_k -> body, and likewise of a while and of its predicate:

    consts, xs       equal ones are one, unused ones are dropped, numbers known outside are known inside
    c' = c           an array that is carried and never changes is a const
    c_i = c_j        carries that start equal and stay equal are one
    y_i = f(consts)  what no turn of the loop changes is computed once, before it; stacked, it is a broadcast
    y_i = x_i        is xs itself; results that are equal are computed, stored and stacked once
    v(c), v(x_i)     are made inside where v is a broadcast, a reshape or a squeeze, and y_i = v(x_i) is made outside

The classes of carries are found by refinement (`congruence`). A conditional on a known index is its branch.

The same functions make one loop out of several (`merge`): their carries, congruent or not, side by side.

Values are the same numbers, and no operation is added to a loop that turns at all (a while that does not was taken to).
A value hoisted is alive during the whole loop, so what is hoisted is bounded: `HOISTED` bytes, or as much as the loop
reads and writes outside, whichever is more. Loops with effects inside are left alone, as are scans of length 0.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from jaxpartials.graph.graph import Graph, Node, Rule, Value
from jaxpartials.rewrite.bodies import Equation, Origin, Pass, as_it_is, is_normal
from jaxpartials.rewrite.conds import cond, cond_part
from jaxpartials.rewrite.scans import scan, scan_part, scan_settings
from jaxpartials.rewrite.whiles import while_loop, while_part

TAKEN_APART: dict[str, Any] = {"scan": scan_part, "while": while_part, "cond": cond_part}


def merge(
    graph: Graph, nodes: Sequence[Node], used: Sequence[Iterable[int]] | None = None, tidy: Pass = as_it_is
) -> list[list[Value]] | None:
    """One loop, or conditional, that does what all the nodes do, none of which may need another: their outputs.

    Scans must have one length and direction, conditionals one index. Of whiles the predicates must turn out to be
    the same value; where they do not, the answer is None. With `used`, only those outputs of each. The bodies are
    passed through `tidy`: some carries are congruent only once the loops inside are fused.
    """
    found = [Equation(n.operands, n.params, n.bodies, [v.aval for v in n.outputs]) for n in nodes]
    return _merged(graph, nodes[0].name, found, used, (nodes[0].source, nodes[0].context), tidy)


def _merged(
    graph: Graph, name: str, found: Sequence[Equation], used: Sequence[Iterable[int]] | None, origin: Origin, tidy: Pass
) -> list[list[Value]] | None:
    parts = [TAKEN_APART[name](graph, one, used and used[i]) for i, one in enumerate(found)]
    if name == "scan":
        return scan(graph, parts, scan_settings(found[0].params), origin, tidy)
    if name == "while":
        return while_loop(graph, parts, origin, tidy)
    return cond(graph, found[0].operands[0], parts, origin, tidy)


def _rule(name: str) -> Rule:
    def normalize(graph: Graph, *equation: Any) -> list[Value] | None:
        loop = Equation(*equation)
        if loop.params.get("length") == 0 or any(body.effects for body in loop.bodies) or is_normal(name, loop):
            return None
        found = _merged(graph, name, [loop], None, graph.origin, as_it_is)
        assert found is not None
        return found[0]

    return normalize


RULES: dict[str, list[Rule]] = {name: [_rule(name)] for name in TAKEN_APART}
