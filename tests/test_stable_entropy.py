"""xlogx, xlogy, rel_entr, kl_div: special points, conventions, and cancellation."""

import jax
import mpmath
import numpy as np
import pytest
from scipy import special

from jaxpartials import stable

INF, NAN = float("inf"), float("nan")


def up_to_two(f, x, y):
    """f, ∂x, ∂y, ∂xx, ∂xy, ∂yy."""
    by = lambda g, k: jax.grad(g, k)
    parts = (f, by(f, 0), by(f, 1), by(by(f, 0), 0), by(by(f, 0), 1), by(by(f, 1), 1))
    return [float(g(x, y)) for g in parts]


def test_xlogx_at_its_limits():
    derivatives = [stable.xlogx]
    for _ in range(3):
        derivatives.append(jax.grad(derivatives[-1]))
    for zero in (0.0, -0.0):
        assert [float(f(zero)) for f in derivatives] == [0, -INF, INF, -INF]
    assert [float(f(INF)) for f in derivatives] == [INF, INF, 0, 0]
    assert all(np.isnan(float(f(x))) for f in derivatives for x in (-1.0, NAN))


@pytest.mark.parametrize(
    ("f", "x", "y", "expected"),
    [
        (stable.xlogy, 0.0, 0.0, [0, -INF, 0, 0, INF, 0]),
        (stable.xlogy, 0.0, 2.0, [0, np.log(2), 0, 0, 1 / 2, 0]),
        (stable.xlogy, 1.0, 0.0, [-INF, -INF, INF, 0, INF, -INF]),
        (stable.rel_entr, 0.0, 1.0, [0, -INF, 0, INF, -1, 0]),
        (stable.rel_entr, 0.0, 0.0, [0, -INF, 0, INF, -INF, 0]),
        (stable.rel_entr, 1.0, 0.0, [INF, INF, -INF, 1, -INF, INF]),
        (stable.rel_entr, -1.0, 1.0, [INF, NAN, NAN, NAN, NAN, NAN]),
        (stable.kl_div, 0.0, 1.0, [1, -INF, 1, INF, -1, 0]),
        (stable.kl_div, 0.0, 0.0, [0, -INF, 1, INF, -INF, 0]),
        (stable.kl_div, 1.0, INF, [INF, -INF, 1, 1, 0, 0]),
        (stable.kl_div, 1.0, -1.0, [INF, NAN, NAN, NAN, NAN, NAN]),
    ],
)
def test_at_the_edge_of_the_domain(f, x, y, expected):
    np.testing.assert_allclose(up_to_two(f, x, y), expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["xlogy", "rel_entr", "kl_div"])
def test_values_agree_with_scipy(name):
    points = np.array([-1.0, -0.0, 0.0, 0.5, 3.0, 1e30, INF, NAN])
    x, y = (a.ravel() for a in np.meshgrid(points, points))
    with np.errstate(all="ignore"):
        expected = getattr(special, name)(x, y)
    # Where SciPy gives a nan for an infinite limit.
    open_to_debate = (name == "kl_div") & np.isinf(x + y)
    got = getattr(stable, name)(x.astype(np.float32), y.astype(np.float32))
    np.testing.assert_allclose(
        np.asarray(got)[~open_to_debate], expected.astype(np.float32)[~open_to_debate], rtol=1e-5
    )


def test_one_plus_log_near_its_root():
    # 1 + log(x/y) is 0 at x/y = 1/e: the nearest pairs of numbers leave some 1e-10.
    x = np.random.default_rng(3).uniform(1, 2, 200).astype(np.float32)
    y = (x.astype(np.float64) * np.e).astype(np.float32)
    got = jax.jit(jax.vmap(jax.grad(stable.rel_entr)))(x, y)
    with mpmath.workdps(50):
        true = [1 + mpmath.log(mpmath.mpf(float(a)) / mpmath.mpf(float(b))) for a, b in zip(x, y, strict=True)]
    assert min(abs(t) for t in true) < 1e-8
    np.testing.assert_allclose(got, [float(t) for t in true], rtol=5e-7)
