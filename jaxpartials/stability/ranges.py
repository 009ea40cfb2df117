"""Where a function is tried: samples of ranges, and arrays as they are."""

import inspect
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxpartials.errors import StabilityError

Array = np.ndarray[Any, Any]

COPIES = 4  # how often an array is tried: as it is, and with its elements moved a little
MOVED = 2.0**-10


@dataclass(frozen=True)
class Range:
    """Floating-point numbers from `low` to `high`, as an argument of `check_stability`.

    A sample of n numbers has both ends, 0 where the range has it, n/3 numbers evenly spaced in it, and for the others
    ±exp t with t evenly spaced from log max(low, tiny) to log high, on each side of zero that the range has; `tiny` is
    the smallest normal number of the dtype.

    >>> Range(1e-30, 1e30)
    Range(low=1e-30, high=1e+30, shape=(), dtype=None)
    >>> import jax.numpy as jnp
    >>> from jaxpartials import check_stability
    >>> report = check_stability(jnp.sum, Range(1.0, 2.0, shape=(5,)), orders=(0,), points=40)
    >>> [len(numbers) for name, numbers in report.inputs]
    [40]

    Args:
        low: the smallest number, in the units of the argument.
        high: the largest one.
        shape: of the argument, each of whose elements comes from the range.
        dtype: of the argument; None for JAX's default, float32 or, with x64, float64.

    Raises:
        StabilityError: if `low` is not below `high`, or one of them is no finite number of the dtype.

    Source: Sampling by size follows Panchekha et al., Automatically improving accuracy for floating point expressions,
        PLDI 2015, which draws numbers with all bit patterns equally likely.
    """

    low: float
    high: float
    shape: tuple[int, ...] = ()
    dtype: Any = None

    def __post_init__(self):
        if not jnp.issubdtype(self.floats, jnp.floating):
            raise StabilityError(
                f"Range({self.low}, {self.high}) of dtype {self.floats}: only ranges of real floating-point numbers "
                "can be sampled. Pass arrays of other numbers as they are."
            )
        info = jnp.finfo(self.floats)
        if not (-info.max <= self.low < self.high <= info.max):
            raise StabilityError(
                f"Range({self.low}, {self.high}) of {self.floats}: a range goes from a smaller to a larger finite "
                f"number, from {float(info.min):.3g} to {float(info.max):.3g} at most. For one number pass that number."
            )

    @property
    def floats(self) -> Any:
        return jnp.result_type(float) if self.dtype is None else jnp.dtype(self.dtype)

    def grid(self, count: int, rng: np.random.Generator) -> Array:
        """`count` numbers in increasing order: both ends, zero where the range has it, two thirds log-spaced."""
        even = np.linspace(self.low, self.high, count // 3 + 1)[:-1]
        even += rng.uniform(0, 1, even.size) * (self.high / even.size - self.low / even.size)
        return np.sort(np.concatenate([[self.low, self.high], even, self._by_size(count - even.size - 2, rng)]))

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
        """Numbers at random, most of them log-uniform in size."""
        pool = self.grid(max(64, 2 * int(np.prod(shape))), rng)
        return rng.choice(pool, shape)

    def _by_size(self, count: int, rng: np.random.Generator) -> Array:
        tiny = float(jnp.finfo(self.floats).tiny)
        sides = [(sign, max(low, tiny), high) for sign, low, high in
                 ((1.0, self.low, self.high), (-1.0, -self.high, -self.low)) if high > tiny]  # fmt: skip
        found = [np.zeros(1)] if self.low <= 0.0 <= self.high else []
        counts = [count // len(sides) for _ in sides] if sides else []
        if sides:
            counts[0] += count - sum(counts) - len(found)
        for (sign, low, high), many in zip(sides, counts, strict=True):
            places = (np.arange(many) + rng.uniform(0, 1, many)) / max(many, 1)
            found.append(sign * np.exp(np.log(low) + places * (np.log(high) - np.log(low))))
        return np.concatenate(found)


class Leaf(NamedTuple):
    """One array or number of the arguments."""

    name: str
    sample: Array  # one row for each point
    range: Range | None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.sample.shape[1:]

    @property
    def real(self) -> bool:
        return jnp.issubdtype(self.sample.dtype, jnp.floating)


class Sample(NamedTuple):
    """The points at which a function is tried: a row of every leaf is a point."""

    leaves: tuple[Leaf, ...]
    assemble: Callable[[Sequence[Any]], tuple]  # from the leaves at a point to the arguments

    @property
    def points(self) -> int:
        return self.leaves[0].sample.shape[0]

    @property
    def arrays(self) -> tuple[Array, ...]:
        return tuple(leaf.sample for leaf in self.leaves)

    @property
    def scalar(self) -> bool:
        """Whether all that is varied is scalars."""
        return all(leaf.shape == () for leaf in self.leaves if leaf.real)


def sample(fn: Callable, given: Sequence[Any], points: int, seed: int) -> Sample:
    """The points for these arguments: (low, high) or a `Range` is sampled, numbers and arrays are tried as they are."""
    given = tuple(Range(*arg) if _is_pair(arg) else arg for arg in given)
    paths, tree = jax.tree_util.tree_flatten_with_path(given, is_leaf=lambda x: isinstance(x, Range))
    names = _names(fn, len(given))
    rng = np.random.default_rng(seed)
    places: list[int] = []
    kept: list[Any] = []
    found: list[tuple[str, Any]] = []
    for path, leaf in paths:
        name = names[path[0].idx] + jax.tree_util.keystr(path[1:])
        if isinstance(leaf, Range) or _is_numbers(leaf):
            places.append(len(kept))
            found.append((name, leaf))
        kept.append(leaf)
    if not found:
        raise StabilityError(
            "check_stability() needs an argument to vary: a range (low, high) of floats, a float, or an array of them."
        )
    ranges = [leaf for _, leaf in found if isinstance(leaf, Range)]
    count = points if ranges else COPIES
    sampled = iter(_sampled(ranges, count, rng))
    leaves = []
    for name, leaf in found:
        if isinstance(leaf, Range):
            leaves.append(Leaf(name, next(sampled), leaf))
        else:
            leaves.append(Leaf(name, _copies(leaf, count, rng), None))
    if not any(leaf.real for leaf in leaves):
        dtypes = ", ".join(f"{leaf.name}: {leaf.sample.dtype}" for leaf in leaves)
        raise StabilityError(
            f"check_stability() measures real floating-point numbers, and got {dtypes}. Pass 3.0 rather than 3, or a "
            "range (low, high); of complex numbers take real and imaginary parts as two arguments."
        )

    def assemble(arrays: Sequence[Any]) -> tuple:
        full = list(kept)
        for place, array in zip(places, arrays, strict=True):
            full[place] = array
        return jax.tree_util.tree_unflatten(tree, full)

    return Sample(tuple(leaves), assemble)


def _is_pair(arg: Any) -> bool:
    return (
        isinstance(arg, tuple)
        and len(arg) == 2
        and all(isinstance(x, (int, float, np.number)) and not isinstance(x, bool) for x in arg)
    )


def _is_numbers(leaf: Any) -> bool:
    """Arrays and floats vary; Python's own ints and bools are settings of the function."""
    return hasattr(leaf, "dtype") or (isinstance(leaf, (float, complex)) and not isinstance(leaf, bool))


def _names(fn: Callable, count: int) -> list[str]:
    try:
        kinds = inspect.Parameter
        named = [p.name for p in inspect.signature(fn).parameters.values()
                 if p.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)]  # fmt: skip
    except (TypeError, ValueError):
        named = []
    return [named[i] if i < len(named) else f"x{i}" for i in range(count)]


def _copies(leaf: Any, count: int, rng: np.random.Generator) -> Array:
    array = np.asarray(jnp.asarray(leaf))
    copies = np.repeat(array[None], count, axis=0)
    if jnp.issubdtype(array.dtype, jnp.floating):
        moves = 1.0 + MOVED * rng.uniform(-1, 1, copies.shape)
        moves[0] = 1.0
        copies = (copies * moves).astype(array.dtype)
    return copies


def _sampled(ranges: Sequence[Range], count: int, rng: np.random.Generator) -> list[Array]:
    """Samples of all ranges together.

    A single number runs through its grid. Of several, a half is independent, a quarter has one size, and a quarter is
    nearly equal: differences then cancel. Where a number would leave its range, it is independent of the others.
    """
    if not ranges:
        return []
    sizes = [int(np.prod(r.shape)) for r in ranges]
    if sum(sizes) == 1:
        columns = [ranges[0].grid(count, rng)[:, None]]
    else:
        columns = [r.draw((count, size), rng) for r, size in zip(ranges, sizes, strict=True)]
        lead = columns[int(np.argmax(sizes))][:, :1].copy()
        kind = rng.choice(4, count)[:, None]
        spread = 10.0 ** rng.uniform(-7, -0.3, (count, 1))
        for r, column in zip(ranges, columns, strict=True):
            like = np.where(kind == 2, lead * rng.choice([-1.0, 1.0], column.shape) * rng.uniform(0.1, 1, column.shape),
                            lead * (1 + spread * rng.normal(size=column.shape)))  # fmt: skip
            taken = (kind >= 2) & (like >= r.low) & (like <= r.high)
            column[taken] = like[taken]
    found = []
    for r, column in zip(ranges, columns, strict=True):
        info = jnp.finfo(r.floats)
        rounded = np.clip(column, max(r.low, float(info.min)), min(r.high, float(info.max))).astype(r.floats)
        # The hardware flushes subnormal numbers: none are tried.
        rounded = np.where(np.abs(rounded) < info.tiny, np.zeros((), r.floats), rounded)
        found.append(rounded.reshape(count, *r.shape))
    return found


def combinations(leaves: Sequence[Leaf], order: int, most: int = 10) -> list[tuple[int, ...]]:
    """By which leaves to differentiate `order` times: all ways, or where they are too many those by one alone."""
    real = [i for i, leaf in enumerate(leaves) if leaf.real]
    found = list(itertools.combinations_with_replacement(real, order))
    return found if len(found) <= most else [(i,) * order for i in real]
