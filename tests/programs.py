"""Seeded random JAX programs, drawn from tables of lines.

A program is a Python function whose source is put together line by line: every row of a table is one line of
source with holes for variables, axes, indices and generated functions. So a program that fails is a few lines to
read, `program.source`, and its plan speaks of them by number.

`ROWS` may do anything to any array. Programs on a batch are made of `LANE_ROWS`, which keep element b of axis 0
apart from all others, and of `MIXING_ROWS`, which do not. Sizes are 2 to 5 and differ where they can.
"""

import functools
import itertools
import linecache
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

LARGEST = 24  # elements of any one array

# ---- what the lines call


def const(seed, shape):
    """A constant array, closed over."""
    return np.random.default_rng([7, seed]).normal(size=shape)


def fit(a, shape):
    """Any array, repeated or cut to a shape."""
    return jnp.resize(a, shape) if shape else jnp.mean(a)


def per_lane(a, rank):
    """One number per element of axis 0, in an array that broadcasts against one of that rank."""
    return jnp.mean(a.reshape(a.shape[0], -1), 1).reshape(-1, *[1] * (rank - 1))


def spd(a):
    """A symmetric positive definite matrix of any vector or matrix."""
    a = a if a.ndim > 1 else jnp.outer(a, a)
    return a @ a.mT + jnp.diag(1.5 + jnp.arange(a.shape[-2]))


def safe_norm(a, axis=None):
    return jnp.sqrt(0.1 + jnp.sum(a * a, axis))


def layer_norm(a, axis=-1):
    return (a - jnp.mean(a, axis, keepdims=True)) / jnp.sqrt(0.3 + jnp.var(a, axis, keepdims=True))


def attention(q, k, v):
    return jax.nn.softmax(q @ k.mT / 2, -1) @ v


def newton(a):
    """The square root of a, by a loop that stops when it is there. Its derivative is that of the loop."""
    done = lambda x: jnp.any(jnp.abs(x * x - a) > 1e-3)
    return lax.while_loop(done, lambda x: 0.5 * (x + a / x), 1.0 + 0.5 * a)


def doubling(a):
    """A loop whose number of steps depends on its input."""
    more = lambda c: (c[0] < 6) & (jnp.sum(c[1] ** 2) < 20)
    return lax.while_loop(more, lambda c: (c[0] + 1, 1.5 * c[1] + jnp.sin(a)), (0, a))[1]


def custom_jvp(f, scale=1.0):
    """f with a rule of its own, honest for scale 1."""
    g = jax.custom_jvp(f)
    g.defjvp(lambda primals, tangents: (g(*primals), scale * jax.jvp(f, primals, tangents)[1]))
    return g


def custom_vjp(f, scale=1.0):
    """f with a pullback of its own, honest for scale 1."""
    g = jax.custom_vjp(f)

    def backward(primals, cotangent):
        return tuple(scale * c for c in jax.vjp(f, *primals)[1](cotangent))

    g.defvjp(lambda *primals: (g(*primals), primals), backward)
    return g


@jax.custom_jvp
def straight_through(a):
    """Rounds; its derivative is that of the identity."""
    return jnp.round(2 * a) / 2


straight_through.defjvp(lambda primals, tangents: (straight_through(primals[0]), tangents[0]))


@jax.custom_jvp
def from_nowhere(a):
    """A constant whose derivative is not zero."""
    return jnp.ones_like(a)


from_nowhere.defjvp(lambda primals, tangents: (from_nowhere(primals[0]), jnp.sin(primals[0]) * tangents[0]))


@jax.custom_jvp
def mixing(a):
    """Elementwise as a value; its derivative mixes axis 0."""
    return 2 * a


mixing.defjvp(lambda primals, tangents: (mixing(primals[0]), 2 * tangents[0] + jnp.sum(tangents[0], 0)))


@jax.custom_vjp
def mixing_back(a):
    """The same for a pullback."""
    return 2 * a


mixing_back.defvjp(lambda a: (mixing_back(a), None), lambda _, ct: (2 * ct - jnp.flip(ct, 0),))


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def power(a, k):
    return a**k


power.defjvp(lambda k, primals, tangents: (power(primals[0], k), k * primals[0] ** (k - 1) * tangents[0]))


@jax.custom_jvp
def product(a, b):
    """A rule that is told which tangents are zero."""
    return a * b


def _product_rule(primals, tangents):
    (a, b), out = primals, product(*primals)
    terms = [t * other for t, other in zip(tangents, (b, a), strict=True)
             if not isinstance(t, jax.custom_derivatives.SymbolicZero)]  # fmt: skip
    return out, sum(terms, jnp.zeros_like(out))


product.defjvp(_product_rule, symbolic_zeros=True)


# ---- the tables


