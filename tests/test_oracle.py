"""The oracle against derivatives written by hand."""

import jax
import numpy as np
import pytest

from tests.oracle import dense, select


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


RNG = np.random.default_rng(0)
A, B, C = RNG.normal(size=(3, 4)), RNG.normal(size=(4, 4)), RNG.normal(size=(5, 3))
x, X, W = RNG.normal(size=4), RNG.normal(size=(5, 4)), RNG.normal(size=(3, 4))


def linear(x):
    return A @ x


def quadratic(x):
    return x @ B @ x


def cubes(x):
    return (x**3).sum()


def layer(W, X):
    """y_bk = sin(sum_i W_ki X_bi)"""
    return jax.numpy.sin(X @ W.T)


def heat(t, x):
    return t * x**2


def trace_of_product(X, Y):
    return (X @ Y).trace()


S, D = np.sin(X @ W.T), np.cos(X @ W.T)
CASES = [
    (linear, "v/x", (x,), A),
    (linear, "v[i]/x[j]", (x,), A),
    (linear, "v[i]/x[j] -> j i", (x,), A.T),
    (linear, "v[i]/x[2]", (x,), A[:, 2]),
    (linear, "v[1]/x[2]", (x,), A[1, 2]),
    (linear, "v[i]/x[j] -> j", (x,), A.sum(0)),
    (linear, "v[i]/x[j] ->", (x,), A.sum()),
    (linear, "v[i]", (x,), A @ x),
    (linear, "v[i] ->", (x,), (A @ x).sum()),
    (lambda x: B @ x, "v[i]/x[i] ->", (x,), np.trace(B)),  # divergence
    (lambda x: B @ x, "v[i]/x[i] -> i", (x,), np.diag(B)),
    (quadratic, "u/x", (x,), (B + B.T) @ x),
    (quadratic, "u/x^2", (x,), B + B.T),
    (quadratic, "u/x[i]^2", (x,), 2 * np.trace(B)),  # Laplacian
    (quadratic, "u/x[i]^2 -> i", (x,), 2 * np.diag(B)),
    (quadratic, "u/x[i] x[j]", (x,), B + B.T),
    (quadratic, "u/x[0] x[3]", (x,), B[0, 3] + B[3, 0]),
    (lambda x: (x @ x) ** 2, "u/x[i]^2 x[j]^2", (x,), 8 * 4 * (4 + 2)),  # biharmonic of r^4 in n = 4
    (cubes, "u/x[i]^2 -> i", (x,), 6 * x),
    (cubes, "u/x[i]^3 -> i", (x,), np.full(4, 6.0)),
    (layer, "y[b,k]/X[b,i] -> b k i", (W, X), D[:, :, None] * W),  # batch Jacobian
    (layer, "y[b,k]/X[b,2] -> b k", (W, X), D * W[:, 2]),
    (layer, "y[b,k]/X[b,1]^2 -> b k", (W, X), -S * W[:, 1] ** 2),
    (layer, "y[b,k]/X[b,i]^2 -> b k", (W, X), -S * (W**2).sum(1)),
    (layer, "y[b,k]/X[c,i] -> i", (W, X), np.einsum("bk,ki->i", D, W)),
    (layer, "y[b,k]/W[k,i] -> b k i", (W, X), D[:, :, None] * X[:, None]),
    (
        heat,
        {"t": "u/t", "xx": "u/x^2", "txx": ["u/t x^2"], "u": "u"},
        (2.0, 3.0),
        {"t": 9, "xx": 4, "txx": [2], "u": 18},
    ),
    (
        trace_of_product,
        "f/X[i,j] Y[k,l] -> i j k l",
        (A, A.T),
        np.einsum("il,jk->ijkl", np.eye(3), np.eye(4)),
    ),
    (trace_of_product, "f/X[i,j] Y[j,i] -> ", (A, A.T), 12.0),
    (lambda Z: Z @ Z, "z[i,i]/Z[j,k]", (B,), 2 * B.T),  # of the trace of a square
    (lambda Z: Z @ Z, "z[i,j]/Z[k,k]", (B,), 2 * B),
]


@pytest.mark.parametrize("mode", ["fwd", "rev"])
@pytest.mark.parametrize(("fn", "wanted", "args", "expected"), CASES)
def test_closed_forms(fn, wanted, args, expected, mode):
    found = dense(fn, wanted, mode=mode)(*args)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12), found, expected)


@pytest.mark.parametrize("mode", ["fwd rev", "rev fwd"])
def test_a_mode_for_each_order(mode):
    np.testing.assert_allclose(dense(quadratic, "u/x^2", mode=mode)(x), B + B.T, rtol=1e-12)


def test_pytrees_static_arguments_and_names_of_outputs():
    def fn(z, *rest, power, a=2.0, **params):
        return z**power * a, {"s": params["w"] * rest[0]}

    found = dense(fn, {"z": "p/z", "rest": "q/rest", "w": "q.s/w", "a": "0/a"}, outputs=("p", "q"))(
        3.0, C[0], power=2, w=5.0, b="static"
    )
    np.testing.assert_allclose(found["z"], 12.0)
    np.testing.assert_allclose(found["rest"]["s"][0], 5.0 * np.eye(3))
    np.testing.assert_allclose(found["w"], C[0])
    np.testing.assert_allclose(found["a"], 9.0)


def test_complex_inputs():
    z = RNG.normal(size=3) + 1j * RNG.normal(size=3)
    for mode in ("fwd", "rev"):
        np.testing.assert_allclose(dense(lambda z: z**3, "w[i]/z[i] -> i", mode=mode)(z), 3 * z**2, rtol=1e-12)


def test_selecting_from_a_tensor():
    tensor = RNG.normal(size=(2, 3, 3, 4))
    expected = [[sum(tensor[1, i, i, k] for i in range(3)) for k in range(4)]]
    np.testing.assert_allclose(select(tensor, [1, "i", "i", "k"], ("k",)), expected[0])
    np.testing.assert_allclose(select(tensor, ["a", 2, 0, 3], ("a",)), tensor[:, 2, 0, 3])
