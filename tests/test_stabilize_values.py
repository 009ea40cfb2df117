"""`stabilize` makes no right value or derivative wrong: what it rewrites, at points where it could, against mpmath."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from jax.scipy.special import entr

from jaxpartials.stability.stabilize import stabilize

inf = np.inf


def same(fn, *args, operation=None):
    """The value that `fn` has itself."""
    made = stabilize(fn)
    found = [one.operation for one in made.replacements(*args)]
    assert operation is None or any(operation in one for one in found), found
    for use in (made, jax.jit(made)):
        np.testing.assert_allclose(use(*args), fn(*args), rtol=1e-6)


# ---- what is looked through


def test_indices_out_of_bounds_give_the_logarithm_of_what_fills():
    x, at = jnp.array([1.0, 2.0, 3.0]), jnp.array([0, 7])
    for fill in (0, 1):
        same(lambda x, fill=fill: jnp.log(jax.nn.softmax(x).at[at].get(mode="fill", fill_value=fill)), x)
    same(lambda x: jnp.log(jax.nn.softmax(x).at[at].get(mode="fill")), x, operation="stable.log_softmax")
    same(lambda x: jnp.log(jax.nn.softmax(x).at[at].get(mode="clip")), x, operation="stable.log_softmax")


def test_a_constant_mask_is_no_guard():
    x = jnp.array([[1.0, 2, 3], [4, 5, 9]])
    same(lambda x: jnp.sqrt(jnp.where(np.array([True, False]), jnp.var(x, 1), jnp.nan)), x)
    same(lambda x: jnp.sqrt(jnp.where(np.array(False), jnp.var(x, 1), jnp.nan)), x)
    same(lambda x: jnp.std(x, 1), x, operation="stable.std")


def test_entropy_below_zero():
    for x in (-inf, -1.0, -0.0, 0.0, 0.3, inf, np.nan):
        same(entr, np.float32(x), operation="stable.xlogx")
    assert float(jax.grad(stabilize(entr))(0.3)) == pytest.approx(-np.log(0.3) - 1, rel=1e-6)


# ---- products in the order that they are written in


@pytest.mark.parametrize(
    ("fn", "args", "expected"),
    [
        (lambda x, y, z: x * y**-2 * z, (1e30, 1e15, 1e30), 1e30),
        (lambda x, y, z: x * z * y**-3, (1e-15, 1.6e-10, 1e15), 1.6e-10**-3),
        (lambda x, y: x * y**-3, (1.0, 1.6e-13), 1.6e-13**-3),
        (lambda x, a, b, c: jnp.sin(x) / x * a / b * c, (1.0, 1e30, 1e30, 1e30), np.sin(1.0) * 1e30),
        (lambda x, a, b: a * (jnp.exp(x) - 1) / x / b, (1.0, 1e30, 1e30), np.e - 1),
        (lambda x, a, b: (a * b) * (jnp.exp(x) - 1) / x, (1.0, 1e30, 1e-30), np.e - 1),
    ],
)
def test_products_do_not_overflow_on_the_way(fn, args, expected):
    made = stabilize(fn)
    args = [np.float32(x) for x in args]
    assert made.replacements(*args)
    for use in (made, jax.jit(made)):
        np.testing.assert_allclose(use(*args), expected, rtol=2e-6)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_reciprocal_powers_at_all_sizes(n):
    made = stabilize(lambda x, y: x * y**-n)
    for y in np.float32(10.0 ** np.arange(-9, 10, 3) * 1.7):
        for order, c in enumerate((1, -n, n * (n + 1))):
            fn = made
            for _ in range(order):
                fn = jax.grad(fn, 1)
            true = c * mpmath.mpf(1.5) / mpmath.mpf(float(y)) ** (n + order)
            if 1.2e-38 < abs(true) < 3.4e38:
                np.testing.assert_allclose(fn(np.float32(1.5), y), float(true), rtol=2e-6)


# ---- differences

DIFFERENCES = {
    "sqrt": (lambda x, a: jnp.sqrt(x + a) - jnp.sqrt(x), mpmath.sqrt),
    "reciprocal": (lambda x, a: 1 / (x + a) - 1 / x, lambda x: 1 / x),
    "reciprocal root": (lambda x, a: 1 / jnp.sqrt(x + a) - 1 / jnp.sqrt(x), lambda x: 1 / mpmath.sqrt(x)),
    "log": (lambda x, a: jnp.log(x + a) - jnp.log(x), mpmath.log),
    "cbrt": (lambda x, a: jnp.cbrt(x + a) - jnp.cbrt(x), mpmath.cbrt),
    "square": (lambda x, a: (x + a) ** 2 - x**2, lambda x: x * x),
    "sin": (lambda x, a: jnp.sin(x + a) - jnp.sin(x), mpmath.sin),
    "cos": (lambda x, a: jnp.cos(x + a) - jnp.cos(x), mpmath.cos),
}
# x, and a: what is added is small, of one size, large, or takes x away.
SIZES = [1e-12, 1e-6, 1e-3, 1.0, 1e3, 1e6, 1e12]
TAKEN = (1e-3, 0.25, 0.5, 0.75, 1 - 2**-12)
POINTS = [(x, a) for x in SIZES for a in SIZES] + [(x, -r * x) for x in SIZES for r in TAKEN]


@pytest.mark.parametrize("name", DIFFERENCES)
def test_differences_of_all_sizes(name):
    """The value and the first two derivatives are no worse than those of the plain function, or right."""
    fn, f = DIFFERENCES[name]
    made = stabilize(fn)
    assert len(made.replacements(1.0, 1.0)) == 1
    points = [p for p in POINTS if name not in ("sin", "cos") or max(map(abs, p)) < 1e7]
    x, a = np.float32(points).T
    ways = [lambda f: f, jax.grad, lambda f: jax.grad(f, 1), lambda f: jax.grad(jax.grad(f)),
            lambda f: jax.grad(jax.grad(f, 1), 1)]  # fmt: skip
    mpmath.mp.prec = 300
    for n, (way, order, by_x) in enumerate(zip(ways, (0, 1, 1, 2, 2), (1, 1, 0, 1, 0), strict=True)):
        got, plain = (jax.jit(jax.vmap(way(one)))(x, a) for one in (made, fn))
        for i in range(len(points)):
            u, v = mpmath.mpf(float(x[i])) + mpmath.mpf(float(a[i])), mpmath.mpf(float(x[i]))
            true = float(mpmath.diff(f, u, order) - (mpmath.diff(f, v, order) if by_x else 0))
            if not 1e-36 < abs(true) < 1e37:
                continue
            error, other = (abs(float(one[i]) / true - 1) for one in (got, plain))
            # A sum x + a that is rounded moves the waves, in either.
            assert error <= max(1e-5, 2 * other), (n, x[i], a[i], float(got[i]), float(plain[i]), true)


@pytest.mark.parametrize(
    ("fn", "x", "a", "argument", "expected"),
    [
        (DIFFERENCES["sqrt"][0], 0.0, 0.0, None, 0.0),
        (DIFFERENCES["sqrt"][0], 1.0, inf, None, inf),
        (lambda x, a: jnp.sqrt(1 + x * x) - 1, 1e20, 0.0, None, inf),
        (lambda x, a: jnp.sqrt(1 + jnp.sqrt(x)) - 1, 0.0, 0.0, 0, inf),
        (DIFFERENCES["log"][0], 3.0, -3 + 2.0**-20, None, np.log(2.0**-20 / 3)),
        (DIFFERENCES["log"][0], 1e-30, 1e30, None, np.log(1e60)),
        (DIFFERENCES["log"][0], 2173.5676, -2173.5666, 1, 1024.0),
        (lambda x, a: 1 / x - 1 / (x + a), 1e-10, 1e30, None, 1e10),
        (lambda x, a: 1 / x - 1 / (x + a), 2.0, inf, None, 0.5),
        (lambda x, a: 1 / x - 1 / (x + a), -3.1158e-29, 4.4148e-11, 1, 4.4148e-11**-2),
        (lambda x, a: 1 / jnp.sqrt(x) - 1 / jnp.sqrt(x + a), 1e-12, 5.9, 1, 0.5 * 5.9**-1.5),
        (lambda x, a: jnp.sqrt(x) - jnp.sqrt(x + a), 1e-12, 5.9, 1, -0.5 * 5.9**-0.5),
        (lambda x, a: 1 - jnp.sqrt(1 + x * x), 1e6, 0.0, 0, -1.0),
        (DIFFERENCES["cos"][0], 1.6110317, -1.6110198, 1, -np.sin(np.float32(1.6110317) - np.float32(1.6110198))),
        (DIFFERENCES["square"][0], 1.0, -1 + 2.0**-20, 1, 2.0**-19),
    ],
)
def test_differences_where_nothing_cancels(fn, x, a, argument, expected):
    made = stabilize(fn)
    if argument is not None:
        made = jax.grad(made, argument)
    for use in (made, jax.jit(made)):
        np.testing.assert_allclose(use(np.float32(x), np.float32(a)), expected, rtol=1e-6)


@pytest.mark.parametrize(("dtype", "x"), [("float32", 9e6), ("bfloat16", 150), ("float16", 1095)])
def test_the_middle_of_a_wave_is_not_rounded(dtype, x):
    x = jnp.asarray(x, dtype)
    got = stabilize(lambda x: jnp.sin(x + 1) - jnp.sin(x))(x)
    np.testing.assert_allclose(
        np.float64(got), np.sin(float(x) + 1) - np.sin(float(x)), rtol=2 * float(jnp.finfo(dtype).eps)
    )


# ---- exponentials and powers


def derivative(f, x, order):
    mpmath.mp.prec = 400
    return float(mpmath.diff(f, mpmath.mpf(float(x)), order))


@pytest.mark.parametrize(
    ("fn", "f", "points"),
    [
        (
            lambda x: x / jnp.expm1(x),
            lambda x: x / mpmath.expm1(x),
            [-1e20, -500.0, -80.0, -25.0, -22.0, -5.0, -1.0, -0.9, -1e-3, 1e-6, 0.1, 0.9, 1.0, 3.0, 20.0, 60.0],
        ),
        (
            lambda x: jnp.exp(x) / (jnp.exp(x) - 1),
            lambda x: mpmath.exp(x) / mpmath.expm1(x),
            [-80.0, -50.0, -44.0, -10.0, -1.0, -1e-3, -1e-6, 1e-6, 1e-3, 1.0, 10.0, 50.0, 80.0],
        ),
        (
            lambda x: jnp.sqrt(x * x + 1) - x,
            lambda x: mpmath.sqrt(x * x + 1) - x,
            [-1e6, -198.6386, -3.0, -0.1, -1e-6, 1e-6, 0.1, 3.0, 198.6386, 1e6],
        ),
        (
            lambda x: -jnp.sqrt(x * x - 0.25) - x,
            lambda x: -mpmath.sqrt(x * x - 0.25) - x,
            [-1e6, -198.6386, -3.0, -0.75, 0.75, 3.0, 198.6386, 1e6],
        ),
    ],
)
def test_functions_of_one_argument(fn, f, points):
    made = stabilize(fn)
    for order in range(3):
        for way in (made, jax.jit(made)):
            for x in np.float32(points):
                true = derivative(f, x, order)
                if order == 0 or 1e-37 < abs(true) < 1e37:
                    np.testing.assert_allclose(way(x), true, rtol=2e-5, err_msg=f"order {order} at {x}")
        made = jax.grad(made)


def test_the_largest_arguments_of_expm1_ratio():
    made = stabilize(lambda x: x / jnp.expm1(x))
    x = np.float32(-3e38)
    assert (made(x), jax.grad(made)(x), jax.grad(jax.grad(made))(x)) == (-x, -1, 0)


def test_powers_of_one_and():
    fn = lambda x, y: (1 + x) ** y
    made = stabilize(fn)
    x, y = jnp.bfloat16(5.1875), jnp.bfloat16(26.875)
    np.testing.assert_allclose(np.float64(made(x, y)), 6.1875**26.875, rtol=4e-3)
    assert made(inf, 2.0) == inf
    x, y = np.float32(230213.77), np.float32(7.313117)
    second = float(y) * (float(y) - 1) * (1 + float(x)) ** (float(y) - 2)
    np.testing.assert_allclose(jax.grad(jax.grad(made))(x, y), second, rtol=1e-5)
    for x, y in np.float32([(1e-6, 1e6), (1e-3, 500), (-0.5, 3), (0.3, 1.001), (7, 0), (1e-4, 1), (-0.75, -20.5)]):
        u, n = mpmath.mpf(float(x)), mpmath.mpf(float(y))
        slope, second = n * (1 + u) ** (n - 1), n * (n - 1) * (1 + u) ** (n - 2)
        np.testing.assert_allclose(made(x, y), float((1 + u) ** n), rtol=2e-6)
        np.testing.assert_allclose(jax.grad(made)(x, y), float(slope), rtol=2e-6)
        np.testing.assert_allclose(jax.grad(jax.grad(made))(x, y), float(second), rtol=5e-6, atol=1e-30)
        by_y = float((1 + u) ** n * mpmath.log1p(u))
        np.testing.assert_allclose(jax.grad(made, 1)(x, y), by_y, rtol=2e-6)


@pytest.mark.parametrize("n", [1.0001, 1.5, 2.0, 7.0, 9.0, 100.0, 1e6])
def test_powers_that_share_a_factor(n):
    """(1 + x/n)^n, whose second derivative has the factor n − 1."""
    made = stabilize(lambda x, n: (1 + x / n) ** n)
    x, n = np.float32(0.25), np.float32(n)
    u, m = mpmath.mpf(0.25), mpmath.mpf(float(n))
    np.testing.assert_allclose(made(x, n), float((1 + u / m) ** m), rtol=2e-6)
    true = float((m - 1) / m * (1 + u / m) ** (m - 2))
    np.testing.assert_allclose(jax.grad(jax.grad(made))(x, n), true, rtol=1e-5)
