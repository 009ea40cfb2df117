"""Every operation of `jaxpartials.stable` against mpmath at 420 digits, on the grids of the benchmarks."""

import functools

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

import jaxpartials as jp
from benchmarks.stability import accuracy
from benchmarks.stability.cases import CASES
from jaxpartials import stable

# The compiler is the adversary: it rewrites (a/b)/b to a/(b·b).
pytestmark = pytest.mark.usefixtures("optimised")

# In the scope of the module all tests of one case run one after another, and share what is cached.
cases = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys(), scope="module")
elementwise = pytest.mark.parametrize(
    "case", [case for case in CASES.values() if not case.vector], ids=lambda c: c.name, scope="module"
)
MOST = 80


def orders_up_to(case, highest):
    found = [orders for n in range(highest + 1) for orders in accuracy.multi_orders(len(case.grids), n)]
    # Of a vector's many third derivatives, some of each kind: compiling takes the time.
    kinds = lambda orders: list(orders) in (sorted(orders), sorted(orders, reverse=True))
    return [orders for orders in found if sum(orders) < 3 or not case.vector or kinds(orders)]


@functools.cache
def compiled(case):
    """The derivatives up to order 3, at all points."""
    return accuracy.computed_together(case.stable, orders_up_to(case, 3), accuracy.points(case, MOST))


def check(case, orders, values):
    found = accuracy.errors(case, None, orders, most=MOST, values=values)
    assert found.worst <= case.bounds[sum(orders)], f"{case.name}, {found}"


@cases
def test_all_orders_are_within_the_bounds_promised_jitted(case):
    for orders, values in compiled(case).items():
        check(case, orders, values)


@cases
def test_all_orders_are_within_the_bounds_promised_eagerly(case):
    rows = accuracy.points(case, MOST)
    for orders in orders_up_to(case, 2):
        check(case, orders, accuracy.computed(case.stable, orders, rows, jit=False))


@cases
def test_what_is_too_small_is_finite_and_what_is_too_large_is_not(case):
    tiny, huge = float(jnp.finfo(jnp.float32).tiny), float(jnp.finfo(jnp.float32).max)
    rows = accuracy.points(case, MOST)
    for orders in orders_up_to(case, 2):
        for row, value in zip(rows, compiled(case)[orders], strict=True):
            at = tuple(map(float, row))
            true = accuracy.exact(case.true, orders, at)
            if case.vector:
                # The elements err with the largest; where that overflows they may be nan, but never a wrong number.
                if accuracy.scale(case, orders, at, true) < huge / 2:
                    assert np.isfinite(value), (case.name, orders, row, value)
                elif abs(true) > huge:
                    assert not abs(value) < huge / 2, (case.name, orders, row, value)
            elif abs(true) < tiny:
                # Underflow is to zero, or to a subnormal number.
                assert abs(value) <= 2 * tiny, (case.name, orders, row, value)
            elif abs(true) > huge:
                assert abs(value) > huge / 2, (case.name, orders, row, value)
                assert np.sign(value) == mpmath.sign(true), (case.name, orders, row, value)


@cases
def test_reverse_over_reverse_is_as_accurate(case):
    seconds = {}
    for orders in accuracy.multi_orders(len(case.grids), 2):
        first, second = (k for k, n in enumerate(orders) for _ in range(n))
        seconds[orders] = jax.grad(jax.grad(case.stable, first), second)
    twice = jax.jit(jax.vmap(lambda *xs: {orders: fn(*xs) for orders, fn in seconds.items()}))
    for orders, values in twice(*accuracy.points(case, MOST).T).items():
        check(case, orders, np.asarray(values).astype(np.float64))


@cases
@pytest.mark.skipif(jax.__version_info__ < (0, 11), reason="the newest JAX tells whether an operation can be retired")
def test_plain_jax_needs_it_still(case):
    """Fails where JAX itself has become accurate: the operation can be retired."""
    bad = (
        accuracy.errors(case, case.plain, orders, most=MOST).bad(case.bounds[sum(orders)])
        for orders in orders_up_to(case, 3)
    )
    assert any(bad) != case.plain_is_accurate, f"{case.name}: the plain operation is no worse"


