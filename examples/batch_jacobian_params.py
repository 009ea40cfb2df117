"""The Jacobian of a batch of outputs by a model's parameters, with no loop over the batch and no sum.

Three cases: one shared scalar, a linear model, and each sample's own gradient of a small network, the rows
from which a Gauss-Newton or Fisher matrix is built.
"""

import jax
import jax.numpy as jnp

import jaxpartials as jp


def scale(C, x):
    return C * x


def linear(params, x):
    return x @ params["weight"].T + params["bias"]


def network(params, X):
    hidden = jnp.tanh(X @ params["hidden"]["weight"] + params["hidden"]["bias"])
    return hidden @ params["out"]


def main():
    # y = C x by C is x for every element: 0, 1, ..., 9, not their sum 45.
    by_C = jp.partials(scale, "y/C")
    print("d(C x)/dC =", by_C(-5.0, jnp.arange(10)))
    assert jnp.array_equal(by_C(-5.0, jnp.arange(10)), jnp.arange(10.0))
    assert float(jp.partials(scale, "y[b]/C ->")(-5.0, jnp.arange(10))) == 45.0  # the sum, when it is named

    # a x + b by (a, b) is (x, 1), for 1000 points at once.
    params = {"weight": jnp.array([[1.0473]]), "bias": jnp.array([0.8933])}
    x = jax.random.normal(jax.random.key(0), (1000, 1))
    jacobian = jp.partials(linear, "y/params")(params, x)
    assert jacobian["weight"].shape == (1000, 1, 1, 1)
    assert jnp.allclose(jacobian["weight"][:, 0, 0], x)
    assert jnp.allclose(jacobian["bias"], 1)

    # Each sample's gradient by all weights, and by one leaf alone.
    keys = jax.random.split(jax.random.key(1), 3)
    params = {
        "hidden": {"weight": jax.random.normal(keys[0], (3, 8)), "bias": jnp.zeros(8)},
        "out": jax.random.normal(keys[1], (8,)),
    }
    X = jax.random.normal(keys[2], (50, 3))
    rows = jp.partials(network, {"all": "y/params", "first": "y/params.hidden.weight"})
    print(rows.plan(params, X))
    blocks = rows(params, X)
    fisher = sum(
        jnp.einsum("bi,bj->ij", block.reshape(50, -1), block.reshape(50, -1)).trace()
        for block in jax.tree.leaves(blocks["all"])
    )
    one = jax.vmap(jax.grad(lambda params, x: network(params, x[None])[0]), (None, 0))(params, X)
    assert jnp.allclose(fisher, sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(one)), rtol=1e-5)
    assert jnp.allclose(blocks["first"], one["hidden"]["weight"], atol=1e-6)


if __name__ == "__main__":
    main()
