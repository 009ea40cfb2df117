"""Every waste of the zoo is found, with its lines and its cost; the twins have none."""

import functools
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from zoo import CLEAN, DEEP, WASTEFUL, W, X, arguments, network

from jaxpartials import _jax, partials
from jaxpartials.graph.cost import STACKING, Cost
from jaxpartials.graph.emit import evaluate
from jaxpartials.graph.trace import read
from jaxpartials.inspection import assert_no_redundant_work, report
from jaxpartials.inspection.elements import everywhere
from jaxpartials.inspection.finding import (
    ADDED,
    EQUAL_CARRIES,
    INVARIANT,
    LOOPS,
    THROWN_AWAY,
    TWICE,
    UNUSED,
    WRONG_MODE,
)
from jaxpartials.inspection.findings import findings_in, traced_cost
from jaxpartials.inspection.regions import Elements
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


@pytest.mark.parametrize("case", [case for case in WASTEFUL if case.xla], ids=lambda case: case.fn.__name__)
def test_what_xla_does_about_it(case, optimised):
    assert [(one.kind, one.xla) for one in report(case.fn)(*arguments(case.shapes)).findings] == [(case.kind, case.xla)]


def test_a_stack_that_is_only_stored_costs_bytes():
    (case,) = [case for case in WASTEFUL if case.fn.__name__ == "carries_stacked_for_the_last"]
    (one,) = found_in(case.fn, case.shapes)
    length = 9
    assert one.cost == Cost(bytes=STACKING * (length - 1))
    assert one.message == "A scan stacks what 9 turns give, of which 1 is read."


def energy(x, w, v):
    return jnp.sum(jnp.sin(jnp.tanh(x @ w) @ v))


HESSIAN = ((20,), (20, 28), (28, 24))


def traced_operations(fn, shapes):
    closed, _ = _jax.trace(fn, *arguments(shapes))
    found = traced_cost(read(closed, shared=False))
    return found.flops + found.transcendentals


@pytest.mark.parametrize(
    ("taken", "kind"),
    [(jax.jacfwd(jax.jacfwd(energy)), WRONG_MODE), (jax.jacrev(jax.jacfwd(energy)), WRONG_MODE)],
    ids=["forward over forward", "reverse over forward"],
)
def test_a_hessian_with_a_gradient_taken_forward(taken, kind):
    (one,) = [one for one in found_in(taken, HESSIAN) if one.kind == kind]
    dearer = traced_operations(taken, HESSIAN) - traced_operations(jax.hessian(energy), HESSIAN)
    assert one.operations == pytest.approx(dearer, rel=0.1)
    assert {where.function for where in one.places} == {"energy"}


def test_a_hessian_forward_over_forward_for_each_lane():
    shapes = ((6, 20), *HESSIAN[1:])
    lanes = (0, None, None)
    forward, reverse = (jax.vmap(jax.jacfwd(first(energy)), lanes) for first in (jax.jacfwd, jax.grad))
    (one,) = [one for one in found_in(forward, shapes) if one.kind == WRONG_MODE]
    # Twenty directions for one, of which the lanes share the first product; around them are the values.
    assert traced_operations(forward, shapes) / traced_operations(reverse, shapes) < one.factor < 20


def test_a_hessian_in_reverse_over_reverse_takes_no_more_than_forward_over_reverse():
    """Nothing is told of either: each takes one gradient's worth of products for each direction."""
    forward, reverse = jax.hessian(energy), jax.jacrev(jax.jacrev(energy))
    assert found_in(forward, HESSIAN) == found_in(reverse, HESSIAN) == []
    assert traced_operations(reverse, HESSIAN) == pytest.approx(traced_operations(forward, HESSIAN), rel=0.02)


