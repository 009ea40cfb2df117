"""The demonstration: known answers, the exact solution, short trainings, Ctrl-C, what its command says and returns."""

import dataclasses
import math
import re
import signal
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import dense
from rich.console import Console
from scipy.integrate import quad

from jaxpartials import demo
from jaxpartials.__main__ import main
from jaxpartials.demo import burgers
from jaxpartials.demo.interrupt import Interrupt
from jaxpartials.demo.questions import Question, answer, questions

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("optimised")]

TINY = {"seconds": 600.0, "points": 32, "width": 6, "depth": 2, "seed": 3}


# ---- questions


@pytest.mark.parametrize("question", questions(), ids=lambda question: question.asks)
def test_question_is_answered(question):
    assert answer(question).complaint == ""


@pytest.mark.parametrize("question", questions(), ids=lambda question: question.asks)
def test_known_answer_is_what_dense_jacobians_say(question):
    values = dense(question.fn, question.wanted, outputs=question.outputs)(*question.args)
    jax.tree.map(
        lambda value, known: np.testing.assert_allclose(
            value, known, rtol=0, atol=5 * question.tolerance * np.abs(known).max()
        ),
        values,
        question.known,
    )


SQUARE = Question("topic", "asks", lambda x: jnp.sin(x) ** 2, (0.5,), "y/x", math.sin(1.0), "sin 2x")


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({}, ""),
        ({"known": 0.8}, "off by 0.041"),
        ({"known": np.array([math.sin(1.0)])}, r"shape \(\), not \(1,\)"),
        ({"known": (math.sin(1.0),)}, "the structure is .*"),
        ({"occurrences": {"sin": 0}}, "sin is computed 1 times, not 0"),
        ({"passes": 0}, "1 passes, not 0"),
        ({"wanted": "y/z"}, "NotationError: .*"),
    ],
)
def test_a_wrong_answer_is_a_complaint(changes, complaint):
    assert re.fullmatch(complaint, answer(dataclasses.replace(SQUARE, **changes)).complaint, re.DOTALL)


def test_table_counts_what_is_right(capsys):
    wrong = answer(dataclasses.replace(SQUARE, known=0.0))
    assert not demo.show_questions(Console(width=110), [answer(SQUARE), wrong])
    out = capsys.readouterr().out
    assert "1 of 2 right" in out
    assert "wrong: off by 0.84" in out


# ---- the exact solution


@pytest.mark.parametrize(("t", "x"), [(0.05, 0.3), (0.4, -0.02), (0.75, 0.9), (1.0, 0.004)])
def test_cole_hopf_quadrature_agrees_with_adaptive_quadrature(t, x):
    nu = burgers.VISCOSITY
    lowest = -1 / (2 * math.pi * nu)

    def integral(weight):
        density = lambda y: math.exp(lowest - math.cos(math.pi * y) / (2 * math.pi * nu) - (x - y) ** 2 / (4 * nu * t))
        middle = np.linspace(x - 2, x + 2, 41)
        return quad(lambda y: weight(y) * density(y), x - 2, x + 2, points=middle, limit=400)[0]

    exact = -integral(lambda y: math.sin(math.pi * y)) / integral(lambda y: 1.0)
    assert burgers.reference(t, x) == pytest.approx(exact, abs=1e-8)


def test_cole_hopf_solves_burgers_with_its_conditions():
    x = np.linspace(-1, 1, 9)
    np.testing.assert_allclose(burgers.reference(0.0, x), -np.sin(np.pi * x), atol=1e-14)
    np.testing.assert_allclose(burgers.reference([0.3, 0.9], 1.0), 0, atol=1e-12)
    t, x, h = 0.6, np.array([-0.7, -0.2, 0.05, 0.5]), 1e-4
    at = lambda dt, dx: burgers.reference(t + dt * h, x + dx * h)
    u_t, u_x = (at(1, 0) - at(-1, 0)) / (2 * h), (at(0, 1) - at(0, -1)) / (2 * h)
    u_xx = (at(0, 1) - 2 * at(0, 0) + at(0, -1)) / h**2
    np.testing.assert_allclose(u_t + at(0, 0) * u_x, burgers.VISCOSITY * u_xx, atol=1e-4)


# ---- the network