@elementwise
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_halves_are_rounded_once(case, dtype):
    eps, tiny, huge = (float(getattr(jnp.finfo(dtype), name)) for name in ("eps", "tiny", "max"))
    points = accuracy.points(case, MOST)
    rows = np.asarray(jnp.asarray(points).astype(dtype).astype(jnp.float32))
    # Rounding may lead out of the domain.
    inside = [row.all() and case.within(*map(float, row)) for row in rows]
    rows = rows[np.asarray(inside) & (rows > points.min(0)).all(1) & (rows < points.max(0)).all(1)]
    found = accuracy.computed_together(case.stable, orders_up_to(case, 1), jnp.asarray(rows).astype(dtype))
    for orders, got in found.items():
        for row, value in zip(rows, got, strict=True):
            true = float(accuracy.exact(case.true, orders, tuple(map(float, row))))
            if tiny <= abs(true) <= huge:
                assert abs(value - true) <= 0.51 * eps * abs(true), (case.name, orders, row, value, true)


@cases
def test_float64_is_as_accurate(case):
    with jax.enable_x64(True):
        rows = accuracy.points(case, 40).astype(np.float64)
        for orders, got in accuracy.computed_together(case.stable, orders_up_to(case, 2), rows).items():
            for row, value in zip(rows, got, strict=True):
                at = tuple(map(float, row))
                true = accuracy.exact(case.true, orders, at)
                scale = accuracy.scale(case, orders, at, true)
                if 1e-300 <= scale <= 1e300:
                    error = abs(mpmath.mpf(value) - true) / scale / float(jnp.finfo(jnp.float64).eps)
                    assert error <= 2 * case.bounds[sum(orders)], (case.name, orders, row, value, true, error)


@elementwise
def test_it_goes_through_every_transformation(case):
    rows = accuracy.points(case, MOST)
    rows = rows[(np.abs(rows) > 1e-2).all(1) & (np.abs(rows) < 50).all(1)][:5]
    if not len(rows):
        pytest.skip("the domain holds no everyday number")
    xs = tuple(jnp.asarray(rows.T))
    names = [f"x{k}" for k in range(len(xs))]
    namespace = {"op": case.stable}
    exec(f"def u({', '.join(names)}): return op({', '.join(names)})", namespace)
    u = namespace["u"]
    expected = jax.vmap(jax.grad(u))(*xs)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-30)
    planned = jp.partials(u, ["u/x0", "u/x0^2"])
    first, second = jax.vmap(planned)(*xs)
    close(first, expected)
    close(second, jax.vmap(jax.jacfwd(jax.grad(u)))(*xs))
    close(jax.vmap(jp.simplify(jax.grad(u)))(*xs), expected)
    close(jax.lax.scan(lambda c, x: (c, jax.grad(u)(*x)), 0.0, xs)[1], expected)
    close(jax.vmap(jax.grad(jax.checkpoint(u)))(*xs), expected)
    close(jax.vmap(jax.jacfwd(u))(*xs), expected)


@elementwise
def test_arguments_are_promoted_and_broadcast(case):
    row = tuple(map(float, accuracy.points(case, MOST)[-1]))
    wide = case.stable(*(jnp.full((2, 1, 3)[k:], x) for k, x in enumerate(row)))
    assert wide.shape == (2, 1, 3)
    assert wide.dtype == jnp.float32
    np.testing.assert_array_equal(wide, jnp.full((2, 1, 3), case.stable(*row)))


@pytest.mark.parametrize("name", ["hypot", "logsumexp"])
def test_the_truth_is_that_of_mpmath(name):
    """The derivatives by several arguments share their values; mpmath's own take each by itself."""
    case = CASES[name]
    row = tuple(map(float, accuracy.points(case, MOST)[7]))
    for orders in orders_up_to(case, 3):
        if any(orders):
            with mpmath.workdps(accuracy.DIGITS):
                alone = mpmath.diff(case.true, tuple(map(mpmath.mpf, row)), orders)
                assert abs(accuracy.exact(case.true, orders, row) - alone) <= mpmath.mpf(10) ** -200 * abs(alone)


def test_what_is_no_array_of_numbers_is_refused():
    with pytest.raises(jp.errors.StableError, match=r"tanh takes arrays of numbers, and got str 'x'"):
        stable.tanh("x")
