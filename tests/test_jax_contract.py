"""What the library relies on in JAX's intermediate representation, and in `jaxpartials._jax`.

None of this is promised by JAX. When a release changes one of these, the test that fails says what has moved.
"""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxpartials import _jax

X = np.arange(12, dtype=np.float32).reshape(4, 3)
F32 = np.dtype(np.float32)


def equations(function, *args):
    closed, _ = _jax.trace(function, *args)
    return _jax.open_jaxpr(closed).equations


def only(function, *args):
    (equation,) = equations(function, *args)
    return equation


def last(function, *args):
    return equations(function, *args)[-1]


def named(name, listing):
    """The last equation of this name, inside a jit too."""
    for equation in reversed(listing):
        if equation.primitive.name == name:
            return equation
        if equation.primitive.name == "jit":
            return named(name, _jax.open_jaxpr(equation.params["jaxpr"]).equations)
    raise AssertionError(f"no {name}")


@jax.custom_jvp
def with_jvp(x):
    return x * 2


with_jvp.defjvp(lambda primals, tangents: (with_jvp(*primals), 3 * tangents[0]))


@jax.custom_vjp
def with_vjp(x):
    return x * 2


with_vjp.defvjp(lambda x: (x * 2, x), lambda x, cotangent: (cotangent * x,))


# ---- jaxprs


def test_a_jaxpr_has_inputs_constants_equations_outputs():
    table = jnp.arange(3.0)
    closed, shapes = _jax.trace(lambda x, n: {"a": jnp.sin(x) + table, "b": n}, X, 2)
    opened = _jax.open_jaxpr(closed)
    assert _jax.is_jaxpr(closed)
    assert [v.aval.shape for v in opened.inputs] == [(4, 3), ()]
    ((variable, value),) = opened.constants
    assert variable.aval.shape == value.shape == (3,)
    assert opened.equations[0].primitive.name == "sin"
    assert opened.outputs[1] is opened.inputs[1]
    assert shapes["a"].shape == (4, 3)
    assert list(shapes) == ["a", "b"]


def test_an_open_jaxpr_opens_too():
    body = only(jax.checkpoint(jnp.sin), X).params["jaxpr"]
    opened = _jax.open_jaxpr(body)
    assert ([e.primitive.name for e in opened.equations], opened.constants) == (["sin"], [])


def test_an_equation_has_operands_parameters_effects_and_a_source():
    equation = only(lambda x: x * 2.0, X)
    variable, literal = equation.invars
    assert isinstance(literal, _jax.Literal)
    assert (literal.val, literal.aval.shape, literal.aval.dtype) == (2.0, (), F32)
    assert not isinstance(variable, _jax.Literal)
    assert equation.outvars[0].aval.shape == (4, 3)
    assert not equation.effects
    assert _jax.user_line(equation.source_info)[0] == __file__
    assert last(lambda x: jax.debug.callback(print, x), X).effects


def test_equations_inside_library_functions_may_have_no_line_of_the_user():
    call = last(lambda x: jnp.where(x > 0, x, 0.0), X)
    assert call.primitive.name == "jit"
    assert _jax.has_user_frame(call.source_info)
    inside = _jax.open_jaxpr(call.params["jaxpr"]).equations[-1]
    assert inside.primitive.name == "select_n"
    assert _jax.user_line(inside.source_info) is None or _jax.user_line(inside.source_info)[0] == __file__


def test_an_equation_remembers_its_settings():
    plain = only(jnp.sin, X)
    with jax.threefry_partitionable(not jax.config.jax_threefry_partitionable):
        other = only(lambda x: jnp.sin(x), X)
    assert _jax.context_key(plain.ctx) == _jax.context_key(only(lambda x: jnp.sin(x), X).ctx)
    assert _jax.context_key(plain.ctx) != _jax.context_key(other.ctx)
    hash(_jax.context_key(plain.ctx))


def test_the_trace_context_is_a_key():
    plain = _jax.trace_context()
    assert plain == _jax.trace_context()
    hash(plain)
    with jax.enable_x64(not jax.config.jax_enable_x64):
        assert _jax.trace_context() != plain
    with jax.default_matmul_precision("float32"):
        assert _jax.trace_context() != plain
    mesh = jax.make_mesh((1,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))
    with jax.set_mesh(mesh):
        assert _jax.trace_context() != plain


