"""Elements that are computed and not read, and elements that are zero whatever the inputs are.

Of a Jacobian of which only a column, a block or the diagonal is used, the rest is computed for nothing, and so is all
in the linear program before it that only the rest needs. Of a Jacobian with zeros that no input changes, of a function
that is diagonal or that one of its inputs does not reach, most of what a dense basis is multiplied with is zero.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from jaxpartials import _jax
from jaxpartials.graph.cost import Cost, cost, total
from jaxpartials.graph.graph import Node
from jaxpartials.inspection.bases import Basis, Elements, bases, needed_passes
from jaxpartials.inspection.duplicates import described
from jaxpartials.inspection.elements import Mask, everywhere, part
from jaxpartials.inspection.finding import THROWN_AWAY, WRONG_MODE, ZEROS, Finding, Work, finding
from jaxpartials.inspection.scopes import Program
from jaxpartials.inspection.unused import pieces

# Less than this part of a Jacobian's work is not told: the first and the last step of every one have some.
SPARE = 0.2
# Another mode must be so many times cheaper, by the number of directions.
BETTER = 2.0
# Of other values at least this part must be unread.
UNREAD = 0.5


def thrown_away(program: Program, whole: Cost) -> list[Finding]:
    """The findings of the kinds THROWN_AWAY and ZEROS, and of the kind WRONG_MODE where they concern a Jacobian."""
    graph = program.traced
    live = program.live.nodes[graph]
    elements = Elements(graph, live)
    found = bases(program.live, graph, elements)
    inside = {node for basis in found for node in basis.nodes}
    reading = inside | _after(live, inside)
    elements.ask([everywhere(v) for v in graph.outputs], reading)
    findings = [one for basis in found if (one := _of_basis(basis, elements, live, whole)) is not None]
    return findings + list(_elsewhere(live, inside, elements, whole))


def _after(live: Sequence[Node], nodes: set[Node]) -> set[Node]:
    moving = set(nodes)
    for node in live:
        if any(v.node in moving for v in node.operands):
            moving.add(node)
    return moving


def _of_basis(basis: Basis, elements: Elements, live: Sequence[Node], whole: Cost) -> Finding | None:
    all_work = _work(basis.cost)
    if not all_work:
        return None
    unread, zero = [], []
    for node in basis.nodes:
        asked, nonzero = _parts(node, elements)
        unread.append(Work(node, 1.0, 1.0 - asked))
        zero.append(Work(node, 1.0, asked - nonzero))
    ends = [part(elements.asked[v]) for v in basis.ends if v in elements.asked]
    what = "a Jacobian" if len(basis.ends) == 1 else f"{len(basis.ends)} blocks of a Jacobian"
    wasted = _work(total(each.cost for each in unread))
    if wasted >= SPARE * all_work or (ends and max(ends) <= UNREAD and wasted > 0):
        return finding(
            THROWN_AWAY, unread, whole, f"{what} of {basis.directions} directions, of which {_named(basis, elements)}.",
            "Name the entries that are used: jaxpartials.partials, or jax.jvp along their directions alone.",
        )  # fmt: skip
    passes = needed_passes(basis, live, elements.graph.outputs)
    if passes is not None and passes * BETTER <= basis.directions:
        work = [Work(node, 1.0, 1.0 - passes / basis.directions) for node in basis.nodes]
        return finding(
            THROWN_AWAY, work, whole,
            f"{what} of {basis.directions} directions, which is only multiplied: {passes} would do.",
            "Multiply by jax.jvp (J v) or jax.vjp (w J) instead of forming the Jacobian.",
            factor=basis.directions / passes,
        )  # fmt: skip
    size = sum(int(np.prod(v.shape)) for v in basis.ends) / basis.directions
    if not basis.mapped and size and basis.directions >= BETTER * size:
        work = [Work(node, 1.0, 1.0 - size / basis.directions) for node in basis.nodes]
        now, better = ("forward", "reverse") if basis.mode == "jvp" else ("reverse", "forward")
        factor = basis.directions / size
        return finding(
            WRONG_MODE, work, whole,
            f"{what} taken in {now} mode, {basis.directions} directions; {better} mode takes {size:.0f}.",
            f"Use {'jax.grad or jax.jacrev' if better == 'reverse' else 'jax.jacfwd'}.", factor=factor,
        )  # fmt: skip
    if _work(total(each.cost for each in zero)) >= SPARE * all_work:
        return finding(
            ZEROS, zero, whole, f"a basis of {basis.directions} directions through products that are mostly zero.",
            "The Jacobian is diagonal or has zero blocks: take only the blocks, or one jvp for all lanes "
            '(jaxpartials: "y[i]/x[i] -> i").',
        )  # fmt: skip
    return None


def _work(found: Cost) -> float:
    return found.flops + found.transcendentals


def _named(basis: Basis, elements: Elements) -> str:
    read = sum(part(elements.asked[v]) * np.prod(v.shape) for v in basis.ends if v in elements.asked)
    size = sum(np.prod(v.shape) for v in basis.ends)
    return f"{read:.0f} of {size:.0f} entries are used"


def _parts(node: Node, elements: Elements) -> tuple[float, float]:
    """The parts of an equation's work that are read, and that are read and not zero."""
    if node.bodies:
        return 1.0, 1.0
    values = node.operands[:1] if node.name.startswith("reduce_") and node.operands else node.outputs
    asked, nonzero = 0.0, 0.0
    for v in values:
        mask: Mask = elements.asked.get(v, everywhere(v, False))
        if v.node.name.startswith("reduce_") and v not in node.outputs:
            mask = elements.asked.get(v, everywhere(v))
        asked = max(asked, part(mask))
        nonzero = max(nonzero, part(mask & elements.nonzero[v]))
    return asked, nonzero


def _elsewhere(live: Sequence[Node], inside: set[Node], elements: Elements, whole: Cost) -> Iterable[Finding]:
    """The same of values that belong to no Jacobian."""
    unread, zero = {}, {}
    for node in live:
        if node in inside or node.bodies or node.effects or any(v in elements.known.arrays for v in node.outputs):
            continue
        if not cost(node).time:
            continue
        asked = max(part(elements.asked.get(v, everywhere(v, False))) for v in node.outputs)
        if asked <= UNREAD:
            unread[node] = 1.0 - asked
        elif {"jvp", "transpose"} & set(_jax.transformations(node.source)) and not any(
            elements.nonzero[v].any() for v in node.outputs
        ):
            zero[node] = 1.0
    for piece in pieces(list(unread)):
        if not any(cost(node).flops or cost(node).transcendentals for node in piece):
            continue  # elements on their way
        yield finding(
            THROWN_AWAY, [Work(node, 1.0, unread[node]) for node in piece], whole,
            f"{described(piece)} on arrays of which less than {1 - min(unread[n] for n in piece):.0%} is read.",
            "Take the part that is needed first.",
        )  # fmt: skip
    for piece in pieces(list(zero)):
        yield finding(
            ZEROS, [Work(node, 1.0, 1.0) for node in piece], whole,
            f"{described(piece)} on tangents, or values, that are zero whatever the inputs are.",
            "Differentiate only by what moves, and leave out what is multiplied by zero.",
        )  # fmt: skip
