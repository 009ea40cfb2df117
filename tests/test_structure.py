"""Lanes and linearity against brute force: dense Jacobians, and values with one lane perturbed."""

import inspect
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from structure_cases import APART, MIXING, Case

from jaxpartials.graph.trace import trace
from jaxpartials.structure.axes import independent

ids = lambda case: case.name


def arrays_of(case: Case) -> list[np.ndarray]:
    rng = np.random.default_rng(zlib.crc32(case.name.encode()))
    return [rng.normal(size=shape).astype(np.float32) for shape in case.shapes]


def answer(case: Case, order: int):
    graph, _ = trace(case.fn, *arrays_of(case))
    inputs = [(graph.inputs[i], axis) for i, axis in case.axes.items()]
    return independent(graph.outputs[0], case.out, inputs, order)


# ---- the oracle


def mixing_found(case: Case, axes: dict[int, int], out: int) -> str | None:
    """How the lanes are seen to mix: in the values, in the Jacobian, or in a derivative of the Jacobian."""
    arrays = [jnp.asarray(a) for a in arrays_of(case)]
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


@pytest.mark.parametrize("case", [c for c in MIXING if c.mixed_by != "pure_callback"], ids=ids)
def test_the_oracle_sees_the_mixing(case):
    assert mixing_found(case, case.axes, case.out) is not None
