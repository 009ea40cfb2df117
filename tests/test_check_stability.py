"""`check_stability`: the planted culprits are found, their twins are silent, and what is reported is true."""

import inspect
import json
import math

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from jax import lax
from unstable_zoo import CASES, VECTOR

from jaxpartials.errors import StabilityError
from jaxpartials.stability import arithmetic
from jaxpartials.stability.arithmetic import Multiple, NoisyFloat64
from jaxpartials.stability.check import assert_stable, check_stability
from jaxpartials.stability.measure import measure
from jaxpartials.stability.ranges import Range
from jaxpartials.stability.reference import Tape
from jaxpartials.stability.results import COMPILED
from jaxpartials.stability.stabilize import stabilize
from jaxpartials.stability.truth import digits_of, rowwise

POINTS = 48


def arguments(case):
    return [Range(*each, shape=(VECTOR,) if case.vector else ()) for each in case.ranges]


def lines_of(report):
    return [culprit.place.line for culprit in report.culprits]


def line_of(fn, text):
    lines, first = inspect.getsourcelines(fn)
    (found,) = (first + i for i, line in enumerate(lines) if text in line)
    return found


# ---- the planted culprits


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_planted_line_is_the_culprit(case):
    report = check_stability(case.fn, *arguments(case), points=POINTS)
    assert lines_of(report)[0] == case.line, report
    assert report.culprits[0].place.function == case.name


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_stable_twin_is_silent(case):
    report = check_stability(case.twin, *arguments(case), points=POINTS)
    assert not report.losses, report
    assert all(each.points for each in report.accuracies)


def test_a_while_loop_is_differentiated_forwards():
    def halved(x):
        y = lax.while_loop(lambda y: y > 1, lambda y: y / 2, x)
        return 1 - jnp.exp(-y * 1e-6)

    report = check_stability(halved, (0.5, 100.0), points=20)
    assert [loss.order for loss in report.losses] == [0]
    assert [each.order for each in report.accuracies] == [0, 1, 2]


# ---- what is advised helps


def test_what_does_not_help_is_not_advised():
    """The quotient is one that a row knows, but the logarithm loses all bits of it at 0."""
    report = check_stability(lambda x: jnp.log((1 + x) / (1 - x)), (-0.9, 0.9), orders=(0,), points=POINTS)
    (loss,) = report.losses
    assert (loss.culprit.primitive, loss.culprit.instead) == ("log", "")


def test_of_the_formulas_on_a_line_those_that_help_are_advised():
    """Both differences have to go, and the logarithm need not."""
    fn = lambda a, b, x: (jnp.exp(a * x) - 1) / (jnp.exp(b * x) - 1) * jnp.log(1 + jnp.exp(a))
    report = check_stability(fn, (0.5, 2.0), (0.5, 2.0), (1e-12, 1e-8), orders=(0,), points=POINTS)
    (loss,) = report.losses
    assert loss.culprit.instead == "expm1 x"
    assert {one.operation for one in stabilize(fn).replacements(1.0, 1.0, 1.0)} > {"expm1 x"}


# ---- the reference


ELEMENTWISE = {
    "add": 2, "sub": 2, "mul": 2, "div": 2, "rem": 2, "max": 2, "min": 2, "pow": 2, "atan2": 2,
    "neg": 1, "abs": 1, "sign": 1, "floor": 1, "ceil": 1, "round": 1, "square": 1, "sqrt": 1, "rsqrt": 1, "cbrt": 1,
    "exp": 1, "exp2": 1, "expm1": 1, "log": 1, "log1p": 1, "sin": 1, "cos": 1, "tan": 1, "asin": 1, "acos": 1,
    "atan": 1, "sinh": 1, "cosh": 1, "tanh": 1, "asinh": 1, "acosh": 1, "atanh": 1, "logistic": 1, "erf": 1,
    "erfc": 1, "erf_inv": 1, "lgamma": 1, "digamma": 1, "bessel_i0e": 1, "bessel_i1e": 1, "igamma": 2, "igammac": 2,
    "eq": 2, "ne": 2, "lt": 2, "le": 2, "gt": 2, "ge": 2, "is_finite": 1,
}  # fmt: skip


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_every_function_of_the_reference_is_the_primitive(name):
    rng = np.random.default_rng(3)
    xs = [rng.uniform(0.1, 0.9, 6).astype(np.float32) for _ in range(ELEMENTWISE[name])]
    if name == "acosh":
        xs = [1 + x for x in xs]
    expected = np.asarray(getattr(lax, name)(*xs))
    for reference in (Multiple(30), NoisyFloat64(0)):
        function = reference.function(name, {})
        if function is not None:
            got = np.asarray(function(*map(reference.lift, xs)))
            np.testing.assert_allclose(got.astype(np.float64), expected.astype(np.float64), rtol=1e-5, atol=1e-12)


