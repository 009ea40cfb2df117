"""Which equations of different loops compute the same, found without putting the loops together."""

from collections.abc import Sequence
from typing import Any

from jaxpartials.graph.cost import body_cost, cost, total
from jaxpartials.graph.graph import COMMUTATIVE, CONSTANT, LEAVES, LITERAL, Node, Value, reach, what
from jaxpartials.graph.trips import trips
from jaxpartials.rewrite.bodies import is_known
from jaxpartials.rewrite.nested import is_loop


class Numbering:
    """Numbers for what loops compute at their first turn, equal for what is equal, whatever loop it is in.

    Loops that share work at every turn share it at the first, where carries are their initial values: an upper bound,
    found in one pass over each body.
    """

    def __init__(self):
        self._numbers: dict[Any, int] = {}

    def first_turn(self, node: Node) -> dict[int, float]:
        """The numbers of all equations of the bodies of a loop, with the time that each takes in one turn."""
        found: dict[int, float] = {}
        self._bodies(node, [self._outside(v) for v in node.operands], 1.0, found)
        return found

    def _number(self, *key: Any) -> int:
        return self._numbers.setdefault(key, len(self._numbers))

    def _outside(self, value: Value) -> int:
        if is_known(value) or value.node.name == CONSTANT:
            operands = [self._outside(v) for v in value.node.operands]
            return self._equation(value.node, operands)[value.index]
        return self._number("outside", value)

    def _equation(self, node: Node, operands: Sequence[int]) -> list[int]:
        if node.name == LITERAL:
            array = node.params["value"]
            return [self._number(LITERAL, str(node.outputs[0].dtype), array.tobytes())]
        if node.name == CONSTANT:
            return [self._number(CONSTANT, id(node.params["value"]))]
        where = tuple(sorted(operands)) if node.name in COMMUTATIVE else tuple(operands)
        same = what(node.name, node.params, node.bodies, node.opaque, node.context)
        equation = self._number(node.name, where, same)
        return [self._number(equation, i) for i in range(len(node.outputs))]

    def _bodies(self, node: Node, operands: list[int], times: float, found: dict[int, float]) -> None:
        if node.name == "scan":
            first = node.params["num_consts"] + node.params["num_carry"]
            inputs = [operands[:first] + [self._number("turn", x) for x in operands[first:]]]
        elif node.name == "while":
            in_test, in_body = node.params["cond_nconsts"], node.params["body_nconsts"]
            carried = operands[in_test + in_body :]
            inputs = [operands[:in_test] + carried, operands[in_test : in_test + in_body] + carried]
        else:
            inputs = [operands[1:]] * len(node.bodies)
        for branch, (body, numbers) in enumerate(zip(node.bodies, inputs, strict=True)):
            known = dict(zip(body.inputs, numbers, strict=True))
            for inner in reach(body.outputs, body.inputs):
                read = [known[v] for v in inner.operands]
                made = self._equation(inner, read)
                known.update(zip(inner.outputs, made, strict=True))
                if inner.name in LEAVES or not made:
                    continue
                time, key = cost(inner).time, made[0]
                if is_loop(inner):
                    # Besides its body, a loop costs something to turn at all, which loops share that are fused.
                    turns = trips(inner) if inner.name == "while" else inner.params.get("length", 1)
                    self._bodies(inner, read, times * turns, found)
                    time -= turns * work(inner)
                    key = self._number(inner.name, turns)
                if time > 0:
                    found[self._number(branch, key) if node.name == "cond" else key] = times * time


def work(node: Node) -> float:
    """What one turn costs, or all the branches."""
    return total(map(body_cost, node.bodies)).time