def test_the_user_context_gives_line_and_name_back():
    equation = only(lambda x: jax.named_scope("outer")(jnp.sin)(x), X)

    def again(x):
        with jax.named_scope("around"), _jax.user_context(equation.source_info, equation.ctx):
            return jnp.cos(x)

    emitted = only(again, X)
    assert _jax.user_line(emitted.source_info) == _jax.user_line(equation.source_info)
    assert str(emitted.source_info.name_stack) == "around/outer"


# ---- binding


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x * 2.0, jnp.sin, lambda x: lax.reduce_sum(x, axes=(0,)), lambda x: lax.sort(x, dimension=0),
        jax.jit(jnp.sin), with_jvp, with_vjp, jax.checkpoint(jnp.sin),
        lambda x: jnp.linalg.eigh(x[:3]), lambda x: lax.scan(lambda c, v: (c + v, c), x[0], x),
    ],
)  # fmt: skip
def test_bind_does_what_the_equation_does(function):
    equation = last(function, X)
    arrays = [a.val if isinstance(a, _jax.Literal) else jnp.asarray(X[: a.aval.shape[0]]) for a in equation.invars]
    if equation.primitive.name == "scan":
        arrays = [X[0], X]
    outputs = _jax.bind(equation.primitive, equation.params, arrays)
    assert isinstance(outputs, list)
    assert [(o.shape, o.dtype) for o in outputs] == [(v.aval.shape, v.aval.dtype) for v in equation.outvars]
    if function is with_jvp:
        bound = lambda x: _jax.bind(equation.primitive, equation.params, [x])[0]
        np.testing.assert_allclose(jax.jvp(bound, (X,), (X,))[1], 3 * X)
    if function is with_vjp:
        bound = lambda x: _jax.bind(equation.primitive, equation.params, [x])[0]
        np.testing.assert_allclose(jax.vjp(bound, X)[1](X)[0], X * X)


@pytest.mark.parametrize("name", ["add", "sub", "mul", "max", "lt", "atan2", "complex"])
def test_elementwise_operands_stretch(name):
    """Operands of one rank stretch along axes of size 1, and scalar literals stay scalars."""
    primitive = getattr(lax, f"{name}_p")
    row = jax.ShapeDtypeStruct((1, 3), F32)
    equation = only(getattr(lax, name), jax.ShapeDtypeStruct((4, 3), F32), row)
    assert equation.primitive is primitive
    assert [v.aval.shape for v in equation.invars] == [(4, 3), (1, 3)]
    assert equation.outvars[0].aval.shape == (4, 3)
    (out,) = _jax.bind(primitive, equation.params, [X, np.float32(2)])
    np.testing.assert_array_equal(out, getattr(lax, name)(X, np.full_like(X, 2)))


def test_choice_and_clamp_do_not_stretch():
    for function in (lambda x, y: lax.select_n(x > 0, x, y), lambda x, y: lax.clamp(y, x, y)):
        with pytest.raises(TypeError):
            _jax.trace(function, X, X[:1])


@pytest.mark.parametrize("operation", ["neg", "add", "sub", "mul", "broadcast_in_dim", "transpose", "dot_general"])
def test_abstract_evaluation_gives_type_and_effects(operation):
    calls = {
        "broadcast_in_dim": lambda x: lax.broadcast(x, (2,)), "transpose": lambda x: x.T,
        "dot_general": lambda x: x.T @ x, "neg": lambda x: -x,
    }  # fmt: skip
    equation = last(calls.get(operation, lambda x: getattr(lax, operation)(x, x)), X)
    assert equation.primitive is getattr(lax, f"{operation}_p")
    aval, effects = equation.primitive.abstract_eval(*(v.aval for v in equation.invars), **equation.params)
    assert aval == equation.outvars[0].aval
    assert not effects


def test_types_have_shape_dtype_sharding_and_weakness():
    aval = last(jnp.sin, X).outvars[0].aval
    assert isinstance(aval, jax.core.ShapedArray)
    assert (aval.shape, aval.dtype, aval.weak_type) == ((4, 3), F32, False)
    assert tuple(aval.sharding.spec) == (None, None)
    assert aval == jax.core.ShapedArray((4, 3), F32)
    key = _jax.typeof(jax.random.key(0))
    assert isinstance(key, jax.core.ShapedArray)
    assert not isinstance(key.dtype, np.dtype)


# ---- parameters

