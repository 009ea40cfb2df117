"""`report` and `plan` on the command line: what they print, and what they say of what is impossible."""

import re
import sys
from pathlib import Path

import jax.numpy as jnp
import pytest

import jaxpartials as jp
from jaxpartials.__main__ import main

HEAT = """
import dataclasses
import jax
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

def constant():
    return jax.numpy.ones(3)

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
    sys.modules.pop("command_target", None)
    sys.modules.pop("helper", None)


def test_a_module_of_a_package(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "path", [*sys.path])
    folder = tmp_path / "some_package" / "inner"
    folder.mkdir(parents=True)
    for place in (folder, folder.parent):
        (place / "__init__.py").write_text("")
    (folder.parent / "parts.py").write_text("def square(x):\n    return x * x\n")
    (folder / "model.py").write_text("from ..parts import square\ndef u(x):\n    return square(x)\n")
    (folder / "other.py").write_text("from ..nothing import square\n")
    assert main(["plan", f"{folder / 'model.py'}:u", "u/x", "--args", "2.0"]) == 0
    assert "total:" in capsys.readouterr().out
    assert main(["plan", f"{folder / 'other.py'}:u", "u/x", "--args", "2.0"]) == 2
    assert "No module named 'some_package.nothing'" in capsys.readouterr().err


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
        ("{}:broken", ["y/t", "--args", "2.0"], 2, r"cannot be traced .* AttributeError.* \(heat.py:17\)$"),
        ("{}:u", ["u/x"], 2, "arguments of u are not known; write --args EXPR, .* or define example_args"),
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
    assert capsys.readouterr().err.endswith("cannot be run: RuntimeError: not today (fails.py:2)\n")


# ---- report

MODEL = """
import jax
import jax.numpy as jnp

def layer(x, w):
    return jnp.tanh(x @ w)

def twice(x, w):
    return jnp.sum(layer(x, w)) * layer(x, w)

class Net:
    @staticmethod
    def equal(x, w):
        def turn(c, _):
            return (layer(c[0], w), layer(c[1], w)), None
        return jax.lax.scan(turn, (x, x), None, 9)[0]

def misfit(x, w):
    return w @ layer(x, w)

def example_args():
    return jax.ShapeDtypeStruct((6, 20), "float32"), jnp.ones((20, 20))
"""


@pytest.fixture
def model(heat):
    path = Path(heat).with_name("model.py")
    path.write_text(MODEL)
    return str(path)


def test_report_prints_the_findings_and_writes_the_page(model, capsys, tmp_path):
    page = tmp_path / "report.html"
    assert main(["report", f"{model}:Net.equal", "--html", str(page)]) == 0
    captured = capsys.readouterr()
    assert re.search(r"1 +carries always equal +model.py:\d+ ", captured.out)
    assert captured.out.splitlines()[-1].startswith("traced ")
    assert captured.err == ""
    assert "carries always equal" in page.read_text()


@pytest.mark.parametrize(
    ("call", "status"),
    [
        (["Net.equal"], 1),
        (["Net.equal", "--args", "jnp.ones((4, 8)), w=np.ones((8, 8), 'f4')"], 1),
        (["layer"], 0),
        (["twice"], 0),  # half of its work, but XLA removes it
    ],
)
def test_report_fails_over_a_part_of_the_work(model, call, status, capsys, optimised):
    assert main(["report", f"{model}:{call[0]}", *call[1:], "--fail-over", "2"]) == status
    captured = capsys.readouterr()
    assert captured.err == "jaxpartials: 1 finding is over 2% of the work and not removed by XLA\n" * status
    assert main(["report", f"{model}:{call[0]}", *call[1:], "--fail-over", "60%"]) == 0
    assert capsys.readouterr() == (captured.out, "")


def test_report_counts_for_the_given_arguments(model, capsys, optimised):
    assert main(["report", f"{model}:layer", "--args", "jnp.ones((5, 7)), jnp.ones((7, 11))"]) == 0
    expected = str(jp.report(lambda x, w: jnp.tanh(x @ w))(jnp.ones((5, 7)), jnp.ones((7, 11))))
    assert capsys.readouterr().out.splitlines()[-1] == expected.splitlines()[-1]


@pytest.mark.parametrize("example", ["(3.0, jnp.ones(2))", "lambda: (3.0, jnp.ones(2))", "jnp.ones(5)"])
def test_example_arguments(heat, example, tmp_path, capsys):
    path = tmp_path / "example.py"
    path.write_text(f"import jax.numpy as jnp\ndef f(*args):\n    return jnp.sin(args[-1])\nexample_args = {example}\n")
    assert main(["report", f"{path}:f"]) == 0
    size = 5 if "5" in example else 2
    assert f"traced {size} operations" in capsys.readouterr().out


def test_a_function_without_arguments_needs_none(heat, capsys):
    assert main(["report", f"{heat}:constant"]) == 0
    assert "nothing found" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("target", "rest", "message"),
    [
        ("none.py:u", [], "there is no file 'none.py'"),
        ("{}:nobody", [], "defines no 'nobody'"),
        ("{}", [], "names no function; write FILE.py:FUNCTION"),
        (
            "{}:layer",
            ["--args", "jnp.ones((6, 20))"],
            r"TypeError: layer\(x, w\): missing a required .* 'w'",
        ),
        ("{}:misfit", [], r"misfit cannot be traced with its example_args: TypeError: .* \(model.py:19\)$"),
        ("{}:layer", ["--html", "no/such/folder.html"], "--html no/such/folder.html: there is no folder no/such"),
        ("{}:layer", ["--html", "."], "--html .: Is a directory"),
    ],
)
def test_report_on_something_impossible(model, target, rest, message, capsys):
    assert main(["report", target.format(model), *rest]) == 2
    said = capsys.readouterr().err
    assert said.startswith("jaxpartials: ")
    assert re.search(message, said)
    assert len(said.splitlines()) == 1


def test_example_arguments_that_fail(model, capsys):
    path = Path(model)
    path.write_text(path.read_text().replace('"float32"), ', '"float32").nothing, '))
    assert main(["report", f"{model}:layer"]) == 2
    assert re.search(r"example_args\(\) in .* fails: AttributeError: .* \(model.py:22\)", capsys.readouterr().err)


@pytest.mark.parametrize("part", ["-1", "101", "much", "nan"])
def test_what_is_no_percentage(model, part, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["report", f"{model}:layer", "--fail-over", part])
    assert "is not a percentage from 0 to 100" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["report", "plan"])
def test_help_has_an_example(command, capsys):
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    assert f"example:\n  python -m jaxpartials {command} " in capsys.readouterr().out
