"""Everything that jaxpartials raises on purpose.

Each message says what was asked, what was found, the likely mistake, and a spelling that works.
"""


class JaxPartialsError(Exception):
    """The base of every error below.

    Raised never by itself; catch it to catch whatever jaxpartials raises on purpose.
    """


class NotationError(JaxPartialsError, ValueError):
    """A spec cannot be read, or does not fit the function it is asked of.

    Raised by `partials` when a spec does not parse, names no argument of the signature, or shares an axis
    between the output and an input without saying whether it stays; and at the first call when the spec does
    not fit the arguments and outputs: a part that isn't there, a wrong number of axes, a position out of
    range, two sizes under one name.

    What to do: rewrite the spec; the message shows the place and a spelling that works.
    """


class DerivativeError(JaxPartialsError, TypeError):
    """A spec is well formed, but the derivative it names does not exist or cannot be computed.

    Raised at the first call when an input or output holds no floating-point numbers (an integer array, a
    function, a string), when a complex derivative is not well defined, or when the operations on the way rule
    out every mode.

    What to do: pass `3.0` rather than `3`, cast inside the function, or replace the operation that is named.
    """


class BatchError(JaxPartialsError, ValueError):
    """A function's batch cannot be taken apart into chunks.

    Raised by `accumulate` when `batch_args` names no argument or its arrays differ in length, and at the first call
    when a result is not made of the results for chunks: it normalises over the batch, sorts it, or takes the root of a
    mean.

    What to do: accumulate a mean or a sum, and compute what follows from it afterwards.
    """


class StableError(JaxPartialsError, TypeError):
    """An operation of `stable` cannot take its arguments.

    Raised when an argument is no array of numbers, when shapes do not broadcast, when an operation on real numbers gets
    complex ones, and when a wider precision is asked for that is not to be had.

    What to do: the message names the arguments, with shapes and dtypes, and what to pass instead.
    """


class StabilityError(JaxPartialsError, ValueError):
    """A function cannot be checked by `check_stability`.

    Raised when no argument is a range or holds real floating-point numbers, when a range is none, when the function's
    results hold no such numbers, and when an equation on the way cannot be evaluated in a precision that is enough.

    What to do: the message names the argument or the equation and its line; pass `3.0` rather than `3`, a range
    `(low, high)`, or install mpmath.
    """
