"""A sum of many derivatives of which each is a long linear program is one sum at its other end:

    <w, L v>  =  <L^T w, v>.

`trace(hessian(u)(x))` computes all d x d second derivatives, of which d are wanted: the directional derivative of a
gradient, a linear program from the first-order tangents z' back to the inputs,

    H e_i = W_1 (f'(z_1) W_2 (...) + lambda_1 f''(z_1) z_1,i'),

and then the products with e_i. Pulled back through it, the e_i become the tangents z_i' themselves, which are there
already:

    trace H = sum_l lambda_l f''(z_l) sum_i (z_l,i')^2,

the forward Laplacian. So it is with any contraction of derivatives that ends in a number for each lane. With weights
A_ij in the place of an identity, the identity is pulled back all the same, and the weights are applied where it meets
the tangents: every direction goes through the same program,

    sum_ij A_ij H_ij = sum_l lambda_l f''(z_l) sum_ij A_ij z_l,i' z_l,j'.
"""

import heapq
from collections import Counter
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxpartials import _jax
from jaxpartials.graph.emit import emit_node
from jaxpartials.graph.graph import LEAVES, Graph, Node, Value, is_zero, reach
from jaxpartials.graph.trace import extend
from jaxpartials.rewrite.identities import identity, is_identity, varied, with_identities, without_identities
from jaxpartials.rewrite.slices import Known, make, origins, plain, spread, thin
from jaxpartials.rewrite.unit_axes import stretched, without_unit_axes
from jaxpartials.structure.indices import counted_axis
from jaxpartials.structure.rules import EACH, RULES

# Linear over the numbers, but rounding on purpose.
ROUNDING = frozenset({"reduce_precision"})
LETTERS = "abcdefghijklmnopqrstuvwx"


def transpose_sums(graph: Graph, values: Sequence[Value]) -> list[Value] | None:
    """Values equal to these, to rounding, with contractions pulled back through what is linear before them.

    None where there are none. Whether this is cheaper is to be seen when the sums that it leaves have been moved.
    """
    values = list(values)
    if not varied(reach(values)) & {node.number for node in _roots(values)}:
        return None
    values = with_identities(graph, without_unit_axes(graph, _with_masks(graph, values)))
    values = _with_swapped_products(graph, values)
    roots = _roots(values)
    needed = _outside(values, {node.number for node in roots})
    moving = varied(reach(values))
    by: dict[Value, Value] = {}
    inside: set[int] = set()
    for node in reversed(roots):
        if node.number in moving and node.number not in inside:
            made = _Pull(graph, node, moving, set(needed), factored=True).result()
            made = made or _Pull(graph, node, moving, set(needed), factored=False).result()
            if made is not None:
                by[node.outputs[0]], passed = made
                inside |= passed
    if not by:
        return None
    moved = graph.replace(values, by)
    return without_identities(graph, [moved[v] for v in values])


def _roots(values: Sequence[Value]) -> list[Node]:
    return [node for node in reach(values) if _is_root(node)]


def _is_root(node: Node) -> bool:
    return (
        plain(node)
        and node.name in ("reduce_sum", "dot_general")
        and jnp.issubdtype(node.outputs[0].dtype, jnp.inexact)
        and node.outputs[0].aval.size * 2 <= max(v.aval.size for v in node.operands)
    )


def _outside(values: Sequence[Value], roots: set[int]) -> set[int]:
    found: set[int] = set()
    stack = [v.node for v in values]
    while stack:
        node = stack.pop()
        if node.number not in found:
            found.add(node.number)
            if node.number not in roots:
                stack.extend(v.node for v in node.operands)
    return found


# ---- products


def _with_swapped_products(graph: Graph, values: Sequence[Value]) -> list[Value]:
    """dot(x, y)^T -> dot(y, x), where nothing else reads the product.

    The derivative of `w @ x` is made with w on the left, its transpose with w on the right. Written alike, they are
    the same equations where they do the same.
    """
    nodes = reach(values)
    readers = Counter(v for node in nodes for v in node.operands)
    readers.update(values)
    by = {}
    for node in nodes:
        if node.name == "transpose" and readers[node.operands[0]] == 1 and plain(node.operands[0].node):
            made = _swapped(graph, node.operands[0].node, [int(a) for a in node.params["permutation"]])
            if made is not None:
                by[node.outputs[0]] = made
    moved = graph.replace(values, by)
    values = [moved[v] for v in values]
    by = {v: _upright(graph, v) for node in reach(values) if node.name == "dot_general" for v in node.outputs}
    moved = graph.replace(values, {old: new for old, new in by.items() if new is not old})
    return [moved[v] for v in values]


