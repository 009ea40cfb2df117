"""The arithmetics in which a program is evaluated beside its own: float64 with random rounding, and mpmath."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxpartials import _jax
from jaxpartials.errors import StabilityError

try:
    import mpmath
except ImportError:  # the extra `stability` has it
    mpmath = None

Array = np.ndarray[Any, Any]

NOISE = 2.0**-44  # relative, put on every inexact result
SMALLEST = 2.0**-960  # below it float64 soon loses bits

# Beyond this argument an exponential is not worth the memory of its exponent.
FAR = 1e100


class Arithmetic(Protocol):
    """Real numbers in arrays; bools and integers stay what they are."""

    def lift(self, array: Array) -> Array:
        """An array of floats as numbers of this arithmetic; any other as it is."""
        ...

    def function(self, name: str, params: Mapping[str, Any]) -> Callable[..., Array] | None:
        """What an elementwise primitive does, None where it is not known."""
        ...

    def primitive(self, primitive: Any, params: Mapping[str, Any]) -> Callable[..., list[Array]] | None:
        """What any other primitive does, None where it is not known."""
        ...


class NoisyFloat64:
    """float64 with a random relative error of at most 2⁻⁴⁴ after every inexact operation.

    Where several runs agree, rounding does not matter: what a sum has lost comes out different each time. What leaves
    the range is nan.

    Source: Vignes, A stochastic arithmetic for reliable scientific computation, Math. Comput. Simul. 35 (1993).
    """

    def __init__(self, seed: int):
        self._rng = np.random.default_rng(seed)

    def lift(self, array: Array) -> Array:
        return array.astype(np.float64) if _is_float(array) else array

    def function(self, name: str, params: Mapping[str, Any]) -> Callable[..., Array] | None:
        exact = _EXACT.get(name)
        if exact is not None:
            return exact
        if name == "integer_pow":
            power = lambda x: np.power(x, float(params["y"]))
            return self._noisy(power)
        known = _FLOAT64.get(name)
        return None if known is None else self._noisy(known)

    def primitive(self, primitive: Any, params: Mapping[str, Any]) -> Callable[..., list[Array]]:
        def wide(*xs: Array) -> list[Array]:
            with jax.enable_x64(True):
                made = [np.asarray(y) for y in _jax.bind(primitive, dict(params), [*map(jnp.asarray, xs)])]
            return [self._noisy(lambda y: y)(y) for y in made]

        return wide

    def _noisy(self, function: Callable[..., Array]) -> Callable[..., Array]:
        def noisy(*xs: Array) -> Array:
            y = np.asarray(function(*xs))
            if not _is_float(y):
                return y
            noise = NOISE * self._rng.uniform(-1, 1, y.shape)
            exact = _WHEN_EXACT.get(function)
            y = y * (1 + (noise if exact is None else np.where(exact(*xs, y), 0.0, noise)))
            lost = np.abs(y) < SMALLEST
            for x in xs:
                lost = lost & (np.asarray(x) != 0)
            # The difference of equal numbers is zero, and so is the logarithm of 1.
            return np.where(lost & ((y != 0) | (function not in _ZEROS)), np.nan, y)

        return noisy


class Multiple:
    """mpmath's numbers of so many decimal digits."""

    def __init__(self, digits: int):
        if mpmath is None:
            raise StabilityError(WITHOUT_MPMATH)
        self.digits = digits
        self.context = mpmath.MPContext()
        self.context.dps = digits
        self._functions = _multiple(self.context)

    def lift(self, array: Array) -> Array:
        if not _is_float(array):
            return array
        wide = np.asarray(array, np.float64)
        return _objects(np.frompyfunc(self.context.mpf, 1, 1)(wide))

    def function(self, name: str, params: Mapping[str, Any]) -> Callable[..., Array] | None:
        exact = _COMPARISONS.get(name) or _STRUCTURAL.get(name)
        if exact is not None:
            return exact
        context = self.context
        if name == "is_finite":
            return lambda x: np.asarray(np.frompyfunc(context.isfinite, 1, 1)(x), bool)
        if name == "integer_pow":
            power, divide = params["y"], self._functions["div"]
            known = (lambda x: x**power) if power >= 0 else (lambda x: divide(context.one, x**-power))
        else:
            known = self._functions.get(name)
        if known is None:
            return None

        def careful(*xs: Any) -> Any:
            try:
                y = known(*xs)
            except (ValueError, ZeroDivisionError, OverflowError, context.NoConvergence):
                return context.nan
            return context.nan if isinstance(y, context.mpc) else y

        return lambda *xs: _objects(np.frompyfunc(careful, len(xs), 1)(*xs))

    def primitive(self, primitive: Any, params: Mapping[str, Any]) -> None:
        return None


