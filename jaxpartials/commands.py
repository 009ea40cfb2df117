"""The commands on a function in a file: `python -m jaxpartials report` and `python -m jaxpartials plan`."""

import argparse
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

import jaxpartials as jp
from jaxpartials.inspection.report import redundant

REPORT_EXAMPLE = """example:
  python -m jaxpartials report model.py:loss --args "params, jnp.ones((64, 2))" --html report.html --fail-over 2
"""
PLAN_EXAMPLE = """example:
  python -m jaxpartials plan heat.py:u "u/t" "u/x^2" --args "2.0, x=jnp.float32(3.0)"
"""
EXAMPLE_ARGS = "example_args"

T = TypeVar("T")


class CommandError(Exception):
    """What the command line asks for cannot be done; the message says why."""


# ---- report


def add_report(commands: Any, epilog: str) -> None:
    sub = _add(
        commands, "report", f"{REPORT_EXAMPLE}\n{epilog}",
        "print what a function computes twice, for nothing, or in the wrong mode",
        "Print what a function in a file does and need not do, and whether XLA removes it. The function is traced"
        " and compiled, and not run.",
    )  # fmt: skip
    sub.add_argument("--html", type=Path, metavar="OUT", help="write the report as one HTML page, too")
    sub.add_argument(
        "--fail-over", type=_percentage, metavar="PCT",
        help="exit with 1 if a finding is more than this part of the work, in percent, and XLA does not remove it",
    )  # fmt: skip
    sub.set_defaults(command=_report)


def _report(parsed: argparse.Namespace) -> int:
    if parsed.html is not None and not parsed.html.parent.is_dir():
        raise CommandError(f"--html {parsed.html}: there is no folder {parsed.html.parent}")
    target = _target(parsed.function)
    args, kwargs = _arguments(parsed.args, target)
    found = _traced(target, parsed.args, lambda: jp.report(target.function)(*args, **kwargs))
    print(found)
    if parsed.html is not None:
        try:
            found.to_html(parsed.html)
        except OSError as error:
            raise CommandError(f"--html {parsed.html}: {error.strerror}") from error
    if parsed.fail_over is None:
        return 0
    left = redundant(found.findings, parsed.fail_over / 100)
    if left:
        count = "1 finding is" if len(left) == 1 else f"{len(left)} findings are"
        print(f"jaxpartials: {count} over {parsed.fail_over:g}% of the work and not removed by XLA", file=sys.stderr)
    return 1 if left else 0


def _percentage(text: str) -> float:
    try:
        number = float(text.removesuffix("%"))
    except ValueError:
        number = -1.0
    if not 0 <= number <= 100:
        raise argparse.ArgumentTypeError(f"{text!r} is not a percentage from 0 to 100")
    return number


# ---- plan


def add_plan(commands: Any, epilog: str) -> None:
    sub = _add(
        commands, "plan", f"{PLAN_EXAMPLE}\n{epilog}",
        "print how the partials of a function would be computed, and why",
        "Print the plan for the partials SPEC of a function in a file.",
    )  # fmt: skip
    sub.add_argument("specs", metavar="SPEC", nargs="+", help='such as "u/t" or "u[b]/X[b,1]^2 -> b"')
    sub.add_argument("--outputs", metavar="NAMES", help="names for the outputs of a function that returns a tuple: z,y")
    sub.set_defaults(command=_plan)


def _plan(parsed: argparse.Namespace) -> int:
    target = _target(parsed.function)
    outputs = None if parsed.outputs is None else [name.strip() for name in parsed.outputs.split(",")]
    g = jp.partials(target.function, list(parsed.specs), outputs=outputs)
    args, kwargs = _arguments(parsed.args, target)
    print(_traced(target, parsed.args, lambda: g.plan(*args, **kwargs)))
    return 0


# ---- the function, and its arguments


@dataclass(frozen=True)
class Target:
    """A function in a file."""

    function: Callable[..., Any]
    path: str
    file: Path
    names: dict[str, Any]


