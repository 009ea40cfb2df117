"""Functions of JAX and SciPy's names: those that JAX keeps whole, and those whose trace is always the same."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import jax.scipy.special as special

from jaxpartials import stable
from jaxpartials.graph.graph import Value, reach
from jaxpartials.stability.identities import rows
from jaxpartials.stability.identities.algebra import Algebra
from jaxpartials.stability.identities.rows import Rewrite, Row
from jaxpartials.stability.identities.templates import arguments
from jaxpartials.stability.identities.values import number, plain

ROWS: list[Row] = []
pattern = functools.partial(rows.pattern, ROWS)


def known(text: str, function: Callable, *roots: str, give: Callable[..., Any]) -> None:
    """Enter a function of JAX that is known by its trace, which can end with these equations."""

    def look(algebra: Algebra, value: Value) -> Rewrite | None:
        found = arguments(algebra.same, function, len(inspect.signature(give).parameters), value)
        return None if found is None else Rewrite(give, found)

    left, right = text.split(" → ")
    ROWS.append(Row(left, right, "everywhere", frozenset({"custom_jvp_call", *roots}), look))


def _entr(x: jax.Array) -> jax.Array:
    """−x log x, and −inf below 0."""
    below = x < 0
    return jnp.where(below, -jnp.inf, -stable.xlogx(jnp.where(below, 1, x)))


@pattern("custom_jvp_call")
def logaddexp_of_zero(algebra: Algebra, value: Value) -> Rewrite | None:
    """logaddexp(x, 0) → stable.softplus(x): everywhere."""
    found = arguments(algebra.same, jnp.logaddexp, 2, value)
    for a, b in (found, found[::-1]) if found else ():
        if number(b) == 0:
            return Rewrite(stable.softplus, (a,))
    return None


known("logaddexp(x, y) → stable.logaddexp(x, y)", jnp.logaddexp, give=lambda x, y: stable.logaddexp(x, y))
known("hypot(x, y) → stable.hypot(x, y)", jnp.hypot, "select_n", give=lambda x, y: stable.hypot(x, y))
known("xlogy(x, y) → stable.xlogy(x, y)", special.xlogy, give=lambda x, y: stable.xlogy(x, y))
known("rel_entr(x, y) → stable.rel_entr(x, y)", special.rel_entr, "select_n", give=lambda x, y: stable.rel_entr(x, y))
known("kl_div(x, y) → stable.kl_div(x, y)", special.kl_div, "add", give=lambda x, y: stable.kl_div(x, y))
known("entr(x) → −stable.xlogx(x)", special.entr, "select_n", give=lambda x: _entr(x))
known("log_ndtr(x) → stable.log_ndtr(x)", special.log_ndtr, give=lambda x: stable.log_ndtr(x))
known("sinc(x) → stable.sinc(x)", jnp.sinc, "select_n", give=lambda x: stable.sinc(x))


@pattern("log")
def log_of_ndtr(algebra: Algebra, value: Value) -> Rewrite | None:
    """log Φ(x) → stable.log_ndtr(x): everywhere."""
    found = arguments(algebra.same, special.ndtr, 1, plain(value.node.operands[0]))
    return None if found is None else Rewrite(lambda x: stable.log_ndtr(x), found)


# ---- guards


@pattern("select_n")
def guarded(algebra: Algebra, value: Value) -> Rewrite | None:
    """where(x = 0, f(0), f(x)) → f(x): for the operations f that have a value at 0; also where x is guarded itself."""
    if len(value.node.operands) != 3:
        return None
    test, off, on = value.node.operands
    node = plain(test).node
    if node.name not in ("eq", "ne"):
        return None
    variable = next((v for v in node.operands if number(v) is None), None)
    if variable is None or variable is not plain(variable) or not any(number(v) == 0 for v in node.operands):
        return None
    at_zero, elsewhere = (on, off) if node.name == "eq" else (off, on)
    if number(at_zero) is None:
        return None
    # What is guarded inside is the variable itself.
    inside = {v: variable for v in (n.outputs[0] for n in reach([elsewhere])) if _guards(v, test, variable)}
    elsewhere = plain(algebra.graph.replace([elsewhere], inside)[elsewhere])
    for row in algebra.rows.get(elsewhere.node.name, ()):
        rewrite = row.look(algebra, elsewhere) if "limit" in row.condition else None
        if rewrite is not None and rewrite.operands == (variable,):
            limit = float(rewrite.number) * _at_zero(rewrite.emit, value.dtype)
            return replace(rewrite, row=row) if limit == number(at_zero) else None
    return None


def _guards(value: Value, test: Value, variable: Value) -> bool:
    """Whether a value is the variable with something else where it is zero."""
    node = value.node
    if node.name != "select_n" or len(node.operands) != 3:
        return False
    tested, off, on = node.operands
    elsewhere = off if plain(test).node.name == "eq" else on
    return plain(tested) is plain(test) and plain(elsewhere) is variable


def _at_zero(emit: Callable[..., Any], dtype: Any) -> float:
    with jax.ensure_compile_time_eval():
        return float(emit(jnp.zeros((), dtype)))
