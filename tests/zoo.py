"""Small functions, each with one known waste, and twins of them that have none.

`# waste` marks the lines that a report must name, `operations` counts by hand what would be saved: one for each element
of an elementwise operation, 2 m n k for a matrix product, and the usual leading terms for factorizations. `xla` is what
XLA does about it on a CPU, where that can be told.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxpartials.inspection.finding import (
    EQUAL_CARRIES,
    INVARIANT,
    LOOPS,
    SUPERSET,
    THROWN_AWAY,
    TWICE,
    UNUSED,
    WRONG_MODE,
    ZEROS,
)

M, N, K, T = 6, 20, 28, 9
WIDE = 200
TRIPS = 30  # assumed of while loops


@dataclass(frozen=True)
class Wasteful:
    fn: Callable[..., Any]
    kind: str
    operations: float
    shapes: tuple[Any, ...]
    xla: str = ""

    @property
    def lines(self) -> set[int]:
        text, start = inspect.getsourcelines(self.fn)
        return {start + i for i, line in enumerate(text) if line.rstrip().endswith("# waste")}


WASTEFUL: list[Wasteful] = []
CLEAN: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []


def arguments(shapes: tuple[Any, ...]) -> list[jax.ShapeDtypeStruct]:
    return [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]


def waste(kind: str, operations: float, *shapes: Any, xla: str = "") -> Callable:
    def note(fn):
        WASTEFUL.append(Wasteful(fn, kind, operations, shapes, xla))
        return fn

    return note


def clean(*shapes: Any) -> Callable:
    def note(fn):
        CLEAN.append((fn, shapes))
        return fn

    return note


X, W, SQUARE = (M, N), (N, K), (N, N)
EYE = jnp.eye(N)
LAYER = 2 * M * N * K + M * K  # tanh(x @ w)
SQUARE_LAYER = 2 * M * N * N + M * N


# ---- computed twice


@waste(TWICE, LAYER, X, W)
def two_calls(x, w):
    def layer(x):
        return jnp.tanh(x @ w)  # waste

    return jnp.sum(layer(x)) * layer(x)


@clean(X, W)
def one_call(x, w):
    h = jnp.tanh(x @ w)
    return jnp.sum(h) * h


@waste(TWICE, 2 * LAYER, X, W)
def three_calls(x, w):
    def layer(x):
        return jnp.tanh(x @ w)  # waste

    return layer(x), 2 * layer(x), jnp.exp(layer(x))


@clean(X, W)
def three_different_calls(x, w):
    def layer(x):
        return jnp.tanh(x @ w)

    return layer(x), layer(2 * x), layer(x + 1)


@waste(TWICE, LAYER, X, W)
def across_jit(x, w):
    inner = jax.jit(lambda x: jnp.tanh(x @ w))  # waste
    return inner(x), jnp.exp(jnp.tanh(x @ w))  # waste


@clean(X, W)
def one_jit(x, w):
    h = jax.jit(lambda x: jnp.tanh(x @ w))(x)
    return h, jnp.exp(h)


@waste(TWICE, 2 * N * K + K, (N,), W)
def helpers(p, w):
    def helper_1(p):
        return jnp.tanh(p @ w)  # waste

    def helper_2(p):
        return jnp.sin(helper_1(p))

    return helper_1(p), helper_2(p)


@clean((N,), W)
def helpers_that_share(p, w):
    def helper_1(p):
        return jnp.tanh(p @ w)

    def helper_2(z):
        return jnp.sin(z)

    z = helper_1(p)
    return z, helper_2(z)


@waste(TWICE, LAYER, X, W)
def value_and_gradient_apart(x, w):
    def loss(x):
        return jnp.sum(jnp.tanh(x @ w))  # waste

    return loss(x), jax.grad(loss)(x)


@clean(X, W)
def value_and_gradient_together(x, w):
    return jax.value_and_grad(lambda x: jnp.sum(jnp.tanh(x @ w)))(x)


@waste(TWICE, LAYER, X, W, X)
def value_and_jvp_apart(x, w, v):
    def layer(x):
        return jnp.tanh(x @ w)  # waste

    return layer(x), jax.jvp(layer, (x,), (v,))[1]


@clean(X, W, X)
def value_and_jvp_together(x, w, v):
    return jax.jvp(lambda x: jnp.tanh(x @ w), (x,), (v,))


# forward, two layers; backward, two products; and for each layer the slope, and a product with it
@waste(TWICE, LAYER + (2 * M * N * K + M * N) + 2 * (2 * M * N * K) + 3 * (M * K + M * N), X, W)
def gradient_twice(x, w):
    def loss(x):
        return jnp.sum(jnp.tanh(jnp.tanh(x @ w) @ w.T))  # waste

    return jax.grad(loss)(x) * 2, jnp.sin(jax.grad(loss)(x))


@clean(X, W)
def gradient_once(x, w):
    slope = jax.grad(lambda x: jnp.sum(jnp.tanh(jnp.tanh(x @ w) @ w.T)))(x)
    return slope * 2, jnp.sin(slope)


@waste(TWICE, LAYER, X, W)
def in_a_branch_and_before(x, w):
    h = jnp.tanh(x @ w)  # waste

    def positive(x):
        return 2 * jnp.tanh(x @ w)  # waste

    def negative(x):
        return jnp.zeros((M, K))

    return h, lax.cond(x[0, 0] > 0, positive, negative, x)


@clean(X, W)
def in_two_branches(x, w):
    def positive(x):
        return jnp.tanh(x @ w)

    def negative(x):
        return jnp.sin(x @ w)

    return lax.cond(x[0, 0] > 0, positive, negative, x)


@waste(TWICE, T * LAYER, X, W, (T, K))
def in_a_loop_and_before(x, w, steps):
    h = jnp.tanh(x @ w)  # waste

    def body(c, step):
        return c + jnp.sum(jnp.tanh(x @ w) * step), None  # waste

    return h, lax.scan(body, 0.0, steps)[0]


@clean(X, W, (T, K))
def before_a_loop(x, w, steps):
    h = jnp.tanh(x @ w)
    return h, lax.scan(lambda c, step: (c + jnp.sum(h * step), None), 0.0, steps)[0]


@waste(TWICE, T * SQUARE_LAYER, X, SQUARE)
def twice_at_every_turn(x, w):
    def body(c, _):
        return 0.5 * jnp.tanh(c @ w) + jnp.sum(jnp.tanh(c @ w)), None  # waste

    return lax.scan(body, x, None, T)[0]


@clean(X, SQUARE)
def once_at_every_turn(x, w):
    def body(c, _):
        h = jnp.tanh(c @ w)
        return 0.5 * h + jnp.sum(h), None

    return lax.scan(body, x, None, T)[0]


@waste(TWICE, 2 * M * N, X, X)
def factors_swapped(x, y):
    return jnp.sin(x * y) + jnp.exp(jnp.sin(y * x))  # waste


@clean(X, X)
def factors_once(x, y):
    s = jnp.sin(x * y)
    return s + jnp.exp(s)


@waste(TWICE, T * SQUARE_LAYER, X, SQUARE)
def one_loop_twice(x, w):
    def steps(x):
        return lax.scan(lambda c, _: (jnp.tanh(c @ w), None), x, None, T)[0]  # waste

    return steps(x), jnp.sum(steps(x))


@clean(X, SQUARE)
def one_loop_once(x, w):
    last = lax.scan(lambda c, _: (jnp.tanh(c @ w), None), x, None, T)[0]
    return last, jnp.sum(last)


@waste(TWICE, 9 * N**3, SQUARE)
def eigh_repeated(a):
    s = a + a.T
    return jnp.linalg.eigh(s)[1], jnp.linalg.eigvalsh(s)  # waste


@clean(SQUARE)
def eigh_once(a):
    values, vectors = jnp.linalg.eigh(a + a.T)
    return vectors, values


@waste(TWICE, 2 * N**3 / 3, SQUARE, (N,))
def factorised_twice(a, b):
    return jnp.linalg.solve(a, b), jnp.linalg.slogdet(a)  # waste


@clean(SQUARE, (N,))
def factorised_once(a, b):
    lu = jax.scipy.linalg.lu_factor(a)
    return jax.scipy.linalg.lu_solve(lu, b), jnp.sum(jnp.log(jnp.abs(jnp.diag(lu[0]))))


@waste(TWICE, LAYER, X, W)
def mapped_twice(x, w):
    def layer(row):
        return jnp.tanh(row @ w)  # waste

    return jax.vmap(layer)(x), jnp.exp(jax.vmap(layer)(x))


@clean(X, W)
def mapped_once(x, w):
    h = jax.vmap(lambda row: jnp.tanh(row @ w))(x)
    return h, jnp.exp(h)


@waste(TWICE, TRIPS * SQUARE_LAYER, X, SQUARE)
def twice_in_a_while(x, w):
    def body(c):
        return jnp.tanh(c @ w) + 0.1 * jnp.sin(jnp.tanh(c @ w))  # waste

    return lax.while_loop(lambda c: c[0, 0] < 1, body, x)


@clean(X, SQUARE)
def once_in_a_while(x, w):
    def body(c):
        h = jnp.tanh(c @ w)
        return h + 0.1 * jnp.sin(h)

    return lax.while_loop(lambda c: c[0, 0] < 1, body, x)


# ---- never used


@waste(UNUSED, LAYER, X, W)
def dead_call(x, w):
    jnp.tanh(x @ w)  # waste
    return jnp.exp(x)


@clean(X)
def no_dead_call(x):
    return jnp.exp(x)


@waste(UNUSED, 2 * M * N * K + M * K, X, W)
def value_of_what_is_linear(x, w):
    return jax.grad(lambda w: jnp.sum(x @ w))(w)  # waste


@clean(X, W)
def value_that_is_needed(x, w):
    return jax.value_and_grad(lambda w: jnp.sum(x @ w))(w)


@waste(UNUSED, T * SQUARE_LAYER, X, SQUARE)
def dead_carry(x, w):
    def body(c, _):
        a, b = c
        return (
            jnp.sin(a @ w),
            jnp.tanh(b @ w),  # waste
        ), None

    return lax.scan(body, (x, 2 * x), None, T)[0][0]


@clean(X, SQUARE)
def no_dead_carry(x, w):
    def body(c, _):
        a, b = c
        return (jnp.sin(a @ w), jnp.tanh(b @ w)), None

    return lax.scan(body, (x, 2 * x), None, T)[0]


@waste(UNUSED, T * LAYER, X, SQUARE, W)
def stacked_and_not_read(x, w, v):
    def body(c, _):
        c = jnp.sin(c @ w)
        return c, jnp.tanh(c @ v)  # waste

    return lax.scan(body, x, None, T)[0]


@clean(X, SQUARE, W)
def stacked_and_read(x, w, v):
    def body(c, _):
        c = jnp.sin(c @ w)
        return c, jnp.tanh(c @ v)

    return lax.scan(body, x, None, T)


@waste(UNUSED, TRIPS * SQUARE_LAYER, X, SQUARE)
def dead_carry_in_a_while(x, w):
    def body(c):
        a, b = c
        b = jnp.tanh(b @ w)  # waste
        return a * 1.5, b

    return lax.while_loop(lambda c: c[0][0, 0] < 1, body, (x, x))[0]


@clean(X, SQUARE)
def no_dead_carry_in_a_while(x, w):
    return lax.while_loop(lambda c: c[0][0, 0] < 1, lambda c: (c[0] * 1.5, jnp.tanh(c[1] @ w)), (x, x))


@waste(UNUSED, 2 * M * N * K, X, W)
def gradient_not_read(x, w):
    def loss(x, w):
        return jnp.sum(jnp.tanh(x @ w))  # waste

    return jax.grad(loss, (0, 1))(x, w)[0]


@clean(X, W)
def gradient_read(x, w):
    return jax.grad(lambda x, w: jnp.sum(jnp.tanh(x @ w)), (0, 1))(x, w)


@clean(X)
def descent_in_a_loop(x):
    def step(i, x):
        return x - 0.1 * jax.grad(lambda x: jnp.sum(jnp.log(x)))(x)

    return lax.fori_loop(0, T, step, x)


@clean(X, SQUARE)
def gradient_of_losses_stacked_in_a_scan(x, w):
    def loss(x):
        def body(c, _):
            c = jnp.tanh(c @ w)
            return c, jnp.sum(jnp.log(c * c + 1))

        return jnp.mean(lax.scan(body, x, None, T)[1])

    return jax.grad(loss)(x)


@clean(X)
def gradient_of_what_is_not_linear(x):
    return jax.grad(lambda x: jnp.sum(jnp.log(x)))(x)


@clean(X, SQUARE)
def gradient_of_a_checkpoint(x, w):
    return jax.grad(lambda x: jnp.sum(jax.checkpoint(lambda x: jnp.sin(jnp.sin(x @ w) @ w))(x)))(x)


@clean(SQUARE)
def gradient_of_a_square(w):
    return jax.grad(lambda w: jnp.sum(w @ w))(w)


@waste(UNUSED, T * SQUARE_LAYER, X, SQUARE)
def dead_code_at_every_turn(x, w):
    def body(c, _):
        jnp.tanh(c @ w)  # waste
        return jnp.sin(c), None

    return lax.scan(body, x, None, T)[0]


# ---- carries that are equal, what no turn changes


@waste(EQUAL_CARRIES, T * SQUARE_LAYER, X, SQUARE)
def equal_carries(x, w):
    def body(c, _):
        a, b = c
        return (jnp.tanh(a @ w), jnp.tanh(b @ w)), None  # waste

    return lax.scan(body, (x, x), None, T)[0]


@clean(X, SQUARE)
def different_carries(x, w):
    def body(c, _):
        a, b = c
        return (jnp.tanh(a @ w), jnp.tanh(b @ w)), None

    return lax.scan(body, (x, 2 * x), None, T)[0]


@waste(EQUAL_CARRIES, TRIPS * SQUARE_LAYER, X, SQUARE)
def equal_carries_in_a_while(x, w):
    def body(c):
        return jnp.tanh(c[0] @ w), jnp.tanh(c[1] @ w)  # waste

    return lax.while_loop(lambda c: c[0][0, 0] < 1, body, (x, x))


@clean(X, SQUARE)
def one_carry_in_a_while(x, w):
    return lax.while_loop(lambda c: c[0, 0] < 1, lambda c: jnp.tanh(c @ w), x)


@waste(INVARIANT, (T - 1) * LAYER, X, W, (T, K))
def invariant_in_a_scan(x, w, steps):
    def body(c, step):
        return c + jnp.sum(jnp.tanh(x @ w) * step), None  # waste

    return lax.scan(body, 0.0, steps)[0]


@clean(X, SQUARE, (T, N))
def varying_in_a_scan(x, w, steps):
    return lax.scan(lambda c, step: (jnp.tanh(c @ w) + step, None), x, steps)[0]


@waste(INVARIANT, (T - 1) * 2 * N**3, SQUARE)
def invariant_in_a_for_loop(w):
    def body(i, c):
        return jnp.sin(c) + (w @ w)  # waste

    return lax.fori_loop(0, T, body, w)


@clean(SQUARE)
def invariant_before_a_for_loop(w):
    square = w @ w
    return lax.fori_loop(0, T, lambda i, c: jnp.sin(c) + square, w)


@waste(INVARIANT, (TRIPS - 1) * 2 * N**3, SQUARE)
def invariant_in_a_while(w):
    def body(c):
        return jnp.sin(c) + (w @ w)  # waste

    return lax.while_loop(lambda c: c[0, 0] < 1, body, w)


@clean(SQUARE)
def varying_in_a_while(w):
    return lax.while_loop(lambda c: c[0, 0] < 1, lambda c: jnp.sin(c) + (c @ w), w)


@waste(INVARIANT, (T * T - T) * 2 * N**3, SQUARE)
def invariant_in_the_inner_loop(w):
    def inner(c, _):
        outer, here = c
        return (outer, jnp.sin(here) + (outer @ w)), None  # waste

    def outer(c, _):
        return lax.scan(inner, (c, c), None, T)[0][1], None

    return lax.scan(outer, w, None, T)[0]


@clean(SQUARE)
def varying_in_the_inner_loop(w):
    def outer(c, _):
        return lax.scan(lambda here, _: (jnp.sin(here @ w), None), c, None, T)[0], None

    return lax.scan(outer, w, None, T)[0]


# ---- loops that could be one


@waste(LOOPS, T * SQUARE_LAYER, X, SQUARE, X)
def a_scan_and_its_jvp(x, w, v):
    def steps(x):
        return lax.scan(lambda c, _: (jnp.tanh(c @ w), None), x, None, T)[0]  # waste

    return steps(x), jax.jvp(steps, (x,), (v,))[1]


@clean(X, SQUARE, X)
def a_scan_with_its_jvp(x, w, v):
    return jax.jvp(lambda x: lax.scan(lambda c, _: (jnp.tanh(c @ w), None), x, None, T)[0], (x,), (v,))


@waste(LOOPS, T * SQUARE_LAYER, X, SQUARE)
def two_scans_of_one_state(x, w):
    def total(c, _):
        a, s = c
        a = jnp.tanh(a @ w)
        return (a, s + jnp.sum(a)), None

    def most(c, _):
        a, s = c
        a = jnp.tanh(a @ w)
        return (a, jnp.maximum(s, jnp.max(a))), None

    return (
        lax.scan(total, (x, 0.0), None, T)[0][1],  # waste
        lax.scan(most, (x, 0.0), None, T)[0][1],  # waste
    )


@clean(X, SQUARE)
def two_scans_of_two_states(x, w):
    def steps(x):
        return lax.scan(lambda c, _: (jnp.tanh(c @ w), None), x, None, T)[0]

    return steps(x), steps(2 * x)


@waste(LOOPS, T * SQUARE_LAYER, X, SQUARE)
def a_scan_and_its_gradient(x, w):
    def loss(x):
        return jnp.sum(lax.scan(lambda c, _: (jnp.tanh(c @ w), None), x, None, T)[0])  # waste

    return loss(x), jax.grad(loss)(x)


@clean(X, SQUARE)
def a_scan_with_its_gradient(x, w):
    return jax.value_and_grad(lambda x: jnp.sum(lax.scan(lambda c, _: (jnp.tanh(c @ w), None), x, None, T)[0]))(x)


@waste(LOOPS, TRIPS * SQUARE_LAYER, X, SQUARE, X)
def a_while_and_its_jvp(x, w, v):
    def steps(x):
        return lax.while_loop(lambda c: c[0, 0] < 1, lambda c: jnp.tanh(c @ w), x)  # waste

    return steps(x), jax.jvp(steps, (x,), (v,))[1]


@clean(X, SQUARE, X)
def a_while_with_its_jvp(x, w, v):
    return jax.jvp(lambda x: lax.while_loop(lambda c: c[0, 0] < 1, lambda c: jnp.tanh(c @ w), x), (x,), (v,))


# ---- asked for and thrown away

TANGENTS = 2 * N * N * K + N * K  # of tanh(x @ w) in N directions


@waste(THROWN_AWAY, TANGENTS * (1 - 1 / N), (N,), W)
def one_column(x, w):
    return jax.jacfwd(lambda x: jnp.tanh(x @ w))(x)[:, 3]  # waste


@clean((N,), W)
def one_direction(x, w):
    return jax.jvp(lambda x: jnp.tanh(x @ w), (x,), (jnp.zeros(N).at[3].set(1.0),))[1]


@waste(THROWN_AWAY, (2 * N * K * K + K * K) * (1 - 1 / K), (N,), W)
def one_row(x, w):
    return jax.jacrev(lambda x: jnp.tanh(x @ w))(x)[3]  # waste


@clean((N,), W)
def one_output(x, w):
    return jax.grad(lambda x: jnp.tanh(x @ w[:, 3]))(x)


@waste(THROWN_AWAY, (2 * N**3 + N * N) * (1 - 1 / N), (N,), SQUARE)
def only_the_diagonal(x, w):
    return jnp.diag(jax.jacfwd(lambda x: jnp.tanh(x @ w))(x))  # waste


@clean((N,), SQUARE)
def the_whole_jacobian(x, w):
    return jax.jacfwd(lambda x: jnp.tanh(x @ w))(x)


@waste(THROWN_AWAY, (2 * N**3 + N * N) * (1 - 1 / N), (N,), SQUARE)
def only_the_trace(x, w):
    return jnp.trace(jax.jacfwd(lambda x: jnp.tanh(x @ w))(x))  # waste


@clean((N,), SQUARE)
def the_whole_jacobian_in_reverse(x, w):
    return jax.jacrev(lambda x: jnp.tanh(x @ w))(x)


@waste(THROWN_AWAY, TANGENTS * (1 - 1 / N), (N,), W, (N,))
def jacobian_times_vector(x, w, v):
    return jax.jacfwd(lambda x: jnp.tanh(x @ w))(x) @ v  # waste


@clean((N,), W, (N,))
def one_pushforward(x, w, v):
    return jax.jvp(lambda x: jnp.tanh(x @ w), (x,), (v,))[1]


@waste(THROWN_AWAY, (2 * N * K * K + K * K) * (1 - 1 / K), (N,), W, (K,))
def vector_times_jacobian(x, w, v):
    return v @ jax.jacrev(lambda x: jnp.tanh(x @ w))(x)  # waste


@clean((N,), W, (K,))
def one_pullback(x, w, v):
    return jax.vjp(lambda x: jnp.tanh(x @ w), x)[1](v)[0]


# of sum(sin(x @ w)): into the layer and back, and between them a product with the slope of the slope, and a sign
SECOND = 2 * (2 * N * N * K) + 3 * N * K


@waste(THROWN_AWAY, SECOND * (1 - 1 / N), (N,), W)
def one_entry_of_the_hessian(x, w):
    return jax.hessian(lambda x: jnp.sum(jnp.sin(x @ w)))(x)[0, 1]  # waste


@clean((N,), W)
def the_whole_hessian(x, w):
    return jax.hessian(lambda x: jnp.sum(jnp.sin(x @ w)))(x)


@waste(THROWN_AWAY, SECOND * (1 - 1 / N), (N,), W, (N,))
def hessian_times_vector(x, w, v):
    return jax.hessian(lambda x: jnp.sum(jnp.sin(x @ w)))(x) @ v  # waste


@clean((N,), W, (N,))
def hessian_vector_product(x, w, v):
    return jax.jvp(jax.grad(lambda x: jnp.sum(jnp.sin(x @ w))), (x,), (v,))[1]


PAIRS = N * (N - 1) // 2 * 2 * K * WIDE


@waste(THROWN_AWAY, PAIRS, (N,), W, (K, WIDE))
def symmetric_hessian_computed_whole(x, w, v):
    hidden = lambda x: jnp.sin(x @ w)  # waste
    return jax.jacfwd(jax.jacfwd(lambda x: hidden(x) @ v))(x)  # waste


@clean((N,), (N,), W, (K, WIDE))
def mixed_hessian_that_is_not_symmetric(x, y, w, v):
    hidden = lambda x, y: jnp.sin(x @ w) * (y @ w**2)
    return jax.jacfwd(jax.jacfwd(lambda x, y: hidden(x, y) @ v, 0), 1)(x, y)


@waste(THROWN_AWAY, M * PAIRS, X, W, (K, WIDE))
def symmetric_hessian_for_each_lane(x, w, v):
    hidden = lambda x: jnp.sin(x @ w)  # waste
    return jax.vmap(jax.jacfwd(jax.jacfwd(lambda x: hidden(x) @ v)))(x)  # waste


@clean(X, X, W, (K, WIDE))
def mixed_hessian_for_each_lane(x, y, w, v):
    hidden = lambda x, y: jnp.sin(x @ w) * (y @ w**2)
    return jax.vmap(jax.jacfwd(jax.jacfwd(lambda x, y: hidden(x, y) @ v, 0), 1))(x, y)


@waste(THROWN_AWAY, LAYER * (1 - 1 / M), X, W)
def only_the_last_row(x, w):
    return jnp.tanh(x @ w)[-1]  # waste


@clean(X, W)
def the_last_row_first(x, w):
    return jnp.tanh(x[-1] @ w)


@waste(THROWN_AWAY, 2 * N * N * (N - 1), SQUARE, SQUARE, xla="kept")
def trace_of_a_product(a, b):
    return jnp.trace(a @ b)  # waste


@clean(SQUARE, SQUARE)
def trace_of_a_product_alone(a, b):
    return jnp.sum(a * b.T)


@waste(THROWN_AWAY, 2 * N * N * (N - 1), SQUARE, SQUARE)
def diagonal_of_a_product(a, b):
    return jnp.diagonal(a @ b)  # waste


@clean(SQUARE, SQUARE)
def triangle_of_a_product(a, b):
    return jnp.tril(a @ b)


@clean(SQUARE)
def smallest_eigenvalue(a):
    return jnp.linalg.eigvalsh(a + a.T)[0]


@clean(SQUARE)
def last_eigenvector(a):
    return jnp.linalg.eigh(a + a.T)[1][:, -1]


@clean(SQUARE)
def leading_singular_vectors(a):
    return jnp.linalg.svd(a, full_matrices=False)[2][:5]


@clean(SQUARE)
def condition_number(a):
    return jnp.linalg.cond(a)


@clean(SQUARE)
def last_entry_of_a_factor(a):
    return jnp.linalg.qr(a)[1][-1, -1], jnp.linalg.cholesky(a @ a.T + jnp.eye(N))[-1]


@clean((N,), SQUARE)
def determinant_of_a_jacobian(x, w):
    return jnp.linalg.slogdet(jax.jacfwd(lambda x: jnp.tanh(x @ w) + x)(x))[1]


@clean((64,))
def last_of_cumulative_sums(x):
    return jnp.cumsum(x)[-1], lax.cummax(x * x)[-1], lax.cumlogsumexp(x - 1)[-1]


@clean((64,))
def last_of_an_associative_scan(x):
    return lax.associative_scan(jnp.multiply, x)[-1]


@clean((64,))
def smallest_of_a_sort(x):
    return jnp.sort(x)[:3], jnp.argsort(2 * x)[0], lax.top_k(x * x, 5)[0][0]


@waste(THROWN_AWAY, 9 * K**3 * (M - 1), (M, K, K))
def one_of_many_decompositions(a):
    return jnp.linalg.eigvalsh(a)[0]  # waste


@clean((M, K, K))
def a_decomposition_of_one(a):
    return jnp.linalg.eigvalsh(a[0])


@waste(THROWN_AWAY, 2 * 60, (64,))
def first_of_cumulative_sums(x):
    return jnp.cumsum(jnp.sin(x))[:4]  # waste


@clean((64,))
def cumulative_sums_of_the_first(x):
    return jnp.cumsum(jnp.sin(x[:4]))


@waste(THROWN_AWAY, (2 * N**3 + N * N) * (1 - 2 / N), (N,), SQUARE, (N,))
def jacobian_and_its_transpose_times_vectors(x, w, v):
    slope = jax.jacfwd(lambda x: jnp.tanh(x @ w))(x)  # waste
    return slope.T @ (slope @ v)


@clean((N,), SQUARE, (N,))
def jacobian_times_its_transpose(x, w, v):
    slope = jax.jacfwd(lambda x: jnp.tanh(x @ w))(x)
    return slope.T @ slope @ v


@waste(THROWN_AWAY, TANGENTS * (1 - 1 / N), (N,), W)
def jacobian_summed(x, w):
    return jax.jacfwd(lambda x: jnp.tanh(x @ w))(x).sum()  # waste


@clean((N,), W)
def jacobian_squared_and_summed(x, w):
    return (jax.jacfwd(lambda x: jnp.tanh(x @ w))(x) ** 2).sum()


@clean((N,), SQUARE)
def one_axis_of_the_outputs_summed(x, w):
    return jax.jacfwd(lambda x: jnp.tanh(jnp.outer(x @ w, x[:7])))(x).sum(0)


def network(x, *weights):
    *first, last = weights
    for w in first:
        x = jnp.tanh(x @ w)
    return (x @ last)[0]


DEEP = ((10,), (10, 96), (96, 96), (96, 96), (96, 1))


@clean(*DEEP)
def whole_hessian_of_a_network(x, *weights):
    return jax.hessian(network)(x, *weights)


@clean(X, SQUARE)
def identity_matrix_in_a_gradient(x, w):
    return jax.vmap(jax.grad(lambda x: jnp.sum(jnp.tanh(EYE @ jnp.tanh(w @ x)))))(x)


@clean(X, SQUARE)
def identity_matrix_in_a_tangent(x, w):
    return jax.vmap(lambda v: jax.jvp(lambda x: EYE @ jnp.tanh(w @ x), (x[0],), (v,))[1])(x)


@clean(X, SQUARE)
def ridge_in_a_gradient(x, w):
    return jax.vmap(jax.grad(lambda x: jnp.sum(jnp.linalg.solve(w @ w.T + EYE, x) ** 2)))(x)


@waste(THROWN_AWAY, (2 * N**3 + N * N) * (1 - 1 / N), (N,))
def one_column_beside_an_identity_matrix(x):
    return jax.jacfwd(lambda x: jnp.tanh(EYE @ x))(x)[:, 0]  # waste


@waste(THROWN_AWAY, (2 * N**3 + N * N) * (1 - 1 / N), (N,), SQUARE)
def one_column_of_the_users_own_basis(x, w):
    push = lambda v: jax.jvp(lambda x: jnp.tanh(w @ x), (x,), (v,))[1]  # waste
    return jax.vmap(push)(EYE)[0]


# ---- the same in and after loops


@waste(THROWN_AWAY, (T - 1) * LAYER, X, SQUARE, W, xla="kept")
def last_of_a_stack(x, w, v):
    def body(c, _):
        c = jnp.sin(c @ w)
        return c, jnp.tanh(c @ v)  # waste

    return lax.scan(body, x, None, T)[1][-1]


@clean(X, SQUARE, W)
def of_the_last_carry(x, w, v):
    last = lax.scan(lambda c, _: (jnp.sin(c @ w), None), x, None, T)[0]
    return jnp.tanh(last @ v)


@waste(THROWN_AWAY, 0, X, SQUARE)  # no operation, but all turns are stored
def carries_stacked_for_the_last(x, w):
    def body(c, _):
        c = jnp.tanh(c @ w)
        return c, c

    return lax.scan(body, x, None, T)[1][-1]  # waste


@clean(X, SQUARE)
def carries_stacked(x, w):
    def body(c, _):
        c = jnp.tanh(c @ w)
        return c, c

    return lax.scan(body, x, None, T)[1][-5:]


@waste(THROWN_AWAY, (T - 2) * SQUARE_LAYER, X, SQUARE, xla="kept")
def turns_after_the_last_one_read(x, w):
    def body(c, _):
        c = jnp.tanh(c @ w)  # waste
        return c, c

    return lax.scan(body, x, None, T)[1][:2]


@clean(X, SQUARE)
def no_turn_after_the_last_one_read(x, w):
    def body(c, _):
        c = jnp.tanh(c @ w)
        return c, c

    return lax.scan(body, x, None, 2)[1]


@waste(THROWN_AWAY, T * SQUARE_LAYER, (M, 2 * N), SQUARE, xla="kept")
def half_of_a_carry(x, w):
    def body(c, _):
        a = jnp.sin(c[:, :N] @ w)
        b = jnp.tanh(c[:, N:] @ w)  # waste
        return jnp.concatenate([a, b], axis=1), None  # waste

    return lax.scan(body, x, None, T)[0][:, :N]


@clean((M, 2 * N), SQUARE)
def halves_of_a_carry_that_meet(x, w):
    def body(c, _):
        a = jnp.sin(c[:, :N] @ w) + c[:, N:]
        b = jnp.tanh(c[:, N:] @ w)
        return jnp.concatenate([a, b], axis=1), None

    return lax.scan(body, x, None, T)[0][:, :N]


@waste(THROWN_AWAY, TRIPS * SQUARE_LAYER, (2, M, N), SQUARE, xla="kept")
def row_of_a_carry_in_a_while(x, w):
    def body(c):
        a = jnp.sin(c[0] @ w)
        b = jnp.tanh(c[1] @ w)  # waste
        return jnp.stack([a, b])  # waste

    return lax.while_loop(lambda c: c[0, 0, 0] < 1, body, x)[0]


@clean((2, M, N), SQUARE)
def rows_of_a_carry_in_a_while(x, w):
    def body(c):
        return jnp.stack([jnp.sin(c[0] @ w), jnp.tanh(c[1] @ w)])

    return lax.while_loop(lambda c: jnp.sum(c) < 1, body, x)[0]


@waste(THROWN_AWAY, T * (2 * N**3 + N * N) * (1 - 1 / N), (N,), SQUARE, xla="kept")
def one_column_through_a_scan(x, w):
    def steps(x):
        return lax.scan(lambda c, _: (jnp.tanh(c @ w), None), x, None, T)[0]  # waste

    return jax.jacfwd(steps)(x)[:, 3]


@clean((N,), SQUARE)
def all_columns_through_a_scan(x, w):
    return jax.jacfwd(lambda x: lax.scan(lambda c, _: (jnp.tanh(c @ w), None), x, None, T)[0])(x)


@waste(THROWN_AWAY, T * (2 * N**3 + N * N) * (1 - 1 / N), (N,), SQUARE, xla="kept")
def one_row_through_a_scan(x, w):
    def steps(x):
        return lax.scan(lambda c, _: (jnp.tanh(c @ w), None), x, None, T)[0]  # waste

    return jax.jacrev(steps)(x)[3]


@clean((N,), SQUARE)
def all_rows_through_a_scan(x, w):
    return jax.jacrev(lambda x: lax.scan(lambda c, _: (jnp.tanh(c @ w), None), x, None, T)[0])(x)


STEPPED = 2 * N**3 + 2 * N * N  # of tanh(sin(c) @ w) in N directions


@waste(THROWN_AWAY, T * STEPPED * (1 - 1 / N), (N,), SQUARE, xla="kept")
def one_column_at_every_turn(x, w):
    def body(c, _):
        return c + jax.jacfwd(lambda c: jnp.tanh(jnp.sin(c) @ w))(c)[:, 3], None  # waste

    return lax.scan(body, x, None, T)[0]


@clean((N,), SQUARE)
def one_direction_at_every_turn(x, w):
    def body(c, _):
        return c + jax.jvp(lambda c: jnp.tanh(jnp.sin(c) @ w), (c,), (jnp.zeros(N).at[3].set(1.0),))[1], None

    return lax.scan(body, x, None, T)[0]


@waste(THROWN_AWAY, T * STEPPED * (1 - 1 / N), (N,), SQUARE, xla="kept")
def one_column_of_stacked_jacobians(x, w):
    def body(c, _):
        return jnp.cos(c), jax.jacfwd(lambda c: jnp.tanh(jnp.sin(c) @ w))(c)  # waste

    return lax.scan(body, x, None, T)[1][:, :, 3]


@clean((N,), SQUARE)
def stacked_jacobians(x, w):
    def body(c, _):
        return jnp.cos(c), jax.jacfwd(lambda c: jnp.tanh(jnp.sin(c) @ w))(c)

    return lax.scan(body, x, None, T)[1]


# ---- zeros


@waste(ZEROS, N * N * (1 - 1 / N), (N,))
def dense_basis_for_a_diagonal(x):
    return jax.jacfwd(jnp.sin)(x)  # waste


@clean((N,))
def one_direction_for_a_diagonal(x):
    return jax.jvp(jnp.sin, (x,), (jnp.ones(N),))[1]


@waste(ZEROS, 3 * K * K * (1 - 1 / K), (K,))
def dense_basis_for_a_diagonal_in_reverse(x):
    return jax.jacrev(lambda x: jnp.sin(jnp.sin(jnp.exp(x))))(x)  # waste


@clean((K,))
def one_pullback_for_a_diagonal(x):
    return jax.vjp(lambda x: jnp.sin(jnp.sin(jnp.exp(x))), x)[1](jnp.ones(K))[0]


# of N + K directions, K are zero in h; only one of them is not in each row of q
@waste(ZEROS, K * N * (2 * N + 1) + 2 * (N + K - 1) * K, (N,), (K,), SQUARE)
def a_block_that_is_zero(p, q, w):
    def main(p, q):
        h = jnp.sin(p @ w)  # waste
        return jnp.concatenate([h, jnp.sin(q), jnp.exp(q)])  # waste

    return jax.jacfwd(lambda both: main(*both))((p, q))


@clean((N,), W, W)
def blocks_that_are_not_zero(p, w, v):
    return jax.jacfwd(lambda p: jnp.tanh(jnp.concatenate([p @ w, p @ v])))(p)


@waste(ZEROS, 2 * M * N * K + M * K, X, W, X)
def tangents_that_are_zero(x, w, v):
    def main(a, b):
        return jnp.exp(a), jnp.tanh(b @ w)  # waste

    return jax.jvp(main, (x, 2 * x), (v, jnp.zeros_like(x)))


@clean(X, W, X)
def tangents_that_are_not_zero(x, w, v):
    return jax.jvp(lambda a, b: (jnp.exp(a), jnp.tanh(b @ w)), (x, 2 * x), (v, 3 * v))


@waste(ZEROS, 2 * N * N * (1 - 1 / N), (N,), (N,), xla="kept")
def scaled_by_one_element(a, x):
    return jax.jacfwd(lambda a: jnp.sin(a[0] * x))(a)  # waste


@clean((N,), (N,))
def one_direction_for_one_element(a, x):
    return jax.jvp(lambda a: jnp.sin(a[0] * x), (a,), (jnp.zeros(N).at[0].set(1.0),))[1]


@waste(ZEROS, 2 * N * N * (1 - 1 / N), (N,), (N,), xla="kept")
def dense_basis_for_a_scaling(a, x):
    return jax.jacfwd(lambda x: jnp.sin(a[0] * x))(x)  # waste


@clean((N,), (N,))
def one_direction_for_a_scaling(a, x):
    return jax.jvp(lambda x: jnp.sin(a[0] * x), (x,), (jnp.ones(N),))[1]


@waste(ZEROS, (K * N * N + K * N * (N - 1)) * (1 - 1 / N), (N,), (K, N), xla="kept")
def products_summed_by_row(a, b):
    return jax.jacfwd(lambda a: (b * a).sum(1))(a)  # waste


@clean((N,), (K, N), (N,))
def products_summed_by_row_in_one_direction(a, b, v):
    return jax.jvp(lambda a: (b * a).sum(1), (a,), (v,))[1]


@waste(ZEROS, 3 * K * K * N * (1 - 1 / K), (N,), (K, N), xla="kept")
def sums_by_row_in_reverse(a, b):
    return jax.jacrev(lambda a: jnp.sin(b * a).sum(1))(a)  # waste


@clean((N,), (K, N))
def one_gradient_for_each_row(a, b):
    return jax.vmap(jax.grad(lambda a, row: jnp.sin(row * a).sum()), (None, 0))(a, b)


@waste(ZEROS, K * (2 * N * K + K), (N,), (K,), W, xla="kept")
def an_argument_that_nothing_depends_on(p, q, w):
    return jax.jacfwd(lambda p, q: jnp.sin(p @ w), (0, 1))(p, q)  # waste


@clean((N,), (K,), W, (K, N))
def arguments_that_all_depend_on(p, q, w, v):
    return jax.jacfwd(lambda p, q: jnp.sin(p @ w) + jnp.cos(q), 0)(p, q)


@waste(ZEROS, T * 2 * N * N * (1 - 1 / N), (N,), (N,), xla="kept")
def dense_basis_for_a_diagonal_scan(x, a):
    def steps(x):
        return lax.scan(lambda c, _: (a * jnp.sin(c), None), x, None, T)[0]  # waste

    return jax.jacfwd(steps)(x)


@clean((N,), (N,))
def one_direction_for_a_diagonal_scan(x, a):
    return jax.jvp(lambda x: lax.scan(lambda c, _: (a * jnp.sin(c), None), x, None, T)[0], (x,), (jnp.ones(N),))[1]


# ---- wrong mode


@waste(WRONG_MODE, (TANGENTS + N * (K - 1)) * (1 - 1 / N), (N,), W)
def gradient_forward(x, w):
    return jax.jacfwd(lambda x: jnp.sum(jnp.tanh(x @ w)))(x)  # waste


@clean((N,), W)
def gradient_in_reverse(x, w):
    return jax.grad(lambda x: jnp.sum(jnp.tanh(x @ w)))(x)


@waste(WRONG_MODE, (2 * K * N * K + K * K + 2 * K * N) * (1 - 1 / K), (), (N,), W)
def curve_in_reverse(t, x, w):
    return jax.jacrev(lambda t: jnp.tanh((t * x) @ w))(t)  # waste


@clean((), (N,), W)
def curve_forward(t, x, w):
    return jax.jacfwd(lambda t: jnp.tanh((t * x) @ w))(t)


@waste(WRONG_MODE, (2 * (4 * N) ** 2 * 4 + (4 * N) ** 2) * (1 - 1 / N), (4,), (4, 4 * N))
def many_outputs_in_reverse(x, w):
    return jax.jacrev(lambda x: jnp.sin(x @ w))(x)  # waste


@clean((4,), (4, 4 * N))
def many_outputs_forward(x, w):
    return jax.jacfwd(lambda x: jnp.tanh(x @ w))(x)


@waste(WRONG_MODE, M * 5 * (4 * N) ** 2 * (1 - 2 / (4 * N)), (M, 2), (2, 4 * N), xla="kept")
def many_outputs_in_reverse_for_each_lane(x, w):
    return jax.vmap(jax.jacrev(lambda x: jnp.sin(x @ w)))(x)  # waste


@clean((M, 2), (2, 4 * N))
def many_outputs_forward_for_each_lane(x, w):
    return jax.vmap(jax.jacfwd(lambda x: jnp.sin(x @ w)))(x)


# The first product is of the basis alone, and the same for all lanes; in reverse each lane has two of its own.
@waste(
    WRONG_MODE,
    4 * (4 * N) ** 2 * (1 - M * 2 / (4 * N)) + M * 8 * N * (1 - 2 / (4 * N)),
    (M, 4 * N),
    (4 * N, 2),
    xla="kept",
)
def many_inputs_forward_for_each_lane(x, w):
    return jax.jit(jax.vmap(jax.jacfwd(lambda x: jnp.sin(x @ w))))(x)  # waste


@clean((M, 4 * N), (4 * N, 2))
def many_inputs_in_reverse_for_each_lane(x, w):
    return jax.jit(jax.vmap(jax.jacrev(lambda x: jnp.sin(x @ w))))(x)


# of K directions through tanh(sin(x @ w) @ v), two inputs, 40 between
PULLED = K * (K + 2 * K * 2 * N + 2 * N + 2 * 2 * N * 2)


@waste(WRONG_MODE, PULLED * (1 - 2 / K), (2,), (2, 2 * N), (2 * N, K))
def row_by_row(x, w, v):
    y, pull = jax.vjp(lambda x: jnp.tanh(jnp.sin(x @ w) @ v), x)  # waste
    return y, [pull(jnp.zeros(K).at[i].set(1.0))[0] for i in range(K)]


@clean((2,), (2, 2 * N), (2 * N, K))
def column_by_column(x, w, v):
    def f(x):
        return jnp.tanh(jnp.sin(x @ w) @ v)

    y, push = jax.linearize(f, x)
    return y, [push(jnp.zeros(2).at[i].set(1.0)) for i in range(2)]


@waste(WRONG_MODE, PULLED * (1 - 2 / K), (2,), (2, 2 * N), (2 * N, K), xla="kept")
def gradients_mapped_over_outputs(x, w, v):
    def output(i, x):
        return jnp.tanh(jnp.sin(x @ w) @ v)[i]  # waste

    return jax.vmap(jax.grad(output, 1), (0, None))(jnp.arange(K), x)


@clean((20,), (20, 2 * N), (2 * N, 3))
def gradients_mapped_over_few_outputs(x, w, v):
    def output(i, x):
        return jnp.tanh(jnp.sin(x @ w) @ v)[i]

    return jax.vmap(jax.grad(output, 1), (0, None))(jnp.arange(3), x)


@waste(WRONG_MODE, T * (STEPPED + N * (N - 1)) * (1 - 1 / N), (N,), SQUARE, xla="kept")
def gradient_forward_at_every_turn(x, w):
    def body(c, _):
        return c - jax.jacfwd(lambda c: jnp.sum(jnp.tanh(jnp.sin(c) @ w)))(c), None  # waste

    return lax.scan(body, x, None, T)[0]


@clean((N,), SQUARE)
def gradient_in_reverse_at_every_turn(x, w):
    def body(c, _):
        return c - jax.grad(lambda c: jnp.sum(jnp.tanh(jnp.sin(c) @ w)))(c), None

    return lax.scan(body, x, None, T)[0]


# ---- contained in another


@waste(SUPERSET, 14 * K * N * N + 6 * N**3, (K, N))
def svd_with_and_without_vectors(a):
    return jnp.linalg.svd(a, full_matrices=False), jnp.linalg.svdvals(a)  # waste


@clean((K, N))
def svd_once(a):
    u, s, v = jnp.linalg.svd(a, full_matrices=False)
    return u, s, v, jnp.max(s)


@waste(SUPERSET, 64 * 6, (64,))
def sort_inside_argsort(x):
    return jnp.sort(x), jnp.argsort(x)  # waste


@clean((64,))
def sorted_by_argsort(x):
    order = jnp.argsort(x)
    return x[order], order


@waste(SUPERSET, 5 * 64, (64,), (64,))
def cumulative_and_its_jvp(x, v):
    def run(x):
        return lax.cumlogsumexp(x)  # waste

    return run(x), jax.jvp(run, (x,), (v,))[1]


@clean((64,), (64,))
def cumulative_with_its_jvp(x, v):
    return jax.jvp(lax.cumlogsumexp, (x,), (v,))


@waste(SUPERSET, 25 * N**3, SQUARE)
def eigenvalues_apart(a):
    return jnp.linalg.eig(a)[1], jnp.linalg.eigvals(a)  # waste


@clean(SQUARE)
def eigenvalues_with_vectors(a):
    return jnp.linalg.eig(a)
