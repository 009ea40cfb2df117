"""When two values of a program are equal by the laws of linear algebra alone.

A value is brought to the form

    value[i, j, ...] = c * core[some of i, j, ...],

a rational number times an array without the axes along which the value only repeats itself, in an order of its own. A
core is a sum of such forms, or a sum of products of them over named axes, as einsum has it, or what an operation makes
of its operands. Cores are numbered as they are met, so that two values with equal forms are equal in real arithmetic:
products and sums may be taken in another order, transposed, and with axes of size 1 or repeated rows in between. What
is not known to be equal has another form; nothing is decided by numbers that happen to agree.
"""

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxpartials.graph.graph import LITERAL, Node, Value, what
from jaxpartials.structure import rules
from jaxpartials.structure.axes_rules import elementwise

MOST_PARTS = 100  # longer sums and products are not opened when they stand in another


@dataclass(frozen=True)
class Form:
    """`number` times a core; `axes` says for each axis of the value which axis of the core it is, None for none."""

    number: Fraction
    core: int
    axes: tuple[int | None, ...]


# A part of a sum or a product: the core, the names of its axes, and the number or the power that it has there.
Part = tuple[int, tuple[int, ...], Fraction]
ONE = 0  # the core that is the number one


class NormalForms:
    """The forms of values, found once for each; equal for equal values as far as this can be told."""

    def __init__(self) -> None:
        self._forms: dict[Value, Form] = {}
        self._numbers: dict[Any, int] = {"one": ONE}
        self._ranks: dict[int, int] = {ONE: 0}
        self._parts_of: dict[int, tuple[str, int, tuple[Part, ...]]] = {}  # kind, axes of its own; by the core
        self._symmetric: dict[tuple[int, int, int], bool] = {}

    def __getitem__(self, value: Value) -> Form:
        stack = [value]
        while stack:
            top = stack[-1]
            waiting = [] if top in self._forms else [v for v in top.node.operands if v not in self._forms]
            if not waiting:
                stack.pop()
                if top not in self._forms:
                    self._forms[top] = self._form(top)
            stack += waiting
        return self._forms[value]

    def _form(self, value: Value) -> Form:
        node = value.node
        operands = [self._forms[v] for v in node.operands]
        number = _number(node.params["value"]) if node.name == LITERAL else None
        if number is not None:
            return Form(number, ONE, ())
        if node.name in LAWS and not node.effects:
            found = LAWS[node.name](self, value, operands)
            if found is not None:
                return found
        row = rules.RULES.get(node.name)
        if row is not None and row.axes is elementwise and len(node.outputs) == 1 and not node.bodies:
            return self._elementwise(node, operands)
        return self._atom(value)

    # ---- symmetry

    def symmetric(self, value: Value, a: int, b: int) -> bool:
        """Whether a value is known to stay the same when two of its axes change places."""
        form = self[value]
        p, q = form.axes[a], form.axes[b]
        if value.shape[a] != value.shape[b] or (p is None) != (q is None):
            return False
        return p is None or q is None or self._swaps(form.core, p, q)

    def _swaps(self, core: int, p: int, q: int) -> bool:
        """Whether the terms, or the factors, of a core are the same once two axes have changed places."""
        wanted = core, min(p, q), max(p, q)
        stack = [wanted]
        while stack:
            top = stack[-1]
            parts = self._parts_of[top[0]][2] if top[0] in self._parts_of else ()
            waiting = [key for part in parts if (key := _both(part, *top[1:])) and key not in self._symmetric]
            stack += waiting
            if not waiting:
                stack.pop()
                self._symmetric[top] = bool(parts) and self._alike(parts, *top[1:])
        return self._symmetric[wanted]

    def _alike(self, parts: Sequence[Part], p: int, q: int) -> bool:
        """Whether the parts stay the same when two names change places."""
        found: list[list[Part]] = [[], []]
        for core, where, times in parts:
            other = _exchanged(where, p, q)
            key = _both((core, where, times), p, q)
            if key is not None and self._symmetric[key]:
                where = other = min(where, other)
            found[0].append((core, where, times))
            found[1].append((core, other, times))
        return sorted(found[0]) == sorted(found[1])

    # ---- cores

    def _core(self, key: Any, rank: int) -> int:
        core = self._numbers.setdefault(key, len(self._numbers))
        self._ranks[core] = rank
        return core

    def _atom(self, value: Value) -> Form:
        """What is not looked into: the same operation on operands of equal forms is the same."""
        node = value.node
        key: Any = (node.number, value.index)
        if node.operands and not node.effects:
            operands = tuple((self._forms[v], v.shape, str(v.dtype)) for v in node.operands)
            key = (
                node.name,
                value.index,
                operands,
                *what(node.name, node.params, node.bodies, node.opaque, node.context),
            )
        axes = [axis for axis, n in enumerate(value.shape) if n != 1]
        return _placed(Fraction(1), self._core(key, len(axes)), axes, len(value.shape))

    def _elementwise(self, node: Node, operands: Sequence[Form]) -> Form:
        """What is computed element by element has the axes that its operands have."""
        order: list[int] = []
        for operand in operands:
            order += [axis for axis in _where(operand) if axis not in order]
        place = {axis: i for i, axis in enumerate(order)}
        named = tuple(
            (operand.number, operand.core, tuple(place[axis] for axis in _where(operand)), str(value.dtype))
            for operand, value in zip(operands, node.operands, strict=True)
        )
        settings = what(node.name, node.params, (), False, node.context)
        core = self._core((node.name, named, *settings), len(order))
        return _placed(Fraction(1), core, order, len(node.outputs[0].shape))

    def made(self, name: str, key: Any, where: Sequence[int], rank: int) -> Form:
        """What an operation makes, its axes at these of the value."""
        return _placed(Fraction(1), self._core((name, key), len(where)), where, rank)

    def along(self, name: str, form: Form, changed: dict[int, Any], shape: Sequence[int]) -> Form:
        """A linear operation along some axes of a value, with what it does there, to a value of this shape."""
        known = tuple(sorted((form.axes[axis], done) for axis, done in changed.items() if form.axes[axis] is not None))
        new = [axis for axis in changed if form.axes[axis] is None]
        where = [axis for axis in [*_where(form), *new] if shape[axis] != 1]
        core = self._core((name, form.core, known, tuple((changed[axis], shape[axis]) for axis in new)), len(where))
        return _placed(form.number, core, where, len(shape))

    # ---- sums and products

    def sum(self, forms: Sequence[tuple[int, Form]], rank: int) -> Form:
        """The sum of forms with these signs, element by element."""
        terms: dict[tuple[int, tuple[int, ...]], Fraction] = {}
        for sign, form in forms:
            where = _where(form)
            for core, names, number in self._parts(form.core, "sum"):
                key = core, tuple(where[n] for n in names)
                terms[key] = terms.get(key, Fraction(0)) + sign * form.number * number
        # Terms that cancel stay: they may be infinite.
        return self._made("sum", [(core, where, number) for (core, where), number in terms.items()], rank)

    def product(self, factors: Sequence[tuple[Form, Sequence[int], int]], number: Fraction, rank: int) -> Form | None:
        """The product of forms with named axes at these powers, summed over the names from `rank` on."""
        powers: dict[tuple[int, tuple[int, ...]], Fraction] = {}
        for form, names, power in factors:
            number *= form.number**power
            where = [names[axis] for axis in _where(form)]
            for core, own, times in self._parts(form.core, "product"):
                if core != ONE:
                    key = core, tuple(where[n] for n in own)
                    powers[key] = powers.get(key, Fraction(0)) + times * power
        if not number:
            return None  # 0 times infinity is not 0
        if not powers:
            return Form(number, ONE, (None,) * rank)
        form = self._made("product", [(core, where, power) for (core, where), power in powers.items()], rank)
        return Form(number * form.number, form.core, form.axes)

    def _parts(self, core: int, kind: str) -> tuple[Part, ...]:
        """The terms of a sum or the factors of a product; of anything else, itself."""
        found, own, parts = self._parts_of.get(core, ("", 0, ()))
        summed = any(axis >= own for _, where, _ in parts for axis in where)
        if found == kind and not summed and len(parts) <= MOST_PARTS:
            return parts
        return ((core, tuple(range(self._ranks[core])), Fraction(1)),)

    def _made(self, kind: str, parts: list[Part], rank: int) -> Form:
        """The form of a sum or a product of parts whose axes have names, those below `rank` the result's own."""
        summed = {axis for _, where, _ in parts for axis in where if axis >= rank}
        if len(parts) == 1 and not summed and (kind == "sum" or parts[0][2] == 1):
            ((core, where, number),) = parts
            return _placed(number, core, where, rank)
        # In an order in which the names have a part only where nothing else decides: first by the cores, then by what
        # else has the axes.
        company = {axis: [axis in summed] for _, where, _ in parts for axis in where}
        for core, where, number in sorted(parts, key=lambda part: (part[0], part[2])):
            for place, axis in enumerate(where):
                company[axis] += [core, place, number]
        parts = sorted(parts, key=lambda part: (part[0], part[2], [company[axis] for axis in part[1]], part[1]))
        order: list[int] = []
        for _, where, _ in parts:
            order += [axis for axis in where if axis not in order]
        kept = [axis for axis in order if axis not in summed]
        place = {axis: i for i, axis in enumerate([*kept, *(axis for axis in order if axis in summed)])}
        scale = next((number for _, _, number in parts if number), Fraction(1)) if kind == "sum" else Fraction(1)
        named = tuple((core, tuple(place[axis] for axis in where), number / scale) for core, where, number in parts)
        core = self._core((kind, len(kept), named), len(kept))
        self._parts_of[core] = kind, len(kept), named
        return _placed(scale, core, kept, rank)


