"""Rows: identities of real numbers, the formula to the left and what is computed in its place to the right."""

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from jaxpartials import stable
from jaxpartials.graph.graph import Value
from jaxpartials.stability.identities.algebra import Algebra, Factors
from jaxpartials.stability.identities.formulas import Apply, Formula, Product
from jaxpartials.stability.identities.search import find
from jaxpartials.stability.identities.values import plain

Arrays = Any


@dataclass(frozen=True)
class Rewrite:
    """`emit` of the operands, times a number, is what a value is equal to, by the row asked or by the one it names.

    What `emit` closes over is no value of the program, so that it can be traced once for many places.
    """

    emit: Callable[..., Arrays]
    operands: tuple[Value, ...]
    number: Fraction = Fraction(1)
    row: "Row | None" = None


Look = Callable[[Algebra, Value], Rewrite | None]


@dataclass(frozen=True)
class Row:
    """An identity: the formula as it is printed, what stands in its place, and where the two are equal."""

    formula: str
    replacement: str
    condition: str
    roots: frozenset[str]  # the primitives that the formula can end with
    look: Look

    @property
    def operation(self) -> str:
        """What replaces the formula as users write it: "stable.hypot", or a formula where no operation does."""
        found = re.search(r"stable\.\w+", self.replacement)
        return found.group() if found else self.replacement


def identity(
    table: list[Row],
    text: str,
    *formulas: Formula,
    give: Callable[..., Arrays],
    condition: str = "wherever the formula is defined",
) -> None:
    """Enter the row "formula → replacement": `give`, of arrays named like the variables, equals each of the formulas.

    What a product is multiplied by besides stays a factor, if it is one.
    """
    names = list(inspect.signature(give).parameters)

    def look(algebra: Algebra, value: Value) -> Rewrite | None:
        for formula in formulas:
            found = find(algebra, formula, value) if value.node.name in _roots(formula) else None
            if found is not None:
                others = as_multiplied(algebra, value, found.others)
                if others is not None:
                    return times(algebra, found.number, others, give, [found.at[name] for name in names])
        return None

    left, right = text.split(" → ")
    table.append(Row(left, right, condition, frozenset().union(*map(_roots, formulas)), look))


def pattern(table: list[Row], *roots: str) -> Callable[[Look], Look]:
    """Enter a row whose docstring is "formula → replacement: condition"."""

    def enter(look: Look) -> Look:
        text, _, condition = (inspect.getdoc(look) or "").partition(": ")
        left, right = text.split(" → ")
        table.append(Row(left, right, " ".join(condition.split()).rstrip("."), frozenset(roots), look))
        return look

    return enter


def as_multiplied(algebra: Algebra, value: Value, others: Factors) -> Factors | None:
    """The other factors of a product as no more than one, which the program has: in another order they may overflow."""
    if not others or (len(others) == 1 and abs(others[0][1]) == 1):
        return others
    stack = list(value.node.operands)
    while stack:
        part = stack.pop()
        number, factors = algebra.factors(part)
        if number == 1 and len(factors) == len(others):
            for power in (1, -1):
                if all((v, power * p) in factors for v, p in others):
                    return [(part, Fraction(power))]
        if plain(part).node.name in ("mul", "div"):
            stack += plain(part).node.operands
    return None


def times(
    algebra: Algebra, number: Fraction, others: Any, give: Callable[..., Arrays], operands: list[Value]
) -> Rewrite:
    """`give` of the operands, times a number and powers of other values."""
    above = [(v, p) for v, p in others if p > 0]
    below = [(v, -p) for v, p in others if p < 0]
    factors = [algebra.product(part) for part in (above, below) if part]
    count, times_others, over_others = len(operands), bool(above), bool(below)

    def emit(*arrays: Any) -> Any:
        result, rest = give(*arrays[:count]), list(arrays[count:])
        if times_others:
            result = result * rest.pop(0)
        return stable.divide(result, rest.pop(0)) if over_others else result

    return Rewrite(emit, (*operands, *factors), number)


def _roots(formula: Formula) -> frozenset[str]:
    if isinstance(formula, Apply):
        return frozenset({formula.function})
    if isinstance(formula, Product):
        if len(formula.factors) == 1 and formula.factors[0][1].denominator == 2:
            return frozenset({"sqrt"})
        return frozenset({"mul", "div"})
    return frozenset({"add", "sub", "add_any"})
