"""Elements that are computed and not read, and elements that are zero whatever the inputs are.

Of a Jacobian of which only a column, a block or the diagonal is used, the rest is computed for nothing, and so is all
in the linear program before it that only the rest needs. Of a Jacobian with zeros that no input changes, of a function
that is diagonal or that one of its inputs does not reach, most of what a dense basis is multiplied with is zero. In
the bodies of loops and branches as around them: a carry, or what a scan stacks, may be read in part, or in few turns.
"""

import itertools
from collections.abc import Iterable, Sequence

import numpy as np

from jaxpartials import _jax
from jaxpartials.graph.cost import STACKING, Cost, cost, total
from jaxpartials.graph.graph import CONSTANT, LITERAL, Node
from jaxpartials.inspection import symmetry
from jaxpartials.inspection.bases import BETTER, FORWARD, REVERSE, Basis, is_through_forward, needed_passes, other_mode
from jaxpartials.inspection.duplicates import described
from jaxpartials.inspection.elements import APART, SUMS, everywhere, of_a_diagonal, part
from jaxpartials.inspection.finding import THROWN_AWAY, WRONG_MODE, ZEROS, Finding, Work, finding, place
from jaxpartials.inspection.hessians import diagonals
from jaxpartials.inspection.regions import Elements, Extent
from jaxpartials.inspection.scopes import Occurrence, Program
from jaxpartials.inspection.unused import pieces

# Less than this part of a Jacobian's work is not told: the first and the last step of every one have some.
SPARE = 0.2
BITS = frozenset({"random_bits", "threefry2x32", "random_gamma", "rng_bit_generator", "rng_uniform"})
# Of other values at least this part must be unread.
UNREAD = 0.5


def thrown_away(program: Program, whole: Cost) -> list[Finding]:
    """The findings of the kinds THROWN_AWAY and ZEROS, and of the kind WRONG_MODE where they concern a Jacobian."""
    graph = program.traced
    elements = Elements(graph, program.live)
    elements.ask([everywhere(v) for v in graph.outputs])
    extents = elements.extents()
    scopes = dict(elements.scopes())
    images = {scope.traced: scope.images for scope in program.scopes}
    inside: set[Node] = set()
    findings: list[Finding] = []
    for scope, runs in scopes.items():
        told: dict[Basis, Finding] = {}
        for basis in scope.bases:
            inside |= {*basis.nodes, *basis.deep}
            found = _of_basis(basis, scope, extents, whole)
            if found is None:
                found = symmetry.told(basis, scope.bases, images.get(scope.graph, {}), extents, whole)
            if found is not None:
                told[basis] = found
        alone = diagonals(scope.graph, scope.bases, scope.asked, runs, whole)
        if alone is not None:
            better, of = alone
            less = [told[basis] for basis in of if basis in told]
            if sum(one.cost.time for one in less) < better.cost.time:
                told = {basis: one for basis, one in told.items() if basis not in of} | {of[0]: better}
        for one in told.values():
            findings = _with(findings, one, whole)
    spare = _spare(program, extents)
    for scope in scopes:
        unread = _unread(scope, inside, spare)
        for loop, read in scope.stacked.items():
            inner = scope.inside[loop][0][0]
            idle = _unread(inner, inside, spare)
            found = _stacked(loop, read, idle, scope, extents, whole)
            if found is not None:
                inside |= set(idle)
                findings.append(found)
        findings += _elsewhere(scope, {node: n for node, n in unread.items() if node not in inside}, extents, whole)
    return findings


def _with(findings: Sequence[Finding], found: Finding, whole: Cost) -> list[Finding]:
    """Findings with one more; those of one kind on the same equations, as of the two bases of a Hessian, are one."""
    alike = [one for one in findings if one.kind == found.kind and _overlap(one, found)]
    if not alike:
        return [*findings, found]
    dearest = max([*alike, found], key=lambda one: one.cost.time)
    work: dict[Node, Work] = {}
    for each in itertools.chain(*(one.work for one in (*alike, found))):
        if each.node not in work or work[each.node].spare < each.spare:
            work[each.node] = each
    joined = finding(dearest.kind, work.values(), whole, dearest.message, dearest.advice, factor=dearest.factor)
    return [*(one for one in findings if one not in alike), joined]


def _overlap(one: Finding, other: Finding) -> bool:
    """Whether most of what is to be saved of one of them is in the other."""
    shared = {each.node for each in one.work if each.spare} & {each.node for each in other.work if each.spare}
    parts = (sum(each.cost.time for each in found.work if each.node in shared) for found in (one, other))
    return any(2 * part > found.cost.time for part, found in zip(parts, (one, other), strict=True))


