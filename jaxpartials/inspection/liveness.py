"""Which equations of a traced program its results need, in the bodies of its loops and branches too.

A carry is needed only if the results, or a needed carry, need it: what `Graph.nodes` says of a loop as a whole, said of
each of its parts.
"""

from collections.abc import Iterable, Sequence

from jaxpartials.graph.graph import Graph, Node, Value
from jaxpartials.rewrite.nested import is_loop
from jaxpartials.rewrite.unread import needed


def is_call(node: Node) -> bool:
    """A function with a derivative rule of its own, which runs as it stands where it is not differentiated."""
    called = node.name in ("custom_jvp_call", "custom_vjp_call") and len(node.bodies) == 1 and not node.effects
    return called and len(node.bodies[0].inputs) == len(node.operands)


class Liveness:
    """For each graph its needed equations, for each loop among them its needed outputs."""

    def __init__(self, graph: Graph):
        self.nodes: dict[Graph, list[Node]] = {}
        self.outputs: dict[Node, list[int]] = {}
        self._visit(graph, range(len(graph.outputs)))

    def _visit(self, graph: Graph, wanted: Iterable[int]) -> set[Value]:
        """Note what these outputs of a graph need; which of its inputs they read."""
        read: set[Value] = {graph.outputs[i] for i in wanted}
        live = []
        for node in reversed(graph.traced):
            if not node.effects and not any(v in read for v in node.outputs):
                continue
            live.append(node)
            read |= set(self._operands(node, [v.index for v in node.outputs if v in read]))
        self.nodes[graph] = live[::-1]
        return {v for v in graph.inputs if v in read}

    def _operands(self, node: Node, used: Sequence[int]) -> Iterable[Value]:
        if is_call(node):
            self._visit(node.bodies[0], range(len(node.outputs)))
            self.outputs[node] = list(range(len(node.outputs)))
        if not is_loop(node):
            return node.operands
        outputs = sorted(needed(node, used))
        self.outputs[node] = outputs
        if node.name == "while":
            test, body = node.bodies
            in_test, in_body = node.params["cond_nconsts"], node.params["body_nconsts"]
            of_test = self._visit(test, [0])
            of_body = self._visit(body, outputs)
            inits = node.operands[in_test + in_body :]
            return [
                *(v for v, inside in zip(node.operands, test.inputs[:in_test], strict=False) if inside in of_test),
                *(v for v, i in zip(node.operands[in_test:], body.inputs[:in_body], strict=False) if i in of_body),
                *(inits[i] for i in outputs),
            ]
        first = node.operands[:1] if node.name == "cond" else ()
        rest = node.operands[len(first) :]
        found = list(first)
        for body in node.bodies:
            read = self._visit(body, outputs)
            found += [v for v, inside in zip(rest, body.inputs, strict=True) if inside in read]
        if node.name == "scan":
            carries = node.operands[node.params["num_consts"] :]
            found += [carries[i] for i in outputs if i < node.params["num_carry"]]
        return found
