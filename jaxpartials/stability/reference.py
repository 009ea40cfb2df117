"""A program evaluated equation by equation in another arithmetic, every step of it kept."""

import contextlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxpartials import _jax
from jaxpartials.errors import StabilityError
from jaxpartials.graph.graph import CONSTANT, INPUT, LITERAL, Graph, Node, reach
from jaxpartials.graph.trace import read
from jaxpartials.stability.arithmetic import Arithmetic
from jaxpartials.stability.wider import ONLY_WIDER, wider

Array = np.ndarray[Any, Any]
Values = Sequence[Array]
Apply = Callable[..., Values]

TURNS = 10_000  # of a while loop


def own_types(node: Node) -> Any:
    """A context in which an equation has the types that it was traced with: some are computed in float64."""
    wide = any(str(v.dtype) in ONLY_WIDER for v in (*node.operands, *node.outputs))
    return wider() if wide and not jax.config.jax_enable_x64 else contextlib.nullcontext()


class Step(NamedTuple):
    """One equation as it ran: from values to values, by their numbers on the tape."""

    node: Node
    apply: Apply
    operands: tuple[int, ...]
    outputs: tuple[int, ...]
    moves: bool  # it only puts numbers elsewhere, and loses nothing


class Tape:
    """A program as it ran: loops turn by turn, the branches taken, the bodies of calls."""

    def __init__(self, arithmetic: Arithmetic):
        self.arithmetic = arithmetic
        self.steps: list[Step] = []
        self.values: list[Array] = []
        self.inputs: list[int] = []
        self.outputs: list[int] = []

    @classmethod
    def of(cls, graph: Graph, arrays: Iterable[Array], arithmetic: Arithmetic) -> "Tape":
        """`graph` on these arrays of its own dtypes."""
        tape = cls(arithmetic)
        with np.errstate(all="ignore"):
            tape.inputs = [tape._keep(arithmetic.lift(np.asarray(array))) for array in arrays]
            tape.outputs = tape._run(graph, tape.inputs)
        return tape

    @property
    def results(self) -> list[Array]:
        return [self.values[i] for i in self.outputs]

    def again(self, at: int, changed: Values) -> list[Array]:
        """The results, had step `at` given `changed`: the later steps that this reaches, once more."""
        new = dict(zip(self.steps[at].outputs, changed, strict=True))
        for step in self.steps[at + 1 :]:
            if any(i in new for i in step.operands):
                new |= zip(step.outputs, step.apply(*(new.get(i, self.values[i]) for i in step.operands)), strict=True)
        return [new.get(i, self.values[i]) for i in self.outputs]

    def reaching(self) -> list[int]:
        """The steps that the results need, in order."""
        needed = set(self.outputs)
        found = []
        for k in reversed(range(len(self.steps))):
            step = self.steps[k]
            if needed.intersection(step.outputs):
                found.append(k)
                needed.update(step.operands)
        return found[::-1]

    # ---- running

    def _keep(self, value: Array) -> int:
        self.values.append(value)
        return len(self.values) - 1

    def _do(self, node: Node, apply: Apply, operands: Sequence[int], moves: bool = False) -> list[int]:
        apply = _in_own_types(node, apply)
        outputs = [self._keep(value) for value in apply(*(self.values[i] for i in operands))]
        self.steps.append(Step(node, apply, tuple(operands), tuple(outputs), moves))
        return outputs

    def _run(self, graph: Graph, inputs: Sequence[int]) -> list[int]:
        where = {(v.node.number, v.index): i for v, i in zip(graph.inputs, inputs, strict=True)}
        for node in reach(graph.outputs):
            if node.name in (LITERAL, CONSTANT):
                where[node.number, 0] = self._keep(self.arithmetic.lift(np.asarray(node.params["value"])))
            elif node.name != INPUT:
                operands = [where[v.node.number, v.index] for v in node.operands]
                for value, i in zip(node.outputs, self._step(node, operands), strict=True):
                    where[value.node.number, value.index] = i
        return [where[v.node.number, v.index] for v in graph.outputs]

    def _step(self, node: Node, operands: list[int]) -> list[int]:
        if node.name == "scan":
            return self._scan(node, operands)
        if node.name == "while":
            return self._while(node, operands)
        if node.name == "cond":
            index = int(np.clip(int(self.values[operands[0]]), 0, len(node.bodies) - 1))
            return self._run(node.bodies[index], operands[1:])
        whole = self._approximated(node)
        if whole is not None:
            return self._do(node, lambda *xs: [whole(*xs)], operands)
        if node.name == "enclosed":
            return self._run(read(node.params["inside"].traced([v.aval for v in node.operands])), operands)
        if node.name in CALLS:
            return self._run(node.bodies[0], operands)
        apply, moves = self._primitive(node)
        return self._do(node, apply, operands, moves)

    def _approximated(self, node: Node) -> Callable[..., Array] | None:
        """What JAX's own function approximates, if its body is good for numbers of its own dtype alone."""
        if node.name != "custom_jvp_call" or not _jax.is_jax_function(node.params):
            return None
        name = (_jax.function_info(node.params) or "").rpartition("(")[2].rstrip(")")
        return self.arithmetic.function(name, {}) if name in APPROXIMATED else None

    def _scan(self, node: Node, operands: list[int]) -> list[int]:
        consts, carried, length = node.params["num_consts"], node.params["num_carry"], node.params["length"]
        fixed, carry, columns = operands[:consts], operands[consts : consts + carried], operands[consts + carried :]
        turns = range(length)
        rows: dict[int, list[int]] = {}
        for t in reversed(turns) if node.params["reverse"] else turns:
            here = [self._do(node, _row(t), [column], moves=True)[0] for column in columns]
            out = self._run(node.bodies[0], [*fixed, *carry, *here])
            carry, rows[t] = out[:carried], out[carried:]
        stacked = []
        for k, value in enumerate(node.outputs[carried:]):
            if length:
                stacked += self._do(node, _stack, [rows[t][k] for t in turns], moves=True)
            else:
                stacked.append(self._keep(self.arithmetic.lift(np.zeros(value.shape, value.dtype))))
        return [*carry, *stacked]

    def _while(self, node: Node, operands: list[int]) -> list[int]:
        in_test, in_body = node.params["cond_nconsts"], node.params["body_nconsts"]
        test, body = node.bodies
        test_consts, body_consts = operands[:in_test], operands[in_test : in_test + in_body]
        carry = operands[in_test + in_body :]
        for _ in range(TURNS):
            (go,) = self._run(test, [*test_consts, *carry])
            if not np.any(self.values[go]):
                return carry
            new = self._run(body, [*body_consts, *carry])
            # Of a while of a vmap, a lane that is done keeps what it has.
            carry = [self._do(node, _where, [go, n, old], moves=True)[0] for n, old in zip(new, carry, strict=True)]
        raise StabilityError(f"The while loop at {node.where} takes more than {TURNS} turns: check a shorter one.")

    def _primitive(self, node: Node) -> tuple[Apply, bool]:
        name, params = node.name, node.params
        floats = [v for v in (*node.operands, *node.outputs) if jnp.issubdtype(v.dtype, jnp.inexact)]
        if any(jnp.issubdtype(v.dtype, jnp.complexfloating) for v in floats):
            raise StabilityError(
                f"check_stability() follows real numbers, and {name} at {node.where} has complex ones. Check the real "
                "and imaginary parts of what leads there."
            )
        if not floats:
            bind = lambda *xs: _jax.bind(node.primitive, params, [*map(jnp.asarray, xs)])
            return (lambda *xs: [np.asarray(x) for x in bind(*xs)]), True
        special = SPECIAL.get(name)
        if special is not None:
            return special(node, self.arithmetic), name in MOVES
        function = self.arithmetic.function(name, params)
        if function is not None:
            return (lambda *xs: [function(*xs)]), name in LOSSLESS
        wide = None if node.bodies else self.arithmetic.primitive(node.primitive, params)
        none = StabilityError(
            f"check_stability() has no high-precision {name}, which is at {node.where}. "
            "Check the parts of the function before and after it."
        )
        if wide is None:
            raise none

        def apply(*xs: Array) -> Values:
            try:
                return wide(*xs)
            except _jax.REFUSALS as error:  # it has functions inside that are for numbers of its own dtype
                raise none from error

        return apply, False


