"""Laplacians and the biharmonic operator of a network: forward, in a training step, and in chunks."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import jaxpartials as jp
from benchmarks.harness import Case, Target
from benchmarks.models import Params, field, network, points

try:
    import folx
except ImportError:  # a peer, and not needed
    folx = None


def laplacian_forward(small: bool) -> list[Case]:
    """The Laplacian of a tanh network at every point of a batch."""
    return [
        Case(f"laplacian_forward, {name}", laplacians(), args, "by hand", _targets(), tolerance=1e-3)
        for name, args in settings(small)
    ]


def laplacian_training(small: bool) -> list[Case]:
    """Loss and gradient of a training step whose residual is a Laplacian."""
    return [
        Case(
            f"laplacian_training, {name}",
            {variant: jax.value_and_grad(poisson(fn)) for variant, fn in laplacians().items()},
            args, "by hand", _targets(), tolerance=1e-3,
        )
        for name, args in settings(small)
    ]  # fmt: skip


def laplacian_chunked(small: bool) -> list[Case]:
    """The same step with no more than so many points alive at once, its gradient added up."""
    chunk = 2 if small else 128
    cases = []
    for name, args in settings(small):
        whole = jax.value_and_grad(poisson(jp.partials(field, {"u": "u[b]", "lap": "u[b]/X[b,i]^2 -> b"})))
        variants = {
            "by hand": _chunked(jax.value_and_grad(poisson(by_hand)), chunk),
            "accumulate": jp.accumulate(whole, "X", chunk),
            "whole batch": whole,
        }
        targets = (Target("accumulate", "by hand", 1.1),)
        cases.append(Case(f"laplacian_chunked, {name}", variants, args, "by hand", targets, tolerance=1e-3))
    return cases


def biharmonic_training(small: bool) -> list[Case]:
    """Loss and gradient of a training step whose residual is the biharmonic operator in two dimensions."""
    args = (network(2, 5, 5, 1), points(3, 2)) if small else (network(2, 64, 64, 64, 64, 1), points(1024, 2))
    ours = jp.partials(field, {"u": "u[b]", "lap": "u[b]/X[b,i]^2 X[b,j]^2 -> b"})
    variants = {
        "mixed by hand": _mixed,
        "polarised by hand": _polarised,
        "partials": ours,
        "laplacian of laplacian": _laplacian_of(_laplacian_of_point),
        "hessian of hessian": _laplacian_of(_trace_of_hessian_of_point),
    }
    trained = {name: jax.value_and_grad(poisson(fn)) for name, fn in variants.items()}
    targets = (Target("partials", "mixed by hand", 1.2),)
    return [Case("biharmonic_training", trained, args, "mixed by hand", targets, tolerance=2e-3)]


def settings(small: bool) -> list[tuple[str, tuple]]:
    """Dimensions and widths, four hidden layers, batch 1024."""
    if small:
        return [("d = 3, width 5", (network(3, 5, 5, 1), points(4, 3)))]
    return [
        (f"d = {d}, width {width}", (network(d, width, width, width, width, 1), points(1024, d)))
        for d in (10, 50)
        for width in (64, 128)
    ]


def _targets() -> tuple[Target, ...]:
    wanted = [Target("partials", "by hand", 1.05), Target("partials, vmap", "by hand", 1.05)]
    wanted.append(Target("simplify(trace of hessian)", "by hand", 1.5))
    return (*wanted, Target("partials", "folx", 1.0)) if folx else tuple(wanted)


def poisson(fn: Callable[..., Any]) -> Callable[..., Any]:
    """The mean squared residual of Lu = u."""

    def loss(params, X):
        d = fn(params, X)
        return jnp.mean((d["lap"] + d["u"]) ** 2)

    return loss


def laplacians() -> dict[str, Callable[..., Any]]:
    variants = {
        "by hand": by_hand,
        "partials": jp.partials(field, {"u": "u[b]", "lap": "u[b]/X[b,i]^2 -> b"}),
        "partials, vmap": _over_points(jp.partials(_at, {"u": "u", "lap": "u/x[i]^2"})),
        "simplify(trace of hessian)": jp.simplify(_over_points(_trace_of_hessian)),
        "trace of hessian": _over_points(_trace_of_hessian),
        "jvp of grad": _over_points(_jvp_of_grad),
    }
    if folx is not None:
        variants["folx"] = _over_points(_folx)
    return variants


def by_hand(params: Params, X) -> dict[str, Any]:
    """The forward Laplacian: u, all first tangents, and one second-order stream.

    y = tanh(z), s = 1 - y^2:   y_i = s z_i,   L y = s L z - 2 y s sum_i z_i^2
    """
    (W, b), *hidden, (V, c) = params
    y = jnp.tanh(X @ W + b)
    s = 1 - y * y
    # The first layer's tangents are the rows of W, the same at every point.
    first = s[:, None] * W
    second = -2 * y * s * jnp.sum(W * W, axis=0)
    for W, b in hidden:
        y, z_first, z_second = jnp.tanh(y @ W + b), first @ W, second @ W
        s = 1 - y * y
        first = s[:, None] * z_first
        second = s * z_second - 2 * y * s * jnp.sum(z_first * z_first, axis=1)
    return {"u": (y @ V + c)[:, 0], "lap": (second @ V)[:, 0]}


def _at(params, x):
    return field(params, x[None])[0]


def _over_points(fn):
    return lambda params, X: jax.vmap(fn, in_axes=(None, 0))(params, X)


def _trace_of_hessian(params, x):
    return {"u": _at(params, x), "lap": jnp.trace(jax.hessian(_at, 1)(params, x))}


def _jvp_of_grad(params, x):
    slope = lambda x: jax.grad(_at, 1)(params, x)
    along = jax.vmap(lambda e: jnp.vdot(e, jax.jvp(slope, (x,), (e,))[1]))
    return {"u": _at(params, x), "lap": jnp.sum(along(jnp.eye(x.size)))}


def _folx(params, x):
    found = folx.forward_laplacian(lambda x: _at(params, x))(x)
    return {"u": found.x, "lap": found.laplacian}


def _chunked(value_and_grad, size):
    """One chunk of points after the other; all are of one size."""

    def step(params, X):
        chunks = X.reshape(-1, size, X.shape[1])

        def one(total, X):
            return jax.tree.map(jnp.add, total, value_and_grad(params, X)), None

        zero = jax.tree.map(jnp.zeros_like, jax.eval_shape(value_and_grad, params, chunks[0]))
        total, _ = jax.lax.scan(one, jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), zero), chunks)
        return jax.tree.map(lambda a: a / len(chunks), total)

    return step


# ---- the biharmonic operator in two dimensions


def _mixed(params, X):
    """Δ²u from u_x, u_y, u_xx, u_xy, u_yy, Δu_x, Δu_y and Δ²u of every layer, each an array of its own.

    By Faà di Bruno's formula, with f_k the derivatives of tanh at z, q = z_x^2 + z_y^2, c_x = z_xx z_x + z_xy z_y and
    c_y likewise:

    Δf_x = f_1 Δz_x + f_2 (2 c_x + z_x Δz) + f_3 q z_x
    Δ²f = f_1 Δ²z + f_2 (4 z_x Δz_x + 4 z_y Δz_y + (Δz)^2 + 2 z_xx^2 + 4 z_xy^2 + 2 z_yy^2)
          + f_3 (2 q Δz + 4 c_x z_x + 4 c_y z_y) + f_4 q^2
    """
    (W, b), *hidden, (V, c) = params
    f = jnp.tanh(X @ W + b)
    f_1, f_2, f_3, f_4 = _slopes(f)
    x, y = W
    q = x * x + y * y
    streams = [f_1 * x, f_1 * y, f_2 * x * x, f_2 * x * y, f_2 * y * y, f_3 * q * x, f_3 * q * y, f_4 * q * q]
    for W, b in hidden:
        f = jnp.tanh(f @ W + b)
        f_1, f_2, f_3, f_4 = _slopes(f)
        x, y, xx, xy, yy, lap_x, lap_y, total = (stream @ W for stream in streams)
        q, lap = x * x + y * y, xx + yy
        c_x, c_y = xx * x + xy * y, xy * x + yy * y
        streams = [
            f_1 * x,
            f_1 * y,
            f_1 * xx + f_2 * x * x,
            f_1 * xy + f_2 * x * y,
            f_1 * yy + f_2 * y * y,
            f_1 * lap_x + f_2 * (2 * c_x + x * lap) + f_3 * q * x,
            f_1 * lap_y + f_2 * (2 * c_y + y * lap) + f_3 * q * y,
            f_1 * total
            + f_2 * (4 * (x * lap_x + y * lap_y) + lap * lap + 2 * (xx * xx + 2 * xy * xy + yy * yy))
            + f_3 * (2 * q * lap + 4 * (c_x * x + c_y * y))
            + f_4 * q * q,
        ]
    return {"u": (f @ V + c)[:, 0], "lap": (streams[-1] @ V)[:, 0]}


def _slopes(f):
    """The first four derivatives of tanh where its value is f."""
    first = 1 - f * f
    second = -2 * f * first
    third = -2 * (first * first + f * second)
    return first, second, third, -2 * (3 * first * second + f * third)


def _polarised(params, X):
    """u_xxyy from fourth derivatives along single directions.

    u_xxyy = (D_{x+y} u + D_{x-y} u - 2 D_x u - 2 D_y u) / 12, with D the fourth derivative along a direction
    """
    along = jnp.asarray([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, -1.0]])
    weights = jnp.asarray([2 / 3, 2 / 3, 1 / 6, 1 / 6])
    (W, b), *hidden, (V, c) = params
    y = jnp.tanh(X @ W + b)
    z_1 = along @ W
    up = lambda a: a[:, None]
    s = 1 - y * y
    y_1 = up(s) * z_1
    s_1 = -2 * up(y) * y_1
    y_2 = s_1 * z_1
    s_2 = -2 * (y_1 * y_1 + up(y) * y_2)
    y_3 = s_2 * z_1
    s_3 = -2 * (3 * y_1 * y_2 + up(y) * y_3)
    total = jnp.einsum("d,bdw->bw", weights, s_3 * z_1)
    for W, b in hidden:
        y = jnp.tanh(y @ W + b)
        z_1, z_2, z_3 = y_1 @ W, y_2 @ W, y_3 @ W
        s = 1 - y * y
        y_1 = up(s) * z_1
        s_1 = -2 * up(y) * y_1
        y_2 = up(s) * z_2 + s_1 * z_1
        s_2 = -2 * (y_1 * y_1 + up(y) * y_2)
        y_3 = up(s) * z_3 + 2 * s_1 * z_2 + s_2 * z_1
        s_3 = -2 * (3 * y_1 * y_2 + up(y) * y_3)
        total = s * (total @ W) + jnp.einsum("d,bdw->bw", weights, 3 * (s_1 * z_3 + s_2 * z_2) + s_3 * z_1)
    return {"u": (y @ V + c)[:, 0], "lap": (total @ V)[:, 0]}


def _laplacian_of(operator):
    def fn(params, X):
        one = lambda x: operator(lambda x: operator(lambda x: _at(params, x))(x))(x)
        return {"u": field(params, X), "lap": jax.vmap(one)(X)}

    return fn


def _laplacian_of_point(fn):
    def at(x):
        second = lambda e: jax.jvp(lambda x: jax.jvp(fn, (x,), (e,))[1], (x,), (e,))[1]
        return sum(second(e) for e in jnp.eye(2))

    return at


def _trace_of_hessian_of_point(fn):
    return lambda x: jnp.trace(jax.hessian(fn)(x))
