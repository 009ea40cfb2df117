"""All findings on a traced program."""

from jaxpartials.graph.cost import Cost, cost, total
from jaxpartials.graph.graph import Graph
from jaxpartials.inspection.branches import one_branch, paths
from jaxpartials.inspection.duplicates import duplicates
from jaxpartials.inspection.finding import Finding
from jaxpartials.inspection.looped import looped
from jaxpartials.inspection.loops import fusible
from jaxpartials.inspection.modes import wrong_modes
from jaxpartials.inspection.scopes import Program
from jaxpartials.inspection.supersets import supersets
from jaxpartials.inspection.thrown_away import thrown_away
from jaxpartials.inspection.unused import unused

FINDERS = (duplicates, unused, supersets, fusible, thrown_away, wrong_modes, looped)
# What is less than this part of the program is not told.
LEAST = 0.01


def traced_cost(traced: Graph) -> Cost:
    """What a program costs as it was traced, dead equations too."""
    return total(map(cost, traced.traced))


def findings_in(program: Program) -> list[Finding]:
    """What a program does and need not do; the dearest first."""
    whole = traced_cost(program.traced)
    path_of = paths(program.traced)
    found = [one_branch(one, path_of, whole) for find in FINDERS for one in find(program, whole)]
    return sorted((one for one in found if one.share >= LEAST), key=lambda one: -one.cost.time)