def test_directions_of_a_jacobian_mapped_over_lanes():
    def layer(x, w):
        return jnp.sin(x @ w)

    shapes = ((6, 2), (2, 80))
    for taken in (jax.vmap(jax.jacrev(layer), (0, None)), jax.vmap(jax.jit(jax.jacrev(layer)), (0, None))):
        for outer in (taken, jax.jit(taken)):
            (one,) = found_in(outer, shapes)
            assert (one.kind, one.factor) == (WRONG_MODE, 40)
    assert one.message == "A Jacobian taken in reverse mode, 80 directions; forward mode takes 2."


def test_gradients_one_by_one_of_a_function_are_many_pullbacks():
    def main(x, w):
        def f(x):
            return jnp.tanh(x @ w)

        return [jax.grad(lambda x, i=i: f(x)[i])(x) for i in range(12)]

    found = found_in(main, ((2,), (2, 12)))
    assert {one.kind: one.factor for one in found} == {TWICE: None, WRONG_MODE: 6}


def test_gradients_by_different_inputs_are_not_rows_of_a_jacobian():
    def u(t, x, w):
        return jnp.sum(jnp.tanh((2 * t + 3 * x) * w))

    def main(t, x, w):
        by_t, by_x = (jax.vmap(jax.grad(u, k), (0, 0, None))(t, x, w) for k in (0, 1))
        return by_t, by_x, jnp.sin(by_x)

    assert WRONG_MODE not in {one.kind for one in found_in(main, ((64,), (64,), (28,)))}


@pytest.mark.parametrize(
    ("fn", "argnums", "message"),
    [
        (lambda p, q: (jnp.sin(p), jnp.exp(q)), (0, 1), "28 of 48 directions are zero in mul."),
        (lambda p, q: jnp.sin(p[1] * q), 0, "19 of 20 directions are zero in mul."),
        (lambda p, q: jnp.sin(jnp.exp(p)), 0, "In 20 directions, 95% of the numbers in mul are zero."),
    ],
)
def test_what_is_zero_is_said(fn, argnums, message):
    assert [one.message for one in found_in(jax.jacfwd(fn, argnums), ((20,), (28,)))] == [message]


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


def test_nested_gradients_inside_a_gradient():
    def u(t, w, v):
        return jnp.sum(jnp.tanh(jnp.tanh(t * w) @ v))

    def reverse(t, w, v):
        second = jax.grad(jax.grad(u))(t, w, v)
        return second + u(t, w, v)

    def forward(t, w, v):
        along = lambda t: jax.jvp(lambda t: u(t, w, v), (t,), (1.0,))
        (value, _), (_, second) = jax.jvp(along, (t,), (1.0,))
        return second + value

    def step(second):
        return jax.value_and_grad(lambda w, v, t: jnp.mean(jax.vmap(second, (0, None, None))(t, w, v) ** 2), (0, 1))

    shapes = ((20,), (20, 28), (64,))
    (one,) = [one for one in found_in(step(reverse), shapes) if one.kind == WRONG_MODE]
    assert one.factor > 1.3
    assert f"Taken at test_inspection.py:{reverse.__code__.co_firstlineno + 1} (" in one.message
    assert [one for one in found_in(step(forward), shapes) if one.kind == WRONG_MODE] == []


def test_directions_of_a_jacobian_of_many_layers_mapped_over_lanes():
    # More arrays than lanes go in, of lengths that the Jacobians do not have.
    weights = [
        jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate([(2, 20), *[(20, 20)] * 4, (20, 84)])
    ]

    def network(x):
        for w in weights:
            x = jnp.tanh(x @ w)
        return x

    (one,) = found_in(jax.vmap(jax.jacrev(network)), ((6, 2),))
    assert one.kind == WRONG_MODE
    assert one.factor == pytest.approx(84 / 2, rel=0.01)
    assert found_in(jax.vmap(jax.jacfwd(network)), ((6, 2),)) == []


def laplacian(x, *weights):
    return jnp.trace(jax.hessian(network)(x, *weights))


def curvatures(x, *weights):
    return jnp.diagonal(jax.jacfwd(jax.grad(network))(x, *weights))


def residual(x, *weights):
    return jnp.mean(jax.vmap(lambda x: laplacian(x, *weights))(x) ** 2)


