"""What all tests share."""

import jax
import pytest

from jaxpartials.graph import graph

# No rule may loop, so none is stopped here before Python's own limit.
graph.DEEPEST = 10**9

# Nearly all the time goes into compiling programs that run once.
jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture
def optimised():
    """For tests of what compiled code takes."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture(autouse=True, scope="module")
def _memory():
    """Compiled programs that will not run again are freed."""
    yield
    jax.clear_caches()