def structures(x):
    """Equations that move, sum and compare: every one with sizes that differ."""
    a = jnp.transpose(x)[::-1, 1:]
    b = jnp.concatenate([a, jnp.pad(a, ((0, 0), (0, 1)))[:, 1:]], axis=0)
    c = jnp.where(b > 0.5, jnp.cumsum(b, axis=1), jnp.cumprod(b, axis=0))
    d = jnp.sort(c, axis=1) @ jnp.take(x, jnp.array([2, 0]), axis=0)
    e = d.at[1, jnp.array([0, 0])].add(x[0, :2]).at[0, 2].set(7.0)
    f = lax.dynamic_slice(e, (jnp.argmax(e[:, 0]), 1), (2, 2)).astype(jnp.float16).astype(jnp.float32)
    total, rows = lax.scan(lambda s, row: (s * row[0] + 1, row.max()), 1.0, e)
    _, halved = lax.while_loop(lambda s: s[1] > 0.1, lambda s: (s[0] + 1, s[1] / 2), (0, x[0, 0]))
    chosen = lax.cond(total > 0, lambda v: v.prod(), lambda v: v.sum(), rows)
    return f, total, rows, halved, chosen, jnp.einsum("ij,kj->ik", x, d), jnp.round(x * 3).astype(int) + 0.5, x.min(1)


@pytest.mark.parametrize("derive", [False, True], ids=["value", "derivative"])
def test_the_reference_runs_what_jax_runs(derive):
    x = np.random.default_rng(0).uniform(0.2, 1.5, (2, 3, 4)).astype(np.float32)
    total = lambda x: sum(jnp.sum(y * y) for y in structures(x))
    fn = (lambda x: jax.jvp(total, (x,), (jnp.cos(x),))[1]) if derive else structures
    expected = jax.tree.leaves(jax.vmap(fn)(x))
    for reference in (Multiple(30), NoisyFloat64(0)):
        made = Tape.of(rowwise(lambda x: jax.tree.leaves(fn(x)), [x]), [x], reference).results
        for got, want in zip(made, expected, strict=True):
            np.testing.assert_allclose(got.astype(np.float64), np.asarray(want), rtol=2e-3)


def test_the_truth_is_the_derivative():
    """Against mpmath's own numerical differentiation of a formula written apart."""
    report = check_stability(lambda x: jnp.log(1 + x) * jnp.tanh(x), (1e-12, 30.0), points=40)
    assert report.losses
    for loss in report.losses:
        (_, x), *_ = loss.worst
        with mpmath.workdps(100):
            true = mpmath.diff(lambda x: mpmath.log(1 + x) * mpmath.tanh(x), mpmath.mpf(x), loss.order)
        assert math.isclose(loss.true, true, rel_tol=1e-7)


# ---- what is measured


def test_bits_nan_inf_and_zero_are_counted():
    got = np.array([[1 + 2**-10, 1], [np.nan, 1], [np.inf, 1], [0, 1], [1, 1], [np.inf, 1], [np.nan, 1]], np.float32)
    true = np.array([[1, 1]] * 5 + [[1e60, 1], [np.nan, 1]], object)
    found = measure(got, true, np.ones(7, bool))
    assert found.bits.tolist() == [14, 24, 24, 24, 0, 0, 0]
    assert [found.nan.sum(), found.inf.sum(), found.zero.sum()] == [1, 1, 1]
    assert found.nan[1]
    assert found.inf[2]
    assert found.zero[3]


def test_regions_are_where_the_function_is_wrong():
    def step(x):
        return jnp.where(x > 1e-3, x, (1 + x) - 1)

    (loss,) = check_stability(step, (1e-20, 1e20), orders=(0,)).losses
    low, high = (float(part) for part in loss.region.removeprefix("x in [").removesuffix("]").split(","))
    assert low == pytest.approx(1e-20)
    assert 1e-7 < high < 1e-3
    assert loss.zero > 0
    assert loss.nan == 0


def test_a_root_of_the_result_is_no_loss():
    assert_stable(lambda x: x * x - 2, (1.0, 2.0), points=200)
    assert_stable(jnp.sin, (-300.0, 300.0))


