"""The optimised program of XLA, read from its text: which operations it runs, how often, and for which line.

    %dot.3 = f32[8,4]{1,0} dot(%x, %w), lhs_contracting_dims={1}, ..., metadata={op_name="jit(f)/dot_general" ...}

An instruction counts as often as its computation runs: the body of a loop `known_trip_count` times, a fused computation
as often as the fusion, every branch as often as the conditional. The last word of `op_name` is the primitive that it
comes from.

What XLA copies into several fusions rather than store it is one value, computed more than once: its copies have equal
operands, looked up through the parameters of the fusions, and one `op_name` and line.
"""

import functools
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from jaxpartials.graph.trips import ASSUMED_TRIPS

INSTRUCTION = re.compile(r"^\s*(ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)$")
COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
SHAPE = re.compile(r"([a-z]+\d*[a-z0-9]*)\[([\d,]*)\]")
CALLED = re.compile(r"(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)")
BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
OP_NAME = re.compile(r'op_name="((?:[^"\\]|\\.)*)"')
LINE = re.compile(r'source_file="([^"]*)"\s+source_line=(\d+)')
FRAME = re.compile(r"stack_frame_id=(\d+)")
TARGET = re.compile(r'custom_call_target="([^"]*)"')
CONTRACTING = re.compile(r"lhs_contracting_dims=\{([\d,]*)\}")
APART = re.compile(r",? *(?:metadata|backend_config|frontend_attributes)=\{.*")
ELIDED = "{...}"
# Copied by no fusion.
WHOLE = frozenset({"while", "conditional", "custom-call", "call", "fusion", "parameter", "rng", "rng-bit-generator"})
BYTES = {"pred": 1, "bf16": 2, "c64": 8, "c128": 16}


Branches = tuple[tuple[str, int], ...]
Line = tuple[str, int]


@dataclass
class Instruction:
    name: str
    opcode: str
    shapes: list[tuple[str, tuple[int, ...]]]
    rest: str
    primitive: str
    line: Line | None
    origin: tuple[str, str] = ("", "")  # `op_name`, and which frame of the user's program
    operands: list[str] = field(default_factory=list)
    root: bool = False

    @property
    def size(self) -> int:
        """The elements of the first array of the result."""
        return math.prod(self.shapes[0][1]) if self.shapes else 0

    @property
    def turns(self) -> float | None:
        """Of a loop, if they are known."""
        found = TRIPS.search(self.rest)
        return float(found.group(1)) if found else None

    @property
    def target(self) -> str:
        """Of a call of a library, what is called."""
        found = TARGET.search(self.rest)
        return found.group(1) if found else ""

    @property
    def bytes(self) -> float:
        return float(sum(math.prod(shape) * _width(kind) for kind, shape in self.shapes))


class Run(NamedTuple):
    """An instruction where it runs.

    Attributes:
        times: how often.
        fused: whether it is part of a fusion.
        branches: the conditionals it stands in, and which of their branches.
        value: the number of its value.
    """

    instruction: Instruction
    times: float
    fused: bool
    branches: Branches
    value: int