@dataclass(frozen=True)
class Row:
    """One line of source.

    Holes: {x} a variable that `when` admits; {y} another of the same shape; {z} any; {s} any, as a scalar;
    {f} and {g} functions generated for this line, of the arguments that `calls` lists: x, y, z as a whole,
    x0 and y0 for a slice along axis 0. {axis} and {other} are two axes of x, {n} the length of the first,
    {shape} and {zshape} those of x and z, {new} another of the same size; {c} is a number, {i} a position
    along axis 0, {index} and {perm} lists of them.
    """

    text: str
    when: Callable[[tuple[int, ...]], bool] = lambda shape: True
    calls: tuple[str, ...] = ()
    closed: bool = False  # the generated functions read no variables around them
    mixes: bool = False
    most: int = 3  # the highest order it is asked for, where JAX takes long beyond


def rank(*ranks):
    return lambda shape: len(shape) in ranks


ranked = lambda shape: len(shape) >= 1
matrix = lambda shape: len(shape) >= 2
square = lambda shape: len(shape) == 2 and shape[0] == shape[1]
long = lambda shape: len(shape) == 1 and shape[0] >= 3

ELEMENTWISE = [
    Row("jnp.sin({x})"),
    Row("jnp.cos({x}) * {x}"),
    Row("jnp.tanh({x} + {c})"),
    Row("jnp.exp(0.4 * {x})"),
    Row("jnp.log1p({x} ** 2)"),
    Row("jnp.sqrt(1.5 + {x} * {x})"),
    Row("1.0 / (2.0 + jnp.sin({x}))"),
    Row("{x} ** 3 / 4"),
    Row("{x} ** 2"),
    Row("lax.rsqrt(1.2 + {x} ** 2)"),
    Row("lax.erf({x})"),
    Row("jnp.arctan({x}) - {c}"),
    Row("jnp.expm1(-{x} ** 2)"),
    Row("jnp.abs({x}) * {x}"),
    Row("jnp.floor(2 * {x}) * {x}"),
    Row("jnp.sinc({x} + {c})"),
    Row("jax.nn.softplus({x})"),
    Row("jax.nn.gelu({x})"),
    Row("jax.nn.silu({x})"),
    Row("jax.nn.relu({x}) ** 2"),
    Row("jax.nn.elu({x} - {c})"),
    Row("jax.nn.log_sigmoid({x})"),
    Row("jnp.clip({x}, -{c}, {c}) * {x}"),
    Row("jnp.where({x} > {c} / 3, {x} * 2, jnp.cos({x}))"),
    Row("jnp.select([{x} > {c}, {x} > -{c}], [{x} ** 2, jnp.sin({x})], -{x})"),
    Row("lax.stop_gradient({x}) * {x}"),
    Row("jnp.real(jnp.exp({c} * 1j * {x}))"),
    Row("jnp.polyval(jnp.array([0.3, -{c}, 0.2, 1.0]), {x})"),
    Row("jax.jit(lambda a: a * jnp.sin(a))({x})"),
    Row("jax.vmap(jnp.tanh)({x}[None])[0]"),
    Row("jnp.interp({x}, jnp.array([-2.0, -0.4, 0.3, 2.5]), jnp.array([{c}, -0.5, 1.0, 0.2]))"),
    Row("jax.grad(lambda a: jnp.sum(a * jnp.sin(a)))({x})"),
    Row("jax.jvp(lambda a: jnp.cos(a) * a, ({x},), (jnp.ones({shape}),))[1]"),
    Row("jax.checkpoint(lambda a: jnp.sin(jnp.sin(a)) * a)({x})"),
    Row("straight_through({x}) * jnp.sin({x})"),
    Row("from_nowhere({x}) * {x}"),
    Row("power({x}, 3) * {c}"),
    Row("custom_jvp(lambda a: jnp.sin(a) * a)({x})"),
    Row("custom_jvp(lambda a: jnp.tanh(a), 2.0)({x})"),
    Row("custom_vjp(lambda a: jnp.sin(a) * a)({x})"),
    Row("custom_vjp(lambda a: a * a * a, 0.5)({x})"),
]

PAIRS = [
    Row("{x} + {c} * {y}"),
    Row("{x} * {y}"),
    Row("{x} - jnp.sin({y})"),
    Row("{x} / (2.0 + {y} ** 2)"),
    Row("jnp.maximum({x}, {y})"),
    Row("jnp.minimum({x}, {y}) * {x}"),
    Row("jnp.logaddexp({x}, {y})"),
    Row("jnp.arctan2({x}, 1.5 + {y} ** 2)"),
    Row("jnp.where({x} < {y}, {x} * {y}, {y})"),
    Row("(1.3 + jnp.sin({x})) ** {y}"),
    Row("jnp.abs({x} + 1j * ({y} ** 2 + 1))"),
    Row("product({x}, {y}) + {x}"),
    Row("jax.jit(lambda a, b: jnp.sin(a * b))({x}, {y})"),
    Row("custom_jvp(lambda a, b: a * jnp.cos(b))({x}, {y})"),
    Row("custom_vjp(lambda a, b: a * jnp.cos(b))({x}, {y})"),
    Row("jax.jit(lambda a, b: (b, a + b))({x}, {y})[1]"),
]

