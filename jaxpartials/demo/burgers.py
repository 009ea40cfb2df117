"""Viscous Burgers, solved by a small network whose residual is one call of `partials`.

    u_t + u u_x = nu u_xx,   nu = 0.01 / pi,   u(0, x) = -sin(pi x),   u(t, -1) = u(t, 1) = 0

on 0 <= t <= 1, -1 <= x <= 1. A shock some 0.01 wide forms at x = 0 from t = 0.4 on. The exact solution is the
one Cole and Hopf found, an integral against the heat kernel.

Source:
    E. Hopf, "The partial differential equation u_t + u u_x = mu u_xx", Comm. Pure Appl. Math. 3 (1950),
    201-230.
    M. Raissi, P. Perdikaris and G. E. Karniadakis, "Physics-informed neural networks", J. Comput. Phys. 378
    (2019), 686-707, section 3.1.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxpartials as jp

VISCOSITY = 0.01 / math.pi
TARGET = 2e-2

# A point is a row X[b] = (t, x). One call gives all four, sharing what they have in common.
WANTED = {"u": "u[b]", "u_t": "u[b]/X[b,0] -> b", "u_x": "u[b]/X[b,1] -> b", "u_xx": "u[b]/X[b,1]^2 -> b"}

RATE = 1e-2  # of Muon on the matrices; Adam on the biases has a third of it
EVERY = 20  # steps between two draws of points
POOL = 8  # candidates for each point drawn
NODES = 100  # of the quadrature; good for 14 digits where 0 <= t <= 1

Params = list[dict[str, jax.Array]]


def init(key: jax.Array, width: int = 32, depth: int = 3) -> Params:
    """Weights of a tanh network from (t, x) to one number, with `depth` hidden layers of `width`."""
    sizes = [2] + [width] * depth + [1]
    params = []
    for layer_key, rows, columns in zip(jax.random.split(key, depth + 1), sizes, sizes[1:], strict=False):
        weight = jax.random.normal(layer_key, (rows, columns)) * math.sqrt(2 / (rows + columns))
        params.append({"weight": weight, "bias": jnp.zeros(columns)})
    # Steeper first features, their kinks spread over the domain: a front is made of them.
    bias = jax.random.uniform(key, params[0]["bias"].shape, minval=-1, maxval=1)
    params[0] = {"weight": 2 * params[0]["weight"], "bias": bias}
    return params


def u(params: Params, X: jax.Array) -> jax.Array:
    """The network's solution at the points X, of shape (points, 2); it meets u(0, x) and u(t, ±1) exactly."""
    t, x = X[:, 0], X[:, 1]
    hidden = jnp.stack([2 * t - 1, x], axis=1)
    for layer in params[:-1]:
        hidden = jnp.tanh(hidden @ layer["weight"] + layer["bias"])
    network = (hidden @ params[-1]["weight"] + params[-1]["bias"])[:, 0]
    return -jnp.sin(jnp.pi * x) + t * (1 - x**2) * network


derivatives = jp.partials(u, WANTED)


def weighted_residual(params: Params, X: jax.Array) -> jax.Array:
    """u_t + u u_x - nu u_xx, over 1 + |u_x| / 10: at the shock it would otherwise drown the rest."""
    d = derivatives(params, X)
    residual = d["u_t"] + d["u"] * d["u_x"] - VISCOSITY * d["u_xx"]
    return residual / (1 + 0.1 * jnp.abs(jax.lax.stop_gradient(d["u_x"])))


def loss(params: Params, X: jax.Array) -> jax.Array:
    """The mean square of the weighted residual."""
    return jnp.mean(weighted_residual(params, X) ** 2)


def draw(key: jax.Array, params: Params, points: int) -> jax.Array:
    """Points (t, x), of shape (points, 2), drawn with probability proportional to 1 + |residual| / its mean.

    They are drawn without replacement, by the Gumbel top-k trick.

    Source: C. Wu et al., "A comprehensive study of non-adaptive and residual-based adaptive sampling for
    physics-informed neural networks", Comput. Methods Appl. Mech. Eng. 403 (2023), 115671.
    """
    where, noise = jax.random.split(key)
    pool = jax.random.uniform(where, (POOL * points, 2), minval=jnp.array([0.0, -1.0]), maxval=1.0)
    size = jnp.abs(weighted_residual(params, pool))
    score = jnp.log1p(size / jnp.mean(size)) + jax.random.gumbel(noise, size.shape)
    return pool[jax.lax.top_k(score, points)[1]]


# ---- the exact solution


