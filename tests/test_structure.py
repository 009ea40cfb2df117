"""Lanes and linearity against brute force: dense Jacobians, and values with one lane perturbed."""

import inspect
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from structure_cases import APART, CURVED, LINEAR, MIXING, Case, honest, refusing

from jaxpartials.graph.graph import Graph
from jaxpartials.graph.trace import trace
from jaxpartials.structure.axes import FREE, Flow, Lane, Mixed, independent, lane_states
from jaxpartials.structure.linearity import AFFINE, CONSTANT, degrees, nonlinear
from jaxpartials.structure.linearity import LINEAR as DEGREE_LINEAR
from jaxpartials.structure.rules import NEVER, RULES

pytestmark = pytest.mark.slow

ids = lambda case: case.name


def arrays_of(case: Case) -> list[jax.Array]:
    rng = np.random.default_rng(zlib.crc32(case.name.encode()))
    return [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in case.shapes]


def answer(case: Case, order: int):
    graph, _ = trace(case.fn, *arrays_of(case))
    inputs = [(graph.inputs[i], axis) for i, axis in case.axes.items()]
    return independent(graph.outputs[0], case.out, inputs, order)


# ---- the oracle


def mixing_found(case: Case, axes: dict[int, int], out: int) -> str | None:
    """How the lanes are seen to mix: in the values, in the Jacobian, or in a derivative of the Jacobian."""
    arrays = arrays_of(case)
    laned = sorted(axes)

    def fn(*inputs):
        given = list(arrays)
        for i, x in zip(laned, inputs, strict=True):
            given[i] = x
        return jnp.moveaxis(case.fn(*given), out, 0)

    inexact = jnp.issubdtype(jax.eval_shape(fn, *(arrays[i] for i in laned)).dtype, jnp.inexact)
    places = tuple(range(len(laned)))

    def everything(inputs, directions):
        """Values, Jacobians, and the Jacobians' derivatives along the directions."""
        if not inexact:
            return fn(*inputs), (), ()
        if case.reverse:
            return fn(*inputs), jax.jacrev(fn, places)(*inputs), ()
        return fn(*inputs), *jax.jvp(jax.jacfwd(fn, places), inputs, directions)

    run = jax.jit(everything, compiler_options={"xla_backend_optimization_level": 0})
    rng = np.random.default_rng(1)
    inputs = tuple(arrays[i] for i in laned)

    def in_lane(b, new, old):
        """`new` in lane b, `old` in the others."""
        inside = [np.expand_dims(np.arange(x.shape[axes[i]]) == b, [a for a in range(x.ndim) if a != axes[i]])
                  for i, x in zip(laned, inputs, strict=True)]  # fmt: skip
        return tuple(np.where(m, n, o).astype(np.float32) for m, n, o in zip(inside, new, old, strict=True))

    def apart(tensors):
        """Jacobians with the output's and the input's lane axes first."""
        return [np.moveaxis(np.asarray(j), before.ndim + axes[i], 1) for i, j in zip(laned, tensors, strict=True)]

    nothing = [np.zeros_like(x) for x in inputs]
    before, *_ = run(inputs, tuple(nothing))
    lanes = before.shape[0]
    for b in range(lanes):
        directions = in_lane(b, [rng.normal(size=x.shape) for x in inputs], nothing)
        _, first, second = run(inputs, directions)
        for j in apart(first):
            if _size(j[~np.eye(lanes, dtype=bool)]) > 1e-5:
                return "first derivative"
        own = np.zeros((lanes, lanes), bool)
        own[b, b] = True
        for j in apart(second) if second else ():
            if _size(j[~own]) > 1e-5:
                return "second derivative"
    for _ in range(6):
        for b in range(lanes):
            others = in_lane(b, [rng.normal(size=x.shape) for x in inputs], inputs)
            moved = ~np.isclose(run(others, tuple(nothing))[0], before, rtol=1e-5, atol=1e-6, equal_nan=True)
            if np.delete(moved, b, axis=0).any():
                return "values"
    return None


def _size(numbers):
    return np.nanmax(np.abs(numbers), initial=0)


# ---- lanes


@pytest.mark.parametrize("case", APART, ids=ids)
def test_lanes_that_are_apart_are_proved_apart(case):
    found = answer(case, order=2)
    assert found is None, str(found)
    assert mixing_found(case, case.axes, case.out) is None