def test_an_error_of_the_compiled_program_alone_is_told(optimised):
    @jax.custom_jvp
    def quotient(a, b):
        return a / b

    @quotient.defjvp
    def _(xs, dxs):
        (a, b), (da, db) = xs, dxs
        return quotient(a, b), da / b - (a / b) / b * db

    report = check_stability(quotient, (1e-30, 1e30), (1e-30, 1e30), orders=(1,), points=80)
    assert {loss.runs for loss in report.losses} == {COMPILED}
    assert {loss.culprit.how for loss in report.losses} == {"compiler"}
    assert {loss.derivative for loss in report.losses} == {"∂f/∂b"}


# ---- arguments


def test_arrays_are_tried_as_they_are():
    logits = jnp.array([[0.0, 150.0, 1.0], [2.0, -1.0, 0.5]])

    def loss(params, labels, scale):
        return -scale * jnp.mean(jnp.log(jax.nn.softmax(params["logits"])) * labels)  # here

    report = check_stability(loss, {"logits": logits}, jnp.eye(3)[:2], 2, orders=(0, 1))
    assert set(lines_of(report)) == {line_of(loss, "# here")}
    assert "∂f/∂params['logits']" in {each.derivative for each in report.accuracies}


def test_sums_that_cancel_by_chance_are_no_loss():
    rng = np.random.default_rng(0)
    x, w = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((5, 16), (16, 3)))
    assert_stable(lambda w, x: jnp.mean(jnp.square(x @ w)), w, x, orders=(0, 1))
    assert_stable(lambda x: x - jnp.mean(x), x, orders=(0, 1))


def test_a_step_inside_a_loop_is_found():
    def powers(x):
        def turn(y, _):
            e = jnp.exp(y)
            return e - 1.0, None  # here

        return lax.scan(turn, x, None, length=2)[0]

    report = check_stability(powers, (1e-12, 1e-3), points=20, orders=(0,))
    assert lines_of(report) == [line_of(powers, "# here")]


@jax.custom_jvp
def with_jvp(x):
    return jnp.log(1 + jnp.exp(x))  # here


with_jvp.defjvp(lambda x, dx: (with_jvp(*x), dx[0] * jax.nn.sigmoid(x[0])))


@jax.custom_vjp
def with_vjp(x):
    return jnp.log(1 + jnp.exp(x))


with_vjp.defvjp(lambda x: (with_vjp(x), x), lambda x, g: (g * jnp.exp(x) / (1 + jnp.exp(x)),))


def soft(x):
    return jnp.log(1 + jnp.exp(x))  # here


BODIES = {
    "jit": jax.jit(soft),
    "scan": lambda x: lax.scan(lambda y, _: (soft(y), None), x, None, length=2)[0],
    "cond": lambda x: lax.cond(x > -20, soft, jnp.exp, x),
    "vmap": lambda x: jax.vmap(soft)(jnp.stack([x, -x]))[0],
    "checkpoint": jax.checkpoint(soft),
    "custom_jvp": with_jvp,
}


@pytest.mark.parametrize("body", BODIES)
def test_a_step_inside_any_body_is_found_and_the_operation_is_named(body):
    at_zero = check_stability(BODIES[body], (-60.0, 200.0), points=24, orders=(0, 1))
    where = line_of(with_jvp.__wrapped__ if body == "custom_jvp" else soft, "# here")
    assert set(lines_of(at_zero)) == {where}
    assert {one.instead for one in at_zero.culprits} == {"jaxpartials.stable.softplus"}
    # Of a custom rule the derivative is the user's, and here it is accurate.
    assert {loss.order for loss in at_zero.losses} == ({0} if body == "custom_jvp" else {0, 1})


def test_the_rule_of_a_custom_vjp_is_checked_as_it_stands():
    """JAX knows of its equations where the function was called."""

    def twice(x):
        y = with_vjp(x)  # there
        return 2 * y

    report = check_stability(twice, (1.0, 200.0), points=24, orders=(1,))
    assert lines_of(report) == [line_of(twice, "# there")]


def test_what_solves_inside_is_followed_or_said_to_be_out_of_reach():
    """From 0.12 on its functions are those of one dtype."""
    solve = lambda g, y: y / g(1.0)
    root = lambda x: lax.custom_root(lambda y: y * y - x, x, lambda f, y: jnp.sqrt(x) + 0 * f(y), solve)
    try:
        assert not check_stability(root, (1.0, 2.0), points=10, orders=(1,)).losses
    except StabilityError as error:
        assert "no high-precision" in str(error)  # noqa: PT017


