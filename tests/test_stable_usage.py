"""Operations of `jaxpartials.stable` in everyday use: dtypes, axes, tangents that are held, what was once wrong."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import optax
import pytest

from jaxpartials import stable
from jaxpartials.errors import StableError

pytestmark = pytest.mark.usefixtures("optimised")

inf, nan = np.inf, np.nan
MATRIX = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)


# ---- single points


@pytest.mark.parametrize("x", [0.0, 5e-324, 1e-310, 1e-300, 3e-16, 1e-12, 1e-8, 9.9e-7, 1.1e-6, 1e-3])
def test_float64_is_not_cut_off_where_float32_is(x):
    with jax.enable_x64(True), mpmath.workdps(60):
        at = mpmath.mpf(x)
        half = mpmath.sincpi(at / (2 * mpmath.pi))
        for fn, true in (
            (lambda x: stable.sinc(x, normalized=False), mpmath.sinc(at)),
            (stable.cosc, half * half / 2),
        ):
            np.testing.assert_allclose(float(fn(x)), float(true), rtol=9e-16)


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_arguments_that_are_held_add_nothing_to_forward_derivatives(transform):
    forward, by_y = jax.jacfwd, 1
    derivative, found = stable.divide, []
    for _ in range(3):
        derivative = forward(derivative, by_y)
        found.append(float(transform(derivative)(1.0, 0.0)))
    assert found == [-inf, inf, -inf]
    at = (6.549727e-20, 6.549871e-20)
    mixed = (
        forward(forward(stable.divide, 0), 1),
        forward(forward(stable.divide, 1), 0),
        forward(jax.grad(stable.divide), 1),
        jax.grad(forward(stable.divide, 1)),
    )
    for fn in mixed:
        np.testing.assert_allclose(float(transform(fn)(*at)), -(np.float64(np.float32(at[1])) ** -2), rtol=1e-6)
    # Linear in each tangent still: it can be transposed, and mapped.
    value, along = jax.linearize(stable.divide, 3.0, 2.0)
    assert (float(value), float(along(1.0, 1.0))) == (1.5, -0.25)
    np.testing.assert_allclose(jax.vjp(stable.divide, 3.0, 2.0)[1](1.0), (0.5, -0.75))
    rows = jax.vmap(forward(stable.divide, (0, 1)))(jnp.array([3.0, 1.0]), jnp.array([2.0, 4.0]))
    np.testing.assert_allclose(rows, ([0.5, 0.25], [-0.75, -0.0625]))


@pytest.mark.parametrize(("dtype", "large"), [("float32", 1e38), ("float64", 1e308)])
@pytest.mark.parametrize("p", [1, 1.01, 1.5])
def test_norms_next_to_the_largest_number(dtype, large, p):
    with jax.enable_x64(True):
        x = jnp.array([large, large / 2], dtype)
        size = 1.5 if p == 1 else (1 + 0.5**p) ** (1 / p)
        np.testing.assert_allclose(stable.normalize(x, ord=p), np.array([1, 0.5]) / size, rtol=1e-6)
        true = np.array([1, 0.5]) ** (p - 1) * size ** (1 - p)
        np.testing.assert_allclose(jax.grad(lambda x: stable.norm(x, p))(x), true, rtol=1e-6)


def test_normal_numbers_whose_difference_is_not():
    for fn, by, at, true in (
        (stable.kl_div, 0, (2.3186548606190513e-38, 2.3198200402921374e-38), lambda x, y: mpmath.log(x / y)),
        (stable.kl_div, 1, (2.3186548606190513e-38, 2.3198200402921374e-38), lambda x, y: 1 - x / y),
        (stable.rel_entr, 0, (2.69863e-38, 2.447176e-38), lambda x, y: 1 + mpmath.log(x / y)),
        (stable.rel_entr, 0, (7.6849394e-38, 2.088983e-37), lambda x, y: 1 + mpmath.log(x / y)),
    ):
        with mpmath.workdps(60):
            expected = float(true(*(mpmath.mpf(float(np.float32(x))) for x in at)))
        np.testing.assert_allclose(jax.jit(jax.grad(fn, by))(*at), expected, rtol=1e-6)


@pytest.mark.parametrize(("order", "xs"), [(1, np.geomspace(1e10, 5e19, 40)), (2, np.geomspace(1e6, 1e13, 40))])
def test_log1prel_falls_to_the_smallest_numbers(order, xs):
    derivative = stable.log1prel
    for _ in range(order):
        derivative = jax.grad(derivative)
    got = jax.jit(jax.vmap(derivative))(np.float32(xs))
    with mpmath.workdps(60):
        true = [float(mpmath.diff(lambda t: mpmath.log(1 + t) / t, mpmath.mpf(float(x)), order, relative=True))
                for x in np.float32(xs)]  # fmt: skip
    normal = np.abs(true) > 2e-38
    np.testing.assert_allclose(np.float64(got)[normal], np.asarray(true)[normal], rtol=1e-6)


def test_of_a_factor_0_nan_does_not_count():
    a, b = jnp.array([1.0, nan]), jnp.array([1.0, 0.0])
    assert float(stable.logsumexp(a, b=b)) == 1
    assert [float(v) for v in stable.logsumexp(a, b=b, return_sign=True)] == [1, 1]
    assert jax.grad(stable.logsumexp)(a, b=b).tolist() == [1, 0]
    assert np.isnan(stable.logsumexp(a, b=jnp.array([1.0, 2.0])))
    # A number counts for the derivative by its factor: exp(a₂ − a₁).
    by_factor = jax.grad(lambda b: stable.logsumexp(jnp.array([1.0, 3.0]), b=b))(b)
    np.testing.assert_allclose(by_factor, [1, np.exp(2)], rtol=1e-6)


@pytest.mark.parametrize("fn", [stable.rel_entr, stable.kl_div])
def test_outside_the_domain_every_derivative_is_nan(fn):
    third = jax.grad(jax.grad(jax.grad(fn, 1), 0), 0)
    assert np.isnan(third(1.0, -1.0))
    assert float(third(1.0, 2.0)) == 0


# ---- promotion

PAIRS = [
    (1.0, 2.0), (jnp.int32(1), 2.0), (1, jnp.float32(2)), (np.float32(1), 2.0), (1, 2.0), (2.0, np.int32(1)),
    (jnp.float16(2), np.float32(0.1)), (jnp.float16(2), 2), (jnp.float16(2), np.int32(2)),
    (jnp.float16(2), np.float64(0.5)), (2, np.float32(1)), (2, np.float64(1)), (jnp.bfloat16(2), 0.5),
    (jnp.ones(3), np.float64(0.5)), (jnp.float32(2), np.complex64(1j)), (1j, 2.0),
]  # fmt: skip


@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize(
    ("ours", "plain"),
    [(stable.power, jnp.power), (stable.divide, jnp.divide), (stable.logaddexp, jnp.logaddexp)],
    ids=["power", "divide", "logaddexp"],
)
def test_two_arguments_promote_as_in_jax(ours, plain, x64):
    with jax.enable_x64(x64):
        for pair in PAIRS:
            got, expected = ours(*pair), plain(*pair)
            assert (got.dtype, got.weak_type) == (expected.dtype, expected.weak_type), pair


@pytest.mark.parametrize("x", [1.0, 1, np.float32(1), jnp.int32(1), jnp.bfloat16(1), 1j, True])
def test_one_argument_is_promoted_as_in_jax(x):
    for got, expected in ((stable.tanh(x), jnp.tanh(x)), (jax.jit(stable.tanh)(x), jax.jit(jnp.tanh)(x))):
        assert (got.dtype, got.weak_type) == (expected.dtype, expected.weak_type)


def test_results_of_python_numbers_give_way():
    assert (stable.tanh(1.0) * jnp.bfloat16(2)).dtype == jnp.bfloat16
    summed = jax.lax.while_loop(lambda c: c < 3, lambda c: c + stable.tanh(1.0), jnp.bfloat16(0))
    assert summed.dtype == jnp.bfloat16
    assert jax.grad(stable.tanh)(1.0).weak_type
    assert not stable.tanh(jnp.float32(1)).weak_type


# ---- jax_debug_nans


@pytest.mark.parametrize("a", [[1.0, -inf], [-inf, -inf], [inf, 1.0], [1.0, 2.0]], ids=str)
@pytest.mark.parametrize(
    "fn",
    [
        stable.softmax,
        stable.log_softmax,
        stable.logsumexp,
        lambda a: stable.logsumexp(a, b=jnp.array([1.0, 2.0])),
        lambda a: stable.softmax(a, where=jnp.array([True, False])),
        lambda a: stable.softmax_cross_entropy_with_integer_labels(a, 0),
    ],
    ids=["softmax", "log_softmax", "logsumexp", "factors", "where", "labels"],
)
def test_no_nan_is_seen_on_the_way(fn, a):
    with jax.debug_nans(True):
        fn(jnp.array(a))
        jax.grad(lambda a: fn(a).sum())(jnp.array(a))


# ---- axes and orders of norms


def test_axes_are_spelled_as_in_numpy():
    for fn, plain in ((stable.var, np.var), (stable.std, np.std), (stable.norm, np.linalg.norm)):
        for axis in (0, -1, np.int64(0), (0,), (0, 1), (-1, 0), None):
            np.testing.assert_allclose(fn(MATRIX, axis=axis), plain(MATRIX, axis=axis), rtol=1e-6)
    for axis in ([0], np.int32(0), (0,)):
        np.testing.assert_allclose(stable.logsumexp(MATRIX, axis=axis), jax.nn.logsumexp(MATRIX, 0), rtol=1e-6)
    np.testing.assert_allclose(stable.normalize(MATRIX, axis=None), MATRIX / np.linalg.norm(MATRIX), rtol=1e-6)


@pytest.mark.parametrize("ord", [2, np.float32(2), np.int64(1), 1, inf, np.float64(inf), -inf, 0, 3.5])
def test_orders_of_norms_are_numbers_of_any_kind(ord):
    np.testing.assert_allclose(stable.norm(MATRIX[1], ord), np.linalg.norm(MATRIX[1], ord), rtol=1e-6)


@pytest.mark.parametrize("ord", [None, 1, 2, inf, 0])
def test_a_vector_without_elements_has_norm_0(ord):
    assert float(stable.norm(jnp.zeros(0), ord)) == 0
    assert stable.norm(jnp.zeros((2, 0)), ord, axis=1).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: stable.norm(MATRIX, 2, axis=(0, 1)), "takes vectors, and got.* with 2 axes"),
        (lambda: stable.norm(MATRIX, inf, axis=(0, 1)), "takes vectors, and got.* with 2 axes"),
        (lambda: stable.norm(MATRIX, 1), "takes vectors, and got.* with 2 axes"),
        (lambda: stable.norm(jnp.zeros(0), -inf), "at least one element"),
        (lambda: stable.norm(MATRIX, axis="a"), "axis 'a' is none of"),
        (lambda: stable.norm(MATRIX, axis=(0, -2)), "names an axis twice"),
        (lambda: stable.logsumexp(MATRIX, axis="a"), "logsumexp got axis='a'"),
        (lambda: stable.softmax(MATRIX, axis=(1, 1)), "names an axis twice"),
        (lambda: stable.var(MATRIX, axis=(0, 0)), "var got axis=.* names an axis twice"),
        (lambda: stable.var(MATRIX, dtype=jnp.int32), "var got dtype=int32"),
        (lambda: stable.std(MATRIX, dtype="spam"), "std got dtype='spam'"),
        (lambda: stable.var(1j * MATRIX, dtype=jnp.float32), "result is real anyway"),
        (lambda: stable.cosine_similarity(MATRIX, MATRIX, axis=2), "axis 2 is none of"),
        (lambda: stable.tanh(jax.random.key(0)), "tanh takes arrays of numbers"),
        (lambda: stable.tanh(np.array([object()])), r"tanh takes arrays of numbers, and got object\[1\]"),
        (lambda: stable.softmax(np.array([1, 2], object)), "softmax takes arrays of numbers"),
        (lambda: stable.divide(None, 1.0), "divide takes arrays of numbers"),
        (lambda: stable.power("x", np.float32(2)), "power takes arrays of numbers"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(StableError, match=message):
        call()


def test_the_dtype_of_a_variance():
    x = MATRIX[0]
    for dtype in ("float16", jnp.bfloat16, float, jnp.complex64):
        got, expected = stable.var(x, dtype=dtype), jnp.var(x, dtype=dtype)
        assert got.dtype == expected.dtype
        np.testing.assert_allclose(np.complex64(got), np.complex64(expected))


# ---- cosine_similarity


@pytest.mark.parametrize("options", [{"epsilon": 0.4}, {"epsilon": 1e-3}, {"epsilon": jnp.float32(0.4)}, {"axis": None},
                                     {"epsilon": 0.4, "where": jnp.array([True, False, True])}], ids=str)  # fmt: skip
def test_options_of_the_cosine_similarity_are_those_of_optax(options):
    x = jnp.array([[0.1, 0.2, 0.3], [1.0, 2.0, 3.0], [0.3, 0.1, -0.5], [0.0, 0.0, 0.0]])
    y = jnp.array([[1.0, 2.0, -3.0], [0.1, 0.2, 0.5], [0.1, 0.1, 0.2], [1.0, 0.0, 1.0]])
    ours = lambda x, y: stable.cosine_similarity(x, y, **options)
    plain = lambda x, y: optax.cosine_similarity(x, y, **options)
    close = lambda got, expected: np.testing.assert_allclose(got, expected, rtol=2e-5, atol=1e-5)
    close(ours(x, y), plain(x, y))
    total = lambda fn: lambda x, y: fn(x, y).sum()
    jax.tree.map(close, jax.grad(total(ours), (0, 1))(x, y), jax.grad(total(plain), (0, 1))(x, y))
    jax.tree.map(close, jax.hessian(total(ours), (0, 1))(x, y), jax.hessian(total(plain), (0, 1))(x, y))


def test_a_bound_on_norms_is_stable_too():
    ours = lambda x, y: stable.cosine_similarity(x, y, epsilon=1e-30)
    # √ε = 1e-15; these squares leave the range.
    x, y = jnp.array([3e-25, 4e-25]), jnp.array([1e25, 0.0])
    np.testing.assert_allclose(ours(x, y), 3e-10, rtol=1e-6)
    np.testing.assert_allclose(jax.grad(ours)(x, y), [1e15, 0], rtol=1e-6)
    np.testing.assert_allclose(ours(jnp.array([3e25, 4e25]), y), 0.6, rtol=1e-6)
    assert jax.grad(ours, (0, 1))(jnp.zeros(2), y)[1].tolist() == [0, 0]
