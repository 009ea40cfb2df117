"""Quotients, roots and products with logarithms: formulas so general that they are looked for last."""

import functools
import math
from collections.abc import Callable
from fractions import Fraction

import jax
import jax.numpy as jnp

from jaxpartials import stable
from jaxpartials.graph.graph import Value
from jaxpartials.stability.identities import closed, rows
from jaxpartials.stability.identities.algebra import Algebra
from jaxpartials.stability.identities.formulas import log, x, y
from jaxpartials.stability.identities.rows import Rewrite, Row
from jaxpartials.stability.identities.values import is_numeric, number, plain

ROWS: list[Row] = []
LAST: list[Row] = []
identity = functools.partial(rows.identity, ROWS)
pattern = functools.partial(rows.pattern, ROWS)
last = functools.partial(rows.pattern, LAST)


# ---- products with logarithms


ONE_SIGN = "x and y of one sign; at x = 0 the limit"


def of_one_sign(f: Callable, x: jax.Array, y: jax.Array) -> jax.Array:
    """f(x, y) where x > 0, and −f(−x, −y) where x < 0: the formulas are odd, the operations are not."""
    sign = jnp.where(x < 0, -1, 1).astype(jnp.result_type(x))
    return sign * f(sign * x, sign * y)


identity("x log(x/y) − x + y → stable.kl_div(x, y)", x * log(x / y) - x + y, x * (log(x) - log(y)) - x + y,
         x * log(x) - x * log(y) - x + y,
         give=lambda x, y: of_one_sign(stable.kl_div, x, y), condition=ONE_SIGN)  # fmt: skip
identity("x log(x/y) → stable.rel_entr(x, y)", x * log(x / y), x * (log(x) - log(y)), x * log(x) - x * log(y),
         give=lambda x, y: of_one_sign(stable.rel_entr, x, y), condition=ONE_SIGN)  # fmt: skip
identity("x log x → stable.xlogx(x)", x * log(x), give=lambda x: stable.xlogx(x),
         condition="x > 0; at 0 the limit")  # fmt: skip


# ---- roots


@pattern("sqrt")
def root_of_squares(algebra: Algebra, value: Value) -> Rewrite | None:
    """√(x² + y²) → stable.hypot(x, y): everywhere; of more squares in turn."""
    found = _squares(algebra, value.node.operands[0])
    if found is None or found[0] or len(found[1]) < 2:
        return None
    _, numbers, values = found

    def emit(*arrays):
        scaled = [a if n == 1 else math.sqrt(n) * a for n, a in zip(numbers, arrays, strict=True)]
        return functools.reduce(stable.hypot, scaled)

    return Rewrite(emit, tuple(values))


@pattern("sqrt")
def root_of_squares_and_a_number(algebra: Algebra, value: Value) -> Rewrite | None:
    """√(x² + ε) → stable.smooth_abs(x, ε): for a constant ε > 0; of more squares in turn."""
    found = _squares(algebra, value.node.operands[0])
    if found is None or found[0] <= 0 or not found[1]:
        return None
    epsilon, numbers, values = found

    def emit(*arrays):
        scaled = [a if n == 1 else math.sqrt(n) * a for n, a in zip(numbers, arrays, strict=True)]
        return functools.reduce(stable.hypot, scaled[1:], stable.smooth_abs(scaled[0], float(epsilon)))

    return Rewrite(emit, tuple(values))


@pattern("sqrt")
def root_of_square(algebra: Algebra, value: Value) -> Rewrite | None:
    """√(x²) → |x|: everywhere."""
    found = _squares(algebra, value.node.operands[0])
    if found is None or found[0] or len(found[1]) != 1:
        return None
    _, (n,), (v,) = found
    return Rewrite(lambda a: math.sqrt(n) * jnp.abs(a) if n != 1 else jnp.abs(a), (v,))


def _squares(algebra: Algebra, value: Value) -> tuple[Fraction, list[Fraction], list[Value]] | None:
    """ε, the numbers nᵢ > 0 and the xᵢ, if a value is Σ nᵢ xᵢ² + ε."""
    epsilon, numbers, values = Fraction(0), [], []
    for c, v in algebra.terms(value):
        if v is None:
            epsilon += c
            continue
        n, factors = algebra.factors(v)
        if c * n <= 0 or not factors or any(p != 2 for _, p in factors):
            return None
        numbers.append(c * n)
        values.append(algebra.product([(u, Fraction(1)) for u, _ in factors]))
    return epsilon, numbers, values


# ---- ratios


@last("mul", "div")
def logarithm_times(algebra: Algebra, value: Value) -> Rewrite | None:
    """x log y → stable.xlogy(x, y): for y > 0; not where the logarithm is itself part of something better."""
    if value.node.name != "mul":
        return None
    one, other = map(plain, value.node.operands)
    for a, b in ((one, other), (other, one)):
        if b.node.name == "log" and number(a) is None and b.shape == value.shape:
            better = [row for row in algebra.rows.get("log", ()) if row.look(algebra, b) is not None]
            if not better:
                return Rewrite(stable.xlogy, (a, b.node.operands[0]))
    return None


@last("mul")
def over_a_power(algebra: Algebra, value: Value) -> Rewrite | None:
    """x·y⁻ⁿ → stable.divide(x, y), n times in effect: where y ≠ 0; the derivatives of a ratio are such."""
    for above, power in (value.node.operands, value.node.operands[::-1]):
        below = _reciprocal_power(algebra, power)
        # Only what is multiplied with the power: factors in another order may overflow.
        if below is not None and number(above) is None:
            sign, base, n = below
            give = functools.partial(closed.over_power, n) if n > 1 else stable.divide
            return Rewrite(give, (above, base), sign)
    return None


def _reciprocal_power(algebra: Algebra, value: Value) -> tuple[Fraction, Value, int] | None:
    """A sign, y and n, if a value is ±y⁻ⁿ."""
    node = plain(value).node
    if not is_numeric(value) or node.name not in ("neg", "mul", "div", "integer_pow"):
        return None
    sign, factors = algebra.factors(value)
    if abs(sign) != 1 or len(factors) != 1:
        return None
    ((base, p),) = factors
    return (sign, base, -int(p)) if p < 0 and p.denominator == 1 else None


@last("integer_pow", "pow")
def negative_power(algebra: Algebra, value: Value) -> Rewrite | None:
    """x⁻ⁿ → stable.power(x, −n): for a constant n > 0, where x ≠ 0."""
    node = value.node
    power = node.params["y"] if node.name == "integer_pow" else number(node.operands[1])
    if power is None or power >= 0:
        return None
    by = int(power) if power == int(power) else float(power)
    return Rewrite(lambda a: stable.power(a, by), (node.operands[0],))


@last("div")
def ratio(algebra: Algebra, value: Value) -> Rewrite | None:
    """x/y → stable.divide(x, y): where y ≠ 0; not for a constant y, nor for 1/y, which lose nothing."""
    above, below = value.node.operands
    if number(below) is not None or abs(number(above) or 0) == 1:
        return None
    return Rewrite(stable.divide, (above, below))


@last("atan2")
def angle(algebra: Algebra, value: Value) -> Rewrite | None:
    """atan2(x, y) → stable.arctan2(x, y): everywhere."""
    return Rewrite(stable.arctan2, value.node.operands)


@last("asinh")
def inverse_of_sinh(algebra: Algebra, value: Value) -> Rewrite | None:
    """asinh x → stable.asinh(x): everywhere."""
    return Rewrite(stable.asinh, value.node.operands)
