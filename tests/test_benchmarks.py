"""The benchmarks' own checks, at tiny sizes: that the variants agree and the counts are right. Nothing is timed."""

import dataclasses
import json
import time
from functools import partial

import jax
import jax.numpy as jnp
import pytest
from rich.console import Console

from benchmarks import hlo
from benchmarks.__main__ import CASES, draw, main
from benchmarks.harness import (
    Absent,
    Case,
    Result,
    Target,
    WrongValues,
    compiled,
    count_equations,
    show,
    take_turns,
    verdict,
)

pytestmark = pytest.mark.usefixtures("optimised")


@pytest.fixture
def console():
    return Console(record=True, width=110, color_system=None)


@pytest.mark.skipif(jax.__version_info__ < (0, 11), reason="performance is measured on the newest JAX")
@pytest.mark.parametrize("name", CASES)
def test_all_variants_give_the_same_values(name, console):
    with jax.enable_x64(True):
        for case in CASES[name](True):
            if isinstance(case, Case):
                case = dataclasses.replace(case, tolerance=1e-9)
            assert case.compare(console).case == case.name


def planted(wrong):
    return Case("planted", {"right": lambda x: {"y": 2 * x}, "wrong": wrong}, (jnp.arange(3.0),), "right")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda x: {"y": 2 * x + jnp.array([0.0, 0.01, 0.0])}, "'wrong' differs from 'right' by 0.0025 .*'y'"),
        (lambda x: {"y": x / jnp.array([1.0, 0.5, 0.0]) * 0}, "by nan"),
        (lambda x: {"y": 2 * x[:2]}, r"shape \(2,\), the reference's \(3,\)"),
        (lambda x: 2 * x, "PyTreeDef"),
    ],
)
def test_a_wrong_variant_is_found(wrong, message, console):
    with pytest.raises(WrongValues, match=message):
        planted(wrong).compare(console)
    with pytest.raises(WrongValues, match=message):
        planted(wrong).measure(1, console)


def test_variants_that_differ_for_one_reason_are_compared_with_each_other(console):
    variants = {"right": lambda x: x, "other": lambda x: -x, "another": lambda x: -x}
    case = Case("signs", variants, (jnp.arange(3.0),), "right", differs={"other": "sign", "another": "sign"})
    case.compare(console)
    with pytest.raises(WrongValues, match="'another' differs from 'right'"):
        dataclasses.replace(case, differs={"other": "sign"}).compare(console)
    with pytest.raises(WrongValues, match="'third' differs from 'other'"):
        dataclasses.replace(
            case, variants=variants | {"third": lambda x: -2 * x}, differs=case.differs | {"third": "sign"}
        ).compare(console)


def test_flops_count_a_loop_body_as_often_as_it_runs():
    def seven_products(x, W):
        return jax.lax.scan(lambda h, _: (h @ W, None), x, length=7)[0]

    prepared = compiled(seven_products, (jnp.ones((3, 5)), jnp.ones((5, 5))))
    assert prepared.flops == 7 * 2 * 3 * 5 * 5


def test_flops_agree_with_xla_where_there_is_no_loop():
    def fn(x, W):
        return (jnp.tanh(x @ W) * 3 + 1).sum(0)

    executable = jax.jit(fn).lower(jnp.ones((3, 5)), jnp.ones((5, 7))).compile()
    assert hlo.flops(executable.as_text()) == 2 * 3 * 5 * 7 + 3 * 7 * 4  # tanh, *, +, sum
    analysis = executable.cost_analysis()
    # XLA counts tanh apart, and one addition less in a sum of three.
    assert analysis["flops"] + analysis["transcendentals"] == 2 * 3 * 5 * 7 + 3 * 7 * 4 - 7


def test_flops_are_unknown_for_a_loop_of_unknown_length():
    def fn(x):
        return jax.lax.while_loop(lambda x: x.sum() < 9, lambda x: 2 * x, x)

    assert compiled(fn, (jnp.ones(3),)).flops is None


