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
        "nested jvp": _nested(lambda f: lambda x: jax.jvp(f, (x,), (jnp.ones_like(x),))[1]),
        "nested grad": _nested(jax.grad),
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


def _nested(derivative):
    def fn(a, b, *rest):
        def y(a, b):
            return _recurrence(a, b, *rest)

        def y_a(a, b):
            return derivative(lambda a: y(a, b))(a)

        return {
            "y": y(a, b),
            "y_a": y_a(a, b),
            "y_b": derivative(lambda b: y(a, b))(b),
            "y_aa": derivative(lambda a: y_a(a, b))(a),
            "y_ab": derivative(lambda b: y_a(a, b))(b),
        }

    return fn


def _hessian(a, b, *rest):
    def y(p):
        return _recurrence(p[0], p[1], *rest)

    p = jnp.stack([a, b])
    value, gradient = jax.value_and_grad(y)(p)
    second = jax.hessian(y)(p)
    return {"y": value, "y_a": gradient[0], "y_b": gradient[1], "y_aa": second[0, 0], "y_ab": second[0, 1]}