ANY = [
    # reductions
    Row("jnp.sum({x})"),
    Row("jnp.sum({x} ** 2, axis={axis})", ranked),
    Row("jnp.mean({x}, axis={axis}, keepdims=True) * {x}", ranked),
    Row("jnp.max({x}, axis={axis})", ranked),
    Row("jnp.min({x})", ranked),
    Row("jnp.prod({x} + {c}, axis={axis})", ranked),
    Row("jax.nn.logsumexp({x}, axis={axis})", ranked),
    Row("jnp.var({x}, axis={axis})", ranked),
    Row("jnp.std({x} * jnp.arange({n}), axis=-1)", lambda s: len(s) == 1 and s[0] > 2),
    Row("jnp.einsum('ij->j', {x})", rank(2)),
    Row("{x}.ravel()[jnp.argmax({x})]", ranked),
    Row("safe_norm({x}, {axis})", ranked),
    Row("jnp.linalg.norm({x} + 3.0)", ranked),
    Row("jnp.median({x}, axis={axis})", ranked),
    # products
    Row("{x} @ const(1, ({x}.shape[-1], 3))", ranked),
    Row("{x} @ fit({z}, ({x}.shape[-1], 2))", ranked),
    Row("{x} @ {x}.T / 2", rank(2)),
    Row("jnp.outer({x}, {y})", rank(1)),
    Row("jnp.einsum('ij,kj->ik', {x}, {y})", rank(2)),
    Row("jnp.einsum('ij,ij->j', {x}, {y})", rank(2)),
    Row("jnp.einsum('i,j,i->ij', {x}, fit({z}, (3,)), {y})", rank(1)),
    Row("jnp.einsum('bij,bjk->bik', {x}, {y}.mT)", rank(3)),
    Row("jnp.tensordot({x}, {y}, 1 if {x}.ndim == 1 else (1, 1))", rank(1, 2)),
    Row("jnp.vdot({x}, {y})", ranked),
    Row("jnp.kron({x}, jnp.array([1.0, {c}]))", rank(1)),
    # other shapes
    Row("{x}.reshape({new})", ranked),
    Row("jnp.ravel({x}) * {c}", matrix),
    Row("jnp.swapaxes({x}, {axis}, {other})", matrix),
    Row("jnp.transpose({x})", matrix),
    Row("jnp.moveaxis({x}, 0, -1) * 2", matrix),
    Row("jnp.broadcast_to({x}, (2, *{shape})) * jnp.arange(1, 3).reshape(2, *[1] * {x}.ndim)"),
    Row("jnp.expand_dims({x}, {axis}) ** 2", ranked),
    Row("jnp.flip({x}, {axis})", ranked),
    Row("jnp.roll({x}, 1, {axis}) * {x}", ranked),
    Row("jnp.tile({x}, 2)", ranked),
    Row("jnp.repeat({x}, 2, axis={axis})", ranked),
    Row("jnp.pad({x}, [(1, 0)] * {x}.ndim, constant_values={c})", ranked),
    Row("lax.pad({x}, 0.5, [(-1, 1, 1)] + [(0, 0, 0)] * ({x}.ndim - 1))", ranked),
    Row("jnp.concatenate([{x}, {y}], axis={axis})", ranked),
    Row("jnp.concatenate([{x}.ravel(), {z}.ravel()])", ranked),
    Row("jnp.stack([{x}, {y}, {x} * {y}])"),
    Row("jnp.split({x}, [1], axis={axis})[1]", lambda s: len(s) and min(s) > 1),
    Row("jnp.tril({x}) + jnp.triu({x}, 1).sum()", matrix),
    Row("jnp.diag({x})", rank(1, 2)),
    Row("jnp.trace({x}) * {x}", matrix),
    Row("jnp.squeeze({x}[None], 0) - {s}"),
    Row("{x} * jnp.arange({n})", lambda s: len(s) == 1),
    Row("jnp.meshgrid({x}, fit({z}, (2,)))[1] * {s}", rank(1)),
    Row("{x} - {x}.mT", square),
    # gathers and scatters
    Row("{x}[jnp.array({index})]", ranked),
    Row("{x}[{i}]", ranked),
    Row("{x}[::2]", ranked),
    Row("{x}[::-1] * {x}", ranked),
    Row("{x}[..., 1:] - {x}[..., :-1]", lambda s: len(s) and s[-1] > 1),
    Row("jnp.take({x}, jnp.array({index}), axis=0)", ranked),
    Row("{x}[jnp.array({index}), :1]", matrix),
    Row("jnp.take_along_axis({x}, jnp.argsort({x}, axis={axis}), axis={axis})", ranked),
    Row("lax.dynamic_slice_in_dim({x}, jnp.argmax({z}) % 2, 2)", lambda s: len(s) and s[0] > 2),
    Row("lax.dynamic_index_in_dim({x}, jnp.argmin({x}.ravel()), keepdims=False)", ranked),
    Row("lax.dynamic_update_slice_in_dim({x}, {y}[:1] ** 2, jnp.argmax({y}), 0)", ranked),
    Row("{x}.at[{i}].set({s})", ranked),
    Row("{x}.at[jnp.array({index})].add({y}[jnp.array({index})] ** 2)", ranked),
    Row("{x}.at[{i}].multiply({s})", ranked),
    Row("{x}.at[{i}].max({s})", ranked),
    Row("{x}.at[jnp.array({perm})].set({y})", ranked),
    Row("jax.ops.segment_sum({x}, jnp.arange({x}.shape[0]) % 2, 2)", ranked),
    Row("jnp.zeros((2, *{shape})).at[1].set({x})"),
    Row("{x} * jax.nn.one_hot({i}, {x}.shape[-1])", ranked),
    # along an axis
    Row("jnp.cumsum({x}, axis={axis})", ranked),
    Row("jnp.cumprod({x}, axis={axis})", ranked),
    Row("lax.cummax({x}, axis={axis})", ranked),
    Row("lax.cumlogsumexp({x}, axis={axis})", ranked),
    Row("jnp.sort({x}, axis={axis})", ranked),
    Row("lax.sort(({x}, {y}), num_keys=1)[1]", ranked),
    Row("lax.top_k({x}, 2)[0]", lambda s: len(s) and s[-1] > 1),
    Row("jax.nn.softmax({x}, axis={axis})", ranked),
    Row("jax.nn.log_softmax({x}, axis={axis}) * {x}", ranked),
    Row("layer_norm({x}, {axis})", ranked),
    Row("jnp.diff({x}, axis={axis})", lambda s: len(s) and min(s) > 1),
    Row("lax.associative_scan(lambda a, b: a * b + a, {x})", ranked, most=2),
    # signals
    Row("jnp.convolve({x}, jnp.array([0.5, -1.0, {c}]), 'same')", long),
    Row("jnp.convolve({x}, {y}, 'same')", long),
    Row("lax.conv_general_dilated({x}[None], const(2, (2, {x}.shape[0], 2)), (1,), 'SAME')[0]", rank(2)),
    Row("lax.reduce_window({x}, 0.0, lax.add, (2,), (1,), 'VALID')", lambda s: len(s) == 1 and s[0] > 2),
    Row("jnp.abs(jnp.fft.fft({x})) ** 2", rank(1)),
    Row("jnp.fft.irfft(jnp.fft.rfft({x}) * {c}, {x}.shape[-1])", ranked),
    Row("jnp.real(jnp.fft.ifft({x} * 1j) * (1 + 2j))", ranked),
    # linear algebra
    Row("jnp.linalg.solve(spd({x}), const(3, spd({x}).shape[-1:]))", rank(1, 2), most=2),
    Row("jnp.linalg.cholesky(spd({x}))", rank(1, 2), most=2),
    Row("jnp.linalg.inv(spd({x}))", rank(1, 2), most=2),
    Row("jnp.linalg.det(spd({x}) / 3)", rank(1, 2), most=2),
    Row("jnp.linalg.slogdet(spd({x}))[1]", rank(1, 2), most=2),
    Row("jnp.linalg.eigvalsh(spd({x}))", rank(1, 2), most=2),
    Row("jax.scipy.linalg.solve_triangular(jnp.tril(spd({x})), {x}, lower=True)", rank(2), most=2),
    Row("jnp.linalg.matrix_power({x}, 3)", square),
    Row("attention({x}, {y}, {x} * {y})", matrix),
    # loops and branches
    Row("jax.jit({f})({x}, {z})", calls=("x", "z")),
    Row("jax.checkpoint({f})({x}, {z})", calls=("x", "z")),
    Row("jax.checkpoint({f}, policy=jax.checkpoint_policies.dots_saveable)({x}, {z})", calls=("x", "z")),
    Row("jax.vmap({f}, (0, None))({x}, {z})", ranked, calls=("x0", "z")),
    Row("jax.vmap({f}, (0, 0), -1)({x}, {y})", ranked, calls=("x0", "y0")),
    Row("lax.map(lambda a: {f}(a, {z}), {x})", ranked, calls=("x0", "z")),
    Row("lax.scan(lambda c, a: (jnp.tanh(fit({f}(c, a), {zshape})), {g}(c, a)), {z}, {x})[1]", ranked, ("z", "x0")),
    Row(
        "lax.scan(lambda c, a: (jnp.sin(fit({f}(c, a), {zshape})) + c, None), {z}, {x}, reverse=True)[0]",
        ranked,
        ("z", "x0"),
    ),
    Row("lax.scan(lambda c, _: ((c[1], jnp.sin(c[0] * c[1]) + {y}), c[0]), ({x}, {y}), length=3)[0][0]"),
    Row("lax.scan(lambda c, a: (c * {s} + a[0] * a[1], c), jnp.zeros({shape}[1:]), ({x}, {y}), unroll=2)[1]", ranked),
    Row("lax.fori_loop(0, 3, lambda i, c: jnp.tanh(fit({f}(c, {z}), {shape}) * (1 + i)), {x})", calls=("x", "z")),
    Row(
        "lax.cond({s} > 0, lambda a: fit({f}(a, {z}), {shape}), lambda a: fit({g}(a, {z}), {shape}), {x})",
        calls=("x", "z"),
    ),
    Row("lax.switch(jnp.int32(3 * jnp.abs({s})), [jnp.sin, lambda a: a * {x}, jnp.exp], {y})"),
    Row("lax.fori_loop(0, jnp.int32(2 + {s} ** 2), lambda i, c: jnp.sin(c) + i * {x}, {y})"),
    Row("newton(1.0 + {x} ** 2)"),
    Row("doubling({x}) * {s}"),
    # derivatives inside
    Row("jax.grad(lambda a: jnp.sum({f}(a, {z})))({x})", calls=("x", "z"), most=2),
    Row("jnp.sum(jax.jacfwd(lambda a: jnp.sin(a) * {s})({x}), 0)", rank(1)),
    # custom rules around generated functions
    Row("custom_jvp({f})({x}, {z})", calls=("x", "z"), closed=True),
    Row("custom_jvp({f}, -1.5)({x}, {z})", calls=("x", "z"), closed=True),
    Row("custom_vjp({f})({x}, {z})", calls=("x", "z"), closed=True),
    Row("mixing({x})", ranked),
    Row("mixing_back({x})", ranked),
]
ROWS = ELEMENTWISE + PAIRS + ANY