PADDING = [(0, 0, 0), (0, 1, 0)]
IMAGE = lambda x: (x.reshape(2, 3, 2, 1), x.reshape(4, 3, 1, 1))

# primitive: a call, and what the library reads of its parameters
PARAMETERS = {
    "mul": (lambda x: jnp.multiply(x, x), {"out_dtype": None}),
    "add": (lambda x: jnp.add(x, x), {}),
    "sub": (lambda x: jnp.subtract(x, x), {}),
    "neg": (lambda x: -x, {}),
    "select_n": (lambda x: lax.select(x > 0, x, x), {}),
    "clamp": (lambda x: lax.clamp(F32.type(0), x, F32.type(1)), {}),
    "integer_pow": (lambda x: lax.integer_pow(x, 3), {"y": 3}),
    "convert_element_type": (
        lambda x: lax.convert_element_type(x, jnp.float16),
        {"new_dtype": np.dtype(np.float16), "weak_type": False, "sharding": None},
    ),
    "conj": (lambda x: lax.conj(x + 0j), {"input_dtype": np.dtype(np.complex64)}),
    "transpose": (lambda x: lax.transpose(x, (1, 0)), {"permutation": (1, 0)}),
    "reshape": (lambda x: lax.reshape(x, (2, 6)), {"new_sizes": (2, 6), "dimensions": None, "sharding": None}),
    "squeeze": (lambda x: lax.squeeze(x[None], (0,)), {"dimensions": (0,)}),
    "broadcast_in_dim": (
        lambda x: lax.broadcast(x, (5,)), {"shape": (5, 4, 3), "broadcast_dimensions": (1, 2), "sharding": None}),
    "slice": (
        lambda x: lax.slice(x, (1, 0), (3, 3)), {"start_indices": (1, 0), "limit_indices": (3, 3), "strides": None}),
    "dynamic_slice": (lambda x: lax.dynamic_slice(x, (0, 0), (2, 3)), {"slice_sizes": (2, 3)}),
    "dynamic_update_slice": (lambda x: lax.dynamic_update_slice(x, x[:2], (0, 0)), {}),
    "pad": (lambda x: lax.pad(x, F32.type(0), PADDING), {"padding_config": tuple(PADDING)}),
    "concatenate": (lambda x: lax.concatenate([x, x], 0), {"dimension": 0}),
    "split": (lambda x: lax.split(x, (1, 3), 0)[0], {"sizes": (1, 3), "axis": 0}),
    "rev": (lambda x: lax.rev(x, (0,)), {"dimensions": (0,)}),
    "reduce_sum": (lambda x: lax.reduce_sum(x, axes=(1,)), {"axes": (1,)}),
    "reduce_max": (lambda x: lax.reduce_max(x, axes=(1,)), {"axes": (1,)}),
    "reduce_and": (lambda x: lax.reduce_and(x > 0, axes=(1,)), {"axes": (1,)}),
    "dot_general": (
        lambda x: lax.dot_general(x, x, (([1], [1]), ([], []))),
        {"dimension_numbers": (((1,), (1,)), ((), ())), "precision": None, "preferred_element_type": None},
    ),
    "cumsum": (lambda x: lax.cumsum(x, 1), {"axis": 1, "reverse": False}),
    "sort": (lambda x: lax.sort(x, dimension=0), {"dimension": 0, "num_keys": 1}),
    "fft": (lambda x: lax.fft(x + 0j, lax.FftType.FFT, (3,)), {"fft_lengths": (3,)}),
    "reduce_window_sum": (
        lambda x: lax.reduce_window(x, F32.type(0), lax.add, (1, 2), (1, 1), "VALID"), {"window_dimensions": (1, 2)}),
    "conv_general_dilated": (lambda x: lax.conv(*IMAGE(x), (1, 1), "VALID"), {"lhs_dilation": (1, 1)}),
    "triangular_solve": (lambda x: lax.linalg.triangular_solve(x.T @ x, x.T, left_side=True), {"left_side": True}),
}  # fmt: skip


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters(name):
    call, read = PARAMETERS[name]
    equation = named(name, equations(call, X))
    assert {key: equation.params[key] for key in read} == read


