"""`assert_no_redundant_work`: what may be asked of it, and what it lets pass."""

from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from jaxpartials.inspection import assert_no_redundant_work

X = jax.ShapeDtypeStruct((8,), "float32")
HERE = Path(__file__)


def one_column(x, width=40):
    layer = lambda x: jnp.tanh(x @ jnp.ones((8, width)))
    return jax.jacfwd(layer)(x)[:, 0]


LINE = one_column.__code__.co_firstlineno + 1


@pytest.mark.parametrize(
    "ignore",
    [
        "asked for and thrown away",
        ["asked for and thrown away", "wrong mode"],
        HERE.name,
        str(HERE),
        f"{HERE.parent.name}/{HERE.name}",
        [f"{HERE.name}:{LINE}", f"{HERE.name}:{LINE + 1}"],
        [f"{HERE}:{LINE}", f"{HERE}:{LINE + 1}"],
    ],
)
def test_ignored(ignore):
    assert_no_redundant_work(one_column, X, ignore=ignore)


@pytest.mark.parametrize(
    "ignore", [(), "wrong mode", f"x{HERE.name}", f"other/{HERE.name}", f"{HERE.name}:{LINE + 90}", "assertion.py"]
)
def test_not_ignored(ignore):
    with pytest.raises(AssertionError, match=r"one_column does redundant work, about \d+% of the program"):
        assert_no_redundant_work(one_column, X, ignore=ignore)


def test_ignored_by_a_word_that_names_nothing():
    with pytest.raises(ValueError, match="ignore='wrongmode' is no kind of finding and no file"):
        assert_no_redundant_work(one_column, X, ignore="wrongmode")


@pytest.mark.parametrize("tolerance", [2, -1, 1.01, float("nan")])
def test_a_tolerance_is_a_part(tolerance):
    with pytest.raises(ValueError, match=r"is no part of a whole, from 0 to 1: write 0\.02 for 2 %"):
        assert_no_redundant_work(one_column, X, tolerance=tolerance)


def test_arguments_by_name():
    with pytest.raises(AssertionError, match="one_column"):
        assert_no_redundant_work(one_column, x=X, width=50)
    with pytest.raises(TypeError, match="takes a function before its arguments"):
        assert_no_redundant_work(width=50)
