"""One operation, its plain twin, its mathematics in mpmath, and what its docstring promises."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Grid = tuple[float, ...]


@dataclass(frozen=True)
class Case:
    """An operation of real numbers, or of a vector given as separate numbers, and its bounds.

    Attributes:
        name: as in the tables.
        stable: the operation; takes scalars.
        plain: what one writes without this library.
        true: the same in mpmath.
        grids: the values of each argument; see `grids.py`. One argument: all of them. More: pairs drawn from them.
        bounds: ulp at orders 0, 1, 2, 3.
        strict: up to this order, ulp are those of the true value wherever that is a normal number. Above it, of
            |f| + Σ |xₖ ∂f/∂xₖ|: what an error of one ulp in the arguments would change. Derivatives of high order
            have roots inside their domain, where no bound of the first kind could hold.
        vector: whether the arguments are the elements of one vector. Errors are then those of the whole tensor of
            derivatives of one order: relative to its largest element.
        common_roots: from this order on all derivatives of an order of a vector may vanish at once. Errors are then
            relative to the largest of it and of the order below.
        within: whether a point belongs to the domain.
        plain_is_accurate: whether the plain way meets the bounds, too, on the newest JAX: then the operation has done
            its work, and is there for the older ones.
        torch: the same in torch, as a function of the module.
        rows: the operation and the plain one on a matrix that holds vectors in its rows: what is timed of a vector's
            operation.
    """

    name: str
    stable: Callable[..., Any]
    plain: Callable[..., Any]
    true: Callable[..., Any]
    grids: tuple[Grid, ...]
    bounds: tuple[float, float, float, float] = (4, 8, 8, 8)
    strict: int = 2
    vector: bool = False
    common_roots: int = 4
    within: Callable[..., bool] = lambda *xs: True
    plain_is_accurate: bool = False
    torch: Callable[..., Any] | None = None
    rows: tuple[Callable[..., Any], Callable[..., Any]] | None = None
