"""All second derivatives of a network with many outputs by its few inputs."""

import functools
import itertools

import jax
import jax.numpy as jnp

import jaxpartials as jp
from benchmarks.harness import Case, Target


def dense_second(small: bool) -> list[Case]:
    """d²y[k]/dx[i] dx[j] of networks whose outputs share all hidden layers: forward, though there is no loss."""
    sizes = [(3, 5, 7)] if small else [(8, 1024, 1024), (4, 64, 64, 64, 40)]
    return [_case(each) for each in sizes]


def _case(sizes: tuple[int, ...]) -> Case:
    keys = jax.random.split(jax.random.key(0), len(sizes))
    weights = [
        jax.random.normal(key, pair) / pair[0] ** 0.5
        for key, pair in zip(keys, itertools.pairwise(sizes), strict=False)
    ]
    x = jnp.linspace(0.0, 1.0, sizes[0])

    def y(x):
        return functools.reduce(lambda h, w: jnp.tanh(h @ w), weights, x)

    variants = {
        "jacfwd of jacfwd": jax.jit(jax.jacfwd(jax.jacfwd(y))),
        "partials": jp.partials(lambda x: {"y": y(x)}, "y/x^2"),
        "jacfwd of jacrev": jax.jit(jax.jacfwd(jax.jacrev(y))),
    }
    name = f"dense_second, {'-'.join(map(str, sizes))}"
    return Case(name, variants, (x,), "jacfwd of jacfwd", TARGETS, tolerance=1e-3)


TARGETS = (Target("partials", "jacfwd of jacfwd", 1.15),)
