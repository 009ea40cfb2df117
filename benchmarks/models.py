"""The networks, points and residuals that several cases share."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp

Params = list[tuple[jax.Array, jax.Array]]
Partials = dict[str, jax.Array]


def network(*widths: int, seed: int = 0) -> Params:
    """Weights and biases of a multilayer perceptron, Glorot-scaled; the biases are not zero, so that they count."""
    layers = list(pairwise(widths))
    keys = jax.random.split(jax.random.key(seed), 2 * len(layers))
    return [
        (
            jax.random.normal(weight, (m, n)) * jnp.sqrt(2 / (m + n)),
            0.1 * jax.random.normal(bias, (n,)),
        )
        for weight, bias, (m, n) in zip(keys[::2], keys[1::2], layers, strict=True)
    ]


def points(batch: int, dimensions: int, seed: int = 1) -> jax.Array:
    """Collocation points, uniform in [-1, 1]."""
    return jax.random.uniform(jax.random.key(seed), (batch, dimensions), minval=-1.0, maxval=1.0)


def mlp(params: Params, X: jax.Array) -> jax.Array:
    """tanh between the layers, for one point or for a batch of them."""
    h = X
    for W, b in params[:-1]:
        h = jnp.tanh(h @ W + b)
    W, b = params[-1]
    return h @ W + b


def field(params: Params, X: jax.Array) -> jax.Array:
    """u at every row (t, x) of X."""
    return mlp(params, X)[:, 0]


def field_at(params: Params, t: jax.Array, x: jax.Array) -> jax.Array:
    """u at one point."""
    return mlp(params, jnp.stack([t, x]))[0]


def training(partials: Callable[..., Partials], residual: Callable[[Partials], Any]) -> Callable[..., Any]:
    """The mean squared residual and its gradient with respect to the parameters."""

    def loss(params, *where):
        parts = jax.tree.leaves(residual(partials(params, *where)))
        return sum(jnp.mean(part**2) for part in parts)

    return jax.value_and_grad(loss)


def burgers(d: Partials) -> jax.Array:
    """u_t + u u_x - nu u_xx, with nu = 0.01 / pi."""
    return d["u_t"] + d["u"] * d["u_x"] - (0.01 / jnp.pi) * d["u_xx"]


def kuramoto_sivashinsky(d: Partials) -> jax.Array:
    """u_t + u u_x + u_xx + u_xxxx."""
    return d["u_t"] + d["u"] * d["u_x"] + d["u_xx"] + d["u_xxxx"]


def navier_stokes(d: Partials) -> Sequence[jax.Array]:
    """Momentum in x and y and continuity, at Reynolds number 100."""
    advection_u = d["u_t"] + d["u"] * d["u_x"] + d["v"] * d["u_y"]
    advection_v = d["v_t"] + d["u"] * d["v_x"] + d["v"] * d["v_y"]
    return (
        advection_u + d["p_x"] - 0.01 * (d["u_xx"] + d["u_yy"]),
        advection_v + d["p_y"] - 0.01 * (d["v_xx"] + d["v_yy"]),
        d["u_x"] + d["v_y"],
    )
