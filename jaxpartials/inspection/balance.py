"""How many elements of each operation a program computes on each line: as it was traced, and as XLA has compiled it.

Most instructions tell the line that they come from. Some tell nothing, or only the loop that they are in: products with
constants, products inside loops. Those may come from any line with a product of the same size and depth that is not yet
accounted for, so what a line computes lies between two numbers: what no other line can account for, and all that this
one can.
"""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import jax

from jaxpartials import _jax
from jaxpartials.graph.graph import CONSTANT, LITERAL, Graph, Node
from jaxpartials.inspection.duplicates import spare
from jaxpartials.inspection.finding import Work
from jaxpartials.inspection.hlo import Instruction, Line, Module
from jaxpartials.inspection.scopes import Program, known_at_trace_time, turns
from jaxpartials.inspection.unused import dead

# Opcodes by the primitives that they carry out.
OPCODES = {
    "sin": "sine", "cos": "cosine", "tan": "tan", "tanh": "tanh", "exp": "exponential", "log": "log",
    "log1p": "log-plus-one", "expm1": "exponential-minus-one", "logistic": "logistic", "sqrt": "sqrt", "rsqrt": "rsqrt",
    "cbrt": "cbrt", "pow": "power", "atan2": "atan2", "erf": "erf", "sort": "sort", "fft": "fft",
    "conv_general_dilated": "convolution", "exp2": "exponential",
}  # fmt: skip
PRIMITIVES = {
    opcode: name for name, opcode in reversed(OPCODES.items()) if opcode not in ("sort", "fft", "convolution")
}  # fmt: skip
# What is computed one element at a time, if not by one instruction, then by several of these.
ELEMENTWISE_OPCODES = frozenset(PRIMITIVES)
PLAIN = {
    "add": "add", "add_any": "add", "sub": "subtract", "mul": "multiply", "div": "divide", "max": "maximum",
    "min": "minimum", "reduce_sum": "reduce", "reduce_max": "reduce", "neg": "negate",
}  # fmt: skip
DOT = "dot_general"
CONTRACTED = frozenset({"dot", "custom-call", "reduce", "convolution"})
# Libraries are called by names such as lapack_sgeqrf_ffi, cusolver_geqrf_ffi, __cublas$triangularSolve.
ROUTINES = {
    "geqrf": "geqrf", "geqp3": "geqp3", "orgqr": "householder_product", "ungqr": "householder_product",
    "getrf": "lu", "potrf": "cholesky", "cholesky": "cholesky", "trsm": "triangular_solve",
    "triangularsolve": "triangular_solve", "gesdd": "svd", "gesvd": "svd", "syev": "eigh", "heev": "eigh",
    "geev": "eig", "gees": "schur", "gehrd": "hessenberg", "sytrd": "tridiagonal", "hetrd": "tridiagonal",
}  # fmt: skip
# Counted whole, however many elements they have.
WHOLE = frozenset({*ROUTINES.values(), "qr"})
# What JAX lowers to other primitives, by the first of them.
LOWERED = {"qr": "geqrf", "logistic": "exp", "exp2": "exp"}
# Instructions so named tell the loop, branch or call that they are in, not what they come from.
AROUND = frozenset({
    "", "while", "scan", "cond", "body", "branch", "jit", "pjit", "closed_call", "core_call", "call", "eval_jaxpr",
    "checkpoint", "remat2", "custom_jvp_call", "custom_vjp_call", "shard_map",
})  # fmt: skip

# A call of a library of which nothing is known.
STRANGE = "strange"

Key = tuple[str, int, str]
Sizes = tuple[int, ...]  # elements, and of a product how many terms each sums up


@dataclass
class Cell:
    """Elements of one operation, on one line, of one size.

    Attributes:
        traced: as traced.
        merged: of these, what is left once equal equations are one and dead ones gone, which XLA does first.
        foldable: of these, what XLA may compute while it compiles, as it depends on constants alone.
        made: in the compiled program.
    """

    traced: float = 0.0
    merged: float = 0.0
    foldable: float = 0.0
    made: float = 0.0