@pytest.mark.parametrize("fn", [laplacian, curvatures])
def test_the_diagonal_of_a_hessian_costs_what_partials_takes_for_it(fn):
    (one,) = found_in(fn, DEEP)
    assert one.kind == THROWN_AWAY
    assert "the diagonal alone is used" in one.message
    assert {where.function for where in one.places} <= {"network", "laplacian"}
    by_name = lambda x, *weights: partials(lambda x: network(x, *weights), "f/x[i]^2 -> i")(x)
    left = traced_operations(fn, DEEP) - one.operations
    assert left == pytest.approx(traced_operations(by_name, DEEP), rel=0.05)


def test_the_trace_of_a_hessian_inside_a_loss():
    shapes = ((50, 3), (3, 32), (32, 32), (32, 32), (32, 1))
    for fn in (residual, jax.grad(residual, (1, 2, 3, 4))):
        (one,) = found_in(fn, shapes)
        assert "the diagonal alone is used" in one.message
        assert 0.1 < one.operations / traced_operations(fn, shapes) < 0.5


def test_a_triangle_of_a_nested_hessian_is_told_once():
    def triangle(x, w, v):
        whole = jax.jacfwd(jax.jacfwd(lambda x: jnp.tanh(jnp.tanh(x @ w) @ v)))(x)
        return jnp.stack([whole[:, i, j] for i in range(4) for j in range(i, 4)])

    found = [one for one in found_in(triangle, ((4,), (4, 128), (128, 256))) if one.kind == THROWN_AWAY]
    (one,) = found
    assert "2560 of 4096 entries are used" in one.message


def test_a_symmetric_hessian_is_told_where_its_pairs_take_less_by_themselves():
    """With each pair both first derivatives are pushed again, through every layer that the second one goes through."""

    def twice(last, x, *weights):
        def hidden(x):
            for w in weights[:-1]:
                x = jnp.sin(x @ w)
            return last(x @ weights[-1])

        return jax.jacfwd(jax.jacfwd(hidden))(x)

    deep, shallow = ((4,), (4, 128), (128, 256), (256, 128)), ((20,), (20, 28), (28, 200))
    told = [
        sum("symmetric Hessian" in one.message for one in found_in(functools.partial(twice, last), shapes))
        for last, shapes in [(lambda y: y, shallow), (jnp.sin, shallow), (jnp.sin, deep)]
    ]
    assert told == [1, 0, 0]


def test_conditionals_that_could_be_one_are_not_called_loops():
    def main(x, w):
        first = lax.cond(x[0, 0] > 0, lambda x: jnp.sin(x @ w), lambda x: jnp.cos(x @ w), x)
        second = lax.cond(x[0, 0] > 0, lambda x: jnp.sin(x @ w) + 1, lambda x: -jnp.cos(x @ w), x)
        return first, second

    (one,) = [one for one in found_in(main, (X, W)) if one.kind == LOOPS]
    assert one.message.startswith("2 conditionals on the same predicate share work and could be one.")
    assert "loop" not in one.advice


def test_a_gradient_taken_forward_inside_a_jacobian_in_reverse_is_no_diagonal():
    (one,) = found_in(jax.jacrev(jax.jacfwd(energy)), HESSIAN)
    assert one.message.startswith("A gradient taken in forward mode, 20 directions, inside a Jacobian in reverse mode")
    assert "jax.hessian" in one.advice


def test_what_is_not_read_and_computed_too_often_is_counted_once():
    def main(x, w):
        def turn(c, _):
            return jnp.tanh(c @ w), jnp.sin(c @ w) + (w @ w)[0, 0]

        return lax.scan(turn, x, None, 9)[1][-1]

    work = [one.cost.contractions for one in found_in(main, (X, (20, 20)))]
    needed = 9 * 2 * 6 * 20 * 20 + 2 * 20
    closed, _ = _jax.trace(main, *arguments((X, (20, 20))))
    assert sum(work) <= traced_cost(read(closed, shared=False)).contractions - 0.999 * needed