def _placed(number: Fraction, core: int, where: Sequence[int], rank: int) -> Form:
    """`number` times a core whose axes lie at the axes `where` of a value of this rank."""
    place = {axis: i for i, axis in enumerate(where)}
    return Form(number, core, tuple(place.get(axis) for axis in range(rank)))


def _exchanged(where: tuple[int, ...], p: int, q: int) -> tuple[int, ...]:
    """Names of axes, two of which have changed places."""
    other = {p: q, q: p}
    return tuple(other.get(axis, axis) for axis in where)


def _both(part: Part, p: int, q: int) -> tuple[int, int, int] | None:
    """The core of a part and which of its axes have these names, if it has each of them once."""
    core, where, _ = part
    if where.count(p) != 1 or where.count(q) != 1:
        return None
    first, second = where.index(p), where.index(q)
    return core, min(first, second), max(first, second)


def _where(form: Form) -> list[int]:
    """For each axis of the core the axis of the value that it is."""
    found = {place: axis for axis, place in enumerate(form.axes) if place is not None}
    return [found[place] for place in range(len(found))]


def _number(array: np.ndarray) -> Fraction | None:
    if not jnp.issubdtype(array.dtype, jnp.floating) or not np.isfinite(array):
        return None
    return Fraction(float(array))


# ---- the laws