def test_network_meets_the_initial_and_boundary_values():
    params = burgers.init(jax.random.key(1), width=5, depth=2)
    s = np.linspace(-1, 1, 7)
    at = lambda t, x: burgers.u(params, jnp.stack(jnp.broadcast_arrays(jnp.float32(t), jnp.float32(x)), axis=1))
    np.testing.assert_allclose(at(0.0, s), -np.sin(np.pi * s), atol=1e-6)
    np.testing.assert_allclose(at(np.abs(s), 1.0), 0, atol=1e-6)
    np.testing.assert_allclose(at(np.abs(s), -1.0), 0, atol=1e-6)


def test_residual_is_that_of_nested_jvps():
    params = burgers.init(jax.random.key(2), width=5, depth=2)
    X = jax.random.uniform(jax.random.key(3), (11, 2))
    u = lambda t, x: burgers.u(params, jnp.stack([t, x])[None])[0]
    u_x = jax.grad(u, 1)

    def residual(point):
        t, x = point
        plain = jax.grad(u)(t, x) + u(t, x) * u_x(t, x) - burgers.VISCOSITY * jax.grad(u_x, 1)(t, x)
        return plain / (1 + 0.1 * abs(u_x(t, x)))

    np.testing.assert_allclose(burgers.weighted_residual(params, X), jax.jit(jax.vmap(residual))(X), atol=1e-5)


def test_drawn_points_lie_in_the_domain_and_prefer_large_residuals():
    params = burgers.init(jax.random.key(4), width=5, depth=2)
    X = burgers.draw(jax.random.key(5), params, 400)
    assert X.shape == (400, 2)
    assert len(np.unique(X, axis=0)) == 400
    assert X[:, 0].min() >= 0
    assert X[:, 1].min() >= -1
    assert X.max() <= 1
    uniform = jax.random.uniform(jax.random.key(6), (4000, 2)) * jnp.array([1, 2]) - jnp.array([0, 1])
    mean = lambda points: float(jnp.mean(jnp.abs(burgers.weighted_residual(params, points))))
    assert mean(X) > 1.1 * mean(uniform)


def test_training_lowers_the_loss_and_the_error():
    reports = []
    training = burgers.train(steps=130, on_progress=lambda t: reports.append(t.steps), **TINY)
    assert training.ended == "steps"
    assert training.steps == 130
    assert reports == [20, 40, 60, 80, 100, 120, 130]
    assert training.losses[-1] < 0.5 * training.losses[0]
    start = burgers.train(steps=0, **TINY)
    assert start.losses == []
    before, after = (burgers.compare(run.params, 11, 33).relative_error for run in (start, training))
    assert after < 0.8 * before


def test_training_is_reproducible():
    first, second = (burgers.train(steps=40, **TINY) for _ in range(2))
    assert first.losses == second.losses


def test_training_stops_when_the_time_is_over():
    training = burgers.train(steps=10**6, **{**TINY, "seconds": 0.2})
    assert training.ended == "seconds"
    assert 0 < training.steps < 10**6


def test_rate_falls_to_the_end_of_what_fits():
    low, high = 0.02 * burgers.RATE, burgers.RATE
    assert burgers.rate(0, 1000, 100.0, 0.0) == pytest.approx(high)
    assert burgers.rate(1000, 1000, 100.0, 0.01) == pytest.approx(low)
    # 500 steps made and no time for more than 20 others: nearly at the end.
    assert burgers.rate(500, 1000, 0.1, 0.01) < 1.5 * low
    assert burgers.rate(500, 1000, 100.0, 0.01) == pytest.approx((low + high) / 2)


# ---- Ctrl-C


def test_first_interrupt_is_noted_and_second_interrupts(capfd):
    before = signal.getsignal(signal.SIGINT)
    with Interrupt() as stop:
        assert not stop.requested
        signal.raise_signal(signal.SIGINT)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
    assert "Ctrl-C again" in capfd.readouterr().err


@pytest.fixture
def one_question(monkeypatch):
    monkeypatch.setattr(demo, "questions", lambda: [SQUARE])


ARGUMENTS = ["demo", "--points", "32", "--width", "6", "--depth", "2"]


