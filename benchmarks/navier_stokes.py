"""A network with outputs u, v, p: the twelve partials of the two-dimensional Navier-Stokes residual."""

import jax
import jax.numpy as jnp

import jaxpartials as jp
from benchmarks import byhand
from benchmarks.harness import Case, Target
from benchmarks.models import mlp, navier_stokes, network, points, training

OUTPUTS = {"u": 0, "v": 1, "p": 2}
INPUTS = {"t": 0, "x": 1, "y": 2}
WANTED = (
    "u", "u_t", "u_x", "u_y", "u_xx", "u_yy",
    "v", "v_t", "v_x", "v_y", "v_xx", "v_yy",
    "p_x", "p_y",
)  # fmt: skip


def navier_stokes_forward(small: bool) -> list[Case]:
    """The partials alone."""
    return [Case("navier_stokes, forward", _variants(), _args(small), "by hand", _targets(), tolerance=5e-4)]


def navier_stokes_training(small: bool) -> list[Case]:
    """Loss and gradient of a training step."""
    variants = {name: training(fn, navier_stokes) for name, fn in _variants().items()}
    return [Case("navier_stokes, training", variants, _args(small), "by hand", _targets(), tolerance=5e-4)]


def _args(small: bool) -> tuple:
    if small:
        return network(3, 5, 5, 3), points(4, 3)
    return network(3, 64, 64, 64, 64, 3), points(1024, 3)


def _targets() -> tuple[Target, ...]:
    return (
        Target("partials", "nested grad", 0.5),
        Target("partials", "jacrev and hessian", 0.5),
        Target("partials, vmap", "nested grad", 0.5),
        Target("partials, vmap", "jacrev and hessian", 0.5),
    )


def _variants():
    return {
        "by hand": byhand.flow,
        "partials": jp.partials(mlp, {name: _on_the_batch(name) for name in WANTED}),
        "partials, vmap": _over_points(jp.partials(_at, {name: _at_a_point(name) for name in WANTED})),
        "nested grad": _over_points(_nested_grad),
        "jacrev and hessian": _over_points(_jacrev_and_hessian),
    }


def _split(name: str) -> tuple[str, str]:
    """ "u_xx" -> "u", "xx" """
    output, _, wrt = name.partition("_")
    return output, wrt


def _on_the_batch(name: str) -> str:
    output, wrt = _split(name)
    value = f"w[b,{OUTPUTS[output]}]"
    if not wrt:
        return value
    return f"{value}/X[b,{INPUTS[wrt[0]]}]^{len(wrt)} -> b"


def _at_a_point(name: str) -> str:
    output, wrt = _split(name)
    return f"{output}/{wrt[0]}^{len(wrt)}" if wrt else output


def _at(params, t, x, y):
    u, v, p = mlp(params, jnp.stack([t, x, y]))
    return {"u": u, "v": v, "p": p}


def _over_points(fn):
    return lambda params, X: jax.vmap(fn, in_axes=(None, 0, 0, 0))(params, X[:, 0], X[:, 1], X[:, 2])


def _nested_grad(params, *point):
    """`jax.grad` of one component at a time, once for each letter."""

    def derivative(name):
        output, wrt = _split(name)

        def fn(*point):
            return _at(params, *point)[output]

        for letter in wrt:
            fn = jax.grad(fn, INPUTS[letter])
        return fn(*point)

    return {name: derivative(name) for name in WANTED}


def _jacrev_and_hessian(params, *point):
    """All first derivatives by one `jax.jacrev`, all second ones by one `jax.hessian`."""

    def at(X):
        return mlp(params, X)

    X = jnp.stack(point)
    value, jacobian, hessian = at(X), jax.jacrev(at)(X), jax.hessian(at)(X)

    def entry(name):
        output, wrt = _split(name)
        tensor = (value, jacobian, hessian)[len(wrt)]
        return tensor[OUTPUTS[output], *(INPUTS[letter] for letter in wrt)]

    return {name: entry(name) for name in WANTED}
