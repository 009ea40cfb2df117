"""The notation: `"u/x[i]^2 -> i"` read into a `Partial`, and fitted to a function's arguments and outputs.

`parse` knows the text alone, `check_signature` the names of the arguments, and `resolve` the arrays: it finds
every operand in the arguments and outputs and labels every axis of every derivative block, as einsum would.
"""

from jaxpartials.notation.parse import check_signature, parse, parse_wanted
from jaxpartials.notation.resolve import resolve
from jaxpartials.notation.spec import Axis, Block, Operand, Partial

__all__ = ["Axis", "Block", "Operand", "Partial", "check_signature", "parse", "parse_wanted", "resolve"]
