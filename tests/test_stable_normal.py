"""log_ndtr and erfcx: special points, far tails, high orders, and the coefficients against mpmath."""

import jax
import mpmath
import numpy as np
import pytest
from repeated import nth

from jaxpartials import stable
from jaxpartials.stable import mills

INF = float("inf")


@pytest.mark.parametrize(
    ("name", "x", "expected"),
    [
        ("log_ndtr", INF, (0, 0, 0, 0)),
        ("log_ndtr", -INF, (-INF, INF, -1, 0)),
        ("erfcx", INF, (0, 0, 0, 0)),
        ("erfcx", -INF, (INF, -INF, INF, -INF)),
    ],
)
def test_special_points(name, x, expected):
    np.testing.assert_array_equal([float(nth(getattr(stable, name), n)(x)) for n in range(4)], expected)
    assert all(np.isnan(nth(getattr(stable, name), n)(float("nan"))) for n in range(4))


def test_far_tails():
    x = np.float32(-1e19)
    np.testing.assert_allclose(stable.log_ndtr(x), -(np.float64(x) ** 2) / 2, rtol=2e-7)
    np.testing.assert_allclose(jax.grad(stable.log_ndtr)(x), 1e19, rtol=2e-7)
    assert nth(stable.log_ndtr, 2)(x) == -1
    # Here the density is below the smallest normal number, and the second derivative is not.
    x = np.float32(13.2)
    density = mpmath.npdf(float(x))
    assert density < np.finfo(np.float32).tiny
    np.testing.assert_allclose(nth(stable.log_ndtr, 2)(x), float(-density * float(x)), rtol=1e-6)


@pytest.mark.parametrize("x", [-3.0, -0.2, 0.3, 0.7, 4.0])
def test_high_orders(x):
    x = float(np.float32(x))
    with mpmath.workdps(60):
        for n in (4, 5, 6):
            true = mpmath.diff(lambda t: mpmath.log(mpmath.ncdf(t)), x, n)
            scale = abs(true) + abs(x * mpmath.diff(lambda t: mpmath.log(mpmath.ncdf(t)), x, n + 1))
            assert abs(float(nth(stable.log_ndtr, n)(x)) - true) < 1e-5 * scale
            true = mpmath.diff(lambda t: mpmath.exp(t * t) * mpmath.erfc(t), x, n)
            np.testing.assert_allclose(nth(stable.erfcx, n)(x), float(true), rtol=4e-6)


def test_coefficients():
    """Moments and cumulants in float64 against mpmath's quadrature."""
    with jax.enable_x64(True), mpmath.workdps(40):
        for y in (0.0, 0.37, 2.5, 40.0):
            moment = [
                mpmath.quad(lambda s, n=n, y=y: s**n * mpmath.exp(-y * s - s * s / 2), [0, 1 / (1 + y), 5, 20])
                for n in range(4)
            ]
            for n in range(4):
                np.testing.assert_allclose(mills.moment(n, np.float64(y)), float(moment[n]), rtol=1e-14)
            mean = moment[1] / moment[0]
            cumulants = (mean, moment[2] / moment[0] - mean**2)
            cumulants += (moment[3] / moment[0] - 3 * mean * cumulants[1] - mean**3,)
            for n, true in enumerate(cumulants, 1):
                np.testing.assert_allclose(mills.cumulant(n, np.float64(y)), float(true), rtol=3e-14)
