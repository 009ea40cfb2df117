"""`accumulate`, and `partials` over chunks of lanes: the values of the whole batch, or an error that says why not."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxpartials as jp
from jaxpartials import _jax
from jaxpartials.errors import BatchError

RNG = np.random.default_rng(0)
W = [RNG.normal(size=(3, 5)).astype("f"), RNG.normal(size=(5, 1)).astype("f")]
X = RNG.normal(size=(20, 3)).astype("f")
y = RNG.normal(size=20).astype("f")


def net(W, X):
    return (jnp.tanh(X @ W[0]) @ W[1])[:, 0]


def mse(W, X, y):
    return jnp.mean((net(W, X) - y) ** 2)


def several(W, X, y):
    """A mean over outputs too: its number of elements is a multiple of the number of lanes."""
    return jnp.mean((jnp.tanh(X @ W[0]) - y[:, None]) ** 2)


def total(W, X, y):
    return jnp.sum((net(W, X) - y) ** 2)


def decay(W, X, y):
    return mse(W, X, y) + 0.1 * sum(jnp.sum(w**2) for w in W)


def over_points(W, X, y):
    return jnp.mean(jax.vmap(lambda x, t: (net(W, x[None])[0] - t) ** 2)(X, y))


def residual(W, X, y):
    d = jp.partials(net, {"u": "u[b]", "lap": "u[b]/X[b,i]^2 -> b"})(W, X)
    return jnp.mean((d["lap"] + d["u"] - y) ** 2)


def recurrent(W, X, y):
    step = lambda h, x: (jnp.tanh(h @ (W[0].T @ W[0]) + x[:, None]), None)
    h, _ = jax.lax.scan(step, jnp.zeros((X.shape[0], 5)), X.T)
    return jnp.mean((h.sum(1) - y) ** 2)


def rematerialised(W, X, y):
    return jnp.mean((jax.checkpoint(net)(W, X) - y) ** 2)


def cross_entropy(W, X, y):
    labels = jax.nn.one_hot(jnp.argmax(X, 1), 5)
    return optax.softmax_cross_entropy(X @ W[0], labels).mean()


def clipped(W, X, y):
    return jnp.mean(jax.nn.relu(X @ W[0]) @ W[1]) + jnp.mean(jnp.abs(y))


def branched(W, X, y):
    return jax.lax.cond(W[0][0, 0] > 0, mse, lambda W, X, y: jnp.mean(net(W, X)), W, X, y)


def solved(W, X, y):
    """Halved until it is small, as often for every batch."""
    halve = lambda carry: (carry[0] + 1, carry[1] / 2)
    return jnp.mean(jax.lax.while_loop(lambda carry: carry[0] < 5, halve, (0, net(W, X)))[1] * y)


MEANS = [mse, several, total, decay, over_points, residual, recurrent, rematerialised, cross_entropy, clipped, branched]


def close(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, expected)


@pytest.mark.parametrize("wrt", [0, (0, 1)])
@pytest.mark.parametrize("fn", MEANS, ids=lambda fn: fn.__name__)
def test_value_and_gradient_are_those_of_the_whole_batch(fn, wrt):
    whole = jax.value_and_grad(fn, wrt)
    close(jp.accumulate(whole, ("X", "y"), 8)(W, X, y), whole(W, X, y))


@pytest.mark.parametrize("size", [1, 4, 20, 30])
def test_chunks_of_any_size(size):
    close(jp.accumulate(mse, (1, "y"), size)(W, X, y), mse(W, X, y))
    close(jp.accumulate(solved, ("X", "y"), size)(W, X, y), solved(W, X, y))


def test_auxiliary_results():
    def loss(W, X, y, scale=2.0, *, name="mse"):
        u = net(W, X)
        return scale * jnp.mean((u - y) ** 2), {"u": u, "sum": jnp.sum(u), "name": name, "n": X.shape[1]}

    whole = jax.value_and_grad(loss, has_aux=True)
    chunked = jp.accumulate(whole, ("X", "y"), 6)
    (value, aux), slope = chunked(W, X, y, name="other")
    (right, expected), right_slope = whole(W, X, y, name="other")
    assert aux.pop("name") == expected.pop("name") == "other"
    close((value, aux, slope), (right, expected, right_slope))


def test_memory_is_that_of_a_chunk(optimised):
    W = [RNG.normal(size=(3, 64)).astype("f"), RNG.normal(size=(64, 1)).astype("f")]
    X, y = jax.ShapeDtypeStruct((4096, 3), "float32"), jax.ShapeDtypeStruct((4096,), "float32")
    whole = jax.value_and_grad(mse)

    def temporaries(fn):
        return jax.jit(fn).lower(W, X, y).compile().memory_analysis().temp_size_in_bytes

    assert temporaries(jp.accumulate(whole, ("X", "y"), 256)) < temporaries(whole) / 4


def normalised(W, X, y):
    z = X @ W[0]
    return jnp.mean(((z - z.mean(0)) / z.std(0)) ** 4)


@pytest.mark.parametrize(
    ("fn", "why"),
    [
        (lambda W, X, y: jnp.sqrt(mse(W, X, y)), "sqrt is not linear in a sum over the lanes"),
        (normalised, r"sub takes a sum over the lanes back to the lanes, at test_accumulate.py:\d+ \(normalised\)"),
        (lambda W, X, y: mse(W, X, y) * X.shape[0] ** 2, "number 400.0 depends on the number of lanes"),
        (lambda W, X, y: jnp.mean(net(W, X) * jnp.arange(X.shape[0])), "iota has shape"),
        (lambda W, X, y: mse(W, X, y) * total(W, X, y), "multiplies two sums over the lanes"),
        (lambda W, X, y: jnp.max(net(W, X)), "reduce_max"),
        (lambda W, X, y: total(W, X, y) + 1.0, "adds what depends on the number of lanes in different ways"),
        (lambda W, X, y: jnp.mean(jnp.cumsum(net(W, X))), "cumsum"),
        (lambda W, X, y: net(W, X)[X.shape[0] // 2], "lane"),
        (lambda W, X, y: jnp.mean(net(W, X)[::-1] * y), "rev reverses the lane axis"),
        (lambda W, X, y: jnp.sum(net(W, X)[:, None] * y), "lane"),
    ],
)
def test_what_is_not_made_of_its_chunks_is_an_error(fn, why):
    with pytest.raises(BatchError, match=why):
        jp.accumulate(fn, ("X", "y"), 8)(W, X, y)


# Each does otherwise with 8 lanes, or with the 4 that are left, than with all 20.
SIZED = {
    "if": (
        lambda W, X, y: jnp.mean(jnp.tanh(X @ W[0]) if X.shape[0] > 10 else jnp.sin(X @ W[0])),
        r"the program for 8 lanes is another one .*: sin at test_accumulate.py:\d+ .*, in place of tanh at test_acc",
    ),
    "remainder": (
        lambda W, X, y: mse(W, X, y) * (X.shape[0] % 7),
        r"the number 6.0 depends .*, at test_accumulate.py:\d+",
    ),
    "the last chunk": (lambda W, X, y: mse(W, X, y if X.shape[0] > 4 else -y), "program for 4 lanes is another one"),
    "number": (lambda W, X, y: mse(W, X, y) * float(np.log(X.shape[0])), r"number 2.99\d* depends .*test_accumulate"),
    "count": (lambda W, X, y: jnp.int32({20: 50, 8: 20, 4: 10}[X.shape[0]]), "the number 50 depends"),
    "constant": (lambda W, X, y: mse(W, X, y) * jnp.sum(np.arange(X.shape[0] % 7)), r"shape \[6\] depends"),
    "array": (
        lambda W, X, y: jnp.mean(net(W, X) * np.linspace(0, 1, X.shape[0], dtype="f")),
        r"constant of shape \[20",
    ),
    "setting": (lambda W, X, y: mse(W, X, y) * W[0][X.shape[0] % 3, 0], "limit_indices of slice depends"),
    "turns": (
        lambda W, X, y: jax.lax.fori_loop(0, X.shape[0] // 5, lambda i, u: u / 2, mse(W, X, y)),
        "length of scan",
    ),
    "branch": (
        lambda W, X, y: jax.lax.cond(
            W[0][0, 0] > 0, lambda v: v if X.shape[0] > 10 else -v, jnp.negative, mse(W, X, y)
        ),
        "neg at",
    ),
    "callback": (
        lambda W, X, y: jax.pure_callback(lambda n=X.shape[0]: np.float32(n > 10), jax.ShapeDtypeStruct((), "f")),
        "callback of pure_callback depends",
    ),
    "jit": (lambda W, X, y: jax.jit(lambda X: jnp.mean((jnp.sin, jnp.cos)[X.shape[0] > 10](X)))(X), "sin at"),
    "simplify": (lambda W, X, y: jp.simplify(lambda X: jnp.mean(X * (1 + (X.shape[0] > 10))))(X), "depends|another"),
    "partials": (
        lambda W, X, y: jnp.mean(jp.partials(sized_net, "u[b]/X[b,i]^2 -> b")(W, X)),
        "another one than that for 20",
    ),
    "specs": (lambda W, X, y: jnp.mean(jp.partials(net, f"u[b]/X[b,{X.shape[0] % 3}] -> b")(W, X)), "iota|number"),
}


def sized_net(W, X):
    return (jnp.tanh(X @ W[0]) if X.shape[0] > 10 else jnp.sin(X @ W[0])).sum(1)


@pytest.mark.parametrize("name", SIZED)
def test_a_function_that_does_otherwise_with_fewer_lanes_is_an_error(name):
    fn, why = SIZED[name]
    assert np.isfinite(fn(W, X, y))
    with pytest.raises(BatchError, match=why):
        jp.accumulate(fn, ("X", "y"), 8)(W, X, y)


@pytest.mark.parametrize("wrap", [jax.jit, jp.simplify, lambda fn: fn], ids=["jit", "simplify", "plain"])
def test_partials_inside_may_be_planned_otherwise_for_a_chunk(wrap):
    wave = lambda w, X: jnp.tanh(X @ jnp.fft.rfft(w).real[:3])
    scaled = jp.partials(wave, {"u": "u[b]", "slope": "u[b]/w[i] -> b i"})

    def loss(w, X):
        d = scaled(w, X)
        return jnp.mean(d["u"] ** 2) + jnp.mean(d["slope"] ** 2)

    w = np.linspace(0.5, 1.5, 6, dtype="f")
    modes = [scaled.plan(w, few).partials[0].mode for few in (X, X[:4])]
    assert modes == ["forward w", "reverse w"]  # or the test tests nothing
    whole = jax.value_and_grad(wrap(loss))
    expected = whole(w, X)  # JAX remembers this trace, and must not take it for one to be read
    close(jp.accumulate(whole, "X", 4)(w, X), expected)


def test_what_was_traced_before_is_traced_anew():
    seen = []

    def noted(x):
        seen.append(_jax.is_alike())
        return jnp.sin(x)

    def fn(x):
        _, stacked = jax.lax.scan(lambda c, x: (c, noted(x)), 0.0, x)
        branched = jax.lax.cond(x[0] > 0, noted, lambda x: x, x)
        return jax.jit(noted)(x) + jax.checkpoint(noted)(x) + stacked + branched

    jax.make_jaxpr(fn)(y)
    del seen[:]
    with _jax.alike():
        jax.make_jaxpr(fn)(y)
    assert seen == [True] * 4
    del seen[:]
    jax.make_jaxpr(fn)(y)
    assert True not in seen


def test_the_number_of_lanes_as_a_result():
    def counts(X):
        n = X.shape[0]
        return n, jnp.int32(n) ** 2, jnp.int32(3 * n), jnp.sum((X > 0).astype(int)) * n, jnp.float32(1 / n)

    close(jp.accumulate(counts, "X", 8)(X), counts(X))


def test_results_that_repeat_the_lanes_are_an_error():
    with pytest.raises(BatchError, match="every lane several times"):
        jp.accumulate(lambda W, X: jnp.tile(net(W, X), 2), "X", 8)(W, X)
    blocks = lambda W, X: jnp.tanh(X @ W[0]).reshape(-1)
    close(jp.accumulate(blocks, "X", 8)(W, X), blocks(W, X))


def test_no_single_lane_is_left_over():
    close(jp.accumulate(residual, ("X", "y"), 19)(W, X, y), residual(W, X, y))
    assert jp.partials(net, "u[b]/X[b,i]^2 -> b", chunk_size=19).plan(W, X).chunks == (20, 18)


def test_derivatives_of_what_is_accumulated():
    chunked = jp.accumulate(mse, ("X", "y"), 8)
    close(jax.grad(chunked, (0, 1))(W, X, y), jax.grad(mse, (0, 1))(W, X, y))

    @jax.custom_vjp
    def normalised_gradient(u):
        return u

    normalised_gradient.defvjp(lambda u: (u, None), lambda _, g: (g / jnp.linalg.norm(g),))
    ruled = lambda W, X, y: jnp.mean((normalised_gradient(net(W, X)) - y) ** 2)
    close(jp.accumulate(ruled, ("X", "y"), 8)(W, X, y), mse(W, X, y))
    with pytest.raises(BatchError, match=r"derivative rule of its own, at .*\n  Take it inside"):
        jax.grad(jp.accumulate(ruled, ("X", "y"), 8))(W, X, y)
    with pytest.raises(BatchError, match="sqrt is not linear"):
        jp.accumulate(jax.grad(ruled), ("X", "y"), 8)(W, X, y)


def test_a_function_that_takes_the_whole_batch_only():
    fixed = lambda W, X: net(W, X) * y
    with pytest.raises(BatchError, match="the function does not take arrays of 8 lanes beside the others"):
        jp.accumulate(fixed, "X", 8)(W, X)
    g = jp.partials(fixed, "u[b]/X[b,i] -> b i", chunk_size=8)
    (row,) = g.plan(W, X).partials
    assert any("all at once: the function does not take arrays of 8 lanes" in note for note in row.notes)
    close(g(W, X), jnp.einsum("bbi->bi", jax.jacrev(fixed, 1)(W, X)))


def test_wrong_arguments():
    with pytest.raises(BatchError, match=r"mse has no argument 'x'\.\n  It is called mse\(W, X, y\)"):
        jp.accumulate(mse, "x", 8)
    with pytest.raises(BatchError, match="chunk_size=0"):
        jp.accumulate(mse, "X", 0)
    with pytest.raises(BatchError, match=r"X: 20, y: 10"):
        jp.accumulate(mse, ("X", "y"), 8)(W, X, y[:10])
    with pytest.raises(BatchError, match="no array"):
        jp.accumulate(lambda W, n: W[0].sum() * n, "n", 8)(W, 3)


# ---- partials over lanes

SPECS = [
    ["u[b]", "u[b]/X[b,i]^2 -> b"],
    ["u[b]/W.0[i,j] -> i", "u[b]/X[b,i] ->"],
    ["u/W", "u[b]/X[b,0] -> b"],
    ["u[b]/X[b,i] -> i b"],
]


@pytest.mark.parametrize("size", [1, 8])
@pytest.mark.parametrize("specs", SPECS)
def test_partials_over_chunks_of_lanes(specs, size):
    g = jp.partials(net, specs, chunk_size=size)
    close(g(W, X), jp.partials(net, specs)(W, X))
    assert g.plan(W, X).chunks == (20, size)
    assert f"in chunks of {size} of 20 lanes" in str(g.plan(W, X))


def test_lanes_that_cannot_be_taken_apart_are_computed_at_once():
    mixed = lambda W, X: net(W, X) / jnp.linalg.norm(net(W, X))
    counted = lambda W, X: net(W, X) / X.shape[0]

    @jax.custom_jvp
    def mean_slope(x):
        return jnp.sin(x)

    @mean_slope.defjvp
    def _(primals, tangents):
        return jnp.sin(primals[0]), jnp.mean(tangents[0]) + tangents[0]

    ruled = lambda W, X: mean_slope(net(W, X))
    for fn in (mixed, counted, ruled):
        g = jp.partials(fn, "u[b]/X[b,i] -> b i", chunk_size=8)
        assert g.plan(W, X).chunks is None
        close(g(W, X), jnp.einsum("bbi->bi", jax.jacrev(fn, 1)(W, X)))
    assert any("all at once" in note for note in jp.partials(counted, "u[b]/X[b,i] -> b i", chunk_size=8)
               .plan(W, X).partials[0].notes)  # fmt: skip


def test_partials_in_chunks_differentiate_and_batch():
    g = jp.partials(net, "u[b]/X[b,i]^2 -> b", chunk_size=6)
    whole = jp.partials(net, "u[b]/X[b,i]^2 -> b")
    close(jax.grad(lambda W: jnp.sum(g(W, X) ** 2))(W), jax.grad(lambda W: jnp.sum(whole(W, X) ** 2))(W))
    close(jax.vmap(g, (None, 0))(W, jnp.stack([X, 2 * X])), jnp.stack([whole(W, X), whole(W, 2 * X)]))