def _add(commands: Any, name: str, epilog: str, summary: str, description: str) -> argparse.ArgumentParser:
    sub = commands.add_parser(
        name, help=summary, description=description, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sub.add_argument("function", metavar="FILE.py:FUNCTION", help="the file is run, as by an import")
    sub.add_argument(
        "--args", metavar="EXPR",
        help="the arguments as written in a call, in terms of jax, jnp, np and what the file defines; arrays"
        f" or jax.ShapeDtypeStructs (default: {EXAMPLE_ARGS} of the file, a tuple or a function that returns one)",
    )  # fmt: skip
    return sub


def _target(text: str) -> Target:
    file, separator, path = text.rpartition(":")
    if not separator or not path:
        raise CommandError(f"{text!r} names no function; write FILE.py:FUNCTION")
    module = _load(Path(file))
    return Target(_attribute(module, path, file), path, Path(file), vars(module))


def _load(file: Path) -> Any:
    if not file.is_file():
        raise CommandError(f"there is no file {str(file)!r}")
    if file.suffix != ".py":
        raise CommandError(f"{str(file)!r} is no Python file")
    try:
        return _imported(file.resolve())
    except (Exception, SystemExit) as error:
        raise CommandError(f"{str(file)!r} cannot be run: {_describe(error, file)}") from error


def _imported(file: Path) -> Any:
    """The module, as a part of its package if it is in one."""
    folder, name = _package(file)
    sys.path.insert(0, str(folder))
    if folder != file.parent:
        return importlib.import_module(name)
    # By its path: another module of this name may be loaded.
    spec = importlib.util.spec_from_file_location("command_target", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for the names in their annotations
    spec.loader.exec_module(module)
    return module


def _package(file: Path) -> tuple[Path, str]:
    """The folder from which a module is imported, and its name there, with those of the packages around it."""
    folder, name = file.parent, file.stem
    while (folder / "__init__.py").is_file():
        folder, name = folder.parent, f"{folder.name}.{name}"
    return folder, name.removesuffix(".__init__")


def _attribute(module: Any, path: str, file: str) -> Callable[..., Any]:
    found = module
    for name in path.split("."):
        if not hasattr(found, name):
            raise CommandError(f"{file!r} defines no {path!r}")
        found = getattr(found, name)
    if not callable(found):
        raise CommandError(f"{path!r} in {file!r} is no function, but {type(found).__name__}")
    return found


def _arguments(expression: str | None, target: Target) -> tuple[tuple, dict[str, Any]]:
    if expression is not None:
        return _evaluate(expression, target)
    if EXAMPLE_ARGS not in target.names:
        if _takes_nothing(target.function):
            return (), {}
        raise CommandError(
            f"the arguments of {target.path} are not known; write --args EXPR, such as --args"
            f' "jnp.ones(3), 2.0", or define {EXAMPLE_ARGS} = (jnp.ones(3), 2.0) in {str(target.file)!r}'
        )
    args = target.names[EXAMPLE_ARGS]
    if callable(args):
        try:
            args = args()
        except Exception as error:
            message = f"{EXAMPLE_ARGS}() in {str(target.file)!r} fails: {_describe(error, target.file)}"
            raise CommandError(message) from error
    return (args if isinstance(args, tuple) else (args,)), {}


def _takes_nothing(function: Callable[..., Any]) -> bool:
    try:
        inspect.signature(function).bind()
    except (TypeError, ValueError):
        return False
    return True


def _evaluate(expression: str, target: Target) -> tuple[tuple, dict[str, Any]]:
    """Evaluate the text between the parentheses of a call.

    >>> _evaluate("1.0, n=a + 1", Target(abs, "abs", Path("a.py"), {"a": 1}))
    ((1.0,), {'n': 2})
    """
    collect = lambda *args, **kwargs: (args, kwargs)
    known = {"jax": jax, "jnp": jnp, "np": np, **target.names, "__collect__": collect}
    try:
        return eval(f"__collect__({expression}\n)", known)
    except Exception as error:
        message = f"--args {expression!r} cannot be evaluated: {_describe(error, target.file)}"
        raise CommandError(message) from error


def _traced(target: Target, expression: str | None, trace: Callable[[], T]) -> T:
    try:
        return trace()
    except jp.errors.JaxPartialsError:
        raise
    except Exception as error:  # raised by the user's function, or because the arguments do not fit it
        given = f"--args {expression!r}" if expression is not None else f"its {EXAMPLE_ARGS}"
        message = f"{target.path} cannot be traced with {given}: {_describe(error, target.file)}"
        raise CommandError(message) from error


def _describe(error: BaseException, file: Path) -> str:
    """The first paragraph of an error, and the innermost line of the user's own code that it comes from."""
    first = str(error).strip().split("\n\n")[0]
    folder = file.resolve().parent
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        place = Path(frame.filename)
        if place.is_absolute() or place.is_file():
            inside = place.resolve()
            if inside.is_relative_to(folder) and "site-packages" not in inside.parts:
                first += f" ({place.name}:{frame.lineno})"
                break
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
