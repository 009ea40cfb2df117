"""Arrays that are made by counting have with NumPy the numbers that they have with JAX."""

import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxpartials.graph.graph import Graph
from jaxpartials.graph.trace import extend
from jaxpartials.rewrite.identities import is_identity
from jaxpartials.structure.numbers import numbers

COUNTED = {
    "eye": lambda: jnp.eye(4),
    "eye, wide": lambda: jnp.eye(3, 5, k=1),
    "eye by comparison": lambda: (jnp.arange(4)[:, None] == jnp.arange(4)).astype("float32"),
    "eye in bfloat16": lambda: jnp.eye(3, dtype="bfloat16"),
    "eye, complex": lambda: jnp.eye(3, dtype="complex64"),
    "tri": lambda: jnp.tri(4, 3),
    "ones": lambda: jnp.ones((3, 3)),
    "steps": lambda: jnp.arange(2, 11, 3) * -2.5 + 1,
    "division of integers": lambda: lax.div(jnp.arange(-5, 6), 3),
    "remainders": lambda: lax.rem(jnp.arange(-5, 6), 3),
    "overflow": lambda: jnp.arange(4, dtype="int8") * jnp.int8(100),
    "moved": lambda: jnp.concatenate([jnp.arange(6).reshape(2, 3).T[::-1], jnp.zeros((3, 1), int)], 1)[1:, ::2],
    "chosen": lambda: jnp.where(jnp.arange(6) % 2 == 0, jnp.arange(6), -1),
    "clipped": lambda: jnp.clip(jnp.arange(6), 1, 4),
    "logic": lambda: ~(jnp.arange(5) > 2) & (jnp.arange(5) != 1),
    "an array": lambda: jnp.asarray(np.array([3.0, 1.0], "float32")) * 2,
}


@pytest.mark.parametrize("name", COUNTED)
def test_numbers(name):
    graph = Graph()
    value = extend(graph, COUNTED[name], [])
    found, expected = numbers(value), COUNTED[name]()
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)
    assert is_identity(value) == name.startswith("eye") * ("wide" not in name)
