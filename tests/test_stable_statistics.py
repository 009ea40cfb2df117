"""var, std and the roots of a quadratic: arguments, conventions, special points."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxpartials import stable
from jaxpartials.errors import StableError

RNG = np.random.default_rng(11)
DATA = RNG.normal(size=(3, 5, 4)).astype(np.float32)
WHERE = RNG.uniform(size=(3, 5, 1)) < 0.7
WHERE[:, :2] = True


@pytest.mark.parametrize("name", ["var", "std"])
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"axis": 1},
        {"axis": -1, "ddof": 1},
        {"axis": (0, 2), "keepdims": True},
        {"axis": (1, 2), "correction": 1.5},
        {"axis": 1, "where": WHERE, "ddof": 1},
        {"axis": 0, "dtype": jnp.float16},
    ],
    ids=str,
)
def test_arguments_are_numpys(name, arguments):
    ours, plain = (lambda a, f=f: f(a, **arguments) for f in (getattr(stable, name), getattr(jnp, name)))
    got, expected = ours(DATA), plain(DATA)
    assert (got.shape, got.dtype) == (expected.shape, expected.dtype)
    tolerance = 1e-3 if got.dtype == jnp.float16 else 1e-5
    np.testing.assert_allclose(got, expected, rtol=tolerance)
    along = jnp.asarray(RNG.normal(size=DATA.shape), jnp.float32)
    second = lambda f: lambda a: jax.jvp(jax.grad(lambda a: f(a).astype(jnp.float32).sum()), (a,), (along,))
    for a, b in zip(*(jax.jit(second(f))(DATA) for f in (ours, plain)), strict=True):
        np.testing.assert_allclose(a, b, rtol=100 * tolerance, atol=10 * tolerance)


def test_complex_numbers():
    z = jnp.asarray(DATA[0] + 1j * DATA[1])
    np.testing.assert_allclose(stable.var(z, 0), jnp.var(z, 0), rtol=1e-5)
    np.testing.assert_allclose(stable.std(z, 1), jnp.std(z, 1), rtol=1e-5)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e-30, 3e38])
def test_equal_numbers(value):
    a = jnp.full(7, value, jnp.float32)
    assert float(stable.var(a)) == float(stable.std(a)) == 0
    assert not jax.grad(stable.std)(a).any()
    assert not jax.hessian(stable.std)(a).any()
    np.testing.assert_allclose(jax.hessian(stable.var)(a), 2 / 7 * (np.eye(7) - 1 / 7), rtol=1e-6)


def test_without_a_variance():
    for a, ddof in (([1.0], 1), ([1.0, np.inf], 0), ([np.nan, 1.0], 0), ([], 0)):
        a = jnp.asarray(a, jnp.float32)
        assert np.isnan(stable.var(a, ddof=ddof))
        assert np.isnan(stable.std(a, ddof=ddof))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mean": 0.0}, "mean=…; it takes none"),
        ({"ddof": 1, "correction": 1}, "two names of one number"),
        ({"axis": 3}, r"axis 3 is not one of the axes of an array of shape \(3, 5, 4\)"),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(StableError, match=message):
        stable.var(DATA, **arguments)


@pytest.mark.parametrize(
    ("coefficients", "expected"),
    [
        ((1.0, -3.0, 2.0), (1, 2)),
        ((1e25, -3e25, 2e25), (1, 2)),
        ((-1.0, 3.0, -2.0), (2, 1)),
        ((1.0, 1e4, 1.0), (-1e4, -1e-4)),
        ((1.0, 2.0, 1.0), (-1, -1)),
        ((1.0, -3.0, 0.0), (0, 3)),
        ((5.0, 0.0, 0.0), (0, 0)),
        ((0.0, 2.0, 1.0), (-np.inf, -0.5)),
        ((0.0, -2.0, 1.0), (0.5, np.inf)),
        ((1.0, 0.0, 1.0), (np.nan, np.nan)),
        ((0.0, 0.0, 1.0), (np.nan, np.nan)),
        ((1.0, np.inf, 1.0), (np.nan, np.nan)),
    ],
)
def test_roots(coefficients, expected):
    np.testing.assert_allclose(stable.quadratic_roots(*coefficients), expected, rtol=3e-7)


def test_derivatives_of_a_linear_root():
    """At a = 0, b r + c = 0."""
    grad = jax.grad(lambda *abc: stable.quadratic_roots(*abc)[1], (0, 1, 2))(0.0, 2.0, 1.0)
    np.testing.assert_allclose(grad, (-1 / 8, 1 / 4, -1 / 2), rtol=1e-6)


@pytest.mark.parametrize("ways", [(0, 1, 2, 2), (2, 2, 2, 2), (0, 0, 0, 1)])
def test_high_derivatives_of_a_root(ways):
    """Against plain ones, where nothing cancels or overflows."""
    with jax.enable_x64(True):
        plain = lambda a, b, c: (-b + jnp.sqrt(b**2 - 4 * a * c)) / (2 * a)
        ours = lambda a, b, c: stable.quadratic_roots(a, b, c)[1]
        for k in ways:
            plain, ours = jax.grad(plain, k), jax.grad(ours, k)
        np.testing.assert_allclose(*(jax.jit(f)(1.3, -4.1, 0.7) for f in (ours, plain)), rtol=1e-10)
