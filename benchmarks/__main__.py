"""The command line: `python -m benchmarks [CASE ...] [--smoke] [--json OUT] [--picture OUT] [--list]`."""

import argparse
import json
import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.blocks import diagonal_blocks
from benchmarks.compile_cost import compile_cost
from benchmarks.dense_second import dense_second
from benchmarks.first_document import first_document
from benchmarks.harness import Result, show
from benchmarks.laplacian import biharmonic_training, laplacian_chunked, laplacian_forward, laplacian_training
from benchmarks.loops import shared_loops, ten_partials
from benchmarks.navier_stokes import navier_stokes_forward, navier_stokes_training
from benchmarks.pass_cost import pass_cost
from benchmarks.per_sample import per_sample_gradients
from benchmarks.pinn import order4_training, pinn_forward, pinn_training
from benchmarks.report_cost import report_cost
from benchmarks.wavefunction import wavefunction
from benchmarks.whole_steps import whole_steps

CASES = {
    make.__name__: make
    for make in (
        pinn_forward, pinn_training, order4_training, navier_stokes_forward, navier_stokes_training,
        diagonal_blocks, dense_second, first_document, compile_cost, per_sample_gradients, ten_partials, shared_loops,
        laplacian_forward, laplacian_training, laplacian_chunked, biharmonic_training, wavefunction, whole_steps,
        pass_cost, report_cost,
    )
}  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """Run the cases asked for; 0 when every variant of every case gave the right values."""
    parser = _parser()
    options = parser.parse_args(argv)
    if unknown := [name for name in options.cases if name not in CASES]:
        parser.error(f"no case {', '.join(unknown)}; there are {', '.join(CASES)}")
    console = Console(width=None if sys.stdout.isatty() else 110)
    if options.list:
        for name, make in CASES.items():
            console.print(f"{name:24} {_summary(make)}", highlight=False)
        return 0
    console.print(_environment_line(), highlight=False)
    results, failed = [], False
    for name in options.cases or CASES:
        for case in CASES[name](options.smoke):
            try:
                result = case.compare(console) if options.smoke else case.measure(options.rounds, console)
            except Exception:
                console.print(f"[bold]{case.name}[/] [red]failed[/]")
                console.print_exception()
                failed = True
                continue
            show(result, console)
            results.append(result)
    if options.json:
        document = {"environment": environment(), "cases": [result.as_json() for result in results]}
        Path(options.json).write_text(json.dumps(document, indent=1) + "\n")
    if options.picture:
        console.print(draw(results, options.picture))
    return int(failed)


def environment() -> dict[str, Any]:
    """What the numbers depend on."""
    names = ("jax", "jaxlib", "jaxpartials", "numpy", "optax", "torch")
    versions = {name: version for name in names if (version := _version(name))}
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "versions": versions,
    }


def draw(results: list[Result], path: str) -> str:
    """One panel per case: the ratio of every variant to the reference, which is the line at 1. Says what it did."""
    timed = [result for result in results if "ratio" in result.columns]
    if not timed:
        return "Nothing was timed: no picture."
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return "matplotlib is not installed: no picture."
    figure = Figure(figsize=(8, 0.6 + sum(0.9 + 0.28 * len(result.rows) for result in timed)), layout="constrained")
    panels = figure.subplots(
        len(timed), 1, squeeze=False, sharex=True, height_ratios=[3 + len(result.rows) for result in timed]
    )
    for panel, result in zip(panels[:, 0], timed, strict=True):
        names = list(result.rows)[::-1]
        ratios = [result.rows[name]["ratio"] for name in names]
        colours = ["tab:orange" if name.startswith("partials") else "tab:gray" for name in names]
        bars = panel.barh(names, ratios, xerr=[result.rows[name]["spread"] for name in names], color=colours)
        panel.bar_label(bars, fmt="%.2f", padding=4)
        panel.axvline(1.0, color="black", linewidth=0.8)
        panel.set(title=result.case, xscale="log")
        panel.margins(x=0.15)
    panels[-1, 0].set_xlabel("time relative to the reference")
    figure.savefig(path, dpi=120)
    return f"The ratios are drawn in {path}."


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Time the partials against code written by hand and against the usual ways of taking them.",
    )
    parser.add_argument("cases", nargs="*", metavar="CASE", help="the cases to run (default: all; see --list)")
    parser.add_argument("--list", action="store_true", help="name the cases and stop")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, one run: checks the values, times nothing")
    parser.add_argument("--rounds", type=int, default=60, help="rounds per case (default: 60)")
    parser.add_argument("--json", metavar="OUT", help="write everything measured to this file")
    parser.add_argument("--picture", metavar="OUT", help="draw the ratios; needs matplotlib")
    return parser


def _summary(make: Any) -> str:
    return (make.__doc__ or "").split("\n")[0]


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _environment_line() -> str:
    here = environment()
    versions = ", ".join(f"{name} {version}" for name, version in here["versions"].items())
    return f"Python {here['python']}, {versions}; {here['machine']}, {here['cores']} cores\n"


if __name__ == "__main__":
    sys.exit(main())
