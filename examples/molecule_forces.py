"""Forces and vibrations of a water molecule, from its energy, its gradient and its Hessian in one call.

Two Morse bonds and a harmonic angle. Energy in kJ/mol, lengths in Å, masses in u. An energy that only knows
distances and angles feels no shift and no turn, so the forces and their torques sum to zero, the rows of the
Hessian too, and at rest six of its nine modes have no frequency.

Source of the constants: M. A. González and J. L. F. Abascal, J. Chem. Phys. 135 (2011), 224516 (TIP4P/2005f).
"""

import jax
import jax.numpy as jnp

import jaxpartials as jp

DEPTH, STEEPNESS, LENGTH = 432.581, 2.287, 0.9419
STIFFNESS, ANGLE = 367.81, jnp.deg2rad(107.4)
MASSES = jnp.array([15.9994, 1.008, 1.008])
WAVENUMBER = 53.09  # cm⁻¹ of an angular frequency of 1 sqrt(kJ / mol / u) / Å


def energy(positions):
    """The energy of the atoms O, H, H at `positions`, of shape (3, 3)."""
    bonds = positions[1:] - positions[0]
    lengths = jnp.sqrt(jnp.sum(bonds**2, axis=1))
    angle = jnp.arccos(bonds[0] @ bonds[1] / (lengths[0] * lengths[1]))
    stretch = DEPTH * jnp.sum((1 - jnp.exp(-STEEPNESS * (lengths - LENGTH))) ** 2)
    return stretch + STIFFNESS / 2 * (angle - ANGLE) ** 2


def at_rest():
    half = ANGLE / 2
    hydrogens = [[jnp.sin(half), jnp.cos(half), 0.0], [-jnp.sin(half), jnp.cos(half), 0.0]]
    return LENGTH * jnp.array([[0.0, 0.0, 0.0], *hydrogens])


def main():
    g = jp.partials(energy, {"energy": "E", "gradient": "E/positions", "hessian": "E/positions^2"})
    shaken = at_rest() + 0.1 * jax.random.normal(jax.random.key(0), (3, 3))
    print(g.plan(shaken))

    partials = g(shaken)
    forces = -partials["gradient"]
    print(f"energy {partials['energy']:.2f} kJ/mol, forces in kJ/mol/Å:\n{forces}")
    size = float(jnp.abs(forces).max())
    assert jnp.allclose(forces.sum(0), 0, atol=1e-5 * size)
    assert jnp.allclose(jnp.cross(shaken, forces).sum(0), 0, atol=1e-5 * size)
    curvature = float(jnp.abs(partials["hessian"]).max())
    assert jnp.allclose(partials["hessian"].sum(2), 0, atol=1e-5 * curvature)

    partials = g(at_rest())
    assert jnp.allclose(partials["gradient"], 0, atol=1e-2)
    root = jnp.repeat(jnp.sqrt(MASSES), 3)
    squares = jnp.linalg.eigvalsh(partials["hessian"].reshape(9, 9) / jnp.outer(root, root))
    modes = WAVENUMBER * jnp.sqrt(jnp.abs(squares))
    print("wavenumbers in cm⁻¹:", modes.round())
    assert jnp.all(modes[:6] < 30)
    # Wilson's closed form of the antisymmetric stretch, from the curvature of a bond.
    bond = 2 * DEPTH * STEEPNESS**2
    antisymmetric = WAVENUMBER * jnp.sqrt(bond * (1 / MASSES[1] + (1 - jnp.cos(ANGLE)) / MASSES[0]))
    assert jnp.allclose(modes[8], antisymmetric, rtol=1e-4)


if __name__ == "__main__":
    main()