@pytest.mark.parametrize(("n", "told"), [(150, "over 99% of the numbers"), (40, "98% of the numbers")])
def test_a_hundred_percent_is_all(n, told):
    (one,) = found_in(jax.jacfwd(lambda x: jnp.sin(jnp.exp(x))), ((n,),))
    assert told in one.message


def test_some_of_many_random_numbers_are_read():
    def drawn(x):
        key = jax.random.key(0)
        noise = jax.random.normal(key, (1000,))
        return noise[:10], jax.random.permutation(key, 1000)[:10], jax.random.uniform(key, (1000,), minval=2.0)[:5]

    def used(x, w):
        return jnp.tanh(jax.random.normal(jax.random.key(0), (60, 20)) @ w)[:10] + x[0]

    assert found_in(drawn, ((3,),)) == []
    assert [one.kind for one in found_in(used, ((28,), (20, 28)))] == [THROWN_AWAY]


def test_less_than_one_percent_is_not_none():
    (one,) = found_in(lambda x, w: jnp.tanh(x @ w)[0, 0], ((60, 20), (20, 28)))
    assert "of which less than 1% is read" in one.message


def test_nested_gradients_that_are_not_mapped_are_of_no_lane():
    def u(t, x, w, v):
        return jnp.sum(jnp.tanh(jnp.tanh(jnp.stack([t, x]) @ w) @ v))

    def main(t, x, w, v):
        return jax.grad(jax.grad(u, 0), 1)(t, x, w, v) + jax.grad(jax.grad(u, 1), 0)(t, x, w, v)

    (one,) = [one for one in found_in(main, ((), (), (2, 64), (64, 64))) if one.kind == WRONG_MODE]
    assert "of a function, reverse over reverse" in one.message


LIBRARY = """
import jax
import jax.numpy as jnp


@jax.jit
def layer(x, w):
    value = jnp.tanh(x @ w)
    return value, 1 - jnp.tanh(x @ w) ** 2


@jax.jit
def both(x, w, v):
    return jnp.sin(x @ w), jnp.exp(x @ v)
"""


def test_the_lines_of_a_library_are_told_beside_the_call():
    library = {}
    exec(compile(LIBRARY, "/lib/site-packages/parts/layers.py", "exec"), library)

    def repeats(x, w):
        return library["layer"](x, w)

    def uses_half(x, w, v):
        return library["both"](x, w, v)[0]

    (one,) = found_in(repeats, (X, W))
    assert (one.kind, [where.line for where in one.places]) == (TWICE, [repeats.__code__.co_firstlineno + 1])
    assert "It is parts that does so, at layers.py:8 (layer), layers.py:9 (layer)." in one.message
    (one,) = found_in(uses_half, (X, W, W))
    assert (one.kind, [where.line for where in one.places]) == (UNUSED, [uses_half.__code__.co_firstlineno + 1])
    assert "of a call of parts of which other results are used" in one.message


def test_loops_with_arrays_and_rules_that_are_made_at_each_trace():
    @functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
    def fixed(name, x):
        return x + 1.0

    fixed.defjvp(lambda name, primals, tangents: (fixed(name, *primals), jnp.zeros_like(primals[0])))

    def iterated(x):
        start = jnp.array([0.0, 1.0, 0.5]), jnp.zeros(())
        more = lambda c: c[1] < 4.0
        return lax.while_loop(more, lambda c: (jnp.sin(c[0]) * x + c[0], fixed("count", c[1])), start)[0]

    def main(x):
        return iterated(x), jax.jacfwd(iterated)(x)

    (one,) = found_in(main, ((3,),))
    assert one.kind == LOOPS
    assert {where.function for where in one.places} == {iterated.__qualname__}
    assert len(one.work) == 2


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


# ---- what is zero and what is not read, against numbers


