"""Scans in normal form, one or several as one."""

from collections.abc import Iterable, Sequence
from typing import Any

from jax import lax

from jaxpartials.graph.graph import Graph, Value, dependents
from jaxpartials.rewrite.bodies import (
    Carry,
    Equation,
    Inside,
    Origin,
    Part,
    Pass,
    allowance,
    as_it_is,
    constants_of,
    hoist,
    hoistable,
    place,
    restacked,
    unsharded,
)
from jaxpartials.rewrite.congruence import classes, deal, settle
from jaxpartials.rewrite.local import broadcast


def scan_part(outer: Graph, loop: Equation, used: Iterable[int] | None = None) -> Part:
    """A scan taken apart; with `used`, only those outputs of it, which need no others."""
    operands, params, (body,), avals = loop
    consts, carried = params["num_consts"], params["num_carry"]
    wanted = range(len(avals)) if used is None else sorted(used)
    inputs = list(zip(body.inputs, operands, strict=True))
    return Part(
        body,
        [*inputs[:consts], *constants_of(outer, body)],
        [
            Carry(body.inputs[consts + i], operands[consts + i], body.outputs[i], avals[i])
            for i in wanted
            if i < carried
        ],
        inputs[consts + carried :],
        [(body.outputs[i], avals[i]) for i in wanted if i >= carried],
    )


def scan(
    outer: Graph, parts: Sequence[Part], settings: dict[str, Any], origin: Origin, tidy: Pass = as_it_is
) -> list[list[Value]]:
    """One scan in normal form that does what the parts do: for each part its last carries, then its ys."""
    carries = [carry for part in parts for carry in part.carries]
    stacks = [aval for part in parts for _, aval in part.ys]
    state = settle(outer, parts, tidy)
    inside = state.inside
    changing = classes(state, carries)
    moving = dependents([*state.nexts, *state.ys], inside.moving)
    taken = {v: value for value, v in inside.xs.items()}
    results: dict[Value, Value] = {}  # ys that need no loop, or not this one
    stacked: dict[Value, Any] = {}
    for y, aval in zip(state.ys, stacks, strict=True):
        if y.node.number in moving and (seen := restacked(outer, taken, y)) is not None:
            results[y] = seen
        elif y.node.number not in moving and unsharded(aval):
            once = outer.include([y], inside.outside)[y]
            results[y] = broadcast(outer, once, aval.shape, range(1, len(aval.shape)))
        else:
            stacked[y] = aval
    outputs = [*(carry.next for carry in changing.values()), *stacked]
    given = [*inside.consts, *inside.xs, *(carry.init for carry in changing.values())]
    chosen = hoistable(inside, outputs, allowance(given, [*(c.aval for c in changing.values()), *stacked.values()]))
    if chosen:
        xs = [(v, value) for value, v in inside.xs.items()]
        again = Part(inside.graph, hoist(inside, chosen), list(changing.values()), xs, list(stacked.items()))
        (found,) = scan(outer, [again], settings, origin, tidy)
    else:
        found = place_scan(inside, changing, stacked, settings, origin) if outputs else []
    last = dict(zip(changing, found, strict=False))
    results.update(zip(stacked, found[len(changing) :], strict=True))
    return deal(parts, state, last, [results[y] for y in state.ys])


def place_scan(inside: Inside, changing, stacked, settings, origin) -> Sequence[Value]:
    graph, outer = inside.graph, inside.outer
    graph.outputs = [*(carry.next for carry in changing.values()), *stacked]
    consts, xs = inside.needed(inside.consts, graph.outputs), inside.needed(inside.xs, graph.outputs)
    heads = [carry.inside for carry in changing.values()]
    graph.inputs = [*consts.values(), *heads, *xs.values()]
    operands = [*consts, *(carry.init for carry in changing.values()), *xs]
    params = {**settings, "num_consts": len(consts), "num_carry": len(heads)}
    avals = [*(carry.aval for carry in changing.values()), *stacked.values()]
    return place(outer, lax.scan_p, operands, params, [graph], avals, origin)


def scan_settings(params: dict[str, Any]) -> dict[str, Any]:
    return {name: setting for name, setting in params.items() if name not in ("num_consts", "num_carry")}
