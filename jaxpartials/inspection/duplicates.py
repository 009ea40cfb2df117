"""Equal work done more than once: side by side, in a loop and around it, in branches, at every turn of a loop.

Equations that become one value are computed as often as they were traced. Of each value one computation is needed: the
outermost and first; the others are spare. Spare equations that are connected make one finding, so that a function that
is called twice is reported once, with all its lines.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

from jaxpartials import _jax
from jaxpartials.graph.cost import Cost, cost
from jaxpartials.graph.graph import LEAVES, Node
from jaxpartials.inspection.finding import (
    EQUAL_CARRIES,
    INVARIANT,
    TWICE,
    Finding,
    Place,
    Work,
    calls,
    finding,
    frames,
    library,
    places_of,
)
from jaxpartials.inspection.scopes import Occurrence, Program, Scope, known_at_trace_time

# One operation for each element: what the rules of differentiation repeat of themselves, and every compiler merges.
TRIVIAL = frozenset({
    "add", "add_any", "and", "broadcast_in_dim", "concatenate", "convert_element_type", "copy", "div", "dynamic_slice",
    "eq", "gather", "ge", "gt", "integer_pow", "iota", "le", "lt", "max", "min", "mul", "ne", "neg", "not", "or",
    "pad", "reduce_max", "reduce_sum", "reshape", "rev", "select_n", "slice", "split", "square", "squeeze",
    "stop_gradient", "sub", "transpose", "is_finite", "clamp", "sign", "abs", "one_minus_square", "rem", "floor",
})  # fmt: skip
NOT_ELEMENTWISE = frozenset({"dot_general", "conv_general_dilated", "sort", "fft"})
ADVICE = {
    TWICE: "Compute it once and pass the result on.",
    INVARIANT: "Compute it before the loop.",
    EQUAL_CARRIES: "Carry one of them.",
}


def duplicates(program: Program, whole: Cost) -> list[Finding]:
    """The findings of the kinds TWICE, INVARIANT and EQUAL_CARRIES."""
    alike: dict[tuple, list[Work]] = {}
    for kind, times, work in _components(_spare(program)):
        if kind != TWICE or not _by_itself(work):
            called = called_from(work) if kind == TWICE else ()
            # What one call repeats of every layer is one finding.
            key = kind, times, called, places_of(work) if called else len(alike)
            alike.setdefault(key, []).extend(work)
    return [_told(kind, times, called, work, whole) for (kind, times, called, _), work in alike.items()]


def _told(kind: str, times: int, called: Sequence[Place], work: Sequence[Work], whole: Cost) -> Finding:
    message, advice = _message(kind, times, work), ADVICE[kind]
    libraries = sorted({name for where in called if (name := library(where.file))})
    if libraries:
        message += f" It is {' and '.join(libraries)} that does so, at {', '.join(map(str, called))}."
        advice = "Where XLA leaves it, jaxpartials.simplify takes it out."
    elif called:
        message += f" Called at {', '.join(map(str, called))}."
    return finding(kind, work, whole, message, advice)


def spare(program: Program) -> list[Work]:
    """All equations that are computed more often than needed, told or not."""
    return [each for one in _spare(program) for each in one.work if each.spare]


class _Class:
    """The computations of one value."""

    def __init__(self, members: list[Occurrence], kind: str, work: list[Work]):
        self.members, self.kind, self.work = members, kind, work


def _spare(program: Program) -> list[_Class]:
    fixed = {node for scope in program.scopes for node in known_at_trace_time(scope.traced)}
    together: dict[object, list[Occurrence]] = {}
    for each in program.occurrences:
        if each.node not in fixed and not all(v.node.name in LEAVES for v in each.image):
            together.setdefault(each.key, []).append(each)
    classes = []
    for members in together.values():
        work = _work(members)
        if any(each.spare for each in work):
            classes.append(_Class(members, _kind(members), work))
    return classes


def _work(members: Sequence[Occurrence]) -> list[Work]:
    """Of each computation, how often it runs and how often it need not."""
    order = sorted(range(len(members)), key=lambda i: (len(members[i].scope.branches), members[i].scope.runs, i))
    kept: list[Occurrence] = []
    spare = [0.0] * len(members)
    for i in order:
        here = members[i]
        runs = here.scope.runs
        if any(_whenever(first.scope, here.scope) for first in kept):
            spare[i] = runs
        else:
            kept.append(here)
            # A branch in a loop runs at most at every turn: nothing is known to be spare there.
            inside = here.scope.branches[len(here.home.branches) :]
            spare[i] = 0.0 if inside else max(runs - here.home.runs, 0.0)
    return [Work(each.node, each.scope.runs, n) for each, n in zip(members, spare, strict=True)]


def _whenever(first: Scope, second: Scope) -> bool:
    return second.branches[: len(first.branches)] == first.branches


def _kind(members: Sequence[Occurrence]) -> str:
    if len(members) == 1:
        return INVARIANT
    alone = {(each.scope.loop, tuple(each.scope.apart.get(v) for v in each.node.outputs)) for each in members}
    same_body = {each.scope for each in members}
    if len(same_body) == 1 and len(alone) > 1 and members[0].home is members[0].scope:
        return EQUAL_CARRIES
    return TWICE


def _components(classes: Sequence[_Class]) -> Iterable[tuple[str, int, list[Work]]]:
    """The classes that are connected, of one kind and computed equally often."""
    owner = {each.node: k for k, one in enumerate(classes) for each in one.members}
    parent = list(range(len(classes)))

    def root(k: int) -> int:
        while parent[k] != k:
            parent[k] = parent[parent[k]]
            k = parent[k]
        return k

    def like(k: int) -> object:
        return classes[k].kind, len(classes[k].members), frozenset(each.scope for each in classes[k].members)

    for k, one in enumerate(classes):
        for each in one.members:
            for v in each.node.operands:
                other = owner.get(v.node)
                if other is not None and like(other) == like(k):
                    parent[root(k)] = root(other)
    groups: dict[int, list[int]] = {}
    for k in range(len(classes)):
        groups.setdefault(root(k), []).append(k)
    # The same work done for different reasons, as of a value and of its derivative, is told together.
    for members in groups.values():
        work = [each for k in members for each in classes[k].work]
        yield classes[members[0]].kind, len(classes[members[0]].members), work


def _by_itself(work: Sequence[Work]) -> bool:
    """Whether the rules of differentiation have repeated it, not the user: nobody wrote it twice."""
    nodes = [each.node for each in work if cost(each.node).time]
    names = [_jax.transformations(node.source) for node in nodes]
    if all(node.name in TRIVIAL for node in nodes):
        return any(stack for stack in names)
    if any(node.bodies or node.name in NOT_ELEMENTWISE for node in nodes):
        return False
    # One equation differentiated twice: sin, cos, -sin.
    lines: dict[object, set] = {}
    for node, stack in zip(nodes, names, strict=True):
        lines.setdefault((node.line, node.name), set()).add(stack)
    return all(len(stacks) == 1 and next(iter(stacks)).count("jvp") > 1 for stacks in lines.values())


def _message(kind: str, times: int, work: Sequence[Work]) -> str:
    most = [each for each in work if each.spare]
    what = described(each.node for each in most)
    if kind == INVARIANT:
        return f"{what} at every turn of a loop, on values that no turn changes."
    if kind == EQUAL_CARRIES:
        return f"{what} on carries of a loop that are equal at every turn."
    return f"{what} {'twice' if times == 2 else f'{times} times'} on the same values."


def called_from(work: Sequence[Work]) -> tuple[Place, ...]:
    """The lines at which the calls part that lead to the same line; those of a library, where the user's are one."""
    nodes = [each.node for each in work if each.node.line is not None]
    if not nodes:
        return ()
    dearest = max(nodes, key=lambda node: cost(node).time)
    alike = [node for node in nodes if node.name == dearest.name and node.line == dearest.line]
    for lines in (calls, frames):
        for places in zip(*(lines(node)[::-1] for node in alike), strict=False):
            if len(set(places)) > 1:
                return tuple(sorted(set(places)))
    written = {Place(*node.line) for node in nodes if node.line and node.name == dearest.name}
    return tuple(sorted(written)) if all(library(where.file) for where in written) and len(written) > 1 else ()


def described(nodes: Iterable[Node]) -> str:
    """The dearest operations by name."""
    times: Counter[str] = Counter()
    for node in nodes:
        times[node.name] += cost(node).time  # pyright: ignore[reportArgumentType]
    names = [name for name, time in times.most_common(3) if time]
    return ", ".join(names) or "nothing that costs"