def test_opcodes_look_into_fusions_and_loops():
    def fn(x):
        return jax.lax.fori_loop(0, 4, lambda _, x: jnp.tanh(x) * 2, x)

    counted = hlo.opcodes(jax.jit(fn).lower(jnp.ones(3)).compile().as_text())
    assert (counted["tanh"], counted["while"]) == (4, 1)


def test_equations_of_inner_programs_are_counted():
    def fn(x):
        y = jax.jit(lambda x: jnp.sin(x) * 2)(x)
        return jax.lax.scan(lambda c, _: (jnp.cos(c) + 1, None), y, length=3)[0]

    assert count_equations(jax.make_jaxpr(fn)(1.0)) == 4


def test_every_variant_takes_its_turn_in_every_round_in_any_order():
    turns = []

    def run(name):
        turns.append(name)
        time.sleep(0.006)  # longer than a sample: one timed run in each round, after the one that is not

    seconds = take_turns({name: partial(run, name) for name in "abc"}, 8)
    assert {name: len(column) for name, column in seconds.items()} == {"a": 8, "b": 8, "c": 8}
    assert min(min(column) for column in seconds.values()) >= 0.006
    pairs = turns[9:]  # after three runs each that find how often to repeat
    assert pairs[::2] == pairs[1::2]
    rounds = [tuple(pairs[i : i + 6 : 2]) for i in range(0, len(pairs), 6)]
    assert all(sorted(turn) == ["a", "b", "c"] for turn in rounds)
    assert len(set(rounds)) > 2


def test_a_measured_case_shows_its_ratios_and_targets(console):
    variants = {"one": lambda x: x + x, "two": lambda x: 2 * x}
    targets = Target("two", "one", 1e9), Target("one", "two", 1e-9)
    result = Case("sums", variants, (jnp.arange(3.0),), "one", targets).measure(3, console)
    assert result.rows["one"]["ratio"] == 1.0
    assert result.rows["two"]["equations"] == 1
    assert [target["met"] for target in result.targets] == [True, False]
    show(result, console)
    text = console.export_text()
    for piece in ("1.00 ± 0.00", "two / one = ", ": met", ": missed"):
        assert piece in text


def test_an_absent_case_says_why(console):
    show(Absent("torch", "torch is not installed").measure(3, console), console)
    assert "torch is not installed" in console.export_text()


def test_the_list_names_every_case(capsys):
    assert main(["--list"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in CASES)


def test_an_unknown_case_is_refused(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["pinn_backward"])
    assert "no case pinn_backward; there are pinn_forward" in capsys.readouterr().err


def test_a_smoke_run_writes_json(tmp_path, capsys):
    path = tmp_path / "out.json"
    assert main(["diagonal_blocks", "--smoke", "--json", str(path)]) == 0
    document = json.loads(path.read_text())
    assert document["environment"]["versions"]["jax"] == jax.__version__
    names = [case["case"] for case in document["cases"]]
    assert names == ["diagonal_blocks, 4 steps", "diagonal_blocks, 10 steps in a scan"]
    assert "failed" not in capsys.readouterr().out


def test_a_failing_case_fails_the_run(monkeypatch, capsys):
    monkeypatch.setitem(CASES, "loops", lambda small: [planted(lambda x: {"y": x})])
    assert main(["loops", "per_sample_gradients", "--smoke"]) == 1
    printed = capsys.readouterr().out
    assert "planted failed" in printed
    assert "per_sample_gradients\n" in printed


def test_the_picture_is_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    row = {"ratio": 1.2, "spread": 0.1}
    timed = Result("case", ("ratio",), {"by hand": row | {"ratio": 1.0}, "partials": row})
    untimed = Result("compile_cost", ("equations",), {"order 1": {"equations": 3}}, (verdict("n", 3, 4),))
    assert "no picture" in draw([untimed], str(tmp_path / "ratios.png"))
    assert not (tmp_path / "ratios.png").exists()
    assert "ratios.png" in draw([timed, untimed], str(tmp_path / "ratios.png"))
    assert (tmp_path / "ratios.png").read_bytes().startswith(b"\x89PNG")
