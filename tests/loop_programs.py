"""Seeded random programs with loops, branches, sums, keys and effects.

As in `programs.py`, a program is a Python function whose source is put together line by line. Its variables are of
few kinds, all of whose shapes are known, so that whatever is drawn fits:

    s  a number            v  a vector (N,)       m  a sequence of vectors (T, N)
    i  an integer          p  a predicate         k  a random key

Loops are drawn with twins in them: carries whose updates are the same lines under other names, in several steps, so
that they are equal only if everything they are made of is. Some twins differ in one number or in their beginning.
"""

import linecache
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp  # noqa: F401
import numpy as np
from jax import lax  # noqa: F401
from jax.experimental import io_callback

from tests.programs import const, custom_jvp, custom_vjp, layer_norm, product, straight_through  # noqa: F401

T, N = 3, 4
NAME = r"\b[a-z]\d+t*\b"


@dataclass(frozen=True)
class Row:
    """One line of source. Holes: {v}, {v2}, ... variables by kind; {c} a number, {j} a position along T; {f} a
    generated function of a vector, {g} one that is smooth."""

    kind: str
    text: str
    one_way: bool = False  # cannot be differentiated forwards or backwards


def rows(kind: str, text: str, **more: Any) -> list[Row]:
    return [Row(kind, line.strip(), **more) for line in text.strip().splitlines()]


SMOOTH = [
    *rows("s", """
        jnp.sum({v})
        jnp.vdot({v}, {v2})
        jnp.tanh({s}) * {s2}
        {s} + {c} * {s2}
        jnp.mean({m} * {c})
        lax.cos({s}) + {s}
        """),
    *rows("v", """
        jnp.sin({v})
        jnp.cos({v}) * {v2}
        {v} + {c} * {v2}
        {v} * {s}
        {v} * {v2} - {v2} * {v} * {c}
        jnp.tanh({v} @ const(1, (N, N)))
        jnp.exp(-{v} ** 2) * {v2}
        {v} / (2.0 + {v2} ** 2)
        jax.nn.softmax({v}) * {s}
        jax.nn.softplus({v})
        jnp.flip({v}) + {v}
        jnp.roll({v}, 1) * {c}
        layer_norm({v})
        jnp.cumsum({v}) / N
        {v}.at[1].set({s})
        {m}[{j}]
        {m}[-1] * {v}
        (jnp.sin({v}) + 0.0) * 1.0 + jnp.sin({v})
        """),
    *rows("m", """
        jnp.sin({m})
        {m} * {v}
        {m} * {m2}
        {m} - {c} * {m2}
        jnp.tanh({m} @ const(2, (N, N)))
        jnp.broadcast_to({v}, (T, N)) + {m}
        jnp.stack([{v}, {v2}, {v} * {c}])
        {m}[::-1]
        jnp.cumsum({m}, 0) / T
        jnp.outer({m}[:, 0], {v})
        """),
]  # fmt: skip

ROUGH = [
    *rows("s", """
        jnp.max({v})
        jnp.where({p}, {s}, {s2})
        straight_through({s}) * {s2}
        {s} * ({i} % 3)
        """),
    *rows("v", """
        jnp.where({p}, {v}, {v2})
        jnp.where({v} > {c}, {v}, {v2})
        jnp.sort({v})
        jnp.abs({v})
        jax.nn.relu({v}) + {v2}
        lax.stop_gradient({v}) * {v2}
        straight_through({v}) * jnp.sin({v})
        product({v}, {v2}) + {v}
        custom_jvp(lambda a: jnp.sin(a) * a)({v})
        custom_jvp(lambda a: jnp.tanh(a), 2.0)({v})
        {m}[{i} % T]
        lax.dynamic_index_in_dim({m}, {i} % T, keepdims=False)
        jax.jit({f})({v})
        jax.checkpoint({f})({v})
        jax.checkpoint({g}, policy=jax.checkpoint_policies.dots_saveable)({v})
        jax.grad(lambda a: jnp.sum({g}(a)))({v})
        jax.random.normal({k}, (N,), dtype={v}.dtype) * {v}
        lax.optimization_barrier(jnp.sin({v})) + {v2}
        """),
    *rows("v", """
        custom_vjp(lambda a: jnp.sin(a) * a)({v})
        custom_vjp(lambda a: a * a, 0.5)({v})
        """, one_way=True),
    *rows("m", """
        jax.vmap({f})({m})
        jax.lax.map({f}, {m})
        jnp.where({p}, {m}, {m2})
        jnp.where({m} < {m2}, {m} * {c}, {m2})
        """),
    *rows("i", """
        {i} + 1
        {i} * {i2} % 7
        jnp.argmax({v}).astype({i}.dtype)
        jnp.sum({v} > {c}).astype({i}.dtype)
        jnp.where({p}, {i}, {i2} + 2)
        """),
    *rows("p", """
        {s} > {c}
        jnp.sum({v}) < {c}
        {i} % 2 == 0
        ({i} < 3) & {p}
        """),
    *rows("k", """
        jax.random.fold_in({k}, {i})
        jax.random.split({k})[1]
        """),
]  # fmt: skip

