"""Formulas in single elements: exponentials, logarithms, sigmoids, circles."""

import functools
import math
from fractions import Fraction

import jax
import jax.numpy as jnp

from jaxpartials import stable
from jaxpartials.graph.graph import Value
from jaxpartials.stability.identities import closed, rows
from jaxpartials.stability.identities.algebra import Algebra
from jaxpartials.stability.identities.formulas import (
    acos,
    cos,
    cosh,
    erfc,
    exp,
    expm1,
    log,
    log1p,
    logistic,
    sin,
    sinh,
    sqrt,
    tan,
    tanh,
    x,
    y,
)
from jaxpartials.stability.identities.rows import Rewrite, Row
from jaxpartials.stability.identities.values import is_nonnegative, number, plain

ROWS: list[Row] = []
identity = functools.partial(rows.identity, ROWS)
pattern = functools.partial(rows.pattern, ROWS)

# ---- exponentials and logarithms

identity(
    "log(1 + exp x) → stable.softplus(x)",
    log(1 + exp(x)), log1p(exp(x)),
    give=lambda x: stable.softplus(x),
)  # fmt: skip
identity(
    "log(1/(1 + exp(−x))) → stable.log_sigmoid(x)",
    log(logistic(x)), log(1 / (1 + exp(-x))), log(exp(x) / (1 + exp(x))),
    give=lambda x: stable.log_sigmoid(x),
)  # fmt: skip
identity(
    "log(1 − sigmoid x) → stable.log_sigmoid(−x)",
    log(1 - logistic(x)), log1p(-logistic(x)), log(1 - 1 / (1 + exp(-x))),
    give=lambda x: stable.log_sigmoid(-x),
)  # fmt: skip
identity(
    "log(1 − exp(−x)) → stable.log1mexp(x)",
    log(1 - exp(-x)), log1p(-exp(-x)), log(-expm1(-x)),
    give=lambda x: stable.log1mexp(x),
)  # fmt: skip
identity(
    "log cosh x → stable.log_cosh(x)",
    log(cosh(x)), log((exp(x) + exp(-x)) / 2), log(exp(x) / 2 + exp(-x) / 2),
    give=lambda x: stable.log_cosh(x),
)  # fmt: skip
identity(
    "log(exp x + exp(−x)) → stable.log_cosh(x) + log 2",
    log(exp(x) + exp(-x)),
    give=lambda x: stable.log_cosh(x) + jnp.log(2.0),
)  # fmt: skip
identity(
    "log(exp x + exp y) → stable.logaddexp(x, y)",
    log(exp(x) + exp(y)),
    give=lambda x, y: stable.logaddexp(x, y),
)  # fmt: skip
identity(
    "log(exp x − exp y) → stable.logdiffexp(x, y)",
    log(exp(x) - exp(y)),
    give=lambda x, y: stable.logdiffexp(x, y),
)  # fmt: skip
identity(
    "log(x + √(x² + 1)) → stable.asinh(x)",
    log(x + sqrt(x**2 + 1)),
    give=lambda x: stable.asinh(x),
)  # fmt: skip
identity("log(exp x) → x", log(exp(x)), give=lambda x: x)
identity(
    "(exp x − 1)/x → stable.exprel(x)",
    (exp(x) - 1) / x, expm1(x) / x,
    give=lambda x: stable.exprel(x),
    condition="x ≠ 0; at 0 the limit",
)  # fmt: skip
identity(
    "x/(exp x − 1) → 1/stable.exprel(x)",
    x / (exp(x) - 1), x / expm1(x),
    give=lambda x: closed.expm1_ratio(x),
    condition="x ≠ 0; at 0 the limit",
)  # fmt: skip
identity(
    "log(1 + x)/x → stable.log1prel(x)",
    log(1 + x) / x, log1p(x) / x,
    give=lambda x: stable.log1prel(x),
    condition="x ≠ 0; at 0 the limit",
)  # fmt: skip
identity("log(erfc(x)/2) → stable.log_ndtr(−√2 x)", log(erfc(x) / 2),
         give=lambda x: stable.log_ndtr(-math.sqrt(2.0) * x))  # fmt: skip
identity("exp(x²)·erfc x → stable.erfcx(x)", erfc(x) * exp(x**2), give=lambda x: stable.erfcx(x))

# ---- sigmoids and hyperbolic functions

identity(
    "(exp x − exp(−x))/(exp x + exp(−x)) → stable.tanh(x)",
    (exp(x) - exp(-x)) / (exp(x) + exp(-x)), sinh(x) / cosh(x), tanh(x),
    give=lambda x: stable.tanh(x),
)  # fmt: skip
identity(
    "(exp 2x − 1)/(exp 2x + 1) → stable.tanh(x)",
    (exp(x) - 1) / (exp(x) + 1), expm1(x) / (exp(x) + 1), expm1(x) / (expm1(x) + 2),
    give=lambda x: stable.tanh(0.5 * x),
)  # fmt: skip
identity("2/(1 + exp(−2x)) − 1 → stable.tanh(x)", 2 / (1 + exp(-x)) - 1, give=lambda x: stable.tanh(0.5 * x))
identity(
    "exp x/(1 + exp x) → stable.sigmoid(x)",
    exp(x) / (1 + exp(x)), logistic(x),
    give=lambda x: stable.sigmoid(x),
)  # fmt: skip
identity("exp x/(exp x + exp y) → stable.sigmoid(x − y)", exp(x) / (exp(x) + exp(y)),
         give=lambda x, y: stable.sigmoid(x - y))  # fmt: skip
