"""A Plan as a table that a person can read."""

import io
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from jaxpartials.graph.cost import Cost
    from jaxpartials.planner import Plan

WIDTH = 110


def render(plan: "Plan") -> str:
    """The table, the notes and the total, as text."""
    table = plain_table()
    for title in ("partial", "mode", "passes", "lanes", "shared", "operations", "bytes"):
        numbers = title in ("passes", "operations", "bytes")
        table.add_column(title, justify="right" if numbers else "left", overflow="fold")
    notes = []
    for row in plan.partials:
        most = max(row.shares.items(), key=lambda item: item[1], default=None)
        shared = "" if most is None else f"{most[1]:.0%} with {most[0]}"
        table.add_row(
            row.spec, row.mode, str(row.passes) if row.passes else "", " ".join(row.lanes), shared,
            quantity(operations(row.cost)), quantity(row.cost.bytes),
        )  # fmt: skip
        notes += [f"{row.spec}: {note}" for note in row.notes]
    text = as_text(table)
    text += "".join(f"\nnote: {note}" for note in dict.fromkeys(notes))
    total, plain = operations(plan.cost), operations(plan.plain_cost)
    text += f"\ntotal: {plan.equations} equations, {quantity(total)} operations, {quantity(plan.cost.bytes)} bytes"
    if plain > total:
        text += f"; nested plainly about {quantity(plain)} operations"
        text += f" ({plain / total:.3g} times as many)" if total else ""
    if plan.chunks is not None:
        lanes, size = plan.chunks
        text += f"\nin chunks of {size:,} of {lanes:,} lanes; the rows tell of one chunk, the total of all"
    if plan.measured:
        text += "".join(f"\nmeasured: {1e3 * seconds:.3g} ms  {label}" for label, seconds in plan.measured)
    return text


def plain_table() -> Table:
    """An empty table without rules: what all tables of the library look like."""
    return Table(box=None, pad_edge=False, header_style="")


def as_text(table: Table, width: int = WIDTH) -> str:
    """A table without colours, and without spaces at the ends of its lines."""
    out = io.StringIO()
    Console(file=out, width=width, color_system=None, highlight=False, markup=False).print(table)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def quantity(number: float) -> str:
    """A count with three digits and a letter: 1.23k, 45.6M."""
    for letter in ("", "k", "M", "G", "T", "P"):
        if abs(number) < 999.5:
            return f"{number:.3g}{letter}"
        number /= 1000
    return f"{number:.3g}E"


def times(factor: float) -> str:
    """How many times as much, with two digits: 1.8, 57, 310."""
    return f"{factor:.2g}" if factor < 99.5 else quantity(factor)


def operations(cost: "Cost") -> float:
    """Arithmetic and transcendental operations together."""
    return cost.flops + cost.transcendentals
