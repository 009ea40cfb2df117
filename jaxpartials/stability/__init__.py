"""Where a function loses accuracy, and the same function computed so that it does not."""

from jaxpartials.stability.check import assert_stable, check_stability
from jaxpartials.stability.ranges import Range
from jaxpartials.stability.results import StabilityReport
from jaxpartials.stability.stabilize import stabilize

__all__ = ["Range", "StabilityReport", "assert_stable", "check_stability", "stabilize"]
