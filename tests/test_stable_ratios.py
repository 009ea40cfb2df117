"""Ratios and powers: special points, cotangents, other dtypes."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from jaxpartials import stable
from jaxpartials.errors import StableError

pytestmark = pytest.mark.usefixtures("optimised")

inf, nan = np.inf, np.nan


def gradient(fn, *xs):
    return [float(g) for g in jax.grad(fn, tuple(range(len(xs))))(*map(jnp.float32, xs))]


def same(got, expected):
    np.testing.assert_array_equal(np.asarray(got, float), np.asarray(expected, float))


def in_range(*values):
    return np.all([(abs(v) > 1.2e-38) & (abs(v) < 3.4e38) for v in values], axis=0)


def log_uniform(rng, count):
    return np.exp(rng.uniform(np.log(1.3e-38), np.log(3.3e38), count)).astype(np.float32)


@pytest.mark.parametrize(
    ("x", "y", "value", "by_x", "by_y"),
    [
        (1, 0.0, inf, inf, -inf),
        (1, -0.0, -inf, -inf, -inf),
        (0, 0, nan, inf, nan),
        (0, 2, 0, 0.5, 0),
        (1, inf, 0, 0, 0),
        (inf, 1, inf, 1, -inf),
        (inf, inf, nan, 0, nan),
        (nan, 1, nan, 1, nan),
    ],
)
def test_ratios_at_special_points(x, y, value, by_x, by_y):
    same(stable.divide(x, y), value)
    same(gradient(stable.divide, x, y), (by_x, by_y))


def test_a_ratio_of_the_smallest_and_largest_numbers_has_all_its_derivatives():
    """The derivatives of −a/b with respect to b, at orders 1 to 3, reverse over reverse, wherever they are normal."""
    rng = np.random.default_rng(0)
    a, b = log_uniform(rng, 3000), log_uniform(rng, 3000)
    wide_a, wide_b = a.astype(np.longdouble), b.astype(np.longdouble)
    fn, true = lambda a, b: -stable.divide(a, b), -wide_a / wide_b
    for n in range(1, 4):
        fn, true = jax.grad(fn, 1), -n * true / wide_b
        normal = in_range(true)
        assert normal.sum() > 500
        got = np.asarray(jax.jit(jax.vmap(fn))(a, b), np.longdouble)
        np.testing.assert_allclose(got[normal], true[normal], rtol=1e-6)


def test_cotangents_do_not_leave_the_range_on_the_way():
    rng = np.random.default_rng(1)
    a, b, g = (log_uniform(rng, 6000) for _ in range(3))
    wide_a, wide_b, wide_g = (v.astype(np.longdouble) for v in (a, b, g))
    by_a, by_b = jax.jit(jax.vmap(lambda a, b, g: jax.vjp(stable.divide, a, b)[1](g)))(a, b, g)
    for got, true in ((by_a, wide_g / wide_b), (by_b, -wide_g * wide_a / wide_b**2)):
        normal = in_range(true, wide_a / wide_b)
        assert normal.sum() > 1000
        np.testing.assert_allclose(np.asarray(got, np.longdouble)[normal], true[normal], rtol=1e-6)


def test_the_plain_ratio_fails_where_ours_does_not():
    """Should JAX's division have become accurate, `divide` can be retired."""
    assert not np.isfinite(jax.grad(jnp.divide, 1)(1e-30, 1e-25))
    np.testing.assert_allclose(jax.grad(stable.divide, 1)(1e-30, 1e-25), -1e20, rtol=1e-6)


@pytest.mark.parametrize(
    ("x", "y", "value", "by_x", "by_y"),
    [
        (0, 0, 1, 0, 0),
        (0, 2, 0, 0, 0),
        (0, 1, 0, 1, 0),
        (0, 0.5, 0, inf, 0),
        (0, -1, inf, -inf, nan),
        (-0.0, -1, -inf, -inf, nan),
        (-2, 2, 4, -4, nan),
        (-2, 0.5, nan, nan, nan),
        (inf, 2, inf, inf, inf),
        (inf, 0, 1, 0, inf),
        (inf, -2, 0, 0, 0),
        (1, nan, 1, nan, 0),
    ],
)
def test_powers_at_special_points(x, y, value, by_x, by_y):
    same(stable.power(x, jnp.float32(y)), value)
    same(gradient(stable.power, x, y), (by_x, by_y))


