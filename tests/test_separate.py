"""Gradients of each lane from one reverse pass: what must not be taken for a lane."""

import jax
import jax.numpy as jnp
import numpy as np

import jaxpartials as jp

RNG = np.random.default_rng(0)


def test_lanes_that_come_several_times_over_are_not_summed_as_one():
    """Resizing repeats the two lanes along an axis of four."""
    x, y = RNG.normal(size=(4, 4)), RNG.normal(size=(2, 3, 2))

    def fn(x, y):
        z = jnp.einsum("ij,kj->ik", x, jnp.resize(y, (4, 4)))
        return (jnp.roll(z, 1, 1) * z).ravel()[:5]

    g = jp.partials(fn, "q/y^2")
    with jax.enable_x64(True):
        np.testing.assert_allclose(g(x, y), jax.jacfwd(jax.jacrev(fn, 1), 1)(x, y), rtol=1e-9, atol=1e-9)
        assert not any("mode: " in note for note in g.plan(x, y).partials[0].notes)
