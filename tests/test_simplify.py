"""`simplify` against `jax.jit`: the same values, types and effects, however a function is called or transformed."""

import collections
import functools
import inspect
import warnings
from dataclasses import dataclass
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import io_callback
from jax.sharding import NamedSharding, PartitionSpec

import jaxpartials as jp
from jaxpartials.graph.graph import reach
from jaxpartials.rewrite import pipeline
from tests.loop_programs import LoopProgram, draw

X = jnp.array([[0.3, -1.2, 0.7], [1.5, 0.2, -0.4]])
V = jnp.array([0.5, -1.0, 2.0])


def same(found, expected, rtol=1e-6):
    """Equal structures, types (weak ones too) and values."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        if not isinstance(b, jax.Array):
            assert a is b
            continue
        assert jax.typeof(a) == jax.typeof(b)
        if jax.dtypes.issubdtype(b.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        if jax.dtypes.issubdtype(b.dtype, np.inexact) and b.dtype.itemsize < 4:
            a, b, rtol = a.astype("float32"), b.astype("float32"), 2e-2
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * max(np.max(np.abs(b), initial=0.0), 1e-3))


def agrees(fn, *args, **kwargs):
    """`simplify(fn)` does to these arguments what `jax.jit(fn)` does."""
    found = jp.simplify(fn)(*args, **kwargs)
    same(found, jax.jit(fn)(*args, **kwargs))
    return found


def wave(x):
    """Work of which a part is done twice."""
    return jnp.sum(jnp.sin(x) ** 2, -1) + jnp.sum(jnp.sin(x) * jnp.sin(x), -1)


def primitives(fn, *args):
    """The names of all equations in a trace, those inside others too."""

    def walk(jaxpr):
        for equation in jaxpr.eqns:
            yield equation.primitive.name
            for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda p: hasattr(p, "eqns")):
                if hasattr(inner, "eqns"):
                    yield from walk(getattr(inner, "jaxpr", inner))

    return list(walk(jax.make_jaxpr(fn)(*args).jaxpr))


# ---- how it is called


def test_it_looks_like_the_function():
    def energy(x, *rest, scale: float = 2.0, **more):
        """What it costs."""
        return x * scale

    simplified = jp.simplify(energy)
    assert inspect.signature(simplified) == inspect.signature(energy)
    assert (simplified.__name__, simplified.__doc__) == ("energy", "What it costs.")
    assert repr(simplified) == "simplify(energy)"
    with pytest.raises(TypeError, match=r"energy\(x, \*rest, scale.*missing a required argument: 'x'"):
        simplified(scale=1.0)
    with pytest.raises(TypeError, match="takes a function, and got int 3"):
        jp.simplify(3)


def test_arguments_by_position_and_by_name():
    def f(a, /, b, *rest, c=3.0, **more):
        return a - 2 * b + sum(3 * r for r in rest) + c * more.get("d", 1.0)

    for args, kwargs in [
        ((X, V), {}),
        ((X,), {"b": V}),
        ((X, V, X, V), {"c": V, "d": X}),
        ((1.5, V, 2.5), {"d": 0.5, "e": X}),
    ]:
        agrees(f, *args, **kwargs)
    simplified = jp.simplify(f)
    same(simplified(X, V, c=V), jax.jit(f)(X, V, c=V))
    same(simplified(X, V, d=V), jax.jit(f)(X, V, d=V))


def test_defaults_stay_what_they_are():
    def f(x, eps=1e-6, names=("a", "b"), power=2):
        if eps > 0 and power > 1:
            x = x + eps
        return [x**power for _ in names]

    same(jp.simplify(f)(X), jax.jit(functools.partial(f, eps=1e-6))(X))
    same(jp.simplify(f)(X, power=3)[1], (X + 1e-6) ** 3)


def test_arguments_that_are_no_arrays_are_fixed():
    def f(x, activation, mode="sum", n=2, flag=None, config=None):
        for _ in range(n):
            x = activation(x)
        if mode == "sum":
            x = jnp.sum(x)
        return x if flag is None else x * config["scale"]

    simplified = jp.simplify(f)
    for args in [
        (X, jnp.sin), (X, jnp.cos), (X, jnp.sin, "all"), (X, jnp.sin, "all", 0), (X, jnp.sin, "all", 3),
        (X, jnp.sin, "sum", 1, True, {"scale": 3}), (X, jnp.sin, "sum", 1, True, {"scale": 4}),
        (X, jnp.sin, "sum", 1, True, {"scale": V}),
    ]:  # fmt: skip
        same(simplified(*args), jax.jit(lambda x, args=args: f(x, *args[1:]))(X))


def test_equal_arguments_of_other_types_are_told_apart():
    simplified = jp.simplify(lambda x, n: x * n)
    for n in (1, True, 1.0, np.int32(1), np.float32(1), 2):
        same(simplified(jnp.arange(3), n), jax.jit(lambda x, n=n: x * n)(jnp.arange(3)))


def test_a_function_is_traced_once_for_each_signature():
    traced = []

    def f(x, n=1):
        traced.append((jnp.shape(x), n))
        return x * n

    simplified = jp.simplify(f)
    for x, n in [(X, 1), (X + 1, 1), (V, 1), (X, 2), (X, 1), (np.asarray(X), 1)]:
        same(simplified(x, n), jnp.asarray(x * n))
    assert traced == [((2, 3), 1), ((3,), 1), ((2, 3), 2)]


class Scaled:
    def __init__(self, factor):
        self.factor = factor

    def apply(self, x):
        return self.factor * wave(x)

    def __call__(self, x, y=1.0):
        return self.apply(x) * y


def test_anything_callable():
    agrees(functools.partial(lambda a, b, c: a * b - c, X, c=2.0), V)
    agrees(functools.partial(jax.tree.map, jnp.sin), {"a": X})
    agrees(Scaled(V[0]).apply, X)
    agrees(Scaled(2), X, y=V[:2])
    agrees(jnp.add, X, V)
    agrees(lax.sin, X)
    agrees(jax.nn.relu, X)
    agrees(jax.nn.gelu, X)
    assert jp.simplify(dict)(a=X, b=V).keys() == {"a", "b"}  # a callable without a signature
    agrees(jp.simplify(wave), X)


def test_jitted_functions():
    agrees(jax.jit(wave), X)
    static = jax.jit(lambda x, n, mode: x * n if mode == "mul" else x + n, static_argnums=(1, 2))
    same(jp.simplify(static)(X, 3, "mul"), X * 3)
    same(jp.simplify(static)(X, 3, "add"), X + 3)
    # An argument that is fixed for the jitted function is fixed here too, even where it could be an array.
    by_value = jax.jit(lambda x, rate, eps=1e-3: x * rate if rate > eps else x, static_argnums=1, static_argnames="eps")
    for args, kwargs in [((X, 0.5), {}), ((X, 1e-4), {}), ((X, 0.5), {"eps": 0.7})]:
        same(jp.simplify(by_value)(*args, **kwargs), by_value(*args, **kwargs))
    by_name = jax.jit(lambda x, *, rate: x * rate if rate > 0 else x, static_argnames="rate")
    same(jp.simplify(by_name)(X, rate=0.5), X * 0.5)
    # And so it is inside another function.
    same(jp.simplify(lambda x: by_value(x, 0.5) + by_name(x, rate=0.25))(X), X * 0.75)


@pytest.mark.parametrize("donate", [{"donate_argnums": 0}, {"donate_argnames": "state"}, {}])
def test_donation(donate):
    def step(state, batch):
        return jax.tree.map(lambda s: s + jnp.sum(batch) * jnp.sin(s), state), jnp.sum(batch)

    def state():
        return {"w": jnp.ones((50, 40)), "n": jnp.zeros(30)}

    expected = jax.jit(step)(state(), X)
    for jitted in (jax.jit(step, **donate), jp.simplify(jax.jit(step, **donate))):
        given, batch = state(), X * 1
        same(jitted(given, batch), expected)
        assert [leaf.is_deleted() for leaf in jax.tree.leaves(given)] == [bool(donate)] * 2
        assert not batch.is_deleted()


def test_donation_only_of_what_nobody_else_needs():
    step = jax.jit(lambda s: s * 2.0, donate_argnums=0)

    def twice(s):
        return step(s), jnp.sum(s)

    given = jnp.ones(30)
    same(jp.simplify(twice)(given), (2 * jnp.ones(30), jnp.float32(30.0)))
    assert not given.is_deleted()


# ---- what goes in and out


class Pair(NamedTuple):
    left: Any
    right: Any


@jax.tree_util.register_dataclass
@dataclass
class Oscillator:
    mass: Any
    springs: dict

    def period(self, x):
        return 2 * jnp.pi * jnp.sqrt(self.mass / self.springs["k"]) * wave(x)


def test_pytrees():
    def f(p, d, o):
        swapped = Pair(p.right * 2, (p.left, None))
        return swapped, {**d, "z": jnp.sin(d["a"])}, Oscillator(o.mass + 1, o.springs), o.period(p.left), []

    agrees(f, Pair(X, V), collections.OrderedDict(b=V, a=X), Oscillator(2.0, {"k": V[2]}))
    agrees(lambda x: None, X)
    agrees(lambda: (), *())
    agrees(lambda tree: jax.tree.map(jnp.sin, tree), [X, (V, [None, {"a": 1.0}])])


def test_equinox_modules():
    model = eqx.nn.MLP(3, 2, 8, 2, activation=jax.nn.softplus, key=jax.random.key(0))

    def step(model, x):
        loss = lambda model: jnp.mean(jax.vmap(model)(x) ** 2)
        value, slope = eqx.filter_value_and_grad(loss)(model)
        return value, eqx.apply_updates(model, jax.tree.map(lambda s: -0.1 * s, slope))

    value, found = jp.simplify(step)(model, X)
    expected_value, expected = eqx.filter_jit(step)(model, X)
    assert found.activation is expected.activation
    same((value, eqx.filter(found, eqx.is_array)), (expected_value, eqx.filter(expected, eqx.is_array)))
    same(jp.simplify(jax.vmap(found))(X), jax.vmap(expected)(X))


def test_flax_modules():
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    structure, state = nnx.split(model)

    def loss(state, x):
        return jnp.mean(nnx.merge(structure, state)(x) ** 2)

    agrees(jax.value_and_grad(loss), state, X)
    same(jp.simplify(lambda model, x: model(x) * 2)(model, X), model(X) * 2)


def test_an_optax_step():
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-2))

    def step(params, state, x, y):
        loss = lambda p: jnp.mean((jnp.tanh(x @ p["w"] + p["b"]) @ p["v"] - y) ** 2)
        value, slope = jax.value_and_grad(loss)(params)
        updates, state = optimiser.update(slope, state, params)
        return optax.apply_updates(params, updates), state, value

    params = {"w": jnp.ones((3, 5)) / 3, "b": jnp.zeros(5), "v": jnp.arange(5.0)}
    state = optimiser.init(params)
    simplified, jitted = jp.simplify(step), jax.jit(step)
    ours, theirs = (params, state), (params, state)
    for _ in range(3):
        *ours, value = simplified(*ours, X, V[:2])
        *theirs, expected = jitted(*theirs, X, V[:2])
    same((ours, value), (theirs, expected), rtol=1e-5)
    assert len(simplified._programs) == 1


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "complex64", "int32", "int8", "uint8", "bool"])
def test_dtypes(dtype):
    x = jnp.array([[0, 1, 3], [2, 1, 0]]).astype(dtype)

    def f(x):
        y = x + x * 1 if dtype != "bool" else x | x
        total = lax.scan(lambda c, a: (c + a, c), jnp.zeros_like(x[0]), x) if dtype != "bool" else ~x
        return y, total, jnp.sum(x, 0), jnp.real(x) * 1.0, x == y, jnp.where(x == 1, x, y), jnp.sin(x)

    agrees(f, x)


def test_weak_types():
    def f(x, n):
        return x, x * 1.0, x + n, n, 2.0 * 3.0, jnp.sin(1.0), jnp.asarray(1.0) * x, x * 1, jnp.where(True, x, 0.0), 1

    for x in (1.5, jnp.float32(1.5), jnp.bfloat16(1.5), np.float32(1.5), 1.5j):
        same(jp.simplify(lambda x: f(x, 2))(x), jax.jit(lambda x: f(x, 2))(x))
    agrees(lambda x: x.astype("bfloat16") * jnp.float32(2) + 1.0, X)
    weak = jax.jit(lambda x: x)(1.0)
    simplified = jp.simplify(lambda x: x * jnp.bfloat16(2))
    for x in (weak, jnp.float32(1.0), 1.0):  # one dtype and shape, and yet two signatures
        same(simplified(x), jax.jit(lambda x: x * jnp.bfloat16(2))(x))


def test_tangents_of_integers():
    f = lambda x, n: (x * n, n + 1, jnp.sum(n))
    n = jnp.arange(3)
    forward = lambda n: jax.jvp(f, (X, n), (X, np.zeros(n.shape, jax.dtypes.float0)))
    backward = lambda n: jax.grad(lambda n: jnp.sum(f(X, n)[0]), allow_int=True)(n)
    for transform in (forward, backward):
        for shape in (n, n[0]):
            found, expected = jp.simplify(transform)(shape), jax.jit(transform)(shape)
            for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
                assert (a.shape, a.dtype) == (b.shape, b.dtype)
    step = lambda n, slope: jax.tree.map(lambda n, s: n if s.dtype == jax.dtypes.float0 else n - s, n, slope)
    for slope in (np.zeros(3, jax.dtypes.float0), jnp.ones(3, int)):
        agrees(step, n, slope)
    primals, tangents = jax.jvp(jp.simplify(f), (X, n), (X, np.zeros(n.shape, jax.dtypes.float0)))
    same((primals, tangents[0]), (f(X, n), X * n))
    assert tangents[1].dtype == jax.dtypes.float0


def test_x64_on_and_off():
    simplified = jp.simplify(lambda x, n: (x * jnp.arange(3.0), jnp.sum(x), n * 2.0, jnp.arange(3)))
    jitted = jax.jit(lambda x, n: (x * jnp.arange(3.0), jnp.sum(x), n * 2.0, jnp.arange(3)))
    for enabled in (True, False, True, False):
        with jax.enable_x64(enabled):
            x = np.array([0.1, 0.2, 0.3])
            found = simplified(x, 0.1)
            assert found[0].dtype == (np.float64 if enabled else np.float32)
            same(found, jitted(x, 0.1), rtol=1e-12 if enabled else 1e-6)


def test_other_settings_are_other_programs():
    simplified = jp.simplify(lambda x: x @ x.T)
    plain = simplified(X)
    with jax.default_matmul_precision("highest"):
        assert "HIGHEST" in str(jax.make_jaxpr(simplified)(X))
    assert "HIGHEST" not in str(jax.make_jaxpr(simplified)(X))
    same(plain, X @ X.T)


def test_aliasing_outputs():
    constant, array = np.arange(3.0, dtype="float32"), jnp.arange(4)

    def f(x, y):
        s = jnp.sin(x)
        return x, x, s, s, y, constant, constant, array, jnp.sin(x), 2.5, True, x + 0.0 * y[0]

    agrees(f, X, V)
    given = X * 1
    found = jp.simplify(lambda x: (x, x))(given)
    same(found, (X, X))
    assert not given.is_deleted()


def test_arrays_without_elements():
    empty = jnp.zeros((0, 3))
    agrees(lambda x: (x, jnp.sum(x, 0), jnp.sum(x, 1), x @ X.T, x.T @ x, jnp.concatenate([x, X]), x[:, :0]), empty)
    agrees(lambda x: lax.scan(lambda c, a: (c + a, c * a), V, x), empty)
    agrees(jax.grad(lambda x: jnp.sum(jnp.sin(x) * x) + jnp.sum(V)), empty)
    agrees(lambda x: (jax.vmap(wave)(x), jnp.sum(x * x) + jnp.prod(x)), empty)


def test_literals_that_are_not_numbers_of_the_usual_kind():
    def f(x):
        return x * jnp.inf, x * jnp.nan, x * 0.0, x + -0.0, -0.0 * x, jnp.where(x > 0, -0.0, 0.0), jnp.sign(-0.0 * x)

    for x in (X, jnp.array([jnp.inf, -jnp.inf, jnp.nan, 0.0, -0.0, 1e-40, 3e38])):
        for found, expected in zip(jp.simplify(f)(x), jax.jit(f)(x), strict=True):
            np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))


# ---- composition


def closed_over(x):
    """A loop and a branch, with work in common."""

    def step(c, a):
        return jnp.tanh(c * a + jnp.sin(a)), c + jnp.sin(a)

    last, all_ = lax.scan(step, x[0], x)
    return jnp.sum(last) + jnp.sum(lax.cond(jnp.sum(x) > 0, jnp.cos, jnp.sin, all_)) + jnp.sum(wave(x))


TRANSFORMED = {
    "jit": jax.jit,
    "jit of jit": lambda f: jax.jit(jax.jit(f)),
    "grad": jax.grad,
    "value_and_grad": jax.value_and_grad,
    "jacfwd": jax.jacfwd,
    "jacrev": jax.jacrev,
    "hessian": jax.hessian,
    "jvp": lambda f: lambda x: jax.jvp(f, (x,), (jnp.cos(x),)),
    "vjp": lambda f: lambda x: jax.vjp(f, x)[1](jnp.float32(2.0)),
    "linearize": lambda f: lambda x: jax.linearize(f, x)[1](jnp.cos(x)),
    "vmap": lambda f: lambda x: jax.vmap(f)(jnp.stack([x, 2 * x])),
    "vmap over another axis": lambda f: lambda x: jax.vmap(f, 1)(jnp.stack([x, 2 * x], 1)),
    "vmap of grad": lambda f: lambda x: jax.vmap(jax.grad(f))(jnp.stack([x, 2 * x])),
    "grad of vmap": lambda f: jax.grad(lambda x: jnp.sum(jax.vmap(f)(jnp.stack([x, 2 * x])))),
    "checkpoint": lambda f: jax.grad(jax.checkpoint(f)),
    "map": lambda f: lambda x: lax.map(f, jnp.stack([x, 2 * x])),
    "scan": lambda f: lambda x: lax.scan(lambda c, a: (c + jax.grad(f)(c) * a, f(c)), x, V),
    "while": lambda f: lambda x: lax.while_loop(lambda c: f(c) < 9, lambda c: c * 0.8 + 0.2, x),
    "cond": lambda f: lambda x: lax.cond(x[0, 0] > 0, f, lambda x: -f(x), x),
    "eval_shape": lambda f: lambda x: jnp.zeros(jax.eval_shape(f, x).shape),
    "custom_jvp": lambda f: lambda x: jax.grad(custom(f))(x),
}


def custom(f):
    g = jax.custom_jvp(f)
    g.defjvp(lambda primals, tangents: (g(*primals), 3 * jax.jvp(f, primals, tangents)[1]))
    return g


@pytest.mark.parametrize("name", TRANSFORMED)
def test_transformations_of_it_and_in_it(name):
    transform = TRANSFORMED[name]
    expected = jax.jit(transform(closed_over))(X)
    same(jax.jit(transform(jp.simplify(closed_over)))(X), expected, rtol=1e-5)
    same(jp.simplify(transform(closed_over))(X), expected, rtol=1e-5)
    same(jp.simplify(transform(jp.simplify(closed_over)))(X), expected, rtol=1e-5)


def test_without_jit():
    same(jax.grad(jp.simplify(closed_over))(X), jax.grad(closed_over)(X), rtol=1e-5)
    with jax.disable_jit():
        same(jp.simplify(wave)(X), wave(X))


def test_vmap_in_axes():
    f = lambda x, tree, n: x * tree["a"] + jnp.sum(tree["b"]) * n
    mapped = lambda f: jax.vmap(lambda x, tree: f(x, tree, 2), in_axes=(1, {"a": 0, "b": None}), out_axes=-1)
    args = (X, {"a": V, "b": X})
    same(mapped(jp.simplify(f))(*args), mapped(f)(*args))


def test_closures_over_traced_values():
    def loss(f):
        def outer(w, x):
            inner = f(lambda x: wave(w * x) + jnp.sum(w) * jnp.sum(jnp.sin(w)))
            return jnp.sum(inner(x) * inner(2 * x)) + jnp.sum(jax.jit(inner)(x))

        return outer

    plain, ours = loss(lambda f: f), loss(jp.simplify)
    for transform in (lambda f: jax.grad(f, (0, 1)), jax.jacfwd, jax.hessian, lambda f: jax.vmap(f, (None, 0))):
        expected = jax.jit(transform(plain))(V, X)
        same(jax.jit(transform(ours))(V, X), expected, rtol=1e-5)
    same(jax.grad(ours)(V, X), jax.grad(plain)(V, X), rtol=1e-5)


def test_what_was_traced_inside_a_transformation_does_not_stay():
    cell = []
    f = jp.simplify(lambda x: jnp.sum(jnp.sin(cell[-1] * x)))

    def outer(w):
        cell.append(w)
        try:
            return f(X)
        finally:
            cell.pop()

    expected = jax.grad(lambda w: jnp.sum(jnp.sin(w * X)))
    for w in (0.5, 1.5):
        same(jax.grad(outer)(w), expected(w))
    same(jax.jit(outer)(0.7), jnp.sum(jnp.sin(0.7 * X)))


def test_a_closure_in_a_loop():
    def f(transform):
        def step(c, a):
            return transform(lambda v: v * jnp.cos(a) + jnp.sum(c))(c), jnp.sum(a * c)

        return lambda x: lax.scan(step, x[0], x)

    same(jax.jit(f(jp.simplify))(X), jax.jit(f(lambda g: g))(X))
    same(jax.jacrev(f(jp.simplify))(X), jax.jacrev(f(lambda g: g))(X))


def test_named_axes():
    def f(x):
        return x / lax.psum(jnp.exp(x), "i") + lax.axis_index("i") + lax.psum(jnp.exp(x), "i")

    inside = lambda simplify: lambda x: jax.vmap(simplify(f), axis_name="i")(x)
    same(inside(jp.simplify)(X), inside(lambda f: f)(X))
    agrees(inside(lambda f: f), X)
    agrees(jax.vmap(jax.grad(lambda x: jnp.sum(f(x))), axis_name="i"), X)
    for transform in (jax.jacfwd, jax.jacrev, jax.jit):
        same(transform(inside(jp.simplify))(X), transform(inside(lambda f: f))(X))
    one = jp.simplify(f)  # another size of the axis is another program
    for x in (X, X[:1], X.T):
        same(jax.vmap(one, axis_name="i")(x), jax.vmap(f, axis_name="i")(x))
    with pytest.raises(NameError, match="unbound axis name"):
        jp.simplify(f)(X)


def test_shardings():
    mesh = jax.make_mesh((1,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    split = NamedSharding(mesh, PartitionSpec("d"))
    x = jax.device_put(X, split)
    found = agrees(lambda x: (jnp.sin(x) * jnp.sin(x), jnp.sum(x)), x)
    assert found[0].sharding.is_equivalent_to(split, 2)
    agrees(lambda x: lax.with_sharding_constraint(jnp.sin(x), split) + jnp.sin(x), X)
    agrees(jax.jit(wave, in_shardings=split), x)

    def local(x):
        return wave(x) + lax.psum(jnp.sum(jnp.sin(x)), "d")

    mapped = functools.partial(jax.shard_map, mesh=mesh, in_specs=PartitionSpec("d"), out_specs=PartitionSpec("d"))
    expected = jax.jit(mapped(local))(x)
    same(jp.simplify(mapped(local))(x), expected)
    same(jax.jit(mapped(jp.simplify(local)))(x), expected)
    same(jax.grad(lambda x: jnp.sum(mapped(jp.simplify(local))(x)))(x),
         jax.grad(lambda x: jnp.sum(mapped(local)(x)))(x))  # fmt: skip


# ---- what stays whole


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def scaled_back(x, factor):
    return jnp.sin(x) * factor


scaled_back.defvjp(lambda x, factor: (scaled_back(x, factor), jnp.cos(x)), lambda factor, c, ct: (7 * c * ct,))


@jax.custom_jvp
def stepwise(x):
    return jnp.round(x)


stepwise.defjvp(lambda primals, tangents: (stepwise(*primals), 5 * tangents[0]))


def test_custom_rules_are_used_by_what_comes_after():
    def f(x):
        return jnp.sum(scaled_back(x, 2.0) * jnp.cos(x)) + jnp.sum(stepwise(x) * stepwise(x)) + jnp.sum(jax.nn.relu(x))

    agrees(f, X)
    same(jax.grad(jp.simplify(f))(X), jax.grad(f)(X))
    same(jax.grad(jp.simplify(jp.simplify(f)))(X), jax.grad(f)(X))
    g = lambda x: jnp.sum(stepwise(x) * x)
    for transform in (jax.grad, jax.jacfwd, jax.hessian):
        same(transform(jp.simplify(g))(X), transform(g)(X))
    looped = lambda x: jnp.sum(lax.scan(lambda c, a: (stepwise(c) * a, scaled_back(a, 3.0)), x[0], x)[0])
    same(jax.grad(jp.simplify(looped))(X), jax.grad(looped)(X))
    both = lambda x: jnp.sum(lax.scan(lambda c, a: (stepwise(c) * a, scaled_back(a, 3.0)), x[0], x)[1])
    same(jax.grad(jp.simplify(both))(X), jax.grad(both)(X))
    with pytest.raises(TypeError, match=r"forward-mode .* custom_vjp"):
        jax.jvp(jp.simplify(f), (X,), (X,))
    with pytest.raises(TypeError, match=r"forward-mode .* custom_vjp"):
        jp.simplify(lambda x: jax.jvp(f, (x,), (x,)))(X)


def test_checkpoint_stays():
    def f(x):
        block = jax.checkpoint(lambda x, w: jnp.sin(jnp.sin(x @ w)))
        return jnp.sum(block(block(x, jnp.eye(3)), jnp.ones((3, 3))))

    for transform in (lambda f: f, jax.grad, jax.value_and_grad):
        agrees(transform(f), X)
        if transform is jax.grad:
            continue  # the last value of all is computed for nothing
        for name in ("remat2", "checkpoint", "sin", "cos"):
            expected = primitives(transform(f), X).count(name)
            assert primitives(transform(jp.simplify(f)), X).count(name) == expected
            assert primitives(jp.simplify(transform(f)), X).count(name) == expected
    assert primitives(jp.simplify(f), X).count("sin") == 4
    assert primitives(jax.grad(jp.simplify(f)), X).count("sin") > 4  # computed again on the way back


def test_checkpoint_in_a_loop_stays():
    def f(x):
        step = jax.checkpoint(lambda c, a: (jnp.sin(jnp.sin(c)) * a, None))
        return jnp.sum(lax.scan(step, x[0], x)[0])

    agrees(jax.grad(f), X)
    same(jax.grad(jp.simplify(f))(X), jax.grad(f)(X))
    assert primitives(jax.grad(jp.simplify(f)), X).count("sin") == primitives(jax.grad(f), X).count("sin")


def test_stop_gradient_and_named_values_stay():
    f = lambda x: jnp.sum(lax.stop_gradient(jnp.sin(x)) * jnp.sin(x))
    same(jax.grad(jp.simplify(f))(X), jax.grad(f)(X))
    barrier = lambda x: lax.optimization_barrier(jnp.sin(x)) + jnp.sin(x)
    agrees(barrier, X)
    assert "optimization_barrier" in primitives(jp.simplify(barrier), X)
    named = lambda x: jnp.sum(jnp.sin(checkpoint_name(jnp.sin(x), "s")))
    policy = jax.checkpoint_policies.save_only_these_names("s")
    same(jax.grad(jax.checkpoint(jp.simplify(named), policy=policy))(X), jax.grad(named)(X))


def test_random_keys():
    def f(key, x):
        one, two = jax.random.split(key)
        noise = jax.random.normal(one, x.shape) + jax.random.normal(one, x.shape)
        return noise, jax.random.uniform(two, (4,)), two, jax.random.bits(key), jax.random.fold_in(key, 3)

    def walk(key, x):
        def step(carry, a):
            key, c = carry
            key, now = jax.random.split(key)
            return (key, c + jax.random.normal(now, c.shape) * a), jax.random.uniform(now)

        return lax.scan(step, (key, x), jnp.arange(3.0))

    agrees(f, jax.random.key(3), X)
    agrees(walk, jax.random.PRNGKey(3), X)
    agrees(f, jax.random.key(3, impl="rbg"), X)
    agrees(jax.vmap(walk, (0, None)), jax.random.split(jax.random.key(1), 3), X)
    same(
        jp.simplify(lambda x: jax.random.normal(jax.random.key(5), x.shape))(X),
        jax.random.normal(jax.random.key(5), (2, 3)),
    )


# ---- effects


def recorded(fn, *args):
    """What a function returns, and what its callbacks wrote down."""
    seen: list = []
    out = jax.block_until_ready(fn(seen)(*args))
    jax.effects_barrier()
    return out, seen


def note(seen, name, value):
    io_callback(lambda v: seen.append((name, np.asarray(v).tolist())), None, value, ordered=True)


def with_effects(seen):
    def f(x):
        note(seen, "first", x[0, 0])
        note(seen, "same", x[0, 0])
        note(seen, "same", x[0, 0])

        def step(c, a):
            note(seen, "in loop", c)
            lax.cond(c > 0, lambda: note(seen, "positive", c), lambda: None)
            return c * 0.5 + a[0], jnp.sin(a)

        last, all_ = lax.scan(step, 1.0, x)
        lax.fori_loop(0, 2, lambda i, c: (note(seen, "turn", i), c)[1], x)
        lax.while_loop(lambda c: c < 4, lambda c: (note(seen, "while", c), c + 1)[1], 1)
        note(seen, "last", last)
        lax.scan(lambda c, a: (note(seen, "dead loop", a), (c, None))[1], 1.0, x[:, 1])
        return jnp.sum(all_)

    return f


def test_effects_keep_their_order():
    theirs = recorded(lambda seen: jax.jit(with_effects(seen)), X)
    ours = recorded(lambda seen: jp.simplify(with_effects(seen)), X)
    assert ours[1] == theirs[1]
    assert len(ours[1]) > 12
    same(ours[0], theirs[0])
    assert recorded(lambda seen: jax.jit(jp.simplify(with_effects(seen))), X)[1] == theirs[1]
    nested = lambda seen: jp.simplify(lambda x: (with_effects(seen)(x), jp.simplify(with_effects(seen))(2 * x)))
    plain = lambda seen: jax.jit(lambda x: (with_effects(seen)(x), with_effects(seen)(2 * x)))
    assert recorded(nested, X)[1] == recorded(plain, X)[1]


def test_effects_of_every_call():
    seen: list = []
    f = jp.simplify(lambda x: (note(seen, "called", x), x * 2)[1])
    for x in (1.0, 2.0, 2.0):
        f(x)
    jax.effects_barrier()
    assert seen == [("called", 1.0), ("called", 2.0), ("called", 2.0)]


def test_effects_of_branches_not_taken():
    def fn(seen):
        def f(x):
            branch = lambda name: lambda: (note(seen, name, x), x)[1]
            return lax.switch((x > 0).astype(int) + (x > 1).astype(int), [branch("low"), branch("mid"), branch("high")])

        return f

    for x in (-1.0, 0.5, 2.0):
        ours, theirs = recorded(lambda s: jp.simplify(fn(s)), x), recorded(lambda s: jax.jit(fn(s)), x)
        assert ours[1] == theirs[1]
        assert len(ours[1]) == 1


def test_printing(capfd):
    def f(x):
        jax.debug.print("x = {}", x[0, 0], ordered=True)

        def step(c, a):
            jax.debug.print("c = {c}", c=c, ordered=True)
            return c + a[0], None

        jax.debug.callback(lambda v: print("callback", v), x[0, 1], ordered=True)
        return lax.scan(step, 0.0, x)[0]

    texts = []
    for run in (jax.jit(f), jp.simplify(f), jax.jit(jp.simplify(f))):
        run(X)
        jax.effects_barrier()
        texts.append(capfd.readouterr().out)
    assert texts[0].count("\n") == 4
    assert texts[1:] == texts[:1] * 2


def test_pure_callbacks():
    f = lambda x: jax.pure_callback(np.sin, jax.ShapeDtypeStruct(x.shape, x.dtype), x) * 2
    agrees(f, X)


# ---- errors and statistics


def test_errors_of_the_function_come_through():
    class OurError(Exception):
        pass

    def f(x, n=1):
        if n == 1:
            raise OurError("as it was said")
        if n == 2:
            return x @ x
        if n == 3 and x > 0:
            return x
        return jax.grad(lambda x: x)(x)

    with pytest.raises(OurError, match=r"^as it was said"):
        jp.simplify(f)(X)
    for n, error in ((2, TypeError), (3, ValueError), (4, TypeError)):
        messages = []
        for run in (jax.jit(f, static_argnames="n"), jp.simplify(f)):
            with pytest.raises(error) as caught:
                run(X, n=n)
            messages.append(str(caught.value))
        assert messages[0].splitlines()[0] == messages[1].splitlines()[0]


def test_errors_of_tracing_name_the_function():
    def picky(x):
        return float(x)

    with pytest.raises(jax.errors.ConcretizationTypeError, match="picky"):
        jp.simplify(picky)(1.0)


def test_statistics():
    def f(x):
        return jnp.sum(jnp.sin(x) * jnp.sin(x)) + jnp.sum(lax.scan(lambda c, a: (c + a, c * a), x[0], x)[1])

    stats = jp.simplify(f).stats(X)
    assert stats.problem is None
    assert stats.before.loops == stats.after.loops == 1
    assert (stats.before.equations, stats.after.equations) == (11, 10)
    assert stats.after.cost.transcendentals == 6 == stats.before.cost.transcendentals / 2
    assert stats.after.cost.flops <= stats.before.cost.flops
    lines = str(stats).splitlines()
    assert lines[0].split() == ["program", "equations", "loops", "operations", "bytes"]
    assert lines[1].split()[:4] == ["as", "traced", "11", "1"]
    assert [step.name for step in stats.steps][2:] == list(pipeline.PASSES)
    shapes = jax.ShapeDtypeStruct(X.shape, X.dtype)
    assert jp.simplify(f).stats(x=shapes).steps == stats.steps


def raising(graph, values, effects=()):
    raise RuntimeError("out of luck")


def test_a_pass_that_fails_leaves_the_function_as_it_is(monkeypatch):
    monkeypatch.setitem(pipeline.PASSES, "unlucky", raising)
    simplified = jp.simplify(closed_over)
    with pytest.warns(UserWarning, match=r"runs closed_over as it is: RuntimeError: out of luck") as caught:
        found = simplified(X)
    assert caught[0].filename == __file__
    same(found, jax.jit(closed_over)(X))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # said once
        simplified(2 * X)
        stats = simplified.stats(X)
    assert stats.problem == "RuntimeError: out of luck"
    assert "left as it is: RuntimeError: out of luck" in str(stats)


def test_a_pass_that_makes_nonsense_leaves_the_function_as_it_is(monkeypatch):
    """What comes out of the passes cannot be traced: the error is ours, and not the user's."""
    monkeypatch.setitem(pipeline.PASSES, "nonsense", lambda graph, values, effects=(): [
        graph.add(lax.add_p, (value, graph.constant(jnp.ones(7), jax.typeof(jnp.ones(7)))), {}, [value.aval])[0]
        for value in values
    ])  # fmt: skip
    with pytest.warns(UserWarning, match=r"runs wave as it is: TypeError: add got incompatible shapes"):
        found = jp.simplify(wave)(X)
    same(found, jax.jit(wave)(X))


