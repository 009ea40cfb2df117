"""A physics-informed network in forty lines: viscous Burgers with u, u_t, u_x, u_xx from one call, and optax.

A mild viscosity and few steps, so that it takes seconds; `python -m jaxpartials demo` solves the hard case.
"""

import jax
import jax.numpy as jnp
import optax

import jaxpartials as jp

VISCOSITY = 0.1
WANTED = {"u": "u[b]", "u_t": "u[b]/X[b,0] -> b", "u_x": "u[b]/X[b,1] -> b", "u_xx": "u[b]/X[b,1]^2 -> b"}


def init(key, width=32):
    shapes = [(2, width), (width, width), (width, 1)]
    layers = zip(jax.random.split(key, 3), shapes, strict=True)
    params = [{"weight": jax.random.normal(k, s) / jnp.sqrt(s[0]), "bias": jnp.zeros(s[1])} for k, s in layers]
    params[0] = {"weight": 1.5 * params[0]["weight"], "bias": 0.5 * jax.random.normal(key, (width,))}
    return params


def u(params, X):
    """The network at the points X = (t, x), one a row; u(0, x) = -sin(pi x) and u(t, ±1) = 0 hold exactly."""
    t, x = X[:, 0], X[:, 1]
    hidden = X
    for layer in params[:-1]:
        hidden = jnp.tanh(hidden @ layer["weight"] + layer["bias"])
    network = (hidden @ params[-1]["weight"] + params[-1]["bias"])[:, 0]
    return -jnp.sin(jnp.pi * x) + t * (1 - x**2) * network


derivatives = jp.partials(u, WANTED)


def loss(params, X):
    d = derivatives(params, X)
    return jnp.mean((d["u_t"] + d["u"] * d["u_x"] - VISCOSITY * d["u_xx"]) ** 2)


def exact(t, x, nodes=2001):
    """The Cole-Hopf solution at t > 0, by the trapezoidal rule on [-5, 5]."""
    y = jnp.linspace(-5, 5, nodes)
    exponent = -jnp.cos(jnp.pi * y) / (2 * jnp.pi * VISCOSITY) - (x[:, None] - y) ** 2 / (4 * VISCOSITY * t)
    return -jax.nn.softmax(exponent, axis=1) @ jnp.sin(jnp.pi * y)


def main(steps=500):
    params = init(jax.random.key(0))
    low, high = jnp.array([0.0, -1.0]), jnp.array([1.0, 1.0])
    X = jax.random.uniform(jax.random.key(1), (512, 2), minval=low, maxval=high)
    print(derivatives.plan(params, X))
    rate = optax.cosine_decay_schedule(2e-2, steps)
    optimizer = optax.contrib.muon(rate, adam_learning_rate=rate)

    @jax.jit
    def train(params):
        def step(carry, _):
            params, state = carry
            value, gradient = jax.value_and_grad(loss)(params, X)
            updates, state = optimizer.update(gradient, state, params)
            return (optax.apply_updates(params, updates), state), value

        (params, _), losses = jax.lax.scan(step, (params, optimizer.init(params)), length=steps)
        return params, losses

    params, losses = train(params)
    x = jnp.linspace(-1, 1, 101)
    reference = exact(1.0, x)
    predicted = u(params, jnp.stack([jnp.ones_like(x), x], axis=1))
    error = float(jnp.linalg.norm(predicted - reference) / jnp.linalg.norm(reference))
    print(f"loss {losses[0]:.2e} -> {losses[-1]:.2e}; relative L2 error at t = 1: {error:.1e}")
    assert error < 2e-2


if __name__ == "__main__":
    main()
