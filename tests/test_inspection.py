"""Every waste of the zoo is found, with its lines and its cost; the twins have none."""

import json
import re

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from zoo import CLEAN, WASTEFUL, arguments

from jaxpartials import _jax
from jaxpartials.graph.trace import read
from jaxpartials.inspection import assert_no_redundant_work, report
from jaxpartials.inspection.finding import ADDED, EQUAL_CARRIES, INVARIANT, LOOPS, THROWN_AWAY, TWICE, WRONG_MODE
from jaxpartials.inspection.findings import findings_in
from jaxpartials.inspection.scopes import Program
from jaxpartials.inspection.xla import Compiled


def found_in(fn, shapes):
    closed, _ = _jax.trace(fn, *arguments(shapes))
    return findings_in(Program(read(closed, shared=False)))


@pytest.mark.parametrize("case", WASTEFUL, ids=lambda case: case.fn.__name__)
def test_waste_is_found(case):
    found = found_in(case.fn, case.shapes)
    assert [one.kind for one in found] == [case.kind]
    (one,) = found
    assert {where.line for where in one.places} == case.lines
    assert all(where.file == __file__.replace("test_inspection", "zoo") for where in one.places)
    assert one.operations == pytest.approx(case.operations, rel=0.1)


@pytest.mark.parametrize(("fn", "shapes"), CLEAN, ids=lambda case: getattr(case, "__name__", ""))
def test_twins_have_none(fn, shapes):
    assert [str(one) for one in found_in(fn, shapes)] == []


def test_nested_gradients_of_each_lane():
    def u(t, v, w):
        return jnp.sum(jnp.tanh(jnp.tanh(t * v) @ w))

    def third(t, v, w):
        return jax.vmap(jax.grad(jax.grad(jax.grad(u))), (0, None, None))(t, v, w)

    def forward(t, v, w):
        def derivative(f):
            return lambda t: jax.jvp(f, (t,), (1.0,))[1]

        return jax.vmap(derivative(derivative(derivative(lambda t: u(t, v, w)))))(t)

    shapes = ((64,), (20,), (20, 28))
    (one,) = [one for one in found_in(third, shapes) if one.kind == WRONG_MODE]
    assert one.factor > 1.3
    assert {where.function for where in one.places} == {"test_nested_gradients_of_each_lane.<locals>.u"}
    assert [one for one in found_in(forward, shapes) if one.kind == WRONG_MODE] == []


def test_the_calls_that_repeat_work_are_named():
    def helper(x, w):
        return jnp.tanh(x @ w)

    def main(x, w):
        z = helper(x, w)
        return z, jnp.sin(helper(x, w))

    (one,) = found_in(main, ((6, 20), (20, 28)))
    start = main.__code__.co_firstlineno
    assert f"Called at test_inspection.py:{start + 1} (" in one.message
    assert f"test_inspection.py:{start + 2} (" in one.message


def test_effects_are_left_alone():
    def main(x):
        jax.debug.print("{x}", x=jnp.sum(x))
        jax.debug.print("{x}", x=jnp.sum(x))
        return lax.fori_loop(0, 3, lambda i, c: (jax.debug.print("{c}", c=c[0]), c * 2)[1], x)

    # The sums are equal, the prints are two.
    assert {one.kind for one in found_in(main, ((8,),))} <= {TWICE}


# ---- what XLA makes of it


def test_loop_free_duplicates_are_removed(optimised):
    # Read by hand: one `dot` and one `tanh` of this line are left in the optimised program.
    def layer(x, w):
        return jnp.tanh(x @ w)

    def main(x, w):
        return jnp.sum(layer(x, w)) * layer(x, w), jax.grad(lambda x: jnp.sum(layer(x, w)))(x)

    found = report(main)(*arguments(((32, 48), (48, 40))))
    assert [(one.kind, one.xla) for one in found.findings] == [(TWICE, "removed")]
    assert found.after_xla.contractions == 2 * (2 * 32 * 48 * 40)  # forward and backward


def test_equal_carries_are_kept(optimised):
    # Read by hand: the body of the loop has two `dot`s and two `tanh`s.
    def main(x, w):
        def body(c, _):
            return (jnp.tanh(c[0] @ w), jnp.tanh(c[1] @ w)), None

        return lax.scan(body, (x, x), None, 9)[0]

    found = report(main)(*arguments(((32, 48), (48, 48))))
    assert [(one.kind, one.xla) for one in found.findings] == [(EQUAL_CARRIES, "kept")]
    assert found.after_xla.contractions == found.traced.contractions == 9 * 2 * (2 * 32 * 48 * 48)
    assert found.after_jaxpartials.contractions == 9 * (2 * 32 * 48 * 48)


def test_a_scan_and_its_jvp_are_kept_apart(optimised):
    # Read by hand: two `while`s, with one `tanh` each.
    def main(x, w, v):
        def steps(x):
            return lax.scan(lambda c, _: (jnp.tanh(c @ w), None), x, None, 9)[0]

        return steps(x), jax.jvp(steps, (x,), (v,))[1]

    found = report(main)(*arguments(((32, 48), (48, 48), (32, 48))))
    assert [(one.kind, one.xla) for one in found.findings] == [(LOOPS, "kept")]


def test_one_column_of_a_jacobian_is_kept(optimised):
    # Read by hand: the `dot` has all 48 rows.
    def main(x, w):
        return jax.jacfwd(lambda x: jnp.tanh(jnp.tanh(x @ w) @ w))(x)[:, 3]

    found = report(main)(*arguments(((48,), (48, 48))))
    assert [(one.kind, one.xla) for one in found.findings] == [(THROWN_AWAY, "kept")]


