"""What a function computes twice, for nothing, or in the wrong mode: where, how much, and whether XLA removes it."""

from jaxpartials.inspection.finding import Finding
from jaxpartials.inspection.report import Report, assert_no_redundant_work, report

__all__ = ["Finding", "Report", "assert_no_redundant_work", "report"]
