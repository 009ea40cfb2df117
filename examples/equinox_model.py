"""Partial derivatives of an Equinox module: by its inputs, and by its weights, named by their paths.

A module is a pytree, so it is an argument like any other: `u/model.layers.0.weight` is one block.
"""

import equinox as eqx
import jax
import jax.numpy as jnp

import jaxpartials as jp


class Network(eqx.Module):
    """A scalar field u(x), for one point x of shape (3,)."""

    layers: list
    scale: jax.Array

    def __init__(self, key):
        keys = jax.random.split(key, 2)
        self.layers = [eqx.nn.Linear(3, 16, key=keys[0]), eqx.nn.Linear(16, "scalar", key=keys[1])]
        self.scale = jnp.array(0.5)

    def __call__(self, x):
        return self.scale * self.layers[1](jnp.tanh(self.layers[0](x)))


def u(model, x):
    return model(x)


def main():
    model = Network(jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (3,))
    wanted = {
        "gradient": "u/x",
        "laplacian": "u/x[i]^2",
        "by_weight": "u/model.layers.0.weight",
        "mixed": "u/x model.scale",
    }
    g = jp.partials(u, wanted)
    values = g(model, x)
    print(g.plan(model, x))

    assert jnp.allclose(values["gradient"], jax.grad(model)(x), atol=1e-5)
    assert jnp.allclose(values["laplacian"], jnp.trace(jax.hessian(model)(x)), atol=1e-5)
    assert jnp.allclose(values["by_weight"], jax.grad(u)(model, x).layers[0].weight, atol=1e-5)
    # u is linear in its scale, so that du/dx by the scale is du/dx over the scale.
    assert jnp.allclose(values["mixed"], values["gradient"] / model.scale, atol=1e-5)

    # The gradient of a residual by the whole module, over a batch of points, inside Equinox's own jit.
    @eqx.filter_jit
    @eqx.filter_grad
    def residual_gradient(model, points):
        laplacian = jp.partials(u, "u/x[i]^2")
        return jnp.mean(jax.vmap(lambda x: laplacian(model, x))(points) ** 2)

    @jax.grad
    def plain_gradient(model, points):
        return jnp.mean(jax.vmap(lambda x: jnp.trace(jax.hessian(model)(x)))(points) ** 2)

    points = jax.random.normal(jax.random.key(2), (20, 3))
    pairs = zip(
        jax.tree.leaves(residual_gradient(model, points)),
        jax.tree.leaves(plain_gradient(model, points)),
        strict=True,
    )
    for ours, plain in pairs:
        assert jnp.allclose(ours, plain, atol=1e-5)


if __name__ == "__main__":
    main()