# primitive: all parameters; where the algebra takes an equation apart, an unknown one must not be overlooked
EXACTLY = {
    "mul": {"out_dtype"},
    "add": set(),
    "sub": set(),
    "neg": set(),
    "transpose": {"permutation"},
    "reshape": {"new_sizes", "dimensions", "sharding"},
    "squeeze": {"dimensions"},
    "broadcast_in_dim": {"shape", "broadcast_dimensions", "sharding"},
    "convert_element_type": {"new_dtype", "weak_type", "sharding"},
}


@pytest.mark.parametrize("name", EXACTLY)
def test_parameters_of_what_the_algebra_makes(name):
    call, _ = PARAMETERS[name]
    equation = named(name, equations(call, X))
    assert set(equation.params) == EXACTLY[name]


def test_convolution_layout_is_named():
    numbers = last(lambda x: lax.conv(*IMAGE(x), (1, 1), "VALID"), X).params["dimension_numbers"]
    assert numbers.rhs_spec == (0, 1, 2, 3)
    assert numbers.lhs_spec == (0, 1, 2, 3)


@pytest.mark.parametrize("kind", ["add", "mul", "min", "max"])
def test_scatters_are_spelt_with_a_hyphen(kind):
    equation = last(lambda x: getattr(x.at[np.array([1, 1])], kind)(2.0), jnp.asarray(X))
    assert equation.primitive.name == f"scatter-{kind}"
    assert _jax.is_jaxpr(equation.params["update_jaxpr"])


# ---- calls, loops, branches


def test_jit_is_called_jit_and_holds_a_jaxpr():
    equation = only(jax.jit(jnp.sin), X)
    assert equation.primitive.name == "jit"
    assert _jax.open_jaxpr(equation.params["jaxpr"]).equations[0].primitive.name == "sin"


def test_a_plain_jit_is_told_from_one_that_asks_for_more():
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    for options in ({}, {"keep_unused": True}, {"donate_argnums": 0}):
        assert _jax.is_plain_jit(only(jax.jit(lambda x: jnp.sin(x), **options), X).params)
    for options in ({"in_shardings": sharding}, {"out_shardings": sharding}):
        assert not _jax.is_plain_jit(only(jax.jit(lambda x: jnp.sin(x), **options), X).params)


def test_scan():
    table = jnp.ones(3)

    def step(carry, v):
        return (carry[0] + v * table, carry[1] + 1), carry[0]

    equation = last(lambda x: lax.scan(step, (x[0], 2), x, reverse=True, unroll=2), X)
    assert equation.primitive.name == "scan"
    params = equation.params
    assert {k: params[k] for k in ("length", "reverse", "unroll")} == {"length": 4, "reverse": True, "unroll": 2}
    assert _jax.scan_counts(params) == (1, 2)
    assert len(_jax.open_jaxpr(params["jaxpr"]).inputs) == len(equation.invars) == 4
    assert [v.aval.shape for v in equation.outvars] == [(3,), (), (4, 3)]


def test_scan_after_a_jvp_counts_right():
    def loop(x, table):
        return lax.scan(lambda c, v: (c + v * table, c), x[0], x)

    equation = last(lambda x, t: jax.jvp(loop, (x, t), (x, t)), X, X[0])
    assert _jax.scan_counts(equation.params) == (2, 2)


def test_while():
    equation = last(lambda x: lax.while_loop(lambda c: c[1] < x[0, 0], lambda c: (c[0] + x, c[1] + 1), (x, 0.0)), X)
    assert equation.primitive.name == "while"
    params = equation.params
    assert set(params) == {"cond_nconsts", "cond_jaxpr", "body_nconsts", "body_jaxpr"}
    assert (params["cond_nconsts"], params["body_nconsts"]) == (1, 1)
    assert len(equation.invars) == 1 + 1 + 2
    assert len(_jax.open_jaxpr(params["cond_jaxpr"]).inputs) == 1 + 2


def test_a_vmapped_while_has_a_batched_predicate():
    loop = jax.vmap(lambda n: lax.while_loop(lambda c: c < n, lambda c: c + 1, 0))
    equation = next(e for e in equations(loop, np.arange(5)) if e.primitive.name == "while")
    (test,) = _jax.open_jaxpr(equation.params["cond_jaxpr"]).outputs
    assert test.aval.shape == (5,)


