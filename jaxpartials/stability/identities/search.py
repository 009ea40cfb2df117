"""Where a value of a program has the form of a formula, up to the laws of arithmetic.

    log(1 + exp(x))      is found in log(exp(a) + 1), x = a, and in log(1 + exp(-a)), x = -a
    (exp(x) - 1) / x     is found in b * (exp(2 * a) - 1) / a: it is 2 b times the formula at x = 2 a

Sums and products are opened: terms and factors may stand in any order, with signs and numbers in front. Two places of
one variable must hold values that are equal by the laws of linear algebra (`NormalForms`).
"""

from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

from jaxpartials.graph.graph import Value
from jaxpartials.stability.identities.algebra import Algebra, Factors, Terms
from jaxpartials.stability.identities.formulas import Apply, Formula, Product, Sum, Variable
from jaxpartials.stability.identities.values import applied, plain

Bindings = dict[str, Value]


class Found(NamedTuple):
    """A value is `number` times the `others` times a formula, its variables being `at` these values."""

    number: Fraction
    others: Factors
    at: Bindings


def find(algebra: Algebra, formula: Formula, value: Value) -> Found | None:
    """Where the value is a formula, times what else it is multiplied by."""
    if isinstance(formula, Product):
        return next(_products(algebra, formula, value, {}, spare=True), None)
    return next((Found(c, [], at) for at, c in _match(algebra, formula, value, {})), None)


def _match(algebra: Algebra, f: Formula, value: Value, at: Bindings) -> Iterator[tuple[Bindings, Fraction]]:
    value = plain(value)
    match f:
        case Variable(name):
            if name not in at:
                yield {**at, name: value}, Fraction(1)
            elif algebra.same(value, at[name]):
                yield at, Fraction(1)
        case Apply(function, argument):
            inner = algebra.exponent(value) if function == "exp" else None
            if inner is None:
                inner = applied(value, function)
            if inner is not None:
                for found, c in _match(algebra, argument, inner, at):
                    if c == 1:
                        yield found, c
        case Sum():
            yield from _sums(algebra, f.terms, algebra.terms(value), at, None)
        case Product():
            for found in _products(algebra, f, value, at, spare=False):
                yield found.at, found.number


def _sums(
    algebra: Algebra, wanted, have: Terms, at: Bindings, scale: Fraction | None
) -> Iterator[tuple[Bindings, Fraction]]:
    """All of `have` is `scale` times all that is `wanted`."""
    if not wanted:
        if not have:
            yield at, scale if scale is not None else Fraction(1)
        return
    wanted = sorted(wanted, key=lambda term: _rank(term[1], at))
    (c, f), rest = wanted[0], wanted[1:]
    if isinstance(f, Variable) and f.name in at:
        for factor in [scale] if scale is not None else [Fraction(1), Fraction(-1)]:
            left = algebra.without_terms(have, [(c * factor * d, v) for d, v in algebra.terms(at[f.name])])
            if left is not None:
                yield from _sums(algebra, rest, left, at, factor)
    elif isinstance(f, Variable):
        if not have:
            return
        choices = [have] if not any(isinstance(g, Variable) for _, g in rest) else [[term] for term in have]
        by = c * (scale if scale is not None else 1)
        for chosen in choices:
            if all(v is None for _, v in chosen):
                continue
            bound = algebra.sum([(d / by, v) for d, v in chosen])
            left = [term for term in have if term not in chosen]
            yield from _sums(algebra, rest, left, {**at, f.name: bound}, by / c)
    else:
        for i, (d, v) in enumerate(have):
            left = have[:i] + have[i + 1 :]
            if f is None or v is None:
                here = [(at, Fraction(1))] if f is None and v is None else []
            else:
                here = _match(algebra, f, v, at)
            for found, own in here:
                factor = d * own / c
                if factor and (scale is None or scale == factor):
                    yield from _sums(algebra, rest, left, found, factor)


def _products(algebra: Algebra, f: Product, value: Value, at: Bindings, spare: bool) -> Iterator[Found]:
    c, have = algebra.factors(value)
    yield from _takes(algebra, f.factors, have, at, c / f.coefficient, spare)


def _takes(algebra: Algebra, wanted, have: Factors, at: Bindings, c: Fraction, spare: bool) -> Iterator[Found]:
    """`have` is what is `wanted`, times a number, times what is to spare."""
    if not wanted:
        if not have or spare:
            yield Found(c, have, at)
        return
    wanted = sorted(wanted, key=lambda factor: _rank(factor[0], at))
    (f, p), rest = wanted[0], wanted[1:]
    if isinstance(f, Variable) and f.name in at:
        taken = algebra.without_factors(have, at[f.name], p)
        if taken is not None:
            yield from _takes(algebra, rest, taken[1], at, c * taken[0], spare)
    elif isinstance(f, Variable):
        chosen = [(v, q) for v, q in have if q * p > 0 and (q / p).denominator == 1]
        if any(isinstance(g, Variable) and q * p > 0 for g, q in rest):
            chosen = chosen[:1]
        if chosen:
            bound = algebra.product([(v, q / p) for v, q in chosen])
            left = [factor for factor in have if factor not in chosen]
            yield from _takes(algebra, rest, left, {**at, f.name: bound}, c, spare)
    else:
        for i, (v, q) in enumerate(have):
            if q == p:
                for found, own in _match(algebra, f, v, at):
                    if own == 1 or p.denominator == 1:
                        by = own ** int(p) if p.denominator == 1 else Fraction(1)
                        yield from _takes(algebra, rest, have[:i] + have[i + 1 :], found, c * by, spare)
            elif p == 1 and isinstance(f, Apply) and f.function == v.node.name == "exp" and q.denominator == 1:
                for found, own in _match(algebra, f.argument, algebra.scaled(q, v.node.operands[0]), at):
                    if own == 1:
                        yield from _takes(algebra, rest, have[:i] + have[i + 1 :], found, c, spare)


def _rank(f: Formula | None, at: Bindings) -> int:
    """What is most particular is looked for first, and a variable that nothing is known of last."""
    if isinstance(f, Variable):
        return 2 if f.name in at else 3
    return 1 if f is None else 0
