"""Distances, angles, norms: special points, conventions, other dtypes, what the grids do not reach."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from jaxpartials import stable
from jaxpartials.errors import StableError

pytestmark = pytest.mark.usefixtures("optimised")

inf, nan = np.inf, np.nan


def jet(fn, x, highest):
    """fn and its derivatives at a number."""
    values = []
    for _ in range(highest + 1):
        values.append(float(fn(jnp.float32(x))))
        fn = jax.grad(fn)
    return values


def gradient(fn, *xs):
    return [float(g) for g in jax.grad(fn, tuple(range(len(xs))))(*map(jnp.float32, xs))]


def same(got, expected):
    np.testing.assert_array_equal(np.asarray(got, float), np.asarray(expected, float))


@pytest.mark.parametrize("name", ["hypot", "arctan2", "smooth_abs"])
def test_all_derivatives_at_the_origin_are_zero_by_convention(name):
    fn = lambda v: getattr(stable, name)(*v)
    for n in range(4):
        same(jax.jit(fn)(jnp.zeros(2)), np.zeros((2,) * n))
        fn = jax.jacfwd(fn) if n else jax.jacrev(fn)


def test_distances_at_infinity():
    for x, y in ((inf, 1), (-inf, nan), (2, -inf), (inf, inf)):
        same(stable.hypot(x, y), inf)
    same(gradient(stable.hypot, -inf, 3), (-1, 0))
    same(gradient(stable.smooth_abs, inf, 1), (1, 0))
    same(gradient(stable.arctan2, inf, 3), (0, 0))
    same(stable.hypot(nan, 1), nan)
    same(jax.grad(jax.grad(stable.hypot))(inf, 3.0), 0)


@pytest.mark.parametrize(
    ("name", "x", "derivatives"),
    [
        ("asinh", 0.0, (0, 1, 0, -1, 0, 9)),
        ("asinh", inf, (inf, 0, 0, 0)),
        ("asinh", -inf, (-inf, 0, 0, 0)),
        ("asinh", nan, (nan, nan, nan)),
        ("isru", 0.0, (0, 1, 0, -3, 0, 45)),
        ("isru", -inf, (-1, 0, 0, 0)),
        ("isru", 3e38, (1, 0, 0)),
        ("isru", nan, (nan, nan, nan)),
    ],
)
def test_sigmoids_at_special_points(name, x, derivatives):
    same(jet(getattr(stable, name), x, len(derivatives) - 1), derivatives)


def test_negative_zero_stays():
    assert np.signbit(stable.asinh(-0.0))
    assert np.signbit(stable.isru(-0.0))


def test_a_negative_epsilon_is_nan():
    assert np.isnan(stable.smooth_abs(2.0, -1.0))


def test_high_orders_of_the_distance_agree_with_mpmath():
    """Order 5 of hypot and of the angle, from polynomials of that degree."""
    x, y = np.float32(0.7), np.float32(-1.9)
    for fn, plain in ((stable.hypot, mpmath.hypot), (stable.arctan2, mpmath.atan2)):
        for orders in ((5, 0), (3, 2), (1, 4)):
            derived = fn
            for k, n in enumerate(orders):
                for _ in range(n):
                    derived = jax.grad(derived, k)
            with mpmath.workdps(60):
                true = float(mpmath.diff(plain, (float(x), float(y)), orders))
            np.testing.assert_allclose(float(jax.jit(derived)(x, y)), true, rtol=1e-5)


def test_doubles_of_the_whole_range():
    """hypot_xx, arctan2_yx and isru″ in float64 where squares leave the range."""
    with jax.enable_x64(True), mpmath.workdps(1000):
        for x, y in ((3e-160, 4e-200), (2e250, -1e200), (1e-300, 1e-300)):
            got = jax.jit(jax.grad(jax.grad(stable.hypot)))(x, y)
            true = mpmath.mpf(y) ** 2 / mpmath.hypot(x, y) ** 3
            if true > 1e-305:
                np.testing.assert_allclose(float(got), float(true), rtol=4e-15)
            got = jax.jit(jax.grad(stable.arctan2))(x, y)
            np.testing.assert_allclose(float(got), float(mpmath.mpf(y) / mpmath.hypot(x, y) ** 2), rtol=4e-15)
        got = jax.jit(jax.grad(jax.grad(stable.isru)))(1e70)
        np.testing.assert_allclose(float(got), -3e-280, rtol=4e-15)


ORDERS_OF_NORMS = [None, 1, 2, 3, 1.5, inf, -inf, 0]


@pytest.mark.parametrize("ord", ORDERS_OF_NORMS)
@pytest.mark.parametrize("axis", [0, -1])
@pytest.mark.parametrize("keepdims", [False, True])
def test_norms_have_the_values_and_shapes_of_numpy(ord, axis, keepdims):
    x = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
    expected = np.linalg.norm(x, ord, axis, keepdims)
    np.testing.assert_allclose(stable.norm(x, ord, axis, keepdims), expected, rtol=1e-6)


def test_norms_over_several_axes():
    x = np.random.default_rng(1).normal(size=(3, 4, 5)).astype(np.float32)
    np.testing.assert_allclose(stable.norm(x), np.linalg.norm(x), rtol=1e-6)
    np.testing.assert_allclose(stable.norm(x, axis=(0, 2)), np.linalg.norm(x, axis=(0, 2)), rtol=1e-6)
    np.testing.assert_allclose(stable.norm(x, "fro", (1, 0)), np.linalg.norm(x, "fro", (1, 0)), rtol=1e-6)
    z = x[0] + 1j * x[1]
    np.testing.assert_allclose(stable.norm(z, axis=1), np.linalg.norm(z, axis=1), rtol=1e-6)
    np.testing.assert_allclose(
        jax.grad(lambda z: stable.norm(z))(z), jax.grad(lambda z: jnp.linalg.norm(z))(z), rtol=1e-5, atol=1e-7
    )


@pytest.mark.parametrize("ord", ORDERS_OF_NORMS)
def test_norms_of_zero_have_zero_derivatives_by_convention(ord):
    fn = lambda x: stable.norm(x, ord)
    zero = jnp.zeros(3)
    same(fn(zero), 0)
    same(jax.jacfwd(fn)(zero), np.zeros(3))
    same(jax.jit(jax.grad(fn))(zero) if ord != -inf else np.zeros(3), np.zeros(3))
    same(jax.hessian(fn)(zero), np.zeros((3, 3)))


@pytest.mark.parametrize("ord", [1, 2, 3, 1.5])
@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_derivatives_of_norms_agree_with_doubles_of_moderate_size(ord, size):
    """∂ of order n of ‖s x‖ is s^(1−n) times that at x."""
    x = np.random.default_rng(2).normal(size=5).astype(np.float32)
    with jax.enable_x64(True):
        plain = lambda x: jnp.sum(jnp.abs(x) ** ord) ** (1 / ord)
        derivatives = map(jax.jit, (plain, jax.grad(plain), jax.hessian(plain)))
        value, first, second = (np.asarray(d(x.astype(float))) for d in derivatives)
    fn, at = lambda x: stable.norm(x, ord), jnp.asarray(x * np.float64(size), jnp.float32)
    np.testing.assert_allclose(fn(at), value * size, rtol=1e-6)
    np.testing.assert_allclose(jax.jit(jax.grad(fn))(at), first, rtol=1e-6)
    np.testing.assert_allclose(jax.jit(jax.hessian(fn))(at) * np.float64(size), second, atol=2e-6)


def test_directions_and_angles_of_the_smallest_and_largest_vectors():
    x, y = np.asarray([3, 4, 0], np.float32), np.asarray([0, -5, 12], np.float32)
    for s, t in ((1e-30, 1e30), (1e35, 1e-35), (1e35, 1e35), (1e-35, 1e-35)):
        a, b = x * np.float32(s), y * np.float32(t)
        np.testing.assert_allclose(stable.normalize(a), [0.6, 0.8, 0], rtol=1e-6)
        np.testing.assert_allclose(stable.cosine_similarity(a, b), -20 / 65, rtol=1e-6)
        by_a = jax.jit(jax.grad(stable.cosine_similarity))(a, b)
        u, w = x / 5, y / 13
        np.testing.assert_allclose(by_a * np.float64(s), (w + 20 / 65 * u) / 5, rtol=2e-6, atol=1e-7)


def test_directions_of_zero_are_zero_by_convention():
    zero, other = jnp.zeros((2, 3)), jnp.ones((2, 3))
    same(stable.normalize(zero), zero)
    same(jax.jacobian(stable.normalize)(zero), np.zeros((2, 3, 2, 3)))
    same(stable.cosine_similarity(zero, other), np.zeros(2))
    same(jax.grad(lambda x: stable.cosine_similarity(x, other).sum())(zero), zero)


def test_halves_are_computed_in_single_precision():
    x = jnp.full(5, 300.0, jnp.float16)
    assert stable.norm(x).dtype == jnp.float16
    np.testing.assert_allclose(float(stable.norm(x)), 670.8, rtol=1e-3)
    np.testing.assert_allclose(np.asarray(jax.grad(lambda x: stable.norm(x))(x), float), np.full(5, 0.4472), rtol=1e-3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: stable.hypot(1j, 2.0), "hypot takes real numbers"),
        (lambda: stable.norm(jnp.ones((2, 3)), 1), "takes vectors, and got"),
        (lambda: stable.norm(jnp.ones(3), 0.5), "a p of at least 1"),
        (lambda: stable.norm(jnp.ones(3), "nuc"), "takes ord None"),
        (lambda: stable.norm(jnp.ones(3), axis=1), "axis 1 is none of"),
        (lambda: stable.normalize(jnp.ones(3), inf), "finite ord of at least 1"),
        (lambda: stable.normalize(1j * jnp.ones(3)), "takes real vectors"),
        (lambda: stable.cosine_similarity(1j * jnp.ones(3), jnp.ones(3)), "takes real vectors"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(StableError, match=message):
        call()
