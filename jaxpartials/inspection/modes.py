"""Derivatives of functions of a lane taken in a mode that another beats: nested `grad` under `vmap`."""

from collections.abc import Sequence

from jaxpartials import _jax
from jaxpartials.graph.cost import Cost, cost, cost_of
from jaxpartials.graph.graph import Graph, Node, reach
from jaxpartials.inspection.finding import WRONG_MODE, Finding, Work, calls, finding
from jaxpartials.inspection.scopes import Program
from jaxpartials.rederive.fields import fields
from jaxpartials.rederive.gradients import gradients
from jaxpartials.rederive.program import MAPPED, REVERSED
from jaxpartials.rederive.program import Program as Rederivable
from jaxpartials.rewrite.pipeline import RULES

# What taking them again must save of the whole.
WORTH = 0.9


def wrong_modes(program: Program, whole: Cost) -> list[Finding]:
    """The findings of the kind WRONG_MODE on derivatives of functions of a lane."""
    traced = program.traced
    deepest = max((_jax.transformations(node.source).count(REVERSED) for node in traced.traced), default=0)
    if deepest < 2:
        return []
    graph = Graph({**RULES})
    known = {value: graph.input(value.aval) for value in traced.inputs}
    known |= graph.include(traced.outputs, known)
    graph.outputs = [known[v] for v in traced.outputs]
    taken = Rederivable(traced, graph)
    by = fields(taken, deepest)
    if not by:
        return []
    count = "A derivative" if len(by) == 1 else f"{len(by)} derivatives"
    # In a training step the gradient of the loss goes back through each of them.
    slopes = gradients(taken, by)
    by |= slopes
    made = graph.replace(graph.outputs, by)
    before, after = cost_of(graph.outputs), cost_of([made[v] for v in graph.outputs])
    if after.time > WORTH * before.time:
        return []
    kept = {node.number for node in reach([made[v] for v in graph.outputs])}
    gone = [node for node in reach(graph.outputs) if node.number not in kept and node.operands]
    # What a gradient no longer goes through is left over in `by`: then of the whole program.
    then, now = (before, after) if slopes else (cost_of(list(by)), cost_of(list(by.values())))
    factor = then.time / max(now.time, 1e-30)
    saved = Cost(
        max(before.flops - after.flops, 0.0), max(before.bytes - after.bytes, 0.0),
        max(before.transcendentals - after.transcendentals, 0.0),
        max(before.contractions - after.contractions, 0.0), max(before.turns - after.turns, 0.0),
    )  # fmt: skip
    lanes = any(MAPPED in _jax.transformations(node.source) for node in gone)
    through = ", and a gradient through them" if slopes else ""
    return [
        finding(
            WRONG_MODE,
            [Work(node, 1.0, 1.0) for node in gone],
            whole,
            f"{count} of a function{' of each lane' if lanes else ''}, reverse over reverse{through}; "
            f"forward{' and together' if slopes else ''} is {factor:.{2 if factor < 10 else 3}g} times cheaper."
            + _taken_at(gone),
            "Take derivatives by few inputs with jax.jvp, or all together with jaxpartials.partials"
            + (", or the whole step with jaxpartials.simplify." if slopes else "."),
            saved=saved,
            factor=factor,
        )
    ]


def _taken_at(nodes: Sequence[Node]) -> str:
    """Where the derivatives are taken: at the lines at which the calls of what is differentiated part."""
    costly = [node for node in nodes if node.line is not None and MAPPED in _jax.transformations(node.source)]
    if not costly:
        return ""
    dearest = max(costly, key=lambda node: cost(node).time)
    alike = [node for node in costly if (node.name, node.line) == (dearest.name, dearest.line)]
    stacks = {node: calls(node)[::-1] for node in alike}
    for k, places in enumerate(zip(*stacks.values(), strict=False)):
        if len(set(places)) > 1:
            taken = {stacks[node][k] for node in alike if REVERSED in _of_a_lane(node)}
            return f" Taken at {', '.join(map(str, sorted(taken)))}." if taken else ""
    return ""


def _of_a_lane(node: Node) -> Sequence[str]:
    """The transformations below the innermost vmap."""
    stack = _jax.transformations(node.source)
    return stack[len(stack) - stack[::-1].index(MAPPED) :]
