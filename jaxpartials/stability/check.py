"""`check_stability` and `assert_stable`: where a function and its derivatives lose accuracy, and on which line."""

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxpartials.errors import StabilityError
from jaxpartials.graph.graph import Graph
from jaxpartials.graph.trace import trace
from jaxpartials.inspection.finding import Place, place
from jaxpartials.stability.advice import advice, with_replaced
from jaxpartials.stability.arithmetic import WITHOUT_MPMATH, have_mpmath
from jaxpartials.stability.blame import COMPILER, Guilt, compilers, guilty
from jaxpartials.stability.derivatives import Derivative, derivatives
from jaxpartials.stability.measure import Array, Measured, as_floats, measure, significand
from jaxpartials.stability.patterns import Match, matches_inside
from jaxpartials.stability.ranges import Sample, sample
from jaxpartials.stability.regions import Region, regions
from jaxpartials.stability.results import BOTH, COMPILED, EAGER, Accuracy, Culprit, Loss, StabilityReport
from jaxpartials.stability.truth import Truth, digits_of, exactly, rowwise, truth

FEWEST = 3  # points of a sample: the ends of a range, and one between
TRIED = 3  # points of a region whose culprit is looked for
ISOLATED = 0.02  # of the points: wrong so near to a root of the result that inputs rounded otherwise explain it
EXPLAINED = 8.0  # times what rounding the inputs changes


def check_stability(
    fn: Callable[..., Any],
    *args: Any,
    orders: Sequence[int] = (0, 1, 2),
    bits: float | None = None,
    points: int = 160,
    seed: int = 0,
) -> StabilityReport:
    """Tell where `fn` and its derivatives lose their accuracy, on which line, and what to write instead.

    The function and its derivatives are run at a sample of points, op by op and compiled, and compared with what the
    same program gives in wider arithmetic: float64 with random rounding where that is enough, else mpmath. Of a point
    that is wrong every equation is run alone on its exact operands: the one whose own error explains the result's is
    the culprit. The bodies of `jit`, `vmap`, `scan`, `while_loop`, `cond` and `jax.checkpoint` are followed equation by
    equation; of a function with a rule of its own the derivative that is checked is what the rule computes, in wider
    arithmetic. What is advised has been tried, in float32 and wider, unless it stands in a loop or branch: with it the
    worst point is right, or another line is to blame there.

    Examples:
        >>> import jax.numpy as jnp
        >>> def approach(x):
        ...     t = jnp.exp(-x)
        ...     return 1.0 - t
        >>> report = check_stability(approach, (1e-20, 10.0), orders=(0, 1))
        >>> [(loss.derivative, loss.culprit.how, loss.culprit.instead) for loss in report.losses]
        [('f', 'cancellation', 'expm1 x')]

    What a program approximates (a series cut short, a fitted polynomial) is not seen: the program is its own reference.
    A result that is small because the inputs nearly cancel is not held against the program where rounding the inputs
    explains the error, in functions of arrays everywhere, in functions of numbers at isolated points. The gradient of
    a scalar by an array is measured by its largest element.

    Args:
        fn: a function of arrays, numbers and pytrees of them that JAX can trace.
        args: for each argument either `(low, high)`, numbers of this range, or a `Range`, which may have a shape, or an
            array or a float, tried as it is and with its elements changed by up to 2⁻¹⁰ of their size. Python's ints
            are settings.
        orders: of the derivatives; those by each argument and the mixed ones. By an array they go along one direction.
        bits: of the significand that may be wrong; a third of it by default, which is 8 of float32's 24.
        points: how many are tried of ranges.
        seed: of the sample.

    Returns:
        A `StabilityReport`, which prints as a table.

    Raises:
        StabilityError: no argument or result has real floating-point numbers, `orders` or `points` are none, or float64
            is not enough and mpmath is not there, or does not know an equation.

    Source: Panchekha et al., Automatically improving accuracy for floating point expressions, PLDI 2015 (bits of
        error); Sanchez-Stern et al., Finding root causes of floating point error, PLDI 2018 (local errors).
    """
    if not callable(fn):
        raise TypeError(f"check_stability() takes a function and its arguments, and got {type(fn).__name__} {fn!r}.")
    orders = _checked_orders(orders)
    if points < FEWEST:
        raise StabilityError(f"points={points!r} are too few for a sample: write at least {FEWEST}; 160 is usual.")
    tried = sample(fn, args, points, seed)
    outputs, asked = derivatives(fn, tried, orders)
    checking = _Checking(tried, derivatives(fn, tried, (0,))[1][0].at_point, bits)
    accuracies: list[Accuracy] = []
    losses: list[Loss] = []
    with np.errstate(all="ignore"):
        for derivative in asked:
            for accuracy, found in checking.check(derivative, outputs):
                accuracies.append(accuracy)
                losses += found
    return StabilityReport(
        name=getattr(fn, "__name__", type(fn).__name__),
        dtype=str(checking.dtype),
        significand=significand(checking.dtype),
        allowed=checking.bits,
        points=tried.points,
        digits=checking.most_digits,
        accuracies=tuple(accuracies),
        losses=tuple(sorted(losses, key=lambda loss: (loss.order, -loss.bad))),
        inputs=tuple((leaf.name, leaf.sample) for leaf in tried.leaves),
    )


