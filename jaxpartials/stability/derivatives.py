"""The derivatives of a function that are checked, as functions of its leaves at one point."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxpartials import _jax
from jaxpartials.errors import StabilityError
from jaxpartials.stability.ranges import Sample, combinations

SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


class Derivative(NamedTuple):
    """∂ⁿ fn by some leaves, one after the other; of order 0 by none."""

    by: tuple[int, ...]
    name: str
    at_point: Callable[..., list[jax.Array]]  # from the leaves to all outputs
    of: Callable[[Callable], Callable[..., list[jax.Array]]]  # the same derivative of another function of the leaves
    # One element of a gradient in forward mode alone, where a sum belongs to the equation that has both terms.
    forward: Callable[[int], Callable[..., list[jax.Array]]] | None

    @property
    def order(self) -> int:
        return len(self.by)


def derivatives(fn: Callable, sample: Sample, orders: Sequence[int]) -> tuple[list[str], list[Derivative]]:
    """The names of the outputs, and what to check of each order.

    The derivative of a scalar is `jax.grad`'s. Any other one is `jax.jvp`'s, and so are the later ones and those of
    what JAX does not differentiate backwards. By an array they go along one direction; a gradient has a component for
    each of its elements.
    """
    names, value, scalar = _value(fn, sample)
    scalar = scalar and (not any(orders) or _goes_backwards(value, sample))
    found = []
    for order in orders:
        ways = combinations(sample.leaves, order) if order else [()]
        for by in ways:
            ways_there = [(leaf, direction(sample.leaves[leaf].sample[0], leaf)) for leaf in by]
            of = functools.partial(_derived, scalar, ways_there)
            forward = functools.partial(_forward, value, ways_there) if scalar and by else None
            found.append(Derivative(by, _written(by, [leaf.name for leaf in sample.leaves]), of(value), of, forward))
    return names, found


def _goes_backwards(value: Callable, sample: Sample) -> bool:
    at = [jax.ShapeDtypeStruct(leaf.shape, leaf.sample.dtype) for leaf in sample.leaves]
    real = [i for i, leaf in enumerate(sample.leaves) if leaf.real]
    try:
        jax.eval_shape(jax.grad(lambda *leaves: value(*leaves)[0], real), *at)
    except _jax.REFUSALS:
        return False
    return True


def _derived(scalar: bool, ways: Sequence[tuple[int, Any]], program: Callable) -> Callable:
    for depth, (leaf, along) in enumerate(ways):
        program = _gradient(program, leaf) if scalar and depth == 0 else _along(program, leaf, along)
    return program


def _forward(value: Callable, ways: Sequence[tuple[int, Any]], element: int) -> Callable:
    (first, like), *later = ways
    unit = np.zeros(like.size, like.dtype)
    unit[element] = 1
    program = _along(value, first, unit.reshape(like.shape))
    for leaf, along in later:
        program = _along(program, leaf, along)
    return program


def _value(fn: Callable, sample: Sample) -> tuple[list[str], Callable[..., list[jax.Array]], bool]:
    def flat(*leaves: Any) -> list[jax.Array]:
        return [jnp.asarray(y) for y in jax.tree.leaves(fn(*sample.assemble(leaves)))]

    at = [jax.ShapeDtypeStruct(leaf.shape, leaf.sample.dtype) for leaf in sample.leaves]
    shapes = jax.eval_shape(lambda *leaves: fn(*sample.assemble(leaves)), *at)
    paths = jax.tree_util.tree_leaves_with_path(shapes)
    real = [i for i, (_, y) in enumerate(paths) if jnp.issubdtype(y.dtype, jnp.floating)]
    if not real:
        got = ", ".join(str(y) for _, y in paths) or "nothing"
        raise StabilityError(
            f"check_stability() measures real floating-point results, and the function gives {got}. "
            "Return the numbers that integers or bools are made from; of complex ones the real and imaginary parts."
        )
    names = [jax.tree_util.keystr(paths[i][0]) for i in real]
    value = lambda *leaves: [flat(*leaves)[i] for i in real]
    return names, value, len(real) == 1 and paths[real[0]][1].shape == ()


def direction(at: np.ndarray[Any, Any], seed: int) -> np.ndarray[Any, Any]:
    """1 by a number; by an array, numbers of both signs, all different: equal ones would cancel."""
    rng = np.random.default_rng(seed)
    numbers = rng.choice([-1.0, 1.0], at.shape) * rng.uniform(0.5, 1.5, at.shape)
    return (numbers if at.shape else np.ones(())).astype(at.dtype)


def _gradient(program: Callable, leaf: int) -> Callable:
    return lambda *leaves: [jax.grad(lambda *xs: program(*xs)[0], argnums=leaf)(*leaves)]


def _along(program: Callable, leaf: int, along: Any) -> Callable:
    def derivative(*leaves):
        moved = lambda x: program(*leaves[:leaf], x, *leaves[leaf + 1 :])
        return jax.jvp(moved, (leaves[leaf],), (jnp.asarray(along),))[1]

    return derivative


def _written(by: Sequence[int], names: Sequence[str]) -> str:
    """As a person writes it: "∂²f/∂x∂y"."""
    if not by:
        return "f"
    power = lambda n: "" if n == 1 else str(n).translate(SUPERSCRIPTS)
    below = "".join(f"∂{names[i]}{power(by.count(i))}" for i in dict.fromkeys(by))
    return f"∂{power(len(by))}f/{below}"