identity("1/(1 + exp(−x)) → stable.sigmoid(x)", 1 / (1 + exp(-x)), give=lambda x: stable.sigmoid(x))
identity("1 − sigmoid x → stable.sigmoid(−x)", 1 - logistic(x), 1 - 1 / (1 + exp(-x)),
         give=lambda x: stable.sigmoid(-x))  # fmt: skip
identity(
    "1 − tanh² x → the derivative of stable.tanh(x)",
    1 - tanh(x) ** 2,
    give=lambda x: jax.jvp(stable.tanh, (x,), (jnp.ones_like(x),))[1],
)
identity("1 + tanh x → 2 stable.sigmoid(2x)", 1 + tanh(x), give=lambda x: 2 * stable.sigmoid(2 * x))
identity("1 − tanh x → 2 stable.sigmoid(−2x)", 1 - tanh(x), give=lambda x: 2 * stable.sigmoid(-2 * x))
identity("cosh x − 1 → 2 sinh²(x/2)", cosh(x) - 1, (exp(x) + exp(-x)) / 2 - 1,
         give=lambda x: 2 * jnp.square(jnp.sinh(0.5 * x)))  # fmt: skip
identity("exp x − exp(−x) → 2 sinh x", exp(x) - exp(-x), give=lambda x: 2 * jnp.sinh(x))
identity("exp x + exp(−x) − 2 → 4 sinh²(x/2)", exp(x) + exp(-x) - 2,
         give=lambda x: 4 * jnp.square(jnp.sinh(0.5 * x)))  # fmt: skip
identity("exp x/(exp x − 1) → −1/expm1(−x), exp x/expm1 x below 0", exp(x) / (exp(x) - 1), exp(x) / expm1(x),
         give=lambda x: closed.exp_over_expm1(x))  # fmt: skip
identity("exp x − 1 → expm1 x", exp(x) - 1, give=lambda x: closed.expm1(x))
identity("expm1 x → expm1 x, with the derivative exp x", expm1(x), give=lambda x: closed.expm1(x))


@pattern("log")
def log_of_one_and(algebra: Algebra, value: Value) -> Rewrite | None:
    """log(1 + x) → log1p x: where it is real; x may be the rest of a sum only if none of it can be negative."""
    (inner,) = value.node.operands
    node = plain(inner).node
    terms = algebra.terms(inner)
    ones = [c for c, v in terms if v is None]
    rest = [(c, v) for c, v in terms if v is not None]
    if ones != [1] or not rest:
        return None
    direct = len(rest) == 1 or (node.name in ("add", "sub") and any(number(v) == 1 for v in node.operands))
    if not direct and not all(c > 0 and is_nonnegative(v) for c, v in rest):
        return None
    return Rewrite(jnp.log1p, (algebra.sum(rest),))


# ---- roots and circles

identity("x/√(1 + x²) → stable.isru(x)", x / sqrt(1 + x**2), give=lambda x: stable.isru(x))
identity(
    "sin x/x → stable.sinc(x)",
    sin(x) / x,
    give=lambda x: stable.sinc(x, normalized=False),
    condition="x ≠ 0; at 0 the limit",
)
identity("(1 − cos x)/x² → stable.cosc(x)", (1 - cos(x)) / x**2, give=lambda x: stable.cosc(x),
         condition="x ≠ 0; at 0 the limit")  # fmt: skip
identity("1 − cos x → 2 sin²(x/2)", 1 - cos(x), give=lambda x: 2 * jnp.square(jnp.sin(0.5 * x)))
identity("tan x − sin x → 2 tan x sin²(x/2)", tan(x) - sin(x),
         give=lambda x: 2 * jnp.tan(x) * jnp.square(jnp.sin(0.5 * x)))  # fmt: skip
identity("acos(1 − x) → 2 stable.arctan2(√x, √(2 − x))", acos(1 - x),
         give=lambda x: 2 * stable.arctan2(jnp.sqrt(x), jnp.sqrt(2 - x)))  # fmt: skip


@pattern("pow")
def power_of_one_and(algebra: Algebra, value: Value) -> Rewrite | None:
    """(1 + x)^y → exp(x y stable.log1prel(x)): for y that is no constant, large and a multiple of 1/x; for
    others by what 1 + x rounds off."""
    base, power = value.node.operands
    terms = algebra.terms(base)
    rest = [(c, v) for c, v in terms if v is not None]
    if number(power) is not None or len(rest) != 1 or [c for c, v in terms if v is None] != [1]:
        return None
    u = algebra.sum(rest)
    opened, factors = algebra.factors(u), algebra.factors(power)[1]
    c, together = algebra.factors(algebra.product([(u, Fraction(1)), (power, Fraction(1))]))
    # (1 + 1/n)ⁿ is exp(log1prel(1/n)): the product is opened, so that n/n is 1.
    shared = len(together) < len(opened[1]) + len(factors) and all(p == 1 for _, p in together) and len(together) < 2

    def emit(u, y, *uy):
        plain_power = closed.power_of_one_and(*jnp.broadcast_arrays(u, y))
        if not shared:
            return plain_power
        # Derivatives by x of (1 + x/n)ⁿ have factors n − 1, n − 2, …
        near = (jnp.abs(u) < 0.5) & (jnp.abs(y) > 8)
        exponent = math.prod((jnp.where(near, a, 0) for a in uy), start=float(c)) * stable.log1prel(
            jnp.where(near, u, 0)
        )
        return jnp.where(near, jnp.exp(exponent), plain_power)

    return Rewrite(emit, (u, power, *(v for v, _ in together)) if shared else (u, power))
