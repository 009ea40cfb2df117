"""Operations whose derivatives stay accurate at every order."""

from jaxpartials.stable.cardinal import cosc, sinc
from jaxpartials.stable.cross_entropy import softmax_cross_entropy, softmax_cross_entropy_with_integer_labels
from jaxpartials.stable.entropy import kl_div, rel_entr, xlogx, xlogy
from jaxpartials.stable.exponentials import log1mexp, logaddexp, logdiffexp
from jaxpartials.stable.hyperbolic import log_cosh, tanh
from jaxpartials.stable.logistic import log_sigmoid, sigmoid, softplus
from jaxpartials.stable.normal import erfcx, log_ndtr
from jaxpartials.stable.powers import power
from jaxpartials.stable.quadratic import quadratic_roots
from jaxpartials.stable.radii import arctan2, asinh, hypot, isru, smooth_abs
from jaxpartials.stable.ratios import divide
from jaxpartials.stable.removable import exprel, log1prel
from jaxpartials.stable.softmax import log_softmax, logsumexp, softmax
from jaxpartials.stable.statistics import std, var
from jaxpartials.stable.vectors import cosine_similarity, norm, normalize

__all__ = [
    "arctan2",
    "asinh",
    "cosc",
    "cosine_similarity",
    "divide",
    "erfcx",
    "exprel",
    "hypot",
    "isru",
    "kl_div",
    "log1mexp",
    "log1prel",
    "log_cosh",
    "log_ndtr",
    "log_sigmoid",
    "log_softmax",
    "logaddexp",
    "logdiffexp",
    "logsumexp",
    "norm",
    "normalize",
    "power",
    "quadratic_roots",
    "rel_entr",
    "sigmoid",
    "sinc",
    "smooth_abs",
    "softmax",
    "softmax_cross_entropy",
    "softmax_cross_entropy_with_integer_labels",
    "softplus",
    "std",
    "tanh",
    "var",
    "xlogx",
    "xlogy",
]