def test_an_invariant_is_moved_out_by_xla(optimised):
    # Read by hand: the product stands before the `while`.
    def main(w, x):
        return lax.fori_loop(0, 9, lambda i, c: jnp.tanh(c @ (w @ w)), x)

    found = report(main)(*arguments(((48, 48), (2, 48))))
    assert [(one.kind, one.xla) for one in found.findings] == [(INVARIANT, "removed")]


def test_what_xla_repeats_is_told(optimised):
    def main(x):
        h = jnp.sin(x)
        return jnp.sum(h * h), h * jnp.cos(x), jnp.cumsum(h), h[::-1] * 2

    found = report(main)(*arguments(((1000,),)))
    text = jax.jit(main).lower(*arguments(((1000,),))).compile().as_text()
    sines = len(re.findall(r" sine\(", text))
    assert sines > 1
    assert [(one.kind, one.cost.transcendentals) for one in found.findings] == [(ADDED, 1000 * (sines - 1))]
    assert_no_redundant_work(main, *arguments(((1000,),)))  # nothing that `main` could do about it


def test_operations_after_xla_are_weighted_by_trips(optimised):
    def main(x, w):
        def inner(c, _):
            return jnp.sin(c @ w), None

        return lax.scan(lambda c, _: (lax.scan(inner, c, None, 5)[0] * 0.5, None), x, None, 7)[0]

    found = report(main)(*arguments(((32, 48), (48, 48))))
    expected = 35 * 2 * 32 * 48 * 48
    assert found.traced.contractions == expected == found.after_xla.contractions
    assert found.traced.transcendentals == 35 * 32 * 48 == found.after_xla.transcendentals


# ---- reading it


def twice(x, w):
    return jnp.sum(jnp.tanh(x @ w)) * jnp.tanh(x @ w)


def equal(x, w):
    return lax.scan(lambda c, _: ((jnp.tanh(c[0] @ w), jnp.tanh(c[1] @ w)), None), (x, x), None, 9)[0]


SHAPES = ((32, 48), (48, 48))


def test_the_report_prints_within_a_terminal():
    found = report(twice)(*arguments(SHAPES))
    text = str(found).splitlines()
    assert re.match(r"1 +computed twice +test_inspection.py:\d+ \(twice\) +149k", text[1])
    assert text[-1] == found.verdict
    assert re.match(r"traced 3\d\dk operations, .*B; after XLA .*; after jaxpartials 1\d\dk operations", text[-1])
    assert all(len(line) <= 100 for line in text[:2])
    assert str(found.lines[0][0]).startswith("test_inspection.py:")


def test_arrays_and_shapes_give_one_report():
    shapes = arguments(SHAPES)
    arrays = [jnp.ones(each.shape) for each in shapes]
    assert report(twice)(*arrays).to_dict() == report(twice)(*shapes).to_dict()


def test_the_dictionary_is_stable():
    found = json.loads(json.dumps(report(twice)(*arguments(SHAPES)).to_dict()))
    assert list(found) == ["name", "traced", "after_xla", "after_jaxpartials", "lines", "findings"]
    assert list(found["traced"]) == ["flops", "transcendentals", "bytes", "seconds", "assumed_trips"]
    (one,) = found["findings"]
    assert list(one) == [
        "kind", "places", "flops", "transcendentals", "bytes", "seconds", "share", "factor", "xla", "message", "advice",
    ]  # fmt: skip
    assert one["places"] == [{"file": __file__, "line": found["lines"][0]["line"], "function": "twice"}]


def test_assertion_passes_what_xla_removes(optimised):
    assert_no_redundant_work(twice, *arguments(SHAPES))


def test_assertion_fails_with_the_findings(optimised):
    with pytest.raises(
        AssertionError, match=r"equal does redundant work(.|\n)*carries always equal.*test_inspection.py"
    ):
        assert_no_redundant_work(equal, *arguments(SHAPES))
    assert_no_redundant_work(equal, *arguments(SHAPES), tolerance=0.6)
    assert_no_redundant_work(equal, *arguments(SHAPES), ignore=["carries always equal"])
    assert_no_redundant_work(equal, *arguments(SHAPES), ignore=["test_inspection.py"])


def test_assertion_refuses_unknown_kinds():
    with pytest.raises(ValueError, match="no kind of finding"):
        assert_no_redundant_work(equal, *arguments(SHAPES), ignore=["carries equal"])


def test_report_takes_functions_alone():
    with pytest.raises(TypeError, match="report\\(\\) takes a function"):
        report(3)


def test_a_product_named_after_what_was_folded_into_it():
    """XLA calls a dot by the transpose that it has folded into it: it is a dot all the same."""
    text = """
ENTRY %main (a: f32[3,4]) -> f32[3,5] {
  %a = f32[3,4]{1,0} parameter(0)
  ROOT %dot = f32[3,5]{1,0} dot(%a, %a), metadata={op_name="jit(f)/transpose" source_file="f.py" source_line=7}
}
"""
    closed, _ = _jax.trace(lambda a: a @ jnp.ones((4, 5)), jax.ShapeDtypeStruct((3, 4), "float32"))
    compiled = Compiled(text, Program(read(closed, shared=False)))
    assert compiled.made == {("f.py", 7, "dot_general"): 15.0}
