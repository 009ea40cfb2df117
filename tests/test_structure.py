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

    inputs = [arrays[i] for i in laned]
    run = jax.jit(fn)
    before = np.asarray(run(*inputs))
    lanes = before.shape[0]
    rng = np.random.default_rng(1)
    for _ in range(3):
        for b in range(lanes):
            others = []
            for i, x in zip(laned, inputs, strict=True):
                changed = np.moveaxis(np.array(x), axes[i], 0)
                changed[b] = rng.normal(size=changed[b].shape)
                others.append(np.moveaxis(changed, 0, axes[i]))
            moved = ~np.isclose(run(*others), before, rtol=1e-5, atol=1e-6, equal_nan=True)
            if np.delete(moved, b, axis=0).any():
                return "values"
    if not jnp.issubdtype(before.dtype, jnp.inexact):
        return None
    places = tuple(range(len(inputs)))
    if case.reverse:
        first = jax.jacrev(fn, places)
        weigh = lambda *x: tuple(jnp.cos(3 * j) * j for j in first(*x))
        second = lambda *x: jax.tree.leaves(jax.jacrev(lambda *x: [j for j in first(*x)], places)(*x))
        tensors = jax.jit(first)(*inputs)
        curved = None
    else:
        first = jax.jacfwd(fn, places)
        directions = tuple(jnp.asarray(rng.normal(size=x.shape), x.dtype) for x in inputs)
        tensors, curved = jax.jit(lambda *x: jax.jvp(first, x, directions))(*inputs)
    for what, found in (("first derivative", tensors), ("second derivative", curved)):
        for i, j in zip(laned, found or (), strict=False):
            j = np.moveaxis(np.asarray(j), before.ndim + axes[i], 1)
            apart = ~np.eye(lanes, dtype=bool)
            if np.nanmax(np.abs(j[apart]), initial=0) > 1e-5:
                return what
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
