"""Counts over a compiled program's text.

`compiled.cost_analysis()` counts a loop's body once. Here a body counts as often as the loop runs, which XLA notes
beside the loop whenever it knows.
"""

import math
import re
from collections import Counter
from functools import partial

_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%([\w.\-]+) = (.*?) ([a-z][\w\-]*)\((.*)$")
_SHAPE = re.compile(r"([a-z]+[0-9]*[\w]*)\[([\d,]*)\]")
_CALLED = re.compile(r"(?:calls|to_apply|body|condition|(?:branch|true|false)_computations?)=(\{[^}]*\}|%[\w.\-]+)")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')

# fmt: off
ARITHMETIC = frozenset((
    "abs", "add", "atan2", "cbrt", "ceil", "clamp", "cosine", "divide", "erf", "exponential",
    "exponential-minus-one", "floor", "log", "log-plus-one", "logistic", "maximum", "minimum", "multiply", "negate",
    "power", "remainder", "rsqrt", "sine", "sqrt", "subtract", "tan", "tanh",
))
# fmt: on


def flops(text: str) -> float | None:
    """Floating-point operations of one run; None when a loop's length is unknown.

    A multiply-add of a dot is two; an element of any other arithmetic, transcendental functions too, is one. Library
    calls (factorisations, sorts) and convolutions are not counted.
    """
    program = _Program(text)
    return None if program.unknown_loop else program.total(program.entry, _flops)


def opcodes(text: str) -> Counter:
    """How often each operation is executed, inside fusions and loops too: what to compare when a ratio is poor."""
    program = _Program(text)
    counted = Counter()
    for name in {instruction.opcode for body in program.bodies.values() for instruction in body}:
        counted[name] = int(program.total(program.entry, partial(_is, name)))
    return +counted


def _is(opcode: str, instruction: "_Instruction", _) -> float:
    return float(instruction.opcode == opcode)


class _Instruction:
    def __init__(self, name: str, result: str, opcode: str, rest: str):
        self.name, self.result, self.opcode, self.rest = name, result, opcode, rest
        self.trips = int(found.group(1)) if (found := _TRIPS.search(rest)) else None
        self.called = [name for group in _CALLED.findall(rest) for name in re.findall(r"%([\w.\-]+)", group)]
        self.operands = re.findall(r"%([\w.\-]+)", rest.split("), ")[0])


class _Program:
    """The computations of one module, and how often each instruction runs."""

    def __init__(self, text: str):
        self.bodies: dict[str, list[_Instruction]] = {}
        self.entry = ""
        body: list[_Instruction] = []
        for line in text.splitlines():
            if found := _COMPUTATION.match(line):
                body = self.bodies[found.group(1)] = []
                if line.startswith("ENTRY"):
                    self.entry = found.group(1)
            elif found := _INSTRUCTION.match(line):
                body.append(_Instruction(*found.groups()))
        everything = [instruction for body in self.bodies.values() for instruction in body]
        self.unknown_loop = any(i.opcode == "while" and i.trips is None for i in everything)

    def total(self, name: str, weight) -> float:
        """The sum of `weight` over everything that runs when the computation `name` does."""
        body = self.bodies[name]
        shapes = {instruction.name: instruction.result for instruction in body}
        result = 0.0
        for instruction in body:
            result += weight(instruction, shapes)
            parts = [self.total(called, weight) for called in instruction.called]
            if instruction.opcode == "while":
                result += (instruction.trips or 1) * sum(parts)
            elif instruction.opcode == "conditional":
                result += max(parts)
            elif instruction.opcode in ("call", "fusion"):
                result += sum(parts)
            # What a reduction or a scatter applies is counted with it, element by element.
        return result


def _shape(text: str) -> tuple[str, tuple[int, ...]]:
    found = _SHAPE.search(text)
    if found is None:
        return "", ()
    return found.group(1), tuple(int(n) for n in found.group(2).split(",") if n)


def _flops(instruction: _Instruction, shapes: dict[str, str]) -> float:
    dtype, shape = _shape(instruction.result)
    if not dtype.startswith(("f", "bf", "c")):
        return 0.0
    size = math.prod(shape)
    if instruction.opcode == "dot":
        _, lhs = _shape(shapes[instruction.operands[0]])
        found = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", instruction.rest)
        contracted = [int(n) for n in found.group(1).split(",") if n] if found else []
        return 2.0 * size * math.prod(lhs[n] for n in contracted)
    if instruction.opcode in ("reduce", "reduce-window"):
        return float(math.prod(_shape(shapes[instruction.operands[0]])[1]))
    return float(size) if instruction.opcode in ARITHMETIC else 0.0
