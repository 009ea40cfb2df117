"""Programs for the structure tests, as data: which keep their lanes apart, which mix them, and by what.

There are 5 lanes, and other axes differ in length from them and from each other.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import io_callback


@dataclass(frozen=True)
class Case:
    """`fn` of float arrays of these shapes; `axes`: the lane axis of each input that has one; `out`: the output's."""

    name: str
    fn: Callable
    shapes: tuple[tuple[int, ...], ...]
    axes: dict[int, int] = field(default_factory=lambda: {0: 0})
    out: int = 0
    reverse: bool = False  # can be differentiated in reverse only
    mixed_by: str | None = None  # the primitive that mixes


B = 5
I = jnp.asarray([0, 2, 1, 3, 2])  # one index per lane, into an axis of 4
SPD = lambda a: a @ a.mT + 3 * jnp.eye(a.shape[-1])


def apart(name, fn, *shapes, **more):
    return Case(name, fn, shapes, **more)


def mixed(name, by, fn, *shapes, **more):
    return Case(name, fn, shapes, mixed_by=by, **more)


# ---- custom rules


@jax.custom_jvp
def honest(x):
    return jnp.sin(x)


honest.defjvp(lambda primals, tangents: (honest(primals[0]), jnp.cos(primals[0]) * tangents[0]))


@jax.custom_jvp
def mixing_jvp(x):
    return 2 * x


mixing_jvp.defjvp(lambda p, t: (mixing_jvp(p[0]), 2 * t[0] + jnp.sum(t[0], 0)))


@jax.custom_jvp
def mixing_second(x):
    return x**2


@jax.custom_jvp
def _slope(x):
    return 2 * x


_slope.defjvp(lambda p, t: (_slope(p[0]), 2 * jnp.flip(t[0], 0)))
mixing_second.defjvp(lambda p, t: (mixing_second(p[0]), _slope(p[0]) * t[0]))


@jax.custom_jvp
def constant_with_slope(x):
    return jnp.ones((5,))


constant_with_slope.defjvp(lambda p, t: (jnp.ones((5,)), t[0].sum(1)[::-1]))


@jax.custom_vjp
def honest_vjp(x, n):
    return x * jnp.sin(x)


honest_vjp.defvjp(lambda x, n: (honest_vjp(x, n), x), lambda x, ct: (ct * (jnp.sin(x) + x * jnp.cos(x)), None))


@jax.custom_vjp
def weighted(x, w):
    return jnp.tanh(x @ w)


weighted.defvjp(
    lambda x, w: (weighted(x, w), (x, w)),
    lambda r, ct: ((ct * (1 - jnp.tanh(r[0] @ r[1]) ** 2)) @ r[1].T, r[0].T @ ct),
)


@jax.custom_vjp
def mixing_vjp(x):
    return 3 * x


mixing_vjp.defvjp(lambda x: (mixing_vjp(x), None), lambda _, ct: (3 * ct - ct.mean(0),))


@jax.custom_vjp
def moving_vjp(x):
    return 3 * x


moving_vjp.defvjp(lambda x: (3 * x, None), lambda _, ct: (ct.T,))


@jax.custom_vjp
def silent(x):
    return jnp.zeros((5,))


silent.defvjp(lambda x: (silent(x), x), lambda x, ct: (x * ct[::-1, None],))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def clipped(x, k):
    return jnp.clip(x, -k, k)


clipped.defvjp(lambda x, k: (clipped(x, k), None), lambda k, _, ct: (ct,))


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def powered(x, k):
    return x**k


powered.defjvp(lambda k, p, t: (powered(p[0], k), k * p[0] ** (k - 1) * t[0]))


@jax.custom_jvp
def symbolic(x, y):
    return x * y


def _symbolic_rule(primals, tangents):
    x, y = primals
    zero = jax.custom_derivatives.SymbolicZero
    dx, dy = (jnp.zeros(p.shape, p.dtype) if type(t) is zero else t for p, t in zip(primals, tangents, strict=True))
    return x * y, dx * y + x * dy


symbolic.defjvp(_symbolic_rule, symbolic_zeros=True)


@jax.custom_jvp
def doubled(x):
    return 2 * x


doubled.defjvp(lambda p, t: (doubled(p[0]), 2 * t[0]))


@jax.custom_vjp
def doubled_vjp(x):
    return 2 * x


doubled_vjp.defvjp(lambda x: (2 * x, None), lambda _, ct: (2 * ct,))


@jax.custom_jvp
def two_faced(x):
    """Linear, with a derivative that is not constant."""
    return 2 * x


two_faced.defjvp(lambda p, t: (two_faced(p[0]), p[0] * t[0]))


@jax.custom_jvp
def refusing(x):
    return jnp.sin(x)


@refusing.defjvp
def _refusing_rule(primals, tangents):
    raise RuntimeError("no derivative today")


@jax.custom_batching.custom_vmap
def batched(x):
    return jnp.sin(x)


@batched.def_vmap
def _batched_rule(size, in_batched, x):
    return jnp.sin(x), in_batched[0]


polynomial = getattr(lax, "polynomial", lambda x, c: c[0] + c[1] * x)  # new in 0.12


def newton(a):
    a = jnp.abs(a) + 0.5
    return lax.while_loop(lambda x: jnp.abs(x * x - a) > 1e-3, lambda x: 0.5 * (x + a / x), 1.0 + a)


