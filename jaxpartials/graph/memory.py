"""How many bytes a program holds at once: a bound by which rewrites that lengthen lifetimes are judged."""

import functools
import math
from collections.abc import Iterable, Sequence
from typing import Any

from jaxpartials.graph.graph import LEAVES, Graph, Node, Value, reach

# Views, and what is fused into its readers: nothing is stored.
VIEWS = frozenset({"broadcast_in_dim", "reshape", "squeeze", "iota", "copy", "stop_gradient"})


@functools.lru_cache(maxsize=4096)
def size(aval: Any) -> int:
    """The bytes of an array; none for types without a size in bytes, such as tokens."""
    return math.prod(getattr(aval, "shape", ())) * getattr(getattr(aval, "dtype", None), "itemsize", 0)


def peak_bytes(values: Iterable[Value], effects: Sequence[Node] = ()) -> int:
    """The most bytes alive at once while `values` are computed in the order of the graph.

    A value lives from its equation to its last reader, inputs and constants live throughout. While a loop runs, what
    one turn of it holds at most is alive as well. Fusion stores less than this, and a scheduler may choose another
    order: good to compare two programs for the same values.
    """
    values = list(values)
    nodes = {node.number: node for node in reach([*values, *(v for node in effects for v in node.operands)])}
    nodes |= {node.number: node for node in effects}
    order = [nodes[number] for number in sorted(nodes)]
    last: dict[Value, int] = {}
    for node in order:
        for v in node.operands:
            last[v] = node.number
    for v in values:
        last[v] = order[-1].number + 1
    ending: dict[int, list[Value]] = {}
    for v, number in last.items():
        if v.node.name not in LEAVES:
            ending.setdefault(number, []).append(v)
    alive = sum(size(v.aval) for node in order if node.name in LEAVES for v in node.outputs)
    peak = alive
    for node in order:
        if node.name not in LEAVES:
            alive += sum(map(_stored, node.outputs))
            peak = max(peak, alive + (0 if node.opaque else _within(node.bodies)))
            alive -= sum(_stored(v) for v in node.outputs if v not in last)
        alive -= sum(map(_stored, ending.get(node.number, ())))
    return peak


def _stored(value: Value) -> int:
    return 0 if value.node.name in VIEWS else size(value.aval)


def _within(bodies: Sequence[Graph]) -> int:
    """What bodies hold beyond their inputs, which are alive outside."""
    return max((peak_bytes(b.outputs, b.effects) - sum(size(v.aval) for v in b.inputs) for b in bodies), default=0)
