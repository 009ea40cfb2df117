"""How often the body of a while loop runs, where its test compares a counter with a number, as XLA counts it too."""

from jaxpartials.graph.graph import LITERAL, Node, Value

# Taken for loops whose turns depend on data.
ASSUMED_TRIPS = 30

# The comparison with its sides exchanged.
MIRRORED = {"lt": "gt", "gt": "lt", "le": "ge", "ge": "le", "ne": "ne"}


def trips(node: Node) -> float:
    """How often the body of a while loop runs, or is taken to."""
    known = counted_trips(node)
    return ASSUMED_TRIPS if known is None else known


def counted_trips(node: Node) -> int | None:
    """How often the body of a while loop runs that compares a counter with a number; None for any other."""
    (test, body), known = node.bodies, node.params["cond_nconsts"]
    told = test.outputs[0].node
    if told.name not in MIRRORED or len(told.operands) != 2:
        return None
    name, (counter, limit) = told.name, told.operands
    if counter not in test.inputs:
        name, counter, limit = MIRRORED[name], limit, counter
    place = test.inputs.index(counter) - known if counter in test.inputs else -1
    if place < 0:
        return None
    start = node.operands[known + node.params["body_nconsts"] + place]
    step = _step(body.inputs[node.params["body_nconsts"] + place], body.outputs[place])
    first, last = _integer(start), _integer(limit)
    if step is None or first is None or last is None:
        return None
    return _count_to(name, first, last, step)


def _step(before: Value, after: Value) -> int | None:
    """What a turn adds to a counter."""
    if after.node.name not in ("add", "sub"):
        return None
    x, y = after.node.operands
    if after.node.name == "sub":
        by = _integer(y) if x == before else None
        return None if by is None else -by
    return _integer(y) if x == before else _integer(x) if y == before else None


def _integer(value: Value) -> int | None:
    if value.node.name != LITERAL or value.shape or value.dtype.kind not in "iu":
        return None
    return int(value.node.params["value"])


def _count_to(name: str, first: int, last: int, step: int) -> int | None:
    """The turns until a counter that starts at `first` fails the comparison with `last`; None if it never does."""
    if name == "ne":
        turns, rest = divmod(last - first, step) if step else (-1, 0)
        return None if rest or turns < 0 else turns
    upwards = name in ("lt", "le")
    end = last + {"le": 1, "ge": -1}.get(name, 0)
    counted = range(first, end, step) if step and (step > 0) == upwards else None
    outside = first >= end if upwards else first <= end
    return 0 if outside else None if counted is None else len(counted)