def _checked_orders(orders: Sequence[int]) -> tuple[int, ...]:
    found = tuple(orders) if isinstance(orders, Iterable) else (orders,)
    if not found or not all(isinstance(order, int | np.integer) and order >= 0 for order in found):
        raise StabilityError(
            f"orders={orders!r} are none of derivatives: write whole numbers from 0 on, such as orders=(0, 1, 2)."
        )
    return tuple(int(order) for order in found)


def assert_stable(
    fn: Callable[..., Any],
    *args: Any,
    orders: Sequence[int] = (0, 1, 2),
    bits: float | None = None,
    points: int = 160,
    seed: int = 0,
) -> None:
    """Fail if `fn` or its derivatives lose more than so many bits on these arguments; for tests.

    What is lost at a point x, by the result y of a program whose truth is y*, is log₂(2ᵖ |y − y*|/|y*|) bits of the
    significand's p; all p where y is nan, inf or 0 and y* is not.

    >>> import jax.numpy as jnp
    >>> assert_stable(jnp.log1p, (1e-30, 1e30))
    >>> assert_stable(lambda x: jnp.log(1.0 + x), (1e-30, 1e30), orders=(0,))
    Traceback (most recent call last):
    ...
    AssertionError: <lambda> loses more than 8 bits of 24 ...

    Args:
        fn: a function of arrays, numbers and pytrees of them that JAX can trace.
        args: for each argument a range `(low, high)` or `Range`, or an array of any shape, or a float.
        orders: of the derivatives; those by each argument and the mixed ones.
        bits: of the significand that may be wrong, a third of it by default.
        points: how many are tried of ranges.
        seed: of the sample.

    Returns:
        None, where at every point of the sample no more than `bits` are lost.

    Raises:
        AssertionError: with the table of what was found.
        StabilityError: as `check_stability` raises it.

    Source: as `check_stability`.
    """
    report = check_stability(fn, *args, orders=orders, bits=bits, points=points, seed=seed)
    if report.losses:
        raise AssertionError(str(report))