@pytest.mark.parametrize(
    ("p", "x", "derivatives"),
    [
        (2, 0.0, (0, 0, 2, 0, 0)),
        (2.0, 0.0, (0, 0, 2, 0, 0)),
        (3, -2.0, (-8, 12, -12, 6, 0)),
        (0, 0.0, (1, 0, 0, 0, 0)),
        (1, 0.0, (0, 1, 0, 0, 0)),
        (0.5, 0.0, (0, inf, -inf, inf, -inf)),
        (0.5, -0.0, (0, inf, -inf, inf, -inf)),
        (-1, 0.0, (inf, -inf, inf, -inf, inf)),
        (-2, -0.0, (inf, inf, inf, inf, inf)),
        (-2, -2.0, (0.25, 0.25, 0.375, 0.75, 1.875)),
        (7, inf, (inf,) * 5),
        (-3, inf, (0,) * 5),
    ],
)
def test_known_powers_at_special_points(p, x, derivatives):
    fn = lambda x: stable.power(x, p)
    for expected in derivatives:
        np.testing.assert_allclose(float(fn(x)), expected, rtol=2e-7)
        fn = jax.grad(fn)


def test_the_mixed_derivative_of_a_power_is_accurate_at_its_roots():
    """x^(y−1) (1 + y log x) where y is within 1e-6 of −1/log x."""
    rng = np.random.default_rng(2)
    x = np.exp(rng.uniform(0.1, 80, 40) * rng.choice([-1, 1], 40)).astype(np.float32)
    y = (-1 / np.log(x.astype(float)) * (1 + 1e-6 * rng.choice([-1, 1], 40))).astype(np.float32)
    got = jax.jit(jax.vmap(jax.grad(jax.grad(stable.power), 1)))(x, y)
    with mpmath.workdps(50):
        exact = [(mpmath.mpf(float(a)), mpmath.mpf(float(b))) for a, b in zip(x, y, strict=True)]
        true = [float(a ** (b - 1) * (1 + b * mpmath.log(a))) for a, b in exact]
    np.testing.assert_allclose(got, true, rtol=1e-6, atol=1e-37)


@pytest.mark.parametrize(("name", "at"), [("divide", (3e-250, 7e-120)), ("power", (3e-150, -0.37))])
def test_doubles_are_as_accurate_as_doubles_can_be(name, at):
    plain = {"divide": lambda x, y: x / y, "power": lambda x, y: x**y}[name]
    with jax.enable_x64(True), mpmath.workdps(700):
        fn = getattr(stable, name)
        for orders, d in (
            ((0, 1), jax.grad(fn, 1)),
            ((1, 1), jax.grad(jax.grad(fn), 1)),
            ((0, 2), jax.grad(jax.grad(fn, 1), 1)),
        ):
            true = float(mpmath.diff(plain, tuple(map(mpmath.mpf, at)), orders))
            np.testing.assert_allclose(float(jax.jit(d)(*map(jnp.float64, at))), true, rtol=4e-15)


def test_complex_ratios_agree_with_doubles():
    x, y = np.complex64(3e-25 + 1e-25j), np.complex64(-2e-25 + 5e-25j)
    got = jax.jit(jax.grad(stable.divide, 1, holomorphic=True))(x, y)
    np.testing.assert_allclose(got, -np.complex128(x) / np.complex128(y) ** 2, rtol=2e-6)
    got = jax.jit(jax.grad(jax.grad(stable.divide, 1, holomorphic=True), holomorphic=True))(x * 1e10, y * 1e10)
    np.testing.assert_allclose(got, -1e-20 / np.complex128(y) ** 2, rtol=2e-6)
    np.testing.assert_allclose(stable.power(1j, 2), -1, atol=1e-6)


def test_what_is_no_number_is_refused():
    with pytest.raises(StableError, match="divide takes arrays of numbers"):
        stable.divide(object(), 1)  # pyright: ignore[reportArgumentType]
    with pytest.raises(StableError, match="power got shapes that do not broadcast"):
        stable.power(jnp.ones(2), jnp.ones(3))


def test_ratios_of_ratios_are_not_merged_by_the_compiler(optimised):
    tiny, huge = jnp.float32(1e-30), jnp.float32(1e30)
    left = jax.jit(lambda a, b, c: stable.divide(stable.divide(a, b), c))
    right = jax.jit(lambda a, b, c: stable.divide(a, stable.divide(b, c)))
    by_constants = jax.jit(lambda a: stable.divide(stable.divide(a, 1e30), 1e30))
    np.testing.assert_allclose(left(tiny, tiny, tiny), 1e30, rtol=1e-6)
    np.testing.assert_allclose(right(huge, huge, huge), 1e30, rtol=1e-6)
    np.testing.assert_allclose(by_constants(huge), 1e-30, rtol=1e-6)
    assert jnp.isnan(stable.divide(jnp.float32(jnp.nan), 1.0))
