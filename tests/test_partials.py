"""`partials` as a citizen of JAX: inside and outside its transformations, with every dtype, pytree and loop."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpartials as jp


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


def same(left, right, rtol=1e-9, atol=1e-12):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), left, right)


def u(params, t, x):
    return jnp.tanh(params["w"] * x + t) * params["b"]


heat = jp.partials(u, {"u_t": "u/t", "u_xx": "u/x^2"})


def plain_heat(params, t, x):
    return {"u_t": jax.grad(u, 1)(params, t, x), "u_xx": jax.grad(jax.grad(u, 2), 2)(params, t, x)}


P = {"w": 0.7, "b": 1.3}


@pytest.mark.parametrize("in_axes", [(None, 0, 0), (None, None, 0), (None, 0, None), ({"w": 0, "b": None}, 0, 0)])
def test_vmap(in_axes):
    ts, xs = np.linspace(0.0, 1.0, 7), np.linspace(-1.0, 1.0, 7)
    args = [
        {"w": np.linspace(0.1, 2.0, 7), "b": 1.3} if isinstance(in_axes[0], dict) else P,
        ts if in_axes[1] == 0 else 0.2,
        xs if in_axes[2] == 0 else 0.3,
    ]
    same(jax.vmap(heat, in_axes)(*args), jax.vmap(plain_heat, in_axes)(*args))


def test_vmap_over_trailing_axes():
    f = lambda x, w: jnp.sin(x @ w)
    g = jp.partials(f, "y/x")
    x, w = np.random.default_rng(0).normal(size=(3, 5)), np.random.default_rng(1).normal(size=(3, 4, 5))
    same(jax.vmap(g, (1, 2), 2)(x, w), jax.vmap(jax.jacfwd(f), (1, 2), 2)(x, w))


def loss(of):
    ts, xs = jnp.linspace(0.0, 1.0, 7), jnp.linspace(-1.0, 1.0, 7)
    return lambda p: sum(jnp.sum(v**2) for v in jax.vmap(of, (None, 0, 0))(p, ts, xs).values())


def test_grad_and_hessian_of_a_loss():
    same(jax.grad(loss(heat))(P), jax.jit(jax.grad(loss(plain_heat)))(P))
    same(jax.jit(jax.hessian(loss(heat)))(P), jax.jit(jax.hessian(loss(plain_heat)))(P))


def test_jvp():
    tangents = ({"w": 1.0, "b": 0.5}, 1.0, -1.0)
    same(jax.jvp(heat, (P, 0.1, 0.2), tangents), jax.jvp(plain_heat, (P, 0.1, 0.2), tangents))


def test_scan_and_checkpoint():
    def run(of):
        return jax.lax.scan(lambda c, x: (c + of(P, c, x)["u_t"], of(P, c, x)), 0.1, jnp.linspace(-1.0, 1.0, 5))

    same(run(heat), run(plain_heat))
    same(
        jax.grad(lambda p: jax.checkpoint(heat)(p, 0.1, 0.2)["u_xx"])(P),
        jax.grad(lambda p: plain_heat(p, 0.1, 0.2)["u_xx"])(P),
    )


def mixed(p):
    return jp.partials(lambda t, x: u(p, t, x), "u/t x")(0.1, 0.2)


def plain_mixed(p):
    return jax.grad(jax.grad(lambda t, x: u(p, t, x), 0), 1)(0.1, 0.2)


def test_closing_over_the_values_of_an_outer_transformation():
    same(jax.grad(mixed)(P), jax.grad(plain_mixed)(P))
    same(jax.jit(mixed)(P), plain_mixed(P))
    ws = jnp.linspace(0.1, 1.0, 4)
    same(jax.vmap(lambda w: mixed({"w": w, "b": 1.0}))(ws), jax.vmap(lambda w: plain_mixed({"w": w, "b": 1.0}))(ws))


def test_one_transform_of_a_closure_serves_several_traces():
    box = {}
    g = jp.partials(lambda x: jnp.sin(box["p"] * x), "u/x")

    def outer(p):
        box["p"] = p
        return g(0.5)

    for p in (0.3, 0.7):
        same(jax.grad(outer)(p), jax.grad(lambda p: p * jnp.cos(p * 0.5))(p))


def test_partials_of_partials():
    g = jp.partials(lambda t, x: heat(P, t, x)["u_t"], "v/x")
    same(g(0.1, 0.2), jax.grad(lambda x: plain_heat(P, 0.1, x)["u_t"])(0.2))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_dtypes_stay(dtype):
    x = jnp.asarray(0.5, dtype)
    out = jp.partials(lambda x: jnp.sin(x) * x, ["u/x", "u/x^2"])(x)
    want = [jnp.cos(0.5) * 0.5 + jnp.sin(0.5), 2 * jnp.cos(0.5) - 0.5 * jnp.sin(0.5)]
    assert [d.dtype for d in out] == [x.dtype] * 2
    tolerance = 8 * float(jnp.finfo(dtype).eps)
    same([d.astype("float64") for d in out], want, rtol=tolerance)


@pytest.mark.parametrize("x64", [False, True])
def test_one_transform_in_both_precisions(x64):
    g = jp.partials(lambda x: jnp.exp(x), "u/x^2")
    with jax.enable_x64(not x64):
        g(1.0)
    with jax.enable_x64(x64):
        out = g(1.0)
        assert out.dtype == (np.float64 if x64 else np.float32)
    same(out, np.exp(1.0), rtol=1e-14 if x64 else 1e-6)


def test_static_and_keyword_arguments():
    def f(x, n, activation=jnp.sin, *, scale, flag=True, label="a"):
        assert label in "abc"
        return scale * activation(x) ** n if flag else x

    g = jp.partials(f, "u/x")
    same(g(0.5, 3, scale=2.0), jax.grad(lambda x: 2 * jnp.sin(x) ** 3)(0.5))
    same(g(0.5, 2, jnp.cos, scale=2.0, label="b"), jax.grad(lambda x: 2 * jnp.cos(x) ** 2)(0.5))
    same(g(0.5, n=3, scale=2.0, flag=False), 1.0)
    same(jp.partials(f, "u/scale")(0.5, 3, scale=2.0), jnp.sin(0.5) ** 3)


def test_defaults_can_be_differentiated():
    same(jp.partials(lambda x, a=2.0: x**a, "u/a")(3.0), 9 * np.log(3.0))


def test_planned_once_per_signature():
    traced = []

    def f(x):
        traced.append(x.shape)
        return jnp.sum(x**2)

    g = jp.partials(f, "u/x")
    for shape in [(3,), (4,), (3,), (4,)]:
        g(jnp.ones(shape))
    assert traced == [(3,), (4,)]


def test_plan_on_shapes_and_on_arrays_is_one_plan():
    g = jp.partials(lambda x, y: (x * y).sum(), "f/x")
    spec = jax.ShapeDtypeStruct((3,), "float64")
    assert g.plan(spec, spec) is g.plan(jnp.ones(3), jnp.ones(3))


@jax.custom_vjp
def sine(x):
    return jnp.sin(x)


sine.defvjp(lambda x: (jnp.sin(x), x), lambda x, g: (jnp.cos(x) * g,))


def test_custom_vjp_decides_the_mode():
    x = jnp.arange(1.0, 4.0)
    g = jp.partials(lambda x: jnp.sum(sine(x) * x), ["u/x", "u/x^2", "u/x[i]^2"])
    plain = lambda x: jnp.sum(jnp.sin(x) * x)
    hessian = jax.hessian(plain)(x)
    same(g(x), [jax.grad(plain)(x), hessian, jnp.trace(hessian)])
    first = g.plan(x).partials[0]
    assert first.mode == "reverse x"
    assert any("custom_vjp_call at test_partials.py" in note and "forward" in note for note in first.notes)


def looped(x):
    return jax.lax.while_loop(lambda c: c[0] < 5, lambda c: (c[0] + 1, c[1] * jnp.sin(c[1]) + x), (0, x))[1]


def test_while_decides_the_mode():
    g = jp.partials(looped, ["u/x", "u/x^2"])
    same(g(0.3), [jax.jacfwd(looped)(0.3), jax.jacfwd(jax.jacfwd(looped))(0.3)])
    plan = g.plan(0.3)
    assert [p.mode for p in plan.partials] == ["forward x", "forward x^2"]
    assert any("while at test_partials.py" in note and "reverse" in note for note in plan.partials[0].notes)


def test_no_mode_at_all():
    with pytest.raises(jp.errors.DerivativeError, match=r"(?s)\"u/x\".*custom_vjp_call at .*while at .*x: float64\[\]"):
        jp.partials(lambda x: looped(sine(x)), "u/x")(0.3)
    with pytest.raises(jp.errors.DerivativeError, match=r"(?s)pure_callback at test_partials.py"):
        jp.partials(lambda x: jax.pure_callback(np.sin, jax.ShapeDtypeStruct((), x.dtype), x), "u/x")(0.3)


def test_complex():
    x = jnp.arange(1.0, 5.0)
    same(jp.partials(jnp.fft.fft, "u/a")(x), jax.jacfwd(jnp.fft.fft)(x))
    z = x + 1j * x**2
    f = lambda z: jnp.sum(jnp.abs(z) ** 2)
    same(jp.partials(f, "u/z")(z), jax.jacrev(f)(z))
    f = lambda z: z * jnp.exp(z[::-1] / 9)
    same(jp.partials(f, "u/z")(z), jax.jacfwd(f, holomorphic=True)(z))
    f = lambda z: jax.lax.fori_loop(0, 3, lambda i, c: c * z, jnp.where(jnp.real(z) > 2, z, 2 * z))
    same(jp.partials(f, "u[i]/z[i] -> i")(z), jnp.diag(jax.jacfwd(f, holomorphic=True)(z)))
    with pytest.raises(jp.errors.DerivativeError, match=r"conj at test_partials\.py.* is not"):
        jp.partials(lambda z: jnp.conj(z) * z, "u/z")(z)


def rnn(w, x):
    def step(c, a):
        c = jnp.tanh(w @ c + a)
        return c, c.sum()

    return jax.lax.scan(step, jnp.ones(3), x)[1]


def test_scan():
    rng = np.random.default_rng(0)
    w, x = rng.normal(size=(3, 3)), rng.normal(size=(4, 3))
    out = jp.partials(rnn, {"v": "y", "J": "y/w", "Jx": "y/x", "H": "y[t]/x[s,i]^2 -> t"})(w, x)
    hessian = jax.jacfwd(jax.jacfwd(rnn, 1), 1)(w, x)
    same(out["v"], rnn(w, x))
    same(out["J"], jax.jacfwd(rnn)(w, x))
    same(out["Jx"], jax.jacfwd(rnn, 1)(w, x))
    same(out["H"], jnp.einsum("tsisi->t", hessian))


def test_cond_and_vmapped_while():
    f = lambda x: jax.lax.cond(x > 0, jnp.sin, lambda x: x**2, x)
    same(jp.partials(f, "u/x^2")(0.4), -np.sin(0.4))
    same(jp.partials(f, "u/x^2")(-0.4), 2.0)

    def power(a):
        return jax.lax.while_loop(lambda c: c[0] < a, lambda c: (c[0] + 1, c[1] * a), (0.0, a))[1]

    x = jnp.arange(1.0, 5.0)
    jacobian = jax.jacfwd(jax.vmap(power))(x)
    same(jp.partials(jax.vmap(power), ["u/a", "u[b]/a[b] -> b"])(x), [jacobian, jnp.diag(jacobian)])


def test_effects_happen_once_and_in_order():
    seen = []

    def f(x):
        jax.debug.callback(lambda v: seen.append(("start", float(v))), x, ordered=True)

        def body(i, c):
            jax.debug.callback(lambda v: seen.append(("step", float(v))), c, ordered=True)
            return jnp.sin(c)

        return jax.lax.fori_loop(0, 3, body, x)

    jp.partials(f, ["u", "u/x", "u/x^2"])(0.5)
    jax.effects_barrier()
    values = [0.5, np.sin(0.5), np.sin(np.sin(0.5))]
    assert [name for name, _ in seen] == ["start", "step", "step", "step"]
    same([v for _, v in seen], [0.5, *values], rtol=1e-6)


def test_chunks_are_the_whole():
    f = lambda x: jnp.sin(x) * jnp.roll(x, 1) ** 2
    x = np.random.default_rng(0).normal(size=7)
    for spec in ("v/x", "v[i]/x[j]^2", "v[i]/x[j]^2 -> j i"):
        whole = jp.partials(f, spec)(x)
        for chunk in (1, 2, 3, 7, 100):
            same(jp.partials(f, spec, chunk_size=chunk)(x), whole)


def test_donation():
    g = jax.jit(jp.partials(lambda x: jnp.sum(jnp.sin(x) ** 2), "u/x"), donate_argnums=0)
    x = jnp.arange(4.0)
    same(g(x), np.sin(2 * np.arange(4.0)))
    assert x.is_deleted()


def test_derivatives_that_vanish():
    x, y = jnp.arange(3.0), jnp.arange(2.0)
    g = jp.partials(lambda x, y: (3 * x, y), {"none": "0/y", "second": "0/x^2", "cross": "0/x y"})
    out = g(x, y)
    assert {k: v.shape for k, v in out.items()} == {"none": (3, 2), "second": (3, 3, 3), "cross": (3, 3, 2)}
    assert not any(np.any(v) for v in out.values())


def test_options_are_checked():
    f = lambda x: x
    for options, match in [({"chunk_size": 0}, "chunk_size=0"), ({"tune": "fast"}, "tune='fast'"),
                           ({"outputs": "z"}, "one string")]:  # fmt: skip
        with pytest.raises(jp.errors.NotationError, match=match):
            jp.partials(f, "u/x", **options)
    with pytest.raises(jp.errors.NotationError, match="takes a function first"):
        jp.partials("u/x", f)


def test_measured_plans_give_the_same_values(capsys):
    x = np.random.default_rng(0).normal(size=5)
    f = lambda x: jnp.sum(jnp.sin(x) * jnp.roll(x, 1))
    g = jp.partials(f, "u/x^2", tune="measure")
    same(g(x), jax.hessian(f)(x))
    plan = g.plan(x)
    assert len(plan.measured) > 1
    assert plan.measured[0][1] <= plan.measured[-1][1]
    same(jax.jit(jp.partials(f, "u/x^2", tune="measure"))(x), jax.hessian(f)(x))


def test_one_gradient_per_lane_from_one_reverse_pass():
    def f(params, x):
        h = jnp.tanh(x @ params["w"] + params["b"])
        return (h @ params["v"])[:, 0] * params["s"]

    rng = np.random.default_rng(0)
    params = {"w": rng.normal(size=(2, 5)), "b": rng.normal(size=5), "v": rng.normal(size=(5, 1)), "s": np.float64(1.5)}
    x = rng.normal(size=(7, 2))
    g = jp.partials(f, {"J": "y/params", "H": "y[b]/x[b,1] params.w[j,k] -> b j k"})
    out, jacobian = g(params, x), jax.jit(jax.jacfwd(f))(params, x)
    same(out["J"], jacobian)
    mixed = jax.jit(jax.jacfwd(jax.jacfwd(f), 1))(params, x)["w"]
    same(out["H"], jnp.einsum("bjkb->bjk", mixed[..., 1]))
    assert {p.spec: p.passes for p in g.plan(params, x).partials} == {
        "y/params": 1, "y[b]/x[b,1] params.w[j,k] -> b j k": 1}  # fmt: skip

    def mixing(params, x):  # batch statistics: the lanes meet before the end
        y = f(params, x)
        return (y - y.mean()) / y.std()

    same(jp.partials(mixing, "y/params")(params, x), jax.jacfwd(mixing)(params, x))


def test_a_backward_rule_that_is_not_linear_is_not_taken_apart():
    @jax.custom_vjp
    def f(w, x):
        return x * w

    f.defvjp(lambda w, x: (x * w, (w, x)), lambda res, g: (jnp.sum((g + 1.0) * res[1]), (g + 1.0) * res[0]))
    x = jnp.arange(1.0, 5.0)
    same(jp.partials(f, "y/w")(2.0, x), jax.jacrev(f)(2.0, x))


def test_a_rule_with_another_value_does_not_change_the_value():
    @jax.custom_jvp
    def odd(x):
        return jnp.round(x)

    odd.defjvp(lambda p, t: (p[0], t[0]))
    f = lambda x: odd(x) * x
    value, slope = jp.partials(f, ["u", "u/x"])(1.3)
    same([value, slope], [f(1.3), jax.grad(f)(1.3)])


def test_lines_are_those_of_the_call_not_of_an_earlier_one():
    def first(x):
        return jnp.flip(x, 0)

    def second(x):
        return jnp.flip(x, 0).sum(1)

    first(jnp.ones((5, 3)))
    (partial,) = jp.partials(second, "y[b]/x[b,i] -> b i").plan(jnp.ones((5, 3))).partials
    assert any("(test_lines" in note and "second" in note for note in partial.notes), partial.notes


def test_inside_shard_map():
    mesh = jax.make_mesh((1,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec("d")
    g = jp.partials(lambda x: jnp.sin(x) * x, ["y[b]/x[b]^2 -> b", "y[b]/x[b] -> b"])
    x = jnp.arange(4.0)
    same(jax.jit(jax.shard_map(g, mesh=mesh, in_specs=spec, out_specs=spec))(x), g(x))


def test_of_a_shard_map():
    mesh = jax.make_mesh((1,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec("d")
    f = jax.shard_map(lambda x: jnp.sin(x) * x, mesh=mesh, in_specs=spec, out_specs=spec)
    x = jnp.arange(4.0)
    same(jp.partials(lambda x: f(x), "y/x")(x), jax.jacfwd(f)(x))


def test_a_fault_of_ours_leaves_the_plain_path(monkeypatch):
    def broken(*args, **kwargs):
        raise KeyError("planted")

    f = lambda x, y: {"z": jnp.sin(x)[:, None] * y, "n": jnp.sum(x**2)}
    wanted = {"J": "z[b,i]/x[b] y[c,i] -> i b c", "z": "z", "n": "n/x^2", "c": "z[0,i]/y[k,2]"}
    x, y = np.random.default_rng(0).normal(size=3), np.random.default_rng(1).normal(size=(3, 4))
    want = jp.partials(f, wanted)(x, y)
    monkeypatch.setattr("jaxpartials.transform.plan", broken)
    g = jp.partials(f, wanted)
    with pytest.warns(UserWarning, match="plain jacfwd and jacrev.*planted"):
        same(g(x, y), want)
    assert {p.mode for p in g.plan(x, y).partials} == {"plain"}
    assert "planted" in str(g.plan(x, y))


@pytest.mark.parametrize(
    "spec", ["u/x[i]^2 x[j]^2", "u/x[i] x[j] x[i] x[j]", "u/x[i]^3 x[j] -> j", "u/x[i]^2 x[j] x[k] -> j k"]
)
def test_directions_keep_apart_in_towers_of_order_four(spec):
    """Several directions come up again and again; each must stay what it was."""
    w = np.random.default_rng(0).normal(size=(3, 4))
    fn = lambda x: jnp.sum(jnp.sin(x @ w)) + jnp.prod(x)
    x = np.random.default_rng(1).normal(size=3)
    with jax.enable_x64(True):
        tensor = jax.jacfwd(jax.jacfwd(jax.jacfwd(jax.jacfwd(fn))))(x)
        names = spec.partition("/")[2].partition(" -> ")
        labels = "".join(name * int(power or 1) for name, power in re.findall(r"x\[(\w)\](?:\^(\d))?", names[0]))
        expected = np.einsum(f"{labels}->{names[2].replace(' ', '')}", tensor)
        np.testing.assert_allclose(jp.partials(fn, spec)(x), expected, rtol=1e-9)


def relu(x, scale):
    if x["inner"] > 0:
        return x["inner"] * scale
    return 0.0 * scale


@pytest.mark.parametrize("take", [jp.report, jp.simplify, lambda fn: jp.partials(fn, "u/scale")])
def test_what_python_asks_of_an_array_is_told_of_the_users_argument(take):
    line = relu.__code__.co_firstlineno
    with pytest.raises(jax.errors.TracerBoolConversionError) as error:
        take(relu)({"inner": 1.0}, 2.0)
    assert f"relu at {__file__}:{line}" in str(error.value)
    assert "the value of the argument x['inner']." in str(error.value)
