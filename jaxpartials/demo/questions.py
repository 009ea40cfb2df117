"""Questions that people have asked about partial derivatives, each as named partials with its known answer.

They come from four discussions of automatic differentiation: a derivative as a layer of a model, the Jacobian
of a linear model over a batch, a batch differentiated by a single parameter, and a long mixed one.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxpartials as jp


@dataclass(frozen=True)
class Question:
    """A function, the partials asked of it, and what is known of the answer.

    Attributes:
        topic: which discussion it comes from.
        asks: the question in words.
        wanted: the specs, as `partials` takes them.
        known: the answer, as a pytree like `wanted` of NumPy arrays in float64.
        formula: the answer in words.
        outputs: names for the outputs of a function that returns a tuple.
        occurrences: for operations named here, how often the whole program may contain them.
        passes: how many passes a single partial may take.
        tolerance: relative to the largest entry of the answer.
    """

    topic: str
    asks: str
    fn: Callable[..., Any]
    args: tuple[Any, ...]
    wanted: Any
    known: Any
    formula: str
    outputs: tuple[str, ...] | None = None
    occurrences: Mapping[str, int] = field(default_factory=dict)
    passes: int | None = None
    tolerance: float = 2e-6


@dataclass(frozen=True)
class Answer:
    """What `partials` gave: the values, and what is wrong with them ("" if nothing is)."""

    question: Question
    values: Any
    complaint: str


def answer(question: Question) -> Answer:
    """Compute the partials and compare them, and the program that computed them, with what is known."""
    try:
        g = jp.partials(question.fn, question.wanted, outputs=question.outputs)
        values = g(*question.args)
        complaints = [*_differences(question, values), *_extra_work(question, g)]
    except Exception as error:  # one question that fails must not hide the others
        return Answer(question, None, f"{type(error).__name__}: {error}")
    return Answer(question, values, "; ".join(complaints))


def _differences(question: Question, values: Any) -> list[str]:
    found = []
    known, structure = jax.tree.flatten(question.known)
    if jax.tree.structure(values) != structure:
        return [f"the structure is {jax.tree.structure(values)}, not {structure}"]
    for value, exact in zip(map(np.asarray, jax.tree.leaves(values)), map(np.asarray, known), strict=True):
        if value.shape != exact.shape:
            found.append(f"shape {value.shape}, not {exact.shape}")
        elif not np.allclose(value, exact, rtol=0, atol=question.tolerance * np.abs(exact).max()):
            found.append(f"off by {np.abs(value - exact).max():.2g}")
    return found


def _extra_work(question: Question, g: Any) -> list[str]:
    found = []
    program = str(jax.make_jaxpr(g)(*question.args))
    for operation, most in question.occurrences.items():
        count = len(re.findall(rf"= {operation}\b", program))
        if count > most:
            found.append(f"{operation} is computed {count} times, not {most}")
    taken = max(partial.passes for partial in g.plan(*question.args).partials)
    if question.passes is not None and taken > question.passes:
        found.append(f"{taken} passes, not {question.passes}")
    return found


def questions() -> list[Question]:
    """All of them, in the order of the discussions."""
    return [*derivative_as_layer(), *linear_model(), *single_parameter(), *tensors_and_programs()]


def derivative_as_layer() -> list[Question]:
    """The first discussion: use a partial derivative as an operation."""
    topic = "derivative as a layer"
    square = lambda x, p: (p * x) ** 2
    x, p = jnp.full(5, 3.0), jnp.full(5, 0.5)
    rng = np.random.default_rng(0)
    inner, z = rng.normal(size=(2, 7))
    return [
        Question(
            topic, "(p x)² by x, at x = 3, p = 0.5", square, (x, p),
            "f[b]/x[b] -> b", np.full(5, 1.5), "2 p² x = 1.5", passes=1,
        ),
        Question(
            topic, "and by x and p", square, (x, p), "f[b]/x[b] p[b] -> b", np.full(5, 6.0), "4 p x = 6",
        ),
        Question(
            topic, "by x, p = sin w: nothing computed for w?", lambda x, w: square(x, jnp.sin(w)),
            (x, jnp.float32(0.5)), "f[b]/x[b] -> b", np.full(5, 6 * np.sin(0.5) ** 2), "2 p² x, no cos w",
            occurrences={"cos": 0, "sin": 1}, passes=1,
        ),
        Question(
            topic, "100 + (x + 0.01 y²)² by x, for a batch", lambda x, y: 100 + (x + 0.01 * y**2) ** 2,
            (jnp.float32(inner), jnp.float32(z)), "f[b]/x[b] -> b", 2 * (inner + 0.01 * z**2),
            "2 (x + 0.01 y²)", passes=1,
        ),
    ]  # fmt: skip


def linear_model() -> list[Question]:
    """The second: a x + b, its Jacobian by the parameters, for one point and for a batch."""
    topic = "linear model"
    line = lambda x, a, b: a * x + b
    layer = lambda params, x: x @ params["weight"].T + params["bias"]
    rng = np.random.default_rng(1)
    a, b = jnp.float32([1.0473]), jnp.float32([0.8933])
    one, batch, few = rng.normal(size=1), rng.normal(size=(1000, 1)), rng.normal(size=(10, 1))
    xs, ts = rng.normal(size=100), rng.normal(size=2)
    heat = np.sin(xs)[:, None] * np.exp(-ts)
    by_parameters = {"a": "y/a", "b": "y/b"}
    return [
        Question(
            topic, "a x + b by a and b, at one point", line, (jnp.float32(one), a, b), by_parameters,
            {"a": one[:, None], "b": np.ones((1, 1))}, "(x, 1)", passes=1,
        ),
        Question(
            topic, "at a batch of 1000, in one pass", line, (jnp.float32(batch), a, b), by_parameters,
            {"a": batch[..., None], "b": np.ones((1000, 1, 1))}, "(x, 1) in each row", passes=1,
        ),
        Question(
            topic, "a linear layer by its parameters", layer,
            ({"weight": a[:, None], "bias": b}, jnp.float32(few)), "y/params",
            {"weight": few[:, :, None, None], "bias": np.ones((10, 1, 1))}, "bias: 1, weight: x",
        ),
        Question(
            topic, "u_t and u_xx of u = exp(-t) sin x",
            lambda x, t: jnp.sin(x)[:, None] * jnp.exp(-t), (jnp.float32(xs), jnp.float32(ts)),
            {"u_t": "u[i,j]/t[j] -> i j", "u_xx": "u[i,j]/x[i]^2 -> i j"}, {"u_t": -heat, "u_xx": -heat},
            "-u and -u", passes=1,
        ),
    ]  # fmt: skip


def single_parameter() -> list[Question]:
    """The third: a batch of results by one parameter."""
    topic = "a single parameter"
    scale = lambda C, x: C * x
    args = (jnp.float32(-5.0), jnp.arange(10))
    return [
        Question(
            topic, "y = C x by C, for each x", scale, args, "y/C", np.arange(10.0),
            "x = 0, 1, ..., 9", passes=1,
        ),
        Question(
            topic, "and the sum over them, if that is meant", scale, args, "y[b]/C ->", np.array(45.0), "45",
            passes=1,
        ),
    ]  # fmt: skip


def tensors_and_programs() -> list[Question]:
    """The fourth: how derivatives are computed, what is shared, tensors by tensors, pointwise values."""
    topic = "tensors and programs"
    x = jnp.array([1.0, 2.0, 3.0])
    product = lambda x: jnp.stack([x[0] * x[1] * x[2], x[1] ** 2, x[0] + x[2]])
    grid = 1 + 0.1 * np.arange(8)
    printed = [2.5000, 2.6767, 2.8564, 3.0385, 3.2226, 3.4082, 3.5953, 3.7835]
    table = np.array([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]])
    A, v = np.random.default_rng(2).normal(size=(4, 4)), np.random.default_rng(3).normal(size=4)
    return [
        Question(topic, "x² at 1: not a finite difference?", lambda x: x**2, (1.0,), "y/x",
                 np.array(2.0), "2 x = 2"),
        _helpers(topic),
        Question(topic, "sin, without its own value?", jnp.sin, (0.7,), "y/x",
                 np.array(np.cos(0.7)), "cos x, no sin x", occurrences={"sin": 0, "cos": 1}),
        *_matrices(topic),
        Question(topic, "(x0 x1 x2, x1², x0 + x2) at (1, 2, 3)", product, (x,), "f/x",
                 np.array([[6.0, 3, 2], [0, 4, 0], [1, 0, 1]]), "6 3 2; 0 4 0; 1 0 1"),
        Question(topic, "x² + √x, point by point", lambda x: x**2 + jnp.sqrt(x), (jnp.float32(grid),),
                 "f[i]/x[i] -> i", np.array(printed), "2 x + 1/(2 √x)", passes=1, tolerance=2e-5),
        Question(topic, "1/x over a table of numbers", lambda x: 1 / x, (jnp.float32(table),),
                 "f[i,j]/x[i,j] -> i j", -1 / table**2, "-1/x²", passes=1),
        Question(topic, "xᵀ A x by the vector x", lambda x: x @ jnp.float32(A) @ x, (jnp.float32(v),), "f/x",
                 (A + A.T) @ v, "A x + Aᵀ x", passes=1),
        Question(topic, "-a/b by b, at a = b = 0.5", lambda a, b: -a / b, (0.5, 0.5), "f/b",
                 np.array(2.0), "a/b² = 2"),
    ]  # fmt: skip


def _helpers(topic: str) -> Question:
    """Two functions, the second fed by the first: z = helper_1(params1), y = helper_2(z, params2)."""
    t = np.linspace(0, 1, 200)

    def main(params1, params2):
        z = jnp.sin(params1[0] * jnp.float32(t) + params1[1])
        y = params2[0] * z**2 + params2[1] * z + params2[2]
        return z, y

    params1, params2 = np.array([1.5, 0.25]), np.array([0.5, -1.0, 2.0])
    z = np.sin(1.5 * t + 0.25)
    dz = np.cos(1.5 * t + 0.25)[:, None] * np.stack([t, np.ones(200)], axis=1)
    dy = (2 * 0.5 * z - 1.0)[:, None] * dz
    return Question(
        topic, "z = h1(p1), y = h2(z, p2): dz/dp1 once?", main,
        (jnp.float32(params1), jnp.float32(params2)), ("z/params1", "y/params1", "y/params2"),
        (dz, dy, np.stack([z**2, z, np.ones(200)], axis=1)), "once: one sin, one cos",
        outputs=("z", "y"), occurrences={"sin": 1, "cos": 1},
    )  # fmt: skip


def _matrices(topic: str) -> list[Question]:
    """Z = X X Y, and the norms of a matrix and of Z; every derivative also in closed form."""
    rng = np.random.default_rng(4)
    S, T = (M + M.T for M in rng.normal(size=(2, 3, 3)))  # symmetric, as the question has it
    X, Y = rng.normal(size=(3, 3)), rng.normal(size=(3, 4))
    product = lambda X, Y: X @ X @ Y
    norm = lambda X, Y: jnp.linalg.norm(product(X, Y))

    def by_X(X):
        """d(X X)[i,c] / dX[k,l]."""
        return np.einsum("ik,lc->ickl", np.eye(3), X) + np.einsum("ik,cl->ickl", X, np.eye(3))

    full = np.einsum("iqkl,jp->ijklqp", by_X(S), np.eye(3))
    # f = |F|, F = X X Y:  f_X = F:F_X / f,  f_Y likewise,  f_XY = (F_X:F_Y + F:F_XY) / f - f_X f_Y / f
    F = X @ X @ Y
    F_X = np.einsum("ickl,cj->ijkl", by_X(X), Y)
    F_Y = np.einsum("iq,jp->ijqp", X @ X, np.eye(4))
    F_XY = np.einsum("iqkl,jp->ijklqp", by_X(X), np.eye(4))
    f = np.linalg.norm(F)
    f_X, f_Y = np.einsum("ij,ijkl->kl", F, F_X) / f, np.einsum("ij,ijqp->qp", F, F_Y) / f
    f_XY = np.einsum("ijkl,ijqp->klqp", F_X, F_Y) + np.einsum("ij,ijklqp->klqp", F, F_XY)
    f_XY = (f_XY - np.einsum("kl,qp->klqp", f_X, f_Y)) / f
    symmetric, general = (jnp.float32(S), jnp.float32(T)), (jnp.float32(X), jnp.float32(Y))
    return [
        Question(
            topic, "d(dZ/dX)/dY of Z = X X Y, in full", product, symmetric, "Z/X Y", full, "every entry",
        ),
        Question(
            topic, "over the trace of X, one column", product, symmetric,
            "Z[i,0]/X[k,k] Y[p,0] -> i p", 2 * S, "2 X",
        ),
        Question(
            topic, "|X|² by X, once and twice", lambda X: jnp.sum(X**2), (jnp.float32(X),), ("f/X", "f/X^2"),
            (2 * X, np.einsum("ik,jl->ijkl", 2 * np.eye(3), np.eye(3))), "2 X and 2 I",
        ),
        Question(
            topic, "|X X Y| by X and Y, in full", norm, general, "f/X Y", f_XY, "every entry",
            tolerance=2e-5,
        ),
        Question(
            topic, "the trace by X, then by Y", norm, general, "f/X[i,i] Y[k,l] -> k l",
            np.einsum("kkqp->qp", f_XY), "its trace", tolerance=2e-5,
        ),
    ]  # fmt: skip