WITHOUT_MPMATH = (
    "float64 is not wide enough to tell what this program should give, and mpmath is not installed. "
    "Install it: pip install 'jaxpartials[stability]'."
)


def have_mpmath() -> bool:
    return mpmath is not None


def _is_float(array: Any) -> bool:
    dtype = getattr(array, "dtype", None)
    # The short floats of ml_dtypes are of NumPy's kind V.
    return dtype is not None and (dtype.kind == "f" or (dtype.kind == "V" and "float" in dtype.name))


def _objects(values: Any) -> Array:
    if isinstance(values, np.ndarray):
        return values
    found = np.empty((), object)
    found[()] = values
    return found


# ---- what is exact in any arithmetic

_COMPARISONS: dict[str, Callable[..., Array]] = {
    "eq": lambda x, y: np.asarray(x == y, bool),
    "ne": lambda x, y: np.asarray(x != y, bool),
    "lt": lambda x, y: np.asarray(x < y, bool),
    "le": lambda x, y: np.asarray(x <= y, bool),
    "gt": lambda x, y: np.asarray(x > y, bool),
    "ge": lambda x, y: np.asarray(x >= y, bool),
}
_STRUCTURAL: dict[str, Callable[..., Array]] = {
    "copy": lambda x: x,
    "stop_gradient": lambda x: x,
    "reduce_precision": lambda x: x,
    "optimization_barrier": lambda x: x,
    "pvary": lambda x: x,
    "not": np.logical_not,
    "and": np.logical_and,
    "or": np.logical_or,
    "xor": np.logical_xor,
}
_EXACT: dict[str, Callable[..., Array]] = {
    **_COMPARISONS,
    **_STRUCTURAL,
    "neg": np.negative,
    "abs": np.abs,
    "sign": np.sign,
    "max": np.maximum,
    "min": np.minimum,
    "floor": np.floor,
    "ceil": np.ceil,
    "round": np.rint,
    "is_finite": np.isfinite,
    "clamp": lambda low, x, high: np.minimum(np.maximum(x, low), high),
}


def _horner(x: Any, coefficients: Sequence[Any]) -> Any:
    """a₀ + a₁ x + a₂ x² + …"""
    return functools.reduce(lambda total, a: total * x + a, reversed(coefficients))


# ---- float64


def _each(function: Callable[..., float]) -> Callable[..., Array]:
    def safe(*xs: float) -> float:
        try:
            return function(*xs)
        except (ValueError, OverflowError, ZeroDivisionError):
            return math.nan

    return lambda *xs: np.asarray(np.frompyfunc(safe, len(xs), 1)(*xs), np.float64)


_FLOAT64: dict[str, Callable[..., Array]] = {
    "add": np.add,
    "add_any": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "rem": np.fmod,
    "square": np.square,
    "polynomial": lambda x, *coefficients: _horner(x, coefficients),
    "one_minus_square": lambda x: 1 - x * x,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "cbrt": np.cbrt,
    "pow": np.power,
    "exp": np.exp,
    "exp2": np.exp2,
    "expm1": np.expm1,
    "exp_neg_sq": lambda x: np.exp(-x * x),
    "log": np.log,
    "log2": np.log2,
    "log1p": np.log1p,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "atan2": np.arctan2,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "tanh": np.tanh,
    "asinh": np.arcsinh,
    "acosh": np.arccosh,
    "atanh": np.arctanh,
    "logistic": lambda x: 1 / (1 + np.exp(-x)),
    "erf": _each(math.erf),
    "erfc": _each(math.erfc),
    "lgamma": _each(math.lgamma),
}

_ZEROS = (np.add, np.subtract, np.log, np.log1p)


def _sum_is_exact(x: Array, y: Array, s: Array) -> Array:
    """Knuth's two-sum: s is x + y."""
    back = s - x
    return (x - (s - back)) + (y - back) == 0


def _product_is_exact(x: Array, y: Array, p: Array) -> Array:
    """Dekker's product: p is x·y."""
    (a, b), (c, d) = _halves(x), _halves(y)
    return b * d - (((p - a * c) - b * c) - a * d) == 0


def _halves(x: Array) -> tuple[Array, Array]:
    t = 134217729.0 * x
    high = t - (t - x)
    return high, x - high


# So that whole numbers stay whole.
_WHEN_EXACT: dict[Callable, Callable[..., Array]] = {
    np.add: _sum_is_exact,
    np.subtract: lambda x, y, s: _sum_is_exact(x, -y, s),
    np.multiply: _product_is_exact,
    np.divide: lambda x, y, q: (q * y == x) & _product_is_exact(q, y, x),
}

# ---- mpmath