def _law(*names: str):
    """A law of real numbers, for values that stand for them."""

    def add(law):
        several = "index" in inspect.signature(law).parameters  # of several outputs one is asked for

        def checked(forms, value, operands):
            node = value.node
            if not all(jnp.issubdtype(v.dtype, jnp.inexact) for v in (*node.outputs, *node.operands)):
                return None
            return law(forms, node, operands, *((value.index,) if several else ()))

        LAWS.update(dict.fromkeys(names, checked))
        return law

    return add


LAWS: dict[str, Callable[[NormalForms, Value, list[Form]], Form | None]] = {}


@_law("add", "add_any")
def _add(forms, node, operands):
    return forms.sum([(1, form) for form in operands], _rank(node))


@_law("sub")
def _subtract(forms, node, operands):
    return forms.sum([(1, operands[0]), (-1, operands[1])], _rank(node))


@_law("neg")
def _negate(forms, node, operands):
    return _scaled(operands[0], Fraction(-1))


@_law("mul")
def _multiply(forms, node, operands):
    return forms.product([(form, range(_rank(node)), 1) for form in operands], Fraction(1), _rank(node))


@_law("square")
def _square(forms, node, operands):
    return forms.product([(operands[0], range(_rank(node)), 2)], Fraction(1), _rank(node))


@_law("integer_pow")
def _power(forms, node, operands):
    power = node.params["y"]
    if power < 1:
        return None
    return forms.product([(operands[0], range(_rank(node)), power)], Fraction(1), _rank(node))


@_law("div")
def _divide(forms, node, operands):
    form, by = operands
    if by.core != ONE or not by.number:
        return None
    return _scaled(form, 1 / by.number, _rank(node))


@_law("convert_element_type")
def _convert(forms, node, operands):
    return operands[0] if node.operands[0].dtype == node.outputs[0].dtype else None


@_law("transpose")
def _transpose(forms, node, operands):
    (form,) = operands
    return Form(form.number, form.core, tuple(form.axes[axis] for axis in node.params["permutation"]))


@_law("broadcast_in_dim")
def _broadcast(forms, node, operands):
    form = operands[0]
    places = node.params["broadcast_dimensions"]
    axes = dict(zip(places, form.axes, strict=True))
    return Form(form.number, form.core, tuple(axes.get(axis) for axis in range(_rank(node))))


@_law("reshape", "squeeze", "expand_dims")
def _reshape(forms, node, operands):
    """Axes of size 1 come and go."""
    form, old, new = operands[0], node.operands[0].shape, node.outputs[0].shape
    if node.params.get("dimensions") is not None and node.name == "reshape":
        return None
    if form.core == ONE:
        return Form(form.number, ONE, (None,) * len(new))
    long = [axis for axis, n in enumerate(old) if n != 1]
    if [old[axis] for axis in long] != [n for n in new if n != 1]:
        return None
    rest = iter(long)
    return Form(form.number, form.core, tuple(form.axes[next(rest)] if n != 1 else None for n in new))