def _upright(graph: Graph, value: Value) -> Value:
    """dot(identity, y): of the two axes of an identity matrix, which are alike, the first is contracted."""
    node = value.node
    if node.name != "dot_general" or not plain(node):
        return value
    contracted, batch = node.params["dimension_numbers"]
    axes = [list(side) for side in contracted]
    for side in (0, 1):
        if axes[side] == [1] and not batch[side] and is_identity(node.operands[side]):
            axes[side] = [0]
    if [tuple(side) for side in axes] == [tuple(side) for side in contracted]:
        return value
    params = {**node.params, "dimension_numbers": (tuple(map(tuple, axes)), batch)}
    return make(graph, node.primitive, node.operands, params, node)[0]


def _swapped(graph: Graph, node: Node, permutation: list[int]) -> Value | None:
    if node.name != "dot_general":
        return None
    contracted, batch = node.params["dimension_numbers"]
    lanes = len(batch[0])
    of_y = len(node.operands[0].shape) - len(contracted[0])  # where the axes of y begin
    rank = len(permutation)
    if permutation != [*range(lanes), *range(of_y, rank), *range(lanes, of_y)]:
        return None
    x, y = node.operands
    precision = node.params["precision"]
    params = {
        **node.params,
        "dimension_numbers": (contracted[::-1], batch[::-1]),
        "precision": precision[::-1] if isinstance(precision, tuple) else precision,
    }
    return make(graph, node.primitive, [y, x], params, node)[0]


# ---- diagonals


def _with_masks(graph: Graph, values: Sequence[Value]) -> list[Value]:
    """x[i, i] -> sum_j [i = j] x[i, j], which is linear in a way that can be pulled back. Exact."""
    by: dict[Value, Value] = {}
    for node in reach(values):
        if node.name == "cond" and node.operands[0].node.name == "platform_index" and len(node.outputs) == 1:
            # How `jnp.diagonal` is written; the last branch is the one for all platforms without one of their own.
            body = node.bodies[-1]
            by_input = dict(zip(body.inputs, node.operands[1:], strict=True))
            (out,) = body.outputs
            if out.node.name == "gather" and out.node.operands[0] in by_input and not body.effects:
                masked = _masked(graph, out.node, by_input[out.node.operands[0]])
                if masked is not None:
                    by[node.outputs[0]] = masked
        elif node.name == "gather":
            masked = _masked(graph, node, node.operands[0])
            if masked is not None:
                by[node.outputs[0]] = masked
    moved = graph.replace(values, by)
    return [moved[v] for v in values]


def _masked(graph: Graph, node: Node, x: Value) -> Value | None:
    numbers, sizes = node.params["dimension_numbers"], node.params["slice_sizes"]
    indices = node.operands[1]
    taken = [int(a) for a in numbers.start_index_map]
    if numbers.operand_batching_dims or len(taken) != 2 or sorted(taken) != sorted(numbers.collapsed_slice_dims):
        return None
    a, b = sorted(taken)
    n = x.shape[a]
    whole = all(sizes[c] == x.shape[c] for c in range(len(x.shape)) if c not in taken)
    if not whole or x.shape[b] != n or indices.shape != (n, 2) or n < 2 or not jnp.issubdtype(x.dtype, jnp.floating):
        return None
    if counted_axis(indices, 0) != 0 or counted_axis(indices, 1) != 0:
        return None
    (place,) = (c for c in range(len(x.shape) - 1) if c not in numbers.offset_dims)

    def diagonal(x):
        shape = [n if c in (a, b) else 1 for c in range(x.ndim)]
        mask = jnp.eye(n, dtype=bool).reshape(shape)
        return jnp.moveaxis(jnp.sum(jnp.where(mask, x, 0), b), a, place)

    return extend(graph, diagonal, [x])


# ---- one contraction


