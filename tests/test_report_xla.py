"""The verdicts of a report on what XLA does, against optimised programs that were read by hand; and its counts.

The expectations below are what a person finds in the text of the compiled programs: how many instructions of a kind
there are, and how many of them inside loops. They are compared with the text by a search that knows nothing of how the
report reads it.
"""

import math
import re
from collections import Counter

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from zoo import WASTEFUL, arguments

from jaxpartials.inspection import assert_no_redundant_work, report
from jaxpartials.inspection.finding import ADDED, INVARIANT, LOOPS, THROWN_AWAY, TWICE, UNDONE, WRONG_MODE

pytestmark = pytest.mark.usefixtures("optimised")

ZOO = {case.fn.__name__: case for case in WASTEFUL}


def compiled_text(fn, args):
    return jax.jit(fn).lower(*args).compile().as_text()


def instructions(text):
    """How often each instruction is written in a program, and how often in what its loops run."""
    blocks = {}
    for block in re.findall(r"^(?:ENTRY )?%\S+ \(.*?^}", text, re.MULTILINE | re.DOTALL):
        blocks[re.match(r"(?:ENTRY )?%(\S+)", block).group(1)] = block
    inside, waiting = set(), re.findall(r" while\(.*?body=%([\w.\-]+)", text)
    while waiting:
        name = waiting.pop()
        if name not in inside:
            inside.add(name)
            waiting += re.findall(r"(?:calls|to_apply|body|condition)=%([\w.\-]+)", blocks[name])
    found = [re.findall(r"^ .* = (?:\(.*?\)|\S+) ([\w\-]+)\(", blocks[name], re.MULTILINE) for name in blocks]
    looped = [kinds for name, kinds in zip(blocks, found, strict=True) if name in inside]
    return Counter(kind for kinds in found for kind in kinds), Counter(kind for kinds in looped for kind in kinds)