# x has the batch as axis 0; {axis} and {other} are further axes, {y} has a batch too, {z} has none.
LANE_ROWS = [
    Row("jnp.sum({x}, axis={axis})", matrix),
    Row("jnp.max({x}, axis={axis}, keepdims=True) * {x}", matrix),
    Row("jnp.prod({x} + {c}, axis={axis})", matrix),
    Row("jax.nn.logsumexp({x}, axis={axis})", matrix),
    Row("jnp.var({x}, axis={axis})", matrix),
    Row("safe_norm({x}, -1)", matrix),
    Row("{x} @ fit({z}, ({x}.shape[-1], 3))", matrix),
    Row("jnp.tanh({x} @ const(4, ({x}.shape[-1], 2)) + fit({z}, (2,)))", matrix),
    Row("jnp.einsum('bi,bj->bij', {x}, {y})", rank(2)),
    Row("jnp.einsum('b,bi->bi', {x}.sum(-1), {y})", rank(2)),
    Row("jnp.einsum('b...,b...->b', {x}, {y})", ranked),
    Row("{x} * fit({z}, {shape}[1:])", ranked),
    Row("{x} + fit({z}, {shape})", ranked),
    Row("jnp.cumsum({x}, axis={axis})", matrix),
    Row("jnp.cumprod({x}, axis={axis})", matrix),
    Row("jnp.sort({x}, axis={axis})", matrix),
    Row("jax.nn.softmax({x}, axis={axis})", matrix),
    Row("layer_norm({x})", matrix),
    Row("jnp.flip({x}, {axis})", matrix),
    Row("jnp.roll({x}, 1, {axis}) * {x}", matrix),
    Row("{x}[:, 0]", matrix),
    Row("{x}[..., ::-1] * 2", matrix),
    Row("{x}[:, None] * 0.5", ranked),
    Row("jnp.take({x}, jnp.array([0, -1, 0]), axis={axis})", matrix),
    Row("jnp.take_along_axis({x}, jnp.argsort({x}, axis={axis}), axis={axis})", matrix),
    Row("{x}[jnp.arange({x}.shape[0]), jnp.argmax({x}, 1)]", rank(2)),
    Row("{x}.at[:, 0].set({y}[:, 0] ** 2)", matrix),
    Row("{x}.at[:, -1].add({s})", matrix),
    Row("{x}.reshape({x}.shape[0], -1)", matrix),
    Row("jnp.sin({x}.reshape(-1)).reshape({shape})", ranked),
    Row("jnp.moveaxis(jnp.cos(jnp.moveaxis({x}, 0, -1)), -1, 0)", ranked),
    Row("jnp.swapaxes({x}, 1, 2)", rank(3)),
    Row("jnp.concatenate([{x}, {y}], axis={axis})", matrix),
    Row("jnp.stack([{x}, {y}], axis=1)", ranked),
    Row("jnp.pad({x}, [(0, 0)] + [(1, 1)] * ({x}.ndim - 1))", matrix),
    Row("{x}.T.sum(0) if {x}.ndim > 1 else {x}", ranked),
    Row("lax.conv_general_dilated({x}[:, None], const(5, (1, 1, 2)), (1,), 'SAME')[:, 0]", rank(2)),
    Row("jnp.abs(jnp.fft.rfft({x})) ** 2", matrix),
    Row("jax.vmap({f}, (0, None))({x}, {z})", ranked, ("x0", "z")),
    Row("jax.vmap({f})({x}, {y})", ranked, ("x0", "y0")),
    Row("lax.map(lambda a: {f}(a, {z}), {x})", ranked, ("x0", "z")),
    Row("lax.scan(lambda c, a: (c, {f}(a, {z})), 0.0, {x})[1]", ranked, ("x0", "z")),
    Row("lax.scan(lambda c, a: (jnp.tanh(c + a), c * a), jnp.zeros({x}.shape[0]), {x}.T)[1].T", rank(2)),
    Row("lax.scan(lambda c, a: (jnp.sin(c) * a + {s}, None), {y}[:, 0], {x}.T)[0]", rank(2)),
    Row("lax.fori_loop(0, 3, lambda i, c: jnp.sin(c) + i * {y}, {x})", ranked),
    Row("jax.vmap(newton)(1.0 + {x} ** 2)", ranked),
    Row("jax.vmap(lambda a: lax.cond(jnp.sum(a) > 0, jnp.sin, lambda a: a * {s}, a))({x})", ranked),
    Row("lax.cond({s} > 0, jnp.sin, lambda a: a ** 2, {x})", ranked),
    Row("jnp.linalg.solve(jax.vmap(spd)({x}), {x}[..., None])[..., 0]", rank(2), most=2),
    Row("jnp.linalg.det(jax.vmap(spd)({x}))", rank(2, 3), most=2),
    Row("jax.vmap(attention)({x}, {y}, {x})", rank(3)),
    Row("jax.checkpoint(jax.vmap({f}))({x}, {y})", ranked, ("x0", "y0")),
    Row("custom_jvp(jax.vmap({f}))({x}, {y})", ranked, ("x0", "y0"), closed=True),
    Row("custom_vjp(jax.vmap({f}))({x}, {y})", ranked, ("x0", "y0"), closed=True),
    Row("jax.vmap(jax.grad(lambda a, b: jnp.sum({f}(a, b))))({x}, {y})", ranked, ("x0", "y0"), most=2),
    *ELEMENTWISE,
    *PAIRS,
]

