"""Partials of a recurrence."""

import jax
import jax.numpy as jnp

import jaxpartials as jp
from benchmarks.harness import Case
from benchmarks.models import network

WANTED = {"y": "y", "y_a": "y/a", "y_b": "y/b", "y_aa": "y/a^2", "y_ab": "y/a b"}


def loops(small: bool) -> list[Case]:
    """A recurrent network's final state by the scales a of its initial state and b of its signal."""
    batch, width, steps = (3, 5, 4) if small else (64, 64, 50)
    ((W, c),) = network(width, width)
    start, signal = jax.random.split(jax.random.key(3))
    args = (
        jnp.asarray(0.9), jnp.asarray(0.6), 1.5 * W, c,
        jax.random.normal(start, (batch, width)), jax.random.normal(signal, (steps, batch, width)),
    )  # fmt: skip
    variants = {
        "by hand": _by_hand,
        "partials": jp.partials(_recurrence, WANTED),
        "nested jvp": _nested_jvp,
        "nested grad": _nested_grad,
        "hessian": _hessian,
    }
    return [Case("loops", variants, args, "by hand", tolerance=1e-3)]


def _recurrence(a, b, W, c, start, signal):
    """h <- tanh(h W + b x + c), from a h_0; y is the mean of the last h."""

    def step(h, x):
        return jnp.tanh(h @ W + b * x + c), None

    h, _ = jax.lax.scan(step, a * start, signal)
    return jnp.mean(h)


def _by_hand(a, b, W, c, start, signal):
    """One scan that carries h and its four tangents."""

    def step(carry, x):
        h, h_a, h_b, h_aa, h_ab = carry
        h = jnp.tanh(h @ W + b * x + c)
        s = 1 - h * h
        z_a, z_b = h_a @ W, h_b @ W + x
        h_a, h_b = s * z_a, s * z_b
        m = -2 * h * h_a
        return (h, h_a, h_b, s * (h_aa @ W) + m * z_a, s * (h_ab @ W) + m * z_b), None

    zero = jnp.zeros_like(start)
    last, _ = jax.lax.scan(step, (a * start, start, zero, zero, zero), signal)
    return dict(zip(WANTED, map(jnp.mean, last), strict=True))


def _nested_jvp(a, b, *rest):
    """The first derivatives and the value as primals and tangents of the second ones."""

    def y(a, b):
        return _recurrence(a, b, *rest)

    def first(a, b):
        return jax.jvp(lambda a: y(a, b), (a,), (jnp.ones_like(a),))

    (value, y_a), (_, y_aa) = jax.jvp(lambda a: first(a, b), (a,), (jnp.ones_like(a),))
    _, (y_b, y_ab) = jax.jvp(lambda b: first(a, b), (b,), (jnp.ones_like(b),))
    return {"y": value, "y_a": y_a, "y_b": y_b, "y_aa": y_aa, "y_ab": y_ab}


def _nested_grad(a, b, *rest):
    def y(a, b):
        return _recurrence(a, b, *rest)

    y_a = jax.grad(y, 0)
    return {
        "y": y(a, b),
        "y_a": y_a(a, b),
        "y_b": jax.grad(y, 1)(a, b),
        "y_aa": jax.grad(y_a, 0)(a, b),
        "y_ab": jax.grad(y_a, 1)(a, b),
    }


def _hessian(a, b, *rest):
    def y(p):
        return _recurrence(p[0], p[1], *rest)

    p = jnp.stack([a, b])
    value, gradient = jax.value_and_grad(y)(p)
    second = jax.hessian(y)(p)
    return {"y": value, "y_a": gradient[0], "y_b": gradient[1], "y_aa": second[0, 0], "y_ab": second[0, 1]}
