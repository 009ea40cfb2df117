"""Sums that move towards the inputs: every value as plain JAX gives it, and every sum where it should be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxpartials as jp
from jaxpartials import candidates, planner
from jaxpartials.graph.cost import cost_of
from jaxpartials.graph.emit import emit, evaluate
from jaxpartials.graph.graph import reach
from jaxpartials.graph.trace import trace
from jaxpartials.rewrite import collapse as module
from jaxpartials.rewrite.algebra import RULES
from jaxpartials.rewrite.collapse import collapse

RTOL = 1e-11


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


def array(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).normal(size=shape)


def collapsed(fn, *args):
    """The program of `fn` before and after, as values of one graph; the values are compared."""
    graph, _ = trace(fn, *args, rules=RULES)
    leaves = jax.tree.leaves(args)
    before = list(graph.outputs)
    after = collapse(graph, before)
    assert cost_of(after).flops <= cost_of(before).flops
    wanted = jax.tree.leaves(jax.jit(fn)(*args))
    found = jax.jit(lambda *arrays: evaluate(after, zip(graph.inputs, arrays, strict=True)))(*leaves)
    for got, want in zip(found, wanted, strict=True):
        assert got.shape == want.shape
        assert got.dtype == want.dtype
        np.testing.assert_allclose(got, want, rtol=RTOL, atol=RTOL * max(1, np.max(np.abs(want), initial=0)))
    return before, after


def shapes(values, name):
    return sorted(node.outputs[0].shape for node in reach(values) if node.name == name)


# ---- each operation alone: the sum over axis 1 of an operation on x @ W, of shape (4, 3, 6)

X = array(4, 3, 5)
W = array(5, 6)
ROW = array(4, 1, 6)
TRIANGLES = np.broadcast_to(3 * np.eye(6) + np.tril(array(6, 6)), (4, 6, 6))


def solve(y):
    columns = jnp.swapaxes(y, 1, 2)
    return jnp.swapaxes(lax.linalg.triangular_solve(TRIANGLES, columns, left_side=True, lower=True), 1, 2)


MATRICES = 3 * np.eye(6) + array(4, 6, 6)


def systems(y):
    """One matrix for each lane, and a right-hand side for each direction."""
    return jax.vmap(lambda matrix, columns: jax.vmap(lambda b: jnp.linalg.solve(matrix, b))(columns))(MATRICES, y)


def by_conjugate_gradients(y):
    matrix = MATRICES[0] @ MATRICES[0].T
    return jax.vmap(jax.vmap(lambda b: jax.scipy.sparse.linalg.cg(lambda x: matrix @ x, b, maxiter=40)[0]))(y)


def scan_free(y):
    return lax.reduce_window(y, 0.0, lax.add, (1, 1, 2), (1, 1, 1), "VALID")


MOVES = {
    "add": lambda y: y + jnp.sin(X) @ W,
    "sub": lambda y: y - y[::-1],
    "neg": lambda y: -y,
    "add a number": lambda y: y + 3.0,
    "add a row": lambda y: y + ROW,
    "mul by a row": lambda y: y * ROW,
    "mul by a spread row": lambda y: y * jnp.broadcast_to(ROW, y.shape),
    "mul by functions of rows": lambda y: y * (jnp.sin(jnp.broadcast_to(ROW, y.shape)) + 2.0) * 3.0,
    "div by a row": lambda y: y / ROW,
    "select": lambda y: jnp.where(ROW > 0, y, 0.0),
    "select of two": lambda y: lax.select_n(jnp.broadcast_to(ROW > 0, y.shape), y, y * ROW),
    "convert": lambda y: y.astype(np.complex128),
    "real part": lambda y: jnp.real(y * (1 + 2j)),
    "dot, free on the left": lambda y: y @ array(6, 2),
    "dot, free on the right": lambda y: jnp.moveaxis(jnp.tensordot(array(2, 6), y, (1, 2)), 0, 2),
    "dot with a batch": lambda y: jnp.einsum("bik,bkl->bil", y, array(4, 6, 2)),
    "dot with equal batches": lambda y: jnp.einsum("bik,bik->bi", y, jnp.broadcast_to(ROW, y.shape)),
    "mixed by a product": lambda y: jnp.einsum("bik,ij->bjk", y, array(3, 3)),
    "transpose": lambda y: jnp.swapaxes(jnp.cumsum(jnp.swapaxes(y, 0, 1), 2), 0, 1),
    "reshape": lambda y: jnp.cumsum(jnp.reshape(y, (2, 2, 3, 3, 2)), 1).reshape(4, 3, 6),
    "squeeze": lambda y: lax.squeeze(jnp.cumsum(lax.expand_dims(y, (0,)), 3), (0,)),
    "slice": lambda y: y[1:, :, 1:5:2],
    "pad": lambda y: jnp.pad(y, ((0, 0), (0, 0), (1, 2))),
    "pad with a number": lambda y: jnp.pad(y, ((0, 1), (0, 0), (1, 2)), constant_values=2.0),
    "concatenate": lambda y: jnp.concatenate([y, y * ROW], 2),
    "split": lambda y: lax.split(y, (2, 4), axis=2)[1],
    "reverse": lambda y: lax.rev(y, (2, 0)),
    "gather": lambda y: y[:, :, np.array([3, 0, 0])],
    "gather of lanes": lambda y: y[np.array([3, 0, 0])],
    "dynamic slice": lambda y: lax.dynamic_slice_in_dim(y, jnp.asarray(2), 2, 2),
    "dynamic update": lambda y: lax.dynamic_update_slice_in_dim(y, y[..., :2] * ROW[..., :2], jnp.asarray(1), 2),
    "scatter": lambda y: jnp.zeros((4, 3, 7)).at[..., np.array([1, 4])].add(y[..., :2]),
    "other sums": lambda y: jnp.sum(y * ROW, 2),
    "broadcast": lambda y: jnp.broadcast_to(y[..., None], (4, 3, 6, 2)) * 2.0,
    "cumsum": lambda y: jnp.cumsum(y, 2),
    "windows": scan_free,
    "fft": lambda y: jnp.real(jnp.fft.fft(y, axis=2)),
    "triangular solve": solve,
    "linear systems": lambda y: jax.vmap(jax.vmap(lambda b: jnp.linalg.solve(MATRICES[0], b)))(y),
    "linear systems, a matrix for each lane": systems,
    "linear systems, weighted": lambda y: systems(y) * array(3, 1),
    "transposed linear systems": lambda y: jax.vmap(
        jax.vmap(jax.vjp(lambda b: jnp.linalg.solve(MATRICES[0], b), y[0, 0])[1])
    )(y)[0],
    "weights": lambda y: y * array(3, 1),
    "weights and lanes": lambda y: y * array(4, 3, 1),
    "power by weights": lambda y: y * jnp.square(array(3, 1)) / ROW,
}


@pytest.mark.parametrize("name", MOVES)
def test_a_sum_moves_through(name):
    """What is summed is no product any more, but its operand."""
    before, after = collapsed(lambda x: jnp.sum(MOVES[name](x @ W), axis=1), X)
    assert (4, 3, 6) in shapes(before, "dot_general")
    assert (4, 3, 6) not in shapes(after, "dot_general")
    assert (4, 6) in shapes(after, "dot_general")
    assert cost_of(after).time < cost_of(before).time


STAYS = {
    "mul by what varies": lambda y: y * array(4, 3, 6),
    "nonlinear": jnp.tanh,
    "div by it": lambda y: 1 / y,
    "max": lambda y: jnp.maximum(y, 0.0),
    "square": lambda y: y**2,
    "product": lambda y: y * jnp.sin(y),
    "select by what varies": lambda y: jnp.where(array(4, 3, 6) > 0, y, 0.0),
    "select by itself": lambda y: jnp.where(y > 0, y, 0.0),
    "slice of the axis": lambda y: y[:, 1:] * 2.0,
    "cumsum along the axis": lambda y: jnp.cumsum(y, 1),
    "dot with a varying batch": lambda y: jnp.einsum("bik,bikl->bil", y, array(4, 3, 6, 2)),
    "gather along the axis": lambda y: y[:, np.array([0, 2, 2])],
    "reshape of the axis": lambda y: jnp.tanh(jnp.reshape(y, (4, 18))).reshape(4, 3, 6),
    "windows along the axis": lambda y: lax.reduce_window(y, 0.0, lax.add, (1, 2, 1), (1, 1, 1), "SAME"),
    "written to at a place along the axis": lambda y: lax.dynamic_update_slice_in_dim(y, jnp.sin(ROW), 1, 1),
    "added to at a place along the axis": lambda y: jnp.asarray(y).at[:, 1].add(jnp.sin(y[:, 0])),
    "scaled at a place along the axis": lambda y: jnp.asarray(y).at[:, 1].multiply(ROW[:, 0]),
    "set to a number at a place along the axis": lambda y: jnp.moveaxis(
        jnp.moveaxis(y, 1, 0).at[2].set(X[0, 0, 0]), 0, 1
    ),
    "linear systems with matrices that vary": lambda y: jax.vmap(
        jax.vmap(lambda b: jnp.linalg.solve(MATRICES[0] + jnp.diag(0.1 * jnp.sin(b)), b))
    )(y),
    "systems solved until something is small": by_conjugate_gradients,
    "rounding": lambda y: lax.reduce_precision(y, 8, 7),
    "to more digits": lambda y: (y.astype(np.float32) * 3).astype(np.float64),
}


@pytest.mark.parametrize("name", STAYS)
def test_a_sum_stays(name):
    _, after = collapsed(lambda x: jnp.sum(STAYS[name](x @ W), axis=1), X)
    assert (4, 3, 6) in shapes(after, "dot_general")
    assert (4, 6) not in shapes(after, "dot_general")


@pytest.mark.parametrize("name", ["linear systems", "linear systems, a matrix for each lane"])
def test_a_linear_system_for_a_sum(name):
    """It is as many times smaller, stays a system that JAX differentiates as one, and has the same derivatives."""
    fn = lambda x: jnp.sum(MOVES[name](x @ W), axis=1)
    before, after = collapsed(fn, X)
    assert [int(np.prod(shape)) for shape in shapes(before, "custom_linear_solve")] == [4 * 3 * 6]
    assert [int(np.prod(shape)) for shape in shapes(after, "custom_linear_solve")] == [4 * 6]
    graph, _ = trace(fn, X, rules=RULES)
    graph.outputs = collapse(graph, graph.outputs)
    for differentiate in (jax.jacfwd, jax.jacrev):
        found, wanted = (jax.jit(differentiate(f))(X) for f in (lambda x: emit(graph, [x])[0], fn))
        np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-9)


TAKEN_APART = {  # x of shape (4, 6, 3): its new shape, the axes summed, and the shape of what is left of x
    "one axis": ((4, 3, 2, 3), (1, 2), (4, 3)),
    "all of two": ((2, 2, 6, 3), (0, 1, 2), (3,)),
    "two of three": ((2, 2, 3, 2, 3), (0, 1, 4), (6,)),
    "two made one": ((24, 3), (0,), (3,)),
    "a part": ((4, 3, 2, 3), (1,), (4, 6, 3)),
    "across": ((8, 3, 3), (0,), (4, 6, 3)),
}


@pytest.mark.parametrize(
    ("name", "weighted"),
    [*((name, False) for name in TAKEN_APART), *((name, True) for name in TAKEN_APART if name != "two of three")],
)
def test_sums_of_axes_taken_apart(name, weighted):
    shape, axes, left = TAKEN_APART[name]
    weights = array(*(n if a in axes else 1 for a, n in enumerate(shape))) if weighted else 1.0
    _, after = collapsed(lambda x: jnp.sum(jnp.reshape(x @ array(5, 3), shape) * weights, axes), array(4, 6, 5))
    assert ((4, 6, 3) in shapes(after, "dot_general")) == (left == (4, 6, 3))
    assert weighted or shapes(after, "dot_general") == [left]


def test_convolution():
    kernel = array(2, 4, 3)
    before, after = collapsed(lambda x: jnp.sum(lax.conv(x, kernel, (1,), "SAME"), 0), array(3, 4, 7))
    assert shapes(before, "conv_general_dilated") == [(3, 2, 7)]
    assert shapes(after, "conv_general_dilated") == [(1, 2, 7)]


# ---- loops and branches

A = array(6, 6) / 3
STEPS = array(7, 4, 1, 6)


def recurrence(x):
    """A nonlinear recurrence h and one that is linear in what is carried along the axis of length 3."""

    def step(carry, row):
        h, s = carry
        h = jnp.tanh(h @ A + row[:, 0])
        s = (1 - h[:, None] ** 2) * (s @ A) + row
        return (h, s), jnp.sum(s @ A, axis=2)

    return lax.scan(step, (x[:, 0], x), STEPS)


def squares(x):
    """A second-order recurrence as a tower makes it: one carry is linear, and driven by squares of another."""

    def step(carry, row):
        h, first, second = carry
        h = jnp.tanh(h @ A + row[:, 0])
        d = (1 - h**2)[:, None]
        first = first @ A
        second = d * (second @ A) - 2 * d * h[:, None] * first**2
        return (h, d * first, second), None

    return lax.scan(step, (x[:, 0], x, 0 * x + 1), STEPS)[0]


def nested(x):
    def turn(carry, row):
        h, s = carry

        def step(inner, factor):
            h, s = inner
            return (jnp.tanh(h @ A * factor), jnp.cos(h)[:, None] * (s @ A) + factor), s[:, :, 0]

        (h, s), ys = lax.scan(step, (h, s), row[0, 0])
        return (h, s + jnp.sum(ys, 0)[:, :, None]), None

    return lax.scan(turn, (x[:, 0], x), STEPS)[0]


LOOPS = {
    "scan, carried": lambda x: recurrence(x)[0][1],
    "scan, stacked": lambda x: jnp.moveaxis(recurrence(x)[1], 0, 2),
    "scan of squares": lambda x: squares(x)[2],
    "scan in a scan": lambda x: nested(x)[1],
    "cond": lambda x: lax.cond(x[0, 0, 0] > 9, lambda y: jnp.cumsum(y, 2), lambda y: y @ A * ROW, x),
    "switch": lambda x: lax.switch(jnp.asarray(1), [lambda y: y @ A, lambda y: y * ROW, jnp.negative], x @ A),
    "while": lambda x: lax.while_loop(
        lambda c: c[0] < 5, lambda c: (c[0] + 1, c[1] @ A * ROW + 1.0), (jnp.asarray(0), x)
    )[1],
    "fori": lambda x: lax.fori_loop(0, 4, lambda i, c: c @ A + i * x, x),
    "while of a vmap": lambda x: jax.vmap(
        lambda row, y: lax.while_loop(lambda c: jnp.sum(c[0]) < 40, lambda c: (c[0] + 1, c[1] @ A), (row, y))[1]
    )(jnp.abs(ROW[:, 0]), x),
}


def inner_shapes(values, name):
    nodes, found = list(reach(values)), []
    while nodes:
        node = nodes.pop()
        nodes += [inner for body in node.bodies for inner in body.nodes]
        if node.name == name:
            found.append(node.outputs[0].shape)
    return found


@pytest.mark.parametrize("name", LOOPS)
def test_a_sum_moves_into(name):
    before, after = collapsed(lambda x: jnp.sum(LOOPS[name](x), axis=1), array(4, 3, 6))
    was, now = (inner_shapes(v, "dot_general") for v in (before, after))
    assert now.count((4, 3, 6)) < was.count((4, 3, 6))
    assert cost_of(after).flops < cost_of(before).flops


def test_what_else_a_loop_computes_stays():
    def fn(x):
        h, first, second = squares(x)
        return h, jnp.sum(second, 1), jnp.sum(jnp.tanh(first), 1), second[0, 0]

    before, after = collapsed(lambda x: fn(x)[:3], array(4, 3, 6))
    assert inner_shapes(before, "dot_general").count((4, 3, 6)) == 2
    assert inner_shapes(after, "dot_general").count((4, 3, 6)) == 1
    before, after = collapsed(fn, array(4, 3, 6))
    assert after == before  # the second order is needed for each


def test_lanes_of_a_while_stay_apart():
    def fn(x):
        def turn(row, y):
            return lax.while_loop(lambda c: jnp.sum(c[0]) < 40, lambda c: (c[0] + 1, c[1] @ A), (row, y))[1]

        return jnp.sum(jax.vmap(turn)(jnp.abs(ROW[:, 0]), x), axis=0)

    before, after = collapsed(fn, array(4, 3, 6))
    assert inner_shapes(after, "dot_general") == inner_shapes(before, "dot_general")


# ---- towers: nested forward derivatives become the forward Laplacian

RNG = np.random.default_rng(0)
D, WIDTH, LANES = 3, 8, 6
PARAMS = [RNG.normal(size=s) * 0.5 for s in ((D, WIDTH), (WIDTH,), (WIDTH, WIDTH), (WIDTH,), (WIDTH, WIDTH), (WIDTH,))]
POINTS = RNG.normal(size=(LANES, D))


def mlp(activation):
    def u(p, x):
        h = activation(x @ p[0] + p[1])
        h = activation(h @ p[2] + p[3])
        h = activation(h @ p[4] + p[1])
        return h @ p[5]

    return u


def layer_norm(p, x):
    h = x @ p[0] + p[1]
    h = (h - jnp.mean(h, -1, keepdims=True)) / jnp.sqrt(jnp.var(h, -1, keepdims=True) + 1e-5)
    return jnp.tanh(h @ p[2]) @ p[5]


def attention(p, x):
    q = x[..., None] * p[1]
    weights = jax.nn.softmax(jnp.einsum("...ik,...jk->...ij", q @ p[2], q), -1)
    return jnp.sum(jnp.tanh(jnp.einsum("...ij,...jk->...ik", weights, q) @ p[4]), (-1, -2))


def recurrent(p, x):
    h, _ = lax.scan(lambda h, _: (jnp.tanh(h @ p[2] + p[3]), None), x @ p[0], None, length=4)
    return h @ p[5]


def determinant(p, x):
    matrix = jnp.tanh(x[..., :, None] * p[1] + p[3]) @ p[2][:, :D] + 3 * jnp.eye(D)
    return jnp.linalg.slogdet(matrix)[1]


def wavefunction(p, x):
    return determinant(p, x) + attention(p, x) - jnp.sqrt(jnp.sum(x**2, -1) + 1)


FUNCTIONS = {
    "tanh": mlp(jnp.tanh), "sin": mlp(jnp.sin), "relu": mlp(jax.nn.relu), "softplus": mlp(jax.nn.softplus),
    "silu": mlp(jax.nn.silu), "gelu": mlp(jax.nn.gelu), "layer norm": layer_norm, "attention": attention,
    "scan": recurrent, "logdet": determinant, "wavefunction": wavefunction,
}  # fmt: skip


def tower(u):
    """The Laplacian by nested jvp along all directions at once, in the layout of `partials`."""

    def along(f, p, x, v):
        return jax.jvp(lambda x: f(p, x), (x,), (v,))[1]

    def laplacian(p, x):
        second = lambda v: along(lambda p, x: along(u, p, x, v), p, x, v)
        seeds = jnp.broadcast_to(jnp.eye(D), (len(x), D, D))
        return jnp.sum(jax.vmap(second, in_axes=1, out_axes=1)(seeds), 1)

    return laplacian


def naive(u):
    return jax.vmap(lambda p, x: jnp.trace(jax.hessian(u, 1)(p, x)), (None, 0))


CASES = [(tower, name) for name in FUNCTIONS]
CASES += [(naive, name) for name in ("tanh", "softplus", "layer norm", "scan", "wavefunction")]


@pytest.mark.parametrize(("form", "name"), CASES)
def test_laplacian(form, name):
    before, after = collapsed(form(FUNCTIONS[name]), PARAMS, POINTS)
    wanted = jax.jit(naive(FUNCTIONS[name]))(PARAMS, POINTS)
    found = jax.jit(form(FUNCTIONS[name]))(PARAMS, POINTS)
    np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-12)
    if form is tower and name != "relu":
        assert cost_of(after).flops < cost_of(before).flops


@pytest.mark.parametrize("u", ["tanh", "sin"])
def test_one_second_order_tangent_per_layer(u):
    """Between two hidden layers: the values, d first-order tangents, and one second-order tangent or cotangent."""
    for form in (tower, naive):
        _, after = collapsed(form(FUNCTIONS[u]), PARAMS, POINTS)
        products = [int(np.prod(shape)) for shape in shapes(after, "dot_general")]
        assert products.count(LANES * D * WIDTH) == 2
        assert products.count(LANES * WIDTH) == 3 + 2
        assert max(products) == LANES * D * WIDTH


@pytest.mark.parametrize("name", ["tanh", "softplus", "scan", "wavefunction"])
def test_gradients_of_what_is_collapsed(name):
    laplacian = tower(FUNCTIONS[name])
    graph, _ = trace(laplacian, PARAMS, POINTS, rules=RULES)
    graph.outputs = collapse(graph, graph.outputs)
    found = jax.jit(jax.grad(lambda p: jnp.mean(emit(graph, [*p, POINTS])[0] ** 2)))(PARAMS)
    wanted = jax.jit(jax.grad(lambda p: jnp.mean(laplacian(p, POINTS) ** 2)))(PARAMS)
    for got, want in zip(found, wanted, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-8, atol=1e-10)


def test_biharmonic(monkeypatch):
    flops = lambda: jp.partials(mlp(jnp.tanh), "u[b]/x[b,i]^2 x[b,j]^2 -> b").plan(PARAMS, POINTS).cost.flops
    monkeypatch.setattr(candidates, "AT_ONCE", 9)  # towers alone
    collapsed = flops()
    monkeypatch.setattr(candidates, "settle", lambda graph, values: values)
    monkeypatch.setattr(planner, "tidy", lambda graph, values, effects: values)
    assert collapsed < 0.7 * flops()


OPERATORS = {
    "A : Hessian": lambda h, g: jnp.sum(array(D, D) * h, (-1, -2)),
    "A : Hessian, einsum": lambda h, g: jnp.einsum("ij,bij->b", array(D, D), h),
    "A(x) : Hessian": lambda h, g: jnp.sum(array(LANES, D, D) * h, (-1, -2)),
    "diagonal": lambda h, g: jnp.sum(jnp.diagonal(h, axis1=1, axis2=2) * array(D), -1),
    "trace by einsum": lambda h, g: jnp.einsum("bii->b", h),
    "c . gradient": lambda h, g: g @ array(D),
    "both": lambda h, g: jnp.trace(h, axis1=1, axis2=2) - g @ array(D) + jnp.sum(g * array(LANES, D), 1),
}


@pytest.mark.parametrize(("u", "name"), [*(("tanh", name) for name in OPERATORS), ("attention", "both")])
def test_operators_of_dense_derivatives(u, name):
    def fn(p, x):
        hessian = jax.vmap(jax.hessian(FUNCTIONS[u], 1), (None, 0))(p, x)
        return OPERATORS[name](hessian, jax.vmap(jax.grad(FUNCTIONS[u], 1), (None, 0))(p, x))

    wide = [RNG.normal(size=s) * 0.2 for s in ((D, 48), (48,), (48, 48), (48,), (48, 48), (48,))]
    before, after = collapsed(fn, wide if u == "tanh" else PARAMS, POINTS)
    if u == "tanh" and "gradient" not in name:
        assert cost_of(after).flops < 0.8 * cost_of(before).flops


def test_lanes_that_are_mixed():
    """A mean over the lanes inside: no derivative is that of one lane."""

    def u(p, x):
        h = jnp.tanh(x @ p[0] + p[1])
        h = h - jnp.mean(h, 0)
        return jnp.tanh(h @ p[2]) @ p[5]

    def fn(p, x):
        hessian = jax.hessian(lambda x: jnp.sum(u(p, x)))(x)
        return jnp.einsum("bibi->b", hessian)

    collapsed(fn, PARAMS, POINTS)


# ---- the whole


def test_values_in_use_are_not_summed_anew():
    """A sum of what is needed anyway is left to be a sum."""

    def fn(x):
        y = x @ W
        return y, jnp.sum(y, 1)

    before, after = collapsed(fn, X)
    assert after == before


def test_what_is_summed_anyway_is_summed_further_from_there():
    def fn(x):
        y = x @ W
        return jnp.sum(y, 1), jnp.sum(y * jnp.square(array(6)), (1, 2))

    _, after = collapsed(fn, X)
    assert shapes(after, "dot_general") == [(4,), (4, 6)]  # the second for the weights


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_weights_on_the_left_are_as_good_as_on_the_right(depth):
    weights = [array(9, D), *(array(9, 9, seed=i) for i in range(1, depth))]

    def network(left):
        def u(p, x):
            for w in p:
                x = jnp.tanh(w @ x if left else x @ w.T)
            return jnp.sum(x)

        return u

    at_a_point = lambda u: lambda p, x: naive(u)(p, x[:1])[0]
    for form in (naive, at_a_point):
        costs = [[cost_of(part).flops for part in collapsed(form(network(left)), weights, POINTS)] for left in (1, 0)]
        (_, one), (before, other) = costs
        assert one <= 1.01 * other < 0.7 * before


def test_a_planted_fault_is_caught(monkeypatch):
    """The comparison of values would see an axis that is taken to be summed and is not."""
    monkeypatch.setattr(module, "scaled", lambda graph, x, by: x)
    with pytest.raises(AssertionError):
        collapsed(lambda x: jnp.sum(x @ W + 3.0, axis=1), X)


def test_the_pass_is_linear_in_the_equations():
    def deep(length):
        def u(x):
            for _ in range(length):
                x = jnp.tanh(x @ A)
            return jnp.sum(x)

        direction = lambda v, x: jax.jvp(lambda x: jax.jvp(u, (x,), (v,))[1], (x,), (v,))[1]
        graph, _ = trace(lambda x: jnp.sum(jax.vmap(direction, (0, None))(jnp.eye(6), x)), np.ones(6), rules=RULES)
        calls = 0
        add = graph.add

        def counting(*arguments, **settings):
            nonlocal calls
            calls += 1
            return add(*arguments, **settings)

        graph.add = counting
        after = collapse(graph, graph.outputs)
        assert cost_of(after).flops < cost_of(graph.outputs).flops
        assert calls
        return calls

    short, long = deep(20), deep(80)
    assert long < 5 * short


def test_effects_stay():
    def fn(x):
        jax.debug.print("{}", x[0, 0, 0])
        return jnp.sum(x @ W, axis=1)

    graph, _ = trace(fn, X, rules=RULES)
    after = collapse(graph, graph.outputs, graph.effects)
    assert shapes(after, "dot_general") == [(4, 6)]
    assert [node.name for node in graph.effects] == ["debug_callback"] or len(graph.effects) == 1


def test_a_program_without_outputs():
    before, after = collapsed(lambda x: (), X)
    assert before == after == []