def reference(t: Any, x: Any) -> np.ndarray:
    """The Cole-Hopf solution by Gauss-Hermite quadrature, in float64.

        u(t, x) = - int sin(pi y) w(y) dy / int w(y) dy,
        w(y) = exp(-cos(pi y) / (2 pi nu)) exp(-(x - y)^2 / (4 nu t))

    The exponents reach +-50, so the largest of them is taken out before they are raised.

    >>> bool(abs(reference(0.0, 0.5) + 1.0) < 1e-12)
    True

    Args:
        t: times in [0, 1], of any shape.
        x: positions, of a shape that broadcasts with that of `t`.

    Returns:
        u, of the broadcast shape.
    """
    t, x = np.broadcast_arrays(np.asarray(t, float), np.asarray(x, float))
    z, weights = np.polynomial.hermite.hermgauss(NODES)
    y = x[..., None] - np.sqrt(4 * VISCOSITY * t)[..., None] * z
    exponent = np.log(weights) - np.cos(np.pi * y) / (2 * np.pi * VISCOSITY)
    density = np.exp(exponent - exponent.max(axis=-1, keepdims=True))
    return -(density * np.sin(np.pi * y)).sum(-1) / density.sum(-1)


@dataclass(frozen=True)
class Solution:
    """A network's values beside the exact ones, on a grid: arrays of shape (len(t), len(x))."""

    t: np.ndarray
    x: np.ndarray
    predicted: np.ndarray
    exact: np.ndarray

    @property
    def relative_error(self) -> float:
        """||predicted - exact|| / ||exact||, in the 2-norm over the grid."""
        return float(np.linalg.norm(self.predicted - self.exact) / np.linalg.norm(self.exact))


def compare(params: Params, times: int = 101, positions: int = 257) -> Solution:
    """Evaluate the network on a uniform grid, beside the Cole-Hopf solution."""
    t, x = np.linspace(0, 1, times), np.linspace(-1, 1, positions)
    grid_t, grid_x = np.meshgrid(t, x, indexing="ij")
    points = np.stack([grid_t.ravel(), grid_x.ravel()], axis=1)
    predicted = np.asarray(jax.jit(u)(params, points), float).reshape(grid_t.shape)
    return Solution(t, x, predicted, reference(grid_t, grid_x))


# ---- training


@dataclass
class Training:
    """How a training went.

    Attributes:
        params: the weights it reached.
        steps: how many optimiser steps were made.
        losses: the loss after every `EVERY` steps.
        seconds: wall time, compilation included.
        ended: "steps" or "seconds", whichever ran out first, or "interrupted".
    """

    params: Params
    steps: int = 0
    losses: list[float] = field(default_factory=list)
    seconds: float = 0.0
    ended: str = "steps"


def optimizer(learning_rate: Any) -> optax.GradientTransformation:
    """Muon on the weight matrices, Adam on the biases.

    Plain Adam needs about three times as many steps here, and L-BFGS stalls in float32.
    """
    return optax.contrib.muon(learning_rate, adam_learning_rate=0.3 * learning_rate)


@jax.jit(static_argnames="points")
def advance(params, state, key, learning_rate, steps, points):
    """`steps` optimiser steps on one fresh draw of points; the last loss beside the new state."""
    X = draw(key, params, points)

    def step(_, carry):
        params, state, _ = carry
        value, gradient = jax.value_and_grad(loss)(params, X)
        updates, state = optimizer(learning_rate).update(gradient, state, params)
        return optax.apply_updates(params, updates), state, value

    return jax.lax.fori_loop(0, steps, step, (params, state, jnp.zeros((), X.dtype)))


def rate(step: int, steps: int, seconds_left: float, pace: float) -> float:
    """The learning rate at a step: a cosine that ends where the training will.

    That is with the last step or, on a machine too slow for it, with the last step that fits into the time.

    Args:
        pace: seconds per step so far.
    """
    end = min(steps, step + max(EVERY, seconds_left / max(pace, 1e-9)))
    return RATE * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / end)))


def train(
    *,
    steps: int,
    seconds: float,
    points: int,
    width: int,
    depth: int,
    seed: int,
    on_progress: Callable[[Training], None] = lambda training: None,
    interrupted: Callable[[], bool] = lambda: False,
) -> Training:
    """Train until the steps or the seconds run out, or an interrupt, and return what was reached.

    Args:
        steps: of the optimiser.
        seconds: of wall time, compilation included; looked at after every `EVERY` steps.
        points: of each step.
        width: units of each hidden layer.
        depth: number of hidden layers.
        seed: of the weights and the points.
        on_progress: called after every `EVERY` steps.
        interrupted: asked as often; true ends the training.
    """
    started = compiled = time.perf_counter()
    key = jax.random.key(seed)
    training = Training(init(jax.random.fold_in(key, 0), width, depth))
    state = optimizer(RATE).init(training.params)
    while training.steps < steps:
        now = time.perf_counter()
        if interrupted():
            training.ended = "interrupted"
            break
        if now - started >= seconds:
            training.ended = "seconds"
            break
        pace = (now - compiled) / max(1, training.steps - EVERY)  # the first steps are the compiler's
        current = rate(training.steps, steps, seconds - (now - started), pace)
        count = min(EVERY, steps - training.steps)
        fresh = jax.random.fold_in(key, 1 + training.steps)
        training.params, state, value = advance(training.params, state, fresh, current, count, points)
        training.losses.append(float(value))
        training.steps += count
        if training.steps <= EVERY:
            compiled = time.perf_counter()
        on_progress(training)
    training.seconds = time.perf_counter() - started
    return training
