"""The optimised program of XLA, read from its text: which operations it runs, how often, and for which line.

    %dot.3 = f32[8,4]{1,0} dot(%x, %w), lhs_contracting_dims={1}, ..., metadata={op_name="jit(f)/dot_general" ...}

An instruction counts as often as its computation runs: the body of a loop `known_trip_count` times, a fused computation
as often as the fusion. The last word of `op_name` is the primitive that it comes from.
"""

import functools
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from jaxpartials.graph.cost import ASSUMED_TRIPS

INSTRUCTION = re.compile(r"^\s*(ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)$")
COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
SHAPE = re.compile(r"([a-z]+\d*[a-z0-9]*)\[([\d,]*)\]")
CALLED = re.compile(r"(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)")
BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
OP_NAME = re.compile(r'op_name="((?:[^"\\]|\\.)*)"')
LINE = re.compile(r'source_file="([^"]*)"\s+source_line=(\d+)')
FRAME = re.compile(r"stack_frame_id=(\d+)")
CONTRACTING = re.compile(r"lhs_contracting_dims=\{([\d,]*)\}")
BYTES = {"pred": 1, "bf16": 2, "c64": 8, "c128": 16}


@dataclass
class Instruction:
    name: str
    opcode: str
    shapes: list[tuple[str, tuple[int, ...]]]
    rest: str
    primitive: str
    line: tuple[str, int] | None
    operands: list[str] = field(default_factory=list)

    @property
    def size(self) -> int:
        """The elements of the first array of the result."""
        return math.prod(self.shapes[0][1]) if self.shapes else 0

    @property
    def bytes(self) -> float:
        return float(sum(math.prod(shape) * _width(kind) for kind, shape in self.shapes))


@functools.lru_cache(maxsize=64)
def _width(kind: str) -> int:
    found = re.search(r"\d+", kind)
    return BYTES.get(kind) or (max(int(found.group()) // 8, 1) if found else 0)


class Module:
    """A compiled program."""

    def __init__(self, text: str):
        self.computations: dict[str, list[Instruction]] = {}
        self.entry = ""
        self._frames: dict[int, tuple[str, int]] = {}
        self._read(text)
        # Of each computation: how often it runs, and whether its instructions are fused.
        self.runs: dict[str, float] = {}
        self.fused: set[str] = set()
        if self.entry:
            self._count(self.entry, 1.0)

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
                current.append(self._instruction(*found.groups()[1:]))

    def _instruction(self, name: str, shape: str, opcode: str, rest: str) -> Instruction:
        shapes = [(kind, tuple(int(n) for n in sizes.split(",") if n)) for kind, sizes in SHAPE.findall(shape)]
        op = OP_NAME.search(rest)
        primitive = re.sub(r"\[.*", "", op.group(1).rsplit("/", 1)[-1]) if op else ""
        line = None
        if at := LINE.search(rest):
            line = at.group(1), int(at.group(2))
        elif at := FRAME.search(rest):
            line = self._frames.get(int(at.group(1)))
        operands = re.findall(r"%([\w.\-]+)", rest.split(")", 1)[0])
        return Instruction(name, opcode, shapes, rest, primitive, line, operands)

    def _count(self, name: str, runs: float) -> None:
        self.runs[name] = self.runs.get(name, 0.0) + runs
        for one in self.computations.get(name, ()):
            if one.opcode == "while":
                trips = TRIPS.search(one.rest)
                turns = float(trips.group(1)) if trips else ASSUMED_TRIPS
                for inner in CALLED.findall(one.rest):
                    self._count(inner, runs * turns)
            elif one.opcode == "fusion":
                for inner in CALLED.findall(one.rest):
                    self.fused.add(inner)
                    self._count(inner, runs)
            elif one.opcode in ("call", "async-start"):
                for inner in CALLED.findall(one.rest):
                    if name in self.fused:
                        self.fused.add(inner)
                    self._count(inner, runs)
            elif one.opcode == "conditional":
                listed = BRANCHES.search(one.rest)
                for inner in re.findall(r"[\w.\-]+", listed.group(1)) if listed else CALLED.findall(one.rest):
                    self._count(inner, runs)

    def instructions(self) -> Iterator[tuple[Instruction, float, bool]]:
        """Every instruction that runs, how often, and whether it is part of a fusion."""
        for name, runs in self.runs.items():
            for one in self.computations.get(name, ()):
                yield one, runs, name in self.fused

    def depth(self, one: Instruction, sizes: dict[str, tuple[int, ...]]) -> int:
        """How many products are summed for each element of a `dot`."""
        found = CONTRACTING.search(one.rest)
        shape = sizes.get(one.operands[0], ()) if one.operands else ()
        if not found or not shape:
            return 1
        return math.prod(shape[int(axis)] for axis in found.group(1).split(",") if axis)
