"""Derivatives of the tanh network written by hand: the standard that the other variants are measured by.

Each stream (value, first tangents, second tangents, ...) goes through every layer once. With y = tanh(z) and
s = 1 - y^2,

    y' = s z'     s' = -2 y y'     and so on by Leibniz' rule,

so that s, s' and every product are computed once and used by all streams that need them.
"""

import jax.numpy as jnp

from benchmarks.models import Params, Partials


def order_two(params: Params, X) -> Partials:
    """u, u_t, u_x and u_xx at every row (t, x) of X."""
    (W, b), *hidden, (V, c) = params
    # The first layer's preactivation is linear in t and x: its tangents are rows of W, its second tangent is zero.
    y = jnp.tanh(X @ W + b)
    s = 1 - y * y
    y_t, y_x = s * W[0], s * W[1]
    y_xx = -2 * y * y_x * W[1]
    for W, b in hidden:
        y, z_t, z_x, z_xx = jnp.tanh(y @ W + b), y_t @ W, y_x @ W, y_xx @ W
        s = 1 - y * y
        y_t, y_x = s * z_t, s * z_x
        y_xx = s * z_xx - 2 * y * y_x * z_x
    return {"u": (y @ V + c)[:, 0], "u_t": (y_t @ V)[:, 0], "u_x": (y_x @ V)[:, 0], "u_xx": (y_xx @ V)[:, 0]}


def order_four(params: Params, X) -> Partials:
    """u, u_t, u_x, u_xx and u_xxxx at every row (t, x) of X; u_xxx on the way."""
    (W, b), *hidden, (V, c) = params
    y = jnp.tanh(X @ W + b)
    z_1 = W[1]
    s = 1 - y * y
    y_t, y_1 = s * W[0], s * z_1
    s_1 = -2 * y * y_1
    y_2 = s_1 * z_1
    s_2 = -2 * (y_1 * y_1 + y * y_2)
    y_3 = s_2 * z_1
    s_3 = -2 * (3 * y_1 * y_2 + y * y_3)
    y_4 = s_3 * z_1
    for W, b in hidden:
        y, z_t = jnp.tanh(y @ W + b), y_t @ W
        z_1, z_2, z_3, z_4 = y_1 @ W, y_2 @ W, y_3 @ W, y_4 @ W
        s = 1 - y * y
        y_t, y_1 = s * z_t, s * z_1
        s_1 = -2 * y * y_1
        y_2 = s * z_2 + s_1 * z_1
        s_2 = -2 * (y_1 * y_1 + y * y_2)
        y_3 = s * z_3 + 2 * s_1 * z_2 + s_2 * z_1
        s_3 = -2 * (3 * y_1 * y_2 + y * y_3)
        y_4 = s * z_4 + 3 * (s_1 * z_3 + s_2 * z_2) + s_3 * z_1
    streams = {"u_t": y_t, "u_x": y_1, "u_xx": y_2, "u_xxxx": y_4}
    return {"u": (y @ V + c)[:, 0]} | {name: (stream @ V)[:, 0] for name, stream in streams.items()}


def flow(params: Params, X) -> Partials:
    """u, v, p and the twelve partials of the Navier-Stokes residual at every row (t, x, y) of X."""
    (W, b), *hidden, (V, c) = params
    y = jnp.tanh(X @ W + b)
    s = 1 - y * y
    first = [s * W[0], s * W[1], s * W[2]]
    m = -2 * y
    second = [m * first[1] * W[1], m * first[2] * W[2]]
    for W, b in hidden:
        y = jnp.tanh(y @ W + b)
        s = 1 - y * y
        m = -2 * y
        z_first, z_second = [t @ W for t in first], [t @ W for t in second]
        first = [s * z for z in z_first]
        second = [s * zz + m * t * z for zz, t, z in zip(z_second, first[1:], z_first[1:], strict=True)]
    w, (w_t, w_x, w_y), (w_xx, w_yy) = y @ V + c, [t @ V for t in first], [t @ V for t in second]
    return {
        "u": w[:, 0], "u_t": w_t[:, 0], "u_x": w_x[:, 0], "u_y": w_y[:, 0], "u_xx": w_xx[:, 0], "u_yy": w_yy[:, 0],
        "v": w[:, 1], "v_t": w_t[:, 1], "v_x": w_x[:, 1], "v_y": w_y[:, 1], "v_xx": w_xx[:, 1], "v_yy": w_yy[:, 1],
        "p_x": w_x[:, 2], "p_y": w_y[:, 2],
    }  # fmt: skip
