"""The stable operation to write instead of an equation that loses the accuracy."""

from collections.abc import Sequence

from jaxpartials.graph.graph import Node
from jaxpartials.stability.patterns import Match


def advice(found: Sequence[Match], culprit: Node) -> str:
    """What computes the same as the formula on the culprit's line, "" where nothing is known.

    `found` are the matches in the function itself: what differentiation makes of a line has the line of its origin.
    """
    for match in found:
        if culprit.line in match.lines:
            return f"jaxpartials.{match.operation}" if match.operation.startswith("stable.") else match.operation
    return ""
