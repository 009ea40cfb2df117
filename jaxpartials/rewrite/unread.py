"""What nobody reads of a loop is dropped: carries, outputs and operands that no result depends on."""

from collections.abc import Iterable, Sequence

from jaxpartials.graph.graph import Graph, Node, Value, reach
from jaxpartials.rewrite.loops import merge
from jaxpartials.rewrite.nested import is_loop, live, replaced


def drop_unread(graph: Graph, values: Sequence[Value], effects: Sequence[Node]) -> tuple[list[Value], Sequence[Node]]:
    """Drop the carries, outputs and operands of loops that no result depends on."""
    read = {*values, *(v for node in effects for v in node.operands)}
    by: dict[Value, Value] = {}
    for node in reversed(live(values, effects)):
        if not is_loop(node):
            if any(v in read for v in node.outputs) or node.effects:
                read.update(node.operands)
            continue
        used = sorted(needed(node, [v.index for v in node.outputs if v in read]))
        if not used:
            continue
        if len(used) < len(node.outputs):
            found = merge(graph, [node], [used])
            assert found is not None
            by.update(zip((node.outputs[i] for i in used), found[0], strict=True))
        read.update(_operands(node, used))
    return replaced(graph, values, effects, by)


def needed(node: Node, outputs: Iterable[int]) -> set[int]:
    """The outputs of a loop that must be computed for these: a carry is needed if a needed output reads it."""
    found = set(outputs)
    if node.name == "cond" or not found:
        return found
    first, carried = _carries(node)
    place = {v: i for i, v in enumerate(node.bodies[-1].inputs[first : first + carried])}
    if node.name == "while":
        test = node.bodies[0]
        inputs = test.inputs[node.params["cond_nconsts"] :]
        reached = {n.number for n in reach(test.outputs)}
        found |= {i for i, v in enumerate(inputs) if v.node.number in reached}
    body = node.bodies[-1]
    stack = [body.outputs[i] for i in found]
    seen: set[Node] = set()
    while stack:
        value = stack.pop()
        if value.node in seen:
            continue
        seen.add(value.node)
        stack.extend(value.node.operands)
        i = place.get(value)
        if i is not None and i not in found:
            found.add(i)
            stack.append(body.outputs[i])
    return found


def _carries(node: Node) -> tuple[int, int]:
    """Where the carries stand among the inputs of the body, and how many they are."""
    if node.name == "scan":
        return node.params["num_consts"], node.params["num_carry"]
    return node.params["body_nconsts"], len(node.outputs)


def _operands(node: Node, used: Sequence[int]) -> list[Value]:
    """The operands that those outputs need."""
    if len(used) == len(node.outputs):
        return list(node.operands)
    body_operands = node.operands[1:] if node.name == "cond" else node.operands
    found = list(node.operands[:1]) if node.name == "cond" else []
    if node.name == "while":
        in_test = node.params["cond_nconsts"]
        found += [*node.operands[:in_test], *(node.operands[-len(node.outputs) + i] for i in used)]
        body_operands = node.operands[in_test:]
    for body in node.bodies[-1:] if node.name == "while" else node.bodies:
        reached = {n.number for n in reach([body.outputs[i] for i in used])}
        found += [v for v, inside in zip(body_operands, body.inputs, strict=True) if inside.node.number in reached]
    if node.name == "scan":
        first, carried = _carries(node)
        found += [node.operands[first + i] for i in used if i < carried]
    return found