def rnn(xs, w):
    return lax.scan(lambda h, x: (jnp.tanh(h @ w + x), h), jnp.zeros(xs.shape[1:]), xs)


def through_a_reference(x):
    ref = jax.new_ref(jnp.zeros(x.shape))
    ref[...] = x[::-1]
    return jax.freeze(ref)


def attention(q, k, v):
    return jnp.einsum("bts,bsd->btd", jax.nn.softmax(jnp.einsum("btd,bsd->bts", q, k)), v)


def layer_norm(x):
    return (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-3)


def conv(x, k, **more):
    numbers = lax.conv_dimension_numbers(x.shape, k.shape, ("NHWC", "HWIO", "NHWC"))
    return lax.conv_general_dilated(x, k, (1, 1), "SAME", dimension_numbers=numbers, **more)


def pool(x):
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 1), (1, 1, 1), "VALID")


fixed = lax.stop_gradient  # for what JAX cannot differentiate
v = jax.vmap

APART = [
    # ---- models
    apart("mlp", lambda x, w, b: jnp.tanh(x @ w + b) @ w.T, (5, 3), (3, 4), (4,)),
    apart("attention", attention, (5, 3, 2), (5, 4, 2), (5, 4, 2), axes={0: 0, 1: 0, 2: 0}),
    apart("attention, q alone", attention, (5, 3, 2), (5, 4, 2), (5, 4, 2)),
    apart("layer norm", layer_norm, (5, 3)),
    apart("softmax", lambda x: jax.nn.softmax(x, axis=1), (5, 3)),
    apart("softmax over axis 0", lambda x: jax.nn.softmax(x, axis=0), (3, 5), axes={0: 1}, out=1),
    apart("log softmax", jax.nn.log_softmax, (5, 3)),
    apart("logsumexp", lambda x: jax.nn.logsumexp(x, axis=1), (5, 3)),
    apart("conv", conv, (5, 3, 4, 2), (2, 3, 2, 6)),
    apart("conv, lanes of kernels", conv, (1, 3, 4, 2), (2, 3, 2, 5), axes={1: 3}, out=3),
    apart("vmap conv of inputs", lambda x, k: v(lambda x: conv(x, k))(x), (5, 2, 3, 4, 2), (2, 3, 2, 6)),
    apart("vmap conv of kernels", lambda x, k: v(lambda k: conv(x, k))(k), (2, 3, 4, 2), (5, 2, 3, 2, 6), axes={1: 0}),
    apart("vmap conv of both", v(conv), (5, 2, 3, 4, 2), (5, 2, 3, 2, 6), axes={0: 0, 1: 0}),
    apart("vmap grouped conv", v(lambda x, k: conv(x, k, feature_group_count=2)),
          (5, 1, 2, 3, 4), (5, 1, 2, 2, 6), axes={0: 0, 1: 0}),
    apart("vmap batch-grouped conv", v(lambda x, k: conv(x, k, batch_group_count=2)),
          (5, 4, 2, 3, 1), (5, 1, 2, 1, 2), axes={0: 0, 1: 0}),
    apart("conv gradient per lane",
          v(lambda x, k: jax.grad(lambda k: (conv(x, k) ** 2).sum())(k)),
          (5, 2, 3, 4, 2), (5, 2, 3, 2, 4), axes={0: 0, 1: 0}),
    apart("depthwise conv", lambda x, k: conv(x, k, feature_group_count=5), (1, 3, 4, 5), (2, 3, 1, 5),
          axes={0: 3, 1: 3}, out=3),
    apart("batch of grouped conv", lambda x, k: conv(x, k, feature_group_count=2), (5, 3, 4, 6), (2, 3, 3, 4)),
    apart("pool", pool, (5, 4, 3)),
    apart("average pool", lambda x: lax.reduce_window(x, 0.0, lax.add, (1, 2, 1), (1, 2, 1), "SAME"), (5, 4, 3)),
    apart("tangent of a pool", lambda x: jax.jvp(pool, (x,), (jnp.cos(x),))[1], (5, 4, 3)),
    apart("smallest in window", lambda x: lax.reduce_window(x, jnp.inf, lax.min, (1, 2), (1, 1), "VALID"), (5, 4)),
    apart("pool gradient", v(lambda x: jax.grad(lambda y: (pool(y[None]) ** 2).sum())(x)), (5, 4, 3)),
    apart("window of anything", lambda x: lax.reduce_window(
          fixed(x), 1.0, lambda a, b: a * b + 0 * a, (1, 2), (1, 1), "VALID"), (5, 4)),
    apart("relu, gelu, silu, softplus", lambda x: jax.nn.relu(x) + jax.nn.gelu(x) * jax.nn.silu(x) - jax.nn.softplus(x),
          (5, 3)),
    # ---- element by element
    apart("where", lambda x, m: jnp.where(m > 0, x * 2, x**3), (5, 3), (5, 3)),
    apart("where on the lane", lambda x: jnp.where(x[:, :1] > 0, x, -x), (5, 3)),
    apart("clip", lambda x: lax.clamp(-0.5, x, 0.7), (5, 3)),
    apart("special functions", lambda x: lax.lgamma(x + 3) + lax.erf(x) + lax.digamma(x + 4) + lax.bessel_i0e(x)
          + lax.bessel_i1e(x) + lax.erf_inv(x / 9) + lax.erfc(x) + lax.igamma(1.5, x**2 + 1)
          + lax.igammac(1.5, x**2 + 1), (5, 3)),
    apart("derivatives of gammas", lambda x: lax.igamma_grad_a(*fixed((1 + x**2, x**2))), (5, 3)),
    apart("slope of tanh", v(v(jax.grad(jnp.tanh))), (5, 3)),
    apart("beta and polygamma", lambda x: lax.betainc(0.7, 1.3, jax.nn.sigmoid(x)) + lax.polygamma(1.0, x + 4)
          + lax.zeta(lax.stop_gradient(x + 4), 2.0), (5, 3)),
    apart("trigonometry", lambda x: jnp.tan(x) + jnp.sinh(x) * jnp.cosh(x) + jnp.arctan2(x, 2.0) + jnp.arcsinh(x)
          + jnp.arctan(x) + jnp.arcsin(x / 9) + jnp.arccos(x / 9) + jnp.arctanh(x / 9) + jnp.arccosh(x**2 + 2)
          + jnp.hypot(x, 1.0) + jnp.sinc(x), (5, 3)),
    apart("roots and logs", lambda x: jnp.sqrt(x**2) + jnp.cbrt(x) + lax.rsqrt(x**2 + 1) + jnp.log1p(x**2) + jnp.exp2(x)
          + jnp.expm1(x) + jnp.log(x**2) + jnp.log2(x**2) + lax.logistic(x) + (x**2) ** 1.3, (5, 3)),
    apart("rounding", lambda x: jnp.floor(x) + jnp.ceil(x) + jnp.round(x) + jnp.sign(x) + jnp.abs(x) + x % 0.7
          + lax.nextafter(fixed(x), 2.0) + lax.reduce_precision(x, 5, 10) + lax.rem(x, 0.3), (5, 3)),
    apart("integers", lambda x: (lambda i: (((i << 2) >> 1) ^ 5) + (i & 3) + (i | 8) + ~i + lax.population_count(i)
          + lax.clz(i) + lax.shift_right_logical(i, 1))((x * 100).astype(jnp.int32)) * x, (5,)),
    apart("comparisons", lambda x: x * ((x > 0) & (x < 9) | (x != 3) ^ (x >= 1)) + (x <= 2) + (x == 1)
          + jnp.isfinite(x) + ~(x > 2), (5, 3)),
    apart("complex", lambda x: jnp.abs(jnp.conj(lax.complex(x, 2 * x)) * (1 + 2j)) + jnp.real(x * 1j)
          + jnp.imag(x * (1 + 1j)), (5, 3)),
    apart("bits", lambda x: lax.bitcast_convert_type(lax.bitcast_convert_type(x, jnp.int32) ^ 1, jnp.float32)
          + lax.bitcast_convert_type(x, jnp.int16).sum(1), (5,)),
    apart("stop gradient", lambda x: x * lax.stop_gradient(x), (5, 3)),
    apart("barrier", lambda x: lax.optimization_barrier((x, 2 * x))[1], (5, 3)),
    apart("named", lambda x: checkpoint_name(x, "x") * 2, (5, 3)),
    # ---- moving elements
    apart("x[:, 0]", lambda x: x[:, 0], (5, 3)),
    apart("x[..., None]", lambda x: x[..., None] * x[:, None], (5, 3)),
    apart("transpose", lambda x: jnp.transpose(x, (2, 0, 1)), (5, 3, 2), out=1),
    apart("broadcast", lambda x: jnp.broadcast_to(x, (2, 5, 3)), (5, 3), out=1),
    apart("outer with fixed", lambda x, y: x[:, None] + y, (5,), (3,)),
    apart("size-1 operands", lambda x, y: lax.add(x, y[None]), (5, 3), (3,)),
    apart("stack", lambda x: jnp.stack([x, 2 * x, x**2], 1), (5, 3)),
    apart("stack before", lambda x: jnp.stack([x, 2 * x]), (5, 3), out=1),
    apart("unstack", lambda x: jnp.unstack(x, axis=1)[1], (5, 3)),
    apart("concatenate", lambda x, y: jnp.concatenate([x, x**2, y], 1), (5, 3), (5, 2)),
    apart("tile", lambda x: jnp.tile(x, (1, 2)) + jnp.tile(x[:, :1], (1, 6)), (5, 3)),
    apart("tile over lanes and back", lambda x: jnp.tile(x, (2, 1)).reshape(2, 5, 3), (5, 3), out=1),
    apart("repeat", lambda x: jnp.repeat(x, 2, axis=1), (5, 3)),
    apart("split", lambda x: jnp.split(x, [1], axis=1)[1], (5, 3)),
    apart("lax.split of blocks", lambda x: lax.split(jnp.concatenate([x, 2 * x]), (5, 5))[1], (5, 3)),
    apart("pad", lambda x: jnp.pad(x, ((0, 0), (1, 2)), constant_values=3.0), (5, 3)),
    apart("pad by reflection", lambda x: jnp.pad(x, ((0, 0), (2, 1)), mode="reflect"), (5, 4)),
    apart("flip", lambda x: x[:, ::-1], (5, 3)),
    apart("roll", lambda x: jnp.roll(x, 1, axis=1), (5, 3)),
    apart("strided", lambda x: x[:, ::2], (5, 4)),
    apart("merge and split", lambda x: jnp.sin(x.reshape(15)).reshape(5, 3), (5, 3)),
    apart("merge and split, lanes last", lambda x: jnp.sin(x.reshape(15)).reshape(3, 5), (3, 5), axes={0: 1}, out=1),
    apart("merge three", lambda x: (x.reshape(30) * 2).reshape(2, 5, 3), (2, 5, 3), axes={0: 1}, out=1),
    apart("merge, multiply, split", lambda x, w: (x.reshape(10, 3) @ w).reshape(5, 2, 4), (5, 2, 3), (3, 4)),
    apart("diagonal", lambda x: jnp.diagonal(x, axis1=1, axis2=2), (5, 3, 3)),
    apart("triangle", lambda x: jnp.tril(x), (5, 3, 3)),
    apart("dynamic slice", lambda x: lax.dynamic_slice_in_dim(x, 1, 2, axis=1), (5, 4)),
    apart("dynamic update", lambda x, y: lax.dynamic_update_slice(x, y[:, None], (0, 1)), (5, 3), (5,),
          axes={0: 0, 1: 0}),
    apart("fixed update over lanes", lambda x, y: lax.dynamic_update_slice(x, y, (2, 1)), (5, 3), (2, 2)),
    apart("vmap dynamic slice", v(lambda x: lax.dynamic_slice_in_dim(x, (x[0] > 0).astype(int), 2)), (5, 4)),
    apart("vmap dynamic update", v(lambda x: lax.dynamic_update_slice(x, x[:2], ((x[0] > 0).astype(int),))), (5, 4)),
    # ---- along axes
    apart("sums", lambda x: x.sum(1) + x.prod(1) + x.max(1) + x.min(1) + x.mean(1) + x.var(1), (5, 3)),
    apart("all, any", lambda x: jnp.all(x > 0, 1) * 1.0 + jnp.any(x > 0, 1) + lax.reduce_xor((x > 0), (1,)), (5, 3)),
    apart("argmax", lambda x: jnp.argmax(x, 1) * x[:, 0] + jnp.argmin(x, 1), (5, 3)),
    apart("general reduce", lambda x: lax.reduce(x, 0.5, lambda a, b: a * b + a, (1,)), (5, 3)),
    apart("norm", lambda x: jnp.linalg.norm(x, axis=1), (5, 3)),
    apart("median", lambda x: jnp.median(x, axis=1), (5, 3)),
    apart("quantile", lambda x: jnp.quantile(x, 0.3, axis=1), (5, 4)),
    apart("cumulative", lambda x: jnp.cumsum(x, 1) + jnp.cumprod(x, 1) + lax.cummax(x, 1) + lax.cummin(x, 1)
          + lax.cumlogsumexp(x, 1), (5, 3)),
    apart("associative scan", lambda x: lax.associative_scan(jnp.multiply, x, axis=1), (5, 4)),
    apart("sort", lambda x: jnp.sort(x, 1), (5, 3)),
    apart("sort with two keys", lambda x, y: lax.sort((x, y), dimension=1, num_keys=1)[1], (5, 3), (5, 3),
          axes={0: 0, 1: 0}),
    apart("take along argsort", lambda x: jnp.take_along_axis(x, jnp.argsort(x, 1), 1), (5, 3)),
    apart("top k", lambda x: lax.top_k(x, 2)[0], (5, 4)),
    apart("approximate top k", lambda x: lax.approx_max_k(x, 2)[0], (5, 4)),
    apart("searchsorted", lambda x, y: jnp.searchsorted(y, x, method="compare_all") * x, (5,), (4,)),
    apart("searchsorted by halving", lambda x, y: jnp.searchsorted(y, x) * x, (5,), (4,)),
    apart("fft", lambda x: jnp.fft.fft(x, axis=1).real + jnp.fft.irfft(jnp.fft.rfft(x, axis=1), 4, axis=1), (5, 4)),
    apart("fft2", lambda x: jnp.abs(jnp.fft.fft2(x)), (5, 3, 4)),
    # ---- contractions
    apart("matmul", lambda x, w: x @ w, (5, 3), (3, 4)),
    apart("matmul from the right", lambda x, w: w @ x, (3, 5), (4, 3), axes={0: 1}, out=1),
    apart("batched matmul", jnp.matmul, (5, 2, 3), (5, 3, 4), axes={0: 0, 1: 0}),
    apart("einsum", lambda x, y: jnp.einsum("bij,jbk->kb", x, y), (5, 2, 3), (3, 5, 4), axes={0: 0, 1: 1}, out=1),
    apart("dot of rows", v(jnp.dot), (5, 3), (5, 3), axes={0: 0, 1: 0}),
    apart("outer of rows", v(jnp.outer), (5, 3), (5, 4), axes={0: 0, 1: 0}),
    apart("wide products", lambda x, w: lax.dot_general(x, w, (((1,), (0,)), ((), ())),
          preferred_element_type=jnp.float32), (5, 3), (3, 4)),
    # ---- linear algebra
    apart("solve", jnp.linalg.solve, (5, 3, 3), (5, 3, 2), axes={0: 0, 1: 0}),
    apart("vmap solve", v(lambda a, b: jnp.linalg.solve(a, b)), (5, 3, 3), (5, 3), axes={0: 0, 1: 0}),
    apart("inverse", jnp.linalg.inv, (5, 3, 3)),
    apart("determinant 3", jnp.linalg.det, (5, 3, 3)),
    apart("determinant 4", jnp.linalg.det, (5, 4, 4)),
    apart("slogdet", lambda a: jnp.linalg.slogdet(a)[1], (5, 4, 4)),
    apart("cholesky", lambda a: jnp.linalg.cholesky(SPD(a)), (5, 3, 3)),
    apart("vmap cholesky solve", v(lambda a, b: jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(SPD(a)), b)),
          (5, 3, 3), (5, 3), axes={0: 0, 1: 0}),
    apart("triangular solve", lambda a, b: lax.linalg.triangular_solve(
          a + 2 * jnp.eye(3), b, left_side=True, lower=True), (5, 3, 3), (5, 3, 2), axes={0: 0, 1: 0}),
    apart("right-hand sides", lambda b: lax.linalg.triangular_solve(jnp.tril(jnp.ones((3, 3))), b, left_side=True,
          lower=True), (3, 5), axes={0: 1}, out=1),
    apart("qr", lambda a: jnp.linalg.qr(a)[1], (5, 4, 3)),
    apart("eigh", lambda a: jnp.linalg.eigh(SPD(a))[0], (5, 3, 3)),
    apart("eigenvalues", lambda a: jnp.abs(jnp.linalg.eigvals(fixed(a))), (5, 3, 3)),
    apart("pivots", lambda a: lax.linalg.lu_pivots_to_permutation(lax.linalg.lu(a)[1], 3) * a[:, 0], (5, 3, 3)),
    apart("hessenberg", lambda a: lax.linalg.hessenberg(fixed(a))[0], (5, 3, 3)),
    apart("schur", lambda a: lax.linalg.schur(fixed(a))[0], (5, 3, 3)),
    apart("tridiagonal", lambda a: lax.linalg.tridiagonal(fixed(SPD(a)))[1], (5, 3, 3)),
    apart("householder product", lambda a, t: lax.linalg.householder_product(*fixed((a, t))), (5, 4, 3), (5, 3),
          axes={0: 0, 1: 0}),
    apart("symmetric product", lambda a, c: lax.linalg.symmetric_product(*fixed((a, SPD(c)))), (5, 3, 4), (5, 3, 3),
          axes={0: 0, 1: 0}),
    apart("svd", lambda a: jnp.linalg.svd(a, compute_uv=False), (5, 4, 3)),
    apart("pseudoinverse", jnp.linalg.pinv, (5, 4, 3)),
    apart("matrix exponential", v(jax.scipy.linalg.expm), (5, 3, 3)),
    apart("tridiagonal solve", lambda d, b: lax.linalg.tridiagonal_solve(
          jnp.full((5, 3), 0.1), d**2 + 2, jnp.full((5, 3), 0.2), b), (5, 3), (5, 3, 2), axes={0: 0, 1: 0}),
    apart("linear solve by hand", v(lambda d, b: lax.custom_linear_solve(
          lambda x: (2 + d**2) * x, b, lambda mv, b: b / mv(jnp.ones_like(b)), symmetric=True)),
          (5, 3), (5, 3), axes={0: 0, 1: 0}),
    # ---- indexing
    apart("take columns", lambda x: x[:, jnp.asarray([2, 0])], (5, 3)),
    apart("gather rows of a table", lambda x, t: t[(x > 0).astype(int)] * x, (5,), (2,)),
    apart("arange indexing", lambda x: x[jnp.arange(5), I], (5, 4)),
    apart("cross entropy", lambda x: -jax.nn.log_softmax(x)[jnp.arange(5), I], (5, 4)),
    apart("take along axis", lambda x: jnp.take_along_axis(x, I[:, None], 1), (5, 4)),
    apart("vmap gather", v(lambda x: x[(x[0] > 0).astype(int)]), (5, 3)),
    apart("vmap gather by index", v(lambda x: x[jnp.asarray([1, 0, 1])]), (5, 3)),
    apart("at set column", lambda x: x.at[:, 1].set(x[:, 0] ** 2), (5, 3)),
    apart("at set fixed row", lambda x: x.at[2].set(0.0), (5, 3)),
    apart("at add rows in columns", lambda x: jnp.zeros((5, 4)).at[:, jnp.asarray([2, 0, 2])].add(x), (5, 3)),
    apart("at arange", lambda x: jnp.zeros((5, 4)).at[jnp.arange(5), I].set(x), (5,)),
    apart("vmap at set", v(lambda x: x.at[(x[0] > 0).astype(int)].set(x[2] ** 2)), (5, 3)),
    apart("vmap at multiply", v(lambda x: x.at[1].multiply(x[2])), (5, 3)),
    apart("vmap at max and min", v(lambda x: x.at[0].max(x[2]).at[1].min(x[2])), (5, 3)),
    apart("vmap at subtract", v(lambda x: x.at[jnp.asarray([0, 1])].subtract(x[1:])), (5, 3)),
    apart("one hot", lambda x: jax.nn.one_hot(jnp.argmax(x, 1), 3) * x, (5, 3)),
    apart("segment sums", v(lambda x: jax.ops.segment_sum(x, jnp.asarray([0, 1, 0, 1]), 2)), (5, 4)),
    apart("interpolate", v(lambda x: jnp.interp(x, jnp.asarray([-1.0, 0.0, 2.0]), jnp.asarray([3.0, 1.0, 2.0]))), (5,)),
    # ---- loops, branches, calls
    apart("scan over time", lambda x, w: rnn(x, w)[0], (4, 5, 3), (3, 3), axes={0: 1}, out=0),
    apart("scan over time, stacked", lambda x, w: rnn(x, w)[1], (4, 5, 3), (3, 3), axes={0: 1}, out=1),
    apart("vmap scan", lambda x, w: v(lambda x: rnn(x, w)[1])(x), (5, 4, 3), (3, 3)),
    apart("map", lambda x: lax.map(lambda r: jnp.sort(r) * r.sum(), x), (5, 3)),
    apart("map with a counter", lambda x: lax.scan(lambda i, r: (i + 1, r * i), 1.0, x)[1], (5, 3)),
    apart("map that prints", lambda x: lax.map(lambda r: (jax.debug.callback(lambda r: None, r), 2 * r)[1], x), (5, 3)),
    apart("map in reverse", lambda x: lax.scan(lambda i, r: (i, r @ r), 0, x, reverse=True)[1], (5, 3)),
    apart("fori", lambda x, w: lax.fori_loop(0, 3, lambda i, c: jnp.tanh(c @ w) + i, x), (5, 3), (3, 3)),
    apart("vmap while", v(newton), (5,)),
    apart("vmap while of vectors", v(lambda x: lax.while_loop(lambda c: c.sum() < 9, lambda c: 2 * c + 1, x**2)),
          (5, 3)),
    apart("while with a fixed test", lambda x: lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, c[1] * x),
          (0, x))[1], (5, 3)),
    apart("vmap cond", v(lambda x: lax.cond(x[0] > 0, jnp.sin, lambda x: x[::-1], x)), (5, 3)),
    apart("cond on something else", lambda x, y: lax.cond(y > 0, jnp.sin, lambda x: x[:, ::-1], x), (5, 3), ()),
    apart("switch", lambda x, y: lax.switch((y > 0).astype(int), [jnp.sin, jnp.cos, lambda x: 0 * x], x), (5, 3), ()),
    apart("jit in jit", jax.jit(lambda x: jax.jit(jnp.sin)(x) * 2), (5, 3)),
    apart("checkpoint", jax.checkpoint(lambda x: jnp.sin(x @ jnp.ones((3, 2)))), (5, 3)),
    apart("custom_vmap", lambda x: batched(x), (5, 3)),
    apart("scan of checkpoint", lambda x: lax.scan(jax.checkpoint(lambda c, _: (jnp.sin(c), None)), x, None, 3)[0],
          (5, 3)),
    # ---- custom rules
    apart("custom_jvp", honest, (5, 3)),
    apart("custom_jvp in scan", lambda x: lax.scan(lambda c, _: (honest(c), c), x, None, 3)[1], (5, 3), out=1),
    apart("custom_jvp on all lanes", lambda x: honest(x.T).T, (5, 3)),
    apart("custom_jvp nondiff", lambda x: powered(x, 3), (5, 3)),
    apart("custom_jvp symbolic zeros", lambda x: symbolic(x, jnp.full((5, 3), 2.0)), (5, 3)),
    apart("custom_vjp", lambda x: honest_vjp(x, 3), (5, 3), reverse=True),
    apart("custom_vjp of weights", weighted, (5, 3), (3, 4), reverse=True),
    apart("custom_vjp nondiff", lambda x: clipped(x, 0.5), (5, 3), reverse=True),
    apart("straight through, lane by lane", lambda x: x + lax.stop_gradient(jnp.round(x) - x), (5, 3)),
    # ---- random numbers
    apart("dropout", lambda x: x * jax.random.bernoulli(jax.random.key(0), 0.5, x.shape), (5, 3)),
    apart("vmap random", v(lambda x: x * jax.random.normal(jax.random.fold_in(jax.random.key(0), (x[0] > 0)), (3,))),
          (5, 3)),
    apart("vmap old keys", v(lambda x: x[0] * jax.random.uniform(jax.random.PRNGKey((x[0] > 0).astype(int)), (2,))),
          (5, 3)),
    apart("vmap split", v(lambda x: x[0] * jax.random.gamma(
          jax.random.split(jax.random.key((x[0] > 0).astype(int)))[1], 1 + x[1] ** 2)), (5, 3)),
]  # fmt: skip