class Balance:
    """A traced program beside the compiled one.

    Attributes:
        nodes: the equations by line and primitive.
        made: elements in the compiled program by line and primitive.
        distinct: the same without the copies in further fusions.
        names: the primitives of the traced program.
    """

    def __init__(self, module: Module, program: Program):
        self.nodes: dict[Key, list[Node]] = {}
        self.names: set[str] = set()
        self._cells: dict[Key, dict[Sizes, Cell]] = {}
        self._trace(program.traced, 1.0)
        for node, part in flat([*spare(program), *dead(program)]):
            cell = self._cell(node)
            if cell is not None:
                cell.merged -= part * size(node)
        for node in known_at_trace_time(program.traced, (LITERAL, CONSTANT)) & set(program.live.nodes[program.traced]):
            cell = self._cell(node)
            if cell is not None:
                cell.foldable += size(node)
        self._alike: dict[tuple[str, Sizes], list[Key]] = {}
        for key, cells in self._cells.items():
            for sizes in cells:
                self._alike.setdefault((key[2], sizes), []).append(key)
        self.made: dict[Key, float] = {}
        self.distinct: dict[Key, float] = {}
        self._parts: dict[Key, dict[str, float]] = {}  # the distinct elements by opcode
        self._loose: dict[tuple[str, Sizes], float] = {}  # whose line nothing tells
        self._strange: dict[Line | None, float] = {}  # calls of what nothing is known about
        self._read(module)

    # ---- the traced program

    def _trace(self, graph: Graph, runs: float) -> None:
        for node in graph.traced:
            self.names.add(node.name)
            key = key_of(node)
            if key is not None:
                self.nodes.setdefault(key, []).append(node)
                cell = self._cells.setdefault(key, {}).setdefault(_sizes(node), Cell())
                cell.traced += runs * size(node)
                cell.merged += runs * size(node)
            for body in node.bodies:
                self._trace(body, runs * turns(node))

    def _cell(self, node: Node) -> Cell | None:
        key = key_of(node)
        return None if key is None else self._cells[key][_sizes(node)]

    def traced(self, key: Key) -> float:
        return sum(cell.traced for cell in self._cells.get(key, {}).values())

    def merged(self, key: Key) -> float:
        return sum(cell.merged for cell in self._cells.get(key, {}).values())

    # ---- the compiled program

    def _read(self, module: Module) -> None:
        known: set[tuple[Key | str, int]] = set()
        for one, runs, _, _, value in module.runs:
            name = _name(one)
            tells = one.line is not None and (name in WHOLE or one.primitive not in AROUND)
            where = (*one.line, name) if one.line is not None and tells else name
            new = (where, value) not in known
            known.add((where, value))
            sizes = _made_sizes(one, name, module)
            amount = runs * (sizes[0] if sizes else 1)
            if not isinstance(where, str):
                self._note(where, one.opcode, sizes, amount, new)
            if name == STRANGE:
                self._strange[one.line] = self._strange.get(one.line, 0.0) + runs
            elif where not in self.nodes and new and _is_loose(one, name):
                self._loose[name, sizes] = self._loose.get((name, sizes), 0.0) + amount

    def _note(self, key: Key, opcode: str, sizes: Sizes, amount: float, new: bool) -> None:
        if _carries_out(opcode, key[2]):
            self.made[key] = self.made.get(key, 0.0) + amount
            self.distinct[key] = self.distinct.get(key, 0.0) + new * amount
            cell = self._cells.get(key, {}).get(sizes)
            if cell is not None:
                cell.made += new * amount
        if opcode in ELEMENTWISE_OPCODES:
            parts = self._parts.setdefault(key, {})
            parts[opcode] = parts.get(opcode, 0.0) + new * amount

    def span(self, key: Key) -> tuple[float, float]:
        """The fewest and the most elements that the compiled program can compute of an operation on a line."""
        low, high = self._told(key)
        name = key[2]
        for sizes in self._cells.get(key, {}):
            loose = self._loose.get((name, sizes), 0.0)
            if loose:
                room = self._room(name, sizes)
                least = max(loose - sum(room.values()) + room[key], 0.0)
                low, high = low + least, high + max(min(loose, room[key]), least)
        if name in WHOLE:
            return low, high + self._strange.get(None, 0.0) + self._strange.get(key[:2], 0.0)
        alien = (n for each, n in self._loose.items() if each[0] == name and each not in self._alike)
        return low, high + sum(alien)

    def _told(self, key: Key) -> tuple[float, float]:
        """The same of the instructions that tell their line."""
        name, parts = key[2], self._parts.get(key)
        if not parts:
            return _exactly(self.distinct.get(key, 0.0))
        kinds = {node.outputs[0].dtype for node in self.nodes[key]}
        told = sum(n for opcode, n in parts.items() if _carries_out(opcode, name))
        if told and all(dtype.kind != "c" for dtype in kinds):
            return _exactly(told)
        if len(kinds) == 1 and (found := _expansion(self.nodes[key][0])):
            return _exactly(max(parts.get(opcode, 0.0) / n for opcode, n in found.items()))
        return 0.0, sum(parts.values())

    def _room(self, name: str, sizes: Sizes) -> dict[Key, float]:
        """What each line may compute of an operation beyond what tells its line."""
        cells = {key: self._cells[key][sizes] for key in self._alike[name, sizes]}
        made = self._loose[name, sizes] + sum(cell.made for cell in cells.values())
        # If no more is left than if all that is equal were merged, it has been.
        merged = made <= sum(cell.merged for cell in cells.values())
        return {key: max((cell.merged if merged else cell.traced) - cell.made, 0.0) for key, cell in cells.items()}

    def folded(self, key: Key) -> float:
        """What XLA seems to have computed from constants: it can have, and less is left than after merging."""
        found = 0.0
        for sizes, cell in self._cells.get(key, {}).items():
            if cell.foldable:
                alike = [self._cells[other][sizes] for other in self._alike[key[2], sizes]]
                made = self._loose.get((key[2], sizes), 0.0) + sum(each.made for each in alike)
                found += min(cell.foldable, max(sum(each.merged for each in alike) - made, 0.0))
        return found