# The function, what the report must say, how often instructions are in the program, and how often in its loops.
READ = [
    # Written twice or three times, computed once.
    ("two_calls", "removed", {"dot": 1, "tanh": 1}, {}),
    ("three_calls", "removed", {"dot": 1, "tanh": 1, "exponential": 1}, {}),
    ("across_jit", "removed", {"dot": 1, "tanh": 1, "exponential": 1}, {}),
    ("helpers", "removed", {"dot": 1, "tanh": 1, "sine": 1}, {}),
    ("value_and_gradient_apart", "removed", {"dot": 2, "tanh": 1}, {}),  # forward, back
    ("value_and_jvp_apart", "removed", {"dot": 2, "tanh": 1}, {}),  # of the value, of the tangent
    ("gradient_twice", "removed", {"dot": 4, "tanh": 2, "sine": 1}, {}),  # two layers, forward and back
    ("factors_swapped", "removed", {"sine": 1, "exponential": 1}, {}),
    ("mapped_twice", "removed", {"dot": 1, "tanh": 1, "exponential": 1}, {}),
    ("eigh_repeated", "removed", {"custom-call": 1}, {}),
    ("in_a_branch_and_before", "kept", {"dot": 2, "tanh": 2, "conditional": 1}, {}),
    # Dead code is gone.
    ("dead_call", "removed", {"dot": 0, "tanh": 0, "exponential": 1}, {}),
    ("value_of_what_is_linear", "removed", {"dot": 1}, {}),
    ("gradient_not_read", "removed", {"dot": 2, "tanh": 1}, {}),  # the third product is that for w
    # In loops: merged within a turn, and a loop with its like; moved out; carries that nobody reads dropped.
    ("twice_at_every_turn", "removed", {"dot": 1, "tanh": 1, "while": 1}, {"dot": 1, "tanh": 1}),
    ("twice_in_a_while", "removed", {"dot": 1, "tanh": 1, "while": 1}, {"dot": 1, "tanh": 1}),
    ("one_loop_twice", "removed", {"dot": 1, "tanh": 1, "while": 1}, {"dot": 1, "tanh": 1}),
    ("in_a_loop_and_before", "removed", {"dot": 1, "tanh": 1, "while": 1}, {"dot": 0, "tanh": 0}),
    ("invariant_in_a_scan", "removed", {"dot": 1, "tanh": 1, "while": 1}, {"dot": 0, "tanh": 0}),
    ("invariant_in_a_while", "removed", {"dot": 1, "sine": 1, "while": 1}, {"dot": 0, "sine": 1}),
    ("dead_carry", "removed", {"dot": 1, "sine": 1, "tanh": 0, "while": 1}, {"dot": 1, "sine": 1}),
    ("stacked_and_not_read", "removed", {"dot": 1, "sine": 1, "tanh": 0, "while": 1}, {"dot": 1, "sine": 1}),
    ("dead_carry_in_a_while", "removed", {"dot": 0, "tanh": 0, "while": 1}, {}),
    # Carries that are equal stay two, and so do loops that differ.
    ("equal_carries", "kept", {"dot": 2, "tanh": 2, "while": 1}, {"dot": 2, "tanh": 2}),
    ("equal_carries_in_a_while", "kept", {"dot": 2, "tanh": 2, "while": 1}, {"dot": 2, "tanh": 2}),
    ("a_scan_and_its_jvp", "kept", {"dot": 3, "tanh": 2, "while": 2}, {"dot": 3, "tanh": 2}),
    ("two_scans_of_one_state", "kept", {"dot": 2, "tanh": 2, "while": 2}, {"dot": 2, "tanh": 2}),
    ("a_scan_and_its_gradient", "kept", {"dot": 3, "tanh": 2, "while": 3}, {"dot": 3, "tanh": 2}),
    ("a_while_and_its_jvp", "kept", {"dot": 3, "tanh": 2, "while": 2}, {"dot": 3, "tanh": 2}),
    # The product has all rows of the basis; nothing is taken apart by what is read of it.
    ("one_column", "kept", {"dot": 2, "tanh": 1}, {}),
    ("only_the_trace", "kept", {"dot": 2, "tanh": 1}, {}),
    ("hessian_times_vector", "kept", {"dot": 4, "sine": 1}, {}),
    ("tangents_that_are_zero", "kept", {"dot": 2, "tanh": 1, "exponential": 1}, {}),
    ("dense_basis_for_a_diagonal", "kept", {"select": 1, "cosine": 1}, {}),  # a select for the product with the basis
    ("gradient_forward", "kept", {"dot": 2, "tanh": 1}, {}),
    ("svd_with_and_without_vectors", "kept", {"custom-call": 2}, {}),
    ("sort_inside_argsort", "kept", {"sort": 2}, {}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "verdict", "written", "looped"), READ, ids=[name for name, *_ in READ])
def test_the_verdict_is_that_of_a_reading_by_hand(name, verdict, written, looped):
    case = ZOO[name]
    args = arguments(case.shapes)
    everywhere, in_loops = instructions(compiled_text(case.fn, args))
    assert {kind: everywhere[kind] for kind in written} == written
    assert {kind: in_loops[kind] for kind in looped} == looped
    assert [(one.kind, one.xla) for one in report(case.fn)(*args).findings if one.kind != ADDED] == [
        (case.kind, verdict)
    ]


# ---- where instructions do not tell their line


def verdicts(fn, *args):
    return [(one.kind, one.xla) for one in report(fn)(*args).findings if one.kind not in (ADDED, UNDONE)]


def last_output(q, v, xs):
    def step(h, x):
        h = jnp.tanh(q @ h + x)
        return h, v @ h

    return lax.scan(step, xs[0], xs)[1][-1]


def last_output_after_the_loop(q, v, xs):
    def step(h, x):
        h = jnp.tanh(q @ h + x)
        return h, None

    return v @ lax.scan(step, xs[0], xs)[0]


