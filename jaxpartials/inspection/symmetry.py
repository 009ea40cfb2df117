"""Second derivatives that are computed twice, since they are the same in either order.

    d²f / dx_i dx_j  =  d²f / dx_j dx_i.

A basis pushed forward through what pushes the same basis forward goes through n × n pairs of directions, of which
n (n + 1) / 2 differ; that they do is proved on the Hessian that comes out, by the laws of linear algebra.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence

from jaxpartials.graph.cost import Cost, cost
from jaxpartials.graph.graph import Node, Value
from jaxpartials.inspection.bases import FORWARD, Basis
from jaxpartials.inspection.finding import THROWN_AWAY, Finding, Work, finding
from jaxpartials.inspection.hessians import WORTH
from jaxpartials.inspection.regions import Extent
from jaxpartials.structure.normal_form import NormalForms


def told(
    basis: Basis, bases: Sequence[Basis], images: Mapping[Value, Value], extents: Mapping[Node, Extent], whole: Cost
) -> Finding | None:
    """The finding on a Hessian of which `basis` makes the inner directions, computed whole; `images` are its values
    once equal equations are one. Only where the pairs by themselves take less."""
    n, outer = basis.directions, _around(basis, bases)
    if outer is None or not _symmetric(basis, outer, images):
        return None
    pairs = {node for node in (*outer.nodes, *outer.deep) if node in extents} & {*basis.nodes, *basis.deep}
    if not _is_cheaper_pair_by_pair(basis, outer, pairs, extents):
        return None
    work = [
        Work(node, extents[node].runs, extents[node].runs * (n - 1) / (2 * n))
        for node in (*basis.nodes, *basis.deep)
        if node in pairs
    ]
    return finding(
        THROWN_AWAY, work, whole,
        f"A symmetric Hessian computed whole: of {n} x {n} pairs of directions, {n * (n + 1) // 2} differ.",
        "Push the pairs i <= j alone, in one jax.vmap over jnp.triu_indices; of few outputs take jax.hessian.",
    )  # fmt: skip


def _is_cheaper_pair_by_pair(basis: Basis, outer: Basis, pairs: set[Node], extents: Mapping[Node, Extent]) -> bool:
    """Whether n (n + 1) / 2 pairs cost less, each pushed by itself: both of its directions are pushed with it again."""
    n = basis.directions
    nodes = {node for node in (*basis.nodes, *basis.deep, *outer.nodes, *outer.deep) if node in extents}
    both, apart = (sum(_operations(some, extents)) for some in (pairs, nodes - pairs))
    return (n + 1) / (2 * n) * both + (n + 1) / 2 * apart < WORTH * (both + apart)


def _operations(nodes: Iterable[Node], extents: Mapping[Node, Extent]) -> Iterable[float]:
    for node in nodes:
        yield extents[node].runs * (cost(node).flops + cost(node).transcendentals)


def _around(basis: Basis, bases: Sequence[Basis]) -> Basis | None:
    """The basis of as many directions that is pushed forward around this one, if there is one."""
    for outer in bases:
        around = outer.mode == basis.mode == FORWARD and basis.before == (*outer.before, "vmap", FORWARD)
        if around and outer.directions == basis.directions:
            return outer
    return None


def _symmetric(basis: Basis, outer: Basis, images: Mapping[Value, Value]) -> bool:
    """Whether all that comes out for pairs of directions is the same in either order."""
    forms, moved = NormalForms(), {v for node in outer.nodes for v in node.outputs}
    ends = [images.get(v) for v in basis.ends if v in moved]
    return bool(ends) and all(v is not None and _in_some_axes(forms, v, basis.directions) for v in ends)


def _in_some_axes(forms: NormalForms, value: Value, n: int) -> bool:
    axes = [axis for axis, size in enumerate(value.shape) if size == n]
    return any(forms.symmetric(value, a, b) for a, b in itertools.combinations(axes, 2))
