"""Formulas to be looked for in a program, written as mathematics: `log(1 + exp(x))`, `(exp(x) - 1) / x`."""

from dataclasses import dataclass
from fractions import Fraction


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
