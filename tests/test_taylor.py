"""All orders at once: collapsed Taylor mode and polarisation, against nested jacfwd."""

import contextlib
import functools
import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpartials as jp
from jaxpartials import candidates, operators
from jaxpartials.at_once import POLARISED, TAYLOR
from tests.oracle import dense

RNG = np.random.default_rng(0)
V, W, B = RNG.normal(size=(2, 4)), RNG.normal(size=(4, 3)) / 2, RNG.normal(size=4)
x, X = RNG.normal(size=2), RNG.normal(size=(5, 2))


@contextlib.contextmanager
def only(mode):
    """Leaves the planner one way for every partial of third order and more."""
    every, at_once = candidates._prospects, candidates._build_at_once

    def prospects(want):
        return [] if want.partial.order >= candidates.AT_ONCE else every(want)

    def build(deriver, want):
        at_once(deriver, want)
        if want.partial.order >= candidates.AT_ONCE:
            want.choices[:] = [choice for choice in want.choices if choice.candidate[0].mode == mode]
            assert want.choices, f"no {mode} way"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(candidates, "_prospects", prospects)
        patch.setattr(candidates, "_build_at_once", build)
        yield


def layers(x):
    return jnp.tanh(jnp.sin(x @ V + B) @ W)


def quotient(x):
    return jnp.sum(jnp.exp(x @ V) / (2 + jnp.cos(layers(x)[..., :1])), -1)


def product(x):
    """Sums of products of what moves, along an axis of the network and of an array with itself."""
    y = layers(x)
    return jnp.einsum("...i,...i", y, y**3) + jnp.sum(y, -1) * (jnp.square(x[..., 0]) + x[..., 1] ** 3) * x[..., 1]


def kinks(x):
    y = -(x @ V)
    y = jnp.where(y > 0, y**4, jnp.abs(y) ** 3.5) + jnp.maximum(y, 0.1) * jax.nn.sigmoid(-y)
    return jnp.sum(jax.nn.softplus(y) + jax.nn.relu(y - 1) ** 2, -1)


def shuffled(x):
    y = jnp.concatenate([jnp.log(2 + jnp.square(x)), jnp.sqrt(1 + x**2)[..., ::-1]], -1)
    return jnp.sum(jnp.pad(y, [(0, 0)] * (x.ndim - 1) + [(1, 0)])[..., :-1] @ W, -1) ** 3 / (1 + x[..., 1] ** 2)


BIHARMONIC = "u[b]/x[b,i]^2 x[b,j]^2 -> b"
MIXED = "u[b]/x[b,0]^2 x[b,1]^2 -> b"
MODES = (TAYLOR, POLARISED)


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


def tensor(fn, order, at):
    """All derivatives of one order of a scalar function, by JAX."""
    for _ in range(order):
        fn = jax.jacfwd(fn)
    return jax.jit(fn)(at)


@pytest.mark.parametrize("fn", [quotient, product, kinks, shuffled], ids=lambda fn: fn.__name__)
def test_every_kind_of_equation(fn):
    third, fourth = tensor(fn, 3, x), jax.vmap(functools.partial(tensor, fn, 4))(X)
    specs = {
        "u/x[i]^2 x[j] -> j": np.einsum("iij->j", third),
        "u/x[i] x[j] x[0] ->": third[0].sum(),
        "u/x[0]^2 x[1]": third[0, 0, 1],
    }
    of_batch = {
        BIHARMONIC: np.einsum("biijj->b", fourth),
        "u[b]/x[b,i] x[b,0] x[b,1]^2 -> i b": fourth[:, :, 0, 1, 1].T,
    }
    for mode in MODES:
        for wanted, at in ((specs, x), (of_batch, X)):
            with only(mode):
                g = jp.partials(fn, list(wanted))
                for spec, got in zip(wanted, g(at), strict=True):
                    np.testing.assert_allclose(got, wanted[spec], rtol=1e-9, atol=1e-10, err_msg=f"{mode} {spec}")
                assert {row.mode.split()[0] for row in g.plan(at).partials} == {mode}


@pytest.mark.parametrize("mode", MODES)
def test_directions_in_several_inputs(mode):
    def fn(t, x, y):
        return jnp.sin(t * x) * jnp.exp(y / (2 + t)) + x**2 * t**2

    specs = ["u/t x y", "u/x^2 t", "u/t^2 x^2"]
    args = 0.3, 1.1, -0.4
    with only(mode):
        np.testing.assert_allclose(jp.partials(fn, specs)(*args), dense(fn, specs)(*args), rtol=1e-10)


