"""Name the partial derivatives you want; get one JAX function that computes exactly those."""

from jaxpartials import errors, stable
from jaxpartials.accumulation import accumulate
from jaxpartials.inspection import Report, assert_no_redundant_work, report
from jaxpartials.simplification import simplify
from jaxpartials.stability import Range, StabilityReport, assert_stable, check_stability, stabilize
from jaxpartials.transform import partials

__all__ = [
    "partials",
    "simplify",
    "accumulate",
    "report",
    "Report",
    "assert_no_redundant_work",
    "stable",
    "check_stability",
    "assert_stable",
    "stabilize",
    "Range",
    "StabilityReport",
    "errors",
]
__version__ = "0.1.0"