def _in_own_types(node: Node, apply: Apply) -> Apply:
    def run(*xs: Array) -> Values:
        with own_types(node):
            return apply(*xs)

    return run


def _row(t: int) -> Apply:
    return lambda column: [column[t]] if column.ndim > 1 else [np.asarray(column[t], column.dtype)]


def _stack(*rows: Array) -> Values:
    return [np.stack(rows)]


def _where(go: Array, new: Array, old: Array) -> Values:
    return [np.where(go.reshape(go.shape + (1,) * (new.ndim - go.ndim)), new, old)]


# Calls that mean nothing but their body; what a custom rule's own body computes is the value.
CALLS = frozenset({"jit", "pjit", "custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr", "checkpoint", "remat",
                   "remat2", "closed_call", "core_call", "composite"})  # fmt: skip

# From 0.12 on: exp(−x²) in the derivative of erfc, which stands still beyond |x| = 11.
APPROXIMATED = frozenset({"exp_neg_sq"})

# Exact in any arithmetic.
LOSSLESS = frozenset({"neg", "abs", "sign", "max", "min", "floor", "ceil", "round", "is_finite", "clamp", "eq", "ne",
                      "lt", "le", "gt", "ge", "copy", "stop_gradient", "optimization_barrier", "pvary", "and", "or",
                      "not", "xor"})  # fmt: skip