MIXING_ROWS = [
    Row("({x} - jnp.mean({x}, 0)) / jnp.sqrt(0.2 + jnp.var({x}, 0))", ranked, mixes=True),
    Row("{x} * jnp.mean({x})", ranked, mixes=True),
    Row("jnp.roll({x}, 1, 0) * {x}", ranked, mixes=True),
    Row("jnp.flip({x}, 0)", ranked, mixes=True),
    Row("jnp.cumsum({x}, 0) * 0.5", ranked, mixes=True),
    Row("jax.nn.softmax({x}, 0) + {x}", ranked, mixes=True),
    Row("jnp.sort({x}, 0)", ranked, mixes=True),
    Row("{x} + {x}[0]", ranked, mixes=True),
    Row("{x}[jnp.array({perm})]", ranked, mixes=True),
    Row("{x}.at[0].add({x}[1] ** 2)", ranked, mixes=True),
    Row("{x} @ ({x}.T @ {x}) / 4", rank(2), mixes=True),
    Row("{x}.reshape(-1)[::-1].reshape({shape})", ranked, mixes=True),
    Row("lax.scan(lambda c, a: (jnp.tanh(c + a), c * a), jnp.ones({shape}[1:]), {x})[1]", ranked, mixes=True),
    Row("jnp.stack([jnp.convolve(a, np.array([1, 2, -1]), 'same') for a in {x}.T], -1)", rank(2), mixes=True),
    Row("{x} * (jnp.linalg.norm({x}) + 1)", ranked, mixes=True),
    Row("jnp.real(jnp.fft.fft({x} * {x}, axis=0))", ranked, mixes=True),
    Row("jnp.where({x}[::-1] > 0, {x}, {x}[::-1] * 2)", ranked, mixes=True),
    Row("jax.vmap(lambda a: a * safe_norm({x}))({x})", ranked, mixes=True),
    Row("mixing({x}) * jnp.cos({x})", ranked, mixes=True),
    Row("mixing_back({x}) * jnp.cos({x})", ranked, mixes=True),
    Row("lax.fori_loop(0, 2, lambda i, c: c + jnp.roll(c, 1, 0) * {x}, {x})", ranked, mixes=True),
]


