"""Derivatives found in a program that takes them, and taken again in the better mode.

A training step is traced when its derivatives are taken already: the loss in reverse over whatever derivatives stand in
it, each mostly in reverse over the one below. Nothing local leads from there to what one would write by hand. So the
derivatives are recognised: where a program has a number L, an input p, and a value that is what JAX makes of

    d L / d p,       or, for values u_b and inputs x_b of lane b,      d u_b / d x_b,   d^2 u_b / d x_b^2,   ...

that value is known to be this derivative. It is then free to be computed in another way: the u_b and their derivatives
as `partials` plans them, and the gradient from a loss that has been made cheaper before.

What counts as recognised is proved, not guessed: the derivative is taken of the program once more, and must come out
equal by the laws of linear algebra alone (`structure.normal_form`), equation for equation. Where it does not, the
program stays as it is. The transformations that JAX notes at every equation only say where to look.
"""

from collections.abc import Sequence

from jaxpartials.graph.graph import Graph
from jaxpartials.rederive.fields import fields
from jaxpartials.rederive.gradients import gradients
from jaxpartials.rederive.program import REVERSED, Program, names
from jaxpartials.rewrite.pipeline import RULES


def rederived(traced: Graph) -> tuple[Graph, bool]:
    """A program with the derivatives that it takes taken again, each in the better mode; and whether there were any.

    Args:
        traced: the program as it was traced, equal equations apart. So are the bodies of its loops and branches, in
            which derivatives are looked for as well.
    """
    graph, found = _read(traced)
    deepest = max((names(node).count(REVERSED) for node in traced.traced), default=0)
    if not deepest:
        return graph, found
    program = Program(traced, graph)
    by = fields(program, deepest) if deepest > 1 else {}
    by |= gradients(program, by)
    moved = graph.replace(graph.outputs, by)
    graph.outputs = [moved[v] for v in graph.outputs]
    return graph, found or bool(by)


def _read(traced: Graph) -> tuple[Graph, bool]:
    """The graph of a traced program, with derivatives taken again in its bodies."""
    graph = Graph(RULES)
    known = {value: graph.input(value.aval) for value in traced.inputs}
    found = False
    for node in traced.nodes:
        bodies: Sequence[Graph] = node.bodies
        if bodies and not node.opaque:
            bodies, taken = zip(*map(rederived, bodies), strict=True)
            found = found or any(taken)
        known |= graph.include([v for v in node.operands if v not in known], known)  # literals and constants
        outputs = graph.add(
            node.primitive, [known[v] for v in node.operands], node.params, [v.aval for v in node.outputs],
            name=node.name, bodies=bodies, opaque=node.opaque, effects=node.effects, source=node.source,
            context=node.context,
        )  # fmt: skip
        known |= dict(zip(node.outputs, outputs, strict=True))
    known |= graph.include([v for v in traced.outputs if v not in known], known)
    graph.outputs = [known[v] for v in traced.outputs]
    return graph, found
