"""Errors of derivatives, in units in the last place, against mpmath."""

import functools
import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import mpmath
import numpy as np

from benchmarks.stability.case import Case

DIGITS = 420
Orders = tuple[int, ...]


@dataclass(frozen=True)
class Errors:
    """The errors of one partial derivative at the points where the true value is a normal number.

    Attributes:
        orders: how often it is differentiated by each argument.
        points: the points, one row each.
        values: what was computed there.
        true: what is true there, in float64.
        ulp: the errors; inf where a nan, a spurious inf or a spurious zero came out.
    """

    orders: Orders
    points: np.ndarray
    values: np.ndarray
    true: np.ndarray
    ulp: np.ndarray

    @property
    def worst(self) -> float:
        return float(self.ulp.max(initial=0.0))

    def bad(self, bound: float) -> int:
        """How many points are further off than `bound` ulp."""
        return int((self.ulp > bound).sum())

    def __str__(self) -> str:
        if not self.ulp.size:
            return f"orders {self.orders}: no point"
        k = int(self.ulp.argmax())
        return (
            f"orders {self.orders}: {self.ulp[k]:.3g} ulp at {tuple(map(float, self.points[k]))}, "
            f"where it is {self.values[k]!r}, and should be {self.true[k]!r}"
        )


def points(case: Case, most: int = 400) -> np.ndarray:
    """Where a case is tried, in float32."""
    if len(case.grids) == 1:
        chosen = [(x,) for x in case.grids[0]]
    else:
        pairs = list(itertools.product(*case.grids))
        rng = np.random.default_rng(2)
        chosen = [pairs[k] for k in rng.permutation(len(pairs))[:most]]
    rows = np.asarray([p for p in chosen if case.within(*p)], np.float32)
    return rows[np.lexsort(rows.T[::-1])]


def multi_orders(count: int, order: int) -> list[Orders]:
    """All ways to differentiate `order` times by `count` arguments."""
    return [orders for orders in itertools.product(range(order + 1), repeat=count) if sum(orders) == order]


def derivative(fn, orders: Orders):
    """∂^|orders| fn / ∂x₁^i ∂x₂^j … as a function of scalars, by `jax.grad` innermost and `jax.jvp` above it."""
    ways = [k for k, n in enumerate(orders) for _ in range(n)]
    for depth, k in enumerate(ways):
        fn = _reverse(fn, k) if depth == 0 else _forward(fn, k)
    return fn


def _reverse(fn, k):
    return jax.grad(fn, k)


def _forward(fn, k):
    def along(*xs):
        held = lambda x: fn(*xs[:k], x, *xs[k + 1 :])
        return jax.jvp(held, (xs[k],), (jnp.ones_like(xs[k]),))[1]

    return along


def computed(fn, orders: Orders, rows: np.ndarray, *, jit: bool = True) -> np.ndarray:
    """The derivative at each row."""
    mapped = jax.vmap(derivative(fn, orders))
    return np.asarray((jax.jit(mapped) if jit else mapped)(*rows.T)).astype(np.float64)


def computed_together(fn, wanted: Iterable[Orders], rows: np.ndarray) -> dict[Orders, np.ndarray]:
    """Several derivatives at each row, by one compiled program."""
    derivatives = {orders: derivative(fn, orders) for orders in wanted}
    together = jax.jit(jax.vmap(lambda *xs: {orders: along(*xs) for orders, along in derivatives.items()}))
    return {orders: np.asarray(values).astype(np.float64) for orders, values in together(*rows.T).items()}


@functools.cache
def exact(true, orders: Orders, row: tuple[float, ...]) -> mpmath.mpf:
    """The true derivative at a point."""
    with mpmath.workdps(DIGITS):
        at = tuple(map(mpmath.mpf, row))
        if not any(orders):
            return mpmath.mpf(true(*at))
        # The step is absolute: the digits must reach below the smallest argument, at each order.
        if len(at) > 1:
            return _differences(true, sum(orders), row)[orders]
        return mpmath.mpf(mpmath.diff(true, at[0], orders[0]))