# ---- drawing a program


@dataclass
class Variable:
    name: str
    shape: tuple[int, ...]
    laned: bool = False


@dataclass(frozen=True)
class Program:
    """A function, what to call it with, and what it is made of.

    `inputs` and `outputs` are the leaves as specs name them, with shapes, and `names` what `outputs=` is
    told. `lanes` are those whose axis 0 is the batch, `mixing` the numbers of the source lines that mix it.
    `most` is the highest order worth asking for.
    """

    seed: int
    source: str
    file: str
    fn: Callable
    arguments: tuple[str, ...]
    args: tuple
    inputs: dict[str, tuple[int, ...]]
    outputs: dict[str, tuple[int, ...]]
    names: tuple[str, ...] | None  # for `outputs=`, where the function returns a tuple
    lanes: frozenset[str] = frozenset()
    mixing: frozenset[int] = frozenset()
    most: int = 3
    rows: tuple[Row, ...] = field(default=(), repr=False)

    @property
    def one_way(self) -> bool:
        """Whether something in it can be differentiated in one mode only."""
        return re.search(r"custom_vjp|mixing_back|newton|doubling|fori_loop\(0, jnp", self.source) is not None


class Draw:
    """The source of one function under construction: its lines and variables."""

    def __init__(self, rng, counter, variables, depth=0, lanes=None):
        self.rng, self.counter, self.depth, self.lanes = rng, counter, depth, lanes
        self.variables: list[Variable] = list(variables)
        self.lines: list[str] = []
        self.marks: list[int] = []  # lines that mix
        self.rows: list[Row] = []

    def choice(self, options):
        return options[self.rng.integers(len(options))]

    def add(self, row: Row) -> bool:
        """Append a row's line to the source, if there are variables that fit."""
        laned = self.lanes is not None
        fitting = [v for v in self.variables if v.laned == laned and row.when(v.shape)]
        if not fitting:
            return False
        # The last variables more often, so that programs get deep.
        x = fitting[-1] if self.rng.random() < 0.5 else self.choice(fitting)
        alike = [v for v in self.variables if v.shape == x.shape and v.laned == laned and v is not x]
        y = Variable(f"fit({self.choice(self.variables).name}, {x.shape})", x.shape)
        y = self.choice(alike) if alike else (x if laned else y)
        z = self.choice([v for v in self.variables if not v.laned] or [Variable("const(0, (3,))", (3,))])
        if row.closed and "(" in z.name:
            z = x
        holes, blocks = self._holes(row, x, y, z)
        for letter in ("f", "g"):
            if "{" + letter + "}" in row.text:
                made = self._function(row, letter, x, y, z)
                if made is None:
                    return False
                holes[letter], block = made
                blocks += block
        name = f"v{next(self.counter)}"
        lines = [*blocks, f"{name} = {row.text.format(**holes)}"]
        shape = self._shape(lines, name)
        if shape is None or math.prod(shape) > LARGEST or 0 in shape:
            return False
        if laned and shape[:1] != (self.lanes,):
            return False
        if row.mixes:
            self.marks += range(len(self.lines), len(self.lines) + len(lines))
        self.lines += lines
        self.rows.append(row)
        self.variables.append(Variable(name, shape, laned))
        return True

    def _holes(self, row, x, y, z):
        rng, shape = self.rng, x.shape
        axes = list(range(1 if self.lanes else 0, len(shape)))
        axis = self.choice(axes) if axes else 0
        others = [a for a in axes if a != axis]
        n = shape[0] if shape else 1
        factors = [(a, b) for a in range(1, 7) for b in range(1, 7) if a * b == math.prod(shape)]
        return {
            "x": x.name,
            "y": y.name,
            "z": z.name,
            "s": f"jnp.mean({self.choice([v for v in self.variables if not v.laned] or [z]).name})",
            "axis": axis,
            "other": self.choice(others) if others else axis,
            "n": shape[axis] if axes else 1,
            "shape": shape,
            "zshape": z.shape,
            "c": round(float(rng.uniform(0.2, 1.2)), 2),
            "i": int(rng.integers(n)),
            "index": [int(i) for i in rng.integers(n, size=3)],
            "perm": [int(i) for i in rng.permutation(n)],
            "new": self.choice([*factors, (math.prod(shape),)]),
        }, []

    def _function(self, row, letter, x, y, z):
        """A generated function of two arguments, which may read the variables around it; None if no line fits."""
        wholes = {"x": x.shape, "y": y.shape, "z": z.shape, "x0": x.shape[1:], "y0": y.shape[1:]}
        name = f"{letter}{next(self.counter)}"
        arguments = [Variable(f"a{next(self.counter)}", wholes[code]) for code in row.calls]
        around = [] if row.closed or self.lanes else [self.choice(self.variables)]
        inner = Draw(self.rng, self.counter, [*around, *arguments], self.depth + 1)
        table = ROWS if self.depth == 0 else ELEMENTWISE + PAIRS
        # JAX is of two minds about a pullback inside a custom rule: it depends on what is perturbed.
        table = [r for r in table if r.most >= 3 and not (row.closed and "custom_vjp" in r.text)]
        wanted = 1 + self.rng.integers(2)
        for _ in range(30):
            if len(inner.rows) < wanted:
                inner.add(inner.choice(table))
        if not inner.rows:
            return None
        last = inner.variables[-1].name
        heading = f"def {name}({', '.join(v.name for v in arguments)}):"
        # Every argument is used, so that no loop is a loop over nothing.
        result = f"return {last} + 0.1 * ({' + '.join(f'jnp.mean({v.name})' for v in arguments)})"
        block = [heading, *(f"    {line}" for line in inner.lines), f"    {result}"]
        self.rows += inner.rows
        return name, block

    def _shape(self, lines, name):
        """The shape of a new variable, from the shapes of those before; None where they do not fit."""
        known = self.variables
        source = "\n".join([f"def block({', '.join(v.name for v in known)}):", *(f"    {a}" for a in lines),
                            f"    return {name}"])  # fmt: skip
        scope = dict(globals())
        exec(source, scope)
        try:
            out = jax.eval_shape(scope["block"], *(jax.ShapeDtypeStruct(v.shape, "float64") for v in known))
        except (TypeError, ValueError) as error:
            if "hape" in str(error) or "dimension" in str(error) or "axis" in str(error):
                return None
            raise
        return out.shape if out.dtype == np.float64 else None