def test_a_product_that_tells_only_its_loop_is_not_gone():
    # Read by hand: both products are in the loop, and tell the line of the scan.
    args = arguments(((48, 48), (40, 48), (32, 48)))
    assert instructions(compiled_text(last_output, args))[1]["dot"] == 2
    assert verdicts(last_output, *args) == [(THROWN_AWAY, "kept")]
    assert instructions(compiled_text(last_output_after_the_loop, args))[1]["dot"] == 1
    assert verdicts(last_output_after_the_loop, *args) == []


def test_under_vmap_it_is_not_gone_either():
    args = arguments(((48, 48), (40, 48), (3, 32, 48)))
    assert verdicts(jax.vmap(last_output, (None, None, 0)), *args) == [(THROWN_AWAY, "kept")]


def test_in_a_loop_what_is_merged_is_told_from_what_is_kept():
    # The product with q is written twice and computed once; that with v is read at the last turn alone.
    def written_twice(q, v, xs):
        def state(h, x):
            return jnp.tanh(q @ h + x)

        def step(h, x):
            new = state(h, x)
            return new, v @ state(h, x)

        return lax.scan(step, xs[0], xs)[1][-1]

    args = arguments(((48, 48), (40, 48), (32, 48)))
    assert instructions(compiled_text(written_twice, args))[1]["dot"] == 2
    assert dict(verdicts(written_twice, *args)) == {TWICE: "removed", THROWN_AWAY: "kept"}


def weights(*shape):
    return jnp.sin(jnp.arange(math.prod(shape), dtype=float)).reshape(shape)


W, V = weights(2, 64), weights(64, 48)


def energy(t, x):
    return jnp.sum(jnp.tanh(jnp.tanh(jnp.stack([t, x]) @ W) @ V))


def mixed_in_reverse(t, x):
    return jax.grad(jax.grad(energy, 0), 1)(t, x) + jax.grad(jax.grad(energy, 1), 0)(t, x)


def mixed_forward(t, x):
    return jax.jvp(lambda x: jax.jvp(lambda t: energy(t, x), (t,), (1.0,))[1], (x,), (1.0,))[1]


def test_a_derivative_in_the_wrong_mode_is_not_removed_as_its_values_are_merged():
    """Products with arrays that are closed over tell no line at all."""
    found = report(mixed_in_reverse)(1.0, 2.0)
    slow = [one for one in found.findings if one.kind == WRONG_MODE]
    assert slow
    assert {one.xla for one in slow} == {"kept"}
    assert found.after_xla.contractions > 1.2 * found.after_jaxpartials.contractions
    assert {one.xla for one in found.findings if one.kind == TWICE} == {"removed"}
    assert WRONG_MODE not in dict(verdicts(mixed_forward, 1.0, 2.0))


P, Q = weights(4, 128), weights(128, 256)


def layered(p, q):
    return lambda x: jnp.tanh(jnp.tanh(x @ p) @ q)


def second(p, q, x):
    return jax.jacfwd(jax.jacfwd(layered(p, q)))(x)


def test_what_is_merged_is_merged_with_constants_too():
    (x,) = arguments(((4,),))
    closed = report(lambda x: second(P, Q, x))(x)
    given = report(second)(P, Q, x)
    assert closed.after_xla.contractions == given.after_xla.contractions < 0.9 * given.traced.contractions
    for found in closed, given:
        assert [one.xla for one in found.findings if one.kind == TWICE] == ["removed"]


def constant_product(x):
    return jnp.tanh(x @ P)


REPEATED = [
    (constant_product, (4,), float),
    (jax.nn.sigmoid, (300,), float),
    (jnp.exp2, (300,), float),
    (lax.erf, (300,), float),
    # XLA has no instruction for them, and makes several of each.
    (jnp.exp, (300,), complex),
    (jnp.sqrt, (300,), complex),
    (jnp.log, (300,), complex),
    (jnp.sin, (300,), complex),
    # Several calls of a library under other names than those of the functions.
    (lambda x: jnp.linalg.qr(x)[1], (20, 20), float),
    (jnp.linalg.inv, (20, 20), float),
    (lambda x: jnp.linalg.svd(x)[1], (20, 30), float),
]  # fmt: skip


