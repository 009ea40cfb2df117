"""All cases, in the order of the tables."""

from benchmarks.stability import (
    entropy,
    exponentials,
    hyperbolic,
    logistic,
    normal,
    quadratic,
    radii,
    ratios,
    removable,
    softmax,
    statistics,
    vectors,
)
from benchmarks.stability.case import Case

GROUPS = (
    ratios, radii, vectors, hyperbolic, logistic, exponentials, softmax,
    removable, normal, entropy, statistics, quadratic,
)  # fmt: skip
CASES: dict[str, Case] = {case.name: case for group in GROUPS for case in group.CASES}
