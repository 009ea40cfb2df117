"""From a function to a Graph: plain calls are inlined, loops and branches keep their bodies as graphs.

Custom rules, `remat`, `shard_map`, `pallas_call`, callbacks and everything with effects stay whole: inlining a
custom rule before differentiation loses it silently, and inlining `remat` undoes it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxpartials import _jax
from jaxpartials.graph.graph import Graph, Value, reach

# Calls that mean nothing but their body.
PLAIN_CALLS = frozenset({"jit", "pjit", "closed_call", "core_call", "eval_jaxpr", "xla_call"})
# Loops and branches: their bodies are graphs, and they are emitted from those.
CONTROL = frozenset({"scan", "while", "cond"})


def trace(fn: Callable, *args: Any, rules: dict | None = None) -> tuple[Graph, Any]:
    """Trace `fn` on arrays or shapes; return its Graph and the pytree of its outputs' shapes."""
    closed, shapes = _jax.trace(fn, *args)
    return read(closed, rules), shapes


def read(closed: Any, rules: dict | None = None, *, shared: bool = True) -> Graph:
    """The Graph of a closed jaxpr. With `shared=False` equal equations stay apart, to count what was traced."""
    graph = Graph(rules, shared)
    jaxpr = _jax.open_jaxpr(closed)
    inputs = [graph.input(var.aval) for var in jaxpr.inputs]
    graph.outputs = _append(graph, jaxpr, inputs, None)
    return graph


def donated(closed: Any) -> frozenset[int]:
    """The inputs of a jaxpr that the jitted function in it was allowed to overwrite."""
    jaxpr = _jax.open_jaxpr(closed)
    place = {var: i for i, var in enumerate(jaxpr.inputs)}
    readers = [var for equation in jaxpr.equations for var in equation.invars if not isinstance(var, _jax.Literal)]
    readers += [var for var in jaxpr.outputs if not isinstance(var, _jax.Literal)]
    given = set()
    for equation in jaxpr.equations:
        for var, allowed in zip(equation.invars, equation.params.get("donated_invars", ()), strict=False):
            if allowed and not isinstance(var, _jax.Literal) and var in place and readers.count(var) == 1:
                given.add(place[var])
    return frozenset(given)


def extend(graph: Graph, fn: Callable, operands: Sequence[Value], *extra: Any) -> Any:
    """Trace `fn` on values of `graph` and append what it does; return the pytree of its results as values.

    Whatever equals something that is there already becomes it. `fn` must have no effects.
    """
    closed, out = _jax.trace(fn, *(v.aval for v in operands), *extra)
    jaxpr = _jax.open_jaxpr(closed)
    results = _append(graph, jaxpr, list(operands), None)
    _check_transposed(results, operands)
    return jax.tree.unflatten(jax.tree.structure(out), results)


def _append(
    graph: Graph, jaxpr: _jax.Jaxpr, inputs: Sequence[Value], caller: Any, by_caller: bool = False
) -> list[Value]:
    """Append a jaxpr's equations to the graph, its inputs bound to `inputs`; return its outputs.

    Equations without a frame of the user's take the caller's; with `by_caller`, all do.
    """
    env: dict[Any, Value] = dict(zip(jaxpr.inputs, inputs, strict=True))
    for var, array in jaxpr.constants:
        scalar = isinstance(array, (np.ndarray, np.generic)) and np.ndim(array) == 0
        env[var] = graph.literal(array, var.aval) if scalar else graph.constant(array, var.aval)

    def read(atom: Any) -> Value:
        return graph.literal(atom.val, atom.aval) if isinstance(atom, _jax.Literal) else env[atom]

    for equation in jaxpr.equations:
        operands = [read(atom) for atom in equation.invars]
        source = equation.source_info
        if caller is not None and by_caller:
            source = caller
        elif caller is not None and not _jax.has_user_frame(source):
            source = _jax.placed(source, caller)
        else:
            source = _jax.inside(source, caller)
        outputs = _append_equation(graph, equation, operands, source)
        env.update(zip(equation.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outputs]


def _append_equation(graph: Graph, equation: Any, operands: list[Value], source: Any) -> Sequence[Value]:
    name, params = equation.primitive.name, equation.params
    if name in PLAIN_CALLS and (name not in ("jit", "pjit") or _jax.is_plain_jit(params)):
        inner = next(p for p in params.values() if _jax.is_jaxpr(p))
        # JAX traces its own functions once: their equations name whoever called them first.
        return _append(graph, _jax.open_jaxpr(inner), operands, source, _jax.is_jax_function(params))
    bodies = [body(p, graph.rules, source, graph.shared) for p in _jaxprs(params)]
    if name in CONTROL:
        params = _control_params(name, params)
    return graph.add(
        equation.primitive,
        operands,
        params,
        [var.aval for var in equation.outvars],
        name="jit" if name == "pjit" else name,
        bodies=bodies,
        opaque=name not in CONTROL,
        effects=equation.effects,
        source=source,
        context=equation.ctx,
    )


def body(closed: Any, rules: Mapping, caller: Any, shared: bool = True) -> Graph:
    """The graph of a jaxpr inside an equation."""
    jaxpr = _jax.open_jaxpr(closed)
    graph = Graph(rules, shared)
    inputs = [graph.input(var.aval) for var in jaxpr.inputs]
    if len(jaxpr.constants) == 0 and getattr(closed, "constvars", ()):
        # An open jaxpr inside an equation: its constants are operands of the equation.
        inputs = [graph.input(var.aval) for var in closed.constvars] + inputs
    graph.outputs = _append(graph, jaxpr, inputs, caller)
    _check_transposed(graph.outputs, inputs)
    return graph


def _check_transposed(results: Sequence[Value], inputs: Sequence[Value]) -> None:
    """What a jvp leaves of a custom_vjp means something to a transposition alone: it must not stay."""
    if any(node.name == "custom_lin" for node in reach(results, inputs)):
        raise TypeError("can't apply forward-mode differentiation (jvp) to a custom_vjp function")


def _jaxprs(params: dict[str, Any]) -> list[Any]:
    found = []
    for value in params.values():
        found += [p for p in (value if isinstance(value, (tuple, list)) else (value,)) if _jax.is_jaxpr(p)]
    return found


def _control_params(name: str, params: dict[str, Any]) -> dict[str, Any]:
    if name == "scan":
        consts, carry = _jax.scan_counts(params)
        kept = {k: params[k] for k in ("length", "reverse", "unroll")}
        return {**kept, "num_consts": consts, "num_carry": carry}
    if name == "while":
        return {k: params[k] for k in ("cond_nconsts", "body_nconsts")}
    return {}