@pytest.mark.parametrize(("fn", "shape", "kind"), REPEATED)
def test_equal_work_is_removed_side_by_side_and_kept_in_a_branch(fn, shape, kind):
    x = jax.ShapeDtypeStruct(shape, jnp.zeros((), kind).dtype)

    def side_by_side(x):
        return fn(x), 2 * fn(x)

    def in_a_branch(x):
        return fn(x), lax.cond(x.ravel()[0].real > 0, lambda x: 2 * fn(x), lambda x: 3 * fn(x), x)

    def on_other_values(x):
        return fn(x), 2 * fn(x + 1)

    assert verdicts(side_by_side, x) == [(TWICE, "removed")]
    assert set(verdicts(in_a_branch, x)) == {(TWICE, "kept")}
    assert verdicts(on_other_values, x) == []


# ---- what is needed less than it is traced for two reasons


def test_of_what_is_taken_out_of_a_loop_one_turn_is_left_to_be_saved():
    def fn(a, b, x):
        return lax.fori_loop(0, 20, lambda _, c: jnp.tanh(a @ c) + (b @ b)[0, 0], x)

    args = arguments(((80, 80), (60, 60), (80,)))
    assert instructions(compiled_text(fn, args))[1]["dot"] == 1
    found = {one.kind: one for one in report(fn)(*args).findings}
    assert set(found) == {INVARIANT, THROWN_AWAY}
    assert (found[INVARIANT].xla, found[THROWN_AWAY].xla) == ("removed", "kept")
    assert found[INVARIANT].cost.contractions == 19 * 2 * 60**3
    assert found[THROWN_AWAY].cost.contractions == pytest.approx(2 * 60**3, rel=0.01)


def test_what_is_merged_with_what_is_needed_is_not_thrown_away():
    def fn(a, x):
        return lax.scan(lambda c, _: (jnp.tanh(a @ c), jnp.sin(a @ c)), x, None, 20)[1][-1]

    args = arguments(((100, 100), (100,)))
    assert instructions(compiled_text(fn, args))[1]["dot"] == 1
    found = {one.kind: one for one in report(fn)(*args).findings}
    assert found[TWICE].xla == "removed"
    assert (found[THROWN_AWAY].xla, found[THROWN_AWAY].cost.contractions) == ("kept", 0)
    assert found[THROWN_AWAY].cost.transcendentals == 19 * 100


# ---- what XLA does of its own accord


def test_what_is_merged_and_then_copied_is_removed_and_added():
    # Read by hand: written five times, one `sine` is left in each of the fusions that read it, and all are of x.
    def main(x):
        total = jnp.sum(jnp.sin(x) * jnp.sin(x))
        return total, jnp.sin(x) * jnp.cos(x), jnp.cumsum(jnp.sin(x)), jnp.sin(x)[::-1] * 2

    args = arguments(((1000,),))
    sines = instructions(compiled_text(main, args))[0]["sine"]
    assert sines > 1
    found = {one.kind: one for one in report(main)(*args).findings}
    assert set(found) == {TWICE, ADDED}
    assert (found[TWICE].xla, found[TWICE].cost.transcendentals) == ("removed", 4000)
    assert (found[ADDED].xla, found[ADDED].cost.transcendentals) == ("kept", 1000 * (sines - 1))


def test_equal_operations_on_different_values_are_no_copies():
    # One line, one call stack, as many values as sines.
    def main(x, y):
        return [jnp.sin(v) * jnp.cumsum(v) for v in (x, y, x + y)]

    args = arguments(((1000,), (1000,)))
    assert instructions(compiled_text(main, args))[0]["sine"] == 3
    assert report(main)(*args).findings == ()


