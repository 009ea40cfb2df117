"""Random programs and random specs against dense derivative tensors, in double precision.

Each case is one program of `programs.py` with several specs in one `partials` call, so that they share. The
dense tensors are nested `jax.jacfwd` and `jax.jacrev`, in the first combination that JAX accepts, and specs cut
their values out of them. A random loss over the partials must have the gradient of the same loss over what is
cut out of the dense tensors.
"""

import functools
import itertools
import math
import re
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpartials as jp
from jaxpartials.notation import Block, parse, resolve
from tests.oracle import select
from tests.programs import LANE_ROWS, MIXING_ROWS, ROWS, Program, draw

pytestmark = pytest.mark.slow

RTOL = 1e-9
DENSE = 2000  # elements of the largest dense tensor
REFUSALS = (TypeError, ValueError, NotImplementedError)  # how JAX refuses a mode


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


# ---- drawing specs


def draw_spec(rng, program: Program, order: int) -> str:
    """A random spec that fits the program, of a lower order where the dense tensor would be too large."""
    specs = (_spec(rng, program, max(0, order - attempt // 30)) for attempt in itertools.count())
    return next(spec for spec in specs if spec is not None)


def _spec(rng, program, order):
    def choice(options):
        options = list(options)
        return options[rng.integers(len(options))]

    output = choice(program.outputs)
    wrt = [choice(program.inputs) for _ in range(order)]
    if order > 1 and rng.random() < 0.5:
        wrt = [wrt[0]] * order if rng.random() < 0.6 else [wrt[0]] * (order - 1) + wrt[-1:]
    if program.lanes and order and rng.random() < 0.5 and wrt[0] not in program.lanes:
        return None
    shapes = [program.outputs[output], *(program.inputs[name] for name in wrt)]
    if math.prod(map(math.prod, shapes)) > DENSE:
        return None
    spelled = output if program.names is None or rng.random() < 0.5 else str(program.names.index(output))
    if rng.random() < 0.25 and not program.lanes:  # no axes named
        if order == 1 and "params.w" in program.inputs and rng.random() < 0.3:
            wrt = ["params"]
        return spelled + ("/" if order else "") + " ".join(_powers(wrt))
    letters = iter("ijklmnopqrs")
    sizes: dict[str, int] = {}
    labels = []
    for place, (name, shape) in enumerate(zip([output, *wrt], shapes, strict=True)):
        if place > 1 and name == wrt[place - 2] and rng.random() < 0.5:
            labels.append(labels[-1])
            continue
        axes: list[str | int] = []
        for axis, size in enumerate(shape):
            alike = [label for label in sizes if sizes[label] == size]
            if axis == 0 and name in program.lanes and rng.random() < 0.9:
                sizes["b"] = size
                axes.append("b")
            elif rng.random() < 0.15:
                axes.append(int(rng.integers(size)))
            elif alike and rng.random() < 0.3:
                axes.append(choice(alike))
            else:
                letter = next(letters)
                sizes[letter] = size
                axes.append(letter)
        labels.append(axes)
    first = spelled + _bracket(labels[0])
    text = first + ("/" if order else "") + " ".join(
        _powers([name + _bracket(axes) for name, axes in zip(wrt, labels[1:], strict=True)])
    )  # fmt: skip
    shared = {a for a in labels[0] if isinstance(a, str)} & {a for axes in labels[1:] for a in axes}
    if shared or rng.random() < 0.4:
        keeping = {"b": 0.85}
        kept = [name for name in rng.permutation(sorted(sizes)) if rng.random() < keeping.get(name, 0.6)]
        text += " -> " + " ".join(kept)
    return text


def _powers(names):
    return [name if (n := len(list(run))) == 1 else f"{name}^{n}" for name, run in itertools.groupby(names)]


def _bracket(axes):
    return f"[{','.join(map(str, axes))}]" if axes else ""


# ---- the oracle


@dataclass
class Wanted:
    """One block of one spec, and the dense tensor that it is cut from."""

    block: Block
    tensor: tuple  # output leaf, input leaves


class Oracle:
    """The dense derivative tensors of a program, each in the first combination of modes that JAX accepts."""

    def __init__(self, program: Program):
        self.program = program
        self.leaves, self.treedef = jax.tree.flatten(program.args)
        self.result = jax.eval_shape(program.fn, *program.args)
        self.towers: dict[tuple, Callable | None] = {}

    def call(self, leaves):
        return jax.tree.leaves(self.program.fn(*jax.tree.unflatten(self.treedef, leaves)))

    def wanted(self, spec):
        """The blocks of a spec as a pytree; None if JAX can compute one of them in no mode."""
        arguments = dict(zip(self.program.arguments, self.program.args, strict=True))
        tree = resolve(parse(spec), arguments, self.result, self.program.names)
        blocks, structure = jax.tree.flatten(tree, is_leaf=lambda x: isinstance(x, Block))
        towers = [self.tower(block.output, block.wrt) for block in blocks]
        if None in towers:
            return None
        return jax.tree.unflatten(structure, [Wanted(b, (b.output, b.wrt)) for b in blocks])

    def tower(self, output, wrt):
        if (output, wrt) not in self.towers:
            candidates = self._candidates(output, wrt)
            if self.program.one_way:
                candidates = filter(lambda fn: accepted(fn, self.leaves), candidates)
            self.towers[output, wrt] = next(candidates, None)
        return self.towers[output, wrt]

    def _candidates(self, output, wrt):
        for modes in itertools.product((jax.jacfwd, jax.jacrev), repeat=len(wrt)):
            fn = lambda leaves: self.call(leaves)[output]
            for mode, position in zip(modes, wrt, strict=True):
                fn = differentiated(fn, mode, position)
            yield fn


def differentiated(fn, mode, position):
    return lambda xs: mode(lambda x: fn([*xs[:position], x, *xs[position + 1 :]]))(xs[position])


def accepted(fn, leaves):
    try:
        jax.eval_shape(fn, leaves)
    except REFUSALS:
        return False
    return True


def cut(tensor, block):
    """`oracle.select` for traced arrays."""
    labels = [*block.output_labels, *itertools.chain(*block.wrt_labels)]
    tensor = tensor[tuple(label if isinstance(label, int) else slice(None) for label in labels)]
    numbers = {name: n for n, name in enumerate(block.sizes)}
    names = [numbers[label] for label in labels if isinstance(label, str)]
    return jnp.einsum(tensor, names, [numbers[name] for name in block.result], precision="highest")


# ---- one case


@dataclass(frozen=True)
class Case:
    seed: int
    program: Program
    specs: tuple[str, ...]
    chunk_size: int | None
    use: str  # "value", "gradient" of a loss, or under "vmap"


def make_case(seed: int, length: int = 3, most: int = 3) -> Case:
    """One program and its specs: of five, one is on a batch and one on a batch that is mixed."""
    rng = np.random.default_rng([11, seed])
    kind = seed % 5
    table = {3: LANE_ROWS, 4: MIXING_ROWS}.get(kind, ROWS)
    turn = seed // 5 * (3 if table is ROWS else 1) + (kind if table is ROWS else 0)
    lanes = int(rng.integers(3, 6)) if kind > 2 else None
    program = draw(seed, table[turn % len(table)], lanes=lanes, mixed=kind == 4, length=length)
    drawn = rng.choice(4, size=rng.integers(2, most + 1), p=[0.1, 0.5, 0.32, 0.08])
    specs = tuple(draw_spec(rng, program, min(int(order), program.most)) for order in drawn)
    chunk_size = int(rng.integers(1, 4)) if rng.random() < 0.2 else None
    return Case(seed, program, specs, chunk_size, str(rng.choice(["value", "gradient", "vmap"], p=[0.5, 0.4, 0.1])))


def check(case: Case) -> None:
    """Assert everything this file is about for one case."""
    program = case.program
    oracle = Oracle(program)
    trees = {spec: oracle.wanted(spec) for spec in case.specs}
    for spec in [spec for spec, tree in trees.items() if tree is None]:
        check_refused(program, spec)
    trees = {spec: tree for spec, tree in trees.items() if tree is not None}
    if not trees:
        return
    flat, structure = jax.tree.flatten(list(trees.values()))
    towers = {wanted.tensor: oracle.towers[wanted.tensor] for wanted in flat}
    rng = np.random.default_rng(case.seed)
    weights = [rng.normal(size=wanted.block.shape) for wanted in flat]
    g = jp.partials(program.fn, list(trees), outputs=program.names, chunk_size=case.chunk_size)

    def loss(pieces):
        return sum(jnp.vdot(w, piece) for w, piece in zip(weights, pieces, strict=True))

    # Functions of the leaves: what is compared, and the loss, for those who differentiate it.
    def ours(leaves):
        partials = g(*jax.tree.unflatten(oracle.treedef, leaves))
        assert jax.tree.structure(partials) == structure
        partials = jax.tree.leaves(partials)
        return lambda: loss(partials), partials

    def theirs(leaves):
        tensors = {key: tower(leaves) for key, tower in towers.items()}
        return lambda: loss([cut(tensors[wanted.tensor], wanted.block) for wanted in flat]), tensors

    outer = differentiation(theirs, oracle.leaves, program.one_way) if case.use == "gradient" else value
    tensors, right = jax.jit(outer, static_argnums=0)(theirs, oracle.leaves)
    # Under jit, or as it stands: then arguments that are floats come in as floats.
    outer = jax.jit(outer, static_argnums=0) if case.use == "gradient" else mapped if case.use == "vmap" else value
    found, left = outer(ours, oracle.leaves)
    for wanted, partial in zip(flat, found, strict=True):
        tensor = np.asarray(tensors[wanted.tensor])
        labels = [*wanted.block.output_labels, *itertools.chain(*wanted.block.wrt_labels)]
        expected = select(tensor, labels, wanted.block.result)
        close(partial, expected, np.max(np.abs(tensor), initial=0), wanted.block.partial.text)
    largest = max((np.max(np.abs(slope), initial=0) for slope in right), default=0)
    for name, slope, expected in zip(program.inputs, left, right, strict=False):
        close(slope, expected, largest, f"gradient of the loss by {name}")
    plan = g.plan(*program.args)
    for row, tree in zip(plan.partials, trees.values(), strict=True):
        check_modes(program, row)
        for wanted in jax.tree.leaves(tree):
            check_lanes(program, wanted.block, np.asarray(tensors[wanted.tensor]), row)


def check_refused(program, spec):
    """What no mode of JAX can compute is an error, unless it vanishes because nothing depends on an input."""
    try:
        found = jp.partials(program.fn, spec, outputs=program.names)(*program.args)
    except jp.errors.DerivativeError:
        return
    assert not any(np.any(array) for array in jax.tree.leaves(found)), spec


def value(fn, leaves):
    return fn(leaves)[1], ()


def mapped(fn, leaves):
    """The value for these arguments as one of two under vmap."""
    rest = jax.vmap(lambda leaves: fn(leaves)[1])([jnp.stack([jnp.asarray(leaf) * 0.9, leaf]) for leaf in leaves])
    return jax.tree.map(lambda array: array[1], rest), ()


def with_loss(fn, leaves):
    loss, rest = fn(leaves)
    return loss(), rest


def backward(fn, leaves):
    (_, rest), slopes = jax.value_and_grad(functools.partial(with_loss, fn), has_aux=True)(leaves)
    return rest, slopes


def forward(fn, leaves):
    tangents = [jnp.sin(1.0 + jnp.arange(np.size(leaf))).reshape(np.shape(leaf)) for leaf in leaves]
    _, slope, rest = jax.jvp(functools.partial(with_loss, fn), (leaves,), (tangents,), has_aux=True)
    return rest, [slope]


def differentiation(fn, leaves, one_way):
    """How JAX differentiates a loss over dense tensors: backwards, along one direction, or not at all."""
    for outer in (backward, forward):
        if not one_way or accepted(functools.partial(outer, fn), leaves):
            return outer
    return value


def close(found, expected, scale, name):
    """To rounding: relative to each element, or to the largest that was summed or subtracted on the way."""
    np.testing.assert_allclose(found, expected, rtol=RTOL, atol=1e-11 * max(float(scale), 1e-3), err_msg=name)


def check_modes(program, row):
    """No plan falls back on the plain path, and a mode is refused for what JAX has in one mode only."""
    assert row.mode != "plain", row.notes
    refused = [note for note in row.notes if re.search(r"^(forward|reverse).* mode: |cannot be differentiated", note)]
    assert all(program.one_way and re.search("custom_vjp|while", note) for note in refused), refused


def check_lanes(program, block, tensor, row):
    """Lanes that the plan takes for independent are; of others it says so, and which line mixes them."""
    labels = [*block.output_labels, *itertools.chain(*block.wrt_labels)]
    tensor = tensor[tuple(slice(a, a + 1) if isinstance(a, int) else slice(None) for a in labels)]
    places = np.indices(tensor.shape)
    rounding = 1e-12 * np.max(np.abs(tensor), initial=0)
    for label in {*block.output_labels} & {*itertools.chain(*block.wrt_labels)}:
        pairs = list(zip(places, labels, strict=True))
        n = len(block.output_labels)
        first, *same = (place for place, name in pairs[:n] if name == label)
        on = np.all([place == first for place in [first, *same]], axis=0)
        off = on & np.any([place != first for place, name in pairs[n:] if name == label], axis=0)
        if isinstance(label, int) or np.all(np.abs(tensor[off]) <= rounding):
            continue
        assert label not in row.lanes, f"{row.spec}: {label} is no lane"
        (note,) = (note for note in row.notes if note.startswith(f"{label} is no lane"))
        if label == "b" and (line := re.search(rf"{program.file}:(\d+)", note)):
            assert int(line[1]) in program.mixing, note


# Five hundred, of five kinds in turn: an older JAX takes every fifth turn, the newest all others.
OLDER = jax.__version_info__ < (0, 11)
SEEDS = [seed for seed in range(500) if (seed // 5 % 5 == 4) == OLDER]


@pytest.mark.parametrize("seed", SEEDS)
def test_random_program(seed):
    if seed % 50 == 0:
        jax.clear_caches()  # compiled programs that will not run again
    check(make_case(seed))


def test_a_lane_that_is_none_is_noticed(monkeypatch):
    case = next(case for case in map(make_case, range(4, 500, 5)) if any("-> b" in spec for spec in case.specs))
    monkeypatch.setattr("jaxpartials.candidates.independent", lambda *args: None)
    with pytest.raises(AssertionError):
        check(case)


def test_a_wrong_derivative_is_noticed(monkeypatch):
    monkeypatch.setattr(jax, "jacfwd", lambda f: lambda x: 1.0000001 * jax.jacrev(f)(x))
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        check(make_case(0))
