"""What a program costs: operations, bytes, and one estimate of the time by which plans are compared.

Flops are counted as XLA counts them: one for each element of an elementwise operation, 2mnk for a matrix
product, transcendental functions apart. Unlike XLA's, the count goes into loops: a scan costs its body times
its length.

Time is a sum of counts, each over a rate. Two things make it a model of compiled code rather than of the
equations: matrix products run at a higher rate, and elementwise operations, which XLA fuses, move only a part
of their bytes.
"""

import functools
import math
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from jaxpartials.graph.graph import LEAVES, Graph, Node, Value, reach
from jaxpartials.graph.trips import counted_trips, trips

# Operations per second, bytes per second and seconds per turn of a loop: JAX 0.12, float32, two CPU cores,
# arrays of about 1024 x 64. Only their ratios decide between plans.
CONTRACTION_RATE = 4e10  # matrix products and convolutions
ARITHMETIC_RATE = 1e10
TRANSCENDENTAL_RATE = 1e9  # tanh, exp and log; sin takes a few times as long
BANDWIDTH = 1.2e10
TURN = 5e-7

# The part of an elementwise result that goes through memory: about one equation in four ends a fusion.
FUSED = 0.25

# To take a slice of an array at every turn, or to put one there, costs as much as moving so many bytes: what a reverse
# pass keeps of a loop is stacked so, and small loops are dearer backwards than their operations tell.
STACKING = 2400

# A complex operation in real ones.
COMPLEX = 4


@dataclass(frozen=True)
class Cost:
    """Operations and bytes of a program, or of a part of it.

    Attributes:
        flops: arithmetic operations, those of contractions among them.
        bytes: read and written, after fusion.
        transcendentals: evaluations of exp, tanh, sin, ...
        contractions: the part of `flops` in matrix products and convolutions.
        turns: of loops.
        unknown_trips: whether a loop is in it whose number of turns depends on data, and was assumed.
    """

    flops: float = 0.0
    bytes: float = 0.0
    transcendentals: float = 0.0
    contractions: float = 0.0
    turns: float = 0.0
    unknown_trips: bool = False

    @property
    def time(self) -> float:
        """Seconds, roughly: fit to compare plans."""
        return (
            self.contractions / CONTRACTION_RATE
            + (self.flops - self.contractions) / ARITHMETIC_RATE
            + self.transcendentals / TRANSCENDENTAL_RATE
            + self.bytes / BANDWIDTH
            + self.turns * TURN
        )

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.flops + other.flops,
            self.bytes + other.bytes,
            self.transcendentals + other.transcendentals,
            self.contractions + other.contractions,
            self.turns + other.turns,
            self.unknown_trips or other.unknown_trips,
        )

    def __mul__(self, times: float) -> "Cost":
        return Cost(
            self.flops * times,
            self.bytes * times,
            self.transcendentals * times,
            self.contractions * times,
            self.turns * times,
            self.unknown_trips,
        )

    __rmul__ = __mul__


def cost_of(program: Graph | Iterable[Value], effects: Sequence[Node] = ()) -> Cost:
    """The cost of a graph, or of everything that some values (and some nodes with effects) need."""
    if isinstance(program, Graph):
        return total(map(cost, program.nodes))
    nodes = {node.number: node for node in reach([*program, *(v for node in effects for v in node.operands)])}
    nodes |= {node.number: node for node in effects}
    return total(cost(node) for node in nodes.values() if node.name not in LEAVES)


def total(costs: Iterable[Cost]) -> Cost:
    costs = list(costs)
    return Cost(
        math.fsum(c.flops for c in costs),
        math.fsum(c.bytes for c in costs),
        math.fsum(c.transcendentals for c in costs),
        math.fsum(c.contractions for c in costs),
        math.fsum(c.turns for c in costs),
        any(c.unknown_trips for c in costs),
    )


# Nodes do not change, nor do the graphs inside them; what they cost is kept as long as they are.
_known: weakref.WeakKeyDictionary[Graph | Node, Cost] = weakref.WeakKeyDictionary()


def body_cost(graph: Graph) -> Cost:
    """The cost of a graph inside a node: of one turn of a loop, of one branch."""
    found = _known.get(graph)
    if found is None:
        found = _known[graph] = cost_of(graph)
    return found


def cost(node: Node) -> Cost:
    """The cost of one equation, of the bodies inside it too."""
    found = _known.get(node)
    if found is None:
        found = _known[node] = _count(node)
    return found


def _count(node: Node) -> Cost:
    rule = COSTS.get(node.name)
    if rule is not None:
        return rule(node)
    if node.bodies:
        return max(map(body_cost, node.bodies), key=lambda found: found.time)
    return Cost(bytes=_traffic(node))  # a kernel or a callback: what it does cannot be seen


