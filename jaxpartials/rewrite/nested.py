"""Which loops and branches a program has, a pass over the bodies of all of them, and the program put together again."""

import weakref
from collections.abc import Sequence
from dataclasses import replace

from jaxpartials.graph.cost import cost_of
from jaxpartials.graph.graph import Graph, Node, Value, reach
from jaxpartials.rewrite.bodies import Carry, Equation, Pass
from jaxpartials.rewrite.conds import cond
from jaxpartials.rewrite.congruence import attempt
from jaxpartials.rewrite.identities import COUNTING, varied
from jaxpartials.rewrite.loops import TAKEN_APART
from jaxpartials.rewrite.scans import scan, scan_settings
from jaxpartials.rewrite.whiles import while_loop

# Equations that are made inside of a loop again for a pass over its body, at most.
SUNK = 200


def is_loop(node: Node) -> bool:
    """A loop or branch that may be changed: it has no effects, and turns."""
    if node.name not in TAKEN_APART or node.opaque or node.params.get("length") == 0:
        return False
    return not node.effects and not any(body.effects for body in node.bodies)


def live(values: Sequence[Value], effects: Sequence[Node]) -> list[Node]:
    """All nodes that are needed, in order."""
    nodes = {node.number: node for node in reach([*values, *(v for node in effects for v in node.operands)])}
    nodes |= {node.number: node for node in effects}
    return [nodes[number] for number in sorted(nodes)]


def loops_of(values: Sequence[Value], effects: Sequence[Node]) -> list[Node]:
    return [node for node in live(values, effects) if is_loop(node)]


def replaced(
    graph: Graph, values: Sequence[Value], effects: Sequence[Node], by: dict[Value, Value]
) -> tuple[list[Value], Sequence[Node]]:
    """The values, and the nodes with effects, with some values replaced; the effects keep their order."""
    if not by:
        return list(values), effects
    if effects:
        # All later ones follow the first that is placed anew.
        kept = list(effects)
        graph.effects = [node for node in graph.effects if node not in kept]
        for place, node in enumerate(kept):
            done = graph.replace(node.operands, by)
            if any(done[v] is not v for v in node.operands) or kept[:place] != list(effects[:place]):
                outputs = graph.place(
                    node.primitive, [done[v] for v in node.operands], node.params, [v.aval for v in node.outputs],
                    name=node.name, bodies=node.bodies, opaque=node.opaque, effects=node.effects,
                    source=node.source, context=node.context,
                )  # fmt: skip
                by = by | dict(zip(node.outputs, outputs, strict=True))
                kept[place] = graph.effects.pop()
        graph.effects += kept
        effects = kept
    done = graph.replace(values, by)
    return [done[v] for v in values], effects


def in_bodies(
    graph: Graph, values: Sequence[Value], effects: Sequence[Node], run: Pass, done: weakref.WeakSet
) -> list[Value]:
    """Equal values, after a pass over the body of every loop and branch; `done` keeps the bodies that it has left.

    What a body reads that is made of basis vectors was moved out of it, since no turn changes it. The pass sees it in
    the body again, with the basis vectors; what remains of it moves out once more.
    """
    by: dict[Value, Value] = {}
    nodes = live(values, effects)
    sunk = _of_basis_vectors(nodes)
    for node in filter(is_loop, nodes):
        if all(body in done for body in node.bodies):
            continue
        done.update(node.bodies)
        outputs = _entered(graph, node, run, _read(node.operands, sunk))
        if outputs is not None:
            for v in outputs:
                done.update(v.node.bodies)
            by.update(zip(node.outputs, outputs, strict=True))
    return replaced(graph, values, effects, by)[0]


def _entered(graph: Graph, node: Node, run: Pass, sunk: set[Node]) -> Sequence[Value] | None:
    """The outputs of a loop after a pass over its body; None where that gains nothing."""
    changed = []

    def noted(inner: Graph, values: Sequence[Value]) -> Sequence[Value]:
        found = run(inner, values)
        changed.append(list(found) != list(values))
        return found

    avals, origin = [v.aval for v in node.outputs], (node.source, node.context)
    part = TAKEN_APART[node.name](graph, Equation(node.operands, node.params, node.bodies, avals))
    if node.name == "cond":
        found = cond(graph, node.operands[0], [part], origin, noted, sunk)
    else:
        state = attempt(graph, [part], list(range(len(part.carries))), {}, noted, sunk)
        if not any(changed):
            return None
        inits = [carry.init for carry in part.carries]
        carries = [Carry(*c) for c in zip(state.heads, inits, state.nexts, avals, strict=False)]
        xs = [(v, value) for value, v in state.inside.xs.items()]
        ys = list(zip(state.ys, (aval for _, aval in part.ys), strict=True))
        consts = list(state.inside.outside.items())
        again = replace(part, body=state.inside.graph, consts=consts, carries=carries, xs=xs, ys=ys)
        if node.name == "scan":
            found = scan(graph, [again], scan_settings(node.params), origin)
        else:
            found = while_loop(graph, [again], origin)
    if found is None or not any(changed):
        return None
    before, after = cost_of(node.outputs), cost_of(found[0])
    return found[0] if after.flops <= before.flops and after.time < before.time else None


def _of_basis_vectors(nodes: Sequence[Node]) -> set[Node]:
    """The nodes that are known arrays made by counting, and what is made of those."""
    counted: set[Node] = set()
    for node in nodes:
        if node.name in COUNTING and all(v.node in counted for v in node.operands):
            counted.add(node)
    moving = varied(nodes)
    return {node for node in nodes if (node.number in moving or node in counted) and not node.bodies}


def _read(values: Sequence[Value], among: set[Node]) -> set[Node]:
    """Those nodes that values need through none but such nodes; none if they are many."""
    found: set[Node] = set()
    stack = [v.node for v in values]
    while stack:
        node = stack.pop()
        if node in among and node not in found:
            found.add(node)
            stack.extend(v.node for v in node.operands)
    return found if len(found) <= SUNK else set()
