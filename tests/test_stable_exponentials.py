"""Special points, conventions and elementwise accuracy of logistic functions, softmax and what is akin to them."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from repeated import nth

from jaxpartials import stable
from jaxpartials.errors import StableError

INF, NAN = float("inf"), float("nan")


@pytest.mark.parametrize(
    ("name", "x", "expected"),
    [
        ("sigmoid", INF, (1, 0, 0, 0)),
        ("sigmoid", -INF, (0, 0, 0, 0)),
        ("softplus", INF, (INF, 1, 0, 0)),
        ("softplus", -INF, (0, 0, 0, 0)),
        ("log_sigmoid", INF, (0, 0, 0, 0)),
        ("log_sigmoid", -INF, (-INF, 1, 0, 0)),
        ("log_cosh", INF, (INF, 1, 0, 0)),
        ("log_cosh", -INF, (INF, -1, 0, 0)),
        ("log_cosh", 0.0, (0, 0, 1, 0)),
        ("log_cosh", -0.0, (0, 0, 1, 0)),
        ("log1mexp", INF, (0, 0, 0, 0)),
        ("log1mexp", 0.0, (-INF, INF, -INF, INF)),
        ("log1mexp", -1.0, (NAN, NAN, NAN, NAN)),
    ],
)
def test_special_points(name, x, expected):
    got = [float(nth(getattr(stable, name), n)(x)) for n in range(4)]
    np.testing.assert_array_equal(got, expected)
    assert all(np.isnan(nth(getattr(stable, name), n)(NAN)) for n in range(3))


@pytest.mark.parametrize("name", ["sigmoid", "softplus", "log_sigmoid", "log_cosh"])
def test_high_orders_agree_with_plain_ones_in_float64(name):
    plain = {
        "sigmoid": jax.nn.sigmoid,
        "softplus": lambda x: -jnp.log(jax.nn.sigmoid(-x)),
        "log_sigmoid": lambda x: jnp.log(jax.nn.sigmoid(x)),
        "log_cosh": lambda x: jnp.log(jnp.cosh(x)),
    }[name]
    with jax.enable_x64(True):
        for n in (4, 5):
            got, expected = (jax.jit(nth(fn, n))(0.7) for fn in (getattr(stable, name), plain))
            np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_logaddexp_at_infinities():
    for x, y, value in [(INF, INF, INF), (-INF, -INF, -INF), (INF, -INF, INF), (-INF, 2.0, 2.0)]:
        assert stable.logaddexp(x, y) == value
        slopes = jax.grad(stable.logaddexp, (0, 1))(x, y)
        assert sum(map(float, slopes)) == 1
        assert np.isfinite(jax.hessian(stable.logaddexp)(x, y))


def test_logaddexp_counts_the_rounding_error_of_the_difference():
    x, y = np.float32(-77.77), np.float32(1.2345678)
    d = np.float64(x) - np.float64(y)
    assert float(np.float32(x - y)) != d
    np.testing.assert_allclose(jax.grad(stable.logaddexp)(x, y), np.exp(d) / (1 + np.exp(d)), rtol=5e-7)
    np.testing.assert_allclose(jax.grad(stable.logdiffexp, 1)(y, x), -np.exp(d) / (1 - np.exp(d)), rtol=5e-7)


def test_logdiffexp_outside_its_domain():
    assert stable.logdiffexp(1.0, 1.0) == -INF
    assert np.isnan(stable.logdiffexp(1.0, 2.0))
    assert np.isnan(jax.grad(stable.logdiffexp)(1.0, 2.0))
    assert stable.logdiffexp(3.0, -INF) == 3
    assert jax.grad(stable.logdiffexp, (0, 1))(3.0, -INF) == (1, 0)


def at_the_root(dtype, sign, seed):
    """Neighbours of numbers x, y with exp(x) + sign·exp(y) = 1, and numbers further off."""
    rng = np.random.default_rng(seed)
    x = np.where(sign > 0, np.log1p(-(10 ** rng.uniform(-12, -0.31, 300))), 10 ** rng.uniform(-8, 1, 300)).astype(dtype)
    with mpmath.workdps(60):
        y = np.array([float(mpmath.log(sign * -mpmath.expm1(mpmath.mpf(float(value))))) for value in x]).astype(dtype)
    away = rng.normal(size=300) * 10 ** rng.uniform(-16 if dtype is np.float64 else -7, -1, 300)
    y = (y * (1 + np.where(rng.uniform(size=300) < 0.5, away, 0))).astype(dtype)
    if sign > 0:
        swapped = rng.uniform(size=300) < 0.5
        return np.where(swapped, y, x), np.where(swapped, x, y)
    return x[y < x], y[y < x]


@pytest.mark.usefixtures("optimised")
@pytest.mark.parametrize("jit", [True, False])
@pytest.mark.parametrize(("dtype", "least"), [(np.float32, 3e-10), (np.float64, 1e-19)])
@pytest.mark.parametrize(("name", "sign"), [("logaddexp", 1), ("logdiffexp", -1)])
def test_values_near_their_roots(name, sign, dtype, least, jit):
    op = getattr(stable, name)
    with jax.enable_x64(dtype is np.float64):
        x, y = at_the_root(dtype, sign, 7)
        got = np.asarray((jax.jit(op) if jit else op)(x, y))
    smallest = 1
    with mpmath.workdps(80):
        for a, b, value in zip(map(float, x), map(float, y), map(float, got), strict=True):
            larger = abs(max(a, b)) if sign > 0 else mpmath.expm1(a)
            true = mpmath.log(mpmath.exp(a) + sign * mpmath.exp(b))
            error = abs(value - true) / max(abs(true), least * larger) / np.finfo(dtype).eps
            assert error <= 8, (a, b, value, true)
            smallest = min(smallest, abs(true))
    # Relative to the arguments they are 1e-7 (1e-16) at least, but for chance.
    assert smallest < 1e-12


def logits(seed, n, spread):
    return (np.random.default_rng(seed).standard_normal(n) * spread).astype(np.float32)


def exact_softmax(a):
    """p and Σ of the others, elementwise accurate in float64."""
    d = np.exp(a[None, :].astype(np.float64) - a[:, None])
    others = d - np.eye(len(a))
    return 1 / d.sum(1), others.sum(1) / d.sum(1)


@pytest.mark.parametrize(("spread", "jit"), [(1e-3, True), (2.0, False), (25.0, True)])
def test_first_derivatives_elementwise(spread, jit):
    compiled = jax.jit if jit else lambda fn: fn
    a, label = logits(5, 7, spread), 3
    p, others = exact_softmax(a)
    gradient = np.where(np.arange(7) == label, -others, p)
    jacobian = np.where(np.eye(7) == 1, p * others, -np.outer(p, p))
    soft, hard = stable.softmax_cross_entropy, stable.softmax_cross_entropy_with_integer_labels
    one_hot = np.eye(7, dtype=np.float32)[label]
    np.testing.assert_allclose(compiled(stable.softmax)(a), p, rtol=8e-7)
    np.testing.assert_allclose(compiled(jax.grad(stable.logsumexp))(a), p, rtol=8e-7)
    np.testing.assert_allclose(compiled(jax.grad(soft))(a, one_hot), gradient, rtol=8e-7)
    np.testing.assert_allclose(compiled(jax.grad(hard))(a, label), gradient, rtol=8e-7)
    # The product of two small p may be no normal number.
    np.testing.assert_allclose(compiled(jax.jacfwd(stable.softmax))(a), jacobian, rtol=8e-7, atol=1e-37)
    np.testing.assert_allclose(compiled(jax.jacrev(stable.softmax))(a), jacobian, rtol=8e-7, atol=1e-37)


@pytest.mark.parametrize("spread", [1e-3, 25.0])
def test_higher_derivatives_normwise(spread):
    """Order 2 of the largest derivative of that order, order 3 of those of orders 2 and 3: ties are roots of all."""
    a = logits(6, 4, spread)
    with jax.enable_x64(True):
        plain = lambda x: jax.nn.logsumexp(x)
        wide = a.astype(np.float64)
        true = [jax.jit(jax.hessian(plain))(wide), jax.jit(jax.jacfwd(jax.hessian(plain)))(wide)]
    second = jax.jit(jax.hessian(stable.logsumexp))(a)
    third = jax.jit(jax.jacfwd(jax.jacrev(jax.jacrev(stable.logsumexp))))(a)
    largest = np.abs(true[0]).max()
    np.testing.assert_allclose(second, true[0], rtol=0, atol=8e-7 * largest + 1e-15)
    np.testing.assert_allclose(third, true[1], rtol=0, atol=8e-7 * max(largest, np.abs(true[1]).max()) + 1e-15)


def exact_tensors(a):
    """∂pᵢ/∂aⱼ and ∂²pᵢ/∂aⱼ∂aₖ of p = softmax(a), by mpmath; 1 − pᵢ as the sum of the others."""
    n = len(a)
    with mpmath.workdps(80):
        e = [mpmath.exp(mpmath.mpf(float(x))) for x in a]
        p = [x / mpmath.fsum(e) for x in e]
        away = lambda i, j: mpmath.fsum(p[:i] + p[i + 1 :]) if i == j else -p[j]
        first = [[p[i] * away(i, j) for j in range(n)] for i in range(n)]
        second = [
            [[p[i] * (away(i, j) * away(i, k) - p[j] * away(j, k)) for k in range(n)] for j in range(n)]
            for i in range(n)
        ]
        return np.array(first, float), np.array(second, float)


@pytest.mark.usefixtures("optimised")
@pytest.mark.parametrize(
    "a", [(0.3, -0.2, 1.1, 0.4), (18.0, 0.5, -3.0, 2.0), (1.0, 1.0, -40.0, 7.0), (-90.0, 3.0, 3.0, -20.0)], ids=str
)
def test_high_derivatives_against_mpmath(a):
    """Of softmax of order 2, and of logsumexp of order 3, which are the same numbers: within 8 + n/2 ulp."""
    a = np.asarray(a, np.float32)
    n, eps = len(a), float(np.finfo(np.float32).eps)
    first, second = exact_tensors(a)
    # Each p has its own scale, however small it is.
    scale = np.maximum(np.abs(first).max(1), np.abs(second).max((1, 2)))[:, None, None]
    normal = scale > 1e-37
    reverse, forward = jax.jacrev(jax.jacrev(stable.softmax)), jax.jacfwd(jax.jacrev(stable.softmax))
    for fn in (jax.jit(reverse), jax.jit(forward), forward):
        assert (np.where(normal, np.abs(fn(a) - second) / scale, 0) <= (8 + n / 2) * eps).all()
    third = jax.jacfwd(jax.jacrev(jax.jacrev(stable.logsumexp)))
    for fn in (jax.jit(third), third):
        assert np.abs(fn(a) - second).max() <= (8 + n / 2) * eps * max(np.abs(first).max(), np.abs(second).max())


def test_rows_of_infinities():
    empty, one = np.full(3, -INF, np.float32), np.array([1.0, INF, -INF], np.float32)
    assert stable.logsumexp(empty) == -INF
    assert stable.logsumexp(one) == INF
    np.testing.assert_allclose(jax.grad(stable.logsumexp)(empty), 1 / 3, rtol=1e-6)
    np.testing.assert_array_equal(jax.grad(stable.logsumexp)(one), [0, 1, 0])
    np.testing.assert_allclose(stable.log_softmax(empty), -np.log(3), rtol=1e-6)
    hard = stable.softmax_cross_entropy_with_integer_labels
    np.testing.assert_allclose(hard(empty, 1), np.log(3), rtol=1e-6)
    for fn in (stable.logsumexp, stable.softmax, stable.log_softmax, lambda a: hard(a, 1)):
        for a in (empty, one):
            derivatives = jax.jit(lambda a, fn=fn: (jax.jacrev(fn)(a), jax.jacfwd(jax.jacrev(fn))(a)))(a)
            assert all(np.isfinite(d).all() for d in derivatives)
    assert hard(one, 2) == INF
    assert np.isnan(stable.logsumexp(np.array([1.0, NAN], np.float32)))
    # A class that cannot be, and is not wanted.
    a, wanted = np.array([0.5, -INF, 1.0], np.float32), np.array([0.25, 0.0, 0.75], np.float32)
    np.testing.assert_allclose(
        stable.softmax_cross_entropy(a, wanted), stable.softmax_cross_entropy(a[[0, 2]], wanted[[0, 2]]), rtol=1e-6
    )
    assert np.isfinite(jax.grad(stable.softmax_cross_entropy)(a, wanted)).all()


def test_arguments_as_in_jax():
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((2, 3, 5)).astype(np.float32) for _ in range(2))
    where = rng.uniform(size=a.shape) < 0.7
    for axis in (None, -2, (0, 2)):
        for keepdims in (False, True):
            for more in ({}, {"b": b, "return_sign": True}, {"where": where}, {"b": np.abs(b), "where": where}):
                got = stable.logsumexp(a, axis, keepdims=keepdims, **more)
                jax.tree.map(
                    lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6),
                    got,
                    jax.nn.logsumexp(a, axis, keepdims=keepdims, **more),
                )
        for name in ("softmax", "log_softmax"):
            for mask in (None, where):
                got, plain = getattr(stable, name)(a, axis, mask), getattr(jax.nn, name)(a, axis, mask)
                np.testing.assert_allclose(got, plain, rtol=1e-5, atol=1e-6)


def test_factors_and_their_derivatives():
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal(5).astype(np.float32), rng.uniform(-0.2, 1, 5).astype(np.float32)
    b[2] = 0
    plain = lambda a, b: jnp.log(jnp.sum(b * jnp.exp(a)))
    for derivative in (jax.grad, jax.hessian):
        got = jax.jit(derivative(lambda a, b: stable.logsumexp(a, b=b), (0, 1)))(a, b)
        with jax.enable_x64(True):
            true = jax.jit(derivative(plain, (0, 1)))(a.astype(np.float64), b.astype(np.float64))
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=3e-6), got, true)
    assert np.isnan(stable.logsumexp(a, b=-np.abs(b)))


def test_cross_entropies_agree_with_their_definition():
    rng = np.random.default_rng(2)
    a = rng.standard_normal((2, 3, 4)).astype(np.float32)
    p = np.asarray(jax.nn.log_softmax(a, 1))
    labels = rng.integers(0, 3, (2, 4))
    hard = stable.softmax_cross_entropy_with_integer_labels
    picked = -np.take_along_axis(p, labels[:, None], 1)[:, 0]
    np.testing.assert_allclose(hard(a, labels, 1), picked, rtol=1e-5)
    np.testing.assert_allclose(hard(a, labels - 3, 1), picked, rtol=1e-5)
    together = np.asarray(jax.nn.log_softmax(a, (1, 2))).reshape(2, 12)
    np.testing.assert_allclose(hard(a, np.array([7, 2]), (1, 2)), [-together[0, 7], -together[1, 2]], rtol=1e-5)
    soft = np.asarray(jax.nn.softmax(rng.standard_normal((2, 3, 4)).astype(np.float32), 1))
    np.testing.assert_allclose(stable.softmax_cross_entropy(a, soft, 1), -(soft * p).sum(1), rtol=1e-5)
    where = np.array([True, False, True])[:, None]
    q = np.asarray(jax.nn.log_softmax(a, 1, where))
    np.testing.assert_allclose(
        stable.softmax_cross_entropy(a, soft, 1, where), -np.where(where, soft * q, 0).sum(1), rtol=1e-5
    )
    assert np.isnan(hard(a, np.full((2, 4), 3), 1)).all()


def test_transformations_and_halves():
    a = logits(3, 6, 2.0)
    half = a.astype(jnp.bfloat16)
    assert stable.softmax(half).dtype == stable.logsumexp(half).dtype == jnp.bfloat16
    assert jax.grad(stable.logsumexp)(half).dtype == jnp.bfloat16
    rows = np.stack([a, a[::-1], -a])
    mapped = jax.vmap(jax.grad(lambda r: stable.log_softmax(r)[0]))(rows)
    np.testing.assert_allclose(mapped[1], jax.grad(lambda r: stable.log_softmax(r)[0])(rows[1]), rtol=1e-6)
    total, _ = jax.lax.scan(lambda c, r: (c + stable.logsumexp(r), None), jnp.float32(0), rows)
    np.testing.assert_allclose(total, sum(stable.logsumexp(r) for r in rows), rtol=1e-6)


def test_refusals():
    with pytest.raises(StableError, match="log_cosh takes real numbers"):
        stable.log_cosh(1j)
    with pytest.raises(StableError, match=r"softmax got axis=2 for an array of 1 axes"):
        stable.softmax(np.ones(3), 2)
    with pytest.raises(StableError, match=r"labels float32\[\] for logits float32\[3\]"):
        stable.softmax_cross_entropy_with_integer_labels(jnp.ones(3), jnp.float32(1))