# ---- equations that move numbers, sum them, or compare them


def _broadcast_in_dim(node: Node, _: Arithmetic) -> Apply:
    shape, places = node.params["shape"], node.params["broadcast_dimensions"]

    def apply(x: Array, *_sizes: Array) -> Values:
        kept = [1] * len(shape)
        for axis, place in enumerate(places):
            kept[place] = x.shape[axis]
        return [np.broadcast_to(x.reshape(kept), shape)]

    return apply


def _zeros(node: Node, arithmetic: Arithmetic) -> Apply:
    """What nobody reads: the derivative of a branching holds a place for what the other branches keep."""
    (out,) = node.outputs
    return lambda *_: [arithmetic.lift(np.zeros(out.shape, out.dtype))]


def _to_output(node: Node, _: Arithmetic) -> Apply:
    """Reshapes, squeezes and expansions: the same numbers in the same order."""
    shape = node.outputs[0].shape
    return lambda x, *_sizes: [x.reshape(shape)]


def _transpose(node: Node, _: Arithmetic) -> Apply:
    return lambda x: [x.transpose(node.params["permutation"])]


def _concatenate(node: Node, _: Arithmetic) -> Apply:
    return lambda *xs: [np.concatenate(xs, axis=node.params["dimension"])]


def _select(node: Node, _: Arithmetic) -> Apply:
    def apply(which: Array, *cases: Array) -> Values:
        shape = node.outputs[0].shape
        which = np.broadcast_to(np.asarray(which).astype(int), shape)
        chosen = np.broadcast_to(cases[0], shape)
        for k, case in enumerate(cases[1:], start=1):
            chosen = np.where(which == k, case, chosen)
        return [chosen]

    return apply


