"""Diagonals of two of the four blocks of a function with two inputs and two outputs."""

import jax
import jax.numpy as jnp

import jaxpartials as jp
from benchmarks.harness import Case, Target


def diagonal_blocks(small: bool) -> list[Case]:
    """dz/da and dy/db of (z, y) = f(a, b) on cells that do not interact: two passes, not 600."""
    cells = 7 if small else 300
    first, second = jax.random.split(jax.random.key(0))
    args = jax.random.uniform(first, (cells,)) + 0.5, jax.random.uniform(second, (cells,)) + 1.0
    programs = {"4 steps": _unrolled(1 if small else 4), "10 steps in a scan": _scanned(2 if small else 10)}
    return [
        Case(f"diagonal_blocks, {name}", _variants(f), args, "by hand, two jvps", TARGETS, tolerance=1e-5)
        for name, f in programs.items()
    ]


TARGETS = (
    Target("partials", "by hand, two jvps", 1.2),
    Target("partials", "jacfwd, its diagonals", 1 / 45),
)


def _variants(f):
    return {
        "by hand, two jvps": _two_jvps(f),
        "partials": jp.partials(f, {"z_a": "z[i]/a[i] -> i", "y_b": "y[i]/b[i] -> i"}, outputs=("z", "y")),
        "jacfwd, its diagonals": _dense(jax.jacfwd(f, (0, 1)), jitted_alone=True),
        "jacrev, its diagonals": _dense(jax.jacrev(f, (0, 1)), jitted_alone=True),
        "jacfwd and diagonals in one jit": _dense(jax.jacfwd(f, (0, 1)), jitted_alone=False),
    }


def _reaction_step(a, b, h=0.05):
    """One Runge-Kutta step of the Brusselator's reaction in every cell."""

    def rate(a, b):
        return 1.0 + a * a * b - 4.0 * a, 3.0 * a - a * a * b

    k1, l1 = rate(a, b)
    k2, l2 = rate(a + h / 2 * k1, b + h / 2 * l1)
    k3, l3 = rate(a + h / 2 * k2, b + h / 2 * l2)
    k4, l4 = rate(a + h * k3, b + h * l3)
    return a + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4), b + h / 6 * (l1 + 2 * l2 + 2 * l3 + l4)


def _unrolled(steps):
    def f(a, b):
        for _ in range(steps):
            a, b = _reaction_step(a, b)
        return a, b

    return f


def _scanned(steps):
    def f(a, b):
        state, _ = jax.lax.scan(lambda state, _: (_reaction_step(*state), None), (a, b), length=steps)
        return state

    return f


def _two_jvps(f):
    def fn(a, b):
        _, (z_a, _) = jax.jvp(lambda a: f(a, b), (a,), (jnp.ones_like(a),))
        _, (_, y_b) = jax.jvp(lambda b: f(a, b), (b,), (jnp.ones_like(b),))
        return {"z_a": z_a, "y_b": y_b}

    return fn


def _dense(jacobian, jitted_alone):
    """The diagonals of the two dense blocks.

    Where the diagonals are taken in the same jit, XLA may compute them alone: it can through elementwise operations,
    not through a loop. A jacobian that is jitted by itself has to return its blocks.
    """

    def fn(a, b):
        (z_a, _), (_, y_b) = jacobian(a, b)
        if jitted_alone:
            z_a, y_b = jax.lax.optimization_barrier((z_a, y_b))
        return {"z_a": jnp.diagonal(z_a), "y_b": jnp.diagonal(y_b)}

    return fn
