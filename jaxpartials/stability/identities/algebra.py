"""The values of a program as sums and products, whatever order and signs they are written in."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import jax.numpy as jnp
from jax import lax

from jaxpartials.graph.graph import Graph, Value
from jaxpartials.rewrite.local import equation, fill
from jaxpartials.stability.identities.conversions import RealForms
from jaxpartials.stability.identities.values import converted, fill_with, is_numeric, number, plain, times

MOST_PARTS = 8  # longer sums and products are not opened

Terms = list[tuple[Fraction, Value | None]]
Factors = list[tuple[Value, Fraction]]


class Algebra:
    """The values of a graph as sums and products.

    Values that a program does not have, such as the rest of a sum, are made in the graph as they are needed.
    """

    def __init__(self, graph: Graph, rows: Mapping[str, Sequence[Any]] | None = None):
        self.graph = graph
        self.rows = rows or {}  # by the primitives that their formulas end with
        self.forms = RealForms()
        self._opened: dict[Any, Any] = {}

    # ---- reading

    def terms(self, value: Value) -> Terms:
        """The terms of a sum, with the numbers in front of them; None is the number 1."""
        return self._kept("terms", value, self._read_terms)

    def factors(self, value: Value) -> tuple[Fraction, Factors]:
        """The factors of a product, with their powers, and the number in front of it."""
        return self._kept("factors", value, self._read_factors)

    def _kept(self, kind, value, read):
        if (kind, value) not in self._opened:
            self._opened[kind, value] = read(value)
        return self._opened[kind, value]

    def _read_terms(self, value: Value) -> Terms:
        found: Terms = []
        stack: list[tuple[Fraction, Value]] = [(Fraction(1), value)]
        while stack:
            c, v = stack.pop()
            v = plain(v)
            node, n = v.node, number(v)
            if n is not None:
                found.append((c * n, None))
            elif not is_numeric(v):
                found.append((c, v))
            elif node.name in ("add", "add_any"):
                stack += [(c, node.operands[1]), (c, node.operands[0])]
            elif node.name == "sub":
                stack += [(-c, node.operands[1]), (c, node.operands[0])]
            elif node.name == "neg":
                stack.append((-c, node.operands[0]))
            elif node.name in ("mul", "div") and number(node.operands[1]):
                by = number(node.operands[1]) or Fraction(1)
                stack.append((c * by if node.name == "mul" else c / by, node.operands[0]))
            elif node.name == "mul" and number(node.operands[0]):
                stack.append((c * (number(node.operands[0]) or 1), node.operands[1]))
            else:
                found.append((c, v))
            if len(found) + len(stack) > MOST_PARTS:
                return [(Fraction(1), value)]
        return found

    def _read_factors(self, value: Value) -> tuple[Fraction, Factors]:
        c, found = Fraction(1), []
        stack: list[tuple[Value, Fraction]] = [(value, Fraction(1))]
        while stack:
            v, p = stack.pop()
            v = plain(v)
            node, n = v.node, number(v)
            whole = p.denominator == 1
            if n and whole:
                c *= n ** int(p)
            elif not is_numeric(v) or not whole:
                found.append((v, p))
            elif node.name in ("mul", "div"):
                by = -p if node.name == "div" else p
                stack += [(node.operands[1], by), (node.operands[0], p)]
            elif node.name == "neg":
                c *= (-1) ** int(p)
                stack.append((node.operands[0], p))
            elif node.name == "square":
                stack.append((node.operands[0], 2 * p))
            elif node.name == "integer_pow":
                stack.append((node.operands[0], node.params["y"] * p))
            elif node.name == "pow" and number(node.operands[1]) is not None:
                power = number(node.operands[1]) or Fraction(0)
                stack.append((node.operands[0], power * p))
            elif node.name in ("sqrt", "rsqrt"):
                stack.append((node.operands[0], p / 2 if node.name == "sqrt" else -p / 2))
            elif node.name == "abs" and p % 2 == 0:
                stack.append((node.operands[0], p))
            else:
                found.append((v, p))
            if len(found) + len(stack) > MOST_PARTS:
                return Fraction(1), [(value, Fraction(1))]
        return self._together(c, found)

    def _together(self, c: Fraction, found: Factors) -> tuple[Fraction, Factors]:
        """Powers of one base are one power."""
        kept: Factors = []
        for v, p in found:
            for i, (u, q) in enumerate(kept):
                ratio = self.ratio(v, u)
                if ratio is not None and (ratio == 1 or p.denominator == 1):
                    c, kept[i] = c * (1 if ratio == 1 else ratio ** int(p)), (u, p + q)
                    break
            else:
                kept.append((v, p))
        return c, [(v, p) for v, p in kept if p]

    def exponent(self, value: Value) -> Value | None:
        """u, if the value is exp u."""
        value = plain(value)
        if value.node.name == "exp":
            return value.node.operands[0]
        if value.node.name in ("mul", "div", "integer_pow", "square"):
            c, factors = self.factors(value)
            if c == 1 and factors and all(v.node.name == "exp" and p.denominator == 1 for v, p in factors):
                return self.sum([(p, v.node.operands[0]) for v, p in factors])
        return None

    def ratio(self, one: Value, other: Value) -> Fraction | None:
        """The number r with one = r · other."""
        a, b = self.forms[one], self.forms[other]
        if a.core != b.core or not b.number:
            return None
        axes = [form.axes or (None,) * max(len(a.axes), len(b.axes)) for form in (a, b)]
        return a.number / b.number if axes[0] == axes[1] else None

    def same(self, one: Value, other: Value) -> bool:
        return self.ratio(one, other) == 1

    # ---- making

    def number(self, n: Fraction | float, like: Value) -> Value:
        return fill(self.graph, float(n), like.dtype, ())

    def scaled(self, n: Fraction, value: Value) -> Value:
        return times(self.graph, n, value)

    def sum(self, terms: Sequence[tuple[Fraction, Value | None]], like: Value | None = None) -> Value:
        """The sum of some terms, the positive ones first; an empty one needs a value to be `like`."""
        total: Value | None = None
        like = next((v for _, v in terms if v is not None), like)
        assert like is not None
        for c, v in sorted(terms, key=lambda term: term[0] < 0):
            if v is None:
                v, c = self.number(c, like), Fraction(1)
            if total is not None and c < 0:
                total = equation(self.graph, lax.sub_p, *self._alike(total, self.scaled(-c, v)))
            else:
                v = self.scaled(c, v)
                total = v if total is None else equation(self.graph, lax.add_p, *self._alike(total, v))
        return self.number(0, like) if total is None else total

    def product(self, factors: Factors) -> Value:
        """The product of some factors, the denominators last."""
        above: Value | None = None
        below: Value | None = None
        for v, p in factors:
            power = self._power(v, abs(p))
            if p > 0:
                above = power if above is None else self._times(above, power)
            else:
                below = power if below is None else self._times(below, power)
        if below is None:
            assert above is not None
            return above
        above = self.number(1, below) if above is None else above
        return equation(self.graph, lax.div_p, *self._alike(above, below))

    def _times(self, one: Value, other: Value) -> Value:
        return equation(self.graph, lax.mul_p, *self._alike(one, other), out_dtype=None)

    def _alike(self, one: Value, other: Value) -> tuple[Value, Value]:
        """Both of one rank, a scalar spread out, and of one type, the wider one."""
        shape, dtype = one.shape or other.shape, jnp.promote_types(one.dtype, other.dtype)
        one, other = (v if v.shape else fill_with(self.graph, v, shape) for v in (one, other))
        return tuple(v if v.dtype == dtype else converted(self.graph, v, dtype) for v in (one, other))  # type: ignore

    def _power(self, value: Value, power: Fraction) -> Value:
        if power == 1:
            return value
        if power == Fraction(1, 2):
            return equation(self.graph, lax.sqrt_p, value, accuracy=None)
        if power.denominator == 1:
            return equation(self.graph, lax.integer_pow_p, value, y=int(power))
        by = self.number(power, value)
        return equation(self.graph, lax.pow_p, value, fill_with(self.graph, by, value.shape) if value.shape else by)

    # ---- taking away

    def without_terms(self, have: Terms, taken: Terms) -> Terms | None:
        """What is left of a sum without some of its terms, if it has them."""
        left = list(have)
        for c, v in taken:
            for i, (d, u) in enumerate(left):
                if u is None or v is None:
                    fits = u is v and c == d
                else:
                    ratio = self.ratio(v, u)
                    fits = ratio is not None and c * ratio == d
                if fits:
                    del left[i]
                    break
            else:
                return None
        return left

    def without_factors(self, have: Factors, taken: Value, power: Fraction) -> tuple[Fraction, Factors] | None:
        """What is left of a product without the power of a value, if it has that."""
        number, factors = self.factors(taken)
        if power.denominator != 1 and number != 1:
            return None
        c, left = Fraction(1) if number == 1 else number ** -int(power), list(have)
        for v, p in factors:
            for i, (u, q) in enumerate(left):
                ratio = self.ratio(u, v)
                if ratio is None or q * p * power <= 0 or abs(q) < abs(p * power):
                    continue
                if ratio != 1 and (p * power).denominator != 1:
                    continue
                c *= 1 if ratio == 1 else ratio ** int(p * power)
                left[i] = (u, q - p * power)
                break
            else:
                return None
        return c, [(v, p) for v, p in left if p]
