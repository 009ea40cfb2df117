"""The demonstration: known questions answered, then a network trained on viscous Burgers and drawn."""

import itertools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from jaxpartials.demo import burgers
from jaxpartials.demo.interrupt import Interrupt
from jaxpartials.demo.questions import Answer, answer, questions

STEPS, QUICK_STEPS = 5000, 40
WIDTH = 110  # of the output, where there is no terminal to fit
MOST = 48  # characters of an answer in the table

RATIO_NOTE = """\
In float32 the derivative of -a/b by b is right for b from 1e-18 to 1e18; beyond, the b² that JAX's rule
divides by leaves the range of float32. jaxpartials keeps JAX's rules.
"""


def run(
    *,
    steps: int | None,
    seconds: float,
    points: int,
    width: int,
    depth: int,
    seed: int,
    out: Path,
    quick: bool,
) -> int:
    """Answer the questions, train, draw; the exit status is 1 if an answer or the accuracy is wrong, else 0.

    Args:
        steps: of the optimiser; None for `STEPS`, or `QUICK_STEPS` if `quick`.
        quick: any accuracy will do, as it will with fewer steps than `STEPS`.
        out: where the picture goes.
    """
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    if steps is None:
        steps = QUICK_STEPS if quick else STEPS
    with Interrupt() as stop:
        asked = itertools.takewhile(lambda question: not stop.requested, questions())
        right = show_questions(console, [answer(question) for question in asked])
        if stop.requested:
            return 130
        training = show_training(
            console, stop, steps=steps, seconds=seconds, points=points, width=width, depth=depth, seed=seed
        )
        solution = burgers.compare(training.params)
        accurate = solution.relative_error <= burgers.TARGET
        console.print(
            f"relative L2 error against the Cole-Hopf solution: {solution.relative_error:.2e}"
            f" ({'within' if accurate else 'above'} {burgers.TARGET:g})"
        )
        drawn = draw_picture(console, solution, training, out)
    if training.ended == "interrupted":
        return 130
    demanded = steps >= STEPS and not quick
    return 0 if right and drawn and (accurate or not demanded) else 1


def show_questions(console: Console, answers: Sequence[Answer]) -> bool:
    """Print the answers as a table; return whether all of them are right."""
    table = Table(title="Questions with known answers", title_justify="left", box=None, pad_edge=False)
    table.add_column("question", no_wrap=console.width >= WIDTH)
    table.add_column("partials", overflow="fold", min_width=22)
    for title in ("answer", "known", ""):
        table.add_column(title, overflow="fold")
    topic = None
    for given in answers:
        question = given.question
        if question.topic != topic:
            topic = question.topic
            table.add_row(f"[bold]{topic}[/bold]")
        verdict = f"[red]wrong: {escape(given.complaint)}[/red]" if given.complaint else "[green]ok[/green]"
        specs = "\n".join(escape(spec) for spec in jax.tree.leaves(question.wanted))
        table.add_row("  " + question.asks, specs, escape(brief(given.values)), question.formula, verdict)
    console.print(table)
    wrong = sum(bool(given.complaint) for given in answers)
    console.print(f"{len(answers) - wrong} of {len(answers)} right")
    console.print(RATIO_NOTE, highlight=False)
    return not wrong


def brief(values: Any) -> str:
    """Values in a few characters, one line each: the numbers if they are few, the shape if not.

    >>> brief(np.array([1.5, 1.5, 1.5])), brief(np.eye(2)), brief(np.eye(9))
    ('1.5, 3 times', '[[1 0] [0 1]]', '(9, 9)')
    """
    return "\n".join(_brief(np.asarray(leaf)) for leaf in jax.tree.leaves(values))


def _brief(array: np.ndarray) -> str:
    if array.size == 1:
        return f"{array.item():.5g}"
    if (array == array.flat[0]).all():
        return f"{array.flat[0]:.5g}, {array.size} times"
    text = np.array2string(array, formatter={"float_kind": lambda number: f"{number:.4g}"})
    text = " ".join(text.split())
    return text if len(text) <= MOST else str(array.shape)


def show_training(console: Console, stop: Interrupt, *, steps: int, **options: Any) -> burgers.Training:
    """Print the plan, train under a progress bar, and print how it ended."""
    console.print("Viscous Burgers, u_t + u u_x = nu u_xx with nu = 0.01/pi: its partials are computed so:")
    params = burgers.init(jax.random.key(0), options["width"], options["depth"])
    X = jax.ShapeDtypeStruct((options["points"], 2), jnp.zeros(()).dtype)
    print(burgers.derivatives.plan(params, X), flush=True)
    bar = Progress(
        TextColumn("training"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[facts]}"),
        TimeElapsedColumn(), console=console,
    )  # fmt: skip
    with bar:
        report = _reporter(bar, bar.add_task("", total=steps, facts="compiling"))
        training = burgers.train(steps=steps, on_progress=report, interrupted=lambda: stop.requested, **options)
    ended = {
        "steps": "all steps done",
        "seconds": "stopped by --seconds",
        "interrupted": "interrupted; going on with what there is",
    }[training.ended]
    console.print(f"{ended}: {training.steps} steps in {training.seconds:.0f} s")
    return training


def _reporter(bar: Progress, task: TaskID) -> Callable[[burgers.Training], None]:
    first: list[tuple[float, int]] = []  # when the compiler was done, and after how many steps

    def report(training: burgers.Training) -> None:
        now = time.perf_counter()
        if not first:
            first.append((now, training.steps))
        facts = f"loss {training.losses[-1]:.2e}"
        since, steps = first[0]
        if training.steps > steps:
            facts += f"  {(training.steps - steps) / (now - since):.0f} steps/s"
        bar.update(task, completed=training.steps, facts=facts)

    return report


def draw_picture(console: Console, solution: burgers.Solution, training: burgers.Training, out: Path) -> bool:
    """Write the picture and say where; return False if it could not be written."""
    try:
        from jaxpartials.demo import picture
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("matplotlib"):
            raise
        console.print("no picture: matplotlib is not installed (the extra jaxpartials\\[plots] has it)")
        return True
    try:
        picture.write(solution, training, out)
    except (OSError, ValueError) as error:
        console.print(f"no picture: {escape(str(error))}")
        return False
    console.print(f"picture: {escape(str(out))}", soft_wrap=True)
    return True
