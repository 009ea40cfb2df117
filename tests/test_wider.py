"""`stabilize(fn, precision="float64")`: whatever JAX does with the function, it is in float64, and the types stay."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxpartials.errors import StableError
from jaxpartials.stability import check_stability, stabilize


def in_float64(fn):
    return stabilize(fn, precision="float64")


@pytest.fixture(autouse=True)
def float32():
    with jax.enable_x64(False):
        yield


A = np.array([[2.0, 1.0], [1.0, 3.0]], np.float32)
WHICH = np.array([0, 0, 1], np.int32)
X = np.array([0.5, 2.0, 1.0], np.float32)


def carried(x):
    return lax.scan(lambda c, a: (c * a + jnp.sin(c), c), x[0], x)[0]


SCALARS = {
    "gather": lambda x: jnp.sum(x[WHICH] ** 2),
    "sort": lambda x: jnp.sum(jnp.sort(x) ** 2 * jnp.arange(3)),
    "take": lambda x: jnp.sum(jnp.take_along_axis(x, WHICH, 0) ** 2),
    "slice": lambda x: jnp.sum(lax.dynamic_slice(x, (1,), (2,)) ** 2),
    "pad": lambda x: jnp.sum(jnp.pad(x, 1) ** 2),
    "cumprod": lambda x: jnp.sum(jnp.cumprod(x) ** 2),
    "fft": lambda x: jnp.sum(jnp.abs(jnp.fft.fft(x)) ** 2),
    "eigh": lambda x: jnp.sum(jnp.linalg.eigh(A * x[0])[0] ** 2),
    "median": lambda x: jnp.median(x) ** 2,
    "quantile": lambda x: jnp.quantile(x, 0.3) ** 2,
    "logaddexp": lambda x: jnp.sum(jnp.logaddexp(x, 1)),
    "scan": carried,
    "solve": lambda x: jnp.sum(jnp.linalg.solve(A * x[0], x[:2])),
    "inv": lambda x: jnp.sum(jnp.linalg.inv(A * x[0])),
    "expm": lambda x: jnp.sum(jax.scipy.linalg.expm(A * x[0])),
}


@pytest.mark.parametrize("name", SCALARS)
def test_derivatives_have_the_types_and_the_values_of_float64(name):
    fn = SCALARS[name]
    made = in_float64(fn)
    ways = (jax.grad, jax.jacfwd, jax.hessian) if name in ("logaddexp", "scan") else (jax.grad,)
    with jax.enable_x64(True):
        wide = jnp.asarray(X, jnp.float64)
        expected = [np.asarray(jax.jit(way(fn))(wide)) for way in ways]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for way, true in zip(ways, expected, strict=True):
            got = jax.jit(way(made))(X)
            assert got.dtype == jnp.float32
            np.testing.assert_allclose(got, true, rtol=2e-7, atol=2e-7 * np.abs(true).max())


def test_gradients_through_dots_are_in_float64():
    matrix = jnp.array([[1.0, 2.0], [3.0, 4.0]])

    def difference(t, x, y):
        return (x + t) @ matrix @ (x + t) - (y + t) @ matrix @ (y + t)

    x = jnp.array([1.1, 0.7])
    y = jnp.nextafter(x, 2.0)
    exact = np.dot(np.asarray(x, float) - np.asarray(y, float), np.asarray(matrix + matrix.T, float))
    gradient = jax.grad(in_float64(difference))
    for use in (gradient, jax.jit(gradient)):
        np.testing.assert_allclose(use(0 * x, x, y), exact, rtol=1e-6)
    rows = jax.vmap(gradient, in_axes=(0, None, 0))(jnp.zeros((2, 2)), x, jnp.stack([y, x]))
    np.testing.assert_allclose(rows, [exact, 0 * exact], rtol=1e-6)


@pytest.mark.parametrize("draw", [jax.random.normal, jax.random.bits, lambda k: jax.random.bernoulli(k) * 1.0])
def test_random_numbers_are_refused(draw):
    key = jax.random.key(0)
    for made in (in_float64(draw), jax.jit(in_float64(draw)), in_float64(lambda k: lax.map(draw, k[None]))):
        with pytest.raises(StableError, match=r"draws random numbers.*pass them as an argument"):
            made(key)


def test_keys_pass():
    key = jax.random.key(0)
    got = in_float64(lambda k, x: (jax.random.split(k), x * 2))(key, 1.5)
    assert (jax.random.key_data(got[0]) == jax.random.key_data(jax.random.split(key))).all()
    assert got[1] == 3


@pytest.mark.parametrize("x", [3.0, np.float32(3), np.arange(3), np.arange(3.0), True, jnp.float16(3)], ids=repr)
def test_results_have_the_types_of_the_function(x):
    fn = lambda x: x * 2
    made = in_float64(fn)
    for got in (made(x), jax.jit(made)(x)):
        expected = jax.jit(fn)(x) if not isinstance(x, bool) else jnp.asarray(fn(x))
        assert got.dtype == expected.dtype
        assert jax.typeof(jnp.asarray(got)).weak_type == jax.typeof(expected).weak_type
        np.testing.assert_array_equal(got, expected)


def test_a_python_float_is_differentiated():
    assert jax.grad(in_float64(lambda x: x * 2))(3.0) == 2
    assert jax.jit(jax.grad(jax.grad(in_float64(lambda x: x**3))))(3.0) == 18


def test_positions_are_integers():
    assert jax.jit(in_float64(jnp.argmax))(X) == 1


def test_what_is_differentiated_may_be_closed_over():
    gradient = jax.grad(lambda w: in_float64(lambda x: jnp.sum(jnp.sin(w * x) * A[0, 0]))(X))
    np.testing.assert_allclose(gradient(0.3), np.sum(2 * X * np.cos(0.3 * X)), rtol=1e-6)


def test_it_is_checked_as_any_function():
    made = in_float64(lambda x: (jnp.tan(x) - jnp.sin(x)) / x)
    assert not check_stability(made, (1e-3, 1.0), orders=(0, 1), points=30).losses
    report = check_stability(
        in_float64(lambda x: jnp.tan(jnp.cos(x)) - np.tan(1.0)), (1e-12, 1.0), orders=(0,), points=30
    )
    (culprit,) = report.culprits
    assert culprit.how == "cancellation"