SUMS = [
    *rows("v", """
        jnp.sum({m} * {v}, 0)
        jnp.sum({m} * {m2}, 0)
        jnp.sum({m} @ const(3, (N, N)) * {v} + {m2}, 0)
        jnp.sum(jnp.einsum('ti,ij->tj', {m}, const(4, (N, N))), 0)
        jnp.sum(jnp.tanh({m} @ const(3, (N, N))) @ const(4, (N, N)), 0)
        jnp.sum(jnp.where({p}, {m}, {m2}), 0)
        jnp.sum(jnp.where({v} > 0, {m}, {c} * {m2}), 0)
        jnp.sum(jnp.where({m} > 0, {m}, {m2}), 0)
        jnp.sum(({m} * {v}).T, 1)
        jnp.sum(jnp.concatenate([{m} * {v}, {m2}], 0), 0)
        jnp.sum(jnp.concatenate([{m}, {m2} * {v}], 1), 0)[1 : N + 1]
        jnp.sum((-{m} - {v})[:, ::-1], 0)
        jnp.sum(({m} * {s})[1:, :], 0)
        jnp.sum(jnp.broadcast_to({v}, (T, N)) * {m}, 0)
        jnp.sum(jnp.broadcast_to({v} ** 2, (T, N)), 0)
        jnp.sum({m}[:, None, :] * {v}[:, None], (0, 1))
        jnp.sum({m}[:, None, :] * {m2}[None, :, :], (0, 1))
        jnp.sum({m}.reshape(T, 2, -1) * {s}, 0).reshape(N)
        jnp.sum({m} ** 2 * {v}, 0)
        jnp.mean({m} / (1.5 + {v} ** 2), 0)
        jnp.sum({m} / (1.5 + {m2} ** 2), 0)
        jnp.arange(1.0, 1 + T) @ ({m} * {v})
        jnp.einsum('t,ti,i->i', jnp.arange(T) - 0.5, {m}, {v})
        jnp.sum(jnp.pad({m} * {v}, [(1, 0), (0, 0)]), 0)
        jnp.sum(jnp.pad({m}, [(0, 0), (1, 0)], constant_values=1.0), 0)[1:]
        jnp.sum(jnp.cumsum({m} * {v}, 0), 0)
        jnp.sum(jnp.cumsum({m}, 1), 0)
        jnp.sum(jnp.roll({m}, 1, 1) * {v}, 0)
        jnp.sum(({m} * {v})[jnp.array([0, 2, 2, 1])], 0)
        jnp.sum(({m} + {v})[:, jnp.array([0, 3, 3, 1])], 0)
        jnp.sum(jnp.zeros((T, N)).at[:, 1].add({m}[:, 0] * {s}), 0)
        jnp.sum(jnp.zeros((T, N)).at[jnp.array([0, 0])].add({m}[:2]), 0)
        jnp.sum(({m} * {v}).at[{j}].add({v2}), 0)
        jnp.sum(({m} * {v}).at[jnp.array([0, 2])].set({m2}[:2]), 0)
        jnp.sum(lax.dynamic_update_slice_in_dim({m} * {v}, {m2}[:1], 1, 0), 0)
        jnp.sum(jax.vmap(lambda a, i: a.at[i].add(2 * a[0]))({m}, jnp.arange(T)), 0)
        jnp.sum(jnp.real(jnp.fft.fft({m} * {v})), 0)
        jnp.sum(lax.conv_general_dilated({m}[:, None], const(5, (1, 1, 2)), (1,), 'SAME')[:, 0], 0)
        jnp.sum(lax.cond({p}, lambda a: a * 2, lambda a: a @ const(6, (N, N)), {m}), 0)
        jnp.sum(lax.scan(lambda c, a: (c * a + {m}, c * a), {m2}, {v})[0], 0)
        jnp.sum(lax.scan(lambda c, a: (c + a * {v}, jnp.sum(c * a)), jnp.zeros(N), {m})[1]) * {v}
        jnp.sum(lax.scan(lambda c, a: (c * {v} + a, jnp.sin(a) * c), {v2}, {m})[1], 0)
        jnp.sum(lax.fori_loop(0, 2, lambda i, c: c * {v} + jnp.sin(i * {m}), {m}), 0)
        jnp.sum(jax.vmap({g})({m}), 0)
        jnp.sum(jax.vmap(lambda e: jax.jvp({g}, ({v},), (e,))[1] * e)(jnp.eye(N)), 0)
        jnp.sum(jax.vmap(lambda e: jax.jvp(lambda a: jax.jvp({g}, (a,), (e,))[1], ({v},), (e,))[1])(jnp.eye(N)), 0)
        jnp.sum(jax.vmap(lambda e: {v} * jax.jvp({g}, ({v2},), ({v} * e,))[1])({m}), 0)
        """),
    *rows("s", """
        jnp.sum({m} * {v})
        jnp.sum({m} * {v} * {s})
        jnp.trace(jax.hessian(lambda a: jnp.sum({g}(a)))({v}))
        jnp.sum(jnp.diag(jax.jacfwd({g})({v})) * {v2})
        jnp.sum(jnp.where(jnp.eye(N) > 0, jnp.outer({v}, {v2}), 0.0))
        jnp.einsum('ti,ti->', {m}, {m2} * {v})
        """),
]  # fmt: skip


