"""From one candidate to values of the graph: towers of jvp and vjp, seeded with the directions asked for and no others.

A tower is built for one *symbolic* direction per wrt, order by order; the graph simplifies after every order, so its
equations do not triple with the order. Only when the tower stands are the symbolic directions replaced by all the
basis directions that are wanted, in one batch, with the direction axis laid out after the lane axes.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

from jaxpartials import _jax
from jaxpartials.graph.cost import cost_of
from jaxpartials.graph.emit import evaluate
from jaxpartials.graph.graph import LITERAL, Graph, Node, Value, dependents, frontier, is_zero, reach
from jaxpartials.graph.trace import extend
from jaxpartials.notation import Block
from jaxpartials.rewrite.batch import Batched, batch
from jaxpartials.rewrite.separate import Inseparable, separate
from jaxpartials.seeds import (
    ONES,
    Label,
    Seed,
    canonical,
    direction_axis,
    output_seed,
    seed_array,
    summed_labels,
    wrt_seeds,
)

FORWARD = "forward"
REVERSE = "reverse"


@dataclass(frozen=True)
class Stage:
    """One order of a tower: differentiate with respect to the wrt at position `slot` of the spec, in `mode`."""

    mode: str
    slot: int


Candidate = tuple[Stage, ...]  # innermost first


@dataclass
class Deriver:
    """Derivatives of one program, all in one graph, so that whatever two of them share is one node."""

    graph: Graph
    inputs: Sequence[Value]
    outputs: Sequence[Value]
    chunk_size: int | None = None
    _tangents: dict[tuple[Value, Value], dict[Value, Value | None]] = field(default_factory=dict)
    _memo: dict[Any, Any] = field(default_factory=dict)
    _symbols: dict[Any, Value] = field(default_factory=dict)

    def derivative(
        self, block: Block, candidate: Candidate, lanes: frozenset[str], siblings: Sequence[Sequence[int]]
    ) -> tuple[Value, int]:
        """The value of one block, computed as `candidate` says, and how many directions that took.

        `lanes` are the axis names proven independent; `siblings[slot]` are all the input leaves that this spec
        differentiates by at that slot, which one reverse pass serves together.
        """
        if (zero := self.vanishing(block)) is not None:
            return zero, 0
        value, labels = self.output(block)
        groups: list[_Directions] = []
        numbers: dict[str, int] = {}
        summed, seeds = summed_labels(block), wrt_seeds(block, lanes)
        for height, stage in enumerate(candidate):
            wrt = self.inputs[block.wrt[stage.slot]]
            slot_labels = block.wrt_labels[stage.slot]
            if stage.mode == FORWARD:
                seed = seeds[stage.slot]
                direction = self._direction(("s", wrt, canonical(seed, numbers)), wrt, seed, groups)
                value = self._jvp(value, wrt, direction)
            else:
                leaves = [self.inputs[i] for i in siblings[stage.slot]]
                value, labels = self._reverse(
                    value, labels, wrt, slot_labels, leaves, block, lanes, summed, groups, height
                )
        count = math.prod(block.sizes[name] for group in groups for name in group.labels)
        value, labels = self._batch(value, labels, groups, block)
        return self.assemble(value, labels, block), count

    def _reverse(self, value, labels, wrt, slot_labels, leaves, block, lanes, summed, groups, height):
        """One order in reverse: the cotangent of `wrt`, one for each element of `value` that is to be kept."""
        seed = Seed(tuple(output_seed(label, slot_labels, block, lanes, summed) for label in labels))
        spread = [name for name in seed.directions if name not in slot_labels and block.sizes[name] > 1]
        if not seed.directions:
            key = ("c", value.shape, str(value.dtype), seed)
            cotangent = self._direction(key, value, seed, groups)
            pulled = self._vjp(value, leaves, cotangent).get(wrt) or self.zeros(wrt.shape, wrt)
            return self._select(pulled, slot_labels)
        symbol = self._symbol(("c", value.shape, str(value.dtype), height), value)
        pulled = self._vjp(value, leaves, symbol).get(wrt) or self.zeros(wrt.shape, wrt)
        # Lanes that meet only where their gradients are added up: one pass gives them apart.
        for name in spread:
            apart = self._separate(pulled, symbol, labels.index(name))
            if apart is not None:
                pulled, axis = apart
                slot_labels = (*slot_labels[:axis], name, *slot_labels[axis:])
                seed = Seed(tuple(ONES if label == name else label for label in seed.axes))
        if seed.directions:
            _join(groups, seed, symbol, value)
        else:
            ones = extend(self.graph, lambda: seed_array(seed, value, {}), [])
            pulled = self._substitute(pulled, symbol, ones)
        return self._select(pulled, slot_labels)

    def keeps_apart(self, block: Block, slot: int, siblings: Sequence[int]) -> dict[str, float]:
        """The output's axis names that one reverse pass by the wrt at `slot` keeps apart, and its work in passes.

        Lanes that meet only at the end cost no more apart than together: one pass. Outputs that share all hidden layers
        meet long before, and from there on there is a pass for each.
        """
        value, labels = self.output(block)
        symbol = self._symbol(("c", value.shape, str(value.dtype), 0), value)
        pulled = self._vjp(value, [self.inputs[i] for i in siblings], symbol).get(self.inputs[block.wrt[slot]])
        names = [name for name in labels if name not in block.wrt_labels[slot] and block.sizes[name] > 1]
        if pulled is None:
            return dict.fromkeys(names, 1.0)
        forward, once = cost_of([value]).flops, cost_of([pulled]).flops
        found = {}
        for name in names:
            apart = self._separate(pulled, symbol, labels.index(name))
            if apart is not None:
                further = (cost_of([apart[0]]).flops - once) / max(once - forward, 1.0)
                found[name] = min(max(1.0 + further, 1.0), float(block.sizes[name]))
        return found

    def _separate(self, value: Value, symbol: Value, axis: int) -> tuple[Value, int] | None:
        key = ("apart", value, symbol, axis)
        if key not in self._memo:
            try:
                self._memo[key] = separate(self.graph, value, symbol, axis)
            except Inseparable:
                self._memo[key] = None
        return self._memo[key]

    def _substitute(self, value: Value, symbol: Value, seed: Value) -> Value:
        known = self._frontier([value], symbol)

        def run(c, *arrays):
            (out,) = evaluate([value], [(symbol, c), *zip(known, arrays, strict=True)])
            return out

        return extend(self.graph, run, [seed, *known])

    def value(self, block: Block) -> Value:
        """The output itself, order zero."""
        return self.assemble(*self.output(block), block)

    def vanishing(self, block: Block) -> Value | None:
        """Zeros, where the output does not depend on one of the block's inputs."""
        value, _ = self.output(block)
        if all(self._depends(value, self.inputs[leaf]) for leaf in block.wrt):
            return None
        return self.zeros([block.sizes[label] for label in block.result], value)

    def seeded(self, leaf: int, seed: Seed) -> Value:
        """A single direction of an input."""
        wrt = self.inputs[leaf]
        return self._direction(("s", wrt, canonical(seed, {})), wrt, seed, [])

    def slope(self, value: Value, of: Value) -> Value:
        """The derivative of a function of one array, element by element."""
        if ("ones", of) not in self._memo:
            ones = lambda: _jax.as_varying(jnp.ones(of.shape, of.dtype), of.aval)
            self._memo["ones", of] = extend(self.graph, ones, [])
        return self._jvp(value, of, self._memo["ones", of])

    # ---- the pieces of a tower

    def output(self, block: Block) -> tuple[Value, tuple[str, ...]]:
        return self._select(self.outputs[block.output], block.output_labels)

    def _select(self, value: Value, labels: Sequence[Label]) -> tuple[Value, tuple[str, ...]]:
        """Take the components, and the diagonals of repeated names."""
        names = tuple(dict.fromkeys(label for label in labels if isinstance(label, str)))
        if names == tuple(labels):
            return value, names
        index = tuple(label if isinstance(label, int) else slice(None) for label in labels)
        left = [label for label in labels if isinstance(label, str)]

        def pick(array):
            array = array[index]
            return contract(array, left, names)

        return extend(self.graph, pick, [value]), names

    def _depends(self, value: Value, on: Value) -> bool:
        return value.node.number in dependents([value], [on])

    def zeros(self, shape: Sequence[int], like: Value) -> Value:
        return extend(self.graph, lambda: _jax.as_varying(jnp.zeros(tuple(shape), like.dtype), like.aval), [])

    def _direction(self, key: Any, like: Value, seed: Seed, groups: list["_Directions"]) -> Value:
        """The seed itself where there is one, or a symbol for each of many."""
        if seed.directions:
            symbol = self._symbol(key, like)
            _join(groups, seed, symbol, like)
            return symbol
        if ("seed", key) not in self._memo:
            self._memo["seed", key] = extend(self.graph, lambda: seed_array(seed, like, {}), [])
        return self._memo["seed", key]

    def _symbol(self, key: Any, like: Value) -> Value:
        if key not in self._symbols:
            self._symbols[key] = self.graph.placeholder(like.aval)
        return self._symbols[key]

    def _jvp(self, value: Value, wrt: Value, direction: Value) -> Value:
        """The tangent of `value` along `direction`.

        Tangents of all values on the way are kept, and the next order starts from them, so that every equation is
        differentiated once however high the tower.
        """
        tangents = self._tangents.setdefault((wrt, direction), {wrt: direction})
        moving = dependents([value], [wrt])
        new = [node for node in reach([value], tangents) if node.number in moving]
        if new:
            self._push(new, moving, tangents)
        tangent = tangents.get(value)
        return self.zeros(value.shape, value) if tangent is None else tangent

    def _push(self, new: Sequence[Node], moving: set[int], tangents: dict[Value, Value | None]) -> None:
        """Differentiate the nodes `new`, given the tangents of what they read; None stands for zero."""
        inside = {node.number for node in new}
        read = list(dict.fromkeys(v for node in new for v in node.operands if v.node.number not in inside))
        moved = {v: tangent for v in read if (tangent := tangents.get(v)) is not None}
        along = list(moved)
        fixed = [v for v in read if tangents.get(v) is None and v.node.name != LITERAL]
        made = [v for node in new for v in node.outputs]
        real = [v for v in made if jnp.issubdtype(v.dtype, jnp.inexact)]

        def push(primals, directions, *arrays):
            def primal(primals):
                return evaluate(real, [*zip(along, primals, strict=True), *zip(fixed, arrays, strict=True)])

            return jax.jvp(primal, (primals,), (directions,))

        def flat(*arrays):
            n = len(along)
            return push(arrays[:n], arrays[n : 2 * n], *arrays[2 * n :])

        found = extend(self.graph, flat, [*along, *moved.values(), *fixed])
        tangents.update(dict.fromkeys(made))
        for value, again, tangent in zip(real, *found, strict=True):
            tangents[value] = None if is_zero(tangent) else tangent
            tangents.setdefault(again, tangents[value])

    def _vjp(self, value: Value, leaves: Sequence[Value], cotangent: Value) -> dict[Value, Value]:
        """Cotangents of `leaves` for one cotangent of `value`, in one pass."""
        key = ("vjp", value, tuple(leaves), cotangent)
        if key not in self._memo:
            used = [leaf for leaf in leaves if self._depends(value, leaf)]
            known = self._frontier([value], *used)

            def pull(c, xs, *arrays):
                def primal(*xs):
                    (out,) = evaluate([value], [*zip(used, xs, strict=True), *zip(known, arrays, strict=True)])
                    return out

                _, backward = jax.vjp(primal, *xs)
                return backward(c)

            operands = [cotangent, *used, *known]

            def flat(c, *rest):
                return pull(c, rest[: len(used)], *rest[len(used) :])

            cotangents = extend(self.graph, flat, operands)
            self._memo[key] = dict(zip(used, cotangents, strict=True))
        return self._memo[key]

    def _frontier(self, values: Sequence[Value], *wrt: Value) -> list[Value]:
        """What the part of the program that depends on `wrt` reads from the part that does not."""
        moving = dependents(values, wrt)
        return frontier(values, moving, wrt)

    # ---- from symbolic directions to all that are wanted

    def _batch(
        self,
        value: Value,
        labels: tuple[str, ...],
        groups: Iterable["_Directions"],
        block: Block,
    ) -> tuple[Value, tuple[str, ...]]:
        for group in groups:
            names = tuple(group.labels)
            sizes = {name: block.sizes[name] for name in names}
            count = math.prod(sizes.values())
            if not any(self._depends(value, symbol) for symbol in group.seeds):
                # The derivative vanishes whatever the direction.
                shape = (*sizes.values(), *value.shape)
                value = extend(self.graph, lambda a, s=shape: jnp.broadcast_to(a, s), [value])
                labels = (*names, *labels)
                continue
            seeds = []
            images = any(node.name == "conv_general_dilated" for node in reach([value]))
            for symbol, (seed, like) in group.seeds.items():
                position = direction_axis(seed, images)
                array = extend(
                    self.graph,
                    lambda s=seed, v=like, p=position, z=sizes: jnp.moveaxis(seed_array(s, v, z), 0, p),
                    [],
                )
                seeds.append(Batched(symbol, array, position))
            result, position = batch(self.graph, value, seeds, count, self.chunk_size)
            shape = (*value.shape[:position], *sizes.values(), *value.shape[position:])
            value = extend(self.graph, lambda a, s=shape: jnp.reshape(a, s), [result])
            labels = (*labels[:position], *names, *labels[position:])
        return value, labels

    def assemble(self, value: Value, labels: tuple[str, ...], block: Block) -> Value:
        if labels == block.result:
            return value
        return extend(self.graph, lambda a: contract(a, labels, block.result), [value])


