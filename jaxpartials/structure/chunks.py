"""What becomes of a program's results when its batch is taken in chunks.

The program is traced for the whole batch and for a chunk of it; both are read side by side, equation by equation. Every
value of the chunk's program is proved to be, of the whole one's,

    the same;   its slice along the lane axis;   or a part of a sum over the lanes,

times a power of the number of lanes, which is how a mean and its gradient depend on it: 1/B here, 1/C there. What
cannot be proved to be one of these is named.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from jaxpartials import _jax
from jaxpartials.graph.graph import CONSTANT, INPUT, LEAVES, LITERAL, Graph, Node, Value, freeze, is_zero
from jaxpartials.structure import linearity
from jaxpartials.structure.axes import Flow
from jaxpartials.structure.lanes import FREE, Lane, Mixed, State
from jaxpartials.structure.linearity import Degree


@dataclass(frozen=True)
class Part:
    """What a value of the chunk's program is of the whole one's.

    Attributes:
        lane: where the lanes lie; FREE where the value has none.
        summed: whether it is a sum over the lanes, so that the chunks' values add up.
        power: with C lanes instead of B, the value is (B/C)^power too small.
    """

    lane: State = FREE
    summed: bool = False
    power: int = 0


SAME = Part()


class Unchunkable(Exception):
    """A value that is no function of the chunk alone; with the equation that makes it so."""

    def __init__(self, reason: str, node: Node | None = None):
        super().__init__(reason if node is None else f"{reason}, at {node.where}")


class OwnRule(Unchunkable):
    """A derivative rule of the user's, of which the value tells nothing."""


def parts(
    whole: Graph, chunk: Graph, axes: Sequence[int | None], lanes: int, size: int, *, derivatives: bool = False
) -> list[Part]:
    """What each output of `chunk` is of the same output of `whole`.

    Args:
        whole: the program for `lanes` lanes, with every equation as traced (`shared=False`).
        chunk: the same for `size` lanes.
        axes: the lane axis of each input, None where it has none.
        derivatives: whether the same must hold of all derivatives: a user's own derivative rule, which may mix lanes or
            count them where the value does not, then stands in the way.
    """
    reader = _Reader(lanes, size, derivatives)
    return reader.through(whole, chunk, [SAME if axis is None else Part(Lane(axis)) for axis in axes])


