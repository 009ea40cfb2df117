"""Work that no result needs."""

from collections.abc import Iterable, Sequence

from jaxpartials import _jax
from jaxpartials.graph.cost import Cost, cost
from jaxpartials.graph.graph import LITERAL, Graph, Node
from jaxpartials.inspection.duplicates import TRIVIAL, described
from jaxpartials.inspection.finding import UNUSED, Finding, Work, calls, finding, library
from jaxpartials.inspection.scopes import Program, known_at_trace_time, turns
from jaxpartials.rewrite.nested import is_loop
from jaxpartials.structure.linearity import AFFINE, FIXED, LINEAR, Degree, degrees

# Every derivative leaves the last steps of the value behind; told only where they are this part of the program.
DIFFERENTIATED = 0.1


def unused(program: Program, whole: Cost) -> list[Finding]:
    """The findings of the kind UNUSED: one for each connected piece of dead code, and for the dead part of a loop."""
    return list(_in(program, program.traced, 1.0, whole, None))


def dead(program: Program) -> list[Work]:
    """All equations that no result needs, told or not."""
    found: list[Work] = []

    def visit(graph: Graph, runs: float) -> None:
        live = set(program.live.nodes[graph])
        found.extend(Work(node, runs, runs) for node in graph.traced if node not in live)
        for node in program.live.nodes[graph]:
            if is_loop(node):
                for body in node.bodies:
                    if body in program.live.nodes:
                        visit(body, runs * turns(node))

    visit(program.traced, 1.0)
    return found


def _in(program: Program, graph: Graph, runs: float, whole: Cost, loop: Node | None) -> Iterable[Finding]:
    live = set(program.live.nodes[graph])
    fixed = known_at_trace_time(graph)
    idle = [node for node in graph.traced if node not in live and node not in fixed]
    # What a derivative leaves of the value of a loop is no carry of the user's.
    given = set() if loop is None or all(_stacks(idle)) else _behind(graph, idle)
    if loop is not None and given:
        found = _dead_part(loop, [node for node in idle if node in given], runs, whole)
        if found is not None:
            yield found
    for piece in pieces([node for node in idle if node not in given]):
        found = _dead_code(piece, live, runs, whole)
        if found is not None:
            yield found
    for node in program.live.nodes[graph]:
        if is_loop(node):
            for body in node.bodies:
                if body in program.live.nodes:
                    yield from _in(program, body, runs * turns(node), whole, node)


def _dead_code(piece: Sequence[Node], live: Iterable[Node], runs: float, whole: Cost) -> Finding | None:
    work = [Work(node, runs, runs) for node in piece]
    costly = [node for node in piece if cost(node).time]
    what = described(piece)
    stacks = _stacks(piece)
    if all(stacks):
        if all(node.name in TRIVIAL for node in costly):
            return None  # the last steps of a value that was differentiated
        if all(_outermost(stack) == "transpose" for stack in stacks):
            found = finding(
                UNUSED, work, whole, f"{what} for a gradient that no result needs.",
                "Differentiate by what is used alone (argnums).",
            )  # fmt: skip
        elif any(_jax.transformations(node.source) in stacks and cost(node).time for node in live):
            return None  # a part of the value is needed: what is left over is made by JAX, not by the user
        elif (degree := _degree(piece, live)) is None:
            return None  # every derivative leaves the last steps of its value behind, and nobody can write it otherwise
        else:
            advice = "What is linear in what it is differentiated by needs no value: jax.linear_transpose takes none."
            more = "" if degree is LINEAR else " Of what is affine, transpose the linear part."
            found = finding(
                UNUSED, work, whole, f"{what} for the value of a function of which only the derivative is used.",
                advice + more,
            )  # fmt: skip
        return found if found.share >= DIFFERENTIATED else None
    dearest = max(costly, key=lambda node: cost(node).time, default=None)
    name = library(dearest.line[0]) if dearest is not None and dearest.line else None
    if dearest is not None and name and any(cost(node).time and calls(node) == calls(dearest) for node in live):
        return finding(
            UNUSED, work, whole, f"{what} of a call of {name} of which other results are used.",
            f"Ask {name} for less, where it can be asked.",
        )  # fmt: skip
    return finding(UNUSED, work, whole, f"{what}: no result needs it.", "Delete it, or return it.")


def _stacks(nodes: Iterable[Node]) -> set[tuple[str, ...]]:
    """The transformations that equations which cost something come from."""
    return {_jax.transformations(node.source) for node in nodes if cost(node).time}


def _degree(piece: Sequence[Node], live: Iterable[Node]) -> Degree | None:
    """LINEAR or AFFINE where what is left of a value is that in an input that its derivative does not read."""
    inside = set(piece)
    derived = (node for node in live if _outermost(_jax.transformations(node.source)))
    read = {v for node in derived for v in node.operands}
    given = dict.fromkeys(v for node in piece for v in node.operands if v.node not in inside)
    ends = [v for node in piece for v in node.outputs]
    for value in given:
        if value not in read and value.node.name != LITERAL:
            found = degrees(ends, [value])
            states = {found[v.node.number, v.index] for v in ends} - set(FIXED)
            if states and states <= {LINEAR, AFFINE}:
                return AFFINE if AFFINE in states else LINEAR
    return None


def _outermost(stack: Sequence[str]) -> str:
    """The last derivative that was taken."""
    return next((name for name in stack if name != "vmap"), "")


def _behind(graph: Graph, idle: Sequence[Node]) -> set[Node]:
    """Those of the dead equations that a carry or an output comes from."""
    dead, found = set(idle), {v.node for v in graph.outputs}
    for node in reversed(idle):
        if node in found:
            found |= {v.node for v in node.operands}
    return found & dead


def _dead_part(loop: Node, dead: Sequence[Node], runs: float, whole: Cost) -> Finding | None:
    if all(v.dtype.kind in "iub" and not v.shape for node in dead for v in node.outputs):
        return None  # a counter, as `fori_loop` has one
    work = [Work(node, runs, runs) for node in dead]
    what = described(dead)
    if loop.name == "cond":
        return finding(
            UNUSED,
            work,
            whole,
            f"{what} in a branch, for a result that nobody reads.",
            "Do not return what is not read.",
        )
    return finding(
        UNUSED, work, whole, f"{what} at every turn of a loop, for a carry or an output that nobody reads.",
        "Do not carry or stack what is not read.",
    )  # fmt: skip


def pieces(dead: Sequence[Node]) -> Iterable[list[Node]]:
    """Dead equations that read one another's results."""
    parent = {node: node for node in dead}

    def root(node: Node) -> Node:
        while parent[node] is not node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for node in dead:
        for v in node.operands:
            if v.node in parent:
                parent[root(node)] = root(v.node)
    groups: dict[Node, list[Node]] = {}
    for node in dead:
        groups.setdefault(root(node), []).append(node)
    return groups.values()
