"""Differential operators in a few directions, as polynomials, and what they make of products and functions.

With s_0, s_1, ... for directions, the polynomial p = sum_m c_m s^m stands for the derivative p(D) = sum_m c_m D^m,
where D_i is that along direction i. So the biharmonic operator in two dimensions is s_0^4 + 2 s_0^2 s_1^2 + s_1^4, and

    p(D) (A z)  =  A p(D) z                                             for A linear,
    p(D) (y z)  =  sum_m 1/m! (D^m y) (p^(m)(D) z)                      Leibniz,
    p(D) f(z)   =  sum_r f^(r)(z) sum over partitions of p in r parts   Faà di Bruno.

Of every product of derivatives that turns up, the factor of high order (more than `half`, half the order of the whole)
is summed over all products that agree in the others, so that few derivatives of high order are needed: D_j Δ z for
each j, and not all third derivatives.

Source: Griewank, Utke & Walther, Evaluating higher derivative tensors by forward propagation of univariate Taylor
series, Math. Comp. 69 (2000); Dangel et al., Collapsing Taylor Mode Automatic Differentiation, 2025.
"""

import functools
import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction

Monomial = tuple[int, ...]  # directions in ascending order, each as often as it is differentiated by
Operator = tuple[tuple[Monomial, Fraction], ...]  # of one order, in ascending order, the first coefficient 1
Term = tuple[Fraction, tuple[Operator, ...]]  # a coefficient, and the operators whose results are multiplied

Form = tuple[int, ...]  # a direction as a sum of others: how often each


def scaled(terms: Mapping[Monomial, Fraction | int]) -> tuple[Fraction, Operator] | None:
    """A number and an operator with leading coefficient 1, whose product is the sum of the terms; None for zero."""
    kept = sorted((monomial, number) for monomial, number in terms.items() if number)
    if not kept:
        return None
    first = kept[0][1]
    return Fraction(first), tuple((monomial, Fraction(number) / first) for monomial, number in kept)


def order(operator: Operator) -> int:
    return len(operator[0][0])


@functools.lru_cache(maxsize=1024)
def of_function(operator: Operator, half: float) -> tuple[tuple[int, tuple[Term, ...]], ...]:
    """p(D) f(z) as sum_r f^(r)(z) (sum of terms in z): pairs of r and those terms."""
    parts: defaultdict[tuple[Monomial, ...], Fraction] = defaultdict(Fraction)
    for monomial, number in operator:
        for partition in _partitions(monomial):
            parts[tuple(sorted(partition, key=lambda m: (len(m), m)))] += number
    found = []
    for r in sorted({len(p) for p in parts}):
        products = {p: number for p, number in parts.items() if len(p) == r}
        found.append((r, tuple(_gathered(products, half))))
    return tuple(found)


@functools.lru_cache(maxsize=1024)
def of_product(operator: Operator, half: float) -> tuple[tuple[Fraction, Operator | None, Operator | None], ...]:
    """p(D) (y z) as a sum of terms: a coefficient, what is applied to y, and what to z, None for nothing."""
    pairs: defaultdict[tuple[Monomial, Monomial], Fraction] = defaultdict(Fraction)
    for monomial, number in operator:
        for chosen in itertools.product((False, True), repeat=len(monomial)):
            left = tuple(s for s, c in zip(monomial, chosen, strict=True) if c)
            pairs[left, tuple(s for s, c in zip(monomial, chosen, strict=True) if not c)] += number
    sums: dict[tuple[str, Monomial], defaultdict[Monomial, Fraction]] = {}
    found = []
    for (left, right), number in pairs.items():
        if len(left) > half:
            sums.setdefault(("left", right), defaultdict(Fraction))[left] += number
        elif len(right) > half:
            sums.setdefault(("right", left), defaultdict(Fraction))[right] += number
        else:
            found.append((number, _single(left), _single(right)))
    for (side, other), terms in sums.items():
        if (high := scaled(terms)) is not None:
            number, summed = high
            pair = (summed, _single(other)) if side == "left" else (_single(other), summed)
            found.append((number, *pair))
    return tuple(found)


