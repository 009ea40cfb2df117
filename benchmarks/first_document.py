"""A layer that is the derivative of a function with respect to one of its inputs, inside a model that is trained.

    x = four linear layers of the batch;  z = one more of x;  f(x, z) = 100 + (x + z^2 / 100)^2;  model = df/dx

The model learns the identity. Every way of taking df/dx is timed within a whole step of Adam, and set against the
formula 2 (x + z^2 / 100) in the same framework. Drawing the batch is not timed: it would only dilute the ratios.
"""

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxpartials as jp
from benchmarks.harness import Absent, Case, Target, eager
from benchmarks.models import network

RATE = 1e-3
BATCH = 3000


def first_document(small: bool) -> list[Any]:
    """Time per training step, relative to the same framework's step with the derivative written by hand."""
    batch = np.asarray(jax.random.normal(jax.random.key(1), (5 if small else BATCH, 1)))
    params = _params()
    return [_in_jax(params, batch), *_in_torch(params, batch)]


def _params() -> Any:
    """Five linear layers, 1 -> 100 -> 1 -> 1 -> 1 and 1 -> 1 for z."""
    layers = network(1, 100, 1, seed=0) + network(1, 1, 1, 1, seed=1)
    return [(np.asarray(W), np.asarray(b)) for W, b in layers]


def f(x, z):
    """For arrays of JAX and tensors of torch."""
    return 100 + (x + 0.01 * z**2) ** 2


# ---- JAX


def _in_jax(params: Any, batch: np.ndarray) -> Case:
    optimizer = optax.adam(RATE)
    x = jp.partials(f, "f[b,k]/x[b,k] -> b k")
    at_a_point = jp.partials(f, "f/x")
    ways = {
        "manual": lambda x, z: 2 * (x + 0.01 * z**2),
        "partials": x,
        "partials, vmap": jax.vmap(jax.vmap(at_a_point)),
        "vmap of grad": jax.vmap(jax.vmap(jax.grad(f))),
        "grad of the sum": jax.grad(lambda x, z: jnp.sum(f(x, z))),
        "grad of the sum, both inputs": lambda x, z: jax.grad(lambda x, z: jnp.sum(f(x, z)), (0, 1))(x, z)[0],
    }
    params = jax.tree.map(jnp.asarray, params)
    args = params, optimizer.init(params), jnp.asarray(batch)
    variants = {name: _step(way, optimizer) for name, way in ways.items()}
    targets = Target("partials", "manual", 1.05), Target("partials, vmap", "manual", 1.05)
    return Case("first_document, JAX", variants, args, "manual", targets)


def _step(derivative, optimizer):
    def loss(params, batch):
        h = batch
        for W, b in params[:-1]:
            h = h @ W + b
        W, b = params[-1]
        return jnp.mean((derivative(h, h @ W + b) - batch) ** 2)

    def step(params, state, batch):
        value, gradient = jax.value_and_grad(loss)(params, batch)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, value

    return step


# ---- torch


def _in_torch(params: Any, batch: np.ndarray) -> list[Any]:
    try:
        import torch
    except ImportError:
        return [Absent("first_document, torch", "torch is not installed: the rows of torch are left out.")]

    def backward(x, z):
        x.retain_grad()
        value = f(x, z)
        value.backward([torch.ones_like(value)], create_graph=True)
        return x.grad

    def grad_of_the_sum(x, z):
        return torch.autograd.grad([f(x, z).sum()], [x], create_graph=True)[0]

    def grad_with_ones(x, z):
        value = f(x, z)
        return torch.autograd.grad([value], [x], [torch.ones_like(value)], create_graph=True)[0]

    def grad_of_both(x, z):
        return torch.autograd.grad([f(x, z).sum()], [x, z], create_graph=True)[0]

    def func_grad(x, z):
        return torch.func.grad(lambda x: f(x, z).sum())(x)

    ways = {
        "manual": lambda x, z: 2 * (x + 0.01 * z**2),
        ".backward()": backward,
        ".grad and .sum()": grad_of_the_sum,
        ".grad with ones": grad_with_ones,
        ".grad and .sum(), both inputs": grad_of_both,
        "torch.func.grad of .sum()": func_grad,
    }
    total = "z is a function of x in the same graph, so this is the total derivative along x: another model."
    differs = dict.fromkeys((".grad and .sum()", ".grad with ones", ".grad and .sum(), both inputs"), total)
    differs[".backward()"] = "the same, and it accumulates into the gradients of the layers below: a wrong step."
    warnings.filterwarnings("ignore", message="Using backward\\(\\) with create_graph=True")
    x = torch.tensor(batch)
    return [
        Case(
            "first_document, torch",
            {name: _torch_step(torch, way, params, x) for name, way in ways.items()},
            (),
            "manual",
            prepare=eager,
            differs=differs,
        )
    ]


def _torch_step(torch, derivative, params, x):
    layers = torch.nn.ModuleList([torch.nn.Linear(*W.shape, dtype=x.dtype) for W, _ in params])
    with torch.no_grad():
        for layer, (W, b) in zip(layers, params, strict=True):
            layer.weight.copy_(torch.tensor(W).T)
            layer.bias.copy_(torch.tensor(b))
    optimizer = torch.optim.Adam(layers.parameters(), lr=RATE)
    criterion = torch.nn.MSELoss()

    def closure():
        optimizer.zero_grad()
        h = x
        for layer in layers[:-1]:
            h = layer(h)
        loss = criterion(derivative(h, layers[-1](h)), x)
        loss.backward()
        return loss

    def step():
        loss = optimizer.step(closure)
        return {"loss": loss.detach(), "gradients": [p.grad.detach() for p in layers.parameters()]}

    return step