MIXING = [
    mixed("matrices of right-hand sides", "triangular_solve", lambda a, b: lax.linalg.triangular_solve(
          a + 2 * jnp.eye(5), b, left_side=True, lower=True), (5, 5), (5, 5), axes={0: 1, 1: 1}, out=1),
    mixed("batch norm", "reduce_sum", lambda x: (x - x.mean(0)) / x.std(0), (5, 3)),
    mixed("x - mean", "reduce_sum", lambda x: x - x.mean(0), (5, 3)),
    mixed("flip", "rev", lambda x: x[::-1], (5, 3)),
    mixed("matmul over lanes", "dot_general", lambda x, w: w @ x, (5, 3), (5, 5)),
    mixed("gram", "dot_general", lambda x: x @ x.T, (5, 3)),
    mixed("self-attention over lanes", "dot_general", lambda x: jax.nn.softmax(x @ x.T) @ x, (5, 3)),
    mixed("roll", "slice", lambda x: jnp.roll(x, 1, axis=0), (5, 3)),
    mixed("sort", "sort", lambda x: jnp.sort(x, 0), (5, 3)),
    mixed("difference", "slice", lambda x: jnp.pad(x[1:] - x[:-1], ((0, 1), (0, 0))), (5, 3)),
    mixed("cumsum", "cumsum", lambda x: jnp.cumsum(x, 0), (5, 3)),
    mixed("fft", "fft", lambda x: jnp.fft.fft(x, axis=0).real, (5, 3)),
    mixed("conv over lanes", "conv_general_dilated", conv, (2, 5, 3, 2), (2, 3, 2, 4), axes={0: 1}, out=1),
    mixed("channels", "conv_general_dilated", conv, (2, 3, 4, 5), (2, 3, 5, 5), axes={0: 3}, out=3),
    mixed("pool over lanes", "reduce_window_sum",
          lambda x: lax.reduce_window(x, 0.0, lax.add, (2, 1), (1, 1), "SAME"), (5, 3)),
    mixed("index of lanes", "gather", lambda x: x[I], (5, 3)),
    mixed("write to lanes", "scatter", lambda x: jnp.zeros((5, 3)).at[I].set(x), (5, 3)),
    mixed("add to lanes", "scatter-add", lambda x: jnp.zeros((5,)).at[I].add(x), (5,)),
    mixed("outer", "add", lambda x: (x[:, None] + x[None]), (5,)),
    mixed("transpose plus itself", "add", lambda x: x + x.T, (5, 5)),
    mixed("reshape splits", "reshape", lambda x: x.reshape(2, 3, 2).transpose(1, 0, 2).reshape(6, 2), (6, 2)),
    mixed("scan along lanes", "scan", lambda x: lax.scan(lambda c, r: (c + r, c * r), jnp.zeros(3), x)[1], (5, 3)),
    mixed("scan that mixes inside", "reduce_sum",
          lambda x: lax.scan(lambda c, _: (c - c.sum(0), None), x, None, 2)[0], (5, 3)),
    mixed("while until all", "reduce_and",
          lambda x: lax.while_loop(lambda c: ~jnp.all(c > 3), lambda c: c + 0.1, x), (5,)),
    mixed("cond on a lane", "slice", lambda x: lax.cond(x[0] > 0, jnp.sin, jnp.cos, x), (5,)),
    mixed("inverse of lanes", "lu", lambda a: jnp.linalg.inv(a), (5, 5)),
    mixed("eigh of lanes", "eigh", lambda a: lax.linalg.eigh(a, symmetrize_input=False)[0], (5, 5)),
    mixed("callback", "pure_callback",
          lambda x: jax.pure_callback(np.sin, jax.ShapeDtypeStruct((5, 3), jnp.float32), x), (5, 3)),
    mixed("impure callback", "io_callback",
          lambda x: lax.map(lambda r: io_callback(np.sin, jax.ShapeDtypeStruct((3,), jnp.float32), r), x), (5, 3)),
    mixed("reference", "freeze", through_a_reference, (5, 3)),
    mixed("straight through", "reduce_sum",
          lambda x: lax.stop_gradient(jnp.round(x)) + x - lax.stop_gradient(x.sum(0)), (5, 3)),
    mixed("mixing custom_jvp", "custom_jvp_call", lambda x: mixing_jvp(x), (5, 3)),
    mixed("mixing custom_jvp in scan", "custom_jvp_call",
          lambda x: lax.scan(lambda c, _: (mixing_jvp(c), None), x, None, 2)[0], (5, 3)),
    mixed("mixing second derivative", "custom_jvp_call", lambda x: mixing_second(x), (5, 3)),
    mixed("constant with a slope", "custom_jvp_call", lambda x: constant_with_slope(x), (5, 3)),
    mixed("mixing custom_vjp", "custom_vjp_call", lambda x: mixing_vjp(x), (5, 3), reverse=True),
    mixed("moving custom_vjp", "custom_vjp_call", lambda x: moving_vjp(x), (5, 5), reverse=True),
    mixed("silent custom_vjp", "custom_vjp_call", lambda x: silent(x), (5, 3), reverse=True),
]  # fmt: skip


