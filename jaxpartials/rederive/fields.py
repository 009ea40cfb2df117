"""Derivatives of a function of each lane, recognised, and planned together as `partials` plans them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import jax

from jaxpartials.errors import DerivativeError
from jaxpartials.graph.graph import Graph, Value, is_zero, reach
from jaxpartials.graph.trace import extend
from jaxpartials.notation import parse_wanted, resolve
from jaxpartials.planner import plan
from jaxpartials.rederive.program import REVERSED, Program, at, gradient, is_float, names
from jaxpartials.rewrite.pipeline import RULES

MOST_FIELDS = 6  # so many functions are tried
MOST_ENDS = 64  # of so many values where a transformation ends
MOST_INPUTS = 4  # of one of them
MOST_COMPONENTS = 4  # inputs with longer rows are not taken apart
LANES = "abcdefgh"


@dataclass(frozen=True)
class Field:
    """A value with one number for each lane, and inputs of each lane: one number, or a row of them."""

    value: Value
    inputs: tuple[Value, ...]


# By which input each derivative is taken, and by which component of it; None for all of a row.
Path = tuple[tuple[int, int | None], ...]


def fields(program: Program, deepest: int) -> dict[Value, Value]:
    """The derivatives of functions of a lane that a program computes, old to new."""
    found: dict[Value, Value] = {}
    tried: set[tuple[Value, ...]] = set()
    for field in _candidates(program.traced):
        key = program.made(field.value), *map(program.made, field.inputs)
        if key in tried:
            continue
        if len(tried) == MOST_FIELDS:
            break
        tried.add(key)
        paths = {here: path for here, path in _derivatives(program, field, deepest) if here not in found}
        if any(len(path) > 1 for path in paths.values()):
            found |= _planned(program, field, paths)
    return found


def _candidates(traced: Graph) -> Iterator[Field]:
    """Functions of a lane: their value is the last that was traced under its transformations, as JAX leaves it."""
    derived: set[int] = set()
    followed: set[int] = set()
    for node in traced.traced:
        if REVERSED in names(node) or any(v.node.number in derived for v in node.operands):
            derived.add(node.number)
        followed |= {v.node.number for v in node.operands if names(v.node) == names(node)}
    plain = [node for node in traced.traced if node.number not in derived and not node.effects]
    leaves = [v for v in [*traced.inputs, *(v for node in plain for v in node.outputs)] if is_float(v)]
    ends = [node for node in reversed(plain) if names(node) and node.number not in followed]
    for node in ends[:MOST_ENDS]:
        if len(node.outputs) != 1 or not is_float(node.outputs[0]):
            continue
        inputs = _inputs(node.outputs[0], leaves)
        if 0 < len(inputs) <= MOST_INPUTS:
            yield Field(node.outputs[0], inputs)


def _inputs(value: Value, leaves: Sequence[Value]) -> tuple[Value, ...]:
    """What a function of a lane may have been given: values from outside of its transformations, one row a lane."""
    lanes, stack = value.shape, names(value.node)
    needed = {node.number for node in reach([value])}
    found = [
        v
        for v in leaves
        if v.node.number in needed
        and len(names(v.node)) < len(stack)
        and names(v.node) == stack[: len(names(v.node))]
        and v.shape[: len(lanes)] == lanes
        and len(v.shape) <= len(lanes) + 1
        and v.aval.size <= MOST_COMPONENTS * max(1, value.aval.size)
    ]
    # Of a value and what is made of it the latter: the function was given the parts.
    below = {v: {node.number for node in reach([v])} - {v.node.number} for v in found}
    return tuple(v for v in found if not any(v.node.number in below[other] for other in found))


def _derivatives(program: Program, field: Field, deepest: int) -> Iterator[tuple[Value, Path]]:
    """The derivatives of a function that the program uses, and what they are."""
    waiting: list[Path] = [()]
    while waiting and program.unexplained:
        path = waiting.pop()
        further: list[Path] = []
        for i, slope in enumerate(program.extend(_along(field, program.traced.inputs, path), field.inputs)):
            if is_zero(slope) or not program.was_traced(slope):
                continue
            components: list[int | None] = [None]
            parts = [slope]
            if len(slope.shape) > len(field.value.shape):
                components = list(range(slope.shape[-1]))
                parts = [extend(program.graph, lambda row, c=c: row[..., c], [slope]) for c in components]
            places = [program.here(part) for part in parts]
            whole = program.here(slope) if not any(places) else None
            if whole is not None:
                yield whole, (*path, (i, None))
            for component, place in zip(components, places, strict=True):
                if place is not None:
                    yield place, (*path, (i, component))
            further += [(*path, (i, component)) for component in components]
        if len(path) + 1 < deepest:
            # The same input again comes first: that is what higher orders mostly are.
            waiting += sorted(further, key=lambda longer: longer[-1] == longer[-2:][0])


def _along(field: Field, inputs: Sequence[Value], path: Path):
    """The gradient of a derivative of a function, taken as nested `jax.grad` take it."""

    def derivative(path, moving, fixed):
        if not path:
            return at(field.value, field.inputs, moving, inputs, fixed)
        i, component = path[-1]
        slope = slopes(path[:-1], moving, fixed)[i]
        return slope if component is None else slope[..., component]

    def slopes(path, moving, fixed):
        return gradient(lambda moving: derivative(path, moving, fixed), moving)[1]

    return lambda moving, fixed: list(slopes(path, moving, fixed))


def _planned(program: Program, field: Field, paths: dict[Value, Path]) -> dict[Value, Value]:
    """The derivatives at these values, computed as `partials` would."""
    graph = program.graph
    value, inputs = program.made(field.value), list(map(program.made, field.inputs))
    cut = list(dict.fromkeys([*inputs, *graph.inputs]))
    alone = Graph(RULES)
    known = {v: alone.input(v.aval) for v in cut}
    alone.outputs = [alone.include([value], known)[value]]
    lanes = LANES[: len(value.shape)]
    arguments = {f"x{i}": jax.ShapeDtypeStruct(v.shape, v.dtype) for i, v in enumerate(cut)}
    specs, _ = parse_wanted([_spec(path, lanes, inputs) for path in paths.values()])
    result = jax.ShapeDtypeStruct(value.shape, value.dtype)
    try:
        made = plan(alone, [(spec, [resolve(spec, arguments, result)]) for spec in specs], list(arguments))
    except (DerivativeError, RuntimeError):
        return {}
    if any(set(row.lanes) != set(lanes) for row in made.partials):
        return {}  # what was recognised is a sum over lanes that are not apart
    taken = graph.include(made.graph.outputs, dict(zip(made.graph.inputs, cut, strict=True)))
    by = {old: taken[new] for old, new in zip(paths, made.graph.outputs, strict=True)}
    return {old: new for old, new in by.items() if new is not old}


def _spec(path: Path, lanes: str, inputs: Sequence[Value]) -> str:
    """A derivative in the notation: "u[a]/x0[a,1] x1[a] -> a". The inputs come first among the arguments."""
    words, result = [], list(lanes)
    for i, component in path:
        axes = list(lanes)
        if component is not None:
            axes.append(str(component))
        elif len(inputs[i].shape) > len(lanes):
            axes.append("z")
            result.append("z")
        words.append(f"x{i}" + (f"[{','.join(axes)}]" if axes else ""))
    output = "u" + (f"[{','.join(lanes)}]" if lanes else "")
    return f"{output}/{' '.join(words)}" + (f" -> {' '.join(result)}" if result else "")
