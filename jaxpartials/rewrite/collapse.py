"""A sum over an axis moves towards the inputs, through everything linear in what is summed:

    sum_i w_i L(x_i)  =  L(sum_i w_i x_i)        for L linear and the same for every i.

A tower of two forward derivatives carries one second-order tangent for each direction i,

    z_i'' = f''(z) (z_i')^2 + f'(z) A h_i'',

which is linear in itself. With the sum over the directions inside, one such tangent is carried for all of them,

    sum_i z_i'' = f''(z) sum_i (z_i')^2 + f'(z) A sum_i h_i'',

and nested jvp has become the forward Laplacian; higher operators collapse likewise, axis by axis.

Source: Li et al., A computational framework for neural network-based variational Monte Carlo with Forward Laplacian,
Nature Machine Intelligence 2024; Dangel et al., Collapsing Taylor Mode Automatic Differentiation, 2025.
"""

import heapq
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxpartials.graph.cost import cost_of
from jaxpartials.graph.graph import Graph, Node, Value, is_zero, reach
from jaxpartials.rewrite.collapse_loops import Loop, movable
from jaxpartials.rewrite.local import fill, ordinary
from jaxpartials.rewrite.products import PRODUCTS, Kept, sum_product
from jaxpartials.rewrite.slices import (
    Known,
    expanded,
    make,
    origins,
    plain,
    regrouped,
    renumbered,
    reshaped,
    sliced,
    spread,
    squeeze,
    thin,
    transposed,
    without,
)
from jaxpartials.rewrite.solves import is_solve, solved_once
from jaxpartials.rewrite.sums import FACTORED, MOVED, STAYED, Answer, Steps, Want, product, reduced, scaled, stay
from jaxpartials.rewrite.transposed import ROUNDING, transpose_sums
from jaxpartials.structure.rules import EACH, RULES

# A sum that has moved may have left one that can move further.
ROUNDS = 2

# What pulling back must save: of two that cost nearly the same, the one nearer to what was written.
WORTHWHILE = 0.95

# Requests for each equation of the program, after which sums stay where they are. Weighted sums can multiply.
PATIENCE = 20


def collapse(graph: Graph, values: Sequence[Value], effects: Sequence[Node] = ()) -> list[Value]:
    """Values equal to these, to rounding, with sums moved to where all of them together are cheaper.

    Sums are moved as they stand, and after contractions have been pulled back through linear programs
    (`transposed`); the cheapest is the answer. It has never more operations than there were.
    """
    values = list(values)
    pinned = bool(effects) or any(node.effects for node in reach(values))
    best = _moved(graph, values, effects, loops=not pinned)
    if not pinned and (pulled := transpose_sums(graph, values)) is not None:
        other = _moved(graph, pulled, (), loops=True)
        best = other if cost_of(other).time < WORTHWHILE * cost_of(best).time else best
    before, after = cost_of(values, effects), cost_of(best, effects)
    return best if after.flops <= before.flops and after.time < before.time else values


def _moved(graph: Graph, values: list[Value], effects: Sequence[Node], loops: bool) -> list[Value]:
    for _ in range(ROUNDS):
        better = _round(graph, values, effects, loops)
        if better is None and loops and any(movable(node) for node in reach(values)):
            better = _round(graph, values, effects, loops=False)
        if better is None:
            break
        values = better
    return values


def _round(graph: Graph, values: list[Value], effects: Sequence[Node], loops: bool) -> list[Value] | None:
    """Every sum moved as far as it goes; then again, but for sums of what turned out to be needed unsummed as well.

    The better of the two, if it is better than what there was.
    """
    held = [v for node in effects for v in node.operands]
    before = least = cost_of(values, effects)
    best = None
    kept: dict[Value, set[tuple[int, ...]]] = {v: {()} for v in _outside([*values, *held])}
    for _ in range(2):
        sums = _Sums(graph, kept, loops=loops)
        found = sums.rewritten(values, held)
        if found == values:
            break
        spent = cost_of(found, effects)
        if spent.flops <= before.flops and spent.time < least.time:
            best, least = found, spent
        if all(() in kept.get(v, ()) for v in sums.needed):
            break
        kept = {v: {()} for v in sums.needed}
        for (x, axes, weight), (answer, _) in sums.answers.items():
            if weight is None and answer in sums.needed:
                kept.setdefault(x, set()).add(axes)
    return best


def _is_root(node: Node) -> bool:
    return plain(node) and (node.name == "reduce_sum" or _weights(node) is not None) and _real(node.outputs[0])


