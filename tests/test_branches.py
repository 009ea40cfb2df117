"""Of a conditional one branch is taken: what is saved, and what lines cost, is that of the dearest."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from jaxpartials.inspection import report

N = 40
X, W = jax.ShapeDtypeStruct((N,), "float32"), jax.ShapeDtypeStruct((N, N), "float32")
CHOICE = jax.ShapeDtypeStruct((), "int32")
PRODUCT = 2 * N * N


def one_product_in_each(i, x, w):
    branches = [lambda x: jnp.sum(w @ x), lambda x: jnp.max(w @ x), lambda x: x[0]]
    return lax.switch(i, branches, x) + w @ x


def more_in_one(i, x, w):
    branches = [lambda x: w @ x, lambda x: w @ x + w.T @ x]
    return lax.switch(i, branches, x) + w @ x + w.T @ x


def nested(i, x, w):
    inner = lambda x: lax.cond(x[0] > 0, lambda: w @ x, lambda: -(w @ x))
    return lax.switch(i, [lambda x: x, inner], x) + w @ x


def in_a_loop(i, x, w):
    turn = lambda c, _: (lax.cond(c[0] > 0, lambda c: jnp.tanh(w @ x) + c, lambda c: jnp.sin(w @ x) + c, c), None)
    return lax.scan(turn, x, None, length=5)[0] + w @ x


@pytest.mark.parametrize(
    ("fn", "saved"), [(one_product_in_each, PRODUCT), (more_in_one, 2 * PRODUCT), (nested, PRODUCT)]
)
def test_what_is_saved_is_saved_in_one_branch(fn, saved):
    found = report(fn)(CHOICE, X, W)
    assert sum(one.cost.contractions for one in found.findings) == saved < found.traced.contractions
    work = [each for one in found.findings for each in one.work if each.node.name == "dot_general"]
    assert sum(each.spare for each in work) == saved / PRODUCT


def test_nothing_is_saved_more_often_than_it_runs():
    found = report(in_a_loop)(CHOICE, X, W)
    assert found.traced.contractions == 6 * PRODUCT
    assert sum(one.cost.contractions for one in found.findings) <= 5 * PRODUCT


@pytest.mark.parametrize("fn", [one_product_in_each, more_in_one, nested, in_a_loop])
def test_lines_cost_no_more_than_the_program(fn):
    found = report(fn)(CHOICE, X, W)
    shares = [line["share"] for line in found.to_dict()["lines"]]
    assert 0.5 < sum(shares) <= 1 + 1e-6
