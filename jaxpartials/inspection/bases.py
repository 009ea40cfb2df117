"""The Jacobians and Hessians that a program computes: where a basis is pushed or pulled through a linear program.

`jax.jacfwd`, `jacrev` and `hessian` map a pushforward, or a pullback, over the rows of an identity matrix. Such a
matrix is known at trace time, and JAX notes at each equation which transformations it comes from.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from jaxpartials import _jax
from jaxpartials.graph.graph import CONSTANT as ARRAY
from jaxpartials.graph.graph import LEAVES, Graph, Node, Value, reach
from jaxpartials.inspection.liveness import Liveness, is_call
from jaxpartials.rewrite.nested import is_loop
from jaxpartials.structure.axes import FREE, Lane, State, lane_states
from jaxpartials.structure.linearity import CONSTANT, FIXED, LINEAR, node_degrees

FORWARD, REVERSE = "jvp", "transpose"
PRODUCTS = frozenset({"mul", "dot_general", "conv_general_dilated"})
# What makes one row with a one in it for each index.
MADE = frozenset({"scatter", "scatter-add"})
# Another mode must be so many times cheaper, by the number of directions.
BETTER = 2.0
# So many guesses are made at which axis the user maps over.
GUESSES = 6


@dataclass(eq=False)
class Basis:
    """A linear program that the rows of an identity matrix are sent through.

    Attributes:
        directions: how many rows.
        mode: FORWARD or REVERSE.
        before: the transformations around it.
        nodes: the equations of the linear program.
        ends: its results: what the rest of the program reads of it.
        deep: those of its equations that are in loops and branches.
    """

    directions: int
    mode: str
    before: tuple[str, ...]
    nodes: list[Node]
    ends: list[Value]
    deep: dict[Node, None]

    @property
    def size(self) -> float:
        """The elements of its results for each direction."""
        return sum(math.prod(v.shape) for v in self.ends) / self.directions


def bases(live: Liveness, graph: Graph, known: Mapping[Value, np.ndarray]) -> list[Basis]:
    """The Jacobians of a program, in order; `known` are the numbers of values that depend on no input."""
    nodes = live.nodes[graph]
    seeds: dict[Node, _Seeds] = {}
    for node in nodes:
        if any(v in known for v in node.outputs):
            continue
        stack = _jax.transformations(node.source)
        for v in node.operands:
            if v in known and v.dtype.kind in "fc" and len(v.shape):
                root, before, mode = _origin(v, stack, known)
                if mode in (FORWARD, REVERSE) and _is_basis(known[root.outputs[0]]):
                    seeds.setdefault(root, _Seeds(before, mode, [])).values.append(v)
    return [
        _cone(graph, live, known, root, found)
        for root, found in seeds.items()
        if _made_by_jax(root) or _is_pushed(graph, found)
    ]


@dataclass(eq=False)
class _Seeds:
    """What is taken of a basis, under which transformations that were there before it, and what is done with it."""

    before: tuple[str, ...]
    mode: str
    values: list[Value]


def _made_by_jax(root: Node) -> bool:
    """Whether `jax.jacfwd` or `jax.jacrev` made a matrix, or one derivative for each index did."""
    source = root.source
    while source is not None:
        if any(frame.function_name == "_std_basis" for frame in getattr(source.traceback, "frames", ())):
            return True
        source = getattr(source, "caller", None)
    return root.name in MADE


def _is_pushed(graph: Graph, seeds: _Seeds) -> bool:
    """Whether the user's own identity matrix is sent through a linear program.

    In a function that is differentiated it can stand as well: then what comes of it need not be linear in it, or it is
    multiplied by a value and by its derivative, on one line.
    """
    moving = set(seeds.values)
    partners: dict[object, set[Value]] = {}
    for node in graph.traced:
        if node.name in PRODUCTS:
            for v, w in itertools.permutations(node.operands[:2], 2):
                if v in seeds.values:
                    partners.setdefault((node.line, node.name), set()).add(w)
        if _is_inside(node, seeds.before) and any(v in moving for v in node.operands):
            states = node_degrees(node, [LINEAR if v in moving else CONSTANT for v in node.operands])
            if not all(state in (*FIXED, LINEAR) for state in states):
                return False
            moving |= {v for v, state in zip(node.outputs, states, strict=True) if state is LINEAR}
    return all(len(each) == 1 for each in partners.values())


def _is_inside(node: Node, before: tuple[str, ...]) -> bool:
    """Whether an equation is of what is differentiated under a `vmap` after these transformations."""
    stack = _jax.transformations(node.source)
    return stack[: len(before) + 1] == (*before, "vmap") and len(stack) > len(before) + 1


def _is_basis(array: np.ndarray) -> bool:
    """Whether an array is some columns of an identity matrix, one row for each direction."""
    if array.ndim < 2 or array.shape[0] < 2:
        return False
    flat = array.reshape(array.shape[0], -1)
    ones = flat != 0
    return bool((flat[ones] == 1).all() and (ones.sum(axis=0) == 1).all() and (ones.sum(axis=1) <= 1).all())


def _origin(value: Value, stack: Sequence[str], known: Mapping[Value, np.ndarray]) -> tuple[Node, tuple[str, ...], str]:
    """The matrix that a known value was made of, what it was made under, and what is done with it since."""
    node = value.node
    while _jax.transformations(node.source) == tuple(stack):
        further = [v for v in node.operands if v.node.operands and v in known and len(v.shape)]
        if len(further) != 1:
            break
        node = further[0].node
    node = _root(node)
    before = _jax.transformations(node.source)
    further = tuple(stack[len(before) :])
    if stack[: len(before)] == before and further[:1] == ("vmap",) and len(further) > 1:
        return node, before, further[1]
    if node.name in MADE and len(node.operands) == 3:  # one row for each index that the user maps over
        for i in reversed(range(len(stack) - 1)):
            if stack[i] == "vmap" and stack[i + 1] in (FORWARD, REVERSE):
                return node, tuple(stack[:i]), stack[i + 1]
    return node, before, ""


def _root(node: Node) -> Node:
    """The matrix that columns were taken of."""
    while node.operands:
        moved = node.name in ("split", "reshape", "squeeze", "slice", "transpose")
        if not moved and not (node.name == "convert_element_type" and node.operands[0].dtype.kind in "fc"):
            break
        node = node.operands[0].node
    return node


def _cone(graph: Graph, live: Liveness, known: Mapping[Value, np.ndarray], root: Node, seeds: _Seeds) -> Basis:
    nodes, before = live.nodes[graph], seeds.before

    def linear(node: Node) -> bool:
        return _is_inside(node, before) and not any(v in known for v in node.outputs)

    deep: dict[Node, None] = {}
    cone, moving = _moving(nodes, set(seeds.values), linear, live, deep)
    inside = set(cone)
    ends = [v for node in nodes if node not in inside for v in node.operands if v in moving and v.node in inside]
    ends += [v for v in graph.outputs if v in moving and v.node in inside]
    return Basis(root.outputs[0].shape[0], seeds.mode, before, cone, list(dict.fromkeys(ends)), deep)


def _moving(
    nodes: Sequence[Node], start: set[Value], linear: Callable[[Node], bool], live: Liveness, deep: dict[Node, None]
) -> tuple[list[Node], set[Value]]:
    """The equations that read what moves with a basis, and what moves; those in loops and branches go to `deep`."""
    cone, moving = [], set(start)
    for node in nodes:
        flags = [v in moving for v in node.operands]
        if any(flags) and linear(node):
            cone.append(node)
            moving.update(v for v, moves in zip(node.outputs, _outputs(node, flags, live, deep), strict=True) if moves)
    return cone, moving


def _outputs(node: Node, flags: list[bool], live: Liveness, deep: dict[Node, None]) -> list[bool]:
    """Which outputs of an equation move where these operands do."""
    if not (is_loop(node) or is_call(node)) or (node.name == "while" and any(flags[: node.params["cond_nconsts"]])):
        return [True] * len(node.outputs)
    if node.name == "cond" and flags[0]:
        return [True] * len(node.outputs)
    first = {"cond": 1, "while": node.params.get("cond_nconsts", 0)}.get(node.name, 0)
    fixed = {"scan": node.params.get("num_consts", 0), "while": node.params.get("body_nconsts", 0)}.get(node.name, 0)
    carried = {"scan": node.params.get("num_carry", 0), "while": len(node.outputs)}.get(node.name, 0)
    flags = flags[first:]
    while True:
        found = [False] * len(node.outputs)
        for body in node.bodies[1:] if node.name == "while" else node.bodies:
            start = {v for v, moves in zip(body.inputs, flags, strict=True) if moves}
            cone, moving = _moving(live.nodes[body], start, lambda _: True, live, deep)
            deep.update(dict.fromkeys(cone))
            found = [before or v in moving for before, v in zip(found, body.outputs, strict=True)]
        grown = [*flags[:fixed], *(a or b for a, b in zip(flags[fixed : fixed + carried], found, strict=False))]
        grown += flags[fixed + carried :]
        if grown == flags:
            return [a or b for a, b in zip(found, [*flags[fixed : fixed + carried], *found[carried:]], strict=True)]
        flags = grown


def other_mode(basis: Basis, nodes: Sequence[Node]) -> tuple[float, dict[Node, float]] | None:
    """In how many directions the other mode takes a Jacobian, and what part of each equation that leaves.

    None where they are not fewer by the factor BETTER. Where the user maps the Jacobian over lanes, directions are
    those of a lane; what the lanes share in this mode, each has for itself in the other.
    """
    size = basis.size
    shared: dict[Node, int] = {}
    if "vmap" in basis.before:
        longest = max((n for v in basis.ends for n in v.shape), default=1)
        if basis.directions * longest ** basis.before.count("vmap") >= BETTER * size:
            count, shared = lanes(basis, nodes)
            size /= count
    if not size or basis.directions < BETTER * size:
        return None
    left = size / basis.directions
    return size, {node: min(left * shared.get(node, 1), 1.0) for node in (*basis.nodes, *basis.deep)}


def is_through_forward(basis: Basis, bases: Iterable[Basis]) -> bool:
    """Whether a basis goes back through the gradient of one function, which another basis takes forward.

    That each of its directions then meets one of the other's alone makes zeros of all the rest.
    """
    inner = (*basis.before, FORWARD)
    path = (*basis.before, "vmap", REVERSE, FORWARD, "vmap", FORWARD)
    return (
        basis.mode == REVERSE
        and any(
            other.mode == FORWARD and other.before == inner and other.directions == basis.directions for other in bases
        )
        and any(_jax.transformations(node.source)[: len(path)] == path for node in basis.nodes)
    )


def lanes(basis: Basis, nodes: Sequence[Node]) -> tuple[int, dict[Node, int]]:
    """Over how many lanes the user maps a Jacobian, and how many of them share an equation, where more than one do.

    A basis shared by B lanes gives B Jacobians. That lanes are kept apart is proved, axis by axis of what goes in.
    """
    count = 1
    shared: dict[Node, int] = {}
    apart: list[list[State]] = []
    for place, name in enumerate(basis.before):
        if name != "vmap":
            continue
        prefix = basis.before[: place + 1]
        given: dict[Value, None] = {}
        for node in nodes:
            if _jax.transformations(node.source)[: len(prefix)] == prefix:
                given.update((v, None) for v in node.operands if v.shape and not _under(v, prefix))
        for candidates in _guesses(given, basis.ends):
            found = lane_states(basis.ends, candidates, order=0)
            states = [found[v.node.number, v.index] for v in basis.ends]
            if all(isinstance(state, Lane) for state in states) and states not in apart:
                apart.append(states)
                length = candidates[0][0].shape[candidates[0][1]]
                count *= length
                for node in basis.nodes:
                    if all(found.get((node.number, v.index)) == FREE for v in node.outputs):
                        shared[node] = shared.get(node, 1) * length
                break
    return count, shared


def _under(value: Value, prefix: tuple[str, ...]) -> bool:
    node = value.node
    return node.name not in LEAVES and _jax.transformations(node.source)[: len(prefix)] == prefix


def _guesses(given: Iterable[Value], ends: Sequence[Value]) -> list[list[tuple[Value, int]]]:
    """Inputs with an axis each, of one length that the results have: all with it in front, then one by one."""
    lengths = set.intersection(*(set(v.shape) for v in ends)) - {1}
    by: dict[int, list[tuple[Value, int]]] = {}
    for v in sorted(given, key=lambda v: v.node.name == ARRAY):  # weights are mostly shared by the lanes
        for axis, n in enumerate(v.shape):
            if n in lengths:
                by.setdefault(n, []).append((v, axis))
    found = []
    for pairs in by.values():
        front = [pair for pair in pairs if not pair[1]]
        found += [front] if len(front) > 1 else []
        found += [[pair] for pair in pairs]
    return sorted(found, key=lambda pairs: -len(pairs))[:GUESSES]


MOVES = frozenset({"transpose", "reshape", "squeeze", "split", "copy", "convert_element_type"})


def needed_passes(basis: Basis, live: Sequence[Node], outputs: Sequence[Value]) -> int | None:
    """How many directions would do, where a Jacobian is only multiplied, by what is no Jacobian itself, or summed."""
    inside = set(basis.nodes)
    readers: dict[Value, list[Node]] = {}
    for node in live:
        for v in node.operands:
            readers.setdefault(v, []).append(node)
    stack, moved = list(basis.ends), set(basis.ends)
    uses: list[tuple[Node, Value]] = []
    while stack:
        value = stack.pop()
        if value in outputs:
            return None
        for node in readers.get(value, ()):
            if node in inside:
                continue
            if node.name in MOVES:
                stack += [v for v in node.outputs if v not in moved]
                moved |= set(node.outputs)
            else:
                uses.append((node, value))
    passes = 0
    for node, value in uses:
        found = _passes(node, value, moved, inside, basis.directions)
        if found is None:
            return None
        passes += found
    return passes or None


def _passes(node: Node, value: Value, moved: set[Value], inside: set[Node], directions: int) -> int | None:
    """How many directions give a product with a Jacobian, or its sum over all inputs or all outputs."""
    if math.prod(value.shape) < 2:
        return None
    if node.name == "reduce_sum":
        return 1 if _is_one_side(value, node.params["axes"], directions) else None
    if node.name != "dot_general":
        return None
    contracted, batch = node.params["dimension_numbers"]
    k = int(node.operands[1] is value)
    other = node.operands[1 - k]
    # A product with what comes of the Jacobian in any other way than by products cannot be had without it.
    if batch[0] or other in moved or inside & set(reach([other], moved)):
        return None
    if not _is_one_side(value, contracted[k], directions):
        return None
    return math.prod(other.shape) // max(math.prod(other.shape[a] for a in contracted[1 - k]), 1)


def _is_one_side(value: Value, axes: Sequence[int], directions: int) -> bool:
    """Whether these axes of a Jacobian are all those of its inputs, or of its outputs, or both."""
    summed, size = math.prod(value.shape[a] for a in axes), math.prod(value.shape)
    if summed == size:
        return True
    long = [a for a, n in enumerate(value.shape) if n > 1]
    of_that_size = [
        found
        for count in range(1, len(long))
        for found in itertools.combinations(long, count)
        if math.prod(value.shape[a] for a in found) == summed
    ]
    return summed in (directions, size // directions) and (len(of_that_size) == 1 or len(long) == 2)
