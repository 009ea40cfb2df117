"""A derivative as a layer: train a model whose output is df/dx, for f(x, y) = 100 + (x + 0.01 y²)².

Two linear layers feed f, and the model answers with its partial derivative by the first argument alone.
Learning the identity means learning 2 (x + 0.01 y²) = input: the first layer halves, the second vanishes.
"""

import jax
import jax.numpy as jnp
import optax

import jaxpartials as jp


def f(x, y):
    return 100 + (x + 0.01 * y**2) ** 2


df_dx = jp.partials(f, "f[b]/x[b] -> b")  # one pass for the whole batch, and nothing for y


def model(params, inputs):
    x = params["weight1"] * inputs + params["bias1"]
    z = params["weight2"] * x + params["bias2"]
    return df_dx(x, z)


def loss(params, inputs):
    return jnp.mean((model(params, inputs) - inputs) ** 2)


def main(steps=1500):
    params = {"weight1": 0.8, "bias1": -0.3, "weight2": 0.5, "bias2": 0.4}
    params = jax.tree.map(jnp.float32, params)
    optimizer = optax.adam(optax.cosine_decay_schedule(3e-2, steps))
    state = optimizer.init(params)

    @jax.jit
    def step(params, state, key):
        inputs = jax.random.normal(key, (3000,))
        value, gradient = jax.value_and_grad(loss)(params, inputs)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, updates), state, value

    for key in jax.random.split(jax.random.key(0), steps):
        params, state, value = step(params, state, key)
    inputs = jnp.linspace(-2, 2, 9)
    print(f"loss {value:.1e}; model({inputs}) = {model(params, inputs).round(3)}")
    assert jnp.allclose(model(params, inputs), inputs, atol=0.02)
    # The layer is its closed form, and so is the gradient that went through it.
    exact = lambda x, y: 2 * (x + 0.01 * y**2)
    x, y = jax.random.normal(jax.random.key(1), (2, 5))
    assert jnp.allclose(df_dx(x, y), exact(x, y), rtol=1e-6)
    by_y = jax.grad(lambda y: df_dx(x, y).sum())(y)
    assert jnp.allclose(by_y, 0.04 * y, rtol=1e-6)


if __name__ == "__main__":
    main()