def _of_basis(basis: Basis, scope: Elements, extents: dict[Node, Extent], whole: Cost) -> Finding | None:
    nodes = [node for node in (*basis.nodes, *basis.deep) if node in extents and node not in scope.loops]
    everything = [Work(node, extents[node].runs, extents[node].runs) for node in nodes]
    all_work = _work(total(each.cost for each in everything))
    if not all_work:
        return None
    unread = [Work(node, e.runs, e.runs - e.asked) for node in nodes if (e := extents[node])]
    zero = [Work(node, e.runs, e.asked - e.nonzero) for node in nodes if (e := extents[node])]
    ends = [part(scope.asked[v]) for v in basis.ends if v in scope.asked]
    what = "A Jacobian" if len(basis.ends) == 1 else f"{len(basis.ends)} blocks of a Jacobian"
    wasted = _work(total(each.cost for each in unread))
    if wasted >= SPARE * all_work or (ends and max(ends) <= UNREAD and wasted > 0):
        return finding(
            THROWN_AWAY, unread, whole, f"{what} of {basis.directions} directions, of which {_named(basis, scope)}.",
            "Name the entries that are used: jaxpartials.partials, or jax.jvp along their directions alone.",
        )  # fmt: skip
    passes = needed_passes(basis, scope.nodes, scope.graph.outputs)
    if passes is not None and passes * BETTER <= basis.directions:
        return finding(
            THROWN_AWAY, [Work(node, n, n * (1.0 - passes / basis.directions)) for node, n, _ in everything], whole,
            f"{what} of {basis.directions} directions, which is only multiplied or summed: {passes} would do.",
            "Multiply by jax.jvp (J v) or jax.vjp (w J) instead of forming the Jacobian.",
            factor=basis.directions / passes,
        )  # fmt: skip
    other = other_mode(basis, scope.nodes)
    if other is not None:
        size, left = other
        now, better = ("forward", "reverse") if basis.mode == FORWARD else ("reverse", "forward")
        work = [Work(node, n, n * (1.0 - left[node])) for node, n, _ in everything]
        return finding(
            WRONG_MODE, work, whole,
            f"{what} taken in {now} mode, {basis.directions} directions; {better} mode takes {size:.0f}.",
            f"Use {'jax.grad or jax.jacrev' if better == 'reverse' else 'jax.jacfwd'}.",
            factor=all_work / max(all_work - _work(total(each.cost for each in work)), 1.0),
        )  # fmt: skip
    zeros = _work(total(each.cost for each in zero))
    if zeros >= SPARE * all_work:
        if is_through_forward(basis, scope.bases):
            return finding(
                WRONG_MODE, zero, whole,
                f"A gradient taken in forward mode, {basis.directions} directions, inside a Jacobian in reverse mode: "
                f"{_percent(zeros / all_work)} of its numbers are zero.",
                "Use jax.grad for the inner derivative; jax.hessian takes both.",
                factor=all_work / max(all_work - zeros, 1.0),
            )  # fmt: skip
        return finding(ZEROS, zero, whole, *_zeros(basis, scope, zero))
    return None


def _work(found: Cost) -> float:
    return found.flops + found.transcendentals


def _named(basis: Basis, elements: Elements) -> str:
    read = sum(part(elements.asked[v]) * np.prod(v.shape) for v in basis.ends if v in elements.asked)
    size = sum(np.prod(v.shape) for v in basis.ends)
    return f"{read:.0f} of {size:.0f} entries are used"


def _zeros(basis: Basis, scope: Elements, zero: Sequence[Work]) -> tuple[str, str]:
    """What is zero of a Jacobian, as exactly as its dearest product tells, and what to do about it."""
    what = described(each.node for each in zero if each.spare)
    for node in sorted((each.node for each in zero if each.node in basis.nodes), key=lambda node: -cost(node).time):
        mask = scope.nonzero[node.outputs[0]]
        for axis in range(mask.ndim):
            idle = int((~mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis))).sum())
            if mask.shape[axis] == basis.directions and 2 * idle >= basis.directions * (1 - part(mask)) > 0:
                verb = "is" if idle == 1 else "are"
                return (
                    f"{idle} of {basis.directions} directions {verb} zero in {what}.",
                    "The Jacobian has zero blocks: name those that are not (jaxpartials.partials), or give each "
                    "argument a Jacobian of what depends on it.",
                )
    runs = total(Work(each.node, each.runs, each.runs).cost for each in zero)
    zeros = _work(total(each.cost for each in zero)) / _work(runs)
    return (
        f"In {basis.directions} directions, {_percent(zeros)} of the numbers in {what} are zero.",
        'The Jacobian is diagonal, or its rows are short: take one jvp for all lanes (jaxpartials: "y[i]/x[i] -> i").',
    )


def _percent(share: float) -> str:
    return "over 99%" if 0.99 < share < 1 else f"{share:.0%}"


def _spare(program: Program, extents: dict[Node, Extent]) -> dict[Node, float]:
    """The equations of which most is not read, and how often they need not run.

    What is computed more often than needed is another finding's: equal equations count as one, which reads what any of
    them reads, and what no turn of a loop changes runs once.
    """
    alike: dict[object, list[Occurrence]] = {}
    for each in program.occurrences:
        alike.setdefault(each.key, []).append(each)
    found = {node: here.runs - here.asked for node, here in extents.items() if here.asked <= UNREAD * here.runs}
    for members in alike.values():
        once = min(members, key=lambda each: each.scope.runs)
        parts = [here.asked / here.runs for each in members if (here := extents.get(each.node)) and here.runs]
        asked = max(parts, default=1.0)
        for each in members:
            if each.node in found and (each is not once or asked > UNREAD):
                del found[each.node]
        if once.node in found:
            found[once.node] = min(found[once.node], once.home.runs * (1 - asked))
    return found