def count_passes(block: Block, candidate: Candidate, lanes: frozenset[str], apart: Mapping[str, float]) -> float:
    """The directions that a candidate pushes and pulls for one block; names in `apart` take so many in one reverse
    pass."""
    summed, seeds = summed_labels(block), wrt_seeds(block, lanes)
    labels: Sequence[Label] = tuple(dict.fromkeys(a for a in block.output_labels if isinstance(a, str)))
    names: set[str] = set()
    kept: set[str] = set()
    for stage in candidate:
        slot_labels = block.wrt_labels[stage.slot]
        if stage.mode == FORWARD:
            names |= set(seeds[stage.slot].directions)
        else:
            seed = Seed(tuple(output_seed(label, slot_labels, block, lanes, summed) for label in labels))
            together = {name for name in seed.directions if name in apart and name not in slot_labels}
            kept |= together
            names |= set(seed.directions) - together
            labels = tuple(dict.fromkeys(a for a in slot_labels if isinstance(a, str)))
    return math.prod(block.sizes[name] for name in names) * math.prod(apart[name] for name in kept - names)


@dataclass
class _Directions:
    """Names whose basis directions are taken together, and the symbolic seeds that they replace."""

    labels: Mapping[str, None]
    seeds: Mapping[Value, tuple[Seed, Value]]


