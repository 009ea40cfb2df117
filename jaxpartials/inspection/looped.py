"""Jacobians taken row by row: one pullback after the other of one function, where fewer pushforwards would do.

    [pull(e_i) for i in range(m)],   [grad(lambda x: f(x)[i])(x) for i in range(m)],   f: R^n -> R^m

The backward passes are alike: the same operations on the same values, from cotangents that no input changes.
"""

from collections.abc import Sequence

from jaxpartials import _jax
from jaxpartials.graph.cost import Cost
from jaxpartials.graph.graph import LEAVES, LITERAL, Node, Value, freeze
from jaxpartials.inspection.bases import BETTER, REVERSE, Basis, other_mode
from jaxpartials.inspection.finding import WRONG_MODE, Finding, Work, finding
from jaxpartials.inspection.scopes import Program, known_at_trace_time
from jaxpartials.inspection.unused import pieces


def looped(program: Program, whole: Cost) -> list[Finding]:
    """The findings of the kind WRONG_MODE on pullbacks one by one."""
    nodes = program.live.nodes[program.traced]
    fixed = known_at_trace_time(program.traced)
    backward: dict[tuple[str, ...], list[Node]] = {}
    for node in nodes:
        stack = _jax.transformations(node.source)
        # Of reverse over reverse `modes` tells.
        if stack.count(REVERSE) == 1 and node not in fixed and not node.effects:
            before = stack[: stack.index(REVERSE)]
            backward.setdefault(before, []).append(node)
    found = []
    for before, members in backward.items():
        alike: dict[object, list[list[Node]]] = {}
        different = {_results(program, piece): piece for piece in pieces(members)}
        for piece in different.values():
            alike.setdefault(_signature(program, piece, fixed), []).append(piece)
        for passes in alike.values():
            one = _of_passes(program, before, passes, whole)
            found += [] if one is None else [one]
    return found


def _results(program: Program, piece: Sequence[Node]) -> object:
    return tuple(program.top.images.get(v, v) for node in piece for v in node.outputs)


def _signature(program: Program, piece: Sequence[Node], fixed: set[Node]) -> object:
    """The operations of a backward pass, and the values that it reads; not the numbers that it starts from."""
    inside = set(piece)
    images = program.top.images

    def read(v: Value, first: bool) -> object:
        if v.node in inside:
            return None
        if v.node.name == LITERAL:
            return None if first else str(v.node.params["value"])
        return None if first and v.node in fixed else images.get(v, v)

    def operation(node: Node) -> object:
        first = not any(v.node in inside for v in node.operands)
        operands = tuple(read(v, first) for v in node.operands)
        return node.name, node.outputs[0].shape, operands, None if first else freeze(node.params)

    return tuple(map(operation, piece))


def _of_passes(program: Program, before: tuple[str, ...], passes: Sequence[list[Node]], whole: Cost) -> Finding | None:
    if len(passes) < BETTER or not any(v.node.name not in LEAVES for node in passes[0] for v in node.operands):
        return None
    inside = {node for piece in passes for node in piece}
    nodes = program.live.nodes[program.traced]
    ends = [v for node in nodes if node not in inside for v in node.operands if v.node in inside]
    ends = list(dict.fromkeys([*ends, *(v for v in program.traced.outputs if v.node in inside)]))
    basis = Basis(len(passes), REVERSE, before, [node for piece in passes for node in piece], ends, {})
    better = other_mode(basis, nodes)
    if better is None:
        return None
    size, left = better
    work = [Work(node, 1.0, 1.0 - left[node]) for node in basis.nodes]
    return finding(
        WRONG_MODE, work, whole,
        f"A Jacobian taken row by row, {len(passes)} pullbacks of one function; forward mode takes {size:.0f}.",
        "Use jax.jacfwd.", factor=len(passes) / size,
    )  # fmt: skip