# ---- sizes


@functools.lru_cache(maxsize=4096)
def _measure(aval: Any) -> tuple[int, int]:
    """The number of elements of an array, and its bytes."""
    size = math.prod(getattr(aval, "shape", ()))
    return size, size * getattr(getattr(aval, "dtype", None), "itemsize", 0)


def _size(value: Value) -> int:
    return _measure(value.aval)[0]


def _bytes(values: Iterable[Value]) -> float:
    return float(sum(_measure(v.aval)[1] for v in values))


def _traffic(node: Node) -> float:
    return _bytes(node.operands) + _bytes(node.outputs)


def _work(value: Value) -> int:
    """Real operations in one operation on each element."""
    return _size(value) * (COMPLEX if value.dtype.kind == "c" else 1)


# ---- one rule per kind of equation


def _elementwise(flops: float, transcendentals: float = 0.0) -> Callable[[Node], Cost]:
    def rule(node: Node) -> Cost:
        (out,) = node.outputs
        work = _work(out)
        return Cost(flops * work, FUSED * _bytes((out,)), transcendentals * work)

    return rule


def _integer_pow(node: Node) -> Cost:
    """By repeated squaring; one division for a negative power."""
    power = abs(node.params["y"])
    products = max(power.bit_length() - 1 + power.bit_count() - 1, 0)
    return _elementwise(products + (node.params["y"] < 0))(node)


def _free(node: Node) -> Cost:
    """A view, or fused into what reads it."""
    return Cost()


def _moved(node: Node) -> Cost:
    """Elements that change their place, in a fusion."""
    return Cost(bytes=FUSED * _bytes(node.outputs))


def _reduction(node: Node) -> Cost:
    combined = max(_size(node.operands[0]) - _size(node.outputs[0]), 0)
    each = COMPLEX if node.operands[0].dtype.kind == "c" else 1
    return Cost(combined * each, FUSED * _bytes(node.operands) + _bytes(node.outputs))


def _per_element(flops: float, transcendentals: float = 0.0) -> Callable[[Node], Cost]:
    """So many operations for each element of the first operand, and all bytes."""

    def rule(node: Node) -> Cost:
        work = _work(node.operands[0])
        return Cost(flops * work, _traffic(node), transcendentals * work)

    return rule


def _contraction(node: Node, depth: float) -> Cost:
    """A product and a sum for each output and each of `depth` terms."""
    flops = 2 * depth * _work(node.outputs[0])
    return Cost(flops, _traffic(node), contractions=flops)


def _dot_general(node: Node) -> Cost:
    (contracted, _), _ = node.params["dimension_numbers"]
    depth = math.prod(node.operands[0].shape[axis] for axis in contracted)
    return _contraction(node, depth)


def _convolution(node: Node) -> Cost:
    kernel = node.operands[1]
    features = kernel.shape[node.params["dimension_numbers"].rhs_spec[0]]
    depth = _size(kernel) / max(features, 1) / math.prod(node.params["lhs_dilation"])
    return _contraction(node, depth)


def _window(node: Node) -> Cost:
    window = math.prod(node.params["window_dimensions"])
    flops = _size(node.outputs[0]) * (window - 1)
    return Cost(flops, _traffic(node))


def _gather(node: Node) -> Cost:
    """Only what is taken is read."""
    return Cost(bytes=2 * _bytes(node.outputs) + _bytes(node.operands[1:]))


def _scatter(node: Node) -> Cost:
    combined = 0 if node.name == "scatter" else _size(node.operands[2])
    return Cost(combined, _bytes(node.outputs) + _bytes(node.operands[1:]) + _bytes(node.operands[2:]))


def _update_slice(node: Node) -> Cost:
    return Cost(bytes=2 * _bytes(node.operands[1:2]))


def _sort(node: Node) -> Cost:
    along = node.operands[0].shape[node.params["dimension"]] if "dimension" in node.params else 0
    length = along or (node.operands[0].shape or (1,))[-1]
    flops = _size(node.operands[0]) * math.log2(max(length, 2))
    return Cost(flops, _traffic(node))


def _fft(node: Node) -> Cost:
    """5 n log2 n for each complex transform of n points, half of it for a real one."""
    points = math.prod(node.params["fft_lengths"])
    complex_side = max(map(_size, (node.operands[0], node.outputs[0])))
    real = any(v.dtype.kind != "c" for v in (node.operands[0], node.outputs[0]))
    flops = (2.5 if real else 5.0) * complex_side * math.log2(max(points, 2))
    return Cost(flops, _traffic(node))