def interrupt_at(monkeypatch, steps):
    train = burgers.train

    def interrupted(*, on_progress, **options):
        def report(training):
            on_progress(training)
            if training.steps == steps:
                signal.raise_signal(signal.SIGINT)

        return train(on_progress=report, **options)

    monkeypatch.setattr(burgers, "train", interrupted)


@pytest.mark.usefixtures("one_question")
def test_interrupted_training_goes_on_with_what_there_is(monkeypatch, tmp_path, capsys):
    interrupt_at(monkeypatch, 40)
    out = tmp_path / "demo.png"
    assert main([*ARGUMENTS, "--steps", "1000", "--out", str(out)]) == 130
    printed = capsys.readouterr().out
    assert "interrupted; going on with what there is: 40 steps" in printed
    assert "relative L2 error" in printed
    assert out.read_bytes().startswith(b"\x89PNG")


def test_interrupted_questions_show_what_was_answered(monkeypatch, capsys):
    interrupting = dataclasses.replace(SQUARE, fn=lambda x: signal.raise_signal(signal.SIGINT) or x)
    monkeypatch.setattr(demo, "questions", lambda: [SQUARE, interrupting, SQUARE])
    assert main([*ARGUMENTS, "--quick"]) == 130
    printed = capsys.readouterr().out
    assert "1 of 2 right" in printed
    assert "training" not in printed


# ---- the command


@pytest.mark.usefixtures("one_question")
def test_quick_demo_prints_plan_and_error_and_draws(tmp_path, capsys):
    out = tmp_path / "demo.pdf"
    assert main([*ARGUMENTS, "--quick", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "u[b]/X[b,1]^2 -> b" in printed
    assert "1 of 1 right" in printed
    assert "all steps done: 40 steps" in printed
    assert "relative L2 error" in printed
    assert out.read_bytes().startswith(b"%PDF")


def test_wrong_answer_is_a_failure(monkeypatch, tmp_path):
    monkeypatch.setattr(demo, "questions", lambda: [dataclasses.replace(SQUARE, known=0.0)])
    assert main([*ARGUMENTS, "--quick", "--out", str(tmp_path / "demo.png")]) == 1


@pytest.mark.usefixtures("one_question")
def test_missed_accuracy_is_a_failure_of_a_full_run(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(demo, "STEPS", 20)
    assert main([*ARGUMENTS, "--out", str(tmp_path / "demo.png")]) == 1
    assert "above 0.02" in capsys.readouterr().out


@pytest.mark.usefixtures("one_question")
def test_demo_goes_on_without_matplotlib(monkeypatch, tmp_path, capsys):
    monkeypatch.delitem(sys.modules, "jaxpartials.demo.picture", raising=False)
    monkeypatch.delattr(demo, "picture", raising=False)
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    out = tmp_path / "demo.png"
    assert main([*ARGUMENTS, "--quick", "--out", str(out)]) == 0
    assert "matplotlib is not installed" in capsys.readouterr().out
    assert not out.exists()


@pytest.mark.usefixtures("one_question")
def test_unknown_picture_format_is_a_failure(tmp_path, capsys):
    assert main([*ARGUMENTS, "--quick", "--out", str(tmp_path / "demo.xyz")]) == 1
    assert "no picture: Format 'xyz' is not supported" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: command"),
        (["demo", "--steps", "-1"], "'-1' is not a whole number of 0 or more"),
        (["demo", "--width", "wide"], "'wide' is not a whole number of 1 or more"),
        (["demo", "--seconds", "nan"], "'nan' is not a positive number"),
    ],
)
def test_unreadable_command_line(arguments, message, capsys):
    with pytest.raises(SystemExit) as exit:
        main(arguments)
    assert exit.value.code == 2
    assert message in capsys.readouterr().err


def test_missing_folder_is_found_before_the_training(tmp_path, capsys):
    assert main(["demo", "--out", str(tmp_path / "none" / "demo.png")]) == 2
    assert "there is no folder" in capsys.readouterr().err


def test_help_names_every_option(capsys):
    with pytest.raises(SystemExit) as exit:
        main(["demo", "--help"])
    assert exit.value.code == 0
    printed = capsys.readouterr().out
    for option in ("--steps", "--seconds", "--width", "--depth", "--points", "--seed", "--out", "--quick"):
        assert option in printed
