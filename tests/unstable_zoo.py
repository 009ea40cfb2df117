"""Small functions with one unstable step each, on the line marked `# unstable`, and their stable twins."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import erfc

from jaxpartials import stable

VECTOR = 4  # how many elements the vectors have
WEIGHTS = np.array([1.0, -2.0, 0.5, 3.0], np.float32)


class Case(NamedTuple):
    """A function that loses its accuracy, or that of its first two derivatives, on one line.

    `ranges` has (low, high) for each argument; where `vector`, the one argument is a vector of `VECTOR` elements, each
    from that range. `stabilizable`: one of the library's operations, or a pattern of local algebra, replaces the step.
    """

    fn: Callable[..., Any]
    twin: Callable[..., Any]
    ranges: tuple[tuple[float, float], ...]
    vector: bool = False
    stabilizable: bool = True

    @property
    def name(self) -> str:
        return self.fn.__name__

    @property
    def line(self) -> int:
        """The line of this file with the unstable step."""
        lines, first = inspect.getsourcelines(self.fn)
        (found,) = (first + i for i, text in enumerate(lines) if text.rstrip().endswith("# unstable"))
        return found


# ---- quotients and lengths


def ratio(a, b):
    quotient = a / b  # unstable
    return -quotient


def length(x, y):
    squares = x * x + y * y  # unstable
    return jnp.sqrt(squares)


def vector_length(x):
    scale = 2.0
    return scale * jnp.sqrt(jnp.sum(x**2))  # unstable


def library_norm(x):
    n = jnp.linalg.norm(x)  # unstable
    return 3.0 * n


def along_unit(x):
    unit = x / jnp.sqrt(jnp.sum(x * x))  # unstable
    return jnp.dot(unit, WEIGHTS)


def cosine(x):
    half = VECTOR // 2
    a, b = x[:half], x[half:]
    return jnp.dot(a, b) / (jnp.sqrt(jnp.dot(a, a)) * jnp.sqrt(jnp.dot(b, b)))  # unstable


def angle(y, x):
    turned = jnp.arctan2(y, x)  # unstable
    return 2.0 * turned


def algebraic_sigmoid(x):
    root = jnp.sqrt(x * x + 1.0)  # unstable
    return x / root


def smooth_absolute(x):
    eps = 1e-12
    return jnp.sqrt(x * x + eps)  # unstable


# ---- exponentials and their logarithms


def hyperbolic_tangent(x):
    t = jnp.tanh(x)  # unstable
    return 1.5 * t


def logistic(x):
    s = jax.nn.sigmoid(x)  # unstable
    return 2.0 * s


def logistic_by_hand(x):
    return 1.0 / (1.0 + jnp.exp(-x))  # unstable


def softplus_by_hand(x):
    y = 1.0 * x
    return jnp.log(1.0 + jnp.exp(y))  # unstable


def log_of_sigmoid(x):
    p = stable.sigmoid(x)
    return jnp.log(p)  # unstable


def log_of_one_minus_sigmoid(x):
    p = stable.sigmoid(x)
    return jnp.log(1.0 - p)  # unstable


def sech_squared(x):
    t = stable.tanh(x)
    return 1.0 - t * t  # unstable


def log_cosh(x):
    c = jnp.cosh(x)  # unstable
    return jnp.log(c)


def logsumexp_by_hand(x):
    total = jnp.sum(jnp.exp(x))  # unstable
    return jnp.log(total)


def logaddexp_by_hand(a, b):
    total = jnp.exp(a) + jnp.exp(b)  # unstable
    return jnp.log(total)


def log_of_softmax(x):
    p = jax.nn.softmax(x)  # unstable
    return jnp.log(p)[0]


def softmax_by_hand(x):
    e = jnp.exp(x)  # unstable
    return (e / jnp.sum(e))[1]


def log1mexp_by_hand(x):
    e = jnp.exp(x)
    return jnp.log(1.0 - e)  # unstable


def exp_minus_one(x):
    e = jnp.exp(x)
    return e - 1.0  # unstable


def log_of_one_plus(x):
    y = 1.0 + x
    return jnp.log(y)  # unstable


# ---- removable singularities


def exprel_by_hand(x):
    e = jnp.exp(x)
    return (e - 1.0) / x  # unstable


def expm1_over_x(x):
    e = jnp.expm1(x)
    return e / x  # unstable


def log1p_over_x(x):
    y = jnp.log1p(x)
    return y / x  # unstable


def cosc_by_hand(x):
    c = jnp.cos(x)
    return (1.0 - c) / (x * x)  # unstable


def sinc_by_hand(x):
    s = jnp.sin(x)
    return s / x  # unstable


def compound(n):
    base = 1.0 + 1.0 / n
    return base**n  # unstable


# ---- statistics


def variance_by_hand(x):
    mean = jnp.mean(x)
    return jnp.mean(x * x) - mean * mean  # unstable


def covariance_by_hand(x):
    half = VECTOR // 2
    a, b = x[:half], x[half:]
    return jnp.mean(a * b) - jnp.mean(a) * jnp.mean(b)  # unstable


def deviation(x):
    spread = jnp.std(x)  # unstable
    return 2.0 * spread


def relative_entropy(p, q):
    r = jnp.log(p / q)  # unstable
    return p * r


# ---- special functions


def scaled_erfc(x):
    y = 1.0 * x
    return jnp.exp(y * y) * erfc(y)  # unstable


def log_normal_cdf(x):
    tail = erfc(-x / jnp.sqrt(2.0))  # unstable
    return jnp.log(0.5 * tail)


def asinh_by_hand(x):
    root = jnp.sqrt(x * x + 1.0)
    return jnp.log(x + root)  # unstable


# ---- cancellation


def roots_difference(x):
    a, b = jnp.sqrt(x + 1.0), jnp.sqrt(x)
    return a - b  # unstable


def quadratic_root(b):
    root = jnp.sqrt(b * b - 4.0)
    return 0.5 * (root - b)  # unstable


def one_minus_cos(x):
    c = jnp.cos(x)
    return 1.0 - c  # unstable


def sine_minus_x(x):
    s = jnp.sin(x)
    return s - x  # unstable


def tangent_minus_sine(x):
    t, s = jnp.tan(x), jnp.sin(x)
    return t - s  # unstable


def reciprocals_difference(x):
    a, b = 1.0 / x, 1.0 / (x + 1.0)
    return a - b  # unstable


def logs_difference(x):
    a, b = jnp.log(x + 1.0), jnp.log(x)
    return a - b  # unstable


def squares_difference(a, b):
    a2, b2 = a * a, b * b
    return a2 - b2  # unstable


def circle(x):
    x2 = x * x
    return jnp.sqrt(1.0 - x2)  # unstable


def small_angle(x):
    twice = 2.0 * x
    return jnp.arccos(1.0 - 0.5 * twice)  # unstable


def expanded_power(x):
    y = 1.0 * x
    return ((((((y - 7) * y + 21) * y - 35) * y + 35) * y - 21) * y + 7) * y - 1  # unstable


def geometric_mean(x):
    product = x[0] * x[1] * x[2] * x[3]  # unstable
    return product ** (1.0 / VECTOR)


# ---- the twins that need more than a line


def _sine_minus_x(x):
    y = x * x
    return -x * y / 6.0 * (1.0 - y / 20.0 * (1.0 - y / 42.0 * (1.0 - y / 72.0)))


def _covariance(x):
    """With two elements each, half the one difference times half the other."""
    return 0.5 * (x[0] - x[1]) * (0.5 * (x[2] - x[3]))


def _cosine(x):
    half = VECTOR // 2
    return stable.cosine_similarity(x[:half], x[half:])


WIDE = (1e-30, 1e30)
LARGE = (1e15, 1e25)  # the squares of which overflow

CASES = [
    Case(ratio, lambda a, b: -stable.divide(a, b), (WIDE, WIDE)),
    Case(length, lambda x, y: stable.hypot(x, y), (WIDE, WIDE)),
    Case(vector_length, lambda x: 2.0 * stable.norm(x), (LARGE,), vector=True),
    Case(library_norm, lambda x: 3.0 * stable.norm(x), (LARGE,), vector=True),
    Case(along_unit, lambda x: jnp.dot(stable.normalize(x), WEIGHTS), ((1e19, 1e21),), vector=True),
    Case(cosine, _cosine, ((1e19, 1e21),), vector=True),
    Case(angle, lambda y, x: 2.0 * stable.arctan2(y, x), (WIDE, WIDE)),
    Case(algebraic_sigmoid, lambda x: stable.isru(x), ((1e-30, 1e30),)),
    Case(smooth_absolute, lambda x: stable.smooth_abs(x, 1e-12), ((1e-30, 1e30),)),
    Case(hyperbolic_tangent, lambda x: 1.5 * stable.tanh(x), ((1e-6, 40.0),)),
    Case(logistic, lambda x: 2.0 * stable.sigmoid(x), ((-80.0, 80.0),)),
    Case(logistic_by_hand, lambda x: stable.sigmoid(x), ((-80.0, 80.0),)),
    Case(softplus_by_hand, lambda x: stable.softplus(x), ((-80.0, 200.0),)),
    Case(log_of_sigmoid, lambda x: stable.log_sigmoid(x), ((1e-3, 80.0),)),
    Case(log_of_one_minus_sigmoid, lambda x: -stable.softplus(x), ((-80.0, 80.0),)),
    Case(sech_squared, lambda x: jax.grad(stable.tanh)(x), ((1e-3, 40.0),)),
    Case(log_cosh, lambda x: stable.log_cosh(x), ((1e-6, 1e3),)),
    Case(logsumexp_by_hand, lambda x: stable.logsumexp(x), ((1.0, 300.0),), vector=True),
    Case(logaddexp_by_hand, lambda a, b: stable.logaddexp(a, b), ((-300.0, 300.0), (-300.0, 300.0))),
    Case(log_of_softmax, lambda x: stable.log_softmax(x)[0], ((1.0, 300.0),), vector=True),
    Case(softmax_by_hand, lambda x: stable.softmax(x)[1], ((1.0, 300.0),), vector=True),
    Case(log1mexp_by_hand, lambda x: stable.log1mexp(-x), ((-80.0, -1e-20),)),
    Case(exp_minus_one, lambda x: jnp.expm1(x), ((1e-30, 5.0),)),
    Case(log_of_one_plus, lambda x: jnp.log1p(x), ((1e-30, 1e6),)),
    Case(exprel_by_hand, lambda x: stable.exprel(x), ((1e-20, 5.0),)),
    Case(expm1_over_x, lambda x: stable.exprel(x), ((1e-20, 5.0),)),
    Case(log1p_over_x, lambda x: stable.log1prel(x), ((1e-20, 1e6),)),
    Case(cosc_by_hand, lambda x: stable.cosc(x), ((1e-15, 3.0),)),
    Case(sinc_by_hand, lambda x: stable.sinc(x / jnp.pi), ((1e-20, 3.0),)),
    Case(compound, lambda n: jnp.exp(stable.log1prel(1.0 / n)), ((1.0, 1e9),)),
    Case(variance_by_hand, lambda x: stable.var(x), ((1.0, 1e4),), vector=True),
    Case(covariance_by_hand, _covariance, ((1.0, 1e4),), vector=True),
    Case(deviation, lambda x: 2.0 * stable.std(x), (LARGE,), vector=True),
    Case(relative_entropy, lambda p, q: stable.rel_entr(p, q), (WIDE, WIDE)),
    Case(scaled_erfc, lambda x: stable.erfcx(x), ((0.1, 1e3),)),
    Case(log_normal_cdf, lambda x: stable.log_ndtr(x), ((-1e3, 2.0),)),
    Case(asinh_by_hand, lambda x: stable.asinh(x), ((-1e4, -1e-20),)),
    Case(roots_difference, lambda x: 1.0 / (jnp.sqrt(x + 1.0) + jnp.sqrt(x)), ((1e-3, 1e12),)),
    Case(quadratic_root, lambda b: -2.0 / (b + jnp.sqrt((b - 2.0) * (b + 2.0))), ((3.0, 1e9),)),
    Case(one_minus_cos, lambda x: 2.0 * jnp.sin(0.5 * x) ** 2, ((1e-15, 3.0),)),
    Case(sine_minus_x, _sine_minus_x, ((1e-10, 0.1),), stabilizable=False),
    Case(tangent_minus_sine, lambda x: 2.0 * jnp.tan(x) * jnp.sin(0.5 * x) ** 2, ((1e-8, 1.0),)),
    Case(reciprocals_difference, lambda x: stable.divide(1.0, x * (x + 1.0)), ((1.0, 1e7),)),
    Case(logs_difference, lambda x: jnp.log1p(1.0 / x), ((1.0, 1e9),)),
    Case(squares_difference, lambda a, b: (a - b) * (a + b), ((1.0, 10.0), (1.0, 10.0))),
    Case(circle, lambda x: jnp.sqrt((1.0 - x) * (1.0 + x)), ((0.999, 0.9999999),)),
    Case(small_angle, lambda x: 2.0 * jnp.arcsin(jnp.sqrt(0.5 * x)), ((1e-12, 1.0),)),
    Case(expanded_power, lambda x: (x - 1.0) ** 7, ((0.8, 1.2),), stabilizable=False),
    Case(geometric_mean, lambda x: jnp.exp(jnp.mean(jnp.log(x))), ((1e-15, 1e15),), vector=True, stabilizable=False),
]