def _inputs(rng, lanes):
    """Random arguments by name, and the names of those that have the batch as axis 0."""
    sizes = [int(n) for n in rng.permutation([n for n in (2, 3, 4, 5) if n != lanes])]
    values: dict[str, Any] = {}

    def array(*shape):
        value = rng.normal(size=shape) * 0.8
        return value if rng.random() < 0.5 else jnp.asarray(value) if shape else float(value)

    m, n, k = sizes[:3]
    if lanes is None:
        shapes = [(), (m,), (n,), (k,), (m, n), (k, k), (2, n, 2)]
        for name in "xyz"[: 1 + rng.integers(3)]:
            values[name] = array(*shapes[rng.integers(len(shapes))])
        laned = set()
    else:
        shapes = [(), (n,), (n,), (k,), (n, 2)]
        laned = "Xt"[: 1 + rng.integers(2)]
        for name in laned:
            values[name] = array(lanes, *shapes[rng.integers(len(shapes))])
    if rng.random() < 0.4 or lanes is not None:
        values["params"] = {"w": array(n, 2), "b": array(2)} if rng.random() < 0.6 else [array(3), (array(),)]
    return values, set(laned)


def draw(
    seed: int, force: Row | None = None, *, lanes: int | None = None, mixed: bool = False, length: int = 4
) -> Program:
    """A random program, the same for the same arguments on every machine.

    Args:
        force: a row that the program is to contain, if it can be made to.
        lanes: the length of the batch, for a program that is written on one.
        mixed: whether a program on a batch mixes it, once.
        length: how many lines it has, roughly.
    """
    attempts = (_attempt(seed, n, force, lanes, mixed, length) for n in itertools.count())
    return next(program for program in attempts if program is not None)