def steps_of_blocks(x, w):
    """Some elements of carries and of what is stacked are read, some are zero; in loops of every kind."""

    def body(c, row):
        a, b, n = c
        a = jnp.concatenate([jnp.sin(a[:2] @ w), jnp.tanh(a[2:] @ w)])
        b = lax.cond(n > 2, lambda b: b * row, lambda b: jnp.roll(b, 1), b)
        return (a, b, n + 1), (a * row, jnp.stack([b, 0 * b, row]))

    def inner(c):
        return lax.while_loop(lambda c: c[1] < 3, lambda c: (jnp.stack([c[0][0] * 2, c[0][2], c[0][0]]), c[1] + 1), c)

    (a, b, _), (rows, stacked) = lax.scan(body, (x[:4], x[4], 0), x[5:11])
    return a[1:2], jnp.sin(b)[:2], rows[:3, 2:, -1], stacked[2, :2], inner((x[8:], 0))[0][:1]


def what_comes_together(x, w):
    """Parts of sums, sorted rows, transforms and factorizations, of which some take all that they are made of."""
    many = jnp.stack([x[:5] @ w, x[5:10] @ w, w])
    return (
        jnp.cumsum(x[:7], 0)[:3, :2],
        lax.cumsum(x, 1, reverse=True)[8:, 3:],
        jnp.sort(x, 1)[2:4, :1],
        jnp.abs(jnp.fft.rfft(x))[4, :2],
        jnp.linalg.eigvalsh(many + many.transpose(0, 2, 1))[1, 0],
        jnp.diagonal(x[:5] @ w)[:2],
    )


@pytest.mark.parametrize(
    "fn",
    [
        steps_of_blocks,
        what_comes_together,
        lambda x, w: steps_of_blocks(x, w)[2],
        lambda x, w: jax.jvp(lambda x: steps_of_blocks(x, w), (x,), (jnp.zeros_like(x).at[4, 1].set(1.0),))[1],
        lambda x, w: [d[..., 3:5, :2] for d in jax.jacfwd(steps_of_blocks)(x, w)],
        lambda x, w: [d[..., 3:5, :2] for d in jax.jacrev(lambda x, w: steps_of_blocks(x, w)[:2])(x, w)],
    ],
    ids=["values", "together", "some rows", "one direction", "columns", "rows in reverse"],
)
def test_elements_are_zero_or_unread_in_fact(fn):
    rng = np.random.default_rng(7)
    x, w = rng.normal(size=(11, 5)), rng.normal(size=(5, 5))
    closed, _ = _jax.trace(fn, jnp.asarray(x), jnp.asarray(w))
    graph = read(closed, shared=False)
    elements = Elements(graph, Program(graph).live)
    elements.ask([everywhere(v) for v in graph.outputs])
    inner = [v for node in elements.nodes for v in node.outputs if not elements.nonzero[v].all()]

    @jax.jit
    def run(x, w):
        return evaluate([*graph.outputs, *inner], list(zip(graph.inputs, (x, w), strict=True)))

    results = run(x, w)
    for v, array in zip(inner, results[len(graph.outputs) :], strict=True):
        assert not np.asarray(array)[~np.broadcast_to(elements.nonzero[v], v.shape)].any()
    read_of_x = np.broadcast_to(elements.asked[graph.inputs[0]], x.shape)
    assert inner or not read_of_x.all()
    others = run(np.where(read_of_x, x, x + 1), w)
    for before, after in zip(results[: len(graph.outputs)], others, strict=False):
        np.testing.assert_array_equal(before, after)


def test_a_product_of_vectors_of_which_some_elements_are_zero():
    def main(x):
        return jnp.dot(jnp.concatenate([x, jnp.zeros(3)]), jnp.arange(6.0) * x[0])

    assert found_in(main, ((3,),)) == []


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


def test_duplicates_beside_products_of_constants_are_removed(optimised):
    # XLA may or may not multiply the basis by the last weights while it compiles.
    w, v = (jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate([(600, 40), (40, 6)]))
    network = lambda x: jnp.tanh(x @ w) @ v
    found = report(lambda x: (network(x), jax.jacrev(network)(x)))(*arguments(((600,),)))
    assert [one.xla for one in found.findings if one.kind == TWICE] == ["removed"]


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