class _Pull:
    """The cotangents of one number per lane, from its contraction back to where they meet what is there already."""

    def __init__(self, graph: Graph, root: Node, moving: set[int], needed: set[int], factored: bool):
        self.graph, self.root, self.moving, self.needed, self.factored = graph, root, moving, needed, factored
        self.lanes: dict[Value, tuple[int, ...]] = {}
        self.weights: tuple[Value, str] | None = None  # taken out of the cotangents, and the names of their axes
        self.direction: dict[Value, int] = {}  # with them, the axis of the directions
        self.cotangents: dict[Value, Value] = {}
        self.terms: list[Value] = []
        self.passed: set[int] = set()
        self.known: Known = {}

    def result(self) -> tuple[Value, set[int]] | None:
        out = self.root.outputs[0]
        ones = extend(self.graph, lambda: jnp.ones(out.shape, out.dtype), [])
        self.lanes[out] = tuple(range(len(out.shape)))
        self.cotangents[out] = ones
        queue = [(-self.root.number, out.index)]
        values = {(-self.root.number, out.index): out}
        first = True
        while queue:
            key = heapq.heappop(queue)
            value = values.pop(key)
            cotangent = self.cotangents[value]
            pulled = None
            if first or not self._stops(value):
                if self.factored and self.weights is None and not queue:
                    cotangent = self._factor(value, cotangent)
                pulled = self._through(value, cotangent)
            if pulled is None:
                if first:
                    return None
                self.terms.append(self._term(value, self._weighted(value, cotangent)))
                continue
            first = False
            self.passed.add(value.node.number)
            for operand, part in pulled:
                if operand not in self.cotangents:
                    self.cotangents[operand] = part
                    place = -operand.node.number, operand.index
                    values[place] = operand
                    heapq.heappush(queue, place)
                else:
                    self.cotangents[operand] = self._sum(self.cotangents[operand], part)
                self._need(self.cotangents[operand])
        if not self.terms or None in self.terms:
            return None
        result = self.terms[0]
        for term in self.terms[1:]:
            result = self._sum(result, term)
        return result, self.passed

    def _stops(self, value: Value) -> bool:
        node = value.node
        return node.number in self.needed or node.number not in self.moving or node.name in LEAVES

    def _need(self, value: Value) -> None:
        stack = [value.node]
        while stack:
            node = stack.pop()
            if node.number not in self.needed:
                self.needed.add(node.number)
                stack.extend(v.node for v in node.operands)

    def _sum(self, x: Value, y: Value) -> Value:
        return make(self.graph, lax.add_p, [x, y], {}, self.root)[0]

    def _factor(self, value: Value, cotangent: Value) -> Value:
        """An identity in the place of other weights on a matrix of derivatives, one axis of which goes on."""
        lanes = self.lanes[value]
        others = [a for a in range(len(value.shape)) if a not in lanes]
        if value.node.name != "dot_general" or len(others) != 2 or len({value.shape[a] for a in others}) != 1:
            return cotangent
        eye = identity(self.graph, value.shape[others[0]], value.dtype)
        if (cotangent.node.name == "broadcast_in_dim" and cotangent.node.operands[0] is eye) or cotangent is eye:
            return cotangent
        for a in others:
            places = origins(value.node, value.index, a)
            carried = [k for k, p in enumerate(places or ()) if p is not None]
            if len(carried) == 1 and value.node.operands[carried[0]].node.number in self.moving:
                names = {axis: LETTERS[i] for i, axis in enumerate(lanes)}
                names |= {a: "Y", sum(others) - a: "Z"}
                single = thin(self.graph, cotangent, [b for b in lanes if cotangent.shape[b] > 1], self.known)
                kept = others if single is not None else range(len(value.shape))
                weights = cotangent if single is None else single
                self.weights = weights, "".join(names[b] for b in kept)
                self.direction[value] = a
                return spread(self.graph, eye, value.shape, others)
        return cotangent

    def _weighted(self, value: Value, cotangent: Value) -> Value:
        """The cotangent with the weights in it again."""
        if self.weights is None or value not in self.direction:
            return cotangent
        weights, axes = self.weights
        names = {axis: LETTERS[i] for i, axis in enumerate(self.lanes[value])}
        rest = iter(LETTERS[len(names) :])
        letters = [names.get(a) or next(rest) for a in range(len(value.shape))]
        place = self.direction[value]
        before = "".join("Z" if a == place else n for a, n in enumerate(letters))
        after = before.replace("Z", "Y")
        return extend(self.graph, lambda w, c: jnp.einsum(f"{axes},{before}->{after}", w, c), [weights, cotangent])

    def _term(self, value: Value, cotangent: Value) -> Value:
        """The contraction of a value with its cotangent, lane by lane."""
        lanes = self.lanes[value]
        others = tuple(a for a in range(len(value.shape)) if a not in lanes)
        order = np.argsort(np.argsort(lanes)) if lanes else ()

        def contract(x, c):
            return jnp.transpose(jnp.sum(x * c, axis=others), tuple(int(a) for a in order))

        return extend(self.graph, contract, [value, cotangent])

    def _through(self, value: Value, cotangent: Value) -> list[tuple[Value, Value]] | None:
        """The cotangents of the operands in which an equation is linear; None where it must not be passed."""
        node = value.node
        row = RULES.get(node.name)
        if row is None or not plain(node) or len(node.outputs) > 1:
            return None
        count = range(len(node.operands))
        if row.linear == EACH:
            into = [k for k in count if node.operands[k].node.number in self.moving]
            if len(into) != 1:
                return None
        elif isinstance(row.linear, slice):
            into = list(count[row.linear])
            if any(node.operands[k].node.number in self.moving for k in count if k not in into):
                return None
        else:
            return None
        real = jnp.issubdtype(value.dtype, jnp.floating) and node.name not in ROUNDING
        if not real or any(node.operands[k].dtype != value.dtype for k in into):
            return None
        into = [k for k in into if not is_zero(node.operands[k])]
        places = [origins(node, value.index, a) for a in self.lanes[value]]
        if any(p is None for p in places):
            return None
        along = None
        if self.weights is not None:
            along = origins(node, value.index, self.direction[value])
            if along is None or not all(
                p is None or k in into or thin(self.graph, node.operands[k], [p], self.known) is not None
                for k, p in enumerate(along)
            ):
                return None
        pulled = []
        for k in into:
            operand = node.operands[k]
            if along is not None:
                place = along[k]
                if place is None or operand.shape[place] != value.shape[self.direction[value]]:
                    return None
                if self.direction.setdefault(operand, place) != place:
                    return None
            lanes = tuple(a for p in places if p is not None and (a := p[k]) is not None)
            if [operand.shape[a] for a in lanes] != [value.shape[b] for b in self.lanes[value]]:
                return None
            if self.lanes.setdefault(operand, lanes) != lanes:
                return None
            pulled.append(operand)
        parts = self._transposed(node, into, cotangent)
        if parts is None:
            return None
        parts = [stretched(self.graph, part) for part in parts]
        return [(v, self._same_in_all_lanes(part, self.lanes[v])) for v, part in zip(pulled, parts, strict=True)]

    def _transposed(self, node: Node, into: Sequence[int], cotangent: Value) -> list[Value] | None:
        """The cotangents of some operands; None where JAX cannot transpose the equation."""
        (out,) = node.outputs
        if all(node.operands[k].shape == out.shape for k in into):  # the quick ones, as JAX has them
            if node.name == "add":
                return [cotangent] * len(into)
            if node.name == "neg" or (node.name == "mul" and len(into) == 1):
                others = [v for k, v in enumerate(node.operands) if k not in into]
                return make(self.graph, node.primitive, [cotangent, *others], node.params, node)
        fixed = [v for k, v in enumerate(node.operands) if k not in into]

        def pull(cotangent, *arrays):
            def linear(*xs):
                given, held = iter(xs), iter(arrays)
                both = [next(given) if k in into else next(held) for k in range(len(node.operands))]
                return emit_node(node, both, keep_effects=False)[0]

            return jax.linear_transpose(linear, *(node.operands[k].aval for k in into))(cotangent)

        try:
            return list(extend(self.graph, pull, [cotangent, *fixed]))
        except _jax.REFUSALS:
            return None

    def _same_in_all_lanes(self, cotangent: Value, lanes: Sequence[int]) -> Value:
        """The cotangent, computed once and repeated, where it is the same in all lanes."""
        long = [a for a in lanes if cotangent.shape[a] > 1]
        single = thin(self.graph, cotangent, long, self.known)
        if single is None:
            return cotangent
        single = _upright(self.graph, single)
        if is_identity(single):
            single = identity(self.graph, single.shape[0], single.dtype)
        rank = len(cotangent.shape)
        return spread(self.graph, single, cotangent.shape, [a for a in range(rank) if a not in long])
