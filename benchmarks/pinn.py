"""Scalar physics-informed networks: their partials forward, and in a training step, of orders two and four."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import jet

import jaxpartials as jp
from benchmarks import byhand
from benchmarks.harness import Case, Target
from benchmarks.models import burgers, field, field_at, kuramoto_sivashinsky, network, points, training

ORDER_TWO = {"u": 0, "u_t": "t", "u_x": "x", "u_xx": "x^2"}
ORDER_FOUR = {"u": 0, "u_t": "t", "u_x": "x", "u_xx": "x^2", "u_xxxx": "x^4"}
ON_THE_BATCH = {"t": "X[b,0]", "x": "X[b,1]", "x^2": "X[b,1]^2", "x^4": "X[b,1]^4"}


def pinn_forward(small: bool) -> list[Case]:
    """u, u_t, u_x and u_xx of a tanh network over a batch of points."""
    return [
        Case(f"pinn_forward, width {width}", order_two(), args, "by hand", targets()) for width, args in settings(small)
    ]


def pinn_training(small: bool) -> list[Case]:
    """Loss and gradient of a Burgers training step."""
    return [
        Case(
            f"pinn_training, width {width}",
            {name: training(fn, burgers) for name, fn in order_two().items()},
            args, "by hand", targets(),
        )
        for width, args in settings(small)
    ]  # fmt: skip


def order4_training(small: bool) -> list[Case]:
    """Loss and gradient of a Kuramoto-Sivashinsky training step, with u_xxxx."""
    return [
        Case(
            f"order4_training, width {width}",
            {name: training(fn, kuramoto_sivashinsky) for name, fn in order_four().items()},
            args, "by hand", targets(),
            tolerance=2e-3,
        )
        for width, args in settings(small)
    ]  # fmt: skip


def settings(small: bool) -> list[tuple[int, tuple]]:
    """Widths, and the parameters and points that go with them: four hidden layers, batch 1024."""
    if small:
        return [(5, (network(2, 5, 5, 1), points(3, 2)))]
    return [(width, (network(2, width, width, width, width, 1), points(1024, 2))) for width in (64, 128)]


def targets() -> tuple[Target, ...]:
    return Target("partials", "by hand", 1.05), Target("partials, vmap", "by hand", 1.05)


def order_two() -> dict[str, Callable[..., Any]]:
    return {
        "by hand": byhand.order_two,
        "partials": jp.partials(field, _on_the_batch(ORDER_TWO)),
        "partials, vmap": _over_points(jp.partials(field_at, _at_a_point(ORDER_TWO))),
        "nested jvp": _over_points(_nested_jvp(2)),
        "nested grad": _over_points(_nested_grad(2)),
        "jet": _over_points(_jet(2)),
        "hessian": _over_points(_hessian),
    }


def order_four() -> dict[str, Callable[..., Any]]:
    return {
        "by hand": byhand.order_four,
        "partials": jp.partials(field, _on_the_batch(ORDER_FOUR)),
        "partials, vmap": _over_points(jp.partials(field_at, _at_a_point(ORDER_FOUR))),
        "nested jvp": _over_points(_nested_jvp(4)),
        "nested grad": _over_points(_nested_grad(4)),
        "jet": _over_points(_jet(4)),
    }


def _on_the_batch(wanted):
    return {name: "u[b]" if wrt == 0 else f"u[b]/{ON_THE_BATCH[wrt]} -> b" for name, wrt in wanted.items()}


def _at_a_point(wanted):
    return {name: "u" if wrt == 0 else f"u/{wrt}" for name, wrt in wanted.items()}


def _over_points(fn):
    """A function of one point (t, x), over the rows of X."""
    return lambda params, X: jax.vmap(fn, in_axes=(None, 0, 0))(params, X[:, 0], X[:, 1])


def _chosen(along_x, u_t):
    """The derivatives along x that the residual asks for, of all there are up to some order."""
    names = {0: "u", 1: "u_x", 2: "u_xx", 4: "u_xxxx"}
    return {name: along_x[order] for order, name in names.items() if order < len(along_x)} | {"u_t": u_t}


def naive(order: int) -> Callable[..., Any]:
    """Nested `jax.grad` at one point, mapped over the batch."""
    return _over_points(_nested_grad(order))


def _nested_grad(order):
    """Each derivative by itself, `jax.grad` of the one below."""

    def fn(params, t, x):
        tower = [lambda x: field_at(params, t, x)]
        for _ in range(order):
            tower.append(jax.grad(tower[-1]))
        return _chosen([f(x) for f in tower], jax.grad(field_at, 1)(params, t, x))

    return fn


def _nested_jvp(order):
    """`jax.jvp` of `jax.jvp`, the lower derivatives as the primals of the higher ones."""

    def fn(params, t, x):
        def up_to(n):
            if n == 0:
                return lambda x: (field_at(params, t, x),)

            def derivatives(x):
                lower, tangents = jax.jvp(up_to(n - 1), (x,), (jnp.ones_like(x),))
                return (*lower, tangents[-1])

            return derivatives

        _, u_t = jax.jvp(lambda t: field_at(params, t, x), (t,), (jnp.ones_like(t),))
        return _chosen(up_to(order)(x), u_t)

    return fn


def _jet(order):
    """Taylor mode along x: one pass for u and all of its derivatives."""

    def fn(params, t, x):
        direction = [jnp.ones_like(x)] + [jnp.zeros_like(x)] * (order - 1)
        u, series = jet.jet(lambda x: field_at(params, t, x), (x,), (direction,))
        _, u_t = jax.jvp(lambda t: field_at(params, t, x), (t,), (jnp.ones_like(t),))
        return _chosen([u, *series], u_t)

    return fn


def _hessian(params, t, x):
    def at(X):
        return field_at(params, X[0], X[1])

    X = jnp.stack([t, x])
    u, gradient = jax.value_and_grad(at)(X)
    return {"u": u, "u_t": gradient[0], "u_x": gradient[1], "u_xx": jax.hessian(at)(X)[1, 1]}