# ---- linearity: each of these is linear in all its arguments together, by the primitive it is named after


def linear(name, fn, *shapes):
    return Case(name, fn, shapes)


W = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4)), jnp.float32)
window_of = lambda x: lax.reduce_window(x, 0.0, lax.add, (2, 2), (1, 1), "SAME")
rows = lambda operand, updates, how: getattr(operand.at[jnp.asarray([2, 0])], how)(updates)

LINEAR = [
    linear("add", lambda x, y: x + y, (5, 3), (5, 3)),
    linear("sub", lambda x, y: x - y, (5, 3), (5, 3)),
    linear("neg", lambda x: -x, (5, 3)),
    linear("mul", lambda x: x * W[:, 0], (5, 3)),
    linear("div", lambda x: x / W[:, 0], (5, 3)),
    linear("polynomial", lambda x, y: polynomial(W, [x, y]), (3, 4), (3, 4)),
    linear("real", lambda x: jnp.real(x * (1 + 2j)), (5, 3)),
    linear("imag", lambda x: jnp.imag(x * (1 + 2j)), (5, 3)),
    linear("conj", lambda x: jnp.real(jnp.conj(lax.complex(x, x)) * 1j), (5, 3)),
    linear("complex", lambda x, y: jnp.real(lax.complex(x, y) * 1j), (5, 3), (5, 3)),
    linear("select_n", lambda x, y: jnp.where(W > 0, x, y), (3, 4), (3, 4)),
    linear("reduce_precision", lambda x: lax.reduce_precision(x, 8, 20), (5, 3)),
    linear("convert_element_type", lambda x: x.astype(jnp.complex64).astype(jnp.complex64).real, (5, 3)),
    linear("copy", lambda x: lax.optimization_barrier(jnp.copy(x)), (5, 3)),
    linear("name", lambda x: checkpoint_name(x, "x"), (5, 3)),
    linear("optimization_barrier", lambda x: lax.optimization_barrier(x), (5, 3)),
    linear("broadcast_in_dim", lambda x: jnp.broadcast_to(x[:, None], (5, 2, 3)), (5, 3)),
    linear("reshape", lambda x: x.reshape(3, 5), (5, 3)),
    linear("transpose", lambda x: x.T, (5, 3)),
    linear("squeeze", lambda x: x[2], (5, 3)),
    linear("stack", lambda x, y: jnp.stack([x, y], 1), (5, 3), (5, 3)),
    linear("unstack", lambda x: jnp.unstack(x)[3], (5, 3)),
    linear("tile", lambda x: jnp.tile(x, (2, 3)), (5, 3)),
    linear("concatenate", lambda x, y: jnp.concatenate([x, y]), (5, 3), (2, 3)),
    linear("split", lambda x: jnp.split(x, [2])[1], (5, 3)),
    linear("pad", lambda x: jnp.pad(x, 1), (5, 3)),
    linear("slice", lambda x: x[1:4:2], (5, 3)),
    linear("rev", lambda x: x[::-1], (5, 3)),
    linear("dynamic_slice", lambda x: lax.dynamic_slice(x, (W.argmax(), 0), (2, 3)), (5, 3)),
    linear("dynamic_update_slice", lambda x, y: lax.dynamic_update_slice(x, y, (W.argmax(), 0)), (5, 3), (2, 2)),
    linear("gather", lambda x: x[jnp.asarray([3, 0, 3])], (5, 3)),
    linear("scatter", lambda x, y: rows(x, y, "set"), (5, 3), (2, 3)),
    linear("scatter-add", lambda x, y: rows(x, y, "add"), (5, 3), (2, 3)),
    linear("scatter-sub", lambda x, y: rows(x, y, "subtract"), (5, 3), (2, 3)),
    linear("scatter-mul", lambda x: rows(x, W[:2, :3], "multiply"), (5, 3)),
    linear("reduce_sum", lambda x: x.sum(0), (5, 3)),
    linear("cumsum", lambda x: lax.cumsum(x, 1, reverse=True), (5, 3)),
    linear("fft", lambda x: jnp.fft.rfft(x).imag, (5, 3)),
    linear("reduce_window_sum", window_of, (5, 3)),
    linear("select_and_scatter_add", lambda ct: jax.vjp(pool, W[None])[1](ct)[0], (1, 2, 4)),
    linear("select_and_gather_add", lambda t: jax.jvp(pool, (W[None],), (t,))[1], (1, 3, 4)),
    linear("dot_general", lambda x: x @ W, (5, 3)),
    linear("conv_general_dilated", lambda k: conv(jnp.ones((1, 3, 4, 2)), k), (2, 3, 2, 6)),
    linear("triangular_solve", lambda b: jax.scipy.linalg.solve_triangular(jnp.eye(3) + W[:, :3], b), (3, 2)),
    linear("tridiagonal_solve", lambda b: lax.linalg.tridiagonal_solve(
        jnp.full((3,), 0.1), jnp.full((3,), 2.0), jnp.full((3,), 0.2), b), (3, 2)),
    linear("custom_linear_solve", lambda b: jnp.linalg.solve(jnp.eye(3) + W[:, :3], b), (3, 2)),
    linear("scan", lambda x: lax.scan(lambda c, r: (2 * c + r, c - r), jnp.zeros(3), x), (5, 3)),
    linear("while", lambda x: lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, c[1] @ W @ W.T), (0, x))[1],
           (5, 3)),
    linear("cond", lambda x: lax.cond(W.sum() > 0, lambda x: 2 * x, lambda x: x[::-1], x), (5, 3)),
    linear("remat2", jax.checkpoint(lambda x: 2 * x), (5, 3)),
    linear("custom_jvp_call", lambda x: doubled(x), (5, 3)),
    linear("custom_vjp_call", lambda x: doubled_vjp(x), (5, 3)),
]  # fmt: skip

CURVED = [
    mixed("product", "mul", lambda x, y: x * y, (5, 3), (5, 3)),
    mixed("product of dots", "dot_general", lambda x: x @ x.T, (5, 3)),
    mixed("divided by", "div", lambda x: 1 / x, (5, 3)),
    mixed("tanh", "tanh", lambda x: jnp.tanh(x @ W), (5, 3)),
    mixed("where on x", "gt", lambda x: jnp.where(x > 0, x, 2 * x), (5, 3)),
    mixed("rounded", "convert_element_type", lambda x: x.astype(int).astype(x.dtype), (5, 3)),
    mixed("scan", "mul", lambda x: lax.scan(lambda c, r: (c * r, None), jnp.ones(3), x)[0], (5, 3)),
    mixed("two-faced", "custom_jvp_call", lambda x: two_faced(x), (5, 3)),
    mixed("relu", "max", jax.nn.relu, (5, 3)),
    mixed("unknown", "pure_callback",
          lambda x: jax.pure_callback(np.sin, jax.ShapeDtypeStruct((5, 3), jnp.float32), x), (5, 3)),
]  # fmt: skip
