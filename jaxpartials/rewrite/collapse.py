"""A sum over an axis moves towards the inputs, through everything linear in what is summed:

    sum_i w_i L(x_i)  =  L(sum_i w_i x_i)        for L linear and the same for every i.

A tower of two forward derivatives carries one second-order tangent for each direction i,

    z_i'' = f''(z) (z_i')^2 + f'(z) A h_i'',

which is linear in itself. With the sum over the directions inside, one such tangent is carried for all of them,

    sum_i z_i'' = f''(z) sum_i (z_i')^2 + f'(z) A sum_i h_i'',

and nested jvp has become the forward Laplacian; higher operators collapse likewise, axis by axis.

Where the sum of a product ends, the product of what varies along the axis stays, and what does not is taken outside.

Source: Li et al., A computational framework for neural network-based variational Monte Carlo with Forward Laplacian,
Nature Machine Intelligence 2024; Dangel et al., Collapsing Taylor Mode Automatic Differentiation, 2025.
"""

import math
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxpartials.graph.cost import cost_of
from jaxpartials.graph.graph import LEAVES, Graph, Node, Value, is_zero, reach
from jaxpartials.rewrite.algebra import fill, ordinary
from jaxpartials.rewrite.collapse_loops import Loop, movable
from jaxpartials.rewrite.slices import (
    Known,
    expanded,
    expanded_at,
    make,
    origins,
    plain,
    renumbered,
    sliced,
    spread,
    squeeze,
    thin,
    transposed,
    without,
)
from jaxpartials.rewrite.transposed import ROUNDING, transpose_sums
from jaxpartials.structure.rules import EACH, NEVER, RULES

# What became of a sum: it stands where it stood; factors were taken outside; it went through an operation that is
# now done once instead of for every element.
STAYED, FACTORED, MOVED = range(3)

PRODUCTS = frozenset({"mul", "neg", "div", "square", "integer_pow"})
MUL = {"out_dtype": None}

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
    kept = _outside([*values, *held])
    for _ in range(2):
        found = _Sums(graph, kept, loops=loops).rewritten(values)
        if found == values:
            break
        spent = cost_of(found, effects)
        if spent.flops <= before.flops and spent.time < least.time:
            best, least = found, spent
        needed = {*found, *held, *(v for node in reach([*found, *held]) for v in node.operands)}
        if needed <= kept:
            break
        kept = needed
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


class Want(NamedTuple):
    """sum over `axes` of weight * value: without those axes. The weight has the value's rank."""

    value: Value
    axes: tuple[int, ...]
    weight: Value | None = None


Answer = tuple[Value, int]
Steps = Generator[Want, Answer, Answer]


