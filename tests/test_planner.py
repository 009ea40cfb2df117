"""The plan: which mode, how many passes, what is shared, what stands in the way, and how it reads."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpartials as jp


def mlp(params, x):
    h = x
    for w, b in params[:-1]:
        h = jnp.tanh(h @ w + b)
    w, b = params[-1]
    return (h @ w + b)[:, 0]


def parameters(*sizes, seed=0):
    rng = np.random.default_rng(seed)
    return [
        (rng.normal(size=(m, n)).astype("float32") / m**0.5, np.zeros(n, "float32"))
        for m, n in itertools.pairwise(sizes)
    ]


PARAMS = parameters(2, 8, 8, 1)
X = np.random.default_rng(1).normal(size=(5, 2)).astype("float32")


def facts(plan):
    return {p.spec: (p.mode, p.passes, p.lanes) for p in plan.partials}


def test_a_residual_takes_one_tower_per_coordinate():
    specs = {"u": "u[b]", "t": "u[b]/X[b,0] -> b", "x": "u[b]/X[b,1] -> b", "xx": "u[b]/X[b,1]^2 -> b"}
    plan = jp.partials(lambda params, X: mlp(params, X), specs).plan(PARAMS, X)
    assert facts(plan) == {
        "u[b]": ("value", 0, ()),
        "u[b]/X[b,0] -> b": ("forward X", 1, ("b",)),
        "u[b]/X[b,1] -> b": ("forward X", 1, ("b",)),
        "u[b]/X[b,1]^2 -> b": ("forward X^2", 1, ("b",)),
    }
    by_spec = {p.spec: p for p in plan.partials}
    # All of u_x is in the tower of u_xx but its last sum and slice.
    assert by_spec["u[b]/X[b,1] -> b"].shares["u[b]/X[b,1]^2 -> b"] > 0.8
    alone = sum(p.cost.flops for p in plan.partials)
    assert plan.cost.flops < 0.6 * alone < plan.plain_cost.flops


def test_few_inputs_go_forward_and_few_outputs_in_reverse():
    w, a, c = jnp.ones((30, 3)), jnp.ones((30, 30)), jnp.ones((3, 3))
    assert jp.partials(lambda x: a @ jnp.sin(w @ x), "y/x").plan(jnp.ones(3)).partials[0].mode == "forward x"
    assert jp.partials(lambda x: c @ jnp.sin(x @ w), "y/x").plan(jnp.ones(30)).partials[0].mode == "reverse x"


def test_a_mixed_partial_of_few_inputs_and_many_parameters():
    f = lambda t, w: jnp.sum(jnp.sin(t * w) ** 2)
    plan = jp.partials(f, "u/t w").plan(0.3, jnp.ones(50))
    (partial,) = plan.partials
    assert partial.passes == 1
    assert partial.mode in ("reverse w over forward t", "forward t over reverse w")


def test_both_diagonal_blocks_take_two_passes():
    f = lambda a, b: (jnp.sin(a) * jnp.cos(b), a * b**2)
    g = jp.partials(f, ["z[i]/a[i] -> i", "y[i]/b[i] -> i"], outputs=("z", "y"))
    plan = g.plan(*[jax.ShapeDtypeStruct((300,), "float32")] * 2)
    assert [(p.passes, p.lanes) for p in plan.partials] == [(1, ("i",)), (1, ("i",))]
    assert max(v.aval.size for node in plan.graph.nodes for v in node.outputs) == 300


@pytest.mark.parametrize(
    ("mix", "name"),
    [
        (lambda x: x - x.mean(0), "reduce_sum"),
        (lambda x: x[::-1], "rev"),
        (lambda x: jnp.ones((5, 5)) @ x, "dot_general"),
        (lambda x: jnp.sort(x, 0), "sort"),
        (lambda x: jnp.cumsum(x, 0), "cumsum"),
    ],
)
def test_what_mixes_the_lanes_is_named_and_the_answer_is_right(mix, name):
    def f(x):
        return jnp.sum(jnp.sin(mix(x)), 1)

    g = jp.partials(f, "y[b]/x[b,i] -> b i")
    np.testing.assert_allclose(g(X), jnp.einsum("bbi->bi", jax.jacfwd(f)(X)), rtol=1e-5, atol=1e-6)
    (partial,) = g.plan(X).partials
    assert partial.lanes == ()
    assert any(note.startswith(f"b is no lane: {name}") and "test_planner.py" in note for note in partial.notes)


def test_a_custom_rule_that_mixes_the_batch_is_seen():
    @jax.custom_jvp
    def shy(x):
        return x * 1.0

    @shy.defjvp
    def _(primals, tangents):
        return shy(*primals), jnp.broadcast_to(tangents[0].sum(0), tangents[0].shape)

    g = jp.partials(lambda x: shy(x).sum(1), "y[b]/x[b,i] -> b i")
    dense = jax.jacfwd(lambda x: shy(x).sum(1))(X)
    np.testing.assert_allclose(g(X), jnp.einsum("bbi->bi", dense), rtol=1e-6)
    assert g.plan(X).partials[0].lanes == ()


def test_directions_lie_behind_the_lanes():
    plan = jp.partials(lambda params, X: mlp(params, X), "u[b]/X[b,i]^2 -> b").plan(PARAMS, X)
    shapes = {v.shape for node in plan.graph.nodes if node.name == "mul" for v in node.outputs}
    assert (5, 2, 8) in shapes
    assert (2, 5, 8) not in shapes


def test_the_plan_prints_its_facts():
    def f(x):
        return jnp.sum(jnp.sin(x - x.mean(0)), 1)

    text = str(jp.partials(f, {"v": "y", "J": "y[b]/x[b,i] -> b i"}).plan(X))
    assert "y[b]/x[b,i] -> b i" in text
    assert "value" in text
    assert "note: y[b]/x[b,i] -> b i: b is no lane: reduce_sum" in text
    assert "total: " in text
    assert max(map(len, text.splitlines())) <= 160


def test_a_chosen_plan_is_never_dearer_than_each_alone():
    plan = jp.partials(lambda params, X: mlp(params, X), ["u/X", "u", "u/params"]).plan(PARAMS, X)
    for partial in plan.partials:
        for _, seconds in partial.considered:
            assert seconds > 0
    assert plan.cost.time <= sum(p.cost.time for p in plan.partials)


def test_orders_up_to_nine_stay_small():
    params = parameters(1, 16, 16, 16, 16, 1)
    g = jp.partials(lambda params, x: mlp(params, jnp.reshape(x, (1, 1)))[0], "u/x^9")
    assert g.plan(params, np.float32(0.3)).equations <= 1500


def test_a_power_for_each_element_has_a_plan():
    fn, x = lambda x: x ** jnp.arange(1, 4), X[:3, 0]
    g = jp.partials(fn, "u/x^2")
    np.testing.assert_allclose(g(x), jax.jacfwd(jax.jacfwd(fn))(x), rtol=1e-5, atol=1e-5)
    assert g.plan(x).partials[0].mode != "plain"


def test_a_sum_over_few_directions_is_taken_all_at_once():
    g = jp.partials(lambda params, X: mlp(params, X), "u[b]/X[b,i]^2 X[b,j]^2 -> b")
    (partial,) = g.plan(PARAMS, X).partials
    assert (partial.mode, partial.passes) == ("Taylor X^4", 2)
    considered = dict(partial.considered)
    assert considered["Taylor X^4"] == min(considered.values())
    assert {"polarised X^4", "forward X^4"} <= considered.keys()
    # Along one direction a tower does as well; and few points do not repay a Laplacian's being laid out anew.
    for spec in ("u[b]/X[b,0]^4 -> b", "u[b]/X[b,i]^2 -> b"):
        (partial,) = jp.partials(lambda params, X: mlp(params, X), spec).plan(PARAMS, X).partials
        assert not any(mode.startswith("Taylor") for mode, _ in partial.considered)


@pytest.mark.parametrize("sizes", [(4, 64, 64, 64, 40), (8, 256, 256), (3, 16, 100)])
def test_outputs_that_share_hidden_layers_are_no_lanes_of_one_reverse_pass(sizes):
    """In reverse each of them has a pass of its own through the layers they share; inputs are few."""
    params = parameters(*sizes)

    def net(x):
        for w, b in params:
            x = jnp.tanh(x @ w + b)
        return x

    x = np.linspace(0.1, 1, sizes[0]).astype(np.float32)
    for spec, order in (("y/x", 1), ("y/x^2", 2)):
        plan = jp.partials(lambda x: {"y": net(x)}, spec).plan(x)
        assert plan.partials[0].mode == ("forward x" if order == 1 else "forward x^2")
        by_hand = jp.simplify(jax.jacfwd(net) if order == 1 else jax.jacfwd(jax.jacfwd(net))).stats(x)
        assert plan.cost.flops <= 1.02 * by_hand.after.cost.flops


def test_outputs_that_share_nothing_are_one_reverse_pass():
    fn = lambda params, X: mlp(params, X)
    (partial,) = jp.partials(fn, "u/params").plan(PARAMS, X).partials
    assert (partial.mode, partial.passes) == ("reverse params", 1)
