"""Fit a pendulum to its recorded angle: named derivatives of a simulation, and the whole step simplified.

The angle follows θ″ = -ω² sin θ - c θ′, stepped by the midpoint rule in a `scan`. Its sensitivities to ω and c come out
of one loop. A training step that also reports how well ω and c are determined runs that loop three times as it is
written, and once after `simplify`, beside the backward pass of the gradient.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxpartials as jp

STEP, COUNT, NOISE = 0.05, 200, 0.02


def angle(omega, c, start):
    """θ at the times STEP, 2 STEP, ..., released from rest at `start`."""

    def acceleration(theta, speed):
        return -(omega**2) * jnp.sin(theta) - c * speed

    def turn(state, _):
        theta, speed = state
        half = theta + 0.5 * STEP * speed, speed + 0.5 * STEP * acceleration(theta, speed)
        state = theta + STEP * half[1], speed + STEP * acceleration(*half)
        return state, state[0]

    return jax.lax.scan(turn, (start, jnp.zeros_like(start)), length=COUNT)[1]


WANTED = {"theta": "theta", "by_omega": "theta/omega", "by_c": "theta/c", "by_both": "theta/omega c"}
sensitivities = jp.partials(angle, WANTED)
optimizer = optax.adam(3e-2)


def loss(params, recorded):
    return jnp.mean((angle(params["omega"], params["c"], 1.0) - recorded) ** 2)


def deviations(params):
    """The standard deviations of ω and c, from the Fisher information JᵀJ / NOISE²."""
    along = lambda name: jax.jvp(lambda p: angle(**{**params, name: p}, start=1.0), (params[name],), (1.0,))[1]
    J = jnp.stack([along("omega"), along("c")], axis=1)
    return NOISE * jnp.sqrt(jnp.diag(jnp.linalg.inv(J.T @ J)))


def step(params, state, recorded):
    value, gradient = jax.value_and_grad(loss)(params, recorded)
    updates, state = optimizer.update(gradient, state, params)
    return optax.apply_updates(params, updates), state, {"loss": value, "deviations": deviations(params)}


def main(steps=300):
    plan = sensitivities.plan(2.0, 0.1, 1.0)
    print(f"{len(WANTED)} named derivatives in {[n.name for n in plan.graph.nodes].count('scan')} loop")
    assert [n.name for n in plan.graph.nodes].count("scan") == 1
    found = sensitivities(2.0, 0.1, 1.0)["by_omega"]
    differences = (angle(2.002, 0.1, 1.0) - angle(1.998, 0.1, 1.0)) / 0.004
    np.testing.assert_allclose(found, differences, atol=5e-3)

    recorded = angle(2.0, 0.1, 1.0) + NOISE * jax.random.normal(jax.random.key(0), (COUNT,))
    params = {"omega": jnp.float32(1.8), "c": jnp.float32(0.3)}
    state = optimizer.init(params)
    fast = jp.simplify(step)
    print(fast.stats(params, state, recorded))
    for _ in range(steps):
        params, state, report = fast(params, state, recorded)
    for name, exact, deviation in zip(("omega", "c"), (2.0, 0.1), report["deviations"], strict=True):
        print(f"{name} = {params[name]:.4f} ± {deviation:.4f}")
        assert abs(params[name] - exact) < 4 * deviation
    jax.tree.map(
        lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5),
        jax.jit(step)(params, state, recorded),
        fast(params, state, recorded),
    )


if __name__ == "__main__":
    main()
