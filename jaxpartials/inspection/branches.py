"""Of the branches of a conditional one is taken: work in several of them saves what it saves in the dearest."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from jaxpartials.graph.cost import Cost, total
from jaxpartials.graph.graph import Graph, Node
from jaxpartials.inspection.finding import Finding, Work

# The conditionals around an equation, outermost first, and in which of their branches it is.
Path = tuple[tuple[Node, int], ...]


def paths(graph: Graph, around: Path = ()) -> dict[Node, Path]:
    """The equations that are in branches."""
    found = dict.fromkeys(graph.traced, around) if around else {}
    for node in graph.traced:
        for i, body in enumerate(node.bodies):
            found |= paths(body, (*around, (node, i)) if node.name == "cond" else around)
    return found


def one_branch(found: Finding, path_of: Mapping[Node, Path], whole: Cost) -> Finding:
    """The finding, with the work in one branch of each conditional."""
    places = [path_of.get(each.node, ()) for each in found.work]
    if not any(places) or found.cost != total(each.cost for each in found.work):
        return found
    taken = set(_taken(found.work, places, range(len(places)), 0))
    work = tuple(each if i in taken else each._replace(spare=0.0) for i, each in enumerate(found.work))
    saved = total(each.cost for each in work)
    share = min(saved.time / whole.time, 1.0) if whole.time else 0.0
    return replace(found, work=work, cost=saved, share=share)


def _taken(work: Sequence[Work], places: Sequence[Path], among: Iterable[int], depth: int) -> list[int]:
    """Which of this work is done, if the branches are taken in which it is dearest."""
    done: list[int] = []
    inside: dict[Node, dict[int, list[int]]] = {}
    for i in among:
        if len(places[i]) == depth:
            done.append(i)
        else:
            conditional, branch = places[i][depth]
            inside.setdefault(conditional, {}).setdefault(branch, []).append(i)
    for branches in inside.values():
        found = [_taken(work, places, some, depth + 1) for some in branches.values()]
        done += max(found, key=lambda some: total(work[i].cost for i in some).time)
    return done
