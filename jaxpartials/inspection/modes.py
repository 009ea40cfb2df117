"""Derivatives of functions of a lane taken in a mode that another beats: nested `grad` under `vmap`."""

from jaxpartials import _jax
from jaxpartials.graph.cost import Cost, cost_of
from jaxpartials.graph.graph import Graph, reach
from jaxpartials.inspection.finding import WRONG_MODE, Finding, Work, finding
from jaxpartials.inspection.scopes import Program
from jaxpartials.rederive.fields import fields
from jaxpartials.rederive.program import REVERSED
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
    by = fields(Rederivable(traced, graph), deepest)
    if not by:
        return []
    made = graph.replace(graph.outputs, by)
    before, after = cost_of(graph.outputs), cost_of([made[v] for v in graph.outputs])
    if after.time > WORTH * before.time:
        return []
    kept = {node.number for node in reach([made[v] for v in graph.outputs])}
    gone = [node for node in reach(graph.outputs) if node.number not in kept and node.operands]
    factor = cost_of(list(by)).time / max(cost_of(list(by.values())).time, 1e-30)
    saved = Cost(
        max(before.flops - after.flops, 0.0), max(before.bytes - after.bytes, 0.0),
        max(before.transcendentals - after.transcendentals, 0.0),
        max(before.contractions - after.contractions, 0.0), max(before.turns - after.turns, 0.0),
    )  # fmt: skip
    count = "A derivative" if len(by) == 1 else f"{len(by)} derivatives"
    return [
        finding(
            WRONG_MODE,
            [Work(node, 1.0, 1.0) for node in gone],
            whole,
            f"{count} of a function of each lane, reverse over reverse; forward is {factor:.2g} times cheaper.",
            "Take derivatives by few inputs with jax.jvp, or all together with jaxpartials.partials.",
            saved=saved,
            factor=factor,
        )
    ]
