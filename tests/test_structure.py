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

    places = tuple(range(len(laned)))
    rng = np.random.default_rng(1)
    inputs = [arrays[i] for i in laned]
    directions = tuple(jnp.asarray(rng.normal(size=x.shape), x.dtype) for x in inputs)
    inexact = jnp.issubdtype(jax.eval_shape(fn, *inputs).dtype, jnp.inexact)

    def everything(*x):
        if not inexact:
            return fn(*x), (), ()
        if case.reverse:
            return fn(*x), jax.jacrev(fn, places)(*x), ()
        return fn(*x), *jax.jvp(jax.jacfwd(fn, places), x, directions)

    run = jax.jit(everything, compiler_options={"xla_backend_optimization_level": 0})
    before, *tensors = run(*inputs)
    for what, found in zip(("first derivative", "second derivative"), tensors, strict=True):
        for i, j in zip(laned, found, strict=False):
            j = np.moveaxis(np.asarray(j), before.ndim + axes[i], 1)
            if np.nanmax(np.abs(j[~np.eye(j.shape[0], dtype=bool)]), initial=0) > 1e-5:
                return what
    for _ in range(3):
        for b in range(before.shape[0]):
            others = []
            for i, x in zip(laned, inputs, strict=True):
                changed = np.moveaxis(np.array(x), axes[i], 0)
                changed[b] = rng.normal(size=changed[b].shape)
                others.append(np.moveaxis(changed, 0, axes[i]))
            moved = ~np.isclose(run(*others)[0], before, rtol=1e-5, atol=1e-6, equal_nan=True)
            if np.delete(moved, b, axis=0).any():
                return "values"
    return None


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
    conservative = {"reshape splits": None, "cond on a lane": "values"}
    seen = mixing_found(case, case.axes, case.out)
    assert seen is not None or case.name in conservative