@pytest.mark.parametrize("case", MIXING, ids=ids)
def test_what_mixes_the_lanes_is_named_with_its_line(case):
    found = answer(case, order=2)
    assert found is not None
    assert found.node is not None
    assert found.node.name == case.mixed_by, found
    file, line, _ = found.node.line
    function = inspect.unwrap(case.fn)
    lines, start = inspect.getsourcelines(function)
    assert file == inspect.getsourcefile(function)
    assert start <= line < start + len(lines)


@pytest.mark.parametrize(
    "case", [c for c in MIXING if c.mixed_by not in ("pure_callback", "io_callback", "freeze")], ids=ids
)
def test_the_oracle_sees_the_mixing(case):
    assert mixing_found(case, case.axes, case.out) is not None


@pytest.mark.parametrize("name", ["flip", "cumsum", "sort", "fft", "pool over lanes", "difference", "channels"])
def test_a_wrong_row_is_caught(name, monkeypatch):
    """The oracle would show it if the table let a primitive through that mixes."""
    (case,) = (case for case in MIXING if case.name == name)
    monkeypatch.setitem(RULES, case.mixed_by, RULES["sin"])
    if case.name == "difference":
        monkeypatch.setitem(RULES, "pad", RULES["sin"])
    assert answer(case, order=2) is None
    assert mixing_found(case, case.axes, case.out) is not None


# Rows that not every release reaches with the cases here, ...
UNREACHED = {
    "add_any", "cholesky_update", "device_put", "eq_to", "geqp3", "geqrf", "jit", "layout_constraint", "le_to",
    "mulhi", "ormqr", "ragged_dot_general", "random_clone", "select_and_scatter", "sharding_constraint", "threefry2x32",
    "zeros_like",
}  # fmt: skip


# ... and rows of primitives that are new in 0.12.
NEW = {"call_hi_primitive", "log2", "one_minus_square", "polynomial"} if jax.__version_info__ < (0, 12) else set()


def test_every_row_is_reached_by_lanes(monkeypatch):
    reached = set()
    step = Flow.step

    def recorded(flow, node, operands):
        if any(isinstance(state, Lane) for state in operands):
            reached.add(node.name)
        return step(flow, node, operands)

    monkeypatch.setattr(Flow, "step", recorded)
    for case in [*APART, *MIXING]:
        answer(case, order=2)
    assert sorted(set(RULES) - reached - UNREACHED - NEW) == []


def test_a_rule_that_cannot_be_traced_is_named():
    found = answer(Case("refusing", lambda x: refusing(x), ((5, 3),)), order=1)
    assert "cannot be traced (RuntimeError)" in found.reason
    assert answer(Case("refusing", lambda x: refusing(x), ((5, 3),)), order=0) is None


def test_values_alone_are_order_zero():
    (case,) = (case for case in MIXING if case.name == "mixing second derivative")
    assert answer(case, order=0) is None
    assert answer(case, order=1) is None
    assert answer(case, order=2).node.name == "custom_jvp_call"


def test_lanes_that_end_elsewhere_are_not_operations():
    graph, _ = trace(lambda x: x.T, np.ones((5, 5), np.float32))
    found = independent(graph.outputs[0], 0, {graph.inputs[0]: 0})
    assert found == Mixed(None, "the lanes of the output lie along axis 1, not along axis 0")
    assert independent(graph.outputs[0], 1, {graph.inputs[0]: 0}) is None
    assert independent(graph.outputs[0], -1, {graph.inputs[0]: -2}) is None


def test_lanes_of_different_length_are_an_answer():
    graph, _ = trace(lambda x, y: x[:, None] * y, np.ones(5, np.float32), np.ones(3, np.float32))
    found = independent(graph.outputs[0], 0, [(graph.inputs[0], 0), (graph.inputs[1], 0)])
    assert found == Mixed(None, "the lane axes differ in length: 3, 5")


def test_one_lane_has_nothing_to_mix_with():
    graph, _ = trace(lambda x: x - x.mean(0), np.ones((1, 3), np.float32))
    assert independent(graph.outputs[0], 0, {graph.inputs[0]: 0}) is None


def test_states_of_all_values():
    def fn(x, w):
        return jnp.tanh((x @ w).reshape(-1)).sum(), w.sum()

    graph, _ = trace(fn, np.ones((5, 3), np.float32), np.ones((3, 4), np.float32))
    states = lane_states(graph.outputs, {graph.inputs[0]: 0})
    by_name = {node.name: states[node.number, 0] for node in graph.nodes if node.outputs != (graph.outputs[1],)}
    assert by_name["dot_general"] == Lane(0)
    assert by_name["reshape"] == by_name["tanh"] == Lane(0, 4)
    assert isinstance(by_name["reduce_sum"], Mixed)
    assert states[graph.outputs[1].node.number, 0] == FREE


