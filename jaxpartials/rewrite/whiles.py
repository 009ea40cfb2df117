"""While loops in normal form, one or several as one."""

from collections.abc import Iterable, Sequence

from jax import lax

from jaxpartials.graph.graph import Graph, Value
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
)
from jaxpartials.rewrite.congruence import classes, deal, settle


def while_part(outer: Graph, loop: Equation, used: Iterable[int] | None = None) -> Part:
    """A while taken apart; with `used`, only those carries of it, which need no others, nor does the predicate."""
    operands, params, (test, body), avals = loop
    in_test, in_body = params["cond_nconsts"], params["body_nconsts"]
    wanted = range(len(avals)) if used is None else sorted(used)
    fixed, steps, inits = operands[:in_test], operands[in_test : in_test + in_body], operands[in_test + in_body :]
    return Part(
        body,
        [*zip(body.inputs[:in_body], steps, strict=True), *constants_of(outer, body)],
        [Carry(body.inputs[in_body + i], inits[i], body.outputs[i], avals[i]) for i in wanted],
        test=test,
        test_consts=[*zip(test.inputs[:in_test], fixed, strict=True), *constants_of(outer, test)],
        test_carries=[test.inputs[in_test + i] for i in wanted],
    )


def while_loop(outer: Graph, parts: Sequence[Part], origin: Origin, tidy: Pass = as_it_is) -> list[list[Value]] | None:
    """One while in normal form that does what the parts do; None where their predicates are not the same value."""
    carries = [carry for part in parts for carry in part.carries]
    state = settle(outer, parts, tidy)
    inside, testing = state.inside, Inside(outer)
    changing = classes(state, carries)
    label = iter(state.labels)
    tests = []
    for part in parts:
        assert part.test is not None
        known = {v: testing.const(value) for v, value in part.test_consts}
        for v in part.test_carries:
            which = next(label)
            known[v] = testing.const(state.held[which]) if which in state.held else testing.carry(which, v.aval)
        (go,) = part.test.outputs
        tests.append(testing.graph.include([go], known)[go])
    if any(go is not tests[0] for go in tests):
        return None
    outputs = [carry.next for carry in changing.values()]
    given = [*inside.consts, *testing.consts, *(carry.init for carry in changing.values())]
    budget = allowance(given, [carry.aval for carry in changing.values()])
    chosen = hoistable(inside, outputs, budget)
    chosen_tests = hoistable(testing, tests[:1], budget) if changing else []
    heads = [testing.carry(which, carry.inside.aval) for which, carry in changing.items()]
    if chosen or chosen_tests:
        testing.graph.outputs = tests[:1]
        again = Part(
            inside.graph, hoist(inside, chosen), list(changing.values()),
            test=testing.graph, test_consts=hoist(testing, chosen_tests), test_carries=heads,
        )  # fmt: skip
        found = while_loop(outer, [again], origin, tidy)
        assert found is not None
        (last,) = found
    else:
        last = place_while(inside, testing, changing, heads, tests[0], origin) if changing else []
    return deal(parts, state, dict(zip(changing, last, strict=True)), [])


def place_while(inside: Inside, testing: Inside, changing, heads, go, origin) -> Sequence[Value]:
    testing.graph.outputs, inside.graph.outputs = [go], [carry.next for carry in changing.values()]
    fixed = testing.needed(testing.consts, [go])
    consts = inside.needed(inside.consts, inside.graph.outputs)
    testing.graph.inputs = [*fixed.values(), *heads]
    inside.graph.inputs = [*consts.values(), *(carry.inside for carry in changing.values())]
    operands = [*fixed, *consts, *(carry.init for carry in changing.values())]
    params = {"cond_nconsts": len(fixed), "body_nconsts": len(consts)}
    avals = [carry.aval for carry in changing.values()]
    return place(inside.outer, lax.while_p, operands, params, [testing.graph, inside.graph], avals, origin)
