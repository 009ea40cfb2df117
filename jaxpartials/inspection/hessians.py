"""Hessians of which the diagonal alone is needed, and what it costs to take that.

Nearly every product of a Hessian is needed for its diagonal, too. But to push n directions forward twice, which gives
one entry of the diagonal for each, takes about half the work of n products of the Hessian with a vector. That a value
is the Hessian of a function is proved: the function is differentiated again, in the same way, and what comes out has an
equal in the program. Its diagonal costs what `partials` takes for it.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxpartials.errors import DerivativeError
from jaxpartials.graph.cost import Cost, cost, cost_of, total
from jaxpartials.graph.graph import Graph, Node, Value, reach
from jaxpartials.graph.trace import extend
from jaxpartials.inspection.bases import FORWARD, Basis
from jaxpartials.inspection.elements import Mask, of_a_diagonal
from jaxpartials.inspection.finding import THROWN_AWAY, Finding, Work, finding
from jaxpartials.inspection.loops import minus
from jaxpartials.notation import parse_wanted, resolve
from jaxpartials.planner import plan
from jaxpartials.rederive.gradients import gradients
from jaxpartials.rederive.program import LINEARISED, MAPPED, at, is_float, names
from jaxpartials.rederive.program import Program as Rederivable
from jaxpartials.rewrite.pipeline import RULES

# What taking the diagonal alone must save of the whole.
WORTH = 0.9
MOST_VALUES = 6  # so many values and inputs are tried
LANES = "abcdefgh"
SLOPES = (jax.grad, jax.jacrev)  # both are taken forward for a Hessian, and are other equations


def diagonals(
    traced: Graph, bases: Sequence[Basis], asked: Mapping[Value, Mask], runs: float, whole: Cost
) -> tuple[Finding, list[Basis]] | None:
    """The finding on Hessians in a program, or in a body that `runs` so often, and the bases that they come from.

    These are Hessians of which, as `asked` says, the diagonals alone are read.
    """
    twice = [basis for basis in bases if basis.mode == FORWARD and _is_of_a_gradient(basis)]
    if not twice or traced.effects or not any(of_a_diagonal(mask) for mask in asked.values()):
        return None
    taken = _rederivable(traced)
    by = {old: new for basis in twice for old, new in _alone(taken, basis, asked)}
    saved = _saved(taken, by)
    if saved is None:
        return None
    nodes = list(dict.fromkeys(node for basis in twice for node in basis.nodes))
    part = min(saved.time / total(map(cost, nodes)).time, 1.0)
    found = finding(
        THROWN_AWAY, [Work(node, runs, runs * part) for node in nodes], whole,
        f"A Hessian of {twice[0].directions} directions, of which the diagonal alone is used.",
        'Take the diagonal, or its sum: jaxpartials.partials(f, "f/x[i]^2 -> i"), or "f/x[i]^2".',
        saved=runs * saved,
    )  # fmt: skip
    return found, twice


def _rederivable(traced: Graph) -> Rederivable:
    graph = Graph({**RULES})
    known = {value: graph.input(value.aval) for value in traced.inputs}
    known |= graph.include(traced.outputs, known)
    graph.outputs = [known[v] for v in traced.outputs]
    return Rederivable(traced, graph)


def _saved(taken: Rederivable, by: dict[Value, Value]) -> Cost | None:
    """What a program saves by these values in place of others; None if that is not worth it."""
    before, after = _costs(taken, by)
    return minus(before, after) if by and after.time <= WORTH * before.time else None


def _costs(taken: Rederivable, by: dict[Value, Value]) -> tuple[Cost, Cost]:
    """What a program costs, and with these values in place of others."""
    graph = taken.graph
    made = graph.replace(graph.outputs, by | gradients(taken, by)) if by else {}
    return cost_of(graph.outputs), cost_of([made.get(v, v) for v in graph.outputs])


def _is_of_a_gradient(basis: Basis) -> bool:
    return any("transpose" in names(node)[len(basis.before) :] for node in basis.nodes)


def _alone(program: Rederivable, basis: Basis, asked: Mapping[Value, Mask]) -> Iterator[tuple[Value, Value]]:
    """The Hessians that a basis makes, and instead of each a matrix with its diagonal, taken as `partials` takes it."""
    lanes = LANES[: basis.before.count(MAPPED)]
    output = f"u[{','.join(lanes)}]" if lanes else "u"
    spec = f"{output}/x0[{','.join([*lanes, 'z'])}]^2 -> {' '.join([*lanes, 'z'])}"
    for value in _values(program.traced, basis.nodes, basis.before, lambda v: len(v.shape) == len(lanes)):
        for x, slope in itertools.product(_inputs(program.traced, value, basis, value.shape), SLOPES):
            made = program.extend(_hessian(value, x, program.traced.inputs, slope), [x])
            here = program.here(made[0]) if made else None
            if here is None:
                continue
            same = [mask for v, mask in asked.items() if program.made(v) is here]
            if same and all(map(of_a_diagonal, same)):
                diagonal = _planned(program, value, x, spec, lanes)
                if diagonal is not None:
                    yield here, extend(program.graph, _embedded, [diagonal])


def _values(
    traced: Graph, moved: Iterable[Node], before: tuple[str, ...], fits: Callable[[Value], bool]
) -> list[Value]:
    """What may have been differentiated after these transformations: values that do not move with a basis; last first.

    `moved` are the equations of the basis that results come from.
    """
    moving, found = set(moved), []
    for node in traced.traced:
        stack = names(node)
        if any(v.node in moving for v in node.operands):
            moving.add(node)
        elif (
            stack[: len(before)] == before
            and LINEARISED in stack[len(before) :]
            and node not in moving
            and node.name != "broadcast_in_dim"
        ):
            found += [v for v in node.outputs if is_float(v) and fits(v)]
    return found[: -MOST_VALUES - 1 : -1]


def _inputs(traced: Graph, value: Value, basis: Basis, lanes: tuple[int, ...]) -> list[Value]:
    """What it may have been differentiated by: values from outside, a row for each lane."""
    needed = {node.number for node in reach([value])}
    leaves = [*traced.inputs, *(v for node in traced.traced for v in node.outputs)]
    return [
        v
        for v in leaves
        if v.node.number in needed
        and is_float(v)
        and v.shape == (*lanes, basis.directions)
        and names(v.node) == basis.before[: len(names(v.node))]
    ][:MOST_VALUES]


def _hessian(value: Value, x: Value, inputs: Sequence[Value], slope: Callable[..., Any]):
    """The Hessian for each lane, forward over `slope`."""

    def run(moving, fixed):
        def total(here):
            return jnp.sum(at(value, [x], [here], inputs, fixed))

        (here,) = moving
        push = lambda e: jax.jvp(slope(total), (here,), (jnp.broadcast_to(e, here.shape),))[1]
        return [jax.vmap(push, out_axes=-1)(jnp.eye(here.shape[-1], dtype=here.dtype))]

    return run


def _embedded(diagonal):
    return jnp.eye(diagonal.shape[-1], dtype=diagonal.dtype) * diagonal[..., None]


def _planned(program: Rederivable, value: Value, x: Value, spec: str, lanes: str = "") -> Value | None:
    """A derivative of a value `u` by `x0`, planned as `partials` plans it, where these lanes are apart."""
    cut = list(dict.fromkeys([program.made(x), *program.graph.inputs]))
    alone = Graph(RULES)
    known = {v: alone.input(v.aval) for v in cut}
    alone.outputs = [alone.include([program.made(value)], known)[program.made(value)]]
    arguments = {f"x{i}": jax.ShapeDtypeStruct(v.shape, v.dtype) for i, v in enumerate(cut)}
    result = jax.ShapeDtypeStruct(value.shape, value.dtype)
    specs, _ = parse_wanted([spec])
    try:
        made = plan(alone, [(each, [resolve(each, arguments, result)]) for each in specs], list(arguments))
    except (DerivativeError, RuntimeError):
        return None
    if any(not set(lanes) <= set(row.lanes) for row in made.partials):
        return None
    given = dict(zip(made.graph.inputs, cut, strict=True))
    return program.graph.include(made.graph.outputs, given)[made.graph.outputs[0]]