def note(seen: list, tag: str, value: Any) -> None:
    """Write down what is passed at run time, in order."""
    io_callback(lambda v: seen.append((tag, np.asarray(v).tolist())), None, value, ordered=True)


def ask(seen: list, tag: str, value: Any) -> Any:
    """Write down what is passed at run time, in order, and answer with another value like it."""

    def answer(v):
        seen.append((tag, np.asarray(v).tolist()))
        return np.asarray(v) // 2 if np.asarray(v).dtype.kind == "i" else np.cos(v).astype(np.asarray(v).dtype)

    return io_callback(answer, jax.typeof(value), value, ordered=True)


@dataclass(frozen=True)
class LoopProgram:
    """A function of a dict of arguments, all floats but "key" and "n", to a dict of results."""

    seed: int
    source: str
    fn: Callable[[dict[str, Any]], dict[str, Any]]
    args: dict[str, Any]
    seen: list = field(default_factory=list)  # what its effects write down

    @property
    def has_effects(self) -> bool:
        return has_effects(self.source)

    @property
    def forwards(self) -> bool:
        return not self.has_effects and "custom_vjp" not in self.source

    @property
    def backwards(self) -> bool:
        return not self.has_effects and "while_loop" not in self.source

    def recorded(self, fn: Callable, *args: Any) -> tuple[Any, list]:
        """What `fn` returns, and what it wrote down meanwhile."""
        self.seen.clear()
        out = jax.block_until_ready(fn(*args))
        jax.effects_barrier()
        return out, list(self.seen)


def has_effects(source: str) -> bool:
    return "(seen, " in source


