"""What `jax.checkpoint` computes again in a backward pass: which of it is computed, and needed, before as well.

The program that is differentiated holds an equation with a body that computes the intermediate results again and goes
backward through them. A barrier is to keep the compiler from seeing that both computations are one; without it they are
merged, and the results stay in memory as if nothing had been said.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from jaxpartials.graph.graph import CONSTANT, LITERAL, Graph, Node, Value
from jaxpartials.inspection.finding import Work
from jaxpartials.inspection.scopes import Program, Scope

CHECKPOINTS = frozenset({"remat2", "checkpoint"})


@dataclass(frozen=True)
class Repetition:
    """The equations in the body of a differentiated checkpoint that are computed outside, too.

    Attributes:
        checkpoint: the equation that holds them.
        work: these equations.
        held: of these equations' results, the bytes that the backward pass reads: in memory if not computed again.
    """

    checkpoint: Node
    work: tuple[Work, ...]
    held: float

    @property
    def allowed(self) -> bool:
        """Whether the user has allowed the compiler to merge them."""
        prevent = self.checkpoint.params.get("prevent_cse", True)
        return not (prevent if isinstance(prevent, bool) else all(prevent))


def repetitions(program: Program) -> list[Repetition]:
    """What each checkpoint of a program repeats."""
    before: dict[Graph, set[Value]] = {}
    for scope in program.scopes:
        for node in program.live.nodes[scope.traced]:
            before.setdefault(scope.graph, set()).update(scope.images[v] for v in node.outputs if v in scope.images)
    found = (
        _repeated(scope, node, before[scope.graph])
        for scope in program.scopes
        for node in program.live.nodes[scope.traced]
        if node.name in CHECKPOINTS and node.params.get("differentiated") and not node.effects
    )
    return [one for one in found if one is not None]


def _repeated(scope: Scope, node: Node, before: set[Value]) -> Repetition | None:
    (body,) = node.bodies
    if body.effects or len(node.operands) != len(body.inputs):
        return None
    leaves = [v for v in node.operands if v.node.name in (LITERAL, CONSTANT)]
    outside = scope.images | scope.graph.include(leaves, {})
    known = {inner: outside[v] for inner, v in zip(body.inputs, node.operands, strict=True) if v in outside}
    nodes = body.nodes
    images = scope.graph.include(list(_from(nodes, known)), known)
    again = [inner for inner in nodes if inner.outputs and all(images.get(v) in before for v in inner.outputs)]
    if not again:
        return None
    repeated = set(again)
    read = {v for inner in nodes if inner not in repeated for v in inner.operands} | set(body.outputs)
    held = [v for inner in again for v in inner.outputs if v in read]
    work = tuple(Work(inner, scope.runs, scope.runs) for inner in again)
    return Repetition(node, work, float(sum(v.aval.size * v.dtype.itemsize for v in held)))


def _from(nodes: Iterable[Node], known: dict[Value, Value]) -> Iterable[Value]:
    """What a body computes from known inputs alone."""
    good: set[Node] = set()
    for node in nodes:
        if all(v in known or v.node in good or v.node.name in (LITERAL, CONSTANT) for v in node.operands):
            good.add(node)
            yield from node.outputs