def _convert(node: Node, arithmetic: Arithmetic) -> Apply:
    """Between floats numbers stay what they are: a program's own rounding is what is measured."""
    (old,), (new,) = node.operands, node.outputs
    if jnp.issubdtype(new.dtype, jnp.floating):
        if jnp.issubdtype(old.dtype, jnp.floating):
            return lambda x: [x]
        return lambda x: [arithmetic.lift(np.asarray(x).astype(np.float64))]
    whole = np.frompyfunc(lambda v: bool(v) if new.dtype == bool else int(v), 1, 1)
    return lambda x: [np.asarray(whole(x)).astype(new.dtype)]


def _bitcast(node: Node, arithmetic: Arithmetic) -> Apply:
    """The bits of a number are those of the nearest that its dtype has."""
    (old,) = node.operands

    def apply(x: Array) -> Values:
        if jnp.issubdtype(old.dtype, jnp.floating):
            x = np.asarray(np.frompyfunc(float, 1, 1)(x), np.float64).astype(old.dtype)
        return [arithmetic.lift(np.asarray(_jax.bind(node.primitive, node.params, [jnp.asarray(x)])[0]))]

    return apply


def _sum(node: Node, arithmetic: Arithmetic) -> Apply:
    return lambda x: [_noised(arithmetic, np.sum(x, axis=node.params["axes"]), node)]


def _product(node: Node, arithmetic: Arithmetic) -> Apply:
    return lambda x: [_noised(arithmetic, np.prod(x, axis=node.params["axes"]), node)]


def _extreme(ufunc: np.ufunc) -> Callable[[Node, Arithmetic], Apply]:
    def rule(node: Node, _: Arithmetic) -> Apply:
        def apply(x: Array) -> Values:
            for axis in sorted(node.params["axes"], reverse=True):
                x = np.asarray(ufunc.reduce(x, axis=axis))
            return [_array(x, node)]

        return apply

    return rule


def _arg(pick: Callable) -> Callable[[Node, Arithmetic], Apply]:
    def rule(node: Node, _: Arithmetic) -> Apply:
        (axis,) = node.params["axes"]
        return lambda x: [np.asarray(pick(x, axis=axis)).astype(node.params["index_dtype"])]

    return rule


def _cumulative(ufunc: np.ufunc) -> Callable[[Node, Arithmetic], Apply]:
    def rule(node: Node, arithmetic: Arithmetic) -> Apply:
        axis, backwards = node.params["axis"], node.params["reverse"]

        def apply(x: Array) -> Values:
            x = np.flip(x, axis) if backwards else x
            y = ufunc.accumulate(x, axis=axis)
            return [_noised(arithmetic, np.flip(y, axis) if backwards else y, node)]

        return apply

    return rule


def _dot_general(node: Node, arithmetic: Arithmetic) -> Apply:
    (left, right), (batch_left, batch_right) = node.params["dimension_numbers"]

    def apply(x: Array, y: Array) -> Values:
        free_x = [a for a in range(x.ndim) if a not in (*left, *batch_left)]
        free_y = [a for a in range(y.ndim) if a not in (*right, *batch_right)]
        batch = [x.shape[a] for a in batch_left]
        many = int(np.prod([x.shape[a] for a in left]))
        xs = x.transpose([*batch_left, *free_x, *left]).reshape(int(np.prod(batch)), -1, many)
        ys = y.transpose([*batch_right, *right, *free_y]).reshape(int(np.prod(batch)), many, -1)
        shape = [*batch, *(x.shape[a] for a in free_x), *(y.shape[a] for a in free_y)]
        return [_noised(arithmetic, np.matmul(xs, ys).reshape(shape), node)]

    return apply


def _sort(node: Node, _: Arithmetic) -> Apply:
    axis = node.params["dimension"]
    if node.params["num_keys"] != 1:
        raise StabilityError(f"check_stability() follows sorts by one key; the sort at {node.where} has more.")

    def apply(*xs: Array) -> Values:
        order = np.argsort(xs[0], axis=axis, kind="stable")
        return [np.take_along_axis(x, order, axis) for x in xs]

    return apply


