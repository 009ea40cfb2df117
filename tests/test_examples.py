"""Every example runs; each asserts its own answers."""

import importlib.util
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("optimised")

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))


def load(path):
    spec = importlib.util.spec_from_file_location(f"example_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_there_are_examples():
    assert len(EXAMPLES) >= 8


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example(path):
    module = load(path)
    assert module.__doc__
    module.main()
