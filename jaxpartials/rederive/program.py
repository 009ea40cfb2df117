"""A program in two forms: as traced, to be differentiated as JAX did; as a graph, to find the results in."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxpartials import _jax
from jaxpartials.graph.emit import evaluate
from jaxpartials.graph.graph import LEAVES, Graph, Node, Value, reach
from jaxpartials.graph.trace import extend
from jaxpartials.structure.normal_form import NormalForms

# How often a program is differentiated in search of derivatives: that many equations in all, within bounds.
PATIENCE, SELDOM, OFTEN = 40_000, 4, 32
REVERSED, LINEARISED, MAPPED = "transpose", "jvp", "vmap"  # how JAX names what has been done to an equation


class Program:
    """The two forms, and which values of the one are which of the other."""

    def __init__(self, traced: Graph, graph: Graph):
        self.traced, self.graph = traced, graph
        self.renew()
        self._forms = NormalForms()
        self._made: dict[Value, Value] = dict(zip(traced.inputs, graph.inputs, strict=True))
        roots = [*graph.outputs, *(v for node in graph.effects for v in node.operands)]
        used = dict.fromkeys([*(v for node in reach(roots) for v in node.operands), *roots])
        self._used = {self._key(value): value for value in used if value.node.name not in LEAVES}
        self._traced: set[Any] = set()
        self.unexplained = {self._key(self.made(v)) for v in _results(traced)}  # not yet recognised

    def renew(self) -> None:
        """Differentiate as often again."""
        self._patience = min(max(PATIENCE // max(1, len(self.traced.traced)), SELDOM), OFTEN)

    def made(self, value: Value) -> Value:
        """A traced value in the graph."""
        self._made |= self.graph.include([value], self._made)
        return self._made[value]

    def here(self, value: Value) -> Value | None:
        """The value that the program uses and that equals this one."""
        key = self._key(value)
        self.unexplained.discard(key)
        return self._used.get(key)

    def was_traced(self, value: Value) -> bool:
        """Whether a value equal to this one was traced, be it used or not."""
        if not self._traced:
            pure = [v for node in self.traced.traced if not node.effects for v in node.outputs if is_float(v)]
            self._made |= self.graph.include(pure, self._made)
            self._traced = {self._key(self._made[v]) for v in pure}
        return self._key(value) in self._traced

    def extend(self, fn: Callable[[list[Any], list[Any]], list[Any]], cut: Sequence[Value]) -> list[Value]:
        """What `fn` makes of the values in `cut`, and of the inputs, appended to the graph; nothing if JAX refuses.

        Nor if this has been done often enough: differentiating a large program takes time.
        """
        self._patience -= 1
        if self._patience < 0:
            return []
        operands = [*map(self.made, cut), *self.graph.inputs]
        try:
            return extend(self.graph, lambda *arrays: fn(list(arrays[: len(cut)]), list(arrays[len(cut) :])), operands)
        except _jax.REFUSALS:
            return []

    def _key(self, value: Value) -> Any:
        return self._forms[value], value.shape, str(value.dtype)


def gradient(compute: Callable[[list[Any]], Any], moving: Sequence[Any]) -> tuple[Any, Sequence[Any]]:
    """A value, and the gradient of the sum of its elements, as `jax.grad` takes it."""
    value, pull = jax.vjp(lambda *moving: compute(list(moving)), *moving)
    return value, pull(jnp.ones_like(value))


def at(value: Value, cut: Sequence[Value], moving: Sequence[Any], inputs: Sequence[Value], fixed: Sequence[Any]) -> Any:
    """A value from the values in `cut`, and from the inputs."""
    return evaluate([value], [*zip(inputs, fixed, strict=True), *zip(cut, moving, strict=True)])[0]


def names(node: Node) -> tuple[str, ...]:
    """The transformations that an equation comes from, outermost first."""
    return _jax.transformations(node.source)


def is_float(value: Value) -> bool:
    return jnp.issubdtype(value.dtype, jnp.floating)


def _results(traced: Graph) -> list[Value]:
    """What the reverse passes inside the program hand to the rest of it."""
    read = [v for node in traced.nodes if REVERSED not in names(node) for v in node.operands]
    return list(dict.fromkeys(v for v in (*read, *traced.outputs) if REVERSED in names(v.node)))
