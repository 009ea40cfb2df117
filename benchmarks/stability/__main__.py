"""The command line: `python -m benchmarks.stability [accuracy|speed] [OPERATION ...] [--markdown]`."""

import argparse
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from benchmarks.__main__ import _environment_line
from benchmarks.stability.cases import CASES
from benchmarks.stability.tables import accuracy_rows, speed_rows


def main(argv: Sequence[str] | None = None) -> int:
    """Print a table of the operations asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stability", description=__doc__)
    parser.add_argument("table", choices=("accuracy", "speed"), help="what to measure")
    parser.add_argument("operations", nargs="*", metavar="OPERATION", help="as in the tables; all, if none is named")
    parser.add_argument("--markdown", action="store_true", help="print the table as the documentation holds it")
    parser.add_argument("--smoke", action="store_true", help="few points or small arrays: only to see that it runs")
    options = parser.parse_intermixed_args(argv)
    if unknown := [name for name in options.operations if name not in CASES]:
        parser.error(f"no operation {', '.join(unknown)}; there are {', '.join(CASES)}")
    cases = [CASES[name] for name in options.operations or CASES]
    console = Console(width=None if sys.stdout.isatty() else 110)
    console.print(_environment_line(), highlight=False)
    header, rows = (accuracy_rows if options.table == "accuracy" else speed_rows)(cases, options.smoke)
    if options.markdown:
        print("|", " | ".join(header), "|")
        print("|", " | ".join("---" for _ in header), "|")
        for row in rows:
            print("|", " | ".join(row), "|")
        return 0
    table = Table(*header)
    for row in rows:
        table.add_row(*row)
    console.print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
