"""The command line: `python -m jaxpartials demo` and `python -m jaxpartials plan`."""

import argparse
import functools
import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxpartials as jp
from jaxpartials import demo

EPILOG = (
    "exit status: 0 done; 1 an answer is wrong, the accuracy is missed or a derivative cannot be computed; "
    "2 the command line asks for something impossible; 130 interrupted"
)
PLAN_EXAMPLE = """example:
  python -m jaxpartials plan heat.py:u "u/t" "u/x^2" --args "2.0, x=jnp.float32(3.0)"
"""


class CommandError(Exception):
    """What the command line asks for cannot be done; the message says why."""


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
    _add_plan(commands)
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


# ---- plan


def _add_plan(commands: Any) -> None:
    sub = commands.add_parser(
        "plan",
        help="print how the partials of a function would be computed, and why",
        description="Print the plan for the partials SPEC of a function in a file.",
        epilog=f"{PLAN_EXAMPLE}\n{EPILOG}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    sub.add_argument("function", metavar="FILE.py:FUNCTION", help="the file is run, as by an import")
    sub.add_argument("specs", metavar="SPEC", nargs="+", help='such as "u/t" or "u[b]/X[b,1]^2 -> b"')
    sub.add_argument(
        "--args", metavar="EXPR", default="",
        help="the arguments as written in a call, in terms of jax, jnp, np and what the file defines; arrays"
        " or jax.ShapeDtypeStructs",
    )  # fmt: skip
    sub.add_argument("--outputs", metavar="NAMES", help="names for the outputs of a function that returns a tuple: z,y")
    sub.set_defaults(command=_plan)


def _plan(parsed: argparse.Namespace) -> int:
    file, separator, path = parsed.function.rpartition(":")
    if not separator or not path:
        raise CommandError(f"{parsed.function!r} names no function; write FILE.py:FUNCTION")
    module = _load(Path(file))
    function = _attribute(module, path, file)
    outputs = None if parsed.outputs is None else [name.strip() for name in parsed.outputs.split(",")]
    g = jp.partials(function, list(parsed.specs), outputs=outputs)
    args, kwargs = _arguments(parsed.args, vars(module))
    try:
        plan = g.plan(*args, **kwargs)
    except jp.errors.JaxPartialsError:
        raise
    except Exception as error:  # raised by the user's function, or because the arguments do not fit it
        raise CommandError(f"{path} cannot be traced with --args {parsed.args!r}: {_describe(error)}") from error
    print(plan)
    return 0


def _load(file: Path) -> Any:
    if not file.is_file():
        raise CommandError(f"there is no file {str(file)!r}")
    spec = importlib.util.spec_from_file_location("plan_target", file)
    if spec is None or spec.loader is None:
        raise CommandError(f"{str(file)!r} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for the names in their annotations
    sys.path.insert(0, str(file.resolve().parent))
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise CommandError(f"{str(file)!r} cannot be run: {_describe(error)}") from error
    return module


def _attribute(module: Any, path: str, file: str) -> Callable[..., Any]:
    found = module
    for name in path.split("."):
        if not hasattr(found, name):
            raise CommandError(f"{file!r} defines no {path!r}")
        found = getattr(found, name)
    if not callable(found):
        raise CommandError(f"{path!r} in {file!r} is no function, but {type(found).__name__}")
    return found


def _arguments(expression: str, names: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    """Evaluate the text between the parentheses of a call.

    >>> _arguments("1.0, n=a + 1", {"a": 1})
    ((1.0,), {'n': 2})
    """
    collect = lambda *args, **kwargs: (args, kwargs)
    known = {"jax": jax, "jnp": jnp, "np": np, **names, "__collect__": collect}
    try:
        return eval(f"__collect__({expression}\n)", known)
    except Exception as error:
        raise CommandError(f"--args {expression!r} cannot be evaluated: {_describe(error)}") from error


def _describe(error: BaseException) -> str:
    first = str(error).strip().split("\n\n")[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


if __name__ == "__main__":
    sys.exit(main())
