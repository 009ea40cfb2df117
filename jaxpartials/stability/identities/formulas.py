"""Formulas to be looked for in a program: written as mathematics, found up to the laws of arithmetic.

    log(1 + exp(x))      is found in log(exp(a) + 1), x = a, and in log(1 + exp(-a)), x = -a
    (exp(x) - 1) / x     is found in b * (exp(2 * a) - 1) / a: it is 2 b times the formula at x = 2 a

Sums and products are opened: terms and factors may stand in any order, with signs and numbers in front. Two places of
one variable must hold values that are equal by the laws of linear algebra (`NormalForms`).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

from jax import lax

from jaxpartials import stable
from jaxpartials.graph.graph import LITERAL, Graph, Value
from jaxpartials.rewrite.local import equation, fill, is_real, ordinary
from jaxpartials.stability.identities.templates import arguments
from jaxpartials.structure.normal_form import NormalForms

MOST_PARTS = 8  # longer sums and products are not opened

# They change the place of an element, or its type from weak to not weak, never its value.
VIEWS = frozenset({"broadcast_in_dim", "reshape", "squeeze", "expand_dims", "copy", "convert_element_type"})

# What people have replaced by hand already.
OPERATIONS = {"tanh": stable.tanh, "logistic": stable.sigmoid}


# ---- formulas


class Formula:
    """A variable, a number, or a function, a sum or a product of formulas."""

    def __add__(self, other: "Formula | float") -> "Formula":
        return Sum((*_terms(self), *_terms(other)))

    def __radd__(self, other: float) -> "Formula":
        return Sum((*_terms(other), *_terms(self)))

    def __neg__(self) -> "Formula":
        return Sum(tuple((-c, f) for c, f in _terms(self)))

    def __sub__(self, other: "Formula | float") -> "Formula":
        return Sum((*_terms(self), *((-c, f) for c, f in _terms(other))))

    def __rsub__(self, other: float) -> "Formula":
        return Sum((*_terms(other), *((-c, f) for c, f in _terms(self))))

    def __mul__(self, other: "Formula | float") -> "Formula":
        return _product(self, other, 1)

    def __rmul__(self, other: float) -> "Formula":
        return _product(other, self, 1)

    def __truediv__(self, other: "Formula | float") -> "Formula":
        return _product(self, other, -1)

    def __rtruediv__(self, other: float) -> "Formula":
        return _product(other, self, -1)

    def __pow__(self, power: int) -> "Formula":
        return Product(Fraction(1), ((self, Fraction(power)),))


@dataclass(frozen=True, eq=False)
class Variable(Formula):
    name: str


@dataclass(frozen=True, eq=False)
class Apply(Formula):
    """A function of one argument, by the name of its primitive."""

    function: str
    argument: Formula


@dataclass(frozen=True, eq=False)
class Sum(Formula):
    terms: tuple[tuple[Fraction, Formula | None], ...]  # None is the number 1


@dataclass(frozen=True, eq=False)
class Product(Formula):
    coefficient: Fraction
    factors: tuple[tuple[Formula, Fraction], ...]  # with their powers


def _terms(f: Formula | float) -> tuple[tuple[Fraction, Formula | None], ...]:
    if not isinstance(f, Formula):
        return ((Fraction(f), None),)
    if isinstance(f, Sum):
        return f.terms
    if isinstance(f, Product) and f.coefficient != 1:
        return ((f.coefficient, Product(Fraction(1), f.factors)),)
    return ((Fraction(1), f),)


def _factors(f: Formula | float) -> tuple[Fraction, tuple[tuple[Formula, Fraction], ...]]:
    if not isinstance(f, Formula):
        return Fraction(f), ()
    if isinstance(f, Product):
        return f.coefficient, f.factors
    return Fraction(1), ((f, Fraction(1)),)


def _product(f: Formula | float, g: Formula | float, power: int) -> Formula:
    (c, first), (d, second) = _factors(f), _factors(g)
    return Product(c * d**power, (*first, *((h, p * power) for h, p in second)))


def sqrt(f: Formula) -> Formula:
    return Product(Fraction(1), ((f, Fraction(1, 2)),))


def _function(name: str):
    return lambda f: Apply(name, f)


exp, log, log1p, expm1 = map(_function, ("exp", "log", "log1p", "expm1"))
sin, cos, sinh, cosh, tanh, logistic = map(_function, ("sin", "cos", "sinh", "cosh", "tanh", "logistic"))
erfc, tan, acos = map(_function, ("erfc", "tan", "acos"))
x, y, z = map(Variable, "xyz")


# ---- what a value is made of

Terms = list[tuple[Fraction, Value | None]]
Factors = list[tuple[Value, Fraction]]
Bindings = dict[str, Value]


class Found(NamedTuple):
    """A value is `number` times the `others` times a formula, its variables being `at` these values."""

    number: Fraction
    others: Factors
    at: Bindings


class Algebra:
    """The values of a graph as sums and products, and where they have the form of a formula.

    Values that a program does not have, such as the rest of a sum, are made in the graph as they are needed.
    """

    def __init__(self, graph: Graph, rows: Mapping[str, Sequence[Any]] | None = None):
        self.graph = graph
        self.rows = rows or {}  # by the primitives that their formulas end with
        self.forms = NormalForms()
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
        if n == 1:
            return value
        if n == -1:
            return equation(self.graph, lax.neg_p, value)
        return equation(self.graph, lax.mul_p, value, self.number(n, value), out_dtype=None)

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
        """Both of one rank: a scalar is spread out."""
        shape = one.shape or other.shape
        return tuple(v if v.shape else fill_with(self.graph, v, shape) for v in (one, other))  # type: ignore

    def _power(self, value: Value, power: Fraction) -> Value:
        if power == 1:
            return value
        if power == Fraction(1, 2):
            return equation(self.graph, lax.sqrt_p, value, accuracy=None)
        if power.denominator == 1:
            return equation(self.graph, lax.integer_pow_p, value, y=int(power))
        by = self.number(power, value)
        return equation(self.graph, lax.pow_p, value, fill_with(self.graph, by, value.shape) if value.shape else by)

    # ---- finding

    def find(self, formula: Formula, value: Value) -> Found | None:
        """Where the value is a formula, times what else it is multiplied by."""
        if isinstance(formula, Product):
            return next(self._products(formula, value, {}, spare=True), None)
        return next((Found(c, [], at) for at, c in self._match(formula, value, {})), None)

    def _match(self, f: Formula, value: Value, at: Bindings) -> Iterator[tuple[Bindings, Fraction]]:
        value = plain(value)
        match f:
            case Variable(name):
                if name not in at:
                    yield {**at, name: value}, Fraction(1)
                elif self.same(value, at[name]):
                    yield at, Fraction(1)
            case Apply(function, argument):
                inner = self.exponent(value) if function == "exp" else None
                if inner is None:
                    inner = applied(value, function)
                if inner is not None:
                    for found, c in self._match(argument, inner, at):
                        if c == 1:
                            yield found, c
            case Sum():
                yield from self._sums(f.terms, self.terms(value), at, None)
            case Product():
                for found in self._products(f, value, at, spare=False):
                    yield found.at, found.number

    def _sums(self, wanted, have: Terms, at: Bindings, scale: Fraction | None) -> Iterator[tuple[Bindings, Fraction]]:
        """All of `have` is `scale` times all that is `wanted`."""
        if not wanted:
            if not have:
                yield at, scale if scale is not None else Fraction(1)
            return
        wanted = sorted(wanted, key=lambda term: _rank(term[1], at))
        (c, f), rest = wanted[0], wanted[1:]
        if isinstance(f, Variable) and f.name in at:
            for factor in [scale] if scale is not None else [Fraction(1), Fraction(-1)]:
                left = self.without_terms(have, [(c * factor * d, v) for d, v in self.terms(at[f.name])])
                if left is not None:
                    yield from self._sums(rest, left, at, factor)
        elif isinstance(f, Variable):
            if not have:
                return
            choices = [have] if not any(isinstance(g, Variable) for _, g in rest) else [[term] for term in have]
            by = c * (scale if scale is not None else 1)
            for chosen in choices:
                if all(v is None for _, v in chosen):
                    continue
                bound = self.sum([(d / by, v) for d, v in chosen])
                left = [term for term in have if term not in chosen]
                yield from self._sums(rest, left, {**at, f.name: bound}, by / c)
        else:
            for i, (d, v) in enumerate(have):
                left = have[:i] + have[i + 1 :]
                if f is None or v is None:
                    here = [(at, Fraction(1))] if f is None and v is None else []
                else:
                    here = self._match(f, v, at)
                for found, own in here:
                    factor = d * own / c
                    if factor and (scale is None or scale == factor):
                        yield from self._sums(rest, left, found, factor)

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

    def _products(self, f: Product, value: Value, at: Bindings, spare: bool) -> Iterator[Found]:
        c, have = self.factors(value)
        yield from self._takes(f.factors, have, at, c / f.coefficient, spare)

    def _takes(self, wanted, have: Factors, at: Bindings, c: Fraction, spare: bool) -> Iterator[Found]:
        """`have` is what is `wanted`, times a number, times what is to spare."""
        if not wanted:
            if not have or spare:
                yield Found(c, have, at)
            return
        wanted = sorted(wanted, key=lambda factor: _rank(factor[0], at))
        (f, p), rest = wanted[0], wanted[1:]
        if isinstance(f, Variable) and f.name in at:
            taken = self.without_factors(have, at[f.name], p)
            if taken is not None:
                yield from self._takes(rest, taken[1], at, c * taken[0], spare)
        elif isinstance(f, Variable):
            chosen = [(v, q) for v, q in have if q * p > 0 and (q / p).denominator == 1]
            if any(isinstance(g, Variable) and q * p > 0 for g, q in rest):
                chosen = chosen[:1]
            if chosen:
                bound = self.product([(v, q / p) for v, q in chosen])
                left = [factor for factor in have if factor not in chosen]
                yield from self._takes(rest, left, {**at, f.name: bound}, c, spare)
        else:
            for i, (v, q) in enumerate(have):
                if q == p:
                    for found, own in self._match(f, v, at):
                        if own == 1 or p.denominator == 1:
                            by = own ** int(p) if p.denominator == 1 else Fraction(1)
                            yield from self._takes(rest, have[:i] + have[i + 1 :], found, c * by, spare)
                elif p == 1 and isinstance(f, Apply) and f.function == v.node.name == "exp" and q.denominator == 1:
                    for found, own in self._match(f.argument, self.scaled(q, v.node.operands[0]), at):
                        if own == 1:
                            yield from self._takes(rest, have[:i] + have[i + 1 :], found, c, spare)

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


def _rank(f: Formula | None, at: Bindings) -> int:
    """What is most particular is looked for first, and a variable that nothing is known of last."""
    if isinstance(f, Variable):
        return 2 if f.name in at else 3
    return 1 if f is None else 0


# ---- what is known about values


def plain(value: Value) -> Value:
    """The same value without a conversion from one type to itself."""
    while value.node.name in ("convert_element_type", "copy") and value.node.operands[0].dtype == value.dtype:
        value = value.node.operands[0]
    return value


def number(value: Value) -> Fraction | None:
    """The number that every element of a value is known to be."""
    node = value.node
    while node.name in VIEWS:
        node = node.operands[0].node
    if node.name == "sub" and len(value.shape) == 0:  # the count of a variance: n − ddof
        one, other = map(number, node.operands)
        return None if one is None or other is None else one - other
    if node.name != LITERAL:
        return None
    found = node.params["value"]
    if found.dtype.kind not in "fiu" and not is_real(found.dtype):
        return None
    n = float(found)
    return Fraction(n) if math.isfinite(n) else None


def applied(value: Value, function: str) -> Value | None:
    """What a function of one argument was applied to, by the primitive of its name or by the operation of `stable`."""
    node = value.node
    if node.name == function:
        return node.operands[0]
    if node.name == "custom_jvp_call" and function in OPERATIONS:
        found = arguments(lambda one, other: one is other, OPERATIONS[function], 1, value)
        return None if found is None else found[0]
    return None


def root_of(value: Value) -> str:
    """The primitive that a value is the result of; a power of ½ is a root."""
    node = value.node
    return "sqrt" if node.name == "pow" and number(node.operands[1]) == Fraction(1, 2) else node.name


def is_numeric(value: Value) -> bool:
    """Whether this is an array of real floating-point numbers without an explicit sharding."""
    return ordinary(value.aval) and is_real(value.dtype)


def fill_with(graph: Graph, scalar: Value, shape: Sequence[int]) -> Value:
    return equation(
        graph, lax.broadcast_in_dim_p, scalar, shape=tuple(shape), broadcast_dimensions=(), sharding=None
    ) if shape else scalar  # fmt: skip


def is_nonnegative(value: Value, depth: int = 8) -> bool:
    """Whether no element of a value can be below zero, as far as can be told."""
    node, n = value.node, number(value)
    if n is not None:
        return n >= 0
    if node.name in ("exp", "exp2", "square", "abs", "sqrt", "logistic", "cosh"):
        return True
    if node.name == "integer_pow" and node.params["y"] % 2 == 0:
        return True
    if node.name == "mul" and node.operands[0] is node.operands[1]:
        return True
    passes = node.name in VIEWS or node.name in (
        "add",
        "mul",
        "div",
        "max",
        "reduce_sum",
        "reduce_max",
        "stop_gradient",
    )
    return depth > 0 and passes and all(is_nonnegative(v, depth - 1) for v in node.operands)