def _single(monomial: Monomial) -> Operator | None:
    return ((monomial, Fraction(1)),) if monomial else None


def _gathered(products: Mapping[tuple[Monomial, ...], Fraction], half: float) -> Iterator[Term]:
    """Products of derivatives, those that agree in all but one factor of high order taken together."""
    sums: dict[tuple[Monomial, ...], defaultdict[Monomial, Fraction]] = {}
    for (*others, last), number in products.items():
        if len(last) > half:
            sums.setdefault(tuple(others), defaultdict(Fraction))[last] += number
        else:
            yield number, tuple(((m, Fraction(1)),) for m in (*others, last))
    for others, terms in sums.items():
        if (high := scaled(terms)) is not None:
            number, summed = high
            yield number, (*(((m, Fraction(1)),) for m in others), summed)


def _partitions(monomial: Sequence[int]) -> Iterator[list[Monomial]]:
    """The ways to part the factors of a monomial into sets, each way as often as it comes up."""
    if not monomial:
        yield []
        return
    first, rest = monomial[0], monomial[1:]
    for parts in _partitions(rest):
        yield [(first,), *parts]
        for i, part in enumerate(parts):
            yield [*parts[:i], (first, *part), *parts[i + 1 :]]


def family(operators: Iterable[Operator], half: float) -> set[Operator]:
    """These operators and all that come up when they are applied to functions and products."""
    found: set[Operator] = set()
    stack = list(operators)
    while stack:
        operator = stack.pop()
        if operator not in found:
            found.add(operator)
            stack += [part for _, terms in of_function(operator, half) for _, parts in terms for part in parts]
            stack += [part for _, *pair in of_product(operator, half) for part in pair if part is not None]
    return found


# ---- polarisation


def polarised(terms: Mapping[Monomial, Fraction | int], directions: int) -> dict[Form, Fraction]:
    """The same operator as a sum of powers of single directions: sum_v w_v (sum_i v_i s_i)^k, by form v its weight.

        s_1^p_1 ... s_n^p_n  =  1/k! sum_{q <= p} (-1)^{|q|} prod_i binom(p_i, q_i) (sum_i (p_i/2 - q_i) s_i)^k

    For two directions, s^2 t^2 = ((s + t)^4 + (s - t)^4 - 2 s^4 - 2 t^4) / 12.

    Source: Kan, From moments of sum to moments of product, J. Multivariate Analysis 99 (2008).
    """
    weights: defaultdict[Form, Fraction] = defaultdict(Fraction)
    for monomial, number in terms.items():
        k, powers = len(monomial), Counter(monomial)
        for q in itertools.product(*(range(p + 1) for p in powers.values())):
            counts = dict(zip(powers, q, strict=True))
            form = tuple(powers[i] - 2 * counts.get(i, 0) for i in range(directions))  # twice the one above
            if not any(form):
                continue
            common = math.gcd(*form) * (-1 if next(n for n in form if n) < 0 else 1)
            sign = (-1) ** sum(q) * math.prod(math.comb(p, counts[i]) for i, p in powers.items())
            weights[tuple(n // common for n in form)] += number * Fraction(sign * common**k, 2**k * math.factorial(k))
    return {form: weight for form, weight in weights.items() if weight}


def growth(weights: Mapping[Form, Fraction], terms: Mapping[Monomial, Fraction | int]) -> float:
    """How much larger the terms of a polarised operator may be than those of the operator, at most.

    With all derivatives of this order of one size, sum_v |w_v| |v|_1^k against sum_m |c_m|: so much may cancel.
    """
    k = len(next(iter(terms)))
    large = sum(abs(w) * sum(map(abs, form)) ** k for form, w in weights.items())
    return float(large / sum(map(abs, terms.values())))
