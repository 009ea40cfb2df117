"""Name the partial derivatives you want; get one JAX function that computes exactly those."""

from jaxpartials import errors
from jaxpartials.accumulation import accumulate
from jaxpartials.inspection import Report, assert_no_redundant_work, report
from jaxpartials.simplification import simplify
from jaxpartials.transform import partials

__all__ = ["partials", "simplify", "accumulate", "report", "Report", "assert_no_redundant_work", "errors"]
__version__ = "0.1.0"