# ---- models of two libraries


def test_equinox_model_under_vmap():
    eqx = pytest.importorskip("equinox")
    model = eqx.nn.MLP(3, 2, 7, 2, key=jax.random.key(0))
    params, static = eqx.partition(model, eqx.is_array)
    fn = lambda x, *leaves: jax.vmap(eqx.combine(jax.tree.unflatten(tree, leaves), static))(x)
    leaves, tree = jax.tree.flatten(params)
    graph, _ = trace(fn, np.ones((5, 3), np.float32), *leaves)
    assert independent(graph.outputs[0], 0, {graph.inputs[0]: 0}, 2) is None


def test_flax_model():
    nnx = pytest.importorskip("flax.nnx")
    rngs = nnx.Rngs(0)
    first, norm, second = nnx.Linear(3, 7, rngs=rngs), nnx.LayerNorm(7, rngs=rngs), nnx.Linear(7, 2, rngs=rngs)
    graph, _ = trace(lambda x: second(nnx.gelu(norm(first(x)))), np.ones((5, 3), np.float32))
    assert independent(graph.outputs[0], 0, {graph.inputs[0]: 0}, 2) is None


# ---- random programs

STEPS = {
    "sin": lambda x, a, w: jnp.sin(x),
    "swap": lambda x, a, w: jnp.swapaxes(x, a, 0),
    "turn": lambda x, a, w: jnp.moveaxis(x, 0, -1),
    "flip": lambda x, a, w: jnp.flip(x, a) + x,
    "centre": lambda x, a, w: x - x.mean(a, keepdims=True),
    "softmax": lambda x, a, w: jax.nn.softmax(x, axis=a),
    "cumulate": lambda x, a, w: jnp.cumsum(x, a),
    "sort": lambda x, a, w: jnp.sort(x, a),
    "mix": lambda x, a, w: jnp.moveaxis(jnp.tensordot(x, w[: x.shape[a], : x.shape[a]], (a, 0)), -1, a),
    "merge": lambda x, a, w: jnp.tanh(x.reshape(-1, x.shape[-1]) * 2).reshape(x.shape),
    "flatten": lambda x, a, w: jnp.tanh(x.reshape(-1)).reshape(x.shape) * x,
    "stack": lambda x, a, w: jnp.stack([x, x**2], a).sum(a),
    "tile": lambda x, a, w: jnp.concatenate([x, 2 * x], a).reshape(*x.shape[:a], 2, *x.shape[a:]).prod(a),
    "pick": lambda x, a, w: x + jax.lax.index_in_dim(x, 1, a),
    "gather": lambda x, a, w: jnp.take(x, jnp.asarray([1, 0, 1]), axis=a, mode="clip").sum(a, keepdims=True) + x,
    "roll": lambda x, a, w: jnp.roll(x, 1, a) * x,
    "map": lambda x, a, w: jax.lax.map(lambda r: jnp.sin(r) * r.sum(), x),
    "carry": lambda x, a, w: jax.lax.scan(lambda c, r: (c + jnp.sin(r), c * r), x[0], x)[1],
    "outer": lambda x, a, w: jnp.einsum("abc,abd->abc", x, jnp.sin(x)),
    "where": lambda x, a, w: jnp.where(x > x.max(a, keepdims=True) / 2, x, x**2),
    "rule": lambda x, a, w: honest(x),
    "set": lambda x, a, w: jnp.moveaxis(jnp.moveaxis(x, a, 0).at[0].set(3.0), 0, a),
}  # fmt: skip


