"""Functions with loops: named partials of a recurrence and of a solver, and loops that share work."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

import jaxpartials as jp
from benchmarks.harness import Case, Target
from benchmarks.models import network

NAMES = ("p", "q", "r")
PAIRS = tuple(itertools.combinations_with_replacement(range(3), 2))
TEN = {
    "y": "y",
    **{f"y_{n}": f"y/{n}" for n in NAMES},
    **{f"y_{NAMES[i]}{NAMES[j]}": f"y/{NAMES[i]} {NAMES[j]}" if i != j else f"y/{NAMES[i]}^2" for i, j in PAIRS},
}


def ten_partials(small: bool) -> list[Case]:
    """All partials up to order two by three numbers: of a recurrent network, and of 200 Runge-Kutta steps."""
    batch, width, steps = (2, 5, 4) if small else (8, 256, 50)
    ((W, c),) = network(width, width)
    start, signal = jax.random.split(jax.random.key(3))
    recurrent = (
        1.5 * W, c, jax.random.normal(start, (batch, width)), jax.random.normal(signal, (steps, batch, width)),
    )  # fmt: skip
    numbers = jnp.asarray(0.9), jnp.asarray(0.6), jnp.asarray(0.3)
    count, turns = (6, 4) if small else (128, 200)
    springs = jax.random.normal(jax.random.key(4), (count, count)) / count
    pendulums = jnp.linspace(0.5, 1.5, count), springs + springs.T, jnp.linspace(0.0, 10.0, turns + 1)
    return [
        _ten("recurrent network", _recurrence, (*numbers, *recurrent)),
        _ten("RK4", _pendulums, (*numbers, *pendulums)),
    ]


def _ten(name: str, fn: Callable[..., Any], args: tuple) -> Case:
    variants = {
        "shared by hand": _tower(fn),
        "partials": jp.partials(fn, TEN),
        "simplify": jp.simplify(_each_alone(fn)),
        "each alone": _each_alone(fn),
    }
    targets = (
        Target("partials", "shared by hand", 0.6),
        Target("partials", "each alone", 1 / 2.8),
        Target("simplify", "each alone", 1 / 2.8),
    )
    return Case(f"ten_partials, {name}", variants, args, "shared by hand", targets, tolerance=1e-3)


def _recurrence(p, q, r, W, c, start, signal):
    """h <- tanh(p h W + q x + c), from r h_0; y is the mean of the last h."""

    def step(h, x):
        return jnp.tanh(p * (h @ W) + q * x + c), None

    h, _ = lax.scan(step, r * start, signal)
    return jnp.mean(h)


def _pendulums(p, q, r, lengths, springs, times):
    """The mean angle, at the last time, of damped pendulums with springs: damping p, coupling q, amplitude r."""

    def slope(state):
        angle, speed = state
        return speed, q * (springs @ angle) - p * speed - jnp.sin(angle) / lengths

    def moved(state, h, by):
        return tuple(s + h * b for s, b in zip(state, by, strict=True))

    def step(state, h):
        k1 = slope(state)
        k2 = slope(moved(state, h / 2, k1))
        k3 = slope(moved(state, h / 2, k2))
        k4 = slope(moved(state, h, k3))
        mean = tuple((a + 2 * b + 2 * c + d) / 6 for a, b, c, d in zip(k1, k2, k3, k4, strict=True))
        return moved(state, h, mean), None

    state, _ = lax.scan(step, (r * lengths, jnp.zeros_like(lengths)), jnp.diff(times))
    return jnp.mean(state[0])


def _tower(fn):
    """Value and Jacobian as what is carried along with the Hessian: jacfwd of jacfwd, in one."""

    def ten(p, q, r, *rest):
        def value(v):
            y = fn(*v, *rest)
            return y, y

        def first(v):
            slope, y = jax.jacfwd(value, has_aux=True)(v)
            return slope, (y, slope)

        second, (y, slope) = jax.jacfwd(first, has_aux=True)(jnp.stack([p, q, r]))
        return dict(zip(TEN, [y, *slope, *(second[i, j] for i, j in PAIRS)], strict=True))

    return ten


def _each_alone(fn):
    """Every partial a nested jacfwd of its own, as it is written without thinking about loops."""

    def ten(p, q, r, *rest):
        v = (p, q, r)
        at = lambda *v: fn(*v, *rest)
        values = [at(*v), *(jax.jacfwd(at, i)(*v) for i in range(3))]
        values += [jax.jacfwd(jax.jacfwd(at, i), j)(*v) for i, j in PAIRS]
        return dict(zip(TEN, values, strict=True))

    return ten


def shared_loops(small: bool) -> list[Case]:
    """Loops that share work, through `simplify`, against one loop written by hand."""
    width, steps = (5, 4) if small else (128, 50)
    ((W, c),) = network(width, width)
    start, along, signal = jax.random.split(jax.random.key(3), 3)
    h, t = jax.random.normal(start, (width,)), jax.random.normal(along, (width,))
    x = jax.random.normal(signal, (steps, width))
    n = jnp.asarray(steps)
    made = [
        ("value, jacfwd, second derivative", _orders, _orders_by_hand, (jnp.asarray(0.9), W, c, h, x), 1.0),
        ("two congruent carries", _congruent, _congruent_by_hand, (W, c, h, x), 1.05),
        ("two supersets", _supersets, _supersets_by_hand, (W, c, h, t, x), 1.05),
        ("while and its jvp", _primal_and_jvp(_while), _jvp_of(_while), (h, t, W, n), 1.05),
        ("fori_loop and its jvp", _primal_and_jvp(_fori), _jvp_of(_fori), (h, t, W, n), 1.05),
        ("cond and its jvp", _primal_and_jvp(_cond), _jvp_of(_cond), (h, t, W, n), 1.05),
        ("switch and its jvp", _primal_and_jvp(_switch), _jvp_of(_switch), (h, t, W, n), 1.05),
    ]
    return [
        Case(
            f"shared_loops, {name}",
            {"by hand": by_hand, "simplify": jp.simplify(fn), "as it is": fn},
            args, "by hand", (Target("simplify", "by hand", wanted),), tolerance=1e-3,
        )
        for name, fn, by_hand, args, wanted in made
    ]  # fmt: skip


def _mean_of_scan(s, W, c, h, x):
    return jnp.mean(lax.scan(lambda h, x: (jnp.tanh(s * (h @ W) + x + c), None), h, x)[0])


def _orders(s, W, c, h, x):
    at = lambda s: _mean_of_scan(s, W, c, h, x)
    return at(s), jax.jacfwd(at)(s), jax.jacfwd(jax.jacfwd(at))(s)


def _orders_by_hand(s, W, c, h, x):
    def step(carry, x):
        h, h_1, h_2 = carry
        z, z_1, z_2 = h @ W, h_1 @ W, h_2 @ W
        y = jnp.tanh(s * z + x + c)
        first = z + s * z_1
        g = 1 - y * y
        y_1 = g * first
        return (y, y_1, g * (2 * z_1 + s * z_2) - 2 * y * y_1 * first), None

    zero = jnp.zeros_like(h)
    return tuple(map(jnp.mean, lax.scan(step, (h, zero, zero), x)[0]))


def _congruent(W, c, h, x):
    """Both carries start alike and move alike, which no pass that looks at one equation at a time can see."""

    def step(carry, x):
        a, b = carry
        return (jnp.tanh(b @ W + x + c), jnp.tanh(a @ W + x + c)), None

    a, b = lax.scan(step, (h, h), x)[0]
    return a, b


def _congruent_by_hand(W, c, h, x):
    a = lax.scan(lambda a, x: (jnp.tanh(a @ W + x + c), None), h, x)[0]
    return a, a


def _supersets(W, c, h, t, x):
    """Two loops that each do what a third does, and more."""
    step = lambda h, x: jnp.tanh(h @ W + x + c)
    alone = lax.scan(lambda h, x: (step(h, x), None), h, x)[0]
    mean = lax.scan(lambda carry, x: ((step(carry[0], x), carry[1] + carry[0]), None), (h, jnp.zeros_like(h)), x)[0]
    norms = lax.scan(lambda h, x: (step(h, x), jnp.sum(h * t)), h, x)[1]
    return alone, mean[1], norms


def _supersets_by_hand(W, c, h, t, x):
    def step(carry, x):
        h, total = carry
        return (jnp.tanh(h @ W + x + c), total + h), jnp.sum(h * t)

    (last, total), norms = lax.scan(step, (h, jnp.zeros_like(h)), x)
    return last, total, norms


def _primal_and_jvp(fn):
    """The value, and apart from it the derivative along t."""

    def both(h, t, *rest):
        return fn(h, *rest), jax.jvp(lambda h: fn(h, *rest), (h,), (t,))[1]

    return both


def _jvp_of(fn):
    return lambda h, t, *rest: jax.jvp(lambda h: fn(h, *rest), (h,), (t,))


def _while(h, W, n):
    return lax.while_loop(lambda carry: carry[0] < n, lambda carry: (carry[0] + 1, jnp.tanh(carry[1] @ W)), (0, h))[1]


def _fori(h, W, n):
    return lax.fori_loop(0, n, lambda i, h: jnp.tanh(h @ W) + 1e-3 * i, h)


def _deep(h, W):
    for _ in range(10):
        h = jnp.tanh(h @ W)
    return h


def _cond(h, W, n):
    return lax.cond(n > 0, _deep, lambda h, W: jnp.sin(h), h, W)


def _switch(h, W, n):
    branches: Sequence[Callable[..., Any]] = [lambda h, W: jnp.sin(h), _deep, lambda h, W: jnp.tanh(h)]
    return lax.switch(jnp.minimum(n, 1), branches, h, W)
