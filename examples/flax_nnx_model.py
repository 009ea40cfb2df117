"""Partial derivatives of a Flax NNX module, by its inputs and by its weights, and a training with optax.

A module is a pytree, so it is an argument like any other: `u/model.hidden.kernel` is one block. For training,
`nnx.split` takes the state out of the module, and `nnx.merge` puts it back.
"""

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import jaxpartials as jp


class Network(nnx.Module):
    """A function of points on the line, x of shape (points,)."""

    def __init__(self, rngs):
        self.hidden = nnx.Linear(1, 24, bias_init=nnx.initializers.normal(1.0), rngs=rngs)
        self.out = nnx.Linear(24, 1, rngs=rngs)

    def __call__(self, x):
        return self.out(jnp.tanh(self.hidden(x[:, None])))[:, 0]


def u(model, x):
    """A field with u(0) = u(1) = 0, whatever the network."""
    return x * (1 - x) * model(x)


def main(steps=1000):
    model = Network(nnx.Rngs(0))
    x = jnp.linspace(0, 1, 50)
    g = jp.partials(u, {"u_xx": "u[b]/x[b]^2 -> b", "by_kernel": "u/model.hidden.kernel"})
    values = g(model, x)
    print(g.plan(model, x))

    graphdef, state = nnx.split(model)
    point = lambda s: u(model, s[None])[0]
    assert jnp.allclose(values["u_xx"], jax.vmap(jax.grad(jax.grad(point)))(x), atol=1e-4)
    by_state = jax.jacrev(lambda state: u(nnx.merge(graphdef, state), x))(state)
    (by_kernel,) = jax.tree.leaves(by_state["hidden"]["kernel"])
    assert jnp.allclose(values["by_kernel"], by_kernel, atol=1e-5)

    # u_xx = -sin(pi x) with u(0) = u(1) = 0, whose solution is sin(pi x) / pi².
    u_xx = jp.partials(u, "u[b]/x[b]^2 -> b")
    loss = lambda state: jnp.mean((u_xx(nnx.merge(graphdef, state), x) + jnp.sin(jnp.pi * x)) ** 2)
    optimizer = optax.adam(optax.cosine_decay_schedule(1e-2, steps))

    @jax.jit
    def train(state):
        def step(carry, _):
            state, memory = carry
            updates, memory = optimizer.update(jax.grad(loss)(state), memory)
            return (optax.apply_updates(state, updates), memory), None

        return jax.lax.scan(step, (state, optimizer.init(state)), length=steps)[0][0]

    trained = nnx.merge(graphdef, train(state))
    exact = jnp.sin(jnp.pi * x) / jnp.pi**2
    error = float(jnp.abs(u(trained, x) - exact).max() / exact.max())
    print(f"largest error of the trained solution, relative: {error:.1e}")
    assert error < 1e-2


if __name__ == "__main__":
    main()
