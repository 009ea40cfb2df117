"""What rewrites are made of besides the operations of `stable`: functions with accurate derivatives of their own."""

import functools
import math
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from jaxpartials import stable
from jaxpartials.stable import ratios
from jaxpartials.stable.errorfree import two_sum
from jaxpartials.stable.family import Orders, family


def _nth_expm1(orders: Orders, x: jax.Array) -> jax.Array:
    return jnp.expm1(x) if orders == (0,) else jnp.exp(x)


# The plain derivative is expm1(x) + 1, which cancels: it is 0 for x < −17 in float32.
expm1 = family("expm1", _nth_expm1, complex=jnp.expm1)


def covariance(x: jax.Array, y: jax.Array, axis: tuple[int, ...]) -> jax.Array:
    """E[(x − E[x])(y − E[y])] along some axes."""
    dx, dy = _off_mean(x, axis), _off_mean(y, axis)
    return jnp.mean(dx * dy, axis).astype(jnp.result_type(x, y))


def _off_mean(a: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """a − E[a], from the middle of the range: what the first subtraction leaves of the mean the second takes away."""
    a = a.astype(jnp.promote_types(a.dtype, jnp.float32))
    low, high = (jax.lax.stop_gradient(end(a, axes, keepdims=True)) for end in (jnp.min, jnp.max))
    d = a - (low / 2 + high / 2)
    return d - jnp.mean(d, axes, keepdims=True)


@jax.custom_jvp
def difference_of_squares(a: jax.Array, b: jax.Array) -> jax.Array:
    """a² − b² = (a − b)(a + b), which is exact to rounding wherever a − b is."""
    return (a - b) * (a + b)


@difference_of_squares.defjvp
def _difference_tangent(xs, dxs):
    """2 (a da − b db): that of the product, da (a + b) + (a − b) da + …, cancels where db = 0 and a is small."""
    (a, b), (da, db) = xs, dxs
    return difference_of_squares(a, b), 2 * (a * da - b * db)


# ---- x/yⁿ


def over_power(n: int, x: jax.Array, y: jax.Array) -> jax.Array:
    """x/yⁿ, n ≥ 2: the value and every derivative overflow only where they are out of range."""
    return _over_power(n)(x, y)


@functools.cache
def _over_power(n: int):
    def nth(orders: Orders, x: jax.Array, y: jax.Array) -> jax.Array:
        i, k = orders
        if i > 1:
            return jnp.zeros_like(x)
        c = (-1) ** k * math.prod(range(n, n + k))
        return ratios.over_power(c, None if i else x, y, n + k, jnp.ones_like(y))

    return family("over_power", nth)


# ---- exponentials


def expm1_ratio(x: jax.Array) -> jax.Array:
    """x/(exp x − 1), 1 at 0: each range has the form whose derivatives neither cancel nor overflow."""
    small, below = jnp.abs(x) < 1, x < 0
    beyond = x < -800  # exp x is 0 here
    near, low, high = jnp.where(small, x, 0), jnp.where(below & ~beyond, x, -1), jnp.where(below | small, 1, x)
    far = jnp.where(below, stable.divide(low, expm1(low)), stable.divide(high * jnp.exp(-high), -expm1(-high)))
    return jnp.where(small, 1 / stable.exprel(near), jnp.where(beyond, -x, far))


def exp_over_expm1(x: jax.Array) -> jax.Array:
    """exp x/(exp x − 1), of exponentials that do not overflow."""
    below = x < 0
    low, high = jnp.where(below, x, -1), jnp.where(below, 1, x)
    return jnp.where(below, stable.divide(jnp.exp(low), expm1(low)), -1 / expm1(-high))


@jax.custom_jvp
def power_of_one_and(u: jax.Array, y: jax.Array) -> jax.Array:
    """(1 + u)^y, with what 1 + u rounds away."""
    # Not a constant: XLA would add it up with others first.
    base, rest = two_sum(jnp.where(jnp.isnan(u), u, 1), u)
    more = y * (rest / base)
    return base**y * jnp.where(jnp.abs(more) < 1e9, jnp.exp(more), 1)


@power_of_one_and.defjvp
def _power_tangent(xs, dxs):
    """y (1 + u)^(y − 1) du + log(1 + u) (1 + u)^y dy, with the conventions of JAX where y = 0 and where 1 + u = 0."""
    (u, y), (du, dy) = xs, dxs
    value = power_of_one_and(u, y)
    by_u = y * power_of_one_and(u, jnp.where(y == 0, 1, y - 1))
    return value, by_u * du + jnp.log1p(jnp.where(u == -1, 0, u)) * value * dy


# ---- differences


class Kind(Protocol):
    """A function f of one argument that has a formula for f(u) − f(v)."""

    def at(self, u: jax.Array) -> jax.Array: ...
    def between(self, d: jax.Array, u: jax.Array, v: jax.Array) -> jax.Array: ...
    @property
    def slope(self) -> "Kind": ...


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _at(kind: Kind, u: jax.Array) -> jax.Array:
    return kind.at(u)


@_at.defjvp
def _at_tangent(kind, xs, dxs):
    return _at(kind, *xs), _at(kind.slope, *xs) * dxs[0]


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def difference(
    kind: Kind, d: jax.Array, u: jax.Array, v: jax.Array, common: jax.Array, p: jax.Array, q: jax.Array
) -> jax.Array:
    """f(u) − f(v), where u = common + p, v = common + q and d = u − v = p − q."""
    return kind.between(d, u, v)


@functools.partial(difference.defjvp, symbolic_zeros=True)
def _difference_tangent_of(kind, xs, dxs):
    """(f′(u) − f′(v)) dcommon + f′(u) dp − f′(v) dq: only the first is a difference that cancels."""
    _, u, v, *_ = xs
    *_, dcommon, dp, dq = dxs
    value = difference(kind, *xs)
    total = jnp.zeros_like(value)
    if not isinstance(dcommon, SymbolicZero):
        total += difference(kind.slope, *xs) * dcommon
    if not isinstance(dp, SymbolicZero):
        total += _at(kind.slope, u) * dp
    if not isinstance(dq, SymbolicZero):
        total -= _at(kind.slope, v) * dq
    return value, total


@dataclass(frozen=True)
class Power:
    """c uᵖ; `parity` is 0 or 1 where it is even or odd, and None where it is not defined for negative numbers."""

    c: float
    p: float
    parity: int | None

    @property
    def slope(self) -> "Power":
        return Power(self.c * self.p, self.p - 1, None if self.parity is None else 1 - self.parity)

    def at(self, u: jax.Array) -> jax.Array:
        exact = {-1: lambda u: 1 / u, 0.5: jnp.sqrt, -0.5: jax.lax.rsqrt, 1 / 3: jnp.cbrt}
        return self.c * exact[self.p](u) if self.p in exact else self._times(self.c, u)

    def _times(self, by: Any, u: jax.Array) -> jax.Array:
        """by·uᵖ, in two steps: uᵖ alone may overflow where the product does not."""
        half = (u if self.parity is None else jnp.abs(u)) ** (self.p / 2)
        return (by * half) * half * (jnp.sign(u) if self.parity == 1 else 1)

    def between(self, d: jax.Array, u: jax.Array, v: jax.Array) -> jax.Array:
        near, by = _nearness(d, u, v, self.parity is None)
        close = self._times(self.c * jnp.expm1(self.p * jnp.log1p(by)), v)
        return jnp.where(near, close, self.at(u) - self.at(v))


@dataclass(frozen=True)
class Square:
    """The k-th derivative of the square."""

    k: int

    @property
    def slope(self) -> "Square":
        return Square(self.k + 1)

    def at(self, u: jax.Array) -> jax.Array:
        return (u * u, 2 * u, jnp.full_like(u, 2), jnp.zeros_like(u))[min(self.k, 3)]

    def between(self, d: jax.Array, u: jax.Array, v: jax.Array) -> jax.Array:
        return d * (u + v) if self.k == 0 else 2 * d if self.k == 1 else jnp.zeros_like(d)


@dataclass(frozen=True)
class Logarithm:
    @property
    def slope(self) -> Power:
        return Power(1.0, -1.0, 1)

    def at(self, u: jax.Array) -> jax.Array:
        return jnp.log(u)

    def between(self, d: jax.Array, u: jax.Array, v: jax.Array) -> jax.Array:
        near, by = _nearness(d, u, v, True)
        return jnp.where(near, jnp.log1p(by), jnp.log(u) - jnp.log(v))


@dataclass(frozen=True)
class Wave:
    """The k-th derivative of the sine."""

    k: int

    @property
    def slope(self) -> "Wave":
        return Wave((self.k + 1) % 4)

    def at(self, u: jax.Array) -> jax.Array:
        return (jnp.sin(u), jnp.cos(u), -jnp.sin(u), -jnp.cos(u))[self.k]

    def between(self, d: jax.Array, u: jax.Array, v: jax.Array) -> jax.Array:
        # 2 f′(v + d/2) sin(d/2), with what v + d/2 rounds away.
        middle, rest = two_sum(v, d / 2)
        cosine = self.slope.at(middle) * jnp.cos(rest) + self.slope.slope.at(middle) * jnp.sin(rest)
        return 2 * jnp.sin(d / 2) * cosine


def _nearness(d: jax.Array, u: jax.Array, v: jax.Array, positive: bool) -> tuple[jax.Array, jax.Array]:
    """Where u − v cancels, and d/v there: elsewhere f(u) − f(v) is as accurate as u and v."""
    near = (jnp.abs(d) <= jnp.abs(v) / 2) & (jnp.abs(d) <= jnp.abs(u) / 2) & (v != 0) & (jnp.abs(v) < jnp.inf)
    near = near & (v > 0) if positive else near
    return near, jnp.where(near, d, 0) / jnp.where(near, v, 1)


# ---- √(b² − a) − b


@jax.custom_jvp
def root_beyond(b: jax.Array, a: jax.Array) -> jax.Array:
    """√(b² − a) − b."""
    root = _root(b, a)
    return jnp.where(b > 0, -a / (root + jnp.abs(b)), root - b)


@root_beyond.defjvp
def _root_beyond_tangent(xs, dxs):
    db, da = dxs
    return root_beyond(*xs), _cosine_beyond(*xs) * db - _inverse_root(*xs) / 2 * da


@jax.custom_jvp
def _cosine_beyond(b: jax.Array, a: jax.Array) -> jax.Array:
    """b/√(b² − a) − 1."""
    inverse = _inverse_root(b, a)
    return jnp.where(b > 0, -root_beyond(b, a) * inverse, b * inverse - 1)


@_cosine_beyond.defjvp
def _cosine_beyond_tangent(xs, dxs):
    """(b/2 da − a db)/(b² − a)^(3/2)."""
    (b, a), (db, da) = xs, dxs
    r = _inverse_root(b, a)
    return _cosine_beyond(b, a), a * r * r * r * -db + b * r * r * r / 2 * da


@jax.custom_jvp
def _inverse_root(b: jax.Array, a: jax.Array) -> jax.Array:
    return 1 / _root(b, a)


@_inverse_root.defjvp
def _inverse_root_tangent(xs, dxs):
    (b, a), (db, da) = xs, dxs
    r = _inverse_root(b, a)
    return r, b * r * r * r * -db + r * r * r / 2 * da


def _root(b: jax.Array, a: jax.Array) -> jax.Array:
    """√(b² − a), without b²."""
    size, edge = jnp.abs(b), jnp.sqrt(jnp.abs(a))
    return jnp.where(a < 0, jnp.hypot(size, edge), jnp.sqrt(size - edge) * jnp.sqrt(size + edge))
