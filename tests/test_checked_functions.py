"""`assert_no_redundant_work` as a decorator: checked once for each set of shapes, and run as it is."""

import warnings

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from jaxpartials import assert_no_redundant_work
from jaxpartials.inspection.report import _Reporting

pytestmark = pytest.mark.usefixtures("optimised")


def equal(x, w, turns=9):
    return lax.scan(lambda c, _: ((jnp.tanh(c[0] @ w), jnp.tanh(c[1] @ w)), None), (x, x), None, turns)[0]


def one(x, w, turns=9):
    return lax.scan(lambda c, _: (jnp.tanh(c @ w), None), x, None, turns)[0]


X, W = jnp.linspace(0.0, 1.0, 32 * 48).reshape(32, 48), jnp.eye(48)


@pytest.fixture
def checks(monkeypatch):
    """The shapes of each program that is compiled for a check."""
    seen = []
    judged = _Reporting.judged

    def noting(self, call):
        seen.append([array.shape for array in call.arrays])
        return judged(self, call)

    monkeypatch.setattr(_Reporting, "judged", noting)
    return seen


def test_it_is_checked_once_for_each_set_of_shapes(checks):
    checked = assert_no_redundant_work()(one)
    for x in (X, 2 * X, X[:3], X[3:6]):
        assert (checked(x, W) == one(x, W)).all()
    assert checks == [[(32, 48), (48, 48)], [(3, 48), (48, 48)]]
    checked(X, W, turns=3)  # another program
    checked(X, w=W, turns=3)
    assert checks[2:] == [[(32, 48), (48, 48)]] * 2
    assert (checked.__name__, checked.__wrapped__) == ("one", one)


def test_redundant_work_fails_at_every_call(checks):
    checked = assert_no_redundant_work(tolerance=0.1)(equal)
    for _ in range(2):
        with pytest.raises(AssertionError, match=r"equal does redundant work, about 4\d% of the program"):
            checked(X, W)
    assert len(checks) == 2


@pytest.mark.parametrize("passing", [{"tolerance": 0.6}, {"ignore": ["carries always equal"]}])
def test_tolerance_and_ignore_are_those_of_the_function(passing):
    @assert_no_redundant_work(**passing)
    def checked(x):
        return equal(x, W)

    assert (checked(X)[0] == equal(X, W)[0]).all()


def test_what_is_ignored_is_looked_at_when_it_decorates():
    with pytest.raises(ValueError, match="no kind of finding"):
        assert_no_redundant_work(ignore=["carries equal"])
    with pytest.raises(TypeError, match="a function before its arguments"):
        assert_no_redundant_work(None, X)


@pytest.mark.parametrize("around", [jax.jit, jax.vmap, lambda f: lambda x: jax.jvp(f, (x,), (x,))[0]])
def test_under_transformations_it_is_checked_for_the_shapes_inside(around, checks):
    batch = jnp.stack([X, 2 * X])
    checked = assert_no_redundant_work()(lambda x: one(x, W))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert jnp.allclose(around(checked)(batch), around(lambda x: one(x, W))(batch), atol=1e-6)
    assert checks == [[(32, 48)] if around is jax.vmap else [(2, 32, 48)]]
    wasteful = assert_no_redundant_work()(lambda x: equal(x, W))
    with pytest.raises(AssertionError, match="carries always equal"):
        around(wasteful)(batch)


def test_jitted_functions_and_methods():
    class Model:
        @assert_no_redundant_work()
        def __call__(self, x):
            return one(x, W)

    assert (Model()(X) == one(X, W)).all()
    with pytest.raises(AssertionError):
        assert_no_redundant_work()(jax.jit(equal))(X, W)