def _unread(scope: Elements, inside: set[Node], spare: dict[Node, float]) -> dict[Node, float]:
    """The equations outside of Jacobians of which most is not read, and how often they need not run."""
    apart = inside | _drawn(scope)
    return {node: spare[node] for node in scope.nodes if node in spare and _ordinary(node, scope, apart)}


def _drawn(scope: Elements) -> set[Node]:
    """What random numbers are made by: of fewer of them, others would come out."""
    found: set[Node] = set()
    for node in scope.nodes:
        given = [
            v.node for v in node.operands if v.node.name not in (LITERAL, CONSTANT) and v not in scope.known.arrays
        ]
        if node.name in BITS or (given and node.name in APART and all(each in found for each in given)):
            found.add(node)
    return found


def _ordinary(node: Node, scope: Elements, inside: set[Node]) -> bool:
    apart = node in inside or node.bodies or node.effects or any(v in scope.known.arrays for v in node.outputs)
    return not apart and bool(cost(node).time)


def _stacked(
    loop: Node, read: float, idle: dict[Node, float], scope: Elements, extents: dict[Node, Extent], whole: Cost
) -> Finding | None:
    """The outputs of a scan that are read in few of its turns."""
    length = loop.params["length"]
    if read > UNREAD * length or not read:
        return None
    runs = max((extents[node].runs for node in scope.inside[loop][0][0].nodes), default=0.0) / length
    outputs = [v for v in loop.outputs[loop.params["num_carry"] :] if v in scope.asked]
    work = [Work(node, extents[node].runs, n) for node, n in idle.items()]
    stacking = Cost(bytes=STACKING * len(outputs) * (length - read) * runs)
    others = f"; {described(idle)} at the others for nothing" if any(_work(each.cost) for each in work) else ""
    where = place(loop)
    return finding(
        THROWN_AWAY, work, whole,
        f"A scan stacks what {length} turns give, of which {read:.0f} {'is' if read == 1 else 'are'} read{others}.",
        "Carry what is read of the last turn, or compute it of the last carry after the loop.",
        saved=total([*(each.cost for each in work), stacking]),
        places=None if any(_work(each.cost) for each in work) or where is None else [where],
    )  # fmt: skip


def _elsewhere(
    scope: Elements, unread: dict[Node, float], extents: dict[Node, Extent], whole: Cost
) -> Iterable[Finding]:
    """What is not read, or zero, of values that belong to no Jacobian."""
    zero = {
        node: extents[node].runs
        for node in scope.nodes
        if node not in unread and _ordinary(node, scope, scope.moved) and _of_zero(node, scope)
    }
    for piece in pieces(list(unread)):
        work = [Work(node, extents[node].runs, unread[node]) for node in piece]
        if not any(_work(each.cost) for each in work if not _moves(each.node, scope)):
            continue  # elements on their way
        part_read = max(extents[node].asked / extents[node].runs for node in piece)
        yield finding(
            THROWN_AWAY, work, whole, f"{described(piece)} on arrays of which {_at_most(part_read)} is read.",
            "Take the part that is needed first" + _of_products(piece, scope),
        )  # fmt: skip
    for piece in pieces(list(zero)):
        yield finding(
            ZEROS, [Work(node, zero[node], zero[node]) for node in piece], whole,
            f"{described(piece)} on tangents, or values, that are zero whatever the inputs are.",
            "Differentiate only by what moves, and leave out what is multiplied by zero.",
        )  # fmt: skip


def _moves(node: Node, scope: Elements) -> bool:
    """Whether an equation only brings elements to their places: as a choice, or a sum of what nowhere meets."""
    if node.name in SUMS:
        x, y = (scope.nonzero[v] for v in node.operands)
        return not (x & y).any()
    return node.name in ("select_n", "convert_element_type", "reduce_precision")


def _of_products(piece: Iterable[Node], scope: Elements) -> str:
    """What to write where of products of matrices the diagonals are read."""
    products = [
        scope.asked[v] for node in piece if node.name == "dot_general" for v in node.outputs if v in scope.asked
    ]
    diagonal = any(of_a_diagonal(mask) and mask.sum() > 1 for mask in products)
    return ': jnp.einsum("ij,ji->i", a, b) is the diagonal of a @ b.' if diagonal else "."


def _at_most(part_read: float) -> str:
    if not part_read:
        return "nothing"
    return "less than 1%" if part_read < 0.005 else f"at most {part_read:.0%}"


def _of_zero(node: Node, scope: Elements) -> bool:
    derived = {FORWARD, REVERSE} & set(_jax.transformations(node.source))
    return bool(derived) and not any(scope.nonzero[v].any() for v in node.outputs)
