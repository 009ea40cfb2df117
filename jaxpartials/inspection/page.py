"""A report as one HTML page that needs nothing else: the program as a graph, the findings as a table beside it.

The page holds the report, the equations with their shapes and costs, and of the user's files the lines that equations
come from, and nothing else. It asks for nothing from a network, and its policy lets no script run but its own.
"""

import base64
import hashlib
import html
import json
import linecache
from collections.abc import Iterable
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING, Any

from jaxpartials.graph.cost import Cost
from jaxpartials.inspection.drawing import Drawing, draw
from jaxpartials.inspection.finding import KINDS, Finding, Place
from jaxpartials.planprint import operations, quantity, times

if TYPE_CHECKING:
    from jaxpartials.inspection.report import Report

# How many lines of the user's code a row of a table names.
NAMED = 3
# How many findings `summary_html` shows.
SHOWN = 20


def page_html(report: "Report") -> str:
    """The page on a report."""
    drawing = draw(report.program, report.inputs)
    template, script = (
        files("jaxpartials.inspection").joinpath(name).read_text(encoding="utf-8") for name in ("page.html", "page.js")
    )
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = Template(template).substitute(
        policy=f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; img-src data:",
        name=_text(report.name),
        stages="".join(_stages(report)),
        lines="".join(_lines(report)),
        verdict=_text(_found(report)),
        kinds="".join(_kinds(report.findings)),
        rows="".join(_row(i, one) for i, one in enumerate(report.findings)),
        data=_json(_data(report, drawing)),
        script=script,
    )
    # A file name may hold bytes that are no text.
    return page.encode("utf-8", "replace").decode("utf-8")


def summary_html(report: "Report") -> str:
    """A report as a small table for notebooks, without script."""
    left, right = "text-align:left;vertical-align:top", "text-align:right;vertical-align:top"
    head = "".join(
        f'<th style="{right if title in ("operations", "bytes", "share") else left}">{title}</th>'
        for title in ("finding", "where", "operations", "bytes", "share", "XLA")
    )
    rows = []
    for one in report.findings[:SHOWN]:
        rows.append(
            f'<tr><td style="{left}"><b>{_text(_kind(one))}</b><br>{_text(one.message)} {_text(one.advice)}</td>'
            f'<td style="{left}">{"<br>".join(map(_text, _where(one)))}</td>'
            f'<td style="{right}">{quantity(one.operations)}</td><td style="{right}">{quantity(one.cost.bytes)}</td>'
            f'<td style="{right}">{one.share:.1%}</td><td style="{left}">{_text(one.xla)}</td></tr>'
        )
    more = len(report.findings) - SHOWN
    text = f"<p><b>{_text(report.name)}</b>: {_text(_found(report))}</p>"
    if rows:
        text += f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    if more > 0:
        text += f"<p>and {more} more</p>"
    text += f"<p>{_text(report.verdict)}</p>"
    return f"<div>{text}</div>".encode("utf-8", "replace").decode("utf-8")


# ---- the parts that are text


def _text(thing: object) -> str:
    return html.escape(str(thing), quote=True)


def _found(report: "Report") -> str:
    count = len(report.findings)
    if not count:
        return "nothing found"
    dearest = max(report.findings, key=lambda one: one.share)
    return f"{count} finding{'s' * (count > 1)}, the dearest {dearest.share:.1%} of the estimated time"


def _stages(report: "Report") -> Iterable[str]:
    first = operations(report.traced)
    stages = {"traced": report.traced, "after XLA": report.after_xla, "after jaxpartials": report.after_jaxpartials}
    for title, cost in stages.items():
        if cost is None:
            yield f'<div class="stage"><h2>{title}</h2><p class="big">unknown</p></div>'
            continue
        part = f" ({operations(cost) / first:.0%})" if first and cost is not report.traced else ""
        assumed = "<br>the turns of a while loop assumed" if cost.unknown_trips else ""
        yield (
            f'<div class="stage"><h2>{title}</h2><p class="big">{quantity(operations(cost))}'
            f"<small> operations{part}</small></p><p>{quantity(cost.bytes)}B{assumed}</p></div>"
        )


def _lines(report: "Report") -> Iterable[str]:
    for place, cost in report.lines:
        share = cost.time / report.traced.time if report.traced.time else 0.0
        yield (
            f'<li title="{_text(place.file)}"><b>{share:.0%}</b> {_text(place)}'
            f"<code>{_text(_line(place).strip())}</code></li>"
        )


def _kinds(findings: Iterable[Finding]) -> Iterable[str]:
    there = {one.kind for one in findings}
    for i, kind in enumerate(KINDS):
        if kind in there:
            yield f'<button class="kind k{i}" data-kind="{i}" aria-pressed="true">{_text(kind)}</button>'