def layers(remade):
    def layer(x, w):
        return jnp.tanh(jnp.sin(x @ w) @ w.T)

    layer = remade(layer)

    def loss(x, w):
        return jnp.sum(layer(layer(x, w), w) ** 2)

    return jax.grad(loss, (0, 1))


def steps(remade):
    layer = remade(lambda x, w: jnp.tanh(jnp.sin(x @ w) @ w.T))

    def loss(x, w):
        return jnp.sum(lax.scan(lambda c, _: (layer(c, w), None), x, None, 9)[0])

    return jax.grad(loss, (0, 1))


LAYERS = ((64, 48), (48, 80))
PRODUCT = 2 * 64 * 48 * 80


def merging(layer):
    return jax.checkpoint(layer, prevent_cse=False)


def test_a_checkpoint_that_is_merged_is_told():
    """The loss needs both layers, so both are computed twice as traced: two products each, and four backward."""
    args = arguments(LAYERS)
    plain = instructions(compiled_text(layers(lambda layer: layer), args))[0]["dot"]
    merged = instructions(compiled_text(layers(merging), args))[0]["dot"]
    assert plain == merged == 2 * 2 + 2 * 4
    found = report(layers(merging))(*args)
    (one,) = found.findings
    assert (one.kind, one.xla) == (UNDONE, "removed")
    assert one.cost.contractions == 2 * 2 * PRODUCT
    assert one.cost.transcendentals >= 2 * (64 * 80 + 64 * 48)
    assert {place.function for place in one.places} == {"layers.<locals>.layer"}
    assert found.traced.contractions == (4 + 4 + 8) * PRODUCT
    assert found.after_xla.contractions == merged * PRODUCT
    assert "prevent_cse=True" in one.advice
    assert_no_redundant_work(layers(merging), *args)  # less work than was asked for


def test_a_checkpoint_with_barriers_is_told_where_the_backend_drops_them():
    args = arguments(LAYERS)
    left = instructions(compiled_text(layers(jax.checkpoint), args))[0]["dot"]
    found = report(layers(jax.checkpoint))(*args).findings
    undone = sum(one.cost.contractions for one in found)
    assert {one.kind for one in found} <= {UNDONE}
    assert undone == (16 - left) * PRODUCT


@pytest.mark.parametrize("remade", [jax.checkpoint, merging])
def test_a_checkpoint_in_a_loop_is_kept_and_no_finding(remade):
    """What the user asks to compute again is nothing computed twice."""
    args = arguments(LAYERS)
    everywhere, in_loops = instructions(compiled_text(steps(remade), args))
    # Forward two products, backward those two again and four more: nothing is merged.
    assert (everywhere["while"], in_loops["dot"]) == (2, 2 + 2 + 4)
    assert [one.kind for one in report(steps(remade))(*args).findings if one.kind != ADDED] == []


def test_without_a_checkpoint_there_is_none_to_undo():
    for fn in (layers(lambda layer: layer), steps(lambda layer: layer)):
        assert {one.kind for one in report(fn)(*arguments(LAYERS)).findings} <= {ADDED}


def test_loops_that_share_work_stay_apart():
    def powers(x, w):
        def first(c, _):
            c = jnp.tanh(c @ w)
            return c, jnp.sum(c)

        def second(c, _):
            c = jnp.tanh(c @ w)
            return c, jnp.max(c)

        return lax.scan(first, x, None, 9)[1], lax.scan(second, x, None, 9)[1]

    def together(x, w):
        def both(c, _):
            c = jnp.tanh(c @ w)
            return c, (jnp.sum(c), jnp.max(c))

        return lax.scan(both, x, None, 9)[1]

    args = arguments(((32, 48), (48, 48)))
    everywhere, in_loops = instructions(compiled_text(powers, args))
    assert (everywhere["while"], in_loops["dot"], in_loops["tanh"]) == (2, 2, 2)
    (one,) = report(powers)(*args).findings
    assert (one.kind, one.xla) == (LOOPS, "kept")
    assert one.cost.contractions == 9 * 2 * 32 * 48 * 48
    everywhere, in_loops = instructions(compiled_text(together, args))
    assert (everywhere["while"], in_loops["dot"]) == (1, 1)
    assert report(together)(*args).findings == ()


