"""sinc, cosc, exprel, log1prel: special points, roots of their derivatives, high orders, double precision."""

import math

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from jaxpartials import stable
from jaxpartials.stable import cardinal, removable
from jaxpartials.stable.trigonometric import half_turns, radians, sin_cos


def sinc_of_radians(x):
    return stable.sinc(x, normalized=False)


def orders(f, x, most):
    values = []
    for _ in range(most + 1):
        values.append(float(f(x)))
        f = jax.grad(f)
    return values


EXACT = {
    stable.sinc: lambda x: mpmath.sincpi(x),
    sinc_of_radians: mpmath.sinc,
    stable.cosc: lambda x: (1 - mpmath.cos(x)) / x**2 if x else mpmath.mpf(1) / 2,
    stable.exprel: lambda x: mpmath.expm1(x) / x if x else mpmath.mpf(1),
    stable.log1prel: lambda x: mpmath.log1p(x) / x if x else mpmath.mpf(1),
}
NTH = {
    stable.sinc: cardinal._nth_sinc_of_half_turns,
    sinc_of_radians: cardinal._nth_sinc_of_radians,
    stable.cosc: cardinal._nth_cosc,
    stable.exprel: removable._nth_exprel,
    stable.log1prel: removable._nth_log1prel,
}
OPERATIONS = pytest.mark.parametrize("f", EXACT, ids=lambda f: f.__name__)

AT_ZERO = {
    stable.sinc: [1, 0, -(math.pi**2) / 3, 0, math.pi**4 / 5],
    sinc_of_radians: [1, 0, -1 / 3, 0, 1 / 5],
    stable.cosc: [1 / 2, 0, -1 / 12, 0, 1 / 30],
    stable.exprel: [1, 1 / 2, 1 / 3, 1 / 4, 1 / 5],
    stable.log1prel: [1, -1 / 2, 2 / 3, -6 / 4, 24 / 5],
}


@OPERATIONS
@pytest.mark.parametrize("zero", [0.0, -0.0, 1e-40])
def test_at_zero(f, zero):
    np.testing.assert_allclose(orders(f, zero, 4), AT_ZERO[f], rtol=3e-7)


@OPERATIONS
def test_nan_stays_nan(f):
    assert np.isnan(orders(f, jnp.nan, 2)).all()


def test_at_infinity():
    for f in (stable.sinc, sinc_of_radians, stable.cosc):
        assert orders(f, jnp.inf, 3) == orders(f, -jnp.inf, 3) == [0.0] * 4
    assert orders(stable.exprel, -jnp.inf, 3) == orders(stable.log1prel, jnp.inf, 3) == [0.0] * 4
    assert orders(stable.exprel, jnp.inf, 3) == [math.inf] * 4
    assert orders(stable.log1prel, -1.0, 3) == [math.inf, -math.inf, math.inf, -math.inf]
    assert np.isnan(orders(stable.log1prel, -2.0, 2)).all()


@OPERATIONS
@pytest.mark.parametrize("order", [4, 5, 9, 14])
def test_high_orders(f, order):
    points = np.array([0.05, 0.7, 2.3, 5.1, 7.9, 33.0], np.float32)
    got = NTH[f]((order,), jnp.asarray(points))
    with mpmath.workdps(60):
        series = [mpmath.taylor(EXACT[f], mpmath.mpf(float(x)), order + 1) for x in points]
    true = np.array([float(s[order] * math.factorial(order)) for s in series])
    raised = np.array([float(s[order + 1] * math.factorial(order + 1)) for s in series])
    assert (abs(got - true) <= 1e-5 * (abs(true) + abs(points * raised))).all()


def test_sine_and_cosine_of_any_argument():
    rng = np.random.default_rng(5)
    x = np.concatenate([10 ** rng.uniform(0, 38.4, 60), np.arange(1, 40) * np.pi / 2]).astype(np.float32)
    for angle, exact in ((radians, mpmath.mpf), (half_turns, lambda x: mpmath.pi * mpmath.mpf(x))):
        pairs = jax.jit(lambda x, angle=angle: sin_cos(angle(x)))(x)
        with mpmath.workdps(120):
            for (high, low), f in zip(pairs, (mpmath.sin, mpmath.cos), strict=True):
                for at, h, l in zip(x, high, low, strict=True):
                    true = f(exact(float(at)))
                    assert abs(float(h) + mpmath.mpf(float(l)) - true) <= 2.0**-41 * abs(true) + 1e-60


@OPERATIONS
def test_in_double_precision(f):
    points = np.array([1e-5, 0.3, 2.081575977818101, 4.4934, 6.3, 41.0, 1e5 + 0.1])
    with jax.enable_x64(True):
        nth = f
        for order in range(3):
            got = np.asarray(jax.jit(jax.vmap(nth))(jnp.asarray(points, jnp.float64)))
            with mpmath.workdps(60):
                true = [mpmath.diff(EXACT[f], mpmath.mpf(float(x)), order) for x in points]
            for value, exact in zip(got, true, strict=True):
                if exact < 1e308:
                    assert abs(float(value) - exact) <= 16 * 2.0**-53 * abs(exact)
            nth = jax.grad(nth)
