"""The Jacobians and Hessians that a program computes: where a basis is pushed or pulled through a linear program.

`jax.jacfwd`, `jacrev` and `hessian` map a pushforward, or a pullback, over the rows of an identity matrix. Such a
matrix is known at trace time, and JAX notes at each equation which transformations it comes from.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jaxpartials import _jax
from jaxpartials.graph.cost import Cost, cost, total
from jaxpartials.graph.graph import Graph, Node, Value, reach
from jaxpartials.inspection.elements import Known, Mask, everywhere, nonzero, read
from jaxpartials.inspection.liveness import Liveness

FORWARD, REVERSE = "jvp", "transpose"


Given = tuple[Mask, np.ndarray | None]  # which elements of an input can be nonzero; its numbers, where they are known


class Elements:
    """Which elements are nonzero, and which are read, in a traced program or a branch of one."""

    def __init__(self, graph: Graph, live: Sequence[Node], given: Sequence[Given] | None = None):
        self.graph, self.live = graph, list(live)
        self.known = Known()
        self.nonzero: dict[Value, Mask] = {}
        self.asked: dict[Value, Mask] = {}
        for i, v in enumerate(graph.inputs):
            mask, array = (everywhere(v), None) if given is None else given[i]
            self.nonzero[v] = mask
            if array is not None:
                self.known.arrays[v] = array
        for node in self.live:
            self.known.note(node)
            for v in node.operands:
                if v not in self.nonzero:
                    array = self.known.get(v)
                    self.nonzero[v] = everywhere(v) if array is None else everywhere(v, bool((array != 0).any()))
            self.nonzero |= dict(zip(node.outputs, nonzero(node, self.nonzero, self.known), strict=True))

    def ask(self, outputs: Sequence[Mask], sparse: set[Node]) -> None:
        """Note which elements are read where these of the outputs are; what `sparse` nodes drop is not."""
        for v, mask in zip(self.graph.outputs, outputs, strict=True):
            self._note(v, mask)
        for node in reversed(self.live):
            asked = [self.asked.get(v) for v in node.outputs]
            if node.effects:
                found: Sequence[Mask | None] = [everywhere(v) for v in node.operands]
            elif node.name == "cond" and not node.opaque:
                found = self._branches(node, asked)
            else:
                found = read(node, asked, self.nonzero, self.known, node in sparse)
            for v, mask in zip(node.operands, found, strict=True):
                if mask is not None:
                    self._note(v, mask)

    def _note(self, value: Value, mask: Mask) -> None:
        before = self.asked.get(value)
        self.asked[value] = mask if before is None else before | mask

    def _branches(self, node: Node, asked: Sequence[Mask | None]) -> list[Mask | None]:
        found: list[Mask | None] = [everywhere(node.operands[0])]
        masks: list[Mask | None] = [None] * (len(node.operands) - 1)
        given = [(self.nonzero.get(v, everywhere(v)), self.known.get(v)) for v in node.operands[1:]]
        for branch in node.bodies:
            inside = Elements(branch, branch.nodes, given)
            wanted = [everywhere(v, False) if m is None else m for m, v in zip(asked, branch.outputs, strict=True)]
            inside.ask(wanted, set(inside.live))
            for i, v in enumerate(branch.inputs):
                here, before = inside.asked.get(v), masks[i]
                if here is not None:
                    masks[i] = here if before is None else before | here
        return found + masks


@dataclass(eq=False)
class Basis:
    """A linear program that the rows of an identity matrix are sent through.

    Attributes:
        directions: how many rows.
        mode: FORWARD or REVERSE.
        mapped: how many axes the user mapped over around it.
        nodes: the equations of the linear program.
        ends: its results: what the rest of the program reads of it.
    """

    directions: int
    mode: str
    mapped: int
    nodes: list[Node]
    ends: list[Value]

    @property
    def cost(self) -> Cost:
        return total(map(cost, self.nodes))


def bases(live: Liveness, graph: Graph, elements: Elements) -> list[Basis]:
    """The Jacobians of a program, in order."""
    nodes = live.nodes[graph]
    known = elements.known.arrays
    seeds: dict[Node, list[tuple[Value, tuple[str, ...], str]]] = {}
    for node in nodes:
        if any(v in known for v in node.outputs):
            continue
        stack = _jax.transformations(node.source)
        for v in node.operands:
            if v in known and v.dtype.kind in "fc" and _is_basis(known[v]):
                root = _root(v)
                before = _jax.transformations(root.source)
                further = stack[len(before) :]
                if (
                    stack[: len(before)] == before
                    and further[:1] == ("vmap",)
                    and further[1:2] in ((FORWARD,), (REVERSE,))
                ):
                    seeds.setdefault(root, []).append((v, before, further[1]))
    return [_cone(graph, nodes, known, found) for found in seeds.values()]


def _is_basis(array: np.ndarray) -> bool:
    """Whether an array is some columns of an identity matrix, one row for each direction."""
    if array.ndim < 2 or array.shape[0] < 2:
        return False
    flat = array.reshape(array.shape[0], -1)
    ones = flat != 0
    return bool((flat[ones] == 1).all() and (ones.sum(axis=0) == 1).all() and (ones.sum(axis=1) <= 1).all())


def _root(value: Value) -> Node:
    """The matrix that the columns were taken of."""
    node = value.node
    while node.operands:
        moved = node.name in ("split", "reshape", "squeeze", "slice", "transpose")
        if not moved and not (node.name == "convert_element_type" and node.operands[0].dtype.kind in "fc"):
            break
        node = node.operands[0].node
    return node


def _cone(graph: Graph, nodes: Sequence[Node], known: dict, seeds: list) -> Basis:
    start = {v for v, _, _ in seeds}
    value, before, mode = seeds[0]
    moving: set[Node] = set()
    for node in nodes:
        if any(v in start or v.node in moving for v in node.operands):
            stack = _jax.transformations(node.source)
            inside = stack[: len(before) + 1] == (*before, "vmap") and len(stack) > len(before) + 1
            if inside and not any(v in known for v in node.outputs):
                moving.add(node)
    ends: dict[Value, None] = {}
    for node in nodes:
        if node not in moving:
            ends.update((v, None) for v in node.operands if v.node in moving)
    ends.update((v, None) for v in graph.outputs if v.node in moving)
    cone = [node for node in nodes if node in moving]
    return Basis(value.shape[0], mode, before.count("vmap"), cone, list(ends))


def needed_passes(basis: Basis, live: Sequence[Node], outputs: Sequence[Value]) -> int | None:
    """How many directions would do, where a Jacobian is only multiplied by something that does not come from it."""
    inside = set(basis.nodes)
    readers: dict[Value, list[Node]] = {}
    for node in live:
        for v in node.operands:
            readers.setdefault(v, []).append(node)
    stack = list(basis.ends)
    passes = 0
    while stack:
        value = stack.pop()
        if value in outputs:
            return None
        for node in readers.get(value, ()):
            if node in inside:
                continue
            if node.name in ("transpose", "reshape", "squeeze", "split", "copy", "convert_element_type"):
                stack += node.outputs
                continue
            if node.name != "dot_general" or math.prod(value.shape) < 2:
                return None
            contracted, batch = node.params["dimension_numbers"]
            k = int(node.operands[1] is value)
            other = node.operands[1 - k]
            if batch[0] or other is value or inside & set(reach([other])):
                return None
            passes += math.prod(other.shape) // max(math.prod(other.shape[a] for a in contracted[1 - k]), 1)
    return passes or None
