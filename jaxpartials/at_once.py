"""All orders of one block at once: the block as differential operators in a few directions.

Of the partial u/x[i]^2 x[j]^2 the directions are the basis vectors of x, and the operator is sum_ij s_i^2 s_j^2. Each
direction has a seed, as in a tower of jvps, and Taylor mode pushes them through the program together (see `taylor`):
mixed as they are, or polarised, as powers of single directions such as s_i + s_j that nothing mixes.

To polarise is to subtract nearly equal numbers. With all derivatives of the order k of one size, the terms of the mixed
derivative along k different directions are up to k^k / k! times as large as their sum, those of s^2 t^2 three times: so
many bits may be lost, and at most four are.
"""

import itertools
import math
from collections import defaultdict
from collections.abc import Sequence
from fractions import Fraction

import jax.numpy as jnp

from jaxpartials import operators
from jaxpartials.derive import Deriver
from jaxpartials.graph.graph import Value
from jaxpartials.graph.trace import extend
from jaxpartials.notation import Block
from jaxpartials.seeds import Seed, wrt_seeds
from jaxpartials.taylor import Taylor, Unsuitable

# What the stages of a candidate of this kind are called.
TAYLOR = "Taylor"
POLARISED = "polarised"

# How many times larger than their sum the terms of a polarised operator may be.
GROWTH = 16
# Directions, and operators that every value of the program is differentiated by.
MOST_DIRECTIONS, MOST_OPERATORS = 8, 32


def at_once(deriver: Deriver, block: Block, lanes: frozenset[str], *, polarise: bool) -> tuple[Value, int]:
    """The value of one block, and in how many directions.

    Raises:
        Unsuitable: where there is but one direction, or too many, or the program is not of the kind.
    """
    if (zero := deriver.vanishing(block)) is not None:
        return zero, 0
    value, labels = deriver.output(block)
    order = len(block.wrt)
    directions, kept, rows = _as_operators(block, lanes, set(labels))
    if deriver.chunk_size is not None or len(directions) < 2:
        raise Unsuitable("one direction after the other")
    forms = [tuple(int(i == k) for i in range(len(directions))) for k in range(len(directions))]
    if polarise:
        forms, rows = _polarised(rows, len(directions))
    wanted = [operators.scaled(terms) for terms in rows]
    if len(operators.family([found[1] for found in wanted if found], order / 2)) > MOST_OPERATORS:
        raise Unsuitable("too many operators")
    taylor = Taylor(deriver.graph, [_moves(deriver, form, directions) for form in forms], order, deriver.slope)
    found = iter(taylor.apply(value, [operator[1] for operator in wanted if operator]))
    results = []
    for operator in wanted:
        result = next(found) if operator else None
        results.append(
            deriver.zeros(value.shape, value)
            if result is None or operator is None
            else taylor.scaled(result, operator[0])
        )
    if kept:
        shape = tuple(block.sizes[name] for name in kept)
        stack = lambda *rows: jnp.reshape(jnp.stack(rows), (*shape, *value.shape))
        results, labels = [extend(deriver.graph, stack, results)], (*kept, *labels)
    return deriver.assemble(results[0], labels, block), len(forms)


Directions = list[tuple[int, Seed]]  # the input leaf that moves, and how it is seeded
Terms = dict[operators.Monomial, Fraction]


def _as_operators(
    block: Block, lanes: frozenset[str], output_names: set[str]
) -> tuple[Directions, tuple[str, ...], list[Terms]]:
    """A block's directions; the names of them that the result keeps; and for each element of those, what to sum.

    Raises:
        Unsuitable: where there are too many directions, or the output has a name in common with one.
    """
    seeds = wrt_seeds(block, lanes)
    names = tuple(dict.fromkeys(name for seed in seeds for name in seed.directions))
    if output_names & set(names) or math.prod(block.sizes[name] for name in names) > MOST_DIRECTIONS**2:
        raise Unsuitable("too many directions")
    kept = tuple(name for name in names if name in block.result)
    numbers: dict[tuple[int, Seed], int] = {}
    rows: dict[tuple[int, ...], defaultdict[operators.Monomial, Fraction]] = {}
    for positions in itertools.product(*(range(block.sizes[name]) for name in names)):
        at = dict(zip(names, positions, strict=True))
        monomial = []
        for leaf, seed in zip(block.wrt, seeds, strict=True):
            fixed = Seed(tuple(at.get(label, label) if isinstance(label, str) else label for label in seed.axes))
            monomial.append(numbers.setdefault((leaf, fixed), len(numbers)))
        rows.setdefault(tuple(at[name] for name in kept), defaultdict(Fraction))[tuple(sorted(monomial))] += 1
    if len(numbers) > MOST_DIRECTIONS:
        raise Unsuitable("too many directions")
    return list(numbers), kept, [dict(terms) for terms in rows.values()]


def _polarised(rows: Sequence[Terms], directions: int) -> tuple[list[operators.Form], list[Terms]]:
    """The directions whose powers do, and the same operators in these.

    Raises:
        Unsuitable: where no two directions are mixed, or too much would cancel.
    """
    weights = [operators.polarised(terms, directions) for terms in rows]
    if any(operators.growth(row, terms) > GROWTH for row, terms in zip(weights, rows, strict=True)):
        raise Unsuitable("too much would cancel")
    forms = list(dict.fromkeys(form for row in weights for form in row))
    if all(sum(map(bool, form)) == 1 for form in forms):
        raise Unsuitable("no two directions are mixed")
    order = len(next(iter(rows[0])))
    return forms, [{(forms.index(form),) * order: weight for form, weight in row.items()} for row in weights]


def _moves(deriver: Deriver, form: operators.Form, directions: Directions) -> dict[Value, Value]:
    """A sum of directions, by the input that it moves."""
    arrays: dict[Value, list[tuple[int, Value]]] = {}
    for times, (leaf, seed) in zip(form, directions, strict=True):
        if times:
            arrays.setdefault(deriver.inputs[leaf], []).append((times, deriver.seeded(leaf, seed)))
    return {wrt: _weighted(deriver, terms) for wrt, terms in arrays.items()}


def _weighted(deriver: Deriver, terms: Sequence[tuple[int, Value]]) -> Value:
    """The sum of so many times each value; of what is the same for all lanes, for one lane."""
    numbers, values = zip(*terms, strict=True)
    if numbers == (1,):
        return values[0]
    spread = {(v.node.name, str(v.node.params)) for v in values}
    if len(spread) == 1 and values[0].node.name == "broadcast_in_dim":
        node = values[0].node
        inner = _weighted(deriver, [(n, v.node.operands[0]) for n, v in terms])
        return deriver.graph.add(node.primitive, [inner], node.params, [values[0].aval])[0]
    add = lambda *arrays: sum(n * array for n, array in zip(numbers, arrays, strict=True))
    return extend(deriver.graph, add, values)