def test_cond():
    equation = last(lambda i, x: lax.switch(i, [jnp.sin, jnp.cos, jnp.tan], x), 1, X)
    assert equation.primitive.name == "cond"
    assert set(equation.params) == {"branches"}
    branches = [_jax.open_jaxpr(branch) for branch in equation.params["branches"]]
    assert [branch.equations[0].primitive.name for branch in branches] == ["sin", "cos", "tan"]
    assert [v.aval.shape for v in equation.invars] == [(), (4, 3)]
    two = last(lambda x: lax.cond(x[0, 0] > 0, jnp.sin, jnp.cos, x), X)
    order = [_jax.open_jaxpr(branch).equations[0].primitive.name for branch in two.params["branches"]]
    assert order == ["cos", "sin"]  # the index is int(predicate)


# ---- custom rules


def test_custom_jvp_call():
    equation = only(with_jvp, X)
    assert equation.primitive.name == "custom_jvp_call"
    assert set(equation.params) == {"call_jaxpr", "jvp_jaxpr_fun", "num_consts", "symbolic_zeros"}
    assert _jax.is_jaxpr(equation.params["call_jaxpr"])


def test_custom_vjp_call():
    equation = only(with_vjp, X)
    assert equation.primitive.name == "custom_vjp_call"
    assert _jax.is_jaxpr(equation.params["call_jaxpr"])


def test_a_jvp_of_a_custom_vjp_leaves_its_mark():
    """It is not an error before something is made of it."""
    tangent = equations(lambda x: jax.jvp(with_vjp, (x,), (x,)), X)
    assert "custom_lin" in [e.primitive.name for e in tangent]
    reverse = equations(lambda x: jax.vjp(with_vjp, x)[1](x), X)
    assert "custom_lin" not in [e.primitive.name for e in reverse]


def test_remat_holds_an_open_jaxpr_and_its_policy():
    policy = jax.checkpoint_policies.dots_saveable
    equation = only(jax.checkpoint(jnp.sin, policy=policy, prevent_cse=False), X)
    assert equation.primitive.name in ("checkpoint", "remat2")
    assert _jax.is_jaxpr(equation.params["jaxpr"])
    assert (equation.params["policy"], equation.params["prevent_cse"]) == (policy, False)


def rule_of(function, *args):
    calls = [e for e in equations(function, *args) if e.primitive.name == "custom_jvp_call"]
    return _jax.rule_identity(calls[-1].params)


def test_one_custom_jvp_rule_is_found_again():
    assert rule_of(with_jvp, X) is not None
    assert rule_of(with_jvp, X) == rule_of(lambda x: with_jvp(x) * 2, X)
    assert rule_of(jax.nn.relu, X) == rule_of(lambda x: jax.nn.relu(2 * x), X)
    assert rule_of(jax.nn.relu, X) != rule_of(with_jvp, X)


def test_custom_jvp_rules_of_two_functions_are_two():
    def make(slope):
        f = jax.custom_jvp(lambda x: x * 2)
        f.defjvp(lambda primals, tangents: (f(*primals), slope * tangents[0]))
        return f

    assert rule_of(make(1.0), X) != rule_of(make(2.0), X)


def test_static_arguments_tell_custom_jvp_rules_apart():
    f = jax.custom_jvp(lambda x, slope: x * 2, nondiff_argnums=(1,))
    f.defjvp(lambda slope, primals, tangents: (f(*primals, slope), slope * tangents[0]))
    three, five = rule_of(lambda x: f(x, 3.0), X), rule_of(lambda x: f(x, 5.0), X)
    assert three is None or three != five


@pytest.mark.parametrize("jitted", [False, True])
def test_an_enclosed_function_is_its_own_jvp_transpose_and_vmap(jitted):
    plain = lambda x, y: jnp.sin(x) @ y
    out = jax.ShapeDtypeStruct((), jnp.float32)
    enclosed = _jax.Enclosed(lambda x, y: [plain(x, y)], [out], contextlib.nullcontext)
    x, y = jnp.array([0.3, 0.7]), jnp.array([1.5, -2.0])
    taken = lambda x, y: enclosed(x, y)[0]
    for of in (
        lambda f: f, lambda f: jax.grad(f, (0, 1)), lambda f: jax.hessian(f, (0, 1)), lambda f: jax.jacrev(jax.grad(f)),
        lambda f: lambda x, y: jax.vmap(jax.grad(f), (0, None))(jnp.stack([x, y, x]), y),
    ):  # fmt: skip
        found, expected = (jax.jit(of(f))(x, y) if jitted else of(f)(x, y) for f in (taken, plain))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6), found, expected)
