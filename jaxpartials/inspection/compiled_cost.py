"""What a program costs as XLA has compiled it: operations as they are counted before it, bytes between its kernels."""

import math
import re
from collections.abc import Sequence

import jax
import numpy as np

from jaxpartials.graph.cost import COSTS, ELEMENTWISE, Cost, cost, total
from jaxpartials.graph.graph import Node, Value
from jaxpartials.inspection.balance import PRIMITIVES, WHOLE, Balance, routine, size
from jaxpartials.inspection.hlo import Branches, Instruction, Module

ARITHMETIC = frozenset({
    "add", "subtract", "multiply", "divide", "maximum", "minimum", "negate", "abs", "compare", "select", "and", "or",
    "not", "xor", "floor", "ceil", "sign", "remainder", "clamp",
})  # fmt: skip
SILENT = frozenset({
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "call", "conditional", "after-all",
    "iota",
})  # fmt: skip
ROUTINES = frozenset({"custom-call", "sort", "fft", "convolution", "cholesky", "triangular-solve"})
# Of a type that is none of NumPy's only the size matters.
TYPES = {"c64": np.complex64, "c128": np.complex128}
DIMENSION = re.compile(r"dimensions=\{(\d+)\}")
FFT_LENGTHS = re.compile(r"fft_length=\{([\d,]+)\}")
KERNEL = re.compile(r"dim_labels=\w+_(\w+)->")
WINDOW = re.compile(r"window=\{size=([\dx]+)")
DILATED = re.compile(r"lhs_dilate=([\dx]+)")

Array = tuple[str, tuple[int, ...]]


def compiled_cost(module: Module, balance: Balance) -> Cost:
    """The cost of a compiled program. Of the branches of a conditional the dearest is counted, as before XLA."""
    listings = [one for listing in module.computations.values() for one in listing]
    widths = {one.name: one.bytes for one in listings}
    costs: dict[Branches, list[Cost]] = {(): []}
    for one, times, fused, branches, _ in module.runs:
        here = _operations(one, module, balance)
        if not fused and one.opcode not in SILENT:
            here += Cost(bytes=one.bytes + sum(widths.get(v, 0.0) for v in one.operands))
        costs.setdefault(branches, []).append(times * here)
    # Inner conditionals before outer ones.
    for branches in sorted(costs, key=len, reverse=True):
        if branches and branches in costs:
            *around, (name, _) = branches
            siblings = [other for other in costs if other[:-1] == tuple(around) and other and other[-1][0] == name]
            alternatives = [total(costs.pop(other)) for other in siblings]
            costs.setdefault(tuple(around), []).append(max(alternatives, key=lambda each: each.time))
    return total(costs[()])


def _operations(one: Instruction, module: Module, balance: Balance) -> Cost:
    """Of one instruction that runs once."""
    if one.opcode == "dot":
        flops = 2.0 * one.size * module.depth(one)
        return Cost(flops, contractions=flops)
    if one.opcode in ARITHMETIC:
        return Cost(one.size)
    if one.opcode == "reduce" and one.operands:
        return Cost(max(math.prod(_shape(one, 0, module)) - one.size, 0))
    if one.opcode == "reduce-window":
        return Cost(one.size * (_product(WINDOW, one, "x") - 1))
    if one.opcode in PRIMITIVES:
        arithmetic, transcendental = ELEMENTWISE.get(PRIMITIVES[one.opcode], (1, 0))
        return Cost(one.size * arithmetic, transcendentals=one.size * transcendental)
    if one.opcode in ROUTINES:
        return _routine(one, module, balance)
    if one.opcode == "while":
        turns, known = module.turns(one)
        return Cost(turns=turns, unknown_trips=not known)
    return Cost()


def _routine(one: Instruction, module: Module, balance: Balance) -> Cost:
    """Of what costs more than its elements: as the primitive that it carries out, on these shapes."""
    name = routine(one) or {"TopK": "top_k"}.get(one.target) or one.opcode.replace("-", "_")
    if name == "householder_product" and name not in balance.names:
        return Cost()  # a part of what is counted as one
    operands = [module.arrays[v] for v in one.operands if v in module.arrays]
    if name == "convolution" and len(operands) == 2 and (labels := KERNEL.search(one.rest)):
        shape = operands[1][1]
        features = shape[labels.group(1).index("o")]
        flops = 2.0 * one.size * math.prod(shape) / max(features, 1) / _product(DILATED, one, "x")
        return Cost(flops, contractions=flops)
    if operands and (name in WHOLE or name in ("sort", "top_k", "fft")):
        found = COSTS[name](_equation(name, operands, one))
        return Cost(found.flops, contractions=found.contractions)
    if one.line:
        for node in balance.nodes.get((*one.line, one.primitive), ())[:1]:
            per = one.size / max(size(node), 1) * cost(node)
            return Cost(per.flops, contractions=per.contractions)
    return Cost()


def _equation(name: str, operands: Sequence[Array], one: Instruction) -> Node:
    """What an instruction carries out, to be costed."""

    def values(arrays: Sequence[Array]) -> tuple[Value, ...]:
        types = (jax.ShapeDtypeStruct(shape, TYPES.get(kind, np.float32)) for kind, shape in arrays)
        return tuple(Value(node, i, each) for i, each in enumerate(types))

    params = {}
    if name == "sort" and (along := DIMENSION.search(one.rest)):
        params["dimension"] = int(along.group(1))
    if name == "fft":
        params["fft_lengths"] = (_product(FFT_LENGTHS, one, ","),)
    node = Node(0, name, (), params)
    node.operands, node.outputs = values(operands), values(one.shapes)
    return node


def _shape(one: Instruction, operand: int, module: Module) -> tuple[int, ...]:
    return module.arrays.get(one.operands[operand], ("", ()))[1]


def _product(pattern: re.Pattern[str], one: Instruction, between: str) -> int:
    found = pattern.search(one.rest)
    return math.prod(int(n) for n in found.group(1).split(between)) if found else 1
