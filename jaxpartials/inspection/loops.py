"""Loops and branches over the same things that could be one."""

from jaxpartials.graph.cost import Cost, cost_of
from jaxpartials.graph.graph import Node, reach
from jaxpartials.inspection.duplicates import called_from
from jaxpartials.inspection.finding import LOOPS, Finding, Place, Work, finding, place
from jaxpartials.inspection.scopes import Program, Scope
from jaxpartials.rewrite.fusion import fuse
from jaxpartials.rewrite.nested import is_loop, loops_of

NAMES = {
    "scan": "scans over the same turns",
    "while": "while loops over the same turns",
    "cond": "conditionals on the same predicate",
}
CARRY = "Carry both through one loop; a value and its derivative come together from jax.jvp or value_and_grad."
ADVICE = {"cond": "Return both from one lax.cond or lax.switch."}


def fusible(program: Program, whole: Cost) -> list[Finding]:
    """The findings of the kind LOOPS."""
    found = []
    for scope in program.scopes:
        if scope.loop is None or scope.loop.name in ("scan", "while"):
            found += _in(program, scope, whole)
    return found


def _in(program: Program, scope: Scope, whole: Cost) -> list[Finding]:
    values = program.outputs(scope)
    graph = scope.graph
    loops = loops_of(values, graph.effects)
    if len(loops) < 2:
        return []
    read = {v for node in reach([*values, *(v for n in graph.effects for v in n.operands)]) for v in node.operands}
    read |= set(values)
    outputs = [v for node in loops for v in node.outputs if v in read]
    effects = list(graph.effects)
    made = fuse(graph, [*values, *outputs], effects)
    graph.effects = effects
    become = dict(zip(outputs, made[len(values) :], strict=True))
    groups: dict[Node, list[Node]] = {}
    for node in loops:
        for v in node.outputs:
            if v in become and is_loop(become[v].node):
                members = groups.setdefault(become[v].node, [])
                if node not in members:
                    members.append(node)
    found = []
    for one, members in groups.items():
        if len(members) < 2:
            continue
        before = cost_of([v for node in members for v in node.outputs])
        after = cost_of([become[v] for node in members for v in node.outputs if v in become])
        saved = scope.runs * minus(before, after)
        if not saved.flops + saved.transcendentals + saved.bytes:
            continue  # they share nothing but their turns
        work = _traced(program, scope, members)
        called = ", ".join(map(str, called_from(work)))
        found.append(
            finding(
                LOOPS,
                work,
                whole,
                f"{len(members)} {NAMES[one.name]} share work and could be one."
                + (f" Called at {called}." if called else ""),
                ADVICE.get(one.name, CARRY),
                saved=saved,
                places=_places(members),
            )
        )
    return found


def minus(a: Cost, b: Cost) -> Cost:
    return Cost(
        max(a.flops - b.flops, 0.0), max(a.bytes - b.bytes, 0.0), max(a.transcendentals - b.transcendentals, 0.0),
        max(a.contractions - b.contractions, 0.0), max(a.turns - b.turns, 0.0), a.unknown_trips or b.unknown_trips,
    )  # fmt: skip


def _places(members: list[Node]) -> tuple[Place, ...]:
    return tuple(dict.fromkeys(where for node in members if (where := place(node)) is not None))


def _traced(program: Program, scope: Scope, members: list[Node]) -> list[Work]:
    """The loops as traced that have become these."""
    images: dict[Node, Work] = {}
    for each in program.occurrences:
        if each.home is scope and is_loop(each.node):
            for v in each.image:
                if v.node in members:
                    images.setdefault(each.node, Work(each.node, each.scope.runs, each.scope.runs))
    return list(images.values())
