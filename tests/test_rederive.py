"""Derivatives recognised in whole steps: the same values at less work, and nothing taken for what it is not."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxpartials as jp

AGAIN = "derivatives taken again"


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


def weights(inputs, seed=0, hidden=(5, 7)):
    """Of a network with layers of different widths."""
    keys = jax.random.split(jax.random.key(seed), 5)
    sizes = [(inputs, hidden[0]), hidden, (hidden[1], 1)]
    return [
        (jax.random.normal(key, size, float) / jnp.sqrt(size[0]), 0.1 * jax.random.normal(keys[-1], size[1:], float))
        for key, size in zip(keys, sizes, strict=False)
    ]


def net(params, x, activation=jnp.tanh):
    for w, b in params[:-1]:
        x = activation(x @ w + b)
    w, b = params[-1]
    return (x @ w + b)[0]


def heat(params, x, activation=jnp.tanh):
    """u_1 + u_00 at one point, by nested `grad`."""

    def u(x):
        return net(params, x, activation)

    return jax.grad(u)(x)[1] + jax.grad(lambda x: jax.grad(u)(x)[0])(x)[0]


def loss(params, points, activation=jnp.tanh):
    return jnp.mean(jax.vmap(lambda x: heat(params, x, activation))(points) ** 2)


POINTS = np.random.default_rng(3).normal(size=(4, 2))


def agrees(fn, *args):
    """`simplify(fn)` computes what `fn` does; returns what was done."""
    simplified = jp.simplify(fn)
    found, expected = simplified(*args), jax.jit(fn)(*args)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10 * max(1.0, float(jnp.max(jnp.abs(b)))))
    return simplified.stats(*args)


def retaken(fn, *args):
    """The same, and derivatives were taken again; returns the cost of what is left as a part of what was traced."""
    stats = agrees(fn, *args)
    assert AGAIN in [step.name for step in stats.steps], str(stats)
    return stats.after.cost.flops / stats.before.cost.flops


# ---- recognised


@pytest.mark.parametrize("activation", [jnp.sin, jax.nn.softplus])
def test_a_residual_in_nested_grads(activation):
    assert retaken(jax.value_and_grad(lambda p, x: loss(p, x, activation)), weights(2), POINTS) < 0.8


def test_gradient_without_value():
    assert retaken(jax.grad(loss), weights(2), POINTS) < 0.8


def test_separate_arguments_and_fourth_order():
    def residual(params, t, x):
        u = lambda t, x: net(params, jnp.stack([t, x]))
        u_xx = jax.grad(jax.grad(u, 1), 1)
        return jax.grad(u)(t, x) + u(t, x) * jax.grad(u, 1)(t, x) + jax.grad(jax.grad(u_xx, 1), 1)(t, x)

    def total(params, points):
        return jnp.mean(jax.vmap(residual, (None, 0, 0))(params, points[:, 0], points[:, 1]) ** 2)

    assert retaken(jax.value_and_grad(total), weights(2), POINTS) < 0.5


def test_laplacian_by_hessian():
    def total(params, points):
        return jnp.mean(jax.vmap(lambda x: jnp.trace(jax.hessian(net, 1)(params, x)))(points) ** 2)

    assert retaken(jax.value_and_grad(total), weights(2), POINTS) < 0.8


def test_mixed_derivative_and_one_that_is_used_whole():
    def total(params, points):
        u_01 = jax.vmap(jax.grad(lambda x: jax.grad(net, 1)(params, x)[1]))(points)
        return jnp.sum(u_01 * jnp.array([1.0, 3.0]))

    retaken(jax.value_and_grad(total), weights(2), POINTS)


def test_jitted_parts_and_auxiliary_results():
    @jax.jit
    def parts(params, points):
        residual = jax.vmap(lambda x: heat(params, x))(points)
        return jnp.mean(residual**2), {"residual": residual, "worst": jnp.max(jnp.abs(residual))}

    retaken(jax.value_and_grad(parts, has_aux=True), weights(2), POINTS)


def test_a_whole_optax_step_with_clipping():
    optimiser = optax.chain(optax.clip_by_global_norm(0.1), optax.adam(1e-2))

    def step(params, state, points):
        value, slope = jax.value_and_grad(loss)(params, points)
        updates, state = optimiser.update(slope, state, params)
        return optax.apply_updates(params, updates), state, value

    params = weights(2)
    assert retaken(step, params, optimiser.init(params), POINTS) < 0.8


def test_a_loop_of_steps():
    def epoch(params, batches):
        def step(params, points):
            value, slope = jax.value_and_grad(loss)(params, points)
            return jax.tree.map(lambda p, g: p - 0.01 * g, params, slope), value

        return jax.lax.scan(step, params, batches)

    assert retaken(epoch, weights(2), np.stack([POINTS, 2 * POINTS, POINTS - 1])) < 0.8


def test_an_ensemble():
    both = jax.tree.map(lambda a: jnp.stack([a, 2 * a]), weights(2))
    retaken(jax.vmap(jax.value_and_grad(loss), (0, None)), both, POINTS)


def test_two_losses():
    def both(p, q, points):
        first = jax.grad(lambda p: loss(p, points) + net(q, points[0]))(p)
        return first, jax.grad(lambda q: loss(q, points, jnp.sin) * net(p, points[0]))(q)

    retaken(both, weights(2), weights(2, seed=1), POINTS)


def test_no_gradient_around_it():
    def third(params, x):
        return jax.grad(jax.grad(jax.grad(lambda x: net(params, jnp.stack([x, x * x])))))(x)

    assert retaken(jax.vmap(third, (None, 0)), weights(2, hidden=(30, 40)), POINTS[:, 0]) < 0.8


def test_derivatives_of_the_result():
    """A gradient through `simplify` of a gradient."""
    fn = jax.grad(lambda p: jnp.sum(jax.vmap(lambda x: heat(p, x))(POINTS)))
    through = lambda f: jax.jit(jax.grad(lambda p: sum(jnp.sum(a**2) for a in jax.tree.leaves(f(p)))))
    for a, b in zip(*(jax.tree.leaves(through(f)(weights(2))) for f in (jp.simplify(fn), fn)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-9)


# ---- with rules of their own


@jax.custom_jvp
def bent(x):
    return jnp.sin(x)


bent.defjvp(lambda primals, tangents: (bent(*primals), 7.0 * jnp.cos(primals[0]) * tangents[0]))


@jax.custom_vjp
def kinked(x):
    return jnp.sin(x)


kinked.defvjp(lambda x: (jnp.sin(x), x), lambda x, t: (t * 7.0 * jnp.exp(-x * x),))


def test_a_custom_rule_that_is_not_the_derivative():
    retaken(jax.value_and_grad(lambda p, x: loss(p, x, bent)), weights(2), POINTS)
    agrees(jax.value_and_grad(lambda p, x: loss(p, x, kinked)), weights(2), POINTS)


def test_stopped_gradients():
    def total(params, points):
        target = jax.lax.stop_gradient(jax.vmap(lambda x: net(params, x))(points))
        return jnp.mean((jax.vmap(lambda x: heat(params, x))(points) - target) ** 2)

    agrees(jax.value_and_grad(total), weights(2), POINTS)


def test_checkpoint_is_left_alone():
    def total(params, points):
        return jnp.mean(jax.vmap(jax.checkpoint(lambda x: heat(params, x)))(points) ** 2)

    agrees(jax.value_and_grad(total), weights(2), POINTS)


# ---- not what it looks like


def test_lanes_that_are_mixed():
    """Sums over the lanes of derivatives of values that mix them."""

    def total(params, points):
        def summed(points):
            centred = points - jnp.mean(points, 0)
            return jnp.sum(jax.vmap(lambda x: net(params, x))(centred))

        second = jax.grad(lambda points: jnp.sum(jax.grad(summed)(points)[:, 0]))(points)
        return jnp.mean(second[:, 1] ** 2)

    agrees(jax.value_and_grad(total), weights(2), POINTS)


def almost(change):
    """A gradient by hand, but for `change`."""

    def step(w, x):
        y, pull = jax.vjp(lambda w: jnp.sum(jnp.sin(x @ w) ** 2) + jnp.sum(jnp.sin(x @ w) ** 2), w)
        return y, change(pull(jnp.ones_like(y))[0], w)

    return step


@pytest.mark.parametrize(
    "change",
    [
        lambda g, w: -g,
        lambda g, w: 2 * g,
        lambda g, w: g + 0.1 * w,
        lambda g, w: g.at[0].set(0.0),
        lambda g, w: g[::-1],
    ],
)
def test_what_is_nearly_a_gradient(change):
    agrees(almost(change), np.random.default_rng(1).normal(size=(3, 3)), np.random.default_rng(2).normal(size=(4, 3)))


def test_a_cotangent_that_is_not_one():
    def pulled(params, points, weights):
        _, pull = jax.vjp(lambda p: jax.vmap(lambda x: heat(p, x))(points), params)
        return pull(weights)

    agrees(pulled, weights(2), POINTS, np.arange(1.0, 5.0))


def test_no_derivatives_no_steps():
    stats = agrees(lambda x: jnp.sum(jnp.sin(x) ** 2) + jnp.sum(jnp.sin(x) * jnp.sin(x)), POINTS)
    assert AGAIN not in [step.name for step in stats.steps]