# ---- equations


def flat(work: Iterable[Work]) -> Iterable[tuple[Node, float]]:
    """The equations of some work, those in the bodies of its loops too, with how much of each is spare."""

    def into(node: Node, spare: float) -> Iterable[tuple[Node, float]]:
        yield node, spare
        for body in node.bodies:
            for inner in body.traced:
                yield from into(inner, spare * turns(node))

    for each in work:
        if each.spare:
            yield from into(each.node, each.spare)


def key_of(node: Node) -> Key | None:
    known = node.name in OPCODES or node.name in WHOLE or node.name in PLAIN or node.name == DOT
    if not known or node.line is None:
        return None
    return node.line[0], node.line[1], LOWERED.get(node.name, node.name)


def size(node: Node) -> int:
    """The elements of a result; a factorization is one thing, however many results it has."""
    return 1 if node.name in WHOLE else math.prod(node.outputs[0].shape)


def _sizes(node: Node) -> Sizes:
    if node.name in WHOLE:
        return ()
    if node.name != DOT:
        return (size(node),)
    (contracted, _), _ = node.params["dimension_numbers"]
    return size(node), math.prod(node.operands[0].shape[axis] for axis in contracted)


# ---- instructions


def routine(one: Instruction) -> str | None:
    """The primitive that a call of a library carries out."""
    target = one.target.lower()
    return next((name for part, name in ROUTINES.items() if part in target), None)


def _name(one: Instruction) -> str:
    """The primitive that an instruction carries out, or is a part of."""
    if one.opcode == "dot":
        return DOT  # what is folded into a product, a transpose say, may have given it its name
    if one.opcode in ("cholesky", "triangular-solve"):
        return one.opcode.replace("-", "_")
    if one.opcode in ("custom-call", "while"):
        # What no library does may be a loop.
        parts = [LOWERED.get(part, part) for part in one.origin[0].split("/") if part in WHOLE]
        found = routine(one) or (parts[-1] if parts else None)
        if found is not None:
            return found
        if one.opcode == "custom-call" and one.primitive not in OPCODES and one.primitive != DOT:
            return STRANGE
    if one.primitive in AROUND and one.opcode in PRIMITIVES:
        return PRIMITIVES[one.opcode]
    if one.primitive in WHOLE:
        return ""  # what prepares a call, or takes its results apart
    return LOWERED.get(one.primitive, one.primitive)


def _exactly(elements: float) -> tuple[float, float]:
    return elements, elements


def _made_sizes(one: Instruction, name: str, module: Module) -> Sizes:
    if name in WHOLE:
        return ()
    return (one.size, module.depth(one)) if name == DOT else (one.size,)


def _is_loose(one: Instruction, name: str) -> bool:
    """Whether an instruction may come from any line."""
    if name == DOT:
        return one.opcode == "dot" and one.primitive not in WHOLE
    return name in WHOLE or (one.primitive in AROUND and name in OPCODES and _carries_out(one.opcode, name))


def _carries_out(opcode: str, primitive: str) -> bool:
    if primitive == DOT:
        return opcode in CONTRACTED
    if primitive in WHOLE:
        return True
    if (primitive, opcode) in (("mul", "select"), ("exp", "logistic")):  # by zeros and ones; where there is one
        return True
    return opcode in (OPCODES.get(primitive), PLAIN.get(primitive)) and opcode is not None


def _expansion(node: Node) -> dict[str, int]:
    """How many instructions of each kind XLA makes of an elementwise operation that it has none for."""
    key = node.name, node.outputs[0].dtype.name, len(node.operands)
    if key not in _expansions:
        types = [jax.ShapeDtypeStruct((8,) if v.shape else (), v.dtype) for v in node.operands]
        alone = jax.jit(lambda *operands: _jax.bind(node.primitive, node.params, operands))
        module = Module(alone.lower(*types).compile().as_text() or "")
        _expansions[key] = Counter(one.opcode for one, *_ in module.runs if one.opcode in ELEMENTWISE_OPCODES)
    return _expansions[key]


_expansions: dict[tuple[str, str, int], dict[str, int]] = {}