@functools.cache
def _differences(true, order: int, row: tuple[float, ...]) -> dict[Orders, mpmath.mpf]:
    """All partial derivatives of one order, as forward differences of the same values."""
    below = lambda orders: itertools.product(*(range(n + 1) for n in orders))
    with mpmath.workdps(DIGITS):
        step = mpmath.eps / 1024
        # As many more digits as the differences lose.
        with mpmath.workprec((mpmath.mp.prec + 10) * (order + 1)):
            grid = [k for n in range(order + 1) for k in multi_orders(len(row), n)]
            values = {k: true(*(mpmath.mpf(x) + n * step for x, n in zip(row, k, strict=True))) for k in grid}
            found = {
                orders: mpmath.fsum((-1) ** (order - sum(k)) * _choose(orders, k) * values[k] for k in below(orders))
                / step**order
                for orders in multi_orders(len(row), order)
            }
        return {orders: +value for orders, value in found.items()}


def _choose(orders: Orders, k: Orders) -> int:
    return math.prod(map(math.comb, orders, k))


def errors(
    case: Case, fn, orders: Orders, *, jit: bool = True, most: int = 400, values: np.ndarray | None = None
) -> Errors:
    """The errors of one partial derivative of `fn`, the case's stable or plain function, or of values given."""
    rows = points(case, most)
    got = computed(fn, orders, rows, jit=jit) if values is None else values
    truth = [exact(case.true, orders, row) for row in map(_numbers, rows)]
    scales = [scale(case, orders, row, value) for row, value in zip(map(_numbers, rows), truth, strict=True)]
    tiny, huge = (mpmath.mpf(float(x)) for x in (jnp.finfo(jnp.float32).tiny, jnp.finfo(jnp.float32).max))
    # Relative to a tensor that overflows nothing is promised.
    whole = [not case.vector or size <= huge for size in scales]
    normal = np.asarray([tiny <= abs(value) <= huge and fits for value, fits in zip(truth, whole, strict=True)], bool)
    ulp = np.asarray([_ulp(g, t, s) for g, t, s in zip(got, truth, scales, strict=True)])
    if sum(orders) > case.strict and not case.vector:
        # One order more is dear, and only needed where the first measure is not met.
        for k in np.flatnonzero(normal & (ulp > case.bounds[sum(orders)]) & np.isfinite(got)):
            row = _numbers(rows[k])
            raised = (orders[:i] + (orders[i] + 1,) + orders[i + 1 :] for i in range(len(row)))
            moved = sum(abs(x * exact(case.true, other, row)) for x, other in zip(row, raised, strict=True))
            ulp[k] = _ulp(got[k], truth[k], scales[k] + moved)
    as_float = np.asarray([float(t) for t in truth])
    return Errors(orders, rows[normal], got[normal], as_float[normal], ulp[normal])


def scale(case: Case, orders: Orders, row: tuple[float, ...], value: mpmath.mpf) -> mpmath.mpf:
    """The size of what is computed: of a vector's derivatives, that of the largest."""
    if not case.vector:
        return abs(value)
    order = sum(orders)
    counted = (order - 1, order) if order >= case.common_roots else (order,)
    return max(abs(exact(case.true, other, row)) for n in counted for other in multi_orders(len(row), n))


def _numbers(row: np.ndarray) -> tuple[float, ...]:
    return tuple(map(float, row))


def _ulp(got: float, true: mpmath.mpf, scale: mpmath.mpf) -> float:
    if not np.isfinite(got):
        return np.inf
    if got == 0 and scale == abs(true):
        return np.inf
    _, exponent = mpmath.frexp(scale)
    return float(abs(mpmath.mpf(got) - true) / mpmath.ldexp(mpmath.mpf(1), int(exponent) - 24))


def torch_errors(case: Case, torch, orders: Orders, *, most: int = 400) -> Errors:
    """The errors of torch's derivative, by its own reverse mode at every order."""
    return errors(case, None, orders, most=most, values=_torch_values(case, torch, orders, points(case, most)))


def _torch_values(case: Case, torch, orders: Orders, rows: np.ndarray) -> np.ndarray:
    fn = case.torch(torch)
    xs = [torch.tensor(column, requires_grad=True) for column in rows.T.copy()]
    # Elementwise, so the gradient of the sum is that of each.
    value = fn(*xs)
    for k in (k for k, n in enumerate(orders) for _ in range(n)):
        if not value.requires_grad:
            # torch knows no derivative of a constant.
            return np.zeros(len(rows))
        (value,) = torch.autograd.grad(value.sum(), xs[k], create_graph=True, allow_unused=True, materialize_grads=True)
    return value.detach().numpy().astype(np.float64)
