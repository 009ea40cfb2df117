"""`python -m jaxpartials plan`: what it prints, and what it says of a command line that asks for the impossible."""

import re
import sys

import pytest

from jaxpartials.__main__ import main

HEAT = """
import dataclasses
from helper import square

@dataclasses.dataclass
class Rod:
    length: "float" = 1.0

def u(t, x):
    return t * square(x)

def both(t, x):
    return t * x, t + x

def broken(t):
    return t.nothing

class model:
    apply = staticmethod(u)

number = 3
"""


@pytest.fixture
def heat(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "helper", raising=False)
    (tmp_path / "helper.py").write_text("def square(x):\n    return x * x\n")
    (tmp_path / "fails.py").write_text("import jax\nraise RuntimeError('not today')\n")
    path = tmp_path / "heat.py"
    path.write_text(HEAT)
    yield str(path)
    sys.modules.pop("plan_target", None)
    sys.modules.pop("helper", None)


@pytest.mark.parametrize(
    "call",
    [
        ["u", "u/t", "u/x^2", "--args", "2.0, x=jnp.float32(3)"],
        ["model.apply", "u/t", "u/x^2", "--args", "*jnp.ones(2), "],
        ["u", "u[b]/t[b] -> b", "u[b]/x[b]^2 -> b", "--args", "t=jax.ShapeDtypeStruct((8,), 'f4'), x=np.ones(8)"],
        ["both", "z/t", "y/x", "--args", "2.0, 3.0", "--outputs", "z, y"],
    ],
)
def test_plan_prints_every_spec(heat, call, capsys):
    assert main(["plan", f"{heat}:{call[0]}", *call[1:]]) == 0
    printed = capsys.readouterr().out
    for spec in call[1 : call.index("--args")]:
        assert spec in printed
    assert "total:" in printed


@pytest.mark.parametrize(
    ("target", "rest", "status", "message"),
    [
        ("{}:u", ["u/q", "--args", "2.0, 3.0"], 2, "q"),
        ("{}:u", ["u/x", "--args", "2.0, 3"], 1, "integer|float"),
        ("{}", ["u/x"], 2, "names no function; write FILE.py:FUNCTION"),
        ("none.py:u", ["u/x"], 2, "there is no file 'none.py'"),
        ("{}:v", ["u/x"], 2, "defines no 'v'"),
        ("{}:number", ["u/x"], 2, "'number' in .* is no function, but int"),
        ("{}:u", ["u/x", "--args", "2.0, ("], 2, "cannot be evaluated: SyntaxError"),
        ("{}:u", ["u/x", "--args", "nobody"], 2, "cannot be evaluated: NameError: name 'nobody'"),
        ("{}:u", ["u/x", "--args", "2.0"], 2, "cannot be traced .* TypeError: .*missing a required argument"),
        ("{}:broken", ["y/t", "--args", "2.0"], 2, "cannot be traced .* AttributeError"),
    ],
)
def test_plan_of_something_impossible(heat, target, rest, status, message, capsys):
    assert main(["plan", target.format(heat), *rest]) == status
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("jaxpartials: ")
    assert re.search(message, captured.err)


def test_plan_of_a_file_that_fails(heat, capsys):
    assert main(["plan", heat.replace("heat.py", "fails.py:u"), "u/x"]) == 2
    assert "cannot be run: RuntimeError: not today" in capsys.readouterr().err