class _Reader:
    def __init__(self, lanes: int, size: int, derivatives: bool):
        self.lanes, self.size, self.derivatives = lanes, size, derivatives
        self.flow = Flow(lanes, 0)

    def through(self, whole: Graph, chunk: Graph, given: Sequence[Part]) -> list[Part]:
        """The parts of a program's outputs: of each pair of values that are computed alike, from the outputs down."""
        for graph in (whole, chunk):
            if graph.effects:
                raise Unchunkable(f"{graph.effects[0].name} has effects", graph.effects[0])
        if len(whole.inputs) != len(chunk.inputs) or len(whole.outputs) != len(chunk.outputs):
            raise Unchunkable(f"the program for {self.size} lanes is another one")
        found = {
            pair: self._sized(*pair, part)
            for pair, part in zip(zip(whole.inputs, chunk.inputs, strict=True), given, strict=True)
        }
        outputs = list(zip(whole.outputs, chunk.outputs, strict=True))
        stack: list[tuple[Value, Value, Node | None]] = [(value, other, None) for value, other in reversed(outputs)]
        while stack:
            value, other, reader = stack[-1]
            if (value, other) in found:
                stack.pop()
                continue
            node, its = value.node, other.node
            if node.name in LEAVES or its.name in LEAVES:
                found[value, other] = self._leaf(value, other, reader)
                continue
            if self._another(node, its) or value.index != other.index:
                raise self._differ(node, its)
            operands = list(zip(node.operands, its.operands, strict=True))
            waiting = [(v, w, node) for v, w in reversed(operands) if (v, w) not in found]
            if waiting:
                stack += waiting
                continue
            states = self.step(node, its, [found[pair] for pair in operands])
            for here, there, part in zip(node.outputs, its.outputs, states, strict=True):
                found[here, there] = self._sized(here, there, part)
        return [found[pair] for pair in outputs]

    def _another(self, node: Node, other: Node) -> bool:
        """Whether two equations differ in more than their settings."""
        return any(
            len(here) != len(there)
            for here, there in (
                (node.operands, other.operands), (node.outputs, other.outputs), (node.bodies, other.bodies),
            )
        ) or node.name != other.name  # fmt: skip

    def _differ(self, node: Node, other: Node) -> Unchunkable:
        return Unchunkable(
            f"the program for {self.size} lanes is another one than that for {self.lanes}:"
            f" {_described(other)}, in place of {_described(node)}"
            + " (JAX writes many programs for one lane otherwise; two are seldom a problem)"
            * (self.size == 1)
        )

    def _leaf(self, value: Value, other: Value, reader: Node | None) -> Part:
        """What a number or an array closed over is."""
        if value.node.name != other.node.name or value.node.name == INPUT or value.dtype != other.dtype:
            raise self._differ(value.node, other.node)
        array, its = value.node.params["value"], other.node.params["value"]
        if value.node.name == CONSTANT:
            if array is its or (value.shape == other.shape and np.array_equal(np.asarray(array), np.asarray(its))):
                return SAME
            raise Unchunkable(f"a constant of shape {list(value.shape)} depends on the number of lanes", reader)
        if freeze(array) == freeze(its):
            return SAME
        for power in (1, -1):
            if self._counts(array, its, power):
                return Part(power=power)
        raise Unchunkable(f"the number {array} depends on the number of lanes", reader)

    def _counts(self, array: np.ndarray, its: np.ndarray, power: int) -> bool:
        """Whether one number is a multiple of the number of lanes to this power, and the other the same of a chunk."""
        if np.issubdtype(array.dtype, np.integer):
            # A multiple of one over the lanes is no integer.
            whole, rest = divmod(int(its), self.size)
            return power == 1 and rest == 0 and int(array) == whole * self.lanes
        if not jax.dtypes.issubdtype(array.dtype, np.inexact):
            return False
        wanted = complex(its) * (self.lanes / self.size) ** power
        return abs(complex(array) - wanted) <= 4 * float(jax.numpy.finfo(array.dtype).eps) * abs(wanted)

    def _sized(self, value: Value, other: Value, part: Part) -> Part:
        """The shapes of both programs differ along the lane axis, and nowhere else."""
        here, there = value.shape, other.shape
        if getattr(value.aval, "dtype", None) != getattr(other.aval, "dtype", None):
            raise Unchunkable(f"{value.node.name} has another dtype for {self.size} lanes", value.node)
        differing = [axis for axis, (m, n) in enumerate(zip(here, there, strict=False)) if m != n]
        lane = [part.lane.axis] if isinstance(part.lane, Lane) else []
        if len(here) == len(there) and differing == lane:
            if all(here[axis] * self.size == there[axis] * self.lanes for axis in lane):
                return part
        elif part.lane == FREE and not part.summed and len(here) == len(there) and len(differing) == 1:
            # One number, or one row, repeated for every lane.
            (axis,) = differing
            if value.node.name == "broadcast_in_dim" and (here[axis], there[axis]) == (self.lanes, self.size):
                return replace(part, lane=Lane(axis))
        raise Unchunkable(
            f"{value.node.name} has shape {list(here)} for {self.lanes} lanes and {list(there)} for {self.size}",
            value.node,
        )

    # ---- one equation

    def step(self, node: Node, other: Node, states: Sequence[Part]) -> Sequence[Part]:
        if node.effects:
            raise Unchunkable(f"{node.name} has effects", node)
        self._same_settings(node, other)
        if node.bodies:
            return self._call(node, other, states)
        if all(part == SAME for part in states):
            return [SAME] * len(node.outputs)
        lanes = self.flow.step(node, [part.lane for part in states])
        contracted = any(isinstance(state, Mixed) for state in lanes)
        if contracted and not self._sums_lanes(node, states):
            (first, *_) = (state for state in lanes if isinstance(state, Mixed))
            raise Unchunkable(first.reason, first.node or node)
        moved = [part for part in states if part.summed or part.power]
        if not moved:
            return [Part(FREE, True)] if contracted else [Part(lane) for lane in lanes]
        kinds = self._combined(node, states)
        if contracted:
            (kind,) = kinds
            if kind.summed:
                raise Unchunkable(f"{node.name} adds up what is a sum over the lanes already", node)
            return [replace(kind, summed=True)]
        for kind, lane in zip(kinds, lanes, strict=True):
            if kind.summed and lane != FREE:
                raise Unchunkable(f"{node.name} takes a sum over the lanes back to the lanes", node)
        return [replace(kind, lane=lane) for kind, lane in zip(kinds, lanes, strict=True)]

    def _sums_lanes(self, node: Node, states: Sequence[Part]) -> bool:
        """Whether a node adds over all lanes: reduce_sum along them, or a contraction of them with themselves."""
        if node.name == "reduce_sum":
            (part,) = states
            return isinstance(part.lane, Lane) and part.lane.axis in node.params["axes"]
        if node.name == "dot_general":
            (contracted, _) = node.params["dimension_numbers"]
            left, right = (part.lane for part in states)
            if not isinstance(left, Lane) or not isinstance(right, Lane):
                return False
            return (left.axis, right.axis) in zip(*contracted, strict=True) and left.stride == right.stride
        return False

    def _combined(self, node: Node, states: Sequence[Part]) -> list[Part]:
        """Powers and sums, whatever the lanes."""
        count = len(node.outputs)
        if node.name == "div" and not jax.dtypes.issubdtype(node.outputs[0].dtype, np.inexact):
            raise Unchunkable("div rounds to whole numbers", node)
        if node.name in ("mul", "dot_general", "conv_general_dilated"):
            if sum(part.summed for part in states) > 1:
                raise Unchunkable(f"{node.name} multiplies two sums over the lanes", node)
            return [Part(FREE, any(p.summed for p in states), sum(p.power for p in states))]
        if node.name == "div" and not states[1].summed:
            return [Part(FREE, states[0].summed, states[0].power - states[1].power)]
        if node.name in ("integer_pow", "square") and not states[0].summed:
            return [Part(FREE, False, states[0].power * node.params.get("y", 2))]
        kinds = {(part.summed, part.power) for part in states if part.summed or part.power}
        degrees = [
            Degree.LINEAR if part.summed or part.power else Degree.ZERO if is_zero(value) else Degree.CONSTANT
            for value, part in zip(node.operands, states, strict=True)
        ]
        found = linearity.node_degrees(node, degrees)
        result = []
        for degree in found:
            if degree in (Degree.ZERO, Degree.CONSTANT):
                result.append(SAME)
            elif len(kinds) == 1 and (degree is Degree.LINEAR or (degree is Degree.AFFINE and kinds == {(True, -1)})):
                # A mean plus what is the same in every chunk is a mean.
                ((summed, power),) = kinds
                result.append(Part(FREE, summed, power))
            elif isinstance(degree, Node):
                raise Unchunkable(f"{degree.name} is not linear in a sum over the lanes, or in their number", node)
            else:
                raise Unchunkable(f"{node.name} adds what depends on the number of lanes in different ways", node)
        return result if len(result) == count else result * count

    def _same_settings(self, node: Node, other: Node) -> None:
        for name in sorted(node.params.keys() | other.params.keys()):
            if not self._alike(node, node.params.get(name), other.params.get(name), name in SIZES):
                raise Unchunkable(f"{name} of {node.name} depends on the number of lanes", node)

    def _alike(self, node: Node, here: Any, there: Any, sizes: bool) -> bool:
        if isinstance(here, (tuple, list)) and isinstance(there, (tuple, list)):
            pairs = zip(here, there, strict=False)
            return len(here) == len(there) and all(self._alike(node, a, b, sizes) for a, b in pairs)
        if sizes and isinstance(here, int) and isinstance(there, int) and here * self.size == there * self.lanes:
            return True
        if _jax.is_jaxpr(here) and _jax.is_jaxpr(there):
            return True  # compared as bodies
        # JAX wraps the rules of a custom call, and what to keep of a checkpoint, anew in every trace.
        wrapped = node.name.startswith(("custom_", "remat")) and type(here) is type(there)
        return freeze(here) == freeze(there) or (wrapped and not isinstance(here, (int, float, str, bool)))

    # ---- programs inside

    def _call(self, node: Node, other: Node, states: Sequence[Part]) -> Sequence[Part]:
        rule = {"scan": self._scan, "while": self._while, "cond": self._cond}.get(node.name)
        if rule is not None:
            return rule(node, other, states)
        ruled = node.name.startswith("custom_") and not _jax.is_jax_function(node.params)
        if self.derivatives and ruled and any(part != SAME for part in states):
            raise OwnRule(f"{node.name} has a derivative rule of its own", node)
        if len(node.bodies) == 1 and len(node.bodies[0].inputs) == len(states):
            return self.through(node.bodies[0], other.bodies[0], states)
        raise Unchunkable(f"{node.name} cannot be looked into", node)

    def _cond(self, node: Node, other: Node, states: Sequence[Part]) -> Sequence[Part]:
        if states[0] != SAME:
            raise Unchunkable("cond chooses a branch by the lanes", node)
        outs = [self.through(a, b, states[1:]) for a, b in zip(node.bodies, other.bodies, strict=True)]
        return [_known(self._either(node, both)) for both in zip(*outs, strict=True)]

    def _scan(self, node: Node, other: Node, states: Sequence[Part]) -> Sequence[Part]:
        consts, carried = node.params["num_consts"], node.params["num_carry"]
        fixed, carry = states[:consts], list(states[consts : consts + carried])
        xs = [self._slice(node, part) for part in states[consts + carried :]]
        outs, carry = self._settle(node, other, 0, fixed, carry, xs)
        return [*carry, *(self._stack(part) for part in outs[carried:])]

    def _while(self, node: Node, other: Node, states: Sequence[Part]) -> Sequence[Part]:
        in_test, in_body = node.params["cond_nconsts"], node.params["body_nconsts"]
        fixed, carry = states[in_test : in_test + in_body], list(states[in_test + in_body :])
        _, carry = self._settle(node, other, 1, fixed, carry, [])
        (go,) = self.through(node.bodies[0], other.bodies[0], [*states[:in_test], *carry])
        if go != SAME:
            raise Unchunkable("while runs until the lanes say so", node)
        return carry

    def _settle(self, node, other, body, fixed, carry, xs) -> tuple[list[Part], list[Part]]:
        """The parts of a loop's carries, found by going round until they stay."""
        carry = [self._start(part, value) for part, value in zip(carry, node.operands[-len(carry) - len(xs) :],
                                                                 strict=False)]  # fmt: skip
        for _ in range(2 + len(carry)):
            outs = self.through(node.bodies[body], other.bodies[body], [*fixed, *map(_known, carry), *xs])
            after = [self._either(node, pair) for pair in zip(carry, outs, strict=False)]
            if after == carry:
                return outs, list(map(_known, carry))
            carry = after
        raise Unchunkable(f"{node.name} carries what depends on the lanes in more and more ways", node)

    def _start(self, part: Part, value: Value) -> "Part | _Zero":
        return _Zero(part) if is_zero(value) else part

    def _either(self, node: Node, both: Sequence["Part | _Zero"]) -> "Part | _Zero":
        """What is now this, now that; a zero is whatever the other is."""
        left, *rest = both
        for right in rest:
            right = _known(right)
            if isinstance(left, _Zero):
                if left.part.lane not in (FREE, right.lane):
                    raise Unchunkable(f"{node.name} has different dependence on the lanes here and there", node)
                left = left if right == left.part else right
            elif right != left and not (right.lane == FREE and right == replace(left, lane=FREE)):
                raise Unchunkable(f"{node.name} has different dependence on the lanes here and there", node)
        return left

    def _slice(self, node: Node, part: Part) -> Part:
        if not isinstance(part.lane, Lane):
            return part
        if part.lane.axis == 0:
            raise Unchunkable("scan goes along the lanes", node)
        return replace(part, lane=replace(part.lane, axis=part.lane.axis - 1))

    def _stack(self, part: Part) -> Part:
        return replace(part, lane=replace(part.lane, axis=part.lane.axis + 1)) if isinstance(part.lane, Lane) else part


@dataclass(frozen=True)
class _Zero:
    """A carry that starts from zero, which is a sum over no lanes as well as anything else."""

    part: Part


def _described(node: Node) -> str:
    if node.name == LITERAL:
        return f"the number {node.params['value']}"
    return {INPUT: "an argument", CONSTANT: "a constant"}.get(node.name) or f"{node.name} at {node.where}"


def _known(part: "Part | _Zero") -> Part:
    return part.part if isinstance(part, _Zero) else part


# Settings that are sizes of axes.
SIZES = frozenset({"shape", "new_sizes", "limit_indices", "slice_sizes", "sizes", "output_shape"})