def _multiple(mp: Any) -> dict[str, Callable[..., Any]]:
    """The elementwise primitives on mpmath's numbers, which may raise where they have no real value."""
    one = mp.one

    def divide(x, y):
        if y == 0:
            return mp.nan if x == 0 or mp.isnan(x) else mp.sign(x) * mp.inf
        return x / y

    def exp(x):
        if abs(x) < FAR or mp.isnan(x):
            return mp.exp(x)
        return mp.inf if x > 0 else mp.zero

    def log(x):
        return -mp.inf if x == 0 else mp.log(x)

    def power(x, y):
        if y == int_of(y):
            return x ** int(y) if y >= 0 else divide(one, x ** -int(y))
        if x == 0:
            return mp.zero if y > 0 else mp.inf
        return exp(y * log(x))

    def int_of(y):
        return mp.nan if not mp.isfinite(y) or abs(y) > 1e9 else mp.floor(y)

    def near(function, at_far):
        """A function that is flat, or leaves all bounds, beyond FAR."""

        def bounded(x):
            return function(x) if abs(x) < FAR or mp.isnan(x) else at_far(x)

        return bounded

    def periodic(function):
        return lambda x: function(x) if abs(x) < FAR else mp.nan

    def larger(x, y):
        return mp.nan if mp.isnan(x) or mp.isnan(y) else max(x, y)

    def smaller(x, y):
        return mp.nan if mp.isnan(x) or mp.isnan(y) else min(x, y)

    def rounded(x):
        return -mp.floor(-x) if x < 0 else mp.floor(x)

    return {
        "neg": lambda x: -x,
        "abs": abs,
        "sign": mp.sign,
        "max": larger,
        "min": smaller,
        "floor": mp.floor,
        "ceil": mp.ceil,
        "clamp": lambda low, x, high: smaller(larger(x, low), high),
        "add": lambda x, y: x + y,
        "add_any": lambda x, y: x + y,
        "sub": lambda x, y: x - y,
        "mul": lambda x, y: x * y,
        "div": divide,
        "rem": lambda x, y: x - y * rounded(x / y),
        "square": lambda x: x * x,
        "polynomial": lambda x, *coefficients: _horner(x, coefficients),
        "one_minus_square": lambda x: one - x * x,
        "sqrt": mp.sqrt,
        "rsqrt": lambda x: divide(one, mp.sqrt(x)),
        "cbrt": lambda x: mp.sign(x) * mp.cbrt(abs(x)),
        "pow": power,
        "exp": exp,
        "exp2": lambda x: exp(x * mp.ln2),
        "expm1": lambda x: mp.expm1(x) if abs(x) < 1 else exp(x) - 1,
        "exp_neg_sq": lambda x: exp(-x * x),
        "log": log,
        "log1p": lambda x: -mp.inf if x == -1 else mp.log1p(x) if abs(x) < 1 else mp.log(1 + x),
        "sin": periodic(mp.sin),
        "cos": periodic(mp.cos),
        "tan": periodic(mp.tan),
        "asin": mp.asin,
        "acos": mp.acos,
        "atan": mp.atan,
        "atan2": mp.atan2,
        "sinh": near(mp.sinh, lambda x: mp.sign(x) * mp.inf),
        "cosh": near(mp.cosh, lambda x: mp.inf),
        "tanh": near(mp.tanh, mp.sign),
        "asinh": mp.asinh,
        "acosh": mp.acosh,
        "atanh": mp.atanh,
        "logistic": lambda x: one / (1 + exp(-x)) if x > 0 else exp(x) / (1 + exp(x)),
        "erf": near(mp.erf, mp.sign),
        "erfc": lambda x: mp.erfc(x) if abs(x) < 1e6 else mp.zero if x > 0 else mp.mpf(2),
        "log2": lambda x: log(x) / mp.ln2,
        "round": mp.nint,
        "igamma": lambda a, x: mp.gammainc(a, 0, x, regularized=True),
        "igammac": lambda a, x: mp.gammainc(a, x, mp.inf, regularized=True),
        "regularized_incomplete_beta": lambda a, b, x: mp.betainc(a, b, 0, x, regularized=True),
        "zeta": mp.zeta,
        "erf_inv": lambda x: mp.erfinv(x) if abs(x) < 1 else mp.sign(x) * mp.inf,
        "lgamma": lambda x: mp.loggamma(x) if x > 0 else mp.log(abs(mp.gamma(x))),
        "digamma": mp.digamma,
        "polygamma": lambda n, x: mp.polygamma(int(n), x),
        "bessel_i0e": lambda x: mp.besseli(0, x) * exp(-abs(x)),
        "bessel_i1e": lambda x: mp.besseli(1, x) * exp(-abs(x)),
    }  # fmt: skip