def _noised(arithmetic: Arithmetic, value: Any, node: Node) -> Array:
    """A sum is inexact: it gets its rounding as a multiplication by 1 does."""
    multiply = arithmetic.function("mul", {})
    assert multiply is not None
    return multiply(_array(value, node), _array(arithmetic.lift(np.ones(())), node))


def _array(value: Any, node: Node) -> Array:
    if isinstance(value, np.ndarray):
        return value
    found = np.empty((), object if not isinstance(value, (float, np.generic)) else np.asarray(value).dtype)
    found[()] = value
    return found


SPECIAL: dict[str, Callable[[Node, Arithmetic], Apply]] = {
    "broadcast_in_dim": _broadcast_in_dim,
    "reshape": _to_output,
    "squeeze": _to_output,
    "expand_dims": _to_output,
    "transpose": _transpose,
    "concatenate": _concatenate,
    "select_n": _select,
    "convert_element_type": _convert,
    "bitcast_convert_type": _bitcast,
    "empty": _zeros,
    "empty2": _zeros,
    "reduce_sum": _sum,
    "reduce_prod": _product,
    "reduce_max": _extreme(np.maximum),
    "reduce_min": _extreme(np.minimum),
    "argmax": _arg(np.argmax),
    "argmin": _arg(np.argmin),
    "cumsum": _cumulative(np.add),
    "cumprod": _cumulative(np.multiply),
    "cummax": _cumulative(np.maximum),
    "cummin": _cumulative(np.minimum),
    "dot_general": _dot_general,
    "sort": _sort,
}


def _by_position(node: Node, arithmetic: Arithmetic) -> Apply:
    """What an equation that moves numbers does: it is run on their positions. Position 0 is out of range: nan."""
    real = [jnp.issubdtype(v.dtype, jnp.floating) for v in node.operands]
    params = dict(node.params)
    if "fill_value" in params:
        params["fill_value"] = 0

    def apply(*xs: Array) -> Values:
        pool = [arithmetic.lift(np.full(1, np.nan, np.float64))]
        places: list[Any] = []
        for x, is_real in zip(xs, real, strict=True):
            start = sum(part.size for part in pool)
            places.append(jnp.asarray(np.arange(start, start + x.size).reshape(x.shape) if is_real else x))
            pool += [x.ravel()] if is_real else []
        made = _jax.bind(node.primitive, params, places)
        return [np.concatenate(pool)[np.asarray(positions)] for positions in made]

    def from_nothing(*xs: Array) -> Values:
        made = _jax.bind(node.primitive, node.params, [*map(jnp.asarray, xs)])
        return [arithmetic.lift(np.asarray(y)) for y in made]

    return apply if any(real) else from_nothing


def _scatter_add(node: Node, arithmetic: Arithmetic) -> Apply:
    add = arithmetic.function("add", {})
    assert add is not None

    def apply(operand: Array, indices: Array, updates: Array) -> Values:
        scatter = lambda u: _jax.bind(node.primitive, node.params, [jnp.zeros(operand.shape), jnp.asarray(indices), u])
        # Where an update goes is where its cotangent comes from; 0 for nowhere.
        _, back = jax.vjp(lambda u: scatter(u)[0], jnp.zeros(updates.shape))
        (targets,) = back(jnp.arange(1.0, operand.size + 1).reshape(operand.shape))
        found = np.array(operand).ravel()
        for target, update in zip(np.asarray(targets).astype(int).ravel(), updates.ravel(), strict=True):
            if target:
                found[target - 1] = add(found[target - 1], update)[()]
        return [found.reshape(operand.shape)]

    return apply


SPECIAL |= dict.fromkeys(
    ("slice", "dynamic_slice", "dynamic_update_slice", "gather", "pad", "rev", "scatter", "split", "iota", "tile",
     "stack", "unstack"), _by_position
)  # fmt: skip
SPECIAL |= {"scatter-add": _scatter_add}
MOVES = frozenset(SPECIAL) - {"reduce_sum", "reduce_prod", "cumsum", "cumprod", "dot_general", "scatter-add"}