# ---- counts of whole programs, weighted by turns


A, B, C, D = 24, 40, 32, 56


def product(m, k, n):
    return 2 * m * k * n


def chain(c, w, v):
    return (c @ w) @ v  # (A, B) (B, C) (C, B)


def through(repeat, body, c):
    """`body` so many times: as a scan, or written out."""
    if repeat is None:
        return c
    count, unrolled = repeat
    if not unrolled:
        return lax.scan(lambda c, _: (body(c), None), c, None, count)[0]
    for _ in range(count):
        c = body(c)
    return c


def one_loop(unrolled):
    return lambda x, w, v: through((7, unrolled), lambda c: chain(c, w, v), x)


def nested_loops(unrolled):
    def outer(c, w, v):
        return through((5, unrolled), lambda c: chain(c, w, v), c @ (w @ v))

    return lambda x, w, v: through((3, unrolled), lambda c: outer(c, w, v), x)


def loop_over_rows(unrolled):
    def fn(x, w, v, rows):
        if unrolled:
            found = []
            for i in range(rows.shape[0]):
                x = chain(x, w, v)
                found.append(rows[i] @ w)
            return x, jnp.stack(found)
        return lax.scan(lambda c, row: (chain(c, w, v), row @ w), x, rows)

    return fn


def counted_loop(unrolled):
    def fn(x, w, v):
        if unrolled:
            return through((6, True), lambda c: chain(c, w, v), x)
        return lax.fori_loop(0, 6, lambda _, c: chain(c, w, v), x)

    return fn


def gradient_of_a_loop(unrolled):
    return jax.grad(lambda x, w, v: jnp.sum(one_loop(unrolled)(x, w, v)), 0)


def branches(unrolled):
    """The dearer branch runs, the other not; written out, it is called without a test."""

    def dear(c, w, v):
        return chain(chain(c, w, v), w, v)

    def fn(x, w, v):
        if unrolled:
            return dear(x, w, v)
        return lax.cond(x[0, 0] > 0, dear, lambda c, w, v: chain(c, w, v), x, w, v)

    return fn


def branches_in_a_loop(unrolled):
    return lambda x, w, v: through((4, unrolled), lambda c: branches(unrolled)(c, w, v), x)


PAIR = product(A, B, C) + product(A, C, B)
MATRICES = (A, B), (B, C), (C, B)
COUNTED = [
    (one_loop, MATRICES, 7 * PAIR, 7 * PAIR),
    # w @ v is what no turn changes: as traced at every turn, as compiled once.
    (nested_loops, MATRICES, 3 * (product(B, C, B) + product(A, B, B) + 5 * PAIR),
     product(B, C, B) + 3 * (product(A, B, B) + 5 * PAIR)),
    (loop_over_rows, (*MATRICES, (9, D, B)), 9 * (PAIR + product(D, B, C)), 9 * (PAIR + product(D, B, C))),
    (counted_loop, MATRICES, 6 * PAIR, 6 * PAIR),
    # Linear: forward as traced, which is dead, and back.
    (gradient_of_a_loop, MATRICES, 2 * 7 * PAIR, 7 * PAIR),
    (branches, MATRICES, 2 * PAIR, 2 * PAIR),
    (branches_in_a_loop, MATRICES, 4 * 2 * PAIR, 4 * 2 * PAIR),
]  # fmt: skip