class _Checking:
    """What the checks of all derivatives of one function share."""

    def __init__(self, tried: Sample, program: Callable, bits: float | None):
        self.tried = tried
        self.program = program
        real = [leaf.sample.dtype for leaf in tried.leaves if leaf.real]
        at = [jax.ShapeDtypeStruct(leaf.shape, leaf.sample.dtype) for leaf in tried.leaves]
        results = [y.dtype for y in jax.eval_shape(program, *at)]
        self.dtype = jnp.result_type(*real)
        self.wide = all(significand(dtype) < 40 for dtype in (*real, *results))
        self.digits = max(digits_of(dtype) for dtype in (*real, *results))
        self.bits = significand(self.dtype) // 3 if bits is None else bits
        self.most_digits = 0
        if not self.wide and not have_mpmath():
            raise StabilityError(f"{self.dtype} is checked with mpmath. {WITHOUT_MPMATH}")

    @functools.cached_property
    def graph(self) -> Graph:
        # A formula is the same in any precision, but not every function that JAX knows by name takes halves.
        wide = lambda leaf: jnp.promote_types(leaf.sample.dtype, jnp.float32) if leaf.real else leaf.sample.dtype
        at = [jax.ShapeDtypeStruct(leaf.shape, wide(leaf)) for leaf in self.tried.leaves]
        return trace(self.program, *at)[0]

    @functools.cached_property
    def matches(self) -> list[Match]:
        return matches_inside(self.graph)

    def check(self, derivative: Derivative, outputs: Sequence[str]) -> Iterator[tuple[Accuracy, list[Loss]]]:
        """What each output's derivative loses."""
        arrays = self.tried.arrays
        mapped = jax.vmap(derivative.at_point)
        eager = [np.asarray(y) for y in mapped(*arrays)]
        compiled = [np.asarray(y) for y in jax.jit(mapped)(*arrays)]
        true = truth(derivative.at_point, arrays, self.wide, self.digits)
        if not true.decided.any():
            raise StabilityError(f"{derivative.name}: {true.without or WITHOUT_MPMATH}")
        true = self._confirmed(derivative, true, eager, compiled)
        self.most_digits = max(self.most_digits, true.digits)
        for k, name in enumerate(outputs):
            runs = {EAGER: eager[k], COMPILED: compiled[k]}
            measured = {run: self._measured(derivative, got, true, k) for run, got in runs.items()}
            bad = {run: each.bits > self.bits for run, each in measured.items()}
            excused = self._excused(derivative, k, true, runs, bad[EAGER] | bad[COMPILED])
            bad = {run: wrong & ~excused for run, wrong in bad.items()}
            measured = {run: each.allowing(excused, self.bits) for run, each in measured.items()}
            yield (
                _accuracy(derivative, name, measured, bad, true),
                list(self._losses(derivative, name, k, true, runs, measured, bad)),
            )

    def _measured(self, derivative: Derivative, got: Array, true: Truth, k: int) -> Measured:
        # A gradient is as good as its length: an element may be wrong that is nothing beside the others.
        return measure(got, true.values[k], true.decided, together=derivative.forward is not None)

    def _confirmed(self, derivative: Derivative, true: Truth, *runs: list[Array]) -> Truth:
        """The truth, with so many digits that twice as many change nothing where the results differ from it."""
        tiny = float(jnp.finfo(self.dtype).tiny)
        while have_mpmath() and true.digits < 8 * self.digits:
            wrong = np.zeros(self.tried.points, bool)
            for run in runs:
                for k, got in enumerate(run):
                    wrong |= self._measured(derivative, got, true, k).bits > self.bits
            if not wrong.any():
                return true
            rows = np.flatnonzero(wrong)[:: max(1, int(wrong.sum()) // TRIED)][:TRIED]
            more_digits = max(2 * true.digits, self.digits)
            try:
                again = exactly(derivative.at_point, [array[rows] for array in self.tried.arrays], more_digits)
            except StabilityError:
                return true
            changed = False
            for values, more in zip(true.values, again, strict=True):
                for old, new in zip(values[rows].ravel(), more.ravel(), strict=True):
                    changed |= bool(abs(old - new) > 2.0**-20 * max(abs(new), tiny))
            if not changed:
                return true
            true = truth(derivative.at_point, self.tried.arrays, False, more_digits)
        return true

    def _excused(self, derivative: Derivative, k: int, true: Truth, runs: dict[str, Array], bad: Array) -> Array:
        """Points where other roundings of the inputs change the truth as much as the result is wrong."""
        none = np.zeros_like(bad)
        if not bad.any() or (self.tried.scalar and bad.mean() > ISOLATED):
            return none
        rows = np.flatnonzero(bad)
        rng = np.random.default_rng(0)
        centre = true.values[k][rows].reshape(rows.size, -1)
        change = np.zeros(centre.shape)
        for _ in range(2):
            moved = []
            for leaf in self.tried.leaves:
                array = leaf.sample[rows]
                if leaf.real:
                    unit = float(jnp.finfo(array.dtype).eps) / 2
                    # Wider than the inputs, so that a rounding of them is not rounded away.
                    signs = rng.choice([-1.0, 1.0], array.shape)
                    array = array.astype(np.float64) * (1 + unit * signs)
                moved.append(array)
            try:
                there = self._wider(derivative, moved)[k].reshape(rows.size, -1)
            except StabilityError:
                return none
            change = np.maximum(change, np.abs(as_floats(there - centre)))
        excused = np.ones(rows.size, bool)
        for got in runs.values():
            wrong = np.abs(as_floats(got[rows].astype(np.float64).reshape(rows.size, -1).astype(object) - centre))
            size = np.abs(as_floats(centre))
            unit = 2.0 ** -significand(got.dtype)
            if derivative.forward is not None:
                size, change = (x.max(axis=1, keepdims=True) for x in (size, change))
            explained = EXPLAINED * change + size * unit * 2.0**self.bits
            if bad.mean() <= ISOLATED:
                # Of an array, an element that is nearly zero beside the others.
                explained = np.maximum(explained, EXPLAINED * unit * size.max(axis=1, keepdims=True))
            excused &= (wrong <= explained).all(axis=1)
        none[rows] = excused
        return none

    def _wider(self, derivative: Derivative, arrays: Sequence[Array]) -> list[Array]:
        narrow = [a.astype(leaf.sample.dtype) for a, leaf in zip(arrays, self.tried.leaves, strict=True)]
        return exactly(derivative.at_point, narrow, self.digits, arrays)

    def _losses(
        self, derivative: Derivative, name: str, k: int, true: Truth, runs: dict[str, Array],
        measured: dict[str, Measured], bad: dict[str, Array],
    ) -> Iterator[Loss]:  # fmt: skip
        either = bad[EAGER] | bad[COMPILED]
        for region in regions(self.tried.leaves, either, measured[EAGER].known):
            where = _where_both(bad, region)
            run = COMPILED if where == COMPILED else EAGER
            here = measured[run]
            rows = region.rows[bad[run][region.rows]]
            worst = _middle_of_worst(rows, here.bits)
            element = int(here.element[worst])
            shape = runs[run].shape[1:]
            point = tuple(int(i) for i in np.unravel_index(element, shape)) if shape else ()
            culprits = self._culprits(derivative, k, rows, worst, here, true, where == COMPILED)
            yield Loss(
                output=name,
                derivative=derivative.name,
                order=derivative.order,
                by=tuple(self.tried.leaves[i].name for i in derivative.by),
                region=region.text,
                runs=where,
                bad=int(either[region.rows].sum()),
                of=int(here.known.sum()),
                bits=float(here.bits[worst]),
                nan=int(here.nan[rows].sum()),
                inf=int(here.inf[rows].sum()),
                zero=int(here.zero[rows].sum()),
                worst=tuple((leaf.name, leaf.sample[worst].tolist()) for leaf in self.tried.leaves),
                element=point,
                got=float(runs[run][worst].reshape(-1)[element]),
                true=float(true.values[k][worst : worst + 1].reshape(-1)[element]),
                culprits=culprits,
            )

    def _culprits(
        self, derivative: Derivative, k: int, rows: Array, worst: int, here: Measured, true: Truth, by_compiler: bool
    ) -> tuple[Culprit, ...]:
        """Those of a few points of the region, the most frequent first."""
        if not have_mpmath():
            return ()
        others = [int(i) for i in rows[:: max(1, rows.size // (TRIED - 1))] if i != worst][: TRIED - 1]
        votes: Counter[tuple[Place | None, str, str]] = Counter()
        instead: dict[tuple[Place | None, str, str], str] = {}
        for row in (worst, *others):
            at = [array[row : row + 1] for array in self.tried.arrays]
            element, lost = int(here.element[row]), float(here.bits[row])
            if by_compiler:
                guilt = compilers(rowwise(derivative.at_point, at))
            else:
                guilt = guilty(derivative.at_point, at, (k, element), lost, self.digits)
                if guilt is not None and guilt.node.name == "add_any" and derivative.forward is not None:
                    # Backwards it adds what the readers of a value give it: the sum belongs to no line of theirs.
                    guilt = guilty(derivative.forward(element), at, (k, 0), lost, self.digits) or guilt
            if guilt is not None:
                named = place(guilt.node), guilt.node.name, guilt.how
                votes[named] += 1
                if named not in instead:
                    truth = true.values[k][row : row + 1]
                    helps = functools.partial(self._helps, derivative, (k, element), at, truth, guilt)
                    instead[named] = advice(self.matches, guilt.node, helps)
        return tuple(Culprit(*named, instead[named]) for named, _ in votes.most_common())

    def _helps(
        self, derivative: Derivative, which: tuple[int, int], at: Sequence[Array], true: Array, guilt: Guilt,
        chosen: Sequence[Match],
    ) -> bool:  # fmt: skip
        """Whether with formulas replaced the result is right, or another line is to blame for what is left."""
        program = with_replaced(self.graph, chosen)
        # The graph of halves is in float32.
        if program is None or jnp.finfo(self.dtype).bits < 32:
            return True
        at_point = derivative.of(program)
        mapped = jax.vmap(at_point)
        got = np.asarray((jax.jit(mapped) if guilt.how == COMPILER else mapped)(*at)[which[0]])
        lost = measure(got, true, np.ones(1, bool), together=derivative.forward is not None).bits[0]
        if lost <= self.bits:
            return True
        left = guilty(at_point, at, which, float(lost), self.digits)
        return left is None or place(left.node) != place(guilt.node)


def _middle_of_worst(rows: Array, bits: Array) -> int:
    """Of the points that are worst the one in the middle, which is more telling than an end of the range."""
    worst = rows[bits[rows] == bits[rows].max()]
    return int(worst[worst.size // 2])


def _where_both(bad: dict[str, Array], region: Region) -> str:
    eager, compiled = (bool(bad[run][region.rows].any()) for run in (EAGER, COMPILED))
    return BOTH if eager and compiled else EAGER if eager else COMPILED


def _accuracy(
    derivative: Derivative, name: str, measured: dict[str, Measured], bad: dict[str, Array], true: Truth
) -> Accuracy:
    both = (measured[EAGER], measured[COMPILED])
    known = both[0].known
    worst = np.maximum(both[0].bits, both[1].bits)
    count = lambda what: int(np.logical_or(*(getattr(each, what) for each in both)).sum())
    return Accuracy(
        output=name,
        derivative=derivative.name,
        order=derivative.order,
        points=int(known.sum()),
        undecided=int((~true.decided).sum()),
        bits=float(worst.max(initial=0.0)),
        mean_bits=float(worst[known].mean()) if known.any() else 0.0,
        bad=int((bad[EAGER] | bad[COMPILED]).sum()),
        nan=count("nan"),
        inf=count("inf"),
        zero=count("zero"),
        errors=np.where(known, worst, np.nan),
    )