def _join(groups: list[_Directions], seed: Seed, symbol: Value, like: Value) -> None:
    """Add a symbol and its directions; groups that come to share a name become one."""
    joined = _Directions(dict.fromkeys(seed.directions), {symbol: (seed, like)})
    for group in [g for g in groups if g.labels.keys() & joined.labels.keys()]:
        groups.remove(group)
        joined = _Directions({**group.labels, **joined.labels}, {**group.seeds, **joined.seeds})
    groups.append(joined)


def contract(array: jax.Array, labels: Sequence[str], result: Sequence[str]) -> jax.Array:
    """Diagonals of repeated names, sums over the names not kept, the kept ones in order."""
    labels = list(labels)
    for name in [n for n in dict.fromkeys(labels) if labels.count(n) > 1]:
        while labels.count(name) > 1:
            first = labels.index(name)
            second = labels.index(name, first + 1)
            array = jnp.diagonal(array, axis1=first, axis2=second)  # the diagonal goes last
            labels = [n for a, n in enumerate(labels) if a not in (first, second)] + [name]
    dropped = tuple(axis for axis, name in enumerate(labels) if name not in result)
    if dropped:
        array = jnp.sum(array, axis=dropped)
        labels = [name for name in labels if name in result]
    return jnp.transpose(array, [labels.index(name) for name in result])
