"""Results that another result of the same program contains: a factorization without vectors beside one with them."""

from collections.abc import Iterable

from jaxpartials import _jax
from jaxpartials.graph.cost import Cost, cost
from jaxpartials.graph.graph import Node, Value, freeze
from jaxpartials.inspection.finding import SUPERSET, Finding, Work, finding
from jaxpartials.inspection.scopes import Occurrence, Program

# Of one matrix each of these contains all that another call of it with other settings gives.
FACTORIZATIONS = frozenset({"svd", "eigh", "eig", "schur"})
# Their derivatives compute them once more, as a scan by halves.
CUMULATIVE = frozenset({"cumlogsumexp", "cumprod", "cummax", "cummin"})


def supersets(program: Program, whole: Cost) -> list[Finding]:
    """The findings of the kind SUPERSET."""
    found = []
    groups: dict[object, list[Occurrence]] = {}
    for each in program.occurrences:
        key = _subject(each)
        if key is not None:
            groups.setdefault((each.scope, each.home, *key), []).append(each)
    for members in groups.values():
        once = {(each.image, freeze(each.node.params)): each for each in members}
        if len(once) > 1:
            most, *rest = sorted(once.values(), key=lambda each: (-len(each.node.outputs), -cost(each.node).time))
            spare = [Work(each.node, each.scope.runs, each.scope.runs) for each in rest if _within(each, most)]
            if spare:
                name = most.node.name
                advice = {
                    "sort": "Sort once: take the order with jnp.argsort and index with it, or jax.lax.sort of both.",
                }.get(name, f"Take the values from the {name} that gives the vectors too.")
                found.append(
                    finding(
                        SUPERSET,
                        spare,
                        whole,
                        f"{name} of what {name} is taken of already, with fewer results.",
                        advice,
                    )
                )
    return found + list(_cumulative(program, whole))


def _subject(each: Occurrence) -> tuple | None:
    node = each.node
    operand = each.scope.images.get(node.operands[0]) if node.operands else None
    if node.name in FACTORIZATIONS:
        return node.name, operand
    if node.name == "sort" and node.params.get("num_keys") == 1:
        return node.name, operand, node.params["dimension"]
    return None


def _within(less: Occurrence, more: Occurrence) -> bool:
    """Whether the results of one are among those of the other."""
    if less.node.name == "sort":
        return len(less.node.operands) == 1 or less.node.params.get("is_stable") == more.node.params.get("is_stable")
    return True


def _order(node: Node) -> int:
    """How often an equation has been differentiated."""
    return _jax.transformations(node.source).count("jvp")


def _cumulative(program: Program, whole: Cost) -> Iterable[Finding]:
    """A cumulative operation beside its derivative, which computes its value again in another way."""
    read: dict[Value, list[Occurrence]] = {}
    for each in program.occurrences:
        for v in each.node.operands:
            image = each.scope.images.get(v)
            if image is not None:
                read.setdefault(image, []).append(each)
    for each in program.occurrences:
        node = each.node
        operand = each.scope.images.get(node.operands[0]) if node.name in CUMULATIVE else None
        if operand is None:
            continue
        others = read.get(operand, ())
        reversed_ones = [o.image[0] for o in others if o.node.name == "rev"] if node.params["reverse"] else []
        others = [other for value in (operand, *reversed_ones) for other in read.get(value, ())]
        if any(_halves(other.node, node.params["axis"]) and _order(other.node) > _order(node) for other in others):
            yield finding(
                SUPERSET, [Work(node, each.scope.runs, each.scope.runs)], whole,
                f"{node.name} beside its derivative, which computes the same values.",
                "Take value and derivative together: jax.value_and_grad, jax.jvp or jax.linearize.",
            )  # fmt: skip


def _halves(node: Node, axis: int) -> bool:
    """Whether an equation takes every other element, as a scan by halves begins."""
    return node.name == "slice" and bool(node.params["strides"]) and node.params["strides"][axis] == 2
