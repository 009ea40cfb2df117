"""Differential operators applied to a whole program, one equation after the other: collapsed Taylor mode.

A tower of jvps makes one derivative at a time, each from the program of the one before. Here every value z of the
program gets the derivatives p(D) z that are needed of it, for operators p in a few directions, by what is known of
linear equations, products and functions of one array (see `operators`). Derivatives are symmetric in their directions,
and sums of them are taken together, by construction; each is an array of its own, of the shape of z, so that no axis
of directions is in the way of the lanes.

Fewer programs can be treated so than by jvp: those of linear equations, products, quotients and functions of one
array, element by element. The slopes f', f'', ... of the latter are JAX's own, those of custom rules among them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

import jax.numpy as jnp
from jax import lax

from jaxpartials import _jax
from jaxpartials.graph.graph import LEAVES, Graph, Node, Value, dependents, is_zero, reach
from jaxpartials.operators import Operator, of_function, of_product
from jaxpartials.rewrite.local import equation, fill, ordinary
from jaxpartials.structure.axes import independent
from jaxpartials.structure.axes_rules import elementwise
from jaxpartials.structure.rules import EACH, RULES

LINEAR, FUNCTION, PRODUCT, QUOTIENT = "linear", "function", "product", "quotient"


class Unsuitable(Exception):
    """A program that this way of differentiating does not reach."""


class Taylor:
    """Derivatives of the values of one graph along some directions.

    Args:
        graph: the program, which grows.
        directions: for each the inputs that move and where to, an array of the input's shape.
        order: of the operators; derivatives of more than half of it are summed before they are computed.
        slope: slope(y, x) is the derivative of y, a function of x element by element.
    """

    def __init__(
        self,
        graph: Graph,
        directions: Sequence[Mapping[Value, Value]],
        order: int,
        slope: Callable[[Value, Value], Value],
    ):
        self.graph, self.directions, self.order, self.half, self.slope = graph, directions, order, order / 2, slope
        self.inputs = list(dict.fromkeys(v for direction in directions for v in direction))
        self.found: dict[tuple[Value, Operator], Value | None] = {}
        self.symbols: dict[Any, Value] = {}
        self.slopes: dict[tuple[Node, int], list[Value]] = {}
        self.elementwise: dict[tuple[Node, int], bool] = {}
        self.moving: set[int] = set()

    def apply(self, value: Value, operators: Sequence[Operator]) -> list[Value | None]:
        """Each operator applied to a value; None stands for zero.

        Raises:
            Unsuitable: where an equation on the way is of another kind.
        """
        self.moving = dependents([value], self.inputs)
        nodes = [node for node in reach([value], self.inputs) if node.number in self.moving and node.name not in LEAVES]
        needed: dict[Value, dict[Operator, None]] = {value: dict.fromkeys(operators)}
        for node in reversed(nodes):
            for out in node.outputs:
                for operator in needed.get(out, ()):
                    for operand, part in self._needs(node, operator):
                        needed.setdefault(operand, {})[part] = None
        for node in nodes:
            self.graph.origin = node.source, node.context
            for out in node.outputs:
                for operator in needed.get(out, ()):
                    if (out, operator) not in self.found:
                        self.found[out, operator] = self._equation(node, out, operator)
        return [self._of(value, operator) for operator in operators]

    # ---- one equation

    def _moving(self, node: Node) -> list[int]:
        """The operands that change with the inputs, and have derivatives."""
        return [
            k
            for k, v in enumerate(node.operands)
            if v.node.number in self.moving and jnp.issubdtype(v.dtype, jnp.inexact)
        ]

    def _kind(self, node: Node) -> str:
        moving = self._moving(node)
        rule = RULES.get(node.name)
        if not moving:
            return LINEAR  # in numbers that have no derivative
        if rule is None or node.effects or not all(map(_is_real, (*node.operands, *node.outputs))):
            raise Unsuitable(node.name)
        operands = {node.operands[k] for k in moving}
        if node.bodies:
            if len(operands) == 1 and self._is_elementwise(node, moving[0]):
                return FUNCTION
            raise Unsuitable(node.name)
        if rule.linear == EACH and len(moving) < 2:
            return LINEAR
        if isinstance(rule.linear, slice) and set(moving) <= set(range(len(node.operands))[rule.linear]):
            return LINEAR
        if rule.axes is elementwise and len(operands) == 1 and operands.pop().shape == node.outputs[0].shape:
            return FUNCTION
        if rule.linear == EACH and len(node.operands) == 2:
            return PRODUCT
        if node.name == "div":
            return QUOTIENT
        raise Unsuitable(node.name)

    def _is_elementwise(self, node: Node, place: int) -> bool:
        """Whether a function with a rule of its own is one of each element, the rule and its derivatives too."""
        z, key = node.operands[place], (node, place)
        if key not in self.elementwise:
            found = node.name == "custom_jvp_call" and [v.shape for v in node.outputs] == [z.shape]
            if found:
                symbol = self._symbol(z)
                (out,) = self._place(node, [symbol if v is z else v for v in node.operands])
                axes = range(len(z.shape))
                found = all(independent(out, a, [(symbol, a)], self.order) is None for a in axes)
            self.elementwise[key] = found
        return self.elementwise[key]

    def _symbol(self, z: Value) -> Value:
        if z.aval not in self.symbols:
            self.symbols[z.aval] = self.graph.placeholder(z.aval)
        return self.symbols[z.aval]

    def _needs(self, node: Node, operator: Operator) -> Iterator[tuple[Value, Operator]]:
        """What is to be applied to the operands, to have `operator` applied to the result."""
        kind, operands = self._kind(node), node.operands
        if kind == LINEAR:
            yield from ((operands[k], operator) for k in self._moving(node))
        elif kind == FUNCTION:
            yield from self._inside(operands[self._moving(node)[0]], operator)
        else:
            for _, left, right in of_product(operator, self.half):
                if left is not None:
                    yield operands[0], left
                if right is not None:
                    yield from self._inside(operands[1], right) if kind == QUOTIENT else [(operands[1], right)]

    def _inside(self, x: Value, operator: Operator) -> Iterator[tuple[Value, Operator]]:
        for _, terms in of_function(operator, self.half):
            yield from ((x, part) for _, parts in terms for part in parts)

    def _equation(self, node: Node, out: Value, operator: Operator) -> Value | None:
        kind = self._kind(node)
        if kind == LINEAR:
            return self._linear(node, out, operator)
        if kind == FUNCTION:
            return self._function(node, self._moving(node)[0], operator)
        if kind == PRODUCT:
            return self._product(node.operands, operator, lambda x, y: self._place(node, [x, y])[0])
        # x / y as the product of x and 1 / y
        x, y = node.operands
        inverse = equation(self.graph, lax.div_p, fill(self.graph, 1, y.dtype, y.shape), y)
        if inverse.node.name != "div":
            raise Unsuitable(node.name)
        for _, _, right in of_product(operator, self.half):
            if right is not None and (inverse, right) not in self.found:
                self.found[inverse, right] = self._function(inverse.node, 1, right)
        return self._product((x, inverse), operator, lambda x, y: self._times([x, y]))

    def _linear(self, node: Node, out: Value, operator: Operator) -> Value | None:
        """p(D) (A z) = A p(D) z, what does not move being constant."""
        moved = {k: self._of(node.operands[k], operator) for k in self._moving(node)}
        if all(v is None for v in moved.values()):
            return None
        rule = RULES[node.name]
        inside = range(len(node.operands))[rule.linear] if isinstance(rule.linear, slice) else moved
        operands = []
        for k, v in enumerate(node.operands):
            new = moved.get(k) if k in inside else v
            operands.append(fill(self.graph, 0, v.dtype, v.shape) if new is None else new)
        return self._place(node, operands)[out.index]

    def _product(
        self, factors: Sequence[Value], operator: Operator, product: Callable[[Value, Value], Value]
    ) -> Value | None:
        terms = []
        for number, left, right in of_product(operator, self.half):
            x = factors[0] if left is None else self._of(factors[0], left)
            y = factors[1] if right is None else self._of(factors[1], right)
            if x is not None and y is not None:
                terms.append((number, product(x, y)))
        return self._sum(terms)

    def _function(self, node: Node, place: int, operator: Operator) -> Value | None:
        """p(D) f(z) = sum_r f^(r)(z) (sum of products of derivatives of z)"""
        z, found = node.operands[place], []
        for r, products in of_function(operator, self.half):
            terms = []
            for number, parts in products:
                factors = [self._of(z, part) for part in parts]
                if None not in factors:
                    terms.append((number, self._times([v for v in factors if v is not None])))
            inner = self._sum(terms)
            slope = None if inner is None else self._slope(node, place, r)
            if inner is not None and slope is not None and not is_zero(slope):
                found.append((Fraction(1), self._times([slope, inner])))
        return self._sum(found)

    def _slope(self, node: Node, place: int, r: int) -> Value:
        """f^(r)(z), differentiated apart from z, which may itself be a function of something else."""
        z = node.operands[place]
        symbol = self._symbol(z)
        chain = self.slopes.get((node, place))
        if chain is None:
            (out,) = self._place(node, [symbol if v is z else v for v in node.operands])
            chain = self.slopes[node, place] = [out]
        while len(chain) <= r:
            chain.append(self.slope(chain[-1], symbol))
        return self.graph.replace([chain[r]], {symbol: z})[chain[r]]

    # ---- small equations

    def _of(self, value: Value, operator: Operator) -> Value | None:
        if value not in self.inputs:
            return self.found.get((value, operator))
        if len(operator[0][0]) > 1:
            return None
        seeds = [(number, self.directions[s].get(value)) for (s,), number in operator]
        return self._sum([(number, seed) for number, seed in seeds if seed is not None])

    def _place(self, node: Node, operands: Sequence[Value]) -> tuple[Value, ...]:
        return self.graph.add(
            node.primitive, operands, node.params, [v.aval for v in node.outputs], name=node.name,
            bodies=node.bodies, opaque=node.opaque, source=node.source, context=node.context,
        )  # fmt: skip

    def _times(self, factors: Sequence[Value]) -> Value:
        first, *rest = sorted(factors, key=lambda v: (v.node.number, v.index))
        for factor in rest:
            first = equation(self.graph, lax.mul_p, first, factor, out_dtype=None)
        return first

    def _sum(self, terms: Sequence[tuple[Fraction, Value]]) -> Value | None:
        """Those with one coefficient are added before they are multiplied by it."""
        groups: dict[Fraction, Value] = {}
        for number, value in terms:
            size = abs(number)
            if size not in groups:
                groups[size] = value if number > 0 else equation(self.graph, lax.neg_p, value)
            else:
                primitive = lax.add_p if number > 0 else lax.sub_p
                groups[size] = equation(self.graph, primitive, groups[size], value)
        total = None
        for size, value in groups.items():
            part = self.scaled(value, size)
            total = part if total is None else equation(self.graph, lax.add_p, total, part)
        return total

    def scaled(self, value: Value, number: Fraction) -> Value:
        if number == 1:
            return value
        return equation(self.graph, lax.mul_p, fill(self.graph, float(number), value.dtype, ()), value, out_dtype=None)


def _is_real(value: Value) -> bool:
    """Whether this is an array of real numbers, or of none, that lies in one piece."""
    plain = ordinary(value.aval) and not _jax.varying_axes(value.aval)
    return plain and not jnp.issubdtype(value.dtype, jnp.complexfloating)
