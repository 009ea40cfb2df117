"""The kinetic energy of a small antisymmetric wavefunction: the Laplacian of attention, layer norm and determinants."""

from typing import Any

import jax
import jax.numpy as jnp

import jaxpartials as jp
from benchmarks.harness import Case, Target
from benchmarks.laplacian import folx

ELECTRONS = 6


def wavefunction(small: bool) -> list[Case]:
    """The Laplacian of log |psi| by all positions of the electrons, over a batch of walkers."""
    walkers, width = (2, 8) if small else (128, 32)
    args = _parameters(width), jax.random.normal(jax.random.key(7), (walkers, ELECTRONS, 3))
    variants: dict[str, Any] = {
        "hessian": lambda params, r: jax.vmap(_trace_of_hessian, (None, 0))(params, r),
        "partials": lambda params, r: jax.vmap(jp.partials(log_psi, "y/r[i,k]^2"), (None, 0))(params, r),
        "simplify(hessian)": jp.simplify(lambda params, r: jax.vmap(_trace_of_hessian, (None, 0))(params, r)),
    }
    targets = [Target("partials", "hessian", 1.0)]
    if folx is not None:
        variants["folx"] = lambda params, r: jax.vmap(_folx, (None, 0))(params, r)
        targets.append(Target("partials", "folx", 1.0))
    return [Case("wavefunction", variants, args, "hessian", tuple(targets), tolerance=5e-3)]


def log_psi(params, r):
    """One layer of attention over the electrons, a layer norm, orbitals with envelopes, and a determinant."""
    distances = jnp.sqrt(jnp.sum((r[:, None] - r[None]) ** 2, -1) + jnp.eye(ELECTRONS))
    radius = jnp.sqrt(jnp.sum(r * r, -1, keepdims=True) + 1e-2)
    h = jnp.tanh(jnp.concatenate([r, radius, distances.mean(1, keepdims=True)], 1) @ params["embed"])
    q, k, v = (h @ params[name] for name in "qkv")
    h = h + jax.nn.softmax(q @ k.T / jnp.sqrt(q.shape[1])) @ v
    h = (h - h.mean(1, keepdims=True)) / jnp.sqrt(h.var(1, keepdims=True) + 1e-3)
    h = h + jax.nn.softplus(h @ params["hidden"])
    orbitals = h @ params["orbitals"] * jnp.exp(-radius * jax.nn.softplus(params["decay"]))
    return jnp.linalg.slogdet(orbitals + 0.5 * jnp.eye(ELECTRONS))[1]


def _parameters(width):
    shapes = {"embed": (5, width), **dict.fromkeys("qkv", (width, width)), "hidden": (width, width)}
    shapes |= {"orbitals": (width, ELECTRONS), "decay": (ELECTRONS,)}
    keys = jax.random.split(jax.random.key(5), len(shapes))
    return {
        name: jax.random.normal(key, shape) / jnp.sqrt(shape[0])
        for key, (name, shape) in zip(keys, shapes.items(), strict=True)
    }


def _trace_of_hessian(params, r):
    flat = lambda x: log_psi(params, x.reshape(r.shape))
    return jnp.trace(jax.hessian(flat)(r.ravel()))


def _folx(params, r):
    flat = lambda x: log_psi(params, x.reshape(r.shape))
    return folx.forward_laplacian(flat)(r.ravel()).laplacian