class Draw:
    """The source of one function under construction: its lines, and its variables by kind."""

    def __init__(self, rng, counter, variables, *, depth=0, effects=False, smooth=False):
        self.rng, self.counter, self.depth, self.effects, self.smooth = rng, counter, depth, effects, smooth
        self.variables = {kind: list(names) for kind, names in variables.items()}
        self.lines: list[str] = []

    def choice(self, options):
        return options[self.rng.integers(len(options))]

    def chance(self, probability):
        return self.rng.random() < probability

    def name(self, letter):
        self.counter[0] += 1
        return f"{letter}{self.counter[0]}"

    def variable(self, kind):
        """Any of a kind; the last ones more often, so that programs get deep."""
        names = self.variables[kind]
        return self.choice(names[-3:]) if self.chance(0.5) else self.choice(names)

    def fill(self, text):
        """A row's text with its holes filled; generated functions come before it."""
        holes = {}
        for hole in sorted(set(re.findall(r"\{(\w+)\}", text))):
            if hole == "c":
                holes[hole] = round(float(self.rng.uniform(0.2, 1.2)), 2)
            elif hole == "j":
                holes[hole] = int(self.rng.integers(T))
            elif hole in "fg":
                holes[hole] = self.function(smooth=hole == "g")
            else:
                holes[hole] = self.variable(hole[0])
        return text.format(**holes)

    def line(self, kind=None):
        """Append one line that makes a variable, of a kind that may be given."""
        table = SMOOTH if self.smooth else SMOOTH + ROUGH
        if not self.smooth and self.depth < 2 and self.chance(0.25):
            table = SUMS
        table = [
            row for row in table if kind in (None, row.kind) and (self.depth < 2 or not re.search("{[fg]}", row.text))
        ]
        if not table:
            return self.line(kind)  # of another table
        row = self.choice(table)
        text = self.fill(row.text)
        name = self.name(row.kind)
        self.lines.append(f"{name} = {text}")
        self.variables[row.kind].append(name)
        return name

    def inner(self, more, **changes):
        """A function's body, which sees some of the variables around it."""
        around = {kind: [*names[-2:], *more.get(kind, ())] for kind, names in self.variables.items()}
        options = {"effects": self.effects, "smooth": self.smooth, **changes}
        return Draw(self.rng, self.counter, around, depth=self.depth + 1, **options)

    def append(self, heading, inner, result):
        self.lines += [heading, *(f"    {line}" for line in inner.lines), f"    return {result}"]

    def function(self, smooth):
        name, argument = self.name("f"), self.name("v")
        inner = self.inner({"v": [argument]}, effects=False, smooth=smooth or self.smooth)
        inner.lines.append(f"{self.name('v')} = jnp.sin({argument}) * {inner.variable('v')}")
        last = inner.lines[-1].split()[0]
        inner.variables["v"].append(last)
        for _ in range(self.rng.integers(2)):
            last = inner.line("v")
        self.append(f"def {name}({argument}):", inner, f"{last} + {argument} * {self.variable('s')}")
        return name

    def tell(self):
        if self.effects and self.chance(0.6):
            kind = self.choice("svi")
            tag, value = f"'t{self.name('')}'", self.variable(kind)
            if self.chance(0.5):
                self.lines.append(f"note(seen, {tag}, {value})")
            else:
                name = self.name(kind)
                self.lines.append(f"{name} = ask(seen, {tag}, {value})")
                self.variables[kind].append(name)

    # ---- loops and branches

    def carried(self, more):
        """Carries: their kinds, beginnings, names, and the body that makes the next ones.

        The body is drawn once and, for a twin, copied with all its names changed.
        """
        kinds = [self.choice("vvvvsik") for _ in range(1 + self.rng.integers(3))]
        names = [self.name(kind) for kind in kinds]
        begin = [self.variable(kind) for kind in kinds]
        if len(kinds) > 1 and self.chance(0.5):  # two that begin alike
            alike = [i for i, kind in enumerate(kinds) if kind == kinds[0]]
            for i in alike:
                begin[i] = begin[alike[0]]
        carried = {kind: [n for n, k in zip(names, kinds, strict=True) if k == kind] for kind in "svik"}
        inner = self.inner({kind: [*carried.get(kind, ()), *more.get(kind, ())] for kind in "svmipk"})
        inner.tell()
        for _ in range(self.rng.integers(3)):
            if self.depth < 1 and self.chance(0.25):
                inner.block()
            else:
                inner.line(self.choice("vvsm"))
        after = [self.update(inner, kind, name, names) for kind, name in zip(kinds, names, strict=True)]
        return kinds, names, begin, after, inner

    def update(self, inner, kind, name, names):
        """The next value of a carry, bounded, from itself and from others."""
        if self.chance(0.12):
            return self.choice([name, self.variable(kind)])  # does not change, or comes from outside
        if kind == "k":
            inner.lines.append(f"{(new := self.name('k'))} = jax.random.fold_in({name}, {inner.variable('i')})")
            return new
        alike = [n for n in names if n[0] == kind]
        other = self.choice(alike) if self.chance(0.6) else inner.variable(kind)
        if kind == "i":
            text = self.choice([f"({name} + 1) % 5", f"({name} + {other}) % 5"])
        else:
            text = self.choice([
                f"jnp.tanh({name} + {other})", f"0.5 * {name} + jnp.sin({other})", f"jnp.cos({name}) * 0.9",
                f"jnp.tanh({other} - {inner.variable('s')} * {name})", f"0.7 * {name} + 0.3 * {other}",
            ])  # fmt: skip
        inner.lines.append(f"{(new := self.name(kind))} = {text}")
        inner.variables[kind].append(new)
        return new

    def twins(self, kinds, names, begin, after, inner):
        """The same carries again, their lines under other names; sometimes with one number or beginning changed."""
        text = "\n".join(inner.lines)
        made = re.findall(r"^ *(?:def )?(.*?)(?: = |:$)", text, re.MULTILINE)
        local = {*names, *re.findall(NAME, " ".join(made))}
        rename = lambda text: re.sub(NAME, lambda found: found[0] + "t" if found[0] in local else found[0], text)
        lines = [rename(line) for line in inner.lines if "note(" not in line]
        beginnings = list(begin)
        if self.chance(0.5):  # only look alike
            numbered = [i for i, line in enumerate(lines) if re.search(r"\b0\.\d", line)]
            if numbered and self.chance(0.6):
                i = self.choice(numbered)
                lines[i] = re.sub(r"\b0\.(\d)", lambda found: f"0.{(int(found[1]) + 1) % 10}", lines[i], count=1)
            else:
                i = self.rng.integers(len(kinds))
                beginnings[i] = self.variable(kinds[i])
        inner.lines += lines
        return (
            [*kinds, *kinds], [*names, *map(rename, names)], [*begin, *beginnings], [*after, *map(rename, after)],
        )  # fmt: skip

    def scan(self):
        length = self.choice([0, 1, T, T, T, T, T])
        xs = [self.variable("m") for _ in range(self.rng.integers(3))]
        if xs and self.chance(0.3):
            xs.append(xs[0])  # twice
        items = [self.name("v") for _ in xs]
        *carry, inner = self.carried({"v": items})
        if self.chance(0.5):
            carry = self.twins(*carry, inner)
        kinds, names, begin, after = carry
        stacked = [inner.variable("v") for _ in range(self.rng.integers(3))]
        step = self.name("f")
        self.append(
            f"def {step}(c, a):",
            Lines([f"{_tuple(names)} = c", *([f"{_tuple(items)} = a"] if items else []), *inner.lines]),
            f"{_tuple(after)}, {_tuple(stacked)}",
        )
        options = [f"length={length}"]
        if self.chance(0.3):
            options.append("reverse=True")
        if self.chance(0.2):
            options.append("unroll=2")
        results, ys = [self.name(kind) for kind in kinds], [self.name("m") for _ in stacked]
        taken = [x if length == T else f"{x}[:{length}]" for x in xs]
        call = f"lax.scan({step}, {_tuple(begin)}, {_tuple(taken) if xs else None}, {', '.join(options)})"
        self.lines.append(f"{_tuple(results)}, {_tuple(ys)} = {call}")
        self.results(kinds, results)
        for y in ys:
            if length == T:
                self.variables["m"].append(y)
            else:
                self.lines.append(f"{(total := self.name('v'))} = jnp.sum({y}, 0)")
                self.variables["v"].append(total)

    def results(self, kinds, names):
        """What a loop returned; some of it nobody will use."""
        for kind, name in zip(kinds, names, strict=True):
            if self.chance(0.75):
                self.variables[kind].append(name)

    def turns(self):
        """A `while_loop` with a bound, or a `fori_loop`."""
        index = self.name("i")
        *carry, inner = self.carried({"i": [index]})
        if self.chance(0.5):
            carry = self.twins(*carry, inner)
        kinds, names, begin, after = carry
        step, results, most = self.name("f"), [self.name(kind) for kind in kinds], 2 + int(self.rng.integers(3))
        if self.chance(0.5):
            self.append(f"def {step}({index}, c):", Lines([f"{_tuple(names)} = c", *inner.lines]), _tuple(after))
            self.lines.append(f"{_tuple(results)} = lax.fori_loop(0, {most}, {step}, {_tuple(begin)})")
        else:
            heading = f"{_tuple([index, *names])} = c"
            self.append(f"def {step}(c):", Lines([heading, *inner.lines]), _tuple([f"{index} + 1", *after]))
            test = self.name("f")
            more = self.choice([f"{index} < {most}", f"({index} < {most}) & {self.variable('p')}"])
            numbers = [name for name, kind in zip(names, kinds, strict=True) if kind in "vs"]
            if numbers and self.chance(0.4):
                more += f" & (jnp.sum({self.choice(numbers)}) < 1.7)" if "&" in more else ""
                more = more if "&" in more else f"({more}) & (jnp.sum({self.choice(numbers)}) < 1.7)"
            self.append(f"def {test}(c):", Lines([heading]), more)
            count = self.name("i")
            call = f"lax.while_loop({test}, {step}, {_tuple(['0', *begin])})"
            self.lines.append(f"{_tuple([count, *results])} = {call}")
        self.results(kinds, results)

    def branch(self):
        """A cond or a switch, on a predicate that others may have too."""
        argument, kinds = self.name("v"), [self.choice("vvs") for _ in range(1 + self.rng.integers(2))]
        several = self.chance(0.3)
        branches = []
        for _ in range(3 if several else 2):
            inner = self.inner({"v": [argument]})
            inner.tell()
            made = [inner.line(kind) for kind in kinds]
            branches.append(self.name("f"))
            self.append(f"def {branches[-1]}({argument}):", inner, _tuple(made))
        results = [self.name(kind) for kind in kinds]
        if several:
            call = f"lax.switch({self.variable('i')}, [{', '.join(branches)}], {self.variable('v')})"
        else:
            predicate = self.variables["p"][0] if self.chance(0.5) else self.variable("p")
            call = f"lax.cond({predicate}, {branches[0]}, {branches[1]}, {self.variable('v')})"
        self.lines.append(f"{_tuple(results)} = {call}")
        self.results(kinds, results)

    def block(self):
        """A loop or a branch; now and then the one before once more."""
        start = len(self.lines)
        self.choice([self.scan, self.scan, self.scan, self.turns, self.branch])()
        if self.depth == 0 and self.chance(0.2) and not has_effects("\n".join(self.lines[start:])):
            again = [line for line in self.lines[start:] if not line.startswith(("def", " "))]
            text = again[-1] if " = lax" in again[-1] else None
            if text is not None:
                left, right = text.split(" = ", 1)
                names = re.findall(NAME, left)
                fresh = {name: self.name(name[0]) for name in names}
                left = re.sub(NAME, lambda found: fresh[found[0]], left)
                if self.chance(0.5):  # or one nearly like it
                    right = re.sub(r", reverse=True", "", right)
                self.lines.append(f"{left} = {right}")
                for name in fresh.values():
                    self.variables[name[0]].append(name)