def _real(value: Value) -> bool:
    return jnp.issubdtype(value.dtype, jnp.inexact)


def _outside(values: Sequence[Value]) -> set[Value]:
    """What the values need besides what they sum."""
    found: set[Value] = set()
    stack = list(values)
    while stack:
        value = stack.pop()
        if value not in found:
            found.add(value)
            if not _is_root(value.node):
                stack.extend(value.node.operands)
    return found


def _weights(node: Node) -> list[int] | None:
    """Of a dot_general: the operands of which nothing is left but the sum, so that they are weights of the other."""
    if node.name != "dot_general":
        return None
    contracted, batch = node.params["dimension_numbers"]
    if not contracted[0] or any(v.dtype != node.outputs[0].dtype for v in node.operands):
        return None
    sides = [k for k in (0, 1) if len(node.operands[k].shape) == len(contracted[k]) + len(batch[k])]
    return sides or None


class _Sums:
    """One pass: the sums of values of one graph, each made once."""

    def __init__(
        self,
        graph: Graph,
        kept: Kept,
        inputs: Callable[[Value, tuple[int, ...]], Value | None] | None = None,
        loops: bool = True,
    ):
        self.graph = graph
        self.kept = kept
        self.inputs = inputs  # of a body: the sums of its inputs
        self.needed: set[Value] = set()  # as it turned out
        self.known: Known = {}
        self.answers: dict[Want, Answer] = {}
        self.patience = 0
        self.loops: dict[Node, Loop] | None = {} if loops else None

    # ---- the program

    def rewritten(self, values: Sequence[Value], held: Iterable[Value] = ()) -> list[Value]:
        """The values, from the last equation on, with every sum moved; what is held stays as it is."""
        fixed = {node.number for node in reach(held)}
        by: dict[Value, Value] = {}
        queue: list[int] = []
        nodes: dict[int, Node] = {}

        def need(found: Iterable[Value]) -> None:
            for value in found:
                self.needed.add(value)
                if value.node.number not in nodes:
                    nodes[value.node.number] = value.node
                    heapq.heappush(queue, -value.node.number)

        need([*values, *held])
        last = max(nodes, default=0)
        self.patience = PATIENCE * len(reach(values)) + 1000
        while queue:
            node = nodes[-heapq.heappop(queue)]
            operands = node.operands
            if node.number <= last and node.number not in fixed and _is_root(node):
                (out,) = node.outputs
                moved = self._root(out)
                if moved is not out:
                    by[out] = moved
                    operands = (moved,)
            need(operands)
        done = self.graph.replace(values, by)
        return self.settled([done[v] for v in values])

    def settled(self, values: list[Value]) -> list[Value]:
        """The new loops in the place of the old ones and of the placeholders; the last first."""
        for _, loop in sorted((self.loops or {}).items(), key=lambda pair: -pair[0].number):
            used = {*values, *(v for node in reach(values) for v in node.operands)}
            by = loop.replaced(used)
            if by:
                done = self.graph.replace(values, by)
                values = [done[v] for v in values]
        return values

    def _root(self, value: Value) -> Value:
        node = value.node
        if node.name == "reduce_sum":
            found, moved = self.run(Want(node.operands[0], tuple(sorted(node.params["axes"]))))
            return found if moved else value
        contracted, batch = node.params["dimension_numbers"]
        for side in _weights(node) or ():
            # weights[batch, contracted], and x with these axes and its own
            weights, x = node.operands[side], node.operands[1 - side]
            axes = [*batch[1 - side], *contracted[1 - side]]
            order = [*batch[side], *contracted[side]]
            aligned = transposed(self.graph, weights, [order[i] for i in np.argsort(axes)])
            aligned = spread(self.graph, aligned, [n if a in axes else 1 for a, n in enumerate(x.shape)], sorted(axes))
            found, moved = self.run(Want(x, tuple(sorted(contracted[1 - side])), aligned))
            if moved == MOVED:
                left = [a for a in range(len(x.shape)) if a not in contracted[1 - side]]
                wished = [*batch[1 - side], *(a for a in left if a not in batch[1 - side])]
                return transposed(self.graph, found, [left.index(a) for a in wished])
        return value

    # ---- one sum

    def run(self, want: Want) -> Answer:
        """Answer a request, and those that it makes, without Python's stack."""
        stack: list[tuple[Want, Steps]] = []
        pending: set[Want] = set()
        answer: Answer | None = None
        asked: Want | None = want
        while True:
            if asked is not None:
                answer = self.answers.get(asked)
                if answer is None and asked in pending:
                    answer = stay(self.graph, asked), STAYED
                if answer is None:
                    stack.append((asked, self._sum(asked)))
                    pending.add(asked)
                asked = None
            if not stack:
                assert answer is not None
                return answer
            current, steps = stack[-1]
            try:
                asked = next(steps) if answer is None else steps.send(answer)
                answer = None
            except StopIteration as end:
                stack.pop()
                pending.discard(current)
                answer = self.answers[current] = end.value

    def _sum(self, want: Want) -> Steps:
        x, axes, weight = want
        node = x.node
        self.patience -= 1
        if not axes:
            return (x if weight is None else product(self.graph, [x, weight])), STAYED
        if is_zero(x):
            shape = x.shape if weight is None else np.broadcast_shapes(x.shape, weight.shape)
            return fill(self.graph, 0, x.dtype, without(shape, axes)), MOVED
        if self.inputs is not None and weight is None and (found := self.inputs(x, axes)) is not None:
            return found, FACTORED
        if self.patience < 0 or not _real(x):
            return stay(self.graph, want), STAYED
        if x in self.kept and (first := self._needed_first(want)) is not None:
            return (yield from self._sum_further(want, first))
        if weight is None and self.loops is not None and movable(node):
            return (yield from self._sum_loop(want))
        if is_solve(node):
            return (yield from self._sum_solve(want))
        if not plain(node):
            return stay(self.graph, want), STAYED
        if node.name in PRODUCTS or (
            weight is not None and (node.name == "broadcast_in_dim" or any(weight.shape[a] == 1 for a in axes))
        ):
            return (yield from sum_product(self.graph, self.known, self.kept, want))
        if node.name == "reduce_sum":
            return (yield from self._sum_sum(want))
        if node.name == "reshape" and node.params["dimensions"] is None and all(x.shape):
            return (yield from self._sum_reshaped(want))
        return (yield from self._sum_linear(want))

    def _needed_first(self, want: Want) -> tuple[int, ...] | None:
        """The axes over which the value is summed for others too, and from where the rest of the sum is not far."""
        x, axes, weight = want
        fitting = [
            some for some in self.kept[x]
            if set(some) < set(axes) and (weight is None or all(weight.shape[a] == 1 for a in some))
        ]  # fmt: skip
        return max(fitting, key=lambda some: (len(some), some), default=None)

    def _sum_further(self, want: Want, first: tuple[int, ...]) -> Steps:
        """sum_ij w_j x_ij = sum_j w_j (sum_i x_ij), the inner sum being needed anyway."""
        x, axes, weight = want
        summed, moved = (yield Want(x, first)) if first else (x, STAYED)
        if weight is not None and first:
            weight = squeeze(self.graph, weight, first)
        return stay(self.graph, Want(summed, renumbered([a for a in axes if a not in first], first), weight)), moved

    # ---- loops

    def _sum_loop(self, want: Want) -> Steps:
        """The sum of what a loop computes; a sum over its steps is made outside."""
        x, axes, _ = want
        assert self.loops is not None
        if x.node not in self.loops:
            self.loops[x.node] = Loop(self.graph, x.node, self._inner)
        loop = self.loops[x.node]
        steps = [a for a in axes if a == 0 and loop.is_stack(x.index)]
        asking = loop.ask(x.index, tuple(a for a in axes if a not in steps))
        answer = None
        try:
            while True:
                operand, along = asking.send(answer)
                answer, _ = yield Want(operand, along)
        except StopIteration as end:
            found = end.value
        return (stay(self.graph, want), STAYED) if found is None else (reduced(self.graph, found, steps), MOVED)

    def _inner(self, body: Graph, inputs: Callable) -> "_Sums":
        sums = _Sums(body, {}, inputs)
        sums.patience = PATIENCE * len(body.nodes) + 1000
        return sums

    def moved(self, value: Value, axes: tuple[int, ...]) -> tuple[Value, bool]:
        """The sum of a value, and whether anything is gained by moving it."""
        found, moved = self.run(Want(value, axes))
        return found, moved != STAYED

    # ---- sums of sums

    def _sum_sum(self, want: Want) -> Steps:
        """sum_i sum_j x_ij is one sum over both."""
        x, axes, weight = want
        (inner,) = x.node.operands
        rank = len(inner.shape)
        gone = sorted(x.node.params["axes"])
        kept = [a for a in range(rank) if a not in gone]
        both = tuple(sorted([*gone, *(kept[a] for a in axes)]))
        if weight is not None:
            weight = expanded(self.graph, weight, gone, rank)
        answer = yield Want(inner, both, weight)
        return answer

    def _sum_reshaped(self, want: Want) -> Steps:
        """The sum over all that an axis was taken apart into is the sum over it, and the other way round."""
        x, axes, weight = want
        (inner,) = x.node.operands
        groups = regrouped(inner.shape, x.shape)
        whole = [(old, new) for old, new in groups if old and new and set(new) <= set(axes)]
        through = [a for _, new in whole for a in new]
        if not whole or (weight is not None and through != list(axes)):
            return (yield from self._sum_linear(want))
        if weight is not None:
            shape = [1] * len(inner.shape)
            for old, new in groups:
                lengths = [weight.shape[a] for a in new]
                if lengths == [x.shape[a] for a in new]:
                    for a in old:
                        shape[a] = inner.shape[a]
                elif math.prod(lengths) > 1:
                    return stay(self.graph, want), STAYED
            weight = reshaped(self.graph, weight, shape)
        gone = tuple(sorted(a for old, _ in whole for a in old))
        summed, moved = yield Want(inner, gone, weight)
        summed = reshaped(self.graph, summed, without(x.shape, through))
        return reduced(self.graph, summed, renumbered([a for a in axes if a not in through], through)), moved

    # ---- linear equations

    def _sum_linear(self, want: Want) -> Steps:
        """sum_i w_i L(x_i) -> L(sum_i w_i x_i), for as many of the axes as L lets through."""
        x, axes, weight = want
        node = x.node
        row = RULES[node.name]
        if node.name in ROUNDING or (row.linear not in (EACH,) and not isinstance(row.linear, slice)):
            return stay(self.graph, want), STAYED
        if row.linear == EACH and node.name not in ("dot_general", "conv_general_dilated"):
            return stay(self.graph, want), STAYED
        places = {}
        besides = [] if weight is None else [a for a in range(len(x.shape)) if weight.shape[a] > 1 and a not in axes]
        if weight is not None and any(weight.shape[a] not in (1, x.shape[a]) for a in range(len(x.shape))):
            return stay(self.graph, want), STAYED
        for a in [*axes, *besides]:
            found = origins(node, x.index, a)
            if found is None and a in besides:
                return stay(self.graph, want), STAYED
            if found is not None:
                places[a] = found
        moving = range(len(node.operands))
        moving = list(moving if row.linear == EACH else moving[row.linear])
        if not all(_as_exact(node.operands[k], x) for k in moving):
            return stay(self.graph, want), STAYED
        through = [a for a in axes if a in places and self._passes(node, places[a], moving, row.linear == EACH)]
        if row.linear == EACH and not through and weight is None:
            contraction = self._join_batch(x, axes, places)
            return (contraction, MOVED) if contraction is not None else (stay(self.graph, want), STAYED)
        if not through or (weight is not None and through != list(axes)):
            return stay(self.graph, want), STAYED
        made = yield from self._through(x, through, besides, places, moving, weight, row.linear == EACH)
        if made is None:
            return stay(self.graph, want), STAYED
        result, gain = made
        rest = renumbered([a for a in axes if a not in through], through)
        if gain == STAYED:
            return stay(self.graph, want), STAYED
        return reduced(self.graph, result, rest), gain

    def _passes(self, node: Node, place: Sequence[int | None], moving: Sequence[int], each: bool) -> bool:
        """Whether L is the same for every slice of an axis: what is not summed does not vary along it."""
        vary = []
        for k, a in enumerate(place):
            operand = node.operands[k]
            if a is not None and thin(self.graph, operand, [a], self.known) is None:
                vary.append(k)
        if each:
            return len(vary) <= 1
        return set(vary) <= set(moving)

    def _through(self, x, through, besides, places, moving, weight, each):
        """The equation on summed operands; None where the weight does not go through it."""
        node = x.node
        count = range(len(node.operands))
        drops = [sorted(places[a][k] for a in through if places[a][k] is not None) for k in count]
        vary = [
            [a for a in through if places[a][k] is not None
             and thin(self.graph, node.operands[k], [places[a][k]], self.known) is None]
            for k in count
        ]  # fmt: skip
        gain = GAINS.get(node.name, STAYED)
        if weight is not None:
            carrying = [k for k in moving if vary[k]] if each else [k for k in moving if not is_zero(node.operands[k])]
            if any(node.operands[k].dtype != weight.dtype for k in carrying):
                return None
            for k in carrying:
                whole = vary[k] == through and all(places[a][k] is not None for a in besides)
                if not whole or any(node.operands[k].shape[places[a][k]] != x.shape[a] for a in besides):
                    return None
            if each and len(carrying) != 1:
                return None
        operands = []
        for k, operand in enumerate(node.operands):
            here = vary[k] if k in moving else []
            equal = [places[a][k] for a in through if places[a][k] is not None and a not in here]
            value = thin(self.graph, operand, equal, self.known)
            if value is None:
                return None
            repeats = math.prod(x.shape[a] for a in through if a not in here)
            if here:
                axes = renumbered([places[a][k] for a in here], equal)
                carried = None
                if weight is not None:
                    carried = self._carried(weight, value, [(a, places[a][k]) for a in (*through, *besides)], equal)
                value, moved = yield Want(value, tuple(sorted(axes)), carried)
                gain = max(gain, moved)
            if k in moving and not each and repeats > 1 and weight is None:
                value = scaled(self.graph, value, repeats)
                gain = MOVED if node.name == "broadcast_in_dim" else max(gain, FACTORED)
            operands.append(value)
        if each:
            repeats = math.prod(x.shape[a] for a in through if not any(a in v for v in vary))
        result = sliced(self.graph, node, x.index, operands, drops, sorted(through))
        if each and repeats > 1:
            result = scaled(self.graph, result, repeats)
        return result, gain

    def _sum_solve(self, want: Want) -> Steps:
        """sum_i w_i A^-1 b_i -> A^-1 sum_i w_i b_i"""
        x, axes, weight = want
        *_, b = x.node.operands
        through, rest = axes[:1], axes[1:]
        if weight is not None and any(n > 1 for a, n in enumerate(weight.shape) if a not in through):
            return stay(self.graph, want), STAYED
        summed, _ = yield Want(b, through, weight)
        summed = expanded(self.graph, summed, through, len(b.shape))
        found = solved_once(self.graph, x.node, through[0], summed)
        if found is None:
            return stay(self.graph, want), STAYED
        answer, _ = yield Want(squeeze(self.graph, found, through), renumbered(rest, through))
        return answer, MOVED

    def _carried(self, weight: Value, operand: Value, pairs: Iterable[tuple[int, int]], gone: Sequence[int]) -> Value:
        """The weight, aligned with an operand: its axes moved along the pairs (of the result, of the operand)."""
        pairs = [(a, renumbered([b], gone)[0]) for a, b in pairs]
        small = [a for a in range(len(weight.shape)) if a not in {a for a, _ in pairs}]
        kept = [a for a in range(len(weight.shape)) if a not in small]
        value = squeeze(self.graph, weight, small) if small else weight
        target = dict(pairs)
        order = sorted(range(len(kept)), key=lambda i: target[kept[i]])
        value = transposed(self.graph, value, order)
        places = sorted(target.values())
        shape = [1] * len(operand.shape)
        for place, n in zip(places, value.shape, strict=True):
            shape[place] = n
        return spread(self.graph, value, shape, places)

    def _join_batch(self, x: Value, axes: Sequence[int], places: dict[int, Any]) -> Value | None:
        """sum_b dot(x_b, y_b): the batch axis is contracted like the others."""
        node = x.node
        if node.name != "dot_general":
            return None
        contracted, batch = node.params["dimension_numbers"]
        if any(a >= len(batch[0]) for a in axes):
            return None
        numbers = (
            tuple((*(batch[side][a] for a in axes), *contracted[side]) for side in (0, 1)),
            tuple(without(batch[side], axes) for side in (0, 1)),
        )
        return make(self.graph, node.primitive, node.operands, {**node.params, "dimension_numbers": numbers}, node)[0]


# What is gained by summing before an operation. Where elements only change their place, nothing.
GAINS = {
    "convert_element_type": FACTORED,
    **dict.fromkeys(("dot_general", "conv_general_dilated", "triangular_solve", "tridiagonal_solve"), MOVED),
    **dict.fromkeys(("fft", "cumsum", "reduce_window_sum", "select_and_scatter_add"), MOVED),
}


def _as_exact(operand: Value, result: Value) -> bool:
    """Whether a sum of operands is rounded no more than a sum of results."""
    if not (ordinary(operand.aval) and _real(operand)):
        return False
    return jnp.finfo(operand.dtype).nmant >= jnp.finfo(result.dtype).nmant