@pytest.mark.parametrize(("make", "shapes", "traced", "after"), COUNTED, ids=lambda each: getattr(each, "__name__", ""))
def test_operations_are_those_of_the_program_written_out(make, shapes, traced, after):
    args = arguments(shapes)
    found = report(make(False))(*args)
    assert found.traced.flops == pytest.approx(traced, rel=0.01)
    assert found.after_xla.flops == pytest.approx(after, rel=0.01)
    # XLA's own count, of the program without loops; of the loops it counts one turn.
    counted = jax.jit(make(True)).lower(*args).compile().cost_analysis()["flops"]
    assert found.after_xla.flops == pytest.approx(counted, rel=0.01)


def test_of_the_branches_the_dearest_counts_also_where_they_are_nested():
    def fn(x, w, v):
        def inner(c):
            return lax.cond(c[0, 1] > 0, lambda c: chain(chain(c, w, v), w, v), lambda c: chain(c, w, v), c)

        def outer(c):
            return chain(inner(c), w, v)

        return lax.switch(jnp.int32(x[0, 0]), [lambda c: chain(c, w, v), outer, lambda c: 2 * c], x)

    found = report(fn)(*arguments(MATRICES))
    assert found.traced.flops == pytest.approx(3 * PAIR, rel=0.01)
    assert found.after_xla.flops == pytest.approx(3 * PAIR, rel=0.01)


SQUARE, RIGHT = (40, 40), (40,)
WHOLE = [
    (jnp.linalg.qr, (SQUARE,)),
    (lambda x: jnp.linalg.qr(x)[1], ((50, 30),)),
    (jnp.linalg.inv, (SQUARE,)),
    (jnp.linalg.solve, (SQUARE, RIGHT)),
    (jnp.linalg.cond, (SQUARE,)),
    (jnp.linalg.svd, ((50, 30),)),
    (jnp.linalg.eigh, (SQUARE,)),
    (jnp.linalg.eigvals, (SQUARE,)),
    (jnp.linalg.det, ((90, 90),)),
    (jax.scipy.linalg.cho_factor, (SQUARE,)),
    (jax.scipy.linalg.schur, (SQUARE,)),
    (jax.scipy.linalg.solve_triangular, (SQUARE, (40, 30))),
    (jax.vmap(jnp.linalg.inv), ((3, 20, 20),)),
    (jax.scipy.linalg.expm, (SQUARE,)),
    (jnp.sort, ((30, 500),)),
    (jnp.fft.rfft, ((30, 128),)),
    (lambda x: lax.top_k(x, 3), ((2000,),)),
    (lambda x, y: jnp.convolve(x, y, "valid"), ((400,), (30,))),
]  # fmt: skip


@pytest.mark.parametrize(("fn", "shapes"), WHOLE)
def test_what_libraries_do_is_counted_after_xla_as_before(fn, shapes):
    args = arguments(shapes)
    found = report(fn)(*args)
    assert found.after_xla.flops == pytest.approx(found.traced.flops, rel=0.1)
    in_a_program = report(lambda *args: jax.tree.map(lambda each: 2 * each, fn(*args)))(*args)
    assert in_a_program.after_xla.flops == pytest.approx(in_a_program.traced.flops, rel=0.1)


def test_turns_that_had_to_be_assumed_are_assumed_after_xla_too():
    def fn(a, x):
        def turn(c):
            return c[0] + 1, jnp.tanh(a @ c[1]) + c[2] * jnp.tanh(a @ c[1]), c[2]

        return lax.while_loop(lambda c: (c[0] < 7) & (c[0] < 9), turn, (0, x, 2.0))[1]

    args = arguments(((60, 60), (60,)))
    text = compiled_text(fn, args)
    assert 'known_trip_count":{"n":"7"}' in text  # XLA has tried
    found = report(fn)(*args)
    assert found.after_xla.contractions == pytest.approx(found.traced.contractions / 2)
    assert found.after_xla.unknown_trips
    assert [one.xla for one in found.findings] == ["removed"]
