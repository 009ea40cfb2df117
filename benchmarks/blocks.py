"""Diagonals of two of the four blocks of a function with two inputs and two outputs."""

import jax
import jax.numpy as jnp

import jaxpartials as jp
from benchmarks.harness import Case, Target


def diagonal_blocks(small: bool) -> list[Case]:
    """dz/da and dy/db of (z, y) = f(a, b) on 300 cells that do not interact: two passes, not 600."""
    cells = 7 if small else 300
    first, second = jax.random.split(jax.random.key(0))
    args = jax.random.uniform(first, (cells,)) + 0.5, jax.random.uniform(second, (cells,)) + 1.0
    variants = {
        "by hand, two jvps": _two_jvps,
        "partials": jp.partials(
            _reaction_step, {"z_a": "z[i]/a[i] -> i", "y_b": "y[i]/b[i] -> i"}, outputs=("z", "y")
        ),
        "jacfwd, then diagonals": _jacfwd,
        "jacrev, then diagonals": _jacrev,
    }
    targets = (
        Target("partials", "by hand, two jvps", 1.2),
        Target("partials", "jacfwd, then diagonals", 1 / 45),
    )
    return [Case("diagonal_blocks", variants, args, "by hand, two jvps", targets)]


def _reaction_step(a, b, h=0.05):
    """One Runge-Kutta step of the Brusselator's reaction in every cell."""

    def rate(a, b):
        return 1.0 + a * a * b - 4.0 * a, 3.0 * a - a * a * b

    k1, l1 = rate(a, b)
    k2, l2 = rate(a + h / 2 * k1, b + h / 2 * l1)
    k3, l3 = rate(a + h / 2 * k2, b + h / 2 * l2)
    k4, l4 = rate(a + h * k3, b + h * l3)
    return a + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4), b + h / 6 * (l1 + 2 * l2 + 2 * l3 + l4)


def _two_jvps(a, b):
    _, (z_a, _) = jax.jvp(lambda a: _reaction_step(a, b), (a,), (jnp.ones_like(a),))
    _, (_, y_b) = jax.jvp(lambda b: _reaction_step(a, b), (b,), (jnp.ones_like(b),))
    return {"z_a": z_a, "y_b": y_b}


def _dense(jacobian):
    def fn(a, b):
        (z_a, _), (_, y_b) = jacobian(_reaction_step, (0, 1))(a, b)
        return {"z_a": jnp.diagonal(z_a), "y_b": jnp.diagonal(y_b)}

    return fn


_jacfwd, _jacrev = _dense(jax.jacfwd), _dense(jax.jacrev)
