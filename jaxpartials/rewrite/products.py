"""The sum of a product: what varies along the axis stays in it, and what does not is taken outside.

sum_i,j a b_i c_i d_j  ->  a (sum_i b_i c_i) (sum_j d_j)
"""

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from jax import lax

from jaxpartials.graph.graph import Graph, Value
from jaxpartials.rewrite.local import fill, ordinary
from jaxpartials.rewrite.slices import Known, expanded, expanded_at, make, plain, spread, squeeze, thin
from jaxpartials.rewrite.solves import is_solve
from jaxpartials.rewrite.sums import FACTORED, MOVED, MUL, STAYED, Steps, Want, contracted, product, scaled, stay
from jaxpartials.structure.rules import NEVER, RULES

# Values that are needed, and summed over which axes: () for as they are.
Kept = Mapping[Value, Iterable[tuple[int, ...]]]

PRODUCTS = frozenset({"mul", "neg", "div", "square", "integer_pow"})


def sum_product(graph: Graph, known: Known, kept: Kept, want: Want) -> Steps:
    """sum_i,j a b_i c_i d_j  ->  a (sum_i b_i c_i) (sum_j d_j)

    The axes that fewest factors vary along are summed first.
    """
    x, axes, weight = want
    divisors: list[Value] = []
    factors: list[Value] = []
    negative = _flatten(graph, known, x, axes, factors, divisors)
    if weight is not None:
        factors.append(weight)
    rank = len(x.shape)
    lengths = [max(f.shape[a] for f in [x, *factors] if f.shape) for a in range(rank)]
    varying = [_narrow(graph, known, _peeled(graph, f), axes) for f in factors]
    scale, gain = 1, FACTORED if divisors else STAYED
    left = list(range(rank))  # the axes that the factors still have, by their first number
    todo = set(axes)
    while todo:
        along = {a: frozenset(i for i, (_, v) in enumerate(varying) if a in v) for a in todo}
        first = min(todo, key=lambda a: (len(along[a]), -a))
        now = [a for a in sorted(todo) if along[a] == along[first]]
        here = [left.index(a) for a in now]
        inner = [varying[i] for i in sorted(along[first])]
        outer = [varying[i] for i in range(len(varying)) if i not in along[first]]
        if any(f.shape and np.prod(f.shape) > 1 for f, _ in outer) or (outer and not inner):
            gain = max(gain, FACTORED)
        outer = [(squeeze(graph, f, here) if f.shape else f, v) for f, v in outer]
        if not inner:
            scale *= math.prod(lengths[a] for a in now)
            gain = MOVED
        else:
            values = [f for f, _ in inner]
            if len(values) > 1:
                result, moved = yield from _sum_several(graph, kept, values, tuple(here))
            else:
                result, moved = yield Want(values[0], tuple(here))
            gain = max(gain, moved)
            if now != sorted(axes):
                gain = max(gain, FACTORED)
            outer.append((result, frozenset().union(*(v for _, v in inner)) - set(now)))
        varying, todo = outer, todo - set(now)
        left = [a for a in left if a not in now]
    if gain == STAYED:
        return stay(graph, want), STAYED
    shape = [lengths[a] for a in left]
    result = _assembled(graph, [f for f, _ in varying], shape, x)
    if scale != 1 or negative:
        result = scaled(graph, result, -scale if negative else scale)
    for divisor in divisors:
        result = make(graph, lax.div_p, [result, divisor], {}, x.node)[0]
    return result, gain


def _assembled(graph: Graph, factors: Sequence[Value], shape: Sequence[int], x: Value) -> Value:
    """The product, in this shape."""
    if not factors:
        return fill(graph, 1, x.dtype, shape)
    arrays = [f for f in factors if f.shape or not shape]
    numbers = [f for f in factors if not (f.shape or not shape)]
    result = product(graph, arrays) if arrays else product(graph, numbers)
    if arrays:
        for factor in numbers:
            result = make(graph, lax.mul_p, [result, factor], MUL, x.node)[0]
    places = range(len(shape)) if result.shape or not shape else ()
    return spread(graph, result, shape, list(places))


def _flatten(
    graph: Graph, known: Known, x: Value, axes: Sequence[int], factors: list[Value], divisors: list[Value]
) -> bool:
    """The factors of x, and its divisors that do not vary along the axes; whether the sign is to be changed."""
    negative = False
    stack = [x]
    while stack:
        value = stack.pop()
        node = value.node
        if len(factors) + len(stack) > 12 or not plain(node) or (value.shape and len(value.shape) < len(x.shape)):
            factors.append(value)
        elif node.name == "mul" and all(v.dtype == value.dtype for v in node.operands):
            stack.extend(reversed(node.operands))
        elif node.name == "neg":
            negative = not negative
            stack.append(node.operands[0])
        elif node.name == "square" or (node.name == "integer_pow" and node.params["y"] == 2):
            stack.extend(node.operands * 2)
        elif node.name == "div" and (lower := _lower(graph, known, node.operands[1], axes)) is not None:
            divisors.append(lower)
            stack.append(node.operands[0])
        else:
            factors.append(value)
    return negative


def _lower(graph: Graph, known: Known, divisor: Value, axes: Sequence[int]) -> Value | None:
    if not divisor.shape:
        return divisor
    return thin(graph, divisor, axes, known)


def _peeled(graph: Graph, factor: Value) -> Value:
    """A broadcast factor before its axes are repeated: with length 1 along them."""
    node = factor.node
    if node.name != "broadcast_in_dim" or len(node.operands) != 1 or not ordinary(node.operands[0].aval):
        return factor
    inner = node.operands[0]
    return expanded_at(graph, inner, node.params["broadcast_dimensions"], len(factor.shape))


def _narrow(graph: Graph, known: Known, factor: Value, axes: Sequence[int]) -> tuple[Value, frozenset[int]]:
    """A factor with length 1 along the axes that it does not vary along; and those that it does."""
    if not factor.shape:
        return factor, frozenset()
    varying = set()
    for a in axes:
        if factor.shape[a] == 1:
            continue
        thinned = thin(graph, factor, [a], known)
        if thinned is None:
            varying.add(a)
        else:
            factor = expanded(graph, thinned, [a], len(factor.shape))
    return factor, frozenset(varying)


def _sum_several(graph: Graph, kept: Kept, factors: Sequence[Value], axes: tuple[int, ...]) -> Steps:
    """The sum of a product of which all factors vary: of one of them, with the others for weights, if it moves."""
    for i, x in enumerate(factors):
        others = [*factors[:i], *factors[i + 1 :]]
        if x in others or () in kept.get(x, ()) or not (plain(x.node) or is_solve(x.node)):
            continue
        if x.node.name in PRODUCTS or RULES[x.node.name].linear == NEVER:
            continue
        answer = yield Want(x, axes, product(graph, others))
        if answer[1] == MOVED:
            return answer
    return contracted(graph, factors, axes), STAYED
