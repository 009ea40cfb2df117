"""How far computed numbers are from the true ones: bits, and nan, inf and zero that should not be."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

Array = np.ndarray[Any, Any]


class Measured(NamedTuple):
    """The errors at every point, each an array of the points; of several elements the worst counts.

    `bits` of the significand that are wrong, all of them where `nan`, `inf` or `zero` came out and should not have;
    `known` where there is a truth to compare with; `element`, the worst one.
    """

    bits: Array
    nan: Array
    inf: Array
    zero: Array
    known: Array
    element: Array

    def allowing(self, excused: Array, bits: float) -> "Measured":
        """The same, with at most `bits` wrong at the points excused."""
        return self._replace(bits=np.where(excused, np.minimum(self.bits, bits), self.bits))


def significand(dtype: Any) -> int:
    """How many bits it has: 24 for float32."""
    return int(jnp.finfo(dtype).nmant) + 1


def as_floats(true: Array) -> Array:
    """The true values in float64; beyond its range inf and 0."""
    return np.asarray(np.frompyfunc(float, 1, 1)(true), np.float64)


def measure(got: Array, true: Array, decided: Array, *, together: bool = False) -> Measured:
    """The errors of `got`, an array of the program's dtype, one row for each point.

    They are relative to the true value, or `together` to the largest one of the point.
    """
    points, info = got.shape[0], jnp.finfo(got.dtype)
    p = significand(got.dtype)
    got_rows, true_rows = got.astype(np.float64).reshape(points, -1), true.reshape(points, -1)
    exact = as_floats(true_rows)
    size = np.abs(exact)
    in_range = np.isfinite(exact) & (size <= float(info.max))
    # What is lost below the normal numbers is the hardware's.
    normal = in_range & (size >= 4 * float(info.tiny))
    nan = np.isnan(got_rows) & in_range
    inf = np.isinf(got_rows) & in_range
    zero = (got_rows == 0) & normal
    relative = np.zeros(got_rows.shape)
    look = normal & np.isfinite(got_rows)
    relative[look] = _relative(got_rows[look], true_rows[look])
    if together:
        with np.errstate(invalid="ignore"):
            relative *= np.nan_to_num(size / np.where(in_range, size, 0).max(axis=1, keepdims=True))
        zero &= relative > 2.0 ** (p // 3 - p)
    with np.errstate(divide="ignore"):
        bits = np.clip(np.log2(relative * 2.0**p), 0, p)
    # Where the truth is below the normal numbers, and something else came out.
    faint = (size > float(info.tiny) ** 2) & ~normal & (np.abs(got_rows) > 2.0 ** (p // 2) * float(info.tiny))
    lost = nan | inf if together else nan | inf | zero | (faint & in_range)
    bits = np.where(lost, p, bits)
    bits = np.where(in_range, bits, 0)
    known = decided & in_range.any(axis=1)
    worst = bits.argmax(axis=1)
    return Measured(
        np.where(known, bits.max(axis=1), 0), nan.any(axis=1) & known, inf.any(axis=1) & known,
        zero.any(axis=1) & known, known, worst,
    )  # fmt: skip


def _relative(got: Array, true: Array) -> Array:
    """|got − true|/|true|, in the arithmetic of the true values."""
    if not got.size:
        return np.zeros(0)
    return np.asarray([float(abs((t - g) / t)) for g, t in zip(got.tolist(), true.tolist(), strict=True)])