@dataclass
class Lines:
    lines: list[str]


def _tuple(names):
    return f"({', '.join(map(str, names))}{',' if len(names) == 1 else ''})"


HEAD = """
x, y, v, s, key, n = (args[name] for name in ("x", "y", "v", "s", "key", "n"))
p0 = s > 0.1
"""


def draw(seed: int, *, effects: bool = False, length: int = 3) -> LoopProgram:
    """A random program, the same for the same arguments on every machine."""
    rng = np.random.default_rng([13, seed, effects])
    start = {"s": ["s"], "v": ["v"], "m": ["x", "y"], "i": ["n"], "p": ["p0"], "k": ["key"]}
    body = Draw(rng, [0], start, effects=effects)
    for _ in range(length + int(rng.integers(2))):
        body.tell()
        body.line()
        if rng.random() < 0.75:
            body.block()
    body.tell()
    made = [(kind, name) for kind, names in body.variables.items() for name in names]
    last = [names[-1] for kind, names in body.variables.items() if kind in "svm"]
    chosen = [*last, *(made[i][1] for i in rng.integers(len(made), size=4))]  # one of them twice, or an argument
    items = [f"'{i}': {name}" for i, name in enumerate(chosen)] + ["'one': jnp.ones(2)", "'two': 2"]
    lines = [*HEAD.strip().splitlines(), *body.lines, f"return {{{', '.join(items)}}}"]
    source = "\n".join(["def program(args):", *(f"    {line}" for line in lines)]) + "\n"
    file = f"loop_program_{seed}.py"
    linecache.cache[file] = (len(source), None, source.splitlines(True), file)
    seen: list = []
    scope = {**globals(), "seen": seen}
    exec(compile(source, file, "exec"), scope)
    args = {
        "x": rng.normal(size=(T, N)) * 0.8, "y": rng.normal(size=(T, N)) * 0.8, "v": rng.normal(size=N),
        "s": np.asarray(rng.normal()), "key": jax.random.key(seed), "n": np.asarray(rng.integers(4)),
    }  # fmt: skip
    return LoopProgram(seed, source, scope["program"], args, seen)
