"""A traced program as boxes and wires: an equation is a box, and what runs inside it is drawn inside it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from jaxpartials.graph.cost import Cost, cost
from jaxpartials.graph.graph import CONSTANT, INPUT, LITERAL, Graph, Node, Value
from jaxpartials.inspection.finding import Place, place
from jaxpartials.inspection.layout import Layout, Segment, layered
from jaxpartials.inspection.scopes import turns

# What a box is: an equation, a loop or another equation with a program inside, one of several programs inside an
# equation, or a value that comes in or goes out.
EQUATION, AROUND, BODY, LEAF, OUTPUT = range(5)

Settle = Callable[[float, float], None]

# In pixels, for letters of 11 and 9.
LETTER, SMALL_LETTER, HEIGHT, HEADER, MARGIN = 6.7, 5.5, 32.0, 24.0, 14.0


@dataclass
class Box:
    """A box of the drawing.

    Attributes:
        what: EQUATION, AROUND, BODY, LEAF or OUTPUT.
        name: what is written in it.
        types: of the values that it gives.
        operands: what it reads: the number of a box, or a literal as text.
        parent: the number of the box that it stands in, or -1.
        place: the line of the user's code.
        cost: of running it once.
        runs: how often it runs.
        corner, size: where it stands.
    """

    what: int
    name: str
    types: tuple[str, ...] = ()
    operands: tuple[int | str, ...] = ()
    parent: int = -1
    place: Place | None = None
    cost: Cost = field(default_factory=Cost)
    runs: float = 1.0
    corner: tuple[float, float] = (0.0, 0.0)
    size: tuple[float, float] = (0.0, 0.0)


@dataclass
class Drawing:
    """Boxes, outer before inner ones; wires; the boxes of each node; the size of all."""

    boxes: list[Box]
    segments: list[Segment]
    numbers: dict[Node, list[int]]
    width: float = 0.0
    height: float = 0.0


def draw(program: Graph, inputs: Sequence[str] = ()) -> Drawing:
    """Draw a program that was read with `shared=False`: every equation, dead ones too; `inputs` are their names."""
    drawing = Drawing([], [], {})
    if len(inputs) != len(program.inputs):
        inputs = [f"input {i}" for i in range(len(program.inputs))]
    layout, settle = _draw(drawing, program, -1, 1.0, inputs)
    settle(0.0, 0.0)
    drawing.width, drawing.height = layout.width, layout.height
    return drawing


def _draw(drawing: Drawing, program: Graph, parent: int, runs: float, inputs: Sequence[str]) -> tuple[Layout, Settle]:
    """Add the boxes of a program; return its layout, and what moves all of it to a corner."""
    members: list[int] = []  # boxes of this program, without those inside them
    sizes: list[tuple[float, float]] = []
    inner: list[Settle | None] = []
    known: dict[Node, int] = {}
    position: dict[int, int] = {}
    edges: list[tuple[int, int]] = []

    def add(box: Box, node: Node | None) -> int:
        number = len(drawing.boxes)
        drawing.boxes.append(box)
        position[number] = len(members)
        members.append(number)
        edges.extend((position[a], position[number]) for a in dict.fromkeys(box.operands) if isinstance(a, int))
        if node is not None:
            known[node] = number
            drawing.numbers.setdefault(node, []).append(number)
        return number

    def operand(value: Value) -> int | str:
        node = value.node
        if node.name == LITERAL:
            return str(node.params["value"])
        if node not in known:  # an array closed over, or an input of the program
            label = names.get(node, "constant" if node.name == CONSTANT else "input")
            size = _leaf_size(label, value)
            add(Box(LEAF, label, (_type(value),), parent=parent, runs=runs, size=size), node)
            sizes.append(size)
            inner.append(None)
        return known[node]

    names = {value.node: label for value, label in zip(program.inputs, inputs, strict=True) if value.node.name == INPUT}
    for value in program.inputs:
        operand(value)
    for node in program.traced:
        operands = tuple(operand(v) for v in node.operands)
        box = Box(EQUATION, node.name, tuple(map(_type, node.outputs)), operands, parent, place(node), cost(node), runs)
        number = add(box, node)
        moves = None
        if node.bodies:
            box.what, moves = AROUND, _draw_inside(drawing, node, number, runs)
        else:
            label = max(LETTER * len(node.name), SMALL_LETTER * len(box.types[0] if box.types else ""))
            box.size = (label + MARGIN, HEIGHT)
        sizes.append(box.size)
        inner.append(moves)
    for i, value in enumerate(program.outputs):
        label = f"output {i}" if len(program.outputs) > 1 else "output"
        size = _leaf_size(label, value)
        add(Box(OUTPUT, label, (_type(value),), (operand(value),), parent, runs=runs, size=size), None)
        sizes.append(size)
        inner.append(None)

    layout = layered(sizes, edges)

    def settle(left: float, top: float) -> None:
        for number, (x, y), moves in zip(members, layout.corners, inner, strict=True):
            drawing.boxes[number].corner = (left + x, top + y)
            if moves is not None:
                moves(left + x, top + y)
        drawing.segments.extend(
            Segment(
                left + s.x0, top + s.y0, left + s.x1, top + s.y1, members[s.source],
                members[s.target] if s.target >= 0 else -1,
            )
            for s in layout.segments
        )  # fmt: skip

    return layout, settle


def _draw_inside(drawing: Drawing, node: Node, number: int, runs: float) -> Settle:
    """Draw the programs inside an equation side by side, and give its box the size that holds them."""
    times = turns(node)
    several = len(node.bodies) > 1
    parts, width, height = [], MARGIN, 0.0
    for body, (title, inputs) in zip(node.bodies, _titles(node), strict=True):
        parent = number
        if several:
            parent = len(drawing.boxes)
            drawing.boxes.append(Box(BODY, title, parent=number, runs=runs * times))
        layout, settle = _draw(drawing, body, parent, runs * times, inputs)
        frame = (MARGIN, HEADER + MARGIN / 2) if several else (0.0, 0.0)
        size = (max(layout.width, 60.0) + 2 * frame[0], layout.height + frame[1] + (MARGIN if several else 0.0))
        parts.append((parent, width, frame, size, settle))
        width += size[0] + MARGIN
        height = max(height, size[1])
    title_width = LETTER * (len(node.name) + 14) + 2 * MARGIN
    box = drawing.boxes[number]
    box.size = (max(width, title_width), HEADER + height + 1.5 * MARGIN)

    def settle_all(left: float, top: float) -> None:
        top += HEADER + MARGIN / 2
        for parent, x, frame, size, settle in parts:
            if several:
                drawing.boxes[parent].corner, drawing.boxes[parent].size = (left + x, top), size
            settle(left + x + frame[0], top + frame[1])

    return settle_all


def _titles(node: Node) -> list[tuple[str, list[str]]]:
    """What the programs inside an equation are called, and their inputs."""
    if node.name == "scan":
        consts, carry = node.params["num_consts"], node.params["num_carry"]
        xs = len(node.bodies[0].inputs) - consts - carry
        return [("body", _named(("constant", consts), ("carry", carry), ("slice", xs)))]
    if node.name == "while":
        told = []
        for title, count, body in zip(
            ("condition", "body"), (node.params["cond_nconsts"], node.params["body_nconsts"]), node.bodies, strict=True
        ):
            told.append((title, _named(("constant", count), ("carry", len(body.inputs) - count))))
        return told
    kind = "branch" if node.name == "cond" else "program"
    return [(f"{kind} {i}", _named(("input", len(body.inputs)))) for i, body in enumerate(node.bodies)]


def _named(*groups: tuple[str, int]) -> list[str]:
    return [f"{name} {i}" for name, count in groups for i in range(count)]


def _leaf_size(label: str, value: Value) -> tuple[float, float]:
    return max(LETTER * len(label), SMALL_LETTER * len(_type(value))) + MARGIN, HEIGHT


def _type(value: Value) -> str:
    aval = value.aval
    return aval.str_short(short_dtypes=True) if hasattr(aval, "str_short") else str(aval)
