"""The command line: `python -m jaxpartials demo`, and the commands on a function in a file: `report` and `plan`."""

import argparse
import functools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jaxpartials as jp
from jaxpartials import demo
from jaxpartials.commands import CommandError, add_plan, add_report

EPILOG = (
    "exit status: 0 done; 1 an answer is wrong, the accuracy is missed, a derivative cannot be computed\n"
    "or there are findings over --fail-over; 2 the command line asks for something impossible; 130 interrupted"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    parsed = _parser().parse_args(arguments)
    try:
        return parsed.command(parsed)
    except (CommandError, jp.errors.NotationError) as error:
        return _fail(error, 2)
    except jp.errors.JaxPartialsError as error:
        return _fail(error, 1)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)


def _fail(message: Any, status: int) -> int:
    print(f"jaxpartials: {message}", file=sys.stderr)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jaxpartials", description="Named partial derivatives of JAX functions.", epilog=EPILOG
    )
    parser.add_argument("--version", action="version", version=f"jaxpartials {jp.__version__}")
    commands = parser.add_subparsers(required=True, metavar="command")
    _add_demo(commands)
    add_report(commands, EPILOG)
    add_plan(commands, EPILOG)
    return parser


# ---- demo


def _add_demo(commands: Any) -> None:
    sub = commands.add_parser(
        "demo",
        help="answer known questions, then train a network on viscous Burgers and draw it",
        description=(
            "Print a table of questions with known answers, each asked as named partials; then train a small"
            " network on viscous Burgers, u_t + u u_x = (0.01/pi) u_xx, and compare it with the Cole-Hopf"
            " solution. Prints the plan of its partials and the error, and writes a picture. Ctrl-C stops the"
            " training and goes on with what there is."
        ),
        epilog=EPILOG,
    )
    option = functools.partial(sub.add_argument, metavar="N")
    option(
        "--steps", type=_at_least(0),
        help=f"optimiser steps (default: {demo.STEPS}, or {demo.QUICK_STEPS} with --quick); of {demo.STEPS} or"
        f" more, a relative L2 error of {demo.burgers.TARGET:g} or less is demanded",
    )  # fmt: skip
    option(
        "--seconds", type=_positive, metavar="S", default=100.0,
        help="stop the training after this time, compilation included; the learning rate falls accordingly"
        " (default: %(default)g)",
    )  # fmt: skip
    option("--width", type=_at_least(1), default=32, help="units of each hidden layer (default: %(default)s)")
    option("--depth", type=_at_least(1), default=3, help="number of hidden layers (default: %(default)s)")
    option("--points", type=_at_least(1), default=1024, help="points (t, x) in each step (default: %(default)s)")
    option("--seed", type=_at_least(0), default=0, help="of the weights and the points (default: %(default)s)")
    option(
        "--out", type=Path, metavar="FILE", default=Path("jaxpartials-demo.png"),
        help="where the picture goes, as png, pdf or svg (default: ./%(default)s)",
    )  # fmt: skip
    sub.add_argument("--quick", action="store_true", help="a few steps only, and any accuracy will do")
    sub.set_defaults(command=_demo)


def _demo(parsed: argparse.Namespace) -> int:
    if not parsed.out.parent.is_dir():
        raise CommandError(f"--out {parsed.out}: there is no folder {parsed.out.parent}")
    options = {name: value for name, value in vars(parsed).items() if name != "command"}
    return demo.run(**options)


def _at_least(least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if number < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of {least} or more")
        return number

    return parse


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not number > 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return number


if __name__ == "__main__":
    sys.exit(main())
