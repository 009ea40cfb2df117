"""A sum that is asked for, and how it is made where it does not move."""

from collections.abc import Generator, Sequence
from typing import NamedTuple

from jax import lax

from jaxpartials.graph.graph import Graph, Node, Value
from jaxpartials.rewrite.local import fill
from jaxpartials.rewrite.slices import make, renumbered, squeeze, transposed

MUL = {"out_dtype": None}

# What became of a sum: it stands where it stood; factors were taken outside; it went through an operation that is
# now done once instead of for every element.
STAYED, FACTORED, MOVED = range(3)


class Want(NamedTuple):
    """sum over `axes` of weight * value: without those axes. The weight has the value's rank."""

    value: Value
    axes: tuple[int, ...]
    weight: Value | None = None


# The sum, and what became of it.
Answer = tuple[Value, int]
# A rule asks for the sums that it needs, one after another.
Steps = Generator[Want, Answer, Answer]


def stay(graph: Graph, want: Want) -> Value:
    """The sum where it is."""
    x, axes, weight = want
    if weight is None:
        return reduced(graph, x, axes)
    return contracted(graph, [x, weight], axes)


def reduced(graph: Graph, x: Value, axes: Sequence[int]) -> Value:
    if not axes:
        return x
    params = {"axes": tuple(sorted(axes)), "out_sharding": None}
    return make(graph, lax.reduce_sum_p, [x], params, x.node)[0]


def product(graph: Graph, factors: Sequence[Value]) -> Value:
    """Of values of one rank; axes of length 1 stretch. In the order in which they were made."""
    first, *rest = sorted(factors, key=lambda v: (v.node.number, v.index))
    for factor in rest:
        first = make(graph, lax.mul_p, [first, factor], MUL, max(first.node, factor.node, key=_number))[0]
    return first


def contracted(graph: Graph, factors: Sequence[Value], axes: Sequence[int]) -> Value:
    """The sum over axes of a product: a matrix product where the factors have no other axis in common."""
    if len(factors) == 2:
        x, y = factors
        both = [a for a in range(len(x.shape)) if x.shape[a] > 1 and y.shape[a] > 1]
        if sorted(both) == sorted(axes):
            return _dot(graph, x, y, axes)
    return reduced(graph, product(graph, factors), axes)


def _dot(graph: Graph, x: Value, y: Value, axes: Sequence[int]) -> Value:
    rank = len(x.shape)
    of_y = [a for a in range(rank) if a not in axes and y.shape[a] > 1]
    of_x = [a for a in range(rank) if a not in axes and a not in of_y]
    lhs = squeeze(graph, x, of_y) if of_y else x
    rhs = squeeze(graph, y, of_x) if of_x else y
    both = renumbered(axes, of_y), renumbered(axes, of_x)
    params = {
        "dimension_numbers": (both, ((), ())),
        "precision": None,
        "preferred_element_type": x.dtype,
        "out_sharding": None,
    }
    (out,) = make(graph, lax.dot_general_p, [lhs, rhs], params, max(x.node, y.node, key=_number))
    order = [*of_x, *of_y]
    return transposed(graph, out, [order.index(a) for a in sorted(order)])


def scaled(graph: Graph, x: Value, by: int) -> Value:
    if by == 1:
        return x
    if by == -1:
        return make(graph, lax.neg_p, [x], {}, x.node)[0]
    return make(graph, lax.mul_p, [x, fill(graph, by, x.dtype, x.shape)], MUL, x.node)[0]


def _number(node: Node) -> int:
    return node.number
