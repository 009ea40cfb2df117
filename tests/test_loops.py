"""Loops: what is one loop, what is left of it, and that the values are those of plain JAX."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental import io_callback

from jaxpartials.graph.cost import cost_of
from jaxpartials.graph.emit import emit, evaluate
from jaxpartials.graph.graph import Graph
from jaxpartials.graph.memory import peak_bytes
from jaxpartials.graph.trace import CONTROL, trace
from jaxpartials.rewrite import algebra, bodies, congruence, fusion, loops, pipeline
from jaxpartials.rewrite.collapse import collapse
from jaxpartials.rewrite.fusion import fuse

RULES = {**algebra.RULES, **loops.RULES}
RANDOM = np.random.default_rng(5)
W = RANDOM.normal(size=(3, 3)).astype(np.float32) / 2
H, T = (RANDOM.normal(size=3).astype(np.float32) for _ in range(2))
X = RANDOM.normal(size=(5, 3)).astype(np.float32)
N = np.int32(4)


def simplified(function, *args, fused=True):
    """The graph of `function` with its loops in normal form, and fused; checked against plain JAX, and its cost."""
    plain, _ = trace(function, *args, rules=algebra.RULES)
    graph, _ = trace(function, *args, rules=RULES)
    if fused:
        graph.outputs = fuse(graph, graph.outputs, graph.effects)
    before, after = (cost_of(g.outputs, g.effects) for g in (plain, graph))
    assert after.flops <= before.flops * (1 + 1e-9)
    assert after.transcendentals <= before.transcendentals
    assert after.time <= before.time * (1 + 1e-9)
    assert peak_bytes(graph.outputs, graph.effects) <= fusion.GROWTH * peak_bytes(plain.outputs) + fusion.SLACK
    expected = jax.tree.leaves(jax.jit(function)(*args))
    found = jax.jit(lambda *args: emit(graph, jax.tree.leaves(args)))(*args)
    for value, wanted in zip(found, expected, strict=True):
        assert value.dtype == wanted.dtype
        if jnp.issubdtype(wanted.dtype, jax.dtypes.prng_key):
            value, wanted = jax.random.key_data(value), jax.random.key_data(wanted)
        np.testing.assert_allclose(value, wanted, rtol=2e-5, atol=2e-6)
    return graph


def loops_of(graph):
    return [node for node in graph.nodes if node.name in CONTROL]


def everywhere(graph):
    inner = [node for node in graph.nodes for body in node.bodies for node in everywhere(body)]
    return [*loops_of(graph), *(node for node in inner if node.name in CONTROL)]


def only(graph, name="scan"):
    (node,) = loops_of(graph)
    assert node.name == name
    return node


def sizes(node):
    """The numbers of consts, carries, xs and ys of a scan."""
    consts, carries = node.params["num_consts"], node.params["num_carry"]
    return consts, carries, len(node.operands) - consts - carries, len(node.outputs) - carries


def inside(node):
    return [inner.name for inner in node.bodies[-1].nodes]


def cell(h, x):
    return jnp.tanh(h @ W + x)


# ---- scan: consts, xs, carries, ys


def test_equal_operands_are_one_and_unused_ones_none():
    def function(w, h, x, y):
        return lax.scan(lambda h, x: (h * w[1] + x[0] + x[1] * w[0], None), h, (x, x, y))[0]

    graph = simplified(lambda w, h, x, y: function((w, w), h, x, y), T, H, X, X + 1, fused=False)
    assert sizes(only(graph)) == (1, 1, 1, 0)


def test_a_loop_in_normal_form_stays_as_it_is():
    def function(w, h, g, x, y):
        return lax.scan(lambda c, x: ((c[0] @ w + x[0], c[1] * x[1]), c[0]), (h, g), (x, y))

    graph = simplified(function, W, H, T, X, X + 1)
    assert sizes(only(graph)) == (1, 2, 2, 1)
    assert sorted(inside(only(graph))) == ["add", "dot_general", "mul"]


def test_what_is_carried_and_never_changes_is_a_const():
    function = lambda w, h, x: lax.scan(lambda c, x: ((c[1], c[1] @ c[1] * c[0] + x), c[0]), (w, h), x)
    swapped = lambda w, h, x: lax.scan(lambda c, x: ((c[0], c[0] * c[1] + x), None), (w, h), x)[0]
    graph = simplified(swapped, T, H, X)
    assert sizes(only(graph)) == (1, 1, 1, 0)
    assert graph.outputs[0] is graph.inputs[0]
    # The first carry of this one is the second one turn later: it changes.
    assert sizes(only(simplified(function, T, H, X)))[1] == 2


def test_a_carry_that_keeps_its_number_is_that_number():
    def function(h, x):
        def step(c, x):
            zero, one, h = c
            return (zero * 1.0, one + zero, (h * one + zero) @ W + x), None

        return lax.scan(step, (jnp.zeros(3), jnp.ones(3), h), x)[0]

    graph = simplified(function, H, X)
    assert sizes(only(graph))[1] == 1
    assert inside(only(graph)) == ["dot_general", "add"]


def test_a_carry_that_keeps_its_number_only_at_first_is_carried():
    function = lambda h, x: lax.scan(lambda c, x: ((c[0] + c[1], c[1] + x), None), (jnp.zeros(3), h), x)[0]
    assert sizes(only(simplified(function, H, X)))[1] == 2


def test_congruent_carries_are_one():
    function = lambda h, x: lax.scan(lambda c, x: ((cell(c[1], x), cell(c[0], x)), c), (h, h), x)
    graph = simplified(function, H, X)
    assert sizes(only(graph)) == (1, 1, 1, 1)
    assert graph.outputs[0] is graph.outputs[1]
    assert inside(only(graph)).count("tanh") == 1


def test_carries_that_start_alike_and_move_apart_are_two():
    function = lambda h, x: lax.scan(lambda c, x: ((cell(c[0], x), cell(c[1], x) * 2), None), (h, h), x)[0]
    assert sizes(only(simplified(function, H, X)))[1] == 2


def test_carries_that_start_apart_and_move_alike_are_two():
    function = lambda h, g, x: lax.scan(lambda c, x: ((cell(c[0], x), cell(c[1], x)), None), (h, g), x)[0]
    assert sizes(only(simplified(function, H, T, X)))[1] == 2


def shifted(count, feeds):
    """A shift register fed at one end, and a copy of it fed by `feeds`."""

    def function(h, x):
        def step(c, x):
            a, b = c[:count], c[count:]
            return ((jnp.sin(a[0] + x), *a[:-1], feeds(b[0], x), *b[:-1])), None

        return lax.scan(step, (h,) * (2 * count), x)[0]

    return function


def test_refinement_takes_as_many_rounds_as_it_needs():
    """All start alike; that two registers are equal, place by place, and no other two, takes a round for each place."""
    same = simplified(shifted(4, lambda b, x: jnp.sin(x + b)), H, X)
    assert sizes(only(same))[1] == 4
    assert [v.index for v in same.outputs] == [0, 1, 2, 3] * 2
    # What differs at the head differs everywhere in the end.
    apart = simplified(shifted(4, lambda b, x: jnp.sin(x - b)), H, X)
    assert sizes(only(apart))[1] == 8


def test_what_is_not_proved_in_time_stays_apart(monkeypatch):
    monkeypatch.setattr(congruence, "ROUNDS", 2)
    assert sizes(only(simplified(shifted(4, lambda b, x: jnp.sin(x + b)), H, X)))[1] == 8


def test_equal_results_are_stacked_once():
    def function(h, x):
        return lax.scan(lambda h, x: (cell(h, x), (cell(h, x) * 2, x, 2 * cell(h, x), W[0] * 3, jnp.zeros(2))), h, x)

    graph = simplified(function, H, X)
    assert sizes(only(graph)) == (1, 1, 1, 1)
    _, doubled, xs, again, fixed, zeros = graph.outputs
    assert doubled is again
    assert xs is graph.inputs[1]
    assert fixed.node.name == zeros.node.name == "broadcast_in_dim"


def test_an_xs_that_is_one_array_over_and_over_is_a_const():
    function = lambda w, h: lax.scan(lambda h, x: (cell(h, x), None), h, jnp.broadcast_to(w, (6, 3)))[0]
    assert sizes(only(simplified(function, T, H))) == (2, 1, 0, 0)


def test_views_are_made_inside():
    """Of one shape or another, consts and xs are the same; what is stacked of a view is a view of what is stacked."""

    def function(h, x):
        square = h[:, None] * jnp.ones(2)
        wide, tall, thin = jnp.broadcast_to(h, (2, 3)), jnp.reshape(h, (3, 1)), x[:, None, :, None]
        step = lambda c, x: (jnp.sin(c + wide.T + tall) * x[0], (x[0], jnp.broadcast_to(x[1], (2, 3)).T + c))
        last, (columns, sums) = lax.scan(step, square, (x[:, :, None], x))
        return (
            last,
            columns,
            sums,
            lax.scan(lambda c, x: (jnp.sin(c + tall + h[:, None]) * x[0], None), square, thin)[0],
        )

    graph = simplified(function, H, X, fused=False)
    one, other = loops_of(graph)
    assert (sizes(one), sizes(other)) == ((1, 1, 1, 1), (1, 1, 1, 0))
    assert one.operands[0] is other.operands[0] is graph.inputs[0]
    assert one.operands[-1] is other.operands[-1] is graph.inputs[1]


def test_a_loop_that_does_nothing_is_none():
    function = lambda h, x: lax.scan(lambda c, x: (c, (x, c)), h, x)
    assert loops_of(simplified(function, H, X)) == []


# ---- loop-invariant code motion


def test_what_no_turn_changes_is_computed_before():
    def function(w, h, x):
        return lax.scan(lambda h, x: (jnp.tanh(h @ jnp.sin(w @ w) + x + jnp.cos(w[0])), None), h, x)[0]

    graph = simplified(function, W, H, X)
    assert sorted(inside(only(graph))) == ["add", "add", "dot_general", "tanh"]
    assert {"sin", "cos"} <= {node.name for node in graph.nodes}


def test_what_costs_nothing_is_made_anew_inside():
    def function(w, h, x):
        def step(h, x):
            return h * jnp.broadcast_to(w[:, None], (3, 3)) + lax.iota(jnp.float32, 3) * x, None

        return lax.scan(step, jnp.outer(h, h), x)[0]

    names = inside(only(simplified(function, T, H, X)))
    assert "broadcast_in_dim" in names
    assert "iota" in names


def test_what_is_hoisted_is_bounded(monkeypatch):
    def function(w, x):
        step = lambda c, x: (c + jnp.sum(jnp.sin(w[:, None] - w) * x) + jnp.exp(w[0]), None)
        return lax.scan(step, 0.0, x)[0]

    many = np.linspace(0, 1, 40, dtype=np.float32)
    steps = np.linspace(1, 2, 7, dtype=np.float32)
    assert {"sin", "exp"} & set(inside(only(simplified(function, many, steps)))) == set()
    monkeypatch.setattr(bodies, "HOISTED", 100)
    assert {"sin", "exp"} & set(inside(only(simplified(function, many, steps)))) == {"sin"}


def test_barriers_stay_where_they_are():
    function = lambda w, h, x: lax.scan(lambda h, x: (h @ lax.optimization_barrier(w * 2) + x, None), h, x)[0]
    names = inside(only(simplified(function, W, H, X)))
    assert "optimization_barrier" in names
    assert "mul" not in names


# ---- kinds of scans


@pytest.mark.parametrize("length", [0, 1, 5])
@pytest.mark.parametrize("reverse", [False, True])
def test_lengths_and_directions(length, reverse):
    def function(h, x):
        def step(c, x):
            a, b, i = c
            return (cell(a, x), cell(b, x), i + 1), (a, x, W[1] * 2, i)

        return lax.scan(step, (h, h, 0), x, reverse=reverse)

    graph = simplified(function, H, X[:length])
    if length:
        assert sizes(only(graph))[1] == 2


def test_a_loop_of_no_turns_computes_nothing():
    function = lambda w, h, x: lax.scan(lambda c, x: ((c[0] @ jnp.sin(w) + x, c[1] @ w), c[0]), (h, h), x)[0][0]
    graph = simplified(lambda w, h, x: (function(w, h, x), derivative(lambda h: function(w, h, x), h)(h)), W, H, X[:0])
    assert "sin" not in {node.name for node in graph.nodes}


def test_random_keys_are_carried():
    def function(key, h):
        def step(c, _):
            a, b, h = c
            a, b = (jax.random.split(k)[0] for k in (a, b))
            return (a, b, h + jax.random.normal(a, (3,)) * jax.random.normal(b, (3,))), a

        return lax.scan(step, (key, key, h), None, length=4)

    graph = simplified(function, jax.random.key(3), H)
    assert sizes(only(graph))[1] == 2


def test_integers_and_weak_types():
    def function(x):
        def step(c, x):
            i, j, s = c
            return (i + 1, j + 1, s * 2.0 + x[0] * i), (i, j)

        return lax.scan(step, (0, jnp.int32(0), 1.0), x)

    graph = simplified(function, X)
    assert sizes(only(graph))[1] == 2


def test_arrays_closed_over_inside_are_consts():
    table = jnp.asarray(W)
    function = lambda h, x: lax.scan(lambda h, x: (jnp.tanh(h @ table + x), None), h, x)[0]
    graph = simplified(lambda h, x: (function(h, x), jax.jvp(lambda h: function(h, x), (h,), (h,))[1]), H, X)
    assert sizes(only(graph)) == (1, 2, 1, 0)


def test_results_that_alias():
    def function(h, x):
        a, ys = lax.scan(lambda h, x: (cell(h, x), h), h, x)
        b, zs = lax.scan(lambda h, x: (cell(h, x), h), h, x)
        return a, a, b, ys, zs, h

    graph = simplified(function, H, X)
    assert len(set(graph.outputs)) == 3
    assert sizes(only(graph)) == (1, 1, 1, 1)


# ---- while


def test_while_in_normal_form():
    def function(h, n):
        def test(c):
            return (c[0] < n) & (jnp.sum(jnp.cos(T)) < 9)

        def step(c):
            i, j, w, a, b = c
            return i + 1, j + 1, w, jnp.tanh(a @ jnp.sin(w)) + j, jnp.tanh(b @ jnp.sin(w)) + i

        return lax.while_loop(test, step, (0, 0, W, h, h))

    node = only(simplified(function, H, N), "while")
    assert len(node.outputs) == 2
    assert "sin" not in inside(node)
    assert [inner.name for inner in node.bodies[0].nodes] in (["lt", "and"], ["and", "lt"])


def test_whiles_that_do_not_turn():
    function = lambda h, n: lax.while_loop(lambda c: c[0] < n, lambda c: (c[0] + 1, c[1] @ jnp.sin(W)), (0, h))[1]
    simplified(function, H, np.int32(0))
    simplified(function, H, np.int32(-3))


def test_whiles_of_lanes():
    one = lambda n, h: lax.while_loop(lambda c: c[0] < n, lambda c: (c[0] + 1, cell(c[1], 1.0), c[2]), (0, h, h))
    both = lambda n, h: (jax.vmap(one)(n, h), jax.vmap(lambda n, h: one(n, h)[1])(n, h))
    graph = simplified(both, np.arange(5, dtype=np.int32), X)
    assert len(loops_of(graph)) == 1


# ---- cond


def test_cond_in_normal_form():
    def function(p, x, y):
        unused = y * 3
        first = lambda x, same, y, unused: (x + 1, x, 0.5, same + 1, jnp.sin(y))
        second = lambda x, same, y, unused: (x - 1, same, 0.5, x - 1, jnp.cos(y))
        return lax.cond(p, first, second, x, x, y, unused)

    node = only(simplified(function, np.bool_(True), H, T), "cond")
    assert len(node.operands) == 3
    assert len(node.outputs) == 2


def test_a_cond_whose_branches_are_equal_is_its_branch():
    function = lambda p, x: lax.cond(p, lambda x: jnp.sin(x) * 2, lambda y: jnp.sin(y) * 2, x)
    assert loops_of(simplified(function, np.bool_(False), X)) == []


@pytest.mark.parametrize("index", [-2, 0, 1, 2, 9])
def test_a_known_branch_is_inlined(index):
    function = lambda x: lax.switch(index, [jnp.sin, jnp.cos, jnp.tanh], x)
    assert loops_of(simplified(function, X)) == []


def test_an_index_out_of_range_is_the_nearest_branch():
    for index, name in ((-2, "sin"), (9, "tanh")):
        graph = Graph(RULES)
        x = graph.input(jax.typeof(jnp.asarray(X)))
        which = graph.literal(index, jax.typeof(jnp.int32(0)))
        made = [trace(f, X, rules=RULES)[0] for f in (jnp.sin, jnp.cos, jnp.tanh)]
        (out,) = graph.add(lax.cond_p, [which, x], {}, [x.aval], bodies=made)
        assert out.node.name == name


def test_a_cond_stays_as_it_is():
    function = lambda p, x, y: lax.cond(p, lambda x, y: x + y, lambda x, y: x * y, x, y)
    node = only(simplified(function, np.bool_(True), H, T), "cond")
    assert (len(node.operands), len(node.outputs)) == (3, 1)


# ---- what nobody reads


def test_dead_carries_and_outputs():
    def function(h, x, n):
        def step(c, x):
            h, mean, dead, deader = c
            return (cell(h, x), mean + h, dead * mean, deader + dead), (h, jnp.sin(mean))

        (_, mean, _, _), (hs, _) = lax.scan(step, (h, h * 2, h * 3, h * 4), x)
        looped = lax.while_loop(lambda c: c[0] < n, lambda c: (c[0] + 1, c[1] * 2, c[2] + c[3], c[3] * 3), (0, h, h, h))
        chosen = lax.cond(n > 2, lambda h: (h, jnp.sin(h)), lambda h: (h * 2, jnp.cos(h)), h)
        return mean, hs, looped[1], chosen[0]

    graph = simplified(function, H, X, N)
    assert {node.name: len(node.outputs) for node in loops_of(graph)} == {"scan": 3, "while": 2, "cond": 1}


def test_what_a_predicate_needs_is_alive():
    function = lambda h: lax.while_loop(
        lambda c: c[1].sum() < 9, lambda c: (c[0] + 1, c[1] + c[2], c[2] * 2), (0, h, h)
    )[0]
    assert len(only(simplified(function, np.abs(H)), "while").outputs) == 3


def test_liveness_goes_through_several_loops():
    def function(h, x):
        _, (a, b) = lax.scan(lambda c, x: ((cell(c[0], x), c[1] * x), c), (h, h), x)
        (c, _), _ = lax.scan(lambda c, ab: ((cell(c[0], ab[0]), c[1] + ab[1]), None), (h, h), (a, b))
        return c

    graph = simplified(function, H, X)
    assert [sizes(node)[1] for node in loops_of(graph)] == [1, 1]


# ---- fusion


def rnn(h, x=X):
    return lax.scan(lambda h, x: (cell(h, x), None), h, x)[0]


def stacked_rnn(h, x=X):
    return lax.scan(lambda h, x: (cell(h, x),) * 2, h, x)[1]


def derivative(function, *directions):
    """The derivative along one direction after another."""
    for t in directions:
        function = lambda h, function=function, t=t: jax.jvp(function, (h,), (t(h) if callable(t) else t,))[1]
    return function


@pytest.mark.parametrize("function", [rnn, stacked_rnn, functools.partial(rnn, x=X[:1])])
def test_a_loop_and_its_derivatives_are_one(function):
    both = lambda h, t: (function(h), derivative(function, t)(h), derivative(function, t, t)(h))
    node = only(simplified(both, H, T))
    assert inside(node).count("tanh") == 1


def test_a_parameter_that_one_of_two_loops_reads_spread():
    def network(w, x):
        return jnp.sum(lax.scan(lambda h, x: (jnp.sin(h + x * w), None), jnp.zeros(3), x)[0])

    mean = lambda w, x: jnp.mean(jax.vmap(network, (None, 0))(w, x) ** 2)
    graph = simplified(lambda w, x: (mean(w, x), jax.grad(mean)(w, x)), T, X)
    assert sorted(node.params["reverse"] for node in loops_of(graph)) == [False, True]


def test_derivatives_along_two_directions_are_one_loop():
    both = lambda h, t, s: (jax.jvp(rnn, (h,), (t,)), jax.jvp(rnn, (h,), (s,)))
    node = only(simplified(both, H, T, T * 2 + 1))
    assert (sizes(node)[1], inside(node).count("tanh")) == (3, 1)


def test_the_forward_passes_of_value_and_gradient_are_one():
    both = lambda h: (rnn(h), jax.grad(lambda h: rnn(h).sum())(h))
    forward, backward = loops_of(simplified(both, H))
    assert not forward.params["reverse"]
    assert backward.params["reverse"]


@pytest.mark.parametrize("unlike", ["length", "direction", "unrolling", "start", "step", "signal"])
def test_loops_that_share_nothing_stay_apart(unlike):
    def function(h, g, x):
        other = {"reverse": unlike == "direction", "unroll": 1 + (unlike == "unrolling")}
        scale = 2.0 if unlike == "step" else 1.0
        y = x[1:] if unlike == "length" else x * 2 if unlike == "signal" else x
        a = lax.scan(lambda h, x: (cell(h, x), None), h, x)[0]
        b = lax.scan(lambda h, x: (jnp.sin(cell(h * scale, x)), None), g if unlike == "start" else h, y, **other)[0]
        return a, b

    assert len(loops_of(simplified(function, H, T, X))) == 2


def test_loops_that_need_each_other_stay_apart():
    def function(h, x):
        once = rnn(h, x)
        return once, lax.scan(lambda c, x: ((cell(c[0], x), c[1] + cell(c[0], x)), None), (h, once), x)[0]

    assert len(loops_of(simplified(function, H, X))) == 2


def test_fusing_makes_no_cycle():
    """a with c, or b with d, but not both: d needs a, and c needs b."""

    def loop(h, x, extra):
        return lax.scan(lambda c, x: ((cell(c[0], x), c[1] + jnp.sin(c[0])), None), (h, extra), x)[0]

    def function(h, g, x):
        a, b = rnn(h, x), rnn(g, x)
        return a, b, loop(h, x, b), loop(g, x, a)

    assert len(loops_of(simplified(function, H, T, X))) == 3


def test_layers_of_loops_are_fused_in_one_round(monkeypatch):
    def deep(h):
        x = jnp.asarray(X)
        for _ in range(4):
            x = stacked_rnn(h, jnp.sin(x))
        return x

    monkeypatch.setattr(fusion, "ROUNDS", 1)
    both = lambda h, t: (deep(h), derivative(deep, t)(h), derivative(deep, t, t)(h))
    assert len(loops_of(simplified(both, H, T))) == 4


def test_a_superset_that_is_there_already_is_the_fused_loop():
    def function(h, x):
        sums = lax.scan(lambda c, x: ((cell(c[0], x), c[1] + c[0]), None), (h, h * 0.5), x)[0]
        norm = lax.scan(lambda c, x: (cell(c, x), jnp.sum(c)), h, x)[1]
        both = lax.scan(lambda c, x: ((cell(c[0], x), c[1] + c[0]), jnp.sum(c[0])), (h, h * 0.5), x)
        return rnn(h, x), sums, norm, both

    assert sizes(only(simplified(function, H, X))) == (1, 2, 1, 1)


def deep(h, w):
    return jnp.tanh(jnp.tanh(h @ w) @ w)


LOOPS = {
    "while": lambda h, n: lax.while_loop(lambda c: c[0] < n, lambda c: (c[0] + 1, cell(c[1], 1.0)), (0, h))[1],
    "fori_loop": lambda h, n: lax.fori_loop(0, n, lambda i, h: cell(h, 1e-3 * i), h),
    "fori_loop of known length": lambda h, n: lax.fori_loop(0, 6, lambda i, h: cell(h, 1e-3 * i), h),
    "cond": lambda h, n: lax.cond(n > 2, deep, lambda h, w: jnp.sin(h), h, W),
    "switch": lambda h, n: lax.switch(n, [deep, lambda h, w: jnp.sin(h), lambda h, w: jnp.tanh(h)], h, W),
    "scan in scan": lambda h, n: lax.scan(lambda h, x: (rnn(h) + x, None), h, X)[0],
    "scan in cond in while": lambda h, n: lax.while_loop(
        lambda c: c[0] < n, lambda c: (c[0] + 1, lax.cond(c[0] > 1, rnn, jnp.sin, c[1])), (0, h)
    )[1],
    "two conds in scan": lambda h, n: lax.scan(
        lambda h, x: (lax.cond(n > 2, deep, lambda h, w: jnp.sin(h), h, W) + lax.cond(n > 2, rnn, jnp.cos, h), x), h, X
    )[0],
}  # fmt: skip


@pytest.mark.parametrize("name", LOOPS)
def test_any_loop_and_its_derivative_are_one(name):
    def both(h, t, n):
        function = lambda h: LOOPS[name](h, n)
        return function(h), derivative(function, t)(h)

    alone = simplified(lambda h, n: LOOPS[name](h, n), H, N)
    graph = simplified(both, H, T, N)
    assert len(loops_of(graph)) == 1
    assert len(everywhere(graph)) <= len(everywhere(alone))


def test_whiles_of_different_predicates_stay_apart():
    def function(h, n):
        loop = lambda n: lax.while_loop(lambda c: c[0] < n, lambda c: (c[0] + 1, cell(c[1], 1.0)), (0, h))[1]
        return loop(n), loop(n + 1)

    assert len(loops_of(simplified(function, H, N))) == 2


def test_conds_of_different_predicates_stay_apart():
    function = lambda h, n: [lax.cond(n > k, deep, lambda h, w: jnp.sin(h), h, W) for k in (2, 3)]
    assert len(loops_of(simplified(function, H, N))) == 2


def ten(function):
    """All partials up to order two by three numbers, each a nest of its own."""

    def partials(p, q, r):
        values = [function(p, q, r)]
        partial = lambda f, i: lambda *v: jax.jvp(
            lambda z: f(*v[:i], z, *v[i + 1 :]), (v[i],), (jnp.ones_like(v[i]),))[1]  # fmt: skip
        values += [partial(function, i)(p, q, r) for i in range(3)]
        pairs = itertools.combinations_with_replacement(range(3), 2)
        return values + [partial(partial(function, i), j)(p, q, r) for i, j in pairs]

    return partials


def test_ten_partials_are_one_loop():
    recurrence = lambda p, q, r: lax.scan(lambda h, x: (jnp.tanh(p * (h @ W) + q * x), None), r * H, X)[0].mean()
    node = only(simplified(ten(recurrence), *map(np.float32, (0.9, 0.6, 0.3))))
    assert inside(node).count("tanh") == 1
    assert sizes(node)[1] == 10


def test_memory_bounds_fusion(monkeypatch):
    """Each stack is summed at once, and never alive with the others."""

    def function(h, x):
        total = 0.0
        for k in range(4):
            stack = lax.scan(lambda h, x, k=k: (cell(h, x), jnp.outer(h, h) * (k + 1.0)), h + 0 * total, x)[1]
            total = total + jnp.sum(jnp.sin(stack))
        stacks = [lax.scan(lambda h, x, k=k: (cell(h, x), jnp.outer(h, h) ** k), h, x)[1] for k in (2, 3, 5, 7)]
        return [total, *(jnp.sum(jnp.sin(s)) for s in stacks)]

    signal = RANDOM.normal(size=(200, 3)).astype(np.float32)
    free = simplified(function, H, signal)
    monkeypatch.setattr(fusion, "SLACK", 0)
    bound = simplified(function, H, signal)
    assert len(loops_of(free)) < len(loops_of(bound))


# ---- effects


def test_loops_with_effects_are_left_alone():
    seen = []

    def function(h, x):
        def step(c, x):
            a, b = c
            jax.debug.callback(lambda a: seen.append(float(a)), a[0])
            return (cell(a, x), cell(b, x)), None

        return lax.scan(step, (h, h), x)[0], rnn(h, x), rnn(h, x) * 2

    graph, _ = trace(function, H, X, rules=RULES)
    graph.outputs = fuse(graph, graph.outputs, graph.effects)
    (printing,) = graph.effects
    assert sizes(printing)[1] == 2
    assert len(loops_of(graph)) == 2
    results = {}
    for name, run in {"plain": function, "graph": lambda *args: emit(graph, args)}.items():
        seen.clear()
        results[name] = jax.tree.leaves(jax.block_until_ready(jax.jit(run)(H, X)))
        jax.effects_barrier()
        results[name] += [list(seen)]
    for found, wanted in zip(results["graph"], results["plain"], strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_effects_stay_in_order_when_what_they_read_is_fused():
    seen = []

    def function(h, t):
        see = lambda tag, x: io_callback(lambda x: seen.append((tag, float(x))), None, x, ordered=True)
        see("before", h[0])
        a = rnn(h)
        see("value", a[0])
        b = derivative(rnn, t)(h)
        see("slope", b[0])
        see("after", h[1])
        return a, b

    graph, _ = trace(function, H, T, rules=RULES)
    graph.outputs = fuse(graph, graph.outputs, graph.effects)
    only(graph)
    numbers = [node.number for node in graph.effects]
    assert numbers == sorted(numbers)
    logs = []
    for run in (function, lambda *args: emit(graph, args)):
        seen.clear()
        jax.block_until_ready(jax.jit(run)(H, T))
        jax.effects_barrier()
        logs.append(list(seen))
    assert [tag for tag, _ in logs[1]] == ["before", "value", "slope", "after"]
    np.testing.assert_allclose([x for _, x in logs[1]], [x for _, x in logs[0]], rtol=1e-5)


@pytest.mark.parametrize("order", ["answer after the loop", "answer before its derivative"])
def test_effects_with_results_happen_once_and_in_order(order):
    """What effects return is read again; a loop made one with its derivative must not come before what that reads."""
    seen = []

    def ask(tag, x):
        def answer(x):
            seen.append((tag, np.asarray(x).round(4).tolist()))
            return np.cos(x)

        return io_callback(answer, jax.typeof(x), x, ordered=True)

    def function(h, t):
        a = rnn(h)
        first = ask("value", a)
        second = ask("start", first if order == "answer after the loop" else h)
        b = derivative(rnn, t if order == "answer after the loop" else second)(h)
        return first * b, ask("slope", b) + second

    graph, _ = trace(function, H, T, rules=RULES)
    graph.outputs = fuse(graph, graph.outputs, graph.effects)
    assert len(graph.effects) == 3
    assert len(loops_of(graph)) == (1 if order == "answer after the loop" else 2)
    results = []
    for run in (function, lambda *args: emit(graph, args)):
        seen.clear()
        found = jax.block_until_ready(jax.jit(run)(H, T))
        jax.effects_barrier()
        results.append((*found, list(seen)))
    assert results[0][2] == results[1][2]
    for found, wanted in zip(results[1][:2], results[0][:2], strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5)


# ---- sums in bodies


def laplacian(x):
    energy = lambda x: jnp.sum(jnp.tanh(jnp.tanh(x @ W) @ W))
    return jnp.trace(jax.hessian(energy)(x))


def in_a_cond(laplacian, x, y):
    return lax.cond(x[0] < 1, lambda x: laplacian(x) + laplacian(x + y), lambda x: laplacian(x * y), x)


AROUND = {
    "scan": lambda laplacian, x, y: lax.scan(lambda h, y: (jnp.sin(h + y), laplacian(h)), x, y),
    "fori": lambda laplacian, x, y: lax.fori_loop(0, 4, lambda i, h: h + y[0] * laplacian(h), x),
    "cond": lambda laplacian, x, y: in_a_cond(laplacian, x, y[0]),
    "scan in cond in while": lambda laplacian, x, y: lax.while_loop(
        lambda c: jnp.sum(c[1]) < 4,
        lambda c: (c[0] + 1, c[1] + 1 + lax.cond(
            c[0] > 1,
            lambda x: jnp.sum(lax.scan(lambda h, y: (h * y, laplacian(h)), x, y)[1]),
            lambda x: 0.0,
            c[1],
        ) / 9),
        (0, x),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", AROUND)
def test_sums_are_collapsed_wherever_they_are(name):
    """A trace of a Hessian in a body becomes what it becomes outside of one."""

    def collapsed(x):
        graph, _ = trace(laplacian, x, rules=RULES)
        return evaluate(collapse(graph, graph.outputs), [(graph.inputs[0], x)])[0]

    function = functools.partial(AROUND[name], laplacian)
    graph, _ = trace(function, H, X, rules=RULES)
    values = pipeline.tidy(graph, graph.outputs)
    found = jax.jit(lambda h, x: evaluate(values, zip(graph.inputs, (h, x), strict=True)))(H, X)
    for value, wanted in zip(found, jax.tree.leaves(jax.jit(function)(H, X)), strict=True):
        np.testing.assert_allclose(value, wanted, rtol=1e-4, atol=1e-6)
    least, _ = trace(functools.partial(AROUND[name], collapsed), H, X, rules=RULES)
    assert cost_of(values).flops <= 1.01 * cost_of(least).flops < 0.8 * cost_of(graph).flops


# ---- the checks check


def test_a_missing_refinement_is_seen(monkeypatch):
    def careless(state, carries):
        return state.labels, state.held

    function = lambda h, x: lax.scan(lambda c, x: ((cell(c[0], x), cell(c[1], x) * 2), None), (h, h), x)[0]
    simplified(function, H, X)
    monkeypatch.setattr(congruence, "split", careless)
    with pytest.raises(AssertionError):
        simplified(function, H, X + 1)


def test_a_missing_check_of_dependence_is_seen(monkeypatch):
    def function(h, x):
        once = rnn(h, x)
        return once, lax.scan(lambda c, x: ((cell(c[0], x), c[1] + cell(c[0], x)), None), (h, once), x)[0]

    monkeypatch.setattr(fusion, "_dependences", lambda nodes, loops: [0] * len(loops))
    graph, _ = trace(function, H, X, rules=RULES)
    assert fusion._fusions(graph, graph.outputs, ()) != []


def test_lines_of_the_user_are_kept():
    both = lambda h, t: (rnn(h), derivative(rnn, t)(h))
    node = only(simplified(both, H, T))
    assert node.line[2] == "rnn"
    assert {inner.line[2] for inner in node.bodies[0].nodes if inner.name == "dot_general"} == {"cell"}


def test_twice_is_once():
    both = lambda h, t, n: (LOOPS["scan in cond in while"](h, n), derivative(lambda h: LOOPS["cond"](h, n), t)(h))
    graph = simplified(both, H, T, N)
    again, _ = trace(lambda *args: emit(graph, args), H, T, N, rules=RULES)
    again.outputs = fuse(again, again.outputs)
    assert [node.name for node in everywhere(again)] == [node.name for node in everywhere(graph)]
    assert cost_of(again.outputs).time == pytest.approx(cost_of(graph.outputs).time)
