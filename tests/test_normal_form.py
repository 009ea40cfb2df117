"""Equal by the laws of linear algebra: what is found equal is equal, and what is plainly equal is found so."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxpartials import _jax
from jaxpartials.graph.emit import evaluate
from jaxpartials.graph.graph import Graph
from jaxpartials.graph.trace import extend
from jaxpartials.structure.normal_form import NormalForms


def forms(*fns, shapes):
    """The forms of what several functions make of the same arrays, in a graph without rewrites, and the values."""
    graph = Graph()
    inputs = [graph.input(_jax.ShapedArray(shape, np.dtype("float32"))) for shape in shapes]
    values = [extend(graph, fn, inputs) for fn in fns]
    found = NormalForms()
    return [(found[v], v.shape) for v in values], values, graph


def equal(f, g, *shapes):
    (a, b), *_ = forms(f, g, shapes=shapes)
    return a == b


EQUAL = {
    "sums in another order": (lambda x, y: (x + y) + x, lambda x, y: y + 2 * x),
    "differences": (lambda x, y: x - (y - x), lambda x, y: -y + x + x),
    "products in another order": (lambda x, y: x * (y * x), lambda x, y: y * x**2),
    "quotients by numbers": (lambda x, y: x / 4 + y, lambda x, y: y + 0.25 * x),
    "transposed sums": (lambda x, y: (x.T + y.T).T, lambda x, y: y + x),
    "transposed products": (lambda x, y: (x.T * y.T).T @ x.T, lambda x, y: (x @ (y * x).T).T),
    "transposed contractions": (lambda x, y: x @ y.T, lambda x, y: (y @ x.T).T),
    "contractions by einsum": (lambda x, y: jnp.einsum("ij,kj->ki", x, y), lambda x, y: y @ x.T),
    "sums by contraction": (lambda x, y: jnp.sum(x * y, 1), lambda x, y: jnp.einsum("ij,ij->i", y, x)),
    "repeated rows": (
        lambda x, y: jnp.broadcast_to(x[0], (3, 4)) * y,
        lambda x, y: y * jnp.broadcast_to(x[:1], (3, 4)),
    ),
    "sums over what is repeated": (
        lambda x, y: jnp.sum(jnp.broadcast_to(x[:, :1], (3, 4)), 1),
        lambda x, y: 4 * x[:, 0],
    ),
    "axes of size one": (lambda x, y: (x[:, None, :] + y[:, None, :]).reshape(3, 4), lambda x, y: y + x),
    "functions of equals": (lambda x, y: jnp.tanh(x + y).T, lambda x, y: jnp.tanh(y.T + x.T)),
    "parts of a transpose": (lambda x, y: (x * y).T[1], lambda x, y: (y * x)[:, 1]),
    "contraction with ones": (lambda x, y: jnp.ones((1, 1)) @ x[:1], lambda x, y: x[:1]),
}


@pytest.mark.parametrize("name", EQUAL)
def test_equal(name):
    assert equal(*EQUAL[name], (3, 4), (3, 4))


DIFFERENT = {
    "signs": (lambda x, y: x - y, lambda x, y: y - x),
    "axes": (lambda x, y: x @ y, lambda x, y: y @ x),
    "transposes": (lambda x, y: x, lambda x, y: x.T),
    "which is divided": (lambda x, y: x / y, lambda x, y: y / x),
    "powers": (lambda x, y: x * x * y, lambda x, y: x * y * y),
    "numbers": (lambda x, y: 0.5 * x, lambda x, y: 0.25 * x),
    "parts": (lambda x, y: x[0], lambda x, y: x[1]),
    "strides": (lambda x, y: x[::2], lambda x, y: x[:2]),
    "what is summed": (lambda x, y: jnp.sum(x, 0), lambda x, y: jnp.sum(x, 1)),
    "diagonals": (lambda x, y: jnp.einsum("ij,ij->i", x, y), lambda x, y: jnp.einsum("ij,ji->i", x, y)),
    "orders of stacking": (lambda x, y: jnp.stack([x, y]), lambda x, y: jnp.stack([y, x])),
    "where it is stacked": (lambda x, y: jnp.stack([x, y], 1), lambda x, y: jnp.stack([x.T, y.T], 1)),
    "rounding": (lambda x, y: x, lambda x, y: x.astype("bfloat16").astype("float32")),
    "infinities that cancel": (lambda x, y: x + y - y, lambda x, y: x),
    "zero times what may be infinite": (lambda x, y: 0.0 * x, lambda x, y: 0.0 * y),
    "padding": (lambda x, y: jnp.pad(x, ((0, 1), (0, 0))), lambda x, y: jnp.pad(x, ((1, 0), (0, 0)))),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_different(name):
    assert not equal(*DIFFERENT[name], (3, 3), (3, 3))


OPERATIONS = [
    lambda x, y: x + y,
    lambda x, y: x - y,
    lambda x, y: x * y,
    lambda x, y: x @ y,
    lambda x, y: x.T,
    lambda x, y: -2.0 * x,
    lambda x, y: jnp.broadcast_to(jnp.sum(x, 0), (2, 2)),
    lambda x, y: jnp.broadcast_to(x[:, :1], (2, 2)),
    lambda x, y: jnp.einsum("ij,kj->ki", x, y),
    lambda x, y: jnp.concatenate([x[1:], y[:1]]),
    lambda x, y: jnp.stack([x[:, 0], y[1]], 1),
]


def random_program(rng, values):
    """A few random operations on 2 x 2 matrices: of so few that two programs often compute the same."""
    for _ in range(5):
        x, y = (values[i] for i in rng.integers(0, len(values), 2))
        values = [*values, OPERATIONS[rng.integers(0, len(OPERATIONS))](x, y)]
    return values


def test_what_is_found_equal_has_equal_values():
    """Of all pairs among thousands of small random values, those with equal forms have equal elements."""
    graph = Graph()
    inputs = [graph.input(_jax.ShapedArray((2, 2), np.dtype("float32"))) for _ in range(2)]
    made = []
    for seed in range(600):
        made += extend(graph, lambda x, y, seed=seed: random_program(np.random.default_rng(seed), [x, y]), inputs)
    made = list(dict.fromkeys(made))
    arrays = [np.array([[1, -2], [3, 4]], "float32"), np.array([[2, 5], [-1, 3]], "float32")]  # no rounding
    values = evaluate(made, zip(inputs, arrays, strict=True))
    found, by_form = NormalForms(), {}
    for value, array in zip(made, values, strict=True):
        by_form.setdefault(found[value], []).append(array)
    for same in by_form.values():
        for array in same[1:]:
            np.testing.assert_array_equal(array, same[0])
    # Not for want of values that are equal but computed in different ways.
    assert len(made) - len(by_form) > 50


def second(f, z, outer, inner):
    """The second derivatives of f, its own axis first, in all pairs of these directions."""
    once = lambda z, b: jax.jvp(f, (z,), (b,))[1]
    twice = lambda a, b: jax.jvp(lambda z: once(z, b), (z,), (a,))[1]
    return jax.vmap(jax.vmap(twice, (None, 0), 1), (0, None), 1)(outer, inner)


SYMMETRIC = {
    "products": lambda x, y: jnp.sin(y[:, :1, None]) * x[:, None, :] * x[:, :, None],
    "sums of terms that change places": lambda x, y: x @ y + (x @ y).T,
    "products with their own transpose": lambda x, y: (x @ y) @ (x @ y).T,
    "contractions of what is symmetric": lambda x, y: jnp.einsum("ka,aij->kij", y, x[:, None, :] * x[:, :, None]),
    "second derivatives": lambda x, y: second(lambda z: y @ jnp.sin(jnp.exp(x @ z)), x[0], y, y),
    "what is the same everywhere": lambda x, y: jnp.ones((3, 3)),
}
NOT_SYMMETRIC = {
    "products of different factors": lambda x, y: x @ y.T,
    "sums of which one term is not": lambda x, y: x @ x.T + x,
    "terms that change places with other numbers": lambda x, y: x @ y + 2 * (x @ y).T,
    "arguments": lambda x, y: x,
    "repeated rows": lambda x, y: jnp.broadcast_to(x[0], (3, 3)),
    "contractions of what is not": lambda x, y: jnp.einsum("ka,aij->kij", y, x[:, None, :] * y[:, :, None]),
    "second derivatives in different directions": lambda x, y: second(lambda z: y @ jnp.sin(x @ z), x[0], x, y),
    "other axes": lambda x, y: x[:, :, None] * x[:, None, :].transpose(1, 0, 2),
}


@pytest.mark.parametrize("name", SYMMETRIC)
def test_symmetric(name):
    assert symmetric(SYMMETRIC[name])


@pytest.mark.parametrize("name", NOT_SYMMETRIC)
def test_not_symmetric(name):
    assert not symmetric(NOT_SYMMETRIC[name])


def symmetric(fn):
    """Whether the last two axes of a value are known to be alike; never, where they are not."""
    _, (value,), graph = forms(fn, shapes=((3, 3), (3, 3)))
    x, y = (np.random.default_rng(seed).normal(size=(3, 3)).astype("float32") for seed in (1, 2))
    (array,) = evaluate([value], zip(graph.inputs, (x, y), strict=True))
    known = NormalForms().symmetric(value, len(value.shape) - 2, len(value.shape) - 1)
    assert np.allclose(array, np.swapaxes(array, -1, -2)) or not known
    return known