def _row(i: int, one: Finding) -> str:
    kind = KINDS.index(one.kind)
    where = _where(one)
    # The columns as they are sorted: text and numbers.
    keys = [_kind(one), where[0], one.operations, one.cost.bytes, one.share, one.xla]
    return (
        f'<tbody class="finding k{kind}" data-finding="{i}" data-kind="{kind}" data-keys="{_text(json.dumps(keys))}">'
        f'<tr tabindex="0"><td><span class="chip">{_text(_kind(one))}</span></td>'
        f'<td title="{_text(_files(one))}">{"<br>".join(map(_text, where))}</td><td>{quantity(one.operations)}</td>'
        f"<td>{quantity(one.cost.bytes)}</td><td>{one.share:.1%}</td>"
        f'<td class="{_text(one.xla)}">{_text(one.xla)}</td></tr>'
        f'<tr class="more"><td colspan="6">{_text(one.message)} <em>{_text(one.advice)}</em></td></tr></tbody>'
    )


def _kind(one: Finding) -> str:
    return one.kind if one.factor is None else f"{one.kind}, {times(one.factor)} ×"


def _where(one: Finding) -> list[str]:
    named = [str(place) for place in one.places[:NAMED]] or ["an unknown line"]
    more = len(one.places) - NAMED
    return [*named, f"and {more} more"] if more > 0 else named


def _files(one: Finding) -> str:
    """Where the files are that `_where` calls by their names."""
    return "\n".join(dict.fromkeys(place.file for place in one.places))


def _line(place: Place) -> str:
    """The text of a line, if it can be read."""
    return linecache.getline(place.file, place.line).rstrip("\n")


# ---- the data that the script draws


class _Index:
    """Things numbered in the order in which they first come."""

    def __init__(self):
        self.numbers: dict[Any, int] = {}

    def __call__(self, thing: Any) -> int:
        return self.numbers.setdefault(thing, len(self.numbers))


def _data(report: "Report", drawing: Drawing) -> dict[str, Any]:
    """The drawing in columns, and which boxes each finding is about: those it can spare, and those it needs."""
    names, types, places = _Index(), _Index(), _Index()
    boxes = drawing.boxes
    columns = {
        "what": [box.what for box in boxes],
        "name": [names(box.name) for box in boxes],
        "types": [[types(each) for each in box.types] for box in boxes],
        "operands": [list(box.operands) for box in boxes],
        "parent": [box.parent for box in boxes],
        "place": [-1 if box.place is None else places(box.place) for box in boxes],
        "operations": [_short(operations(box.cost)) for box in boxes],
        "bytes": [_short(box.cost.bytes) for box in boxes],
        "share": [_short(box.runs * _part(box.cost, report.traced)) for box in boxes],
        "runs": [_short(box.runs) for box in boxes],
        "x": [round(box.corner[0]) for box in boxes],
        "y": [round(box.corner[1]) for box in boxes],
        "w": [round(box.size[0]) for box in boxes],
        "h": [round(box.size[1]) for box in boxes],
    }
    on_line: dict[Place, list[int]] = {}
    for number, box in enumerate(boxes):
        if box.place is not None:
            on_line.setdefault(box.place, []).append(number)
    findings = []
    for one in report.findings:
        spare = _numbers(drawing, [work.node for work in one.work if work.spare])
        needed = _numbers(drawing, [work.node for work in one.work if not work.spare])
        if not spare and not needed:  # nothing of this program
            needed = sorted({number for place in one.places for number in on_line.get(place, ())})
        findings.append({"kind": KINDS.index(one.kind), "name": _kind(one), "spare": spare, "needed": needed})
    wires = [
        round(number) for s in drawing.segments for number in (s.x0, s.y0, s.x1, s.y1, s.source, s.target)
    ]  # fmt: skip
    return {
        "names": list(names.numbers),
        "types": list(types.numbers),
        "places": [[*place, _line(place).strip()] for place in places.numbers],
        "boxes": columns,
        "wires": wires,
        "findings": findings,
        "kinds": len(KINDS),
        "width": round(drawing.width),
        "height": round(drawing.height),
    }


def _numbers(drawing: Drawing, nodes: Iterable[Any]) -> list[int]:
    return sorted({number for node in nodes for number in drawing.numbers.get(node, ())})


def _part(cost: Cost, whole: Cost) -> float:
    return cost.time / whole.time if whole.time else 0.0


def _short(number: float) -> float:
    """Four digits are enough to read, and whole numbers take no point."""
    number = float(f"{number:.4g}")
    return int(number) if number.is_integer() else number


def _json(data: Any) -> str:
    """Data inside a script element: in ASCII, and with nothing that could end the element."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