@functools.lru_cache(maxsize=64)
def _width(kind: str) -> int:
    found = re.search(r"\d+", kind)
    return BYTES.get(kind) or (max(int(found.group()) // 8, 1) if found else 0)


class Module:
    """A compiled program.

    `loops` gives the turns of the loops on some lines, None where they were assumed: then they are assumed here, too,
    so that both programs can be compared.
    """

    def __init__(self, text: str, loops: Mapping[Line, float | None] | None = None):
        self.computations: dict[str, list[Instruction]] = {}
        self._loops = loops or {}
        self.entry = ""
        self._frames: dict[int, tuple[str, int]] = {}
        self._read(text)
        listed = [one for listing in self.computations.values() for one in listing if one.shapes]
        self.arrays = {one.name: one.shapes[0] for one in listed}
        self.runs: list[Run] = []
        self._values: dict[Any, int] = {}
        self._parts: dict[int, list[int]] = {}  # of tuples
        if self.entry:
            self._run(self.entry, [], 1.0, False, (), self.entry)

    def _read(self, text: str) -> None:
        files: dict[int, str] = {}
        places: dict[int, tuple[str, int]] = {}
        table, current = "", None
        for row in text.splitlines():
            opened = COMPUTATION.match(row)
            if opened:
                current = self.computations.setdefault(opened.group(2), [])
                self.entry = opened.group(2) if opened.group(1) else self.entry
                table = ""
            elif current is None:
                if row in ("FileNames", "FunctionNames", "FileLocations", "StackFrames"):
                    table = row
                elif found := re.match(r"(\d+) (.*)", row):
                    number, rest = int(found.group(1)), found.group(2)
                    if table == "FileNames":
                        files[number] = rest.strip('"')
                    elif table == "FileLocations":
                        at = dict(re.findall(r"(\w+)=(\d+)", rest))
                        places[number] = files.get(int(at.get("file_name_id", 0)), ""), int(at.get("line", 0))
                    elif table == "StackFrames":
                        at = dict(re.findall(r"(\w+)=(\d+)", rest))
                        self._frames[number] = places.get(int(at.get("file_location_id", 0)), ("", 0))
            elif row.startswith("}"):
                current = None
            elif found := INSTRUCTION.match(row):
                current.append(self._instruction(*found.groups()))

    def _instruction(self, root: str | None, name: str, shape: str, opcode: str, rest: str) -> Instruction:
        shapes = [(kind, tuple(int(n) for n in sizes.split(",") if n)) for kind, sizes in SHAPE.findall(shape)]
        op = OP_NAME.search(rest)
        primitive = re.sub(r"\[.*", "", op.group(1).rsplit("/", 1)[-1]) if op else ""
        line, frame = None, ""
        if at := LINE.search(rest):
            line, frame = (at.group(1), int(at.group(2))), at.group()
        elif at := FRAME.search(rest):
            line, frame = self._frames.get(int(at.group(1))), at.group()
        operands = re.findall(r"%([\w.\-]+)", rest.split(")", 1)[0])
        origin = op.group(1) if op else "", frame
        return Instruction(name, opcode, shapes, rest, primitive, line, origin, operands, root is not None)

    def _run(self, name: str, arguments: list[int], times: float, fused: bool, branches: Branches, scope: str) -> int:
        """Note what a computation runs on these arguments, and inside it; the number of what it returns."""
        values: dict[str, int] = {}
        result = -1
        for one in self.computations.get(name, ()):
            called = CALLED.findall(one.rest)
            operands = [values.get(v, -1) for v in one.operands]
            value = -1
            if one.opcode == "while":
                turns, _ = self.turns(one)
                for inner in called:
                    self._run(inner, [], times * turns, False, branches, inner)
            elif one.opcode == "conditional":
                listed = BRANCHES.search(one.rest)
                for i, inner in enumerate(re.findall(r"[\w.\-]+", listed.group(1)) if listed else called):
                    self._run(inner, [], times, False, (*branches, (one.name, i)), inner)
            elif one.opcode in ("fusion", "call", "async-start"):
                for inner in called:
                    value = self._run(inner, operands, times, fused or one.opcode == "fusion", branches, scope)
            elif one.opcode == "parameter":
                index = int(one.rest.split(")", 1)[0])
                value = arguments[index] if index < len(arguments) else -1
            elif one.opcode == "get-tuple-element" and operands and operands[0] in self._parts:
                value = self._parts[operands[0]][int(one.rest.rsplit("index=", 1)[1].split(",", 1)[0])]
            elif one.opcode == "copy" and operands:
                (value,) = operands
            if value < 0:
                value = self._value(one, operands, scope)
            if one.opcode == "tuple":
                self._parts[value] = operands
            values[one.name] = value
            self.runs.append(Run(one, times, fused, branches, value))
            if one.root:
                result = value
        return result

    def _value(self, one: Instruction, operands: list[int], scope: str) -> int:
        key: Any = scope, one.name
        if one.opcode not in WHOLE and -1 not in operands and ELIDED not in one.rest:
            rest = APART.sub("", one.rest if one.opcode == "constant" else one.rest.split(")", 1)[-1])
            rest = CALLED.sub(lambda found: self._alike(found.group(1)), rest)
            key = scope, one.opcode, tuple(one.shapes), rest, tuple(operands), one.origin
        return self._values.setdefault(key, len(self._values))

    def _alike(self, name: str) -> str:
        """What stands for a computation that is applied to elements, such as the sum of two."""
        return " ".join(f"{one.opcode}{one.shapes}" for one in self.computations.get(name, ()))

    def turns(self, one: Instruction) -> tuple[float, bool]:
        """How often a loop turns, and whether that is known."""
        told = one.turns
        if one.line is not None and one.line in self._loops:
            traced = self._loops[one.line]
            if traced is None:
                return ASSUMED_TRIPS, told == ASSUMED_TRIPS
            told = traced if told is None else told
        return (ASSUMED_TRIPS, False) if told is None else (told, True)

    def depth(self, one: Instruction) -> int:
        """How many products are summed for each element of a `dot`."""
        found = CONTRACTING.search(one.rest)
        _, shape = self.arrays.get(one.operands[0], ("", ())) if one.operands else ("", ())
        if not found or not shape:
            return 1
        return math.prod(shape[int(axis)] for axis in found.group(1).split(",") if axis)