@pytest.mark.parametrize("seed", range(40))
def test_random_programs(seed):
    """Whatever is proved apart is apart in the dense Jacobian, for every axis of input and output."""
    rng = np.random.default_rng(seed)
    shape = tuple(rng.permutation([2, 3, 3]))
    chosen = [(STEPS[name], int(rng.integers(3))) for name in rng.choice(list(STEPS), size=rng.integers(1, 5))]
    w = rng.normal(size=(3, 3))

    def fn(x):
        for step, axis in chosen:
            x = step(x, axis, w)
        return x

    x = rng.normal(size=shape)
    jacobian = jax.jit(jax.jacfwd(fn), compiler_options={"xla_backend_optimization_level": 0})(x)
    graph, _ = trace(fn, x)
    for i in range(3):
        for o in range(3):
            if jacobian.shape[o] != shape[i]:
                continue
            lanes = np.moveaxis(jacobian, (o, 3 + i), (0, 1))
            seen = np.abs(lanes[~np.eye(shape[i], dtype=bool)]).max() > 1e-6
            proved = independent(graph.outputs[0], o, {graph.inputs[0]: i}, 2) is None
            assert not (seen and proved)
            FUZZED.append((bool(seen), proved))


FUZZED: list[tuple[bool, bool]] = []


def test_random_programs_are_mostly_decided():
    """What the Jacobian shows to be apart is nearly always proved."""
    proofs = [proved for seen, proved in FUZZED if not seen]
    if len(FUZZED) > 100:  # all of them have run, and in this process
        assert sum(proofs) > 0.9 * len(proofs) > 0


# ---- linearity


def degree_of(case: Case):
    graph, _ = trace(case.fn, *arrays_of(case))
    return graph, nonlinear(graph.outputs, graph.inputs)


def names_in(graph: Graph) -> set[str]:
    return {node.name for node in graph.nodes}.union(*(names_in(b) for n in graph.nodes for b in n.bodies))


@pytest.mark.parametrize("case", LINEAR, ids=ids)
def test_a_linear_row_is_its_own_derivative(case):
    arrays = arrays_of(case)
    graph, found = degree_of(case)
    assert found is None
    states = degrees(graph.outputs, graph.inputs)
    assert {states[v.node.number, v.index] for v in graph.outputs} == {DEGREE_LINEAR}
    tangents = [jnp.cos(7 * a + 1) for a in arrays]
    if case.name == "custom_vjp_call":
        tangent = jax.tree.map(jnp.add, case.fn(*arrays), case.fn(*tangents))
        expected = case.fn(*map(jnp.add, arrays, tangents))
    else:
        _, tangent = jax.jvp(case.fn, arrays, tangents)
        expected = case.fn(*tangents)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5), tangent, expected)


def test_every_linear_row_is_tested():
    rows = {name for name, rule in RULES.items() if rule.linear != NEVER}
    untested = {"add_any", "custom_vmap_call", "device_put", "jit", "layout_constraint",
                "ragged_dot_general", "sharding_constraint", "zeros_like"}  # fmt: skip
    assert rows - {case.name for case in LINEAR} <= untested
    for case in LINEAR:
        graph, _ = degree_of(case)
        assert case.name in names_in(graph) | NEW


@pytest.mark.parametrize("case", CURVED, ids=ids)
def test_what_is_not_affine_is_named(case):
    _, found = degree_of(case)
    assert found.name == case.mixed_by


@pytest.mark.parametrize(
    ("fn", "degree"),
    [
        (lambda x, y: x + 1.0, AFFINE),
        (lambda x, y: x + y, AFFINE),
        (lambda x, y: jnp.sin(y) * x, DEGREE_LINEAR),
        (lambda x, y: jnp.sin(y), CONSTANT),
        (lambda x, y: jnp.where(y > 0, x, 0.0), DEGREE_LINEAR),
        (lambda x, y: jnp.where(y > 0, x, 1.0), AFFINE),
        (lambda x, y: jnp.pad(x, 1, constant_values=2.0), AFFINE),
        (lambda x, y: jax.lax.fori_loop(0, 3, lambda i, c: 2 * c + x, y), AFFINE),
    ],
)
def test_linear_affine_and_constant_are_told_apart(fn, degree):
    graph, _ = trace(fn, np.ones((5, 3), np.float32), np.ones((5, 3), np.float32))
    (out,) = graph.outputs
    assert degrees([out], graph.inputs[:1])[out.node.number, out.index] == degree


@pytest.mark.parametrize("case", [*APART, *MIXING], ids=ids)
def test_nothing_curved_is_called_affine(case):
    _, found = degree_of(case)
    if found is None:
        x, y = arrays_of(case), [jnp.sin(5 * a + 2) for a in arrays_of(case)]
        both = case.fn(*map(jnp.add, x, y)) + case.fn(*(0 * a for a in x))
        np.testing.assert_allclose(both, case.fn(*x) + case.fn(*y), rtol=1e-4, atol=1e-4)