@pytest.mark.parametrize("mode", MODES)
def test_gradients_go_through(mode):
    def fn(x, w):
        return jnp.sum(jnp.tanh(jnp.tanh(x @ V) @ w), -1)

    def nested(X, w):
        return jax.vmap(lambda x: jnp.einsum("iijj", tensor(lambda x: fn(x, w), 4, x)))(X)

    slope = lambda laplacian: jax.grad(lambda w: jnp.sum(laplacian(X, w) ** 2))(W)
    with only(mode):
        np.testing.assert_allclose(slope(jp.partials(fn, BIHARMONIC)), slope(nested), rtol=1e-9)


@pytest.mark.parametrize(
    "fn",
    [
        lambda x: jnp.sum(jax.nn.softmax(x @ V) ** 2),  # a rule of its own, along an axis
        lambda x: jnp.sum(jax.lax.fori_loop(0, 3, lambda _, y: jnp.sin(y), x)),
        lambda x: jnp.prod(jnp.sin(x)),
    ],
    ids=["rule", "loop", "reduction"],
)
def test_what_it_does_not_reach_goes_another_way(fn):
    g = jp.partials(fn, "u/x[i]^2 x[j]")
    np.testing.assert_allclose(g(x), dense(fn, "u/x[i]^2 x[j]")(x), rtol=1e-9)
    assert not {name.split()[0] for name, _ in g.plan(x).partials[0].considered} & {*MODES}


@pytest.mark.parametrize(("mode", "streams"), [(TAYLOR, 8), (POLARISED, 13)])
def test_no_derivative_is_made_twice(mode, streams):
    """The mixed derivatives of the biharmonic operator are 2 + 3 + 2 + 1: those of each order, but those of the third
    summed over one direction, and that of the fourth over both. Polarised, there are 4 of each order but the last."""

    def fn(x):
        return jnp.sum(jnp.tanh(jnp.tanh(jnp.tanh(x @ V) @ W) @ W.T), -1)

    with only(mode):
        graph = jp.partials(fn, BIHARMONIC).plan(X).graph
    products = [node.outputs[0].shape for node in graph.nodes if node.name == "dot_general"]
    assert products.count((5, 3)) == 1 + streams
    assert not any(2 in v.shape for node in graph.nodes if node.operands for v in node.outputs if 5 in v.shape)


def test_polarisation_loses_less_than_two_bits():
    """In float32 against float64, over many points."""
    rng = np.random.default_rng(2)
    args = rng.normal(size=(400, 2)), rng.normal(size=(2, 16)) / 2**0.5, rng.normal(size=(16, 16)) / 4
    errors = {}
    for mode in MODES:
        with only(mode):
            g = jp.partials(lambda x, v, w: jnp.sum(jnp.tanh(jnp.tanh(x @ v) @ w), -1), MIXED)
            exact = g(*args)
            single = g(*(a.astype("float32") for a in args))
        assert single.dtype == "float32"
        errors[mode] = np.sqrt(np.mean((single - exact) ** 2) / np.mean(exact**2))
    assert errors[POLARISED] < 4 * errors[TAYLOR] < 2e-6


# ---- operators


@pytest.mark.parametrize(
    "terms",
    [
        {(0, 0, 1, 1): 1},
        {(0, 0, 0, 0): 1, (0, 0, 1, 1): 2, (1, 1, 1, 1): 1},
        {(0, 1, 2): 1, (0, 0, 1): Fraction(3, 2)},
        {(0, 0, 0, 1, 2, 2): 5},
    ],
)
def test_a_polarised_operator_is_the_operator(terms):
    """sum_v w_v (v . s)^k = sum_m c_m s^m as polynomials: at more points along each axis than their degree."""
    k = len(next(iter(terms)))
    weights = operators.polarised(terms, 3)
    for s in np.ndindex(k + 1, k + 1, k + 1):
        powers = sum(w * sum(a * b for a, b in zip(form, s, strict=True)) ** k for form, w in weights.items())
        assert powers == sum(c * math.prod(s[i] for i in m) for m, c in terms.items())


def test_the_biharmonic_operator_by_four_directions():
    third, sixth = Fraction(1, 3), Fraction(1, 6)
    mixed = operators.polarised({(0, 0, 1, 1): 1}, 2)
    assert mixed == {(1, 1): sixth / 2, (1, -1): sixth / 2, (1, 0): -sixth, (0, 1): -sixth}
    assert operators.growth(mixed, {(0, 0, 1, 1): 1}) == 3  # so at most log2(3) bits are lost
    whole = operators.polarised({(0, 0, 0, 0): 1, (0, 0, 1, 1): 2, (1, 1, 1, 1): 1}, 2)
    assert whole == {(1, 0): 2 * third, (0, 1): 2 * third, (1, 1): sixth, (1, -1): sixth}