# ---- random programs

USES = ("value", "jvp", "grad", "value_and_grad", "jvp of grad", "vmap", "grad of it")


@dataclass(frozen=True)
class Case:
    """One random program, and what is done to it before it is simplified, or after."""

    program: LoopProgram
    use: str
    x64: bool


def make_case(seed: int) -> Case:
    program = draw(seed, effects=seed % 6 == 5)
    possible = [
        use
        for use in USES
        if (program.forwards or "jvp" not in use)
        and (program.backwards or "grad" not in use)
        and not (program.has_effects and use == "vmap")
    ]
    return Case(program, possible[seed // 2 % len(possible)], x64=seed % 4 != 3)


def check(case: Case) -> None:
    """Values, types, structure, effects and cost of one case."""
    program = case.program
    with jax.enable_x64(case.x64):
        floats = {name: a for name, a in program.args.items() if name not in ("key", "n")}
        rest = {name: program.args[name] for name in ("key", "n")}
        tangents = jax.tree.map(lambda a: np.cos(1.0 + np.arange(a.size)).reshape(a.shape), floats)

        def whole(floats, rest):
            return program.fn({**floats, **rest})

        def loss(fn):
            def scalar(floats, rest):
                out = fn(floats, rest)
                numbers = [leaf for leaf in jax.tree.leaves(out) if jnp.issubdtype(jnp.result_type(leaf), jnp.floating)]
                return sum(jnp.sum(a * jnp.cos(jnp.arange(a.size)).reshape(a.shape)) for a in numbers), out

            return scalar

        grad = lambda fn: jax.value_and_grad(loss(fn), has_aux=True)
        uses = {
            "value": whole,
            "jvp": lambda floats, rest: jax.jvp(lambda f: whole(f, rest), (floats,), (tangents,)),
            "grad": lambda floats, rest: grad(whole)(floats, rest)[1],
            "value_and_grad": grad(whole),
            "jvp of grad": lambda floats, rest: jax.jvp(lambda f: grad(whole)(f, rest)[1], (floats,), (tangents,))[1],
            "vmap": lambda floats, rest: jax.vmap(whole, (0, None))(
                jax.tree.map(lambda a: jnp.stack([a, 0.9 * a]), floats), rest
            ),
            "grad of it": grad(whole),
        }
        fn = uses[case.use]
        inner = jp.simplify(whole if case.use == "grad of it" else fn)
        simplified = jax.jit(grad(inner)) if case.use == "grad of it" else inner
        found, ours = program.recorded(simplified, floats, rest)
        expected, theirs = program.recorded(jax.jit(fn), floats, rest)
        assert jax.tree.structure(found) == jax.tree.structure(expected)
        if case.x64:
            assert ours == theirs
        else:
            assert [tag for tag, _ in ours] == [tag for tag, _ in theirs]
        for (path, a), b in zip(jax.tree.leaves_with_path(found), jax.tree.leaves(expected), strict=True):
            close(a, b, 1e-9 if case.x64 else 1e-3, jax.tree_util.keystr(path))
        stats = inner.stats(floats, rest)
        assert stats.problem is None
        before, after = stats.before.cost, stats.after.cost
        assert after.time <= before.time * (1 + 1e-9)
        if "lax.cond(" not in program.source and "lax.switch(" not in program.source:
            # The cost of branches is that of the dearest, which may come to be another one.
            assert after.flops <= before.flops
            assert after.transcendentals <= before.transcendentals


def close(found, expected, rtol, name):
    """Equal types, and values to rounding: relative to each element, or to the largest of all."""
    assert (jnp.shape(found), found.dtype) == (jnp.shape(expected), expected.dtype), name
    if not jnp.issubdtype(expected.dtype, jnp.inexact):
        if jax.dtypes.issubdtype(expected.dtype, jax.dtypes.prng_key):
            found, expected = jax.random.key_data(found), jax.random.key_data(expected)
        np.testing.assert_array_equal(np.asarray(found), np.asarray(expected), err_msg=name)
        return
    scale = max(float(np.max(np.abs(expected), initial=0)), 1e-2)
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=rtol * scale, err_msg=name)


# All of them on the newest JAX; every fifth, which takes in all kinds, on an older one.
SEEDS = range(0, 150, 1 if jax.__version_info__ >= (0, 11) else 5)


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_random_program(seed):
    if seed % 25 == 0:
        jax.clear_caches()  # compiled programs that will not run again
    check(make_case(seed))


def first_carry_for_all(graph, values, effects=()):
    """A wrong pass: carries of a scan that begin alike are taken for one, whatever becomes of them."""
    by = {}
    for node in reach(values):
        if node.name == "scan" and not node.effects:
            fixed, carried = node.params["num_consts"], node.params["num_carry"]
            begin = node.operands[fixed : fixed + carried]
            for i in range(carried):
                by[node.outputs[i]] = node.outputs[begin.index(begin[i])]
    found = graph.replace(values, by)
    return [found[value] for value in values]


@pytest.mark.slow
def test_carries_that_are_not_congruent_are_noticed(monkeypatch):
    monkeypatch.setitem(pipeline.PASSES, "wrong", first_carry_for_all)
    with pytest.raises(AssertionError, match=r"Not equal to tolerance|Arrays are not equal"):
        list(map(check, map(make_case, range(12))))


def backwards(graph, values, effects=()):
    """Another wrong pass: the effects come in another order."""
    numbers = sorted(node.number for node in graph.effects)
    for node, number in zip(graph.effects, reversed(numbers), strict=True):
        node.number = number
    return list(values)


def test_another_order_of_effects_is_noticed(monkeypatch):
    monkeypatch.setitem(pipeline.PASSES, "wrong", backwards)
    fn = lambda seen: lambda x: (note(seen, "a", x), note(seen, "b", x), x)[2]
    theirs = recorded(lambda seen: jax.jit(fn(seen)), 1.0)[1]
    assert recorded(lambda seen: jp.simplify(fn(seen)), 1.0)[1] == theirs[::-1]