def _factorization(flops: Callable[[int, int], float]) -> Callable[[Node], Cost]:
    """A dense factorisation of m x n matrices, m >= n, of which there may be a batch."""

    def rule(node: Node) -> Cost:
        matrix = node.operands[0]
        *batch, m, n = matrix.shape
        work = math.prod(batch) * (COMPLEX if matrix.dtype.kind == "c" else 1)
        return Cost(flops(max(m, n), min(m, n)) * work, _traffic(node))

    return rule


def _triangular_solve(node: Node) -> Cost:
    return _contraction(node, node.operands[0].shape[-1] / 2)


def _scan(node: Node) -> Cost:
    (body,) = node.bodies
    unstacked = node.params["num_consts"] + 2 * node.params["num_carry"]
    stacked = len(node.operands) + len(node.outputs) - unstacked
    return (body_cost(body) + Cost(bytes=STACKING * stacked, turns=1)) * node.params["length"]


def _while(node: Node) -> Cost:
    unknown = counted_trips(node) is None
    return total([*map(body_cost, node.bodies), Cost(turns=1, unknown_trips=unknown)]) * trips(node)


def _named(names: str, entry: Any) -> dict[str, Any]:
    return dict.fromkeys(names.split(), entry)


# Flops and transcendentals of one element, as XLA expands them.
ELEMENTWISE = {
    **_named("abs neg sign floor ceil round is_finite not population_count clz square", (1, 0)),
    **_named("convert_element_type reduce_precision clamp select_n complex real imag conj", (1, 0)),
    **_named("add add_any sub mul mulhi div rem max min nextafter and or xor", (1, 0)),
    **_named("eq ne lt le gt ge eq_to lt_to le_to", (1, 0)),
    **_named("shift_left shift_right_logical shift_right_arithmetic", (1, 0)),
    **_named("exp exp2 log expm1 log1p tanh sin cos tan sqrt rsqrt cbrt pow atan2 erf", (0, 1)),
    "logistic": (3, 1),
    "one_minus_square": (2, 0),
    "asin": (3, 2),
    "acos": (3, 2),
    "atan": (1, 1),
    "sinh": (10, 3),
    "cosh": (4, 2),
    "asinh": (10, 3),
    "acosh": (7, 4),
    "atanh": (4, 2),
    "erfc": (40, 2),
    "erf_inv": (37, 2),
    "lgamma": (60, 4),
    "digamma": (75, 3),
    **_named("bessel_i0e bessel_i1e", (60, 2)),
    **_named("polygamma zeta", (400, 10)),
    **_named("igamma igammac igamma_grad_a random_gamma_grad regularized_incomplete_beta", (2000, 10)),
}

COSTS: dict[str, Callable[[Node], Cost]] = {
    **{name: _elementwise(*each) for name, each in ELEMENTWISE.items()},
    "integer_pow": _integer_pow,
    **_named("broadcast_in_dim reshape squeeze copy iota stop_gradient optimization_barrier", _free),
    **_named("bitcast_convert_type concatenate pad rev slice split stack tile transpose unstack", _moved),
    **_named("reduce_sum reduce_prod reduce_max reduce_min reduce_and reduce_or reduce_xor", _reduction),
    **_named("reduce argmax argmin", _reduction),
    **_named("cumsum cumprod cummax cummin", _per_element(1)),
    "cumlogsumexp": _per_element(3, 2),
    "dot_general": _dot_general,
    "conv_general_dilated": _convolution,
    **_named("reduce_window reduce_window_sum reduce_window_max reduce_window_min", _window),
    **_named("gather dynamic_slice", _gather),
    **_named("scatter scatter-add scatter-sub scatter-mul scatter-min scatter-max", _scatter),
    "dynamic_update_slice": _update_slice,
    **_named("sort top_k", _sort),
    "fft": _fft,
    "cholesky": _factorization(lambda m, n: n**3 / 3),
    "lu": _factorization(lambda m, n: n * n * (m - n / 3)),
    **_named("qr geqrf geqp3 householder_product", _factorization(lambda m, n: 2 * n * n * (m - n / 3))),
    "eigh": _factorization(lambda m, n: 9 * n**3),
    **_named("eig schur", _factorization(lambda m, n: 25 * n**3)),
    "hessenberg": _factorization(lambda m, n: 10 * n**3 / 3),
    "tridiagonal": _factorization(lambda m, n: 4 * n**3 / 3),
    "svd": _factorization(lambda m, n: 14 * m * n * n + 6 * n**3),
    "triangular_solve": _triangular_solve,
    "scan": _scan,
    "while": _while,
}
