"""`accumulate`, and `partials` over chunks of lanes: the values of the whole batch, or an error that says why not."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxpartials as jp
from jaxpartials.errors import BatchError

RNG = np.random.default_rng(0)
W = [RNG.normal(size=(3, 5)).astype("f"), RNG.normal(size=(5, 1)).astype("f")]
X = RNG.normal(size=(20, 3)).astype("f")
y = RNG.normal(size=20).astype("f")


def net(W, X):
    return (jnp.tanh(X @ W[0]) @ W[1])[:, 0]


def mse(W, X, y):
    return jnp.mean((net(W, X) - y) ** 2)


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


MEANS = [mse, total, decay, over_points, residual, recurrent, rematerialised, cross_entropy, clipped, branched]


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
