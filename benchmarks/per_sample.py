"""The gradient with respect to the parameters, one for each sample."""

import jax
import jax.numpy as jnp

import jaxpartials as jp
from benchmarks.harness import Case
from benchmarks.models import Params, field, mlp, network, points


def per_sample_gradients(small: bool) -> list[Case]:
    """dy_b / d params of a network with one output, for every b."""
    args = (network(2, 5, 5, 1), points(4, 2)) if small else (network(8, 64, 64, 64, 1), points(256, 8))
    variants = {
        "vmap of grad": jax.vmap(jax.grad(_at), in_axes=(None, 0)),
        "partials": jp.partials(field, "y/params"),
        "partials, vmap": jax.vmap(jp.partials(_at, "y/params"), in_axes=(None, 0)),
        "by hand": _by_hand,
        "jacrev": jax.jacrev(field),
    }
    return [Case("per_sample_gradients", variants, args, "vmap of grad")]


def _at(params: Params, x):
    return mlp(params, x)[0]


def _by_hand(params: Params, X):
    """Backpropagation with the outer products left apart: dW_b = h_b g_b^T."""
    h, kept = X, []
    for W, b in params[:-1]:
        kept.append(h)
        h = jnp.tanh(h @ W + b)
    V, _ = params[-1]
    ones = jnp.ones((X.shape[0], 1), X.dtype)
    gradients = [(h[:, :, None], ones)]
    g = jnp.broadcast_to(V[:, 0], h.shape)
    for (W, _), before in zip(params[-2::-1], kept[::-1], strict=True):
        g = g * (1 - h * h)
        gradients.append((before[:, :, None] * g[:, None, :], g))
        g, h = g @ W.T, before
    return gradients[::-1]
