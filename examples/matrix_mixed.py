"""Derivatives of matrices by matrices: d(dZ/dX)/dY for Z = X X Y, in full and contracted, and of a norm.

Einstein's rule names the contraction: an axis repeated among the inputs is summed, so X[k,k] is a trace.
"""

import jax
import jax.numpy as jnp

import jaxpartials as jp


def Z(X, Y):
    return X @ X @ Y


def norm(X, Y):
    return jnp.linalg.norm(Z(X, Y))


def main():
    X, Y = jax.random.normal(jax.random.key(0), (2, 4, 4))
    eye = jnp.eye(4)

    # Z_ij = X_ia X_ac Y_cj, so that d²Z_ij / dX_kl dY_pq = δ_jq (δ_ik X_lp + X_ik δ_lp).
    full = jp.partials(Z, "Z/X Y")(X, Y)
    exact = jnp.einsum("jq,ik,lp->ijklpq", eye, eye, X) + jnp.einsum("jq,ik,lp->ijklpq", eye, X, eye)
    assert full.shape == (4,) * 6
    assert jnp.allclose(full, exact, atol=1e-5)

    # Over the trace of X, and for a column of Z by the same column of Y, this is 2 X.
    g = jp.partials(Z, "Z[i,0]/X[k,k] Y[p,0] -> i p")
    print("d(tr dZ/dX)/dY, one column:\n", g(X, Y))
    assert jnp.allclose(g(X, Y), 2 * X, atol=1e-5)

    # Second partials of |X X Y|, whole and over the trace, against nested jacrev and grad.
    wanted = {"XY": "f/X Y", "trace": "f/X[i,i] Y[k,l] -> k l", "YY": "f/Y[k,k] Y[i,j] -> i j"}
    partials = jp.partials(norm, wanted)
    values = partials(X, Y)
    print(partials.plan(X, Y))
    assert jnp.allclose(values["XY"], jax.jacrev(jax.grad(norm, 0), 1)(X, Y), atol=1e-4)
    trace = lambda argnum: lambda X, Y: jnp.trace(jax.grad(norm, argnum)(X, Y))
    assert jnp.allclose(values["trace"], jax.grad(trace(0), 1)(X, Y), atol=1e-4)
    assert jnp.allclose(values["YY"], jax.grad(trace(1), 1)(X, Y), atol=1e-4)


if __name__ == "__main__":
    main()