def _attempt(seed, attempt, force, lanes, mixed, length):
    rng = np.random.default_rng([seed, attempt])
    values, laned = _inputs(rng, lanes)
    inputs, reads, known = {}, [], []
    for name, value in values.items():
        leaves, _ = jax.tree_util.tree_flatten_with_path(value)
        for path, leaf in leaves:
            keys = [k.key if hasattr(k, "key") else k.idx for k in path]
            spelled = ".".join(map(str, [name, *keys]))
            inputs[spelled] = np.shape(leaf)
            variable = Variable(spelled.replace(".", "_"), np.shape(leaf), name in laned)
            if keys:
                reads.append(f"{variable.name} = {name}{''.join(f'[{k!r}]' for k in keys)}")
            known.append(variable)
    body = Draw(rng, itertools.count(), known, lanes=lanes)
    table = ROWS if lanes is None else LANE_ROWS
    count = length + int(rng.integers(-1, 2))
    when, mix = int(rng.integers(count)), int(rng.integers(count))
    made = tries = 0
    while made < count:
        tries += 1
        if tries > 30 or len(body.lines) > 6 * length:
            return None
        if made == mix and mixed and not body.marks:
            body.add(body.choice(MIXING_ROWS))
        if made == when and force is not None and force not in body.rows:
            made += body.add(force) or 0 * body.add(body.choice(table))  # until there is a variable that fits
            continue
        # Elementwise lines keep every program nonlinear.
        made += body.add(body.choice(table if rng.random() < 0.7 else ELEMENTWISE + PAIRS))
    names, returned, outputs = _outputs(rng, body, lanes)
    heading = f"def program({', '.join(values)}):"
    lines = [heading, *(f"    {line}" for line in [*reads, *body.lines, *returned])]
    source = "\n".join(lines) + "\n"
    file = f"program_{seed}.py"
    linecache.cache[file] = (len(source), None, source.splitlines(True), file)
    scope = dict(globals())
    exec(compile(source, file, "exec"), scope)
    first = 2 + len(reads)
    return Program(
        seed, source, file, scope["program"], tuple(values), tuple(values.values()), inputs, outputs, names,
        lanes=frozenset() if lanes is None else frozenset([*(v.name for v in known if v.laned), *outputs]),
        mixing=frozenset(first + line for line in body.marks),
        most=min(row.most for row in body.rows),
        rows=tuple(body.rows),
    )  # fmt: skip


def _outputs(rng, body, lanes):
    """What the program returns: one array, a tuple, or a dict; small enough for a dense oracle."""
    made = [v for v in body.variables if re.fullmatch(r"v\d+", v.name) and v.laned == (lanes is not None)]
    chosen = [made[-1], *([made[rng.integers(len(made))]] if rng.random() < 0.5 else [])]
    texts, shapes = [], []
    for v in chosen:
        text, shape = v.name, v.shape
        if lanes is None and math.prod(shape) > 6:
            text, shape = f"{v.name}.ravel()[:5]", (5,)
        if lanes is not None and math.prod(shape) > 3 * lanes:
            text, shape = f"jnp.sum({v.name}.reshape({lanes}, -1), 1)", (lanes,)
        texts.append(text)
        shapes.append(shape)
    # The other lines come in too, so that none is dead.
    for v in [v for v in made if v not in chosen][:4]:
        if lanes is None:
            texts[0] += f" + 0.3 * jnp.mean({v.name})"
        else:
            texts[0] += f" + 0.3 * per_lane({v.name}, {len(shapes[0])})"
    if len(chosen) == 1:
        return None, [f"return {texts[0]}"], {"out": shapes[0]}
    if rng.random() < 0.5:
        return None, [f'return {{"p": {texts[0]}, "q": {texts[1]}}}'], {"p": shapes[0], "q": shapes[1]}
    return ("p", "q"), [f"return {texts[0]}, {texts[1]}"], {"p": shapes[0], "q": shapes[1]}
