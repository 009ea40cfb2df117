"""Two functions in a row: z = helper_1(params1), y = helper_2(z, params2), few parameters and many outputs.

dy/dparams1 goes through dz/dparams1. Named together they share it: helper_1's chain is in the program once,
and the zero block dz/dparams2, which nobody asked for, is not there at all.
"""

import jax
import jax.numpy as jnp

import jaxpartials as jp

T = jnp.linspace(0.0, 1.0, 500)


def helper_1(params1):
    """A damped oscillation, of which params1 are the frequency and the damping."""
    return jnp.sin(params1[0] * T) * jnp.exp(-params1[1] * T)


def helper_2(z, params2):
    """What a nonlinear sensor shows of it."""
    return jnp.tanh(params2[0] * z + params2[1])


def main_function(params1, params2):
    z = helper_1(params1)
    return z, helper_2(z, params2)


def main():
    params1, params2 = jnp.array([9.0, 1.5]), jnp.array([2.0, -0.1])
    wanted = {"z_1": "z/params1", "y_1": "y/params1", "y_2": "y/params2"}
    g = jp.partials(main_function, wanted, outputs=("z", "y"))
    blocks = g(params1, params2)
    print(g.plan(params1, params2))

    (z_1, _), (y_1, y_2) = jax.jacfwd(main_function, (0, 1))(params1, params2)
    for name, plain in [("z_1", z_1), ("y_1", y_1), ("y_2", y_2)]:
        assert jnp.allclose(blocks[name], plain, atol=1e-5), name
    program = str(jax.make_jaxpr(g)(params1, params2))
    counts = {name: program.count(f"= {name}") for name in ("sin", "exp", "tanh")}
    print("operations in the program:", counts)
    assert counts == {"sin": 1, "exp": 1, "tanh": 1}


if __name__ == "__main__":
    main()