@_law("slice")
def _slice(forms, node, operands):
    params, (form,), shape = node.params, operands, node.operands[0].shape
    strides = params["strides"] or (1,) * len(shape)
    cuts = list(zip(params["start_indices"], params["limit_indices"], strides, strict=True))
    return _cut(forms, form, shape, {a: cut for a, cut in enumerate(cuts) if cut != (0, shape[a], 1)})


@_law("unstack")
def _unstack(forms, node, operands, index):
    axis, shape = node.params["axis"], node.operands[0].shape
    form = _cut(forms, operands[0], shape, {axis: (index, index + 1, 1)})
    return Form(form.number, form.core, (*form.axes[:axis], *form.axes[axis + 1 :]))


def _cut(forms, form, shape, cuts):
    """Every so many elements between two places, along some axes; what is repeated along them is the same there."""
    new = [len(range(*cuts[axis])) if axis in cuts else n for axis, n in enumerate(shape)]
    cuts = {axis: cut for axis, cut in cuts.items() if form.axes[axis : axis + 1] not in ((), (None,))}
    return forms.along("slice", Form(form.number, form.core, form.axes or (None,) * len(shape)), cuts, new)


@_law("pad")
def _pad(forms, node, operands):
    form, by = operands
    if by != Form(Fraction(0), ONE, ()):
        return None
    widths = {axis: tuple(w) for axis, w in enumerate(node.params["padding_config"]) if tuple(w) != (0, 0, 0)}
    return forms.along("pad", form, widths, node.outputs[0].shape)


@_law("stack")
def _stack(forms, node, operands):
    return _joined(forms, node, operands, node.params["axis"], [1] * len(operands), new=True)


@_law("concatenate")
def _concatenate(forms, node, operands):
    axis = node.params["dimension"]
    return _joined(forms, node, operands, axis, [v.shape[axis] for v in node.operands], new=False)


def _joined(forms, node, operands, axis, lengths, new):
    """Values one after the other along an axis, which they may not have had before."""
    order: list[int] = []
    parts = []
    for form, length in zip(operands, lengths, strict=True):
        axes = (*form.axes[:axis], None, *form.axes[axis:]) if new else form.axes
        where = _where(Form(form.number, form.core, axes))
        order += [a for a in where if a not in order and a != axis]
        parts.append((form.number, form.core, where, length))
    order.append(axis)
    place = {a: i for i, a in enumerate(order)}
    key = tuple((number, core, tuple(place[a] for a in where), n) for number, core, where, n in parts)
    return forms.made("concatenate", key, order, _rank(node))


@_law("reduce_sum")
def _sum(forms, node, operands):
    (form,), axes, shape = operands, node.params["axes"], node.operands[0].shape
    if node.params.get("out_sharding") is not None:
        return None
    rank = _rank(node)
    kept, gone = iter(range(rank)), iter(range(rank, rank + len(axes)))
    names = [next(gone if axis in axes else kept) for axis in range(len(shape))]
    repeats = math.prod(shape[axis] for axis in axes if form.axes[axis] is None)
    return forms.product([(form, names, 1)], Fraction(repeats), rank)


@_law("dot_general")
def _contract(forms, node, operands):
    x, y = node.operands
    params, rank = node.params, _rank(node)
    plain = params["precision"] is None and params.get("out_sharding") is None
    if not plain or not x.dtype == y.dtype == node.outputs[0].dtype:
        return None
    contracted, batch = params["dimension_numbers"]
    names: list[dict[int, int]] = [dict(zip(batch[side], range(rank), strict=False)) for side in (0, 1)]
    for side in (0, 1):
        names[side] |= dict(zip(contracted[side], range(rank, rank + len(contracted[side])), strict=True))
    free = iter(range(len(batch[0]), rank))
    for side, value in enumerate((x, y)):
        names[side] |= {axis: next(free) for axis in range(len(value.shape)) if axis not in names[side]}
    repeats = 1
    for axis_x, axis_y in zip(*contracted, strict=True):
        if operands[0].axes[axis_x] is None and operands[1].axes[axis_y] is None:
            repeats *= x.shape[axis_x]
    factors = [(form, names[side], 1) for side, form in enumerate(operands)]
    return forms.product(factors, Fraction(repeats), rank)


def _rank(node: Node) -> int:
    return len(node.outputs[0].shape)


def _scaled(form: Form, number: Fraction, rank: int | None = None) -> Form:
    axes = form.axes if rank is None else (form.axes or (None,) * rank)
    return Form(form.number * number, form.core, axes)
