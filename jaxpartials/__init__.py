"""Name the partial derivatives you want; get one JAX function that computes exactly those."""

from jaxpartials import errors
from jaxpartials.transform import partials

__all__ = ["errors", "partials"]
__version__ = "0.1.0"