@pytest.mark.parametrize(("dtype", "bits"), [("float16", 11), ("bfloat16", 8), ("float64", 53)])
def test_other_floats(dtype, bits):
    def one_plus(x):
        y = 1 + x
        return jnp.log(y)

    with jax.enable_x64(dtype == "float64"):
        report = check_stability(one_plus, Range(1e-4, 0.5, dtype=dtype), points=40, orders=(0,), bits=2.5)
        assert report.significand == bits
        assert lines_of(report) == [line_of(one_plus, "jnp.log")]
        assert_stable(jnp.log1p, Range(1e-4, 0.5, dtype=dtype), points=40, orders=(0,), bits=2.5)


@pytest.mark.parametrize(
    ("fn", "args", "message"),
    [
        (jnp.sin, (3,), "range .low, high. of floats"),
        (jnp.sin, (jnp.arange(3),), "x: int32.*3.0 rather than 3"),
        (jnp.sin, ((2.0, 1.0),), r"Range\(2.0, 1.0\).*smaller to a larger"),
        (jnp.sin, (Range(0.0, 1.0),) * 0, "needs an argument"),
        (lambda x: x > 0, ((0.0, 1.0),), "gives .*bool"),
        (lambda x: jnp.abs(x + 1j), ((1.0, 2.0),), "real and imaginary parts"),
    ],
)  # fmt: skip
def test_what_cannot_be_checked_is_said(fn, args, message):
    with pytest.raises(StabilityError, match=message):
        check_stability(fn, *args, points=10)


def test_a_range_is_checked():
    with pytest.raises(StabilityError, match="int32"):
        Range(0, 1, dtype="int32")
    with pytest.raises(TypeError, match="takes a function"):
        check_stability(3.0, (0.0, 1.0))  # pyright: ignore[reportArgumentType]


# ---- without mpmath


def test_without_mpmath_float64_decides_what_it_can(monkeypatch):
    monkeypatch.setattr(arithmetic, "mpmath", None)
    assert check_stability(jnp.log1p, (1e-20, 10.0), points=20).digits == 0
    with pytest.raises(StabilityError, match="mpmath is not installed"):
        check_stability(lambda x: (1 + x) - 1, (1e-38, 1e-30), points=20, orders=(0,))
    report = check_stability(lambda x: jnp.log(1 + x), (1e-30, 1.0), points=40, orders=(0,))
    assert report.losses
    assert report.accuracies[0].undecided > 0
    assert "mpmath is not installed" in str(report)


# ---- the report


def approach(x):
    return 1.0 - jnp.exp(-x)


@pytest.fixture(scope="module")
def report():
    return check_stability(approach, (1e-20, 10.0), points=40)


def test_the_report_is_a_table(report):
    lines = str(report).splitlines()
    assert "loses more than 8 bits of 24" in lines[0]
    assert "(approach)" in lines[2]
    assert all(len(line) <= 100 for line in lines[1:3])
    assert "Cancellation in sub" in lines[3]


def test_the_report_is_plain_data(report):
    found = json.loads(json.dumps(report.to_dict()))
    assert [loss["order"] for loss in found["losses"]] == [0]
    assert found["losses"][0]["culprits"][0]["place"]["function"] == "approach"
    assert len(found["accuracies"]) == 3


def test_the_report_is_drawn(report, tmp_path):
    axes = report.plot(tmp_path / "errors.png")
    assert (tmp_path / "errors.png").stat().st_size > 1000
    assert len(axes.lines) == 4
    assert axes.get_xlabel() == "x"


def test_assert_stable_says_what_it_found():
    with pytest.raises(AssertionError, match=r"(?s)loses more than 8 bits.*Cancellation in sub"):
        assert_stable(lambda x: 1 - jnp.exp(x), (1e-10, 1.0), points=20)


def test_more_digits_are_taken_for_wider_ranges():
    assert digits_of(jnp.float16) < digits_of(jnp.float32) < digits_of(jnp.float64)
    assert digits_of(jnp.float32) >= 400


@pytest.mark.parametrize("orders", [(-1,), (), (0.5,), "12"])
def test_orders_that_are_none(orders):
    with pytest.raises(StabilityError, match="are none of derivatives: write whole numbers from 0 on"):
        check_stability(jnp.sin, (0.1, 1.0), orders=orders)


def test_one_order_by_itself():
    assert {accuracy.order for accuracy in check_stability(jnp.sin, (0.1, 1.0), orders=1, points=9).accuracies} == {1}


@pytest.mark.parametrize("points", [0, 1, 2])
def test_points_that_are_too_few(points):
    with pytest.raises(StabilityError, match=f"points={points} are too few for a sample: write at least 3"):
        check_stability(jnp.sin, (0.1, 1.0), points=points)
    assert not check_stability(jnp.sin, (0.1, 1.0), orders=(0,), points=3).losses