class _Sums:
    """One pass: the sums of values of one graph, each made once."""

    def __init__(
        self,
        graph: Graph,
        kept: set[Value],
        inputs: Callable[[Value, tuple[int, ...]], Value | None] | None = None,
        loops: bool = True,
    ):
        self.graph = graph
        self.kept = kept  # values that are needed as they are
        self.inputs = inputs  # of a body: the sums of its inputs
        self.known: Known = {}
        self.answers: dict[Want, Answer] = {}
        self.patience = 0
        self.loops: dict[Node, Loop] | None = {} if loops else None

    # ---- the program

    def rewritten(self, values: Sequence[Value]) -> list[Value]:
        """The values, from the inputs on, with every sum moved."""
        done: dict[Value, Value] = {}
        nodes = reach(values)
        self.patience = PATIENCE * len(nodes) + 1000
        for node in nodes:
            if node.name in LEAVES or node.effects:
                done.update((v, v) for v in node.outputs)
                continue
            operands = [done[v] for v in node.operands]
            outputs: Sequence[Value] = node.outputs
            if any(new is not old for new, old in zip(operands, node.operands, strict=True)):
                outputs = self.graph.add(
                    node.primitive, operands, node.params, [v.aval for v in node.outputs], name=node.name,
                    bodies=node.bodies, opaque=node.opaque, source=node.source, context=node.context,
                )  # fmt: skip
            if _is_root(outputs[0].node):
                outputs = [self._root(outputs[0])]
            done.update(zip(node.outputs, outputs, strict=True))
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
                    answer = self._stay(asked), STAYED
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
            product = x if weight is None else self._product([x, weight])
            return product, STAYED
        if is_zero(x):
            shape = x.shape if weight is None else np.broadcast_shapes(x.shape, weight.shape)
            return fill(self.graph, 0, x.dtype, without(shape, axes)), MOVED
        if self.inputs is not None and weight is None and (found := self.inputs(x, axes)) is not None:
            return found, FACTORED
        if self.patience < 0 or x in self.kept or not _real(x):
            return self._stay(want), STAYED
        if weight is None and self.loops is not None and movable(node):
            return (yield from self._sum_loop(want))
        if not plain(node):
            return self._stay(want), STAYED
        if node.name in PRODUCTS or (
            weight is not None and (node.name == "broadcast_in_dim" or any(weight.shape[a] == 1 for a in axes))
        ):
            return (yield from self._sum_product(want))
        if node.name == "reduce_sum":
            return (yield from self._sum_sum(want))
        return (yield from self._sum_linear(want))

    def _stay(self, want: Want) -> Value:
        """The sum where it is."""
        x, axes, weight = want
        if weight is None:
            return self._reduce(x, axes)
        return self._contract([x, weight], axes)

    def _reduce(self, x: Value, axes: Sequence[int]) -> Value:
        if not axes:
            return x
        params = {"axes": tuple(sorted(axes)), "out_sharding": None}
        return make(self.graph, lax.reduce_sum_p, [x], params, x.node)[0]

    def _product(self, factors: Sequence[Value]) -> Value:
        """Of values of one rank; axes of length 1 stretch. In the order in which they were made."""
        first, *rest = sorted(factors, key=lambda v: (v.node.number, v.index))
        for factor in rest:
            first = make(self.graph, lax.mul_p, [first, factor], MUL, max(first.node, factor.node, key=_number))[0]
        return first

    def _contract(self, factors: Sequence[Value], axes: Sequence[int]) -> Value:
        """The sum over axes of a product: a matrix product where the factors have no other axis in common."""
        if len(factors) == 2:
            x, y = factors
            both = [a for a in range(len(x.shape)) if x.shape[a] > 1 and y.shape[a] > 1]
            if sorted(both) == sorted(axes):
                return self._dot(x, y, axes)
        return self._reduce(self._product(factors), axes)

    def _dot(self, x: Value, y: Value, axes: Sequence[int]) -> Value:
        rank = len(x.shape)
        of_y = [a for a in range(rank) if a not in axes and y.shape[a] > 1]
        of_x = [a for a in range(rank) if a not in axes and a not in of_y]
        lhs = squeeze(self.graph, x, of_y) if of_y else x
        rhs = squeeze(self.graph, y, of_x) if of_x else y
        contracted = renumbered(axes, of_y), renumbered(axes, of_x)
        params = {
            "dimension_numbers": (contracted, ((), ())),
            "precision": None,
            "preferred_element_type": x.dtype,
            "out_sharding": None,
        }
        (out,) = make(self.graph, lax.dot_general_p, [lhs, rhs], params, max(x.node, y.node, key=_number))
        order = [*of_x, *of_y]
        return transposed(self.graph, out, [order.index(a) for a in sorted(order)])

    # ---- products

    def _sum_product(self, want: Want) -> Steps:
        """sum_i,j a b_i c_i d_j  ->  a (sum_i b_i c_i) (sum_j d_j)

        The axes that fewest factors vary along are summed first.
        """
        x, axes, weight = want
        divisors: list[Value] = []
        factors: list[Value] = []
        negative = self._flatten(x, axes, factors, divisors)
        if weight is not None:
            factors.append(weight)
        rank = len(x.shape)
        lengths = [max(f.shape[a] for f in [x, *factors] if f.shape) for a in range(rank)]
        varying = [self._narrow(self._peeled(f), axes) for f in factors]
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
            outer = [(squeeze(self.graph, f, here) if f.shape else f, v) for f, v in outer]
            if not inner:
                scale *= math.prod(lengths[a] for a in now)
                gain = MOVED
            else:
                values = [f for f, _ in inner]
                if len(values) > 1:
                    result, moved = yield from self._sum_several(values, tuple(here))
                else:
                    result, moved = yield Want(values[0], tuple(here))
                gain = max(gain, moved)
                if now != sorted(axes):
                    gain = max(gain, FACTORED)
                outer.append((result, frozenset().union(*(v for _, v in inner)) - set(now)))
            varying, todo = outer, todo - set(now)
            left = [a for a in left if a not in now]
        if gain == STAYED:
            return self._stay(want), STAYED
        shape = [lengths[a] for a in left]
        result = self._assembled([f for f, _ in varying], shape, x)
        if scale != 1 or negative:
            result = self._scaled(result, -scale if negative else scale)
        for divisor in divisors:
            result = make(self.graph, lax.div_p, [result, divisor], {}, x.node)[0]
        return result, gain

    def _assembled(self, factors: Sequence[Value], shape: Sequence[int], x: Value) -> Value:
        """The product, in this shape."""
        if not factors:
            return fill(self.graph, 1, x.dtype, shape)
        arrays = [f for f in factors if f.shape or not shape]
        numbers = [f for f in factors if not (f.shape or not shape)]
        result = self._product(arrays) if arrays else self._product(numbers)
        if arrays:
            for factor in numbers:
                result = make(self.graph, lax.mul_p, [result, factor], MUL, x.node)[0]
        places = range(len(shape)) if result.shape or not shape else ()
        return spread(self.graph, result, shape, list(places))

    def _scaled(self, x: Value, by: int) -> Value:
        if by == 1:
            return x
        if by == -1:
            return make(self.graph, lax.neg_p, [x], {}, x.node)[0]
        return make(self.graph, lax.mul_p, [x, fill(self.graph, by, x.dtype, x.shape)], MUL, x.node)[0]

    def _flatten(self, x: Value, axes: Sequence[int], factors: list[Value], divisors: list[Value]) -> bool:
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
            elif node.name == "div" and (lower := self._lower(node.operands[1], axes, x)) is not None:
                divisors.append(lower)
                stack.append(node.operands[0])
            else:
                factors.append(value)
        return negative

    def _lower(self, divisor: Value, axes: Sequence[int], x: Value) -> Value | None:
        if not divisor.shape:
            return divisor
        return thin(self.graph, divisor, axes, self.known)

    def _peeled(self, factor: Value) -> Value:
        """A broadcast factor before its axes are repeated: with length 1 along them."""
        node = factor.node
        if node.name != "broadcast_in_dim" or len(node.operands) != 1 or not ordinary(node.operands[0].aval):
            return factor
        inner = node.operands[0]
        return expanded_at(self.graph, inner, node.params["broadcast_dimensions"], len(factor.shape))

    def _narrow(self, factor: Value, axes: Sequence[int]) -> tuple[Value, frozenset[int]]:
        """A factor with length 1 along the axes that it does not vary along; and those that it does."""
        if not factor.shape:
            return factor, frozenset()
        varying = set()
        for a in axes:
            if factor.shape[a] == 1:
                continue
            thinned = thin(self.graph, factor, [a], self.known)
            if thinned is None:
                varying.add(a)
            else:
                factor = expanded(self.graph, thinned, [a], len(factor.shape))
        return factor, frozenset(varying)

    def _sum_several(self, factors: Sequence[Value], axes: tuple[int, ...]) -> Steps:
        """The sum of a product of which all factors vary: of one of them, with the others for weights, if it moves."""
        for i, x in enumerate(factors):
            others = [*factors[:i], *factors[i + 1 :]]
            if x in others or x in self.kept or not plain(x.node) or x.node.name in PRODUCTS:
                continue
            if RULES[x.node.name].linear == NEVER:
                continue
            answer = yield Want(x, axes, self._product(others))
            if answer[1] == MOVED:
                return answer
        return self._contract(factors, axes), STAYED

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
        return (self._stay(want), STAYED) if found is None else (self._reduce(found, steps), MOVED)

    def _inner(self, body: Graph, inputs: Callable) -> "_Sums":
        sums = _Sums(body, set(), inputs)
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

    # ---- linear equations

    def _sum_linear(self, want: Want) -> Steps:
        """sum_i w_i L(x_i) -> L(sum_i w_i x_i), for as many of the axes as L lets through."""
        x, axes, weight = want
        node = x.node
        row = RULES[node.name]
        stay = STAYED
        if node.name in ROUNDING or (row.linear not in (EACH,) and not isinstance(row.linear, slice)):
            return self._stay(want), stay
        if row.linear == EACH and node.name not in ("dot_general", "conv_general_dilated"):
            return self._stay(want), stay
        places = {}
        besides = [] if weight is None else [a for a in range(len(x.shape)) if weight.shape[a] > 1 and a not in axes]
        if weight is not None and any(weight.shape[a] not in (1, x.shape[a]) for a in range(len(x.shape))):
            return self._stay(want), stay
        for a in [*axes, *besides]:
            found = origins(node, x.index, a)
            if found is None and a in besides:
                return self._stay(want), stay
            if found is not None:
                places[a] = found
        moving = range(len(node.operands))
        moving = list(moving if row.linear == EACH else moving[row.linear])
        if not all(_as_exact(node.operands[k], x) for k in moving):
            return self._stay(want), stay
        through = [a for a in axes if a in places and self._passes(node, places[a], moving, row.linear == EACH)]
        if row.linear == EACH and not through and weight is None:
            contraction = self._join_batch(x, axes, places)
            return (contraction, MOVED) if contraction is not None else (self._stay(want), stay)
        if not through or (weight is not None and through != list(axes)):
            return self._stay(want), stay
        made = yield from self._through(x, through, besides, places, moving, weight, row.linear == EACH)
        if made is None:
            return self._stay(want), stay
        result, gain = made
        rest = renumbered([a for a in axes if a not in through], through)
        if gain == STAYED:
            return self._stay(want), stay
        return self._reduce(result, rest), gain

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
                value = self._scaled(value, repeats)
                gain = MOVED if node.name == "broadcast_in_dim" else max(gain, FACTORED)
            operands.append(value)
        if each:
            repeats = math.prod(x.shape[a] for a in through if not any(a in v for v in vary))
        result = sliced(self.graph, node, x.index, operands, drops, sorted(through))
        if each and repeats > 1:
            result = self._scaled(result, repeats)
        return result, gain

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
            tuple((*contracted[side], *(batch[side][a] for a in axes)) for side in (0, 1)),
            tuple(without(batch[side], axes) for side in (0, 1)),
        )
        return make(self.graph, node.primitive, node.operands, {**node.params, "dimension_numbers": numbers}, node)[0]


# What is gained by summing before an operation. Where elements only change their place, nothing.
GAINS = {
    "convert_element_type": FACTORED,
    **dict.fromkeys(("dot_general", "conv_general_dilated", "triangular_solve", "tridiagonal_solve"), MOVED),
    **dict.fromkeys(("fft", "cumsum", "reduce_window_sum", "select_and_scatter_add"), MOVED),
}


def _number(node: Node) -> int:
    return node.number


def _as_exact(operand: Value, result: Value) -> bool:
    """Whether a sum of operands is rounded no more than a sum of results."""
    if not (ordinary(operand.aval) and _real(operand)):
        return False
    return jnp.finfo(operand.dtype).nmant >= jnp.finfo(result.dtype).nmant
