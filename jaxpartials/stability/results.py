"""What `check_stability` found: as a table, as a picture, as plain data."""

import os
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jaxpartials.inspection.finding import Place
from jaxpartials.planprint import as_text, plain_table

Array = np.ndarray[Any, Any]

WIDTH = 100
EAGER, COMPILED, BOTH = "eager", "compiled", "eager and compiled"


@dataclass(frozen=True)
class Culprit:
    """An equation that loses the accuracy.

    Attributes:
        place: the user's line, None where there is none.
        primitive: the JAX operation.
        how: "cancellation", "overflow", "underflow", "rounding", or "compiler" where only the compiled one is wrong.
        instead: what to write, "" where nothing is known.
    """

    place: Place | None
    primitive: str
    how: str
    instead: str


@dataclass(frozen=True)
class Loss:
    """A region in which one derivative is wrong.

    Attributes:
        output: which one of several, as a path into the result; "" of a single one.
        derivative: "f", "∂f/∂x", …
        order: of it.
        by: the arguments it is by.
        region: in words.
        runs: "eager", "compiled" or "eager and compiled".
        bad: how many points lose more bits than allowed.
        of: how many there are whose truth is known and within the range of the dtype.
        bits: lost at the worst point.
        nan: how often it came out and should not have.
        inf: so with this,
        zero: and with this.
        worst: the arguments there, by name.
        element: of the result, where it is an array.
        got: what came out there.
        true: what should have.
        culprits: the equations to blame, that of most points first.
    """

    output: str
    derivative: str
    order: int
    by: tuple[str, ...]
    region: str
    runs: str
    bad: int
    of: int
    bits: float
    nan: int
    inf: int
    zero: int
    worst: tuple[tuple[str, Any], ...]
    element: tuple[int, ...]
    got: float
    true: float
    culprits: tuple[Culprit, ...]

    @property
    def culprit(self) -> Culprit | None:
        """The first of them."""
        return self.culprits[0] if self.culprits else None

    def __str__(self) -> str:
        at = ", ".join(f"{name} = {_short(value)}" for name, value in self.worst)
        element = f", element {list(self.element)}" if self.element else ""
        text = f"{self.derivative}{self.output} at {at}{element}: {self.got:.6g}, true is {self.true:.6g}."
        if self.culprit is None:
            return text
        by = "the compiler's rewriting" if self.culprit.how == "compiler" else self.culprit.how
        text += f" {by.capitalize()} in {self.culprit.primitive}, {self.culprit.place or 'an unknown line'}."
        return text + (f" Write {self.culprit.instead}." if self.culprit.instead else "")


@dataclass(frozen=True)
class Accuracy:
    """How accurate one derivative of one output is.

    Attributes:
        output: which one of several.
        derivative: "f", "∂f/∂x", …
        order: of it.
        points: where the truth is known and within the range of the dtype.
        undecided: points where it is not known.
        bits: lost at the worst point.
        mean_bits: lost on average.
        bad: points that lose more bits than allowed.
        nan: how often it came out and should not have.
        inf: so with this,
        zero: and with this.
        errors: the bits lost at every point, nan where the truth is not known.
    """

    output: str
    derivative: str
    order: int
    points: int
    undecided: int
    bits: float
    mean_bits: float
    bad: int
    nan: int
    inf: int
    zero: int
    errors: Array = field(repr=False, compare=False)


@dataclass(frozen=True)
class StabilityReport:
    """What `check_stability` found; prints as a table.

    A result y whose truth is y* has lost log₂(2ᵖ |y − y*|/|y*|) bits of the p that its dtype has.

    Examples:
        >>> import jax.numpy as jnp
        >>> from jaxpartials import check_stability
        >>> def approach(x):
        ...     return 1.0 - jnp.exp(-x)
        >>> report = check_stability(approach, (1e-20, 10.0), orders=(0,))
        >>> (loss,) = report.losses
        >>> print(loss.derivative, loss.runs, loss.bits == report.significand, loss.zero > 0)
        f eager and compiled True True
        >>> print(loss.culprit.how, loss.culprit.primitive, loss.culprit.place.function)
        cancellation sub approach

    Attributes:
        name: of the function.
        dtype: of its arguments.
        significand: how many bits that has.
        allowed: how many of them may be wrong.
        points: how many were tried.
        digits: how many decimal digits the reference took, 0 where float64 was enough.
        accuracies: of each derivative and output.
        losses: where they are wrong, by order; none if the function is stable.
        inputs: the points, by argument: an array of each, one row for each point.

    Source: Panchekha et al., Automatically improving accuracy for floating point expressions, PLDI 2015 (bits of
        error).
    """

    name: str
    dtype: str
    significand: int
    allowed: float
    points: int
    digits: int
    accuracies: tuple[Accuracy, ...]
    losses: tuple[Loss, ...]
    inputs: tuple[tuple[str, Array], ...] = field(repr=False, compare=False)

    @property
    def culprits(self) -> tuple[Culprit, ...]:
        """The equations to blame, those of most wrong points first; one for each line."""
        weights: dict[Any, int] = {}
        first: dict[Any, Culprit] = {}
        for loss in self.losses:
            if loss.culprit is not None:
                line = loss.culprit.place
                weights[line] = weights.get(line, 0) + loss.bad
                first.setdefault(line, loss.culprit)
        return tuple(first[line] for line in sorted(weights, key=lambda line: -weights[line]))

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data, for CI: the attributes above, each loss with its culprits and their places."""
        return {
            "name": self.name,
            "dtype": self.dtype,
            "significand": self.significand,
            "allowed": self.allowed,
            "points": self.points,
            "digits": self.digits,
            "accuracies": [
                {key: value for key, value in vars(each).items() if key != "errors"} for each in self.accuracies
            ],
            "losses": [
                {
                    **vars(loss),
                    "worst": dict(loss.worst),
                    "culprits": [
                        {**vars(one), "place": None if one.place is None else one.place._asdict()}
                        for one in loss.culprits
                    ],
                }
                for loss in self.losses
            ],
        }

    def plot(self, to: Any) -> Any:
        """Draw the bits lost over the first argument that varies, one curve for each derivative.

        Args:
            to: a file to write, or matplotlib axes to draw on.

        Returns:
            The axes.

        Raises:
            ImportError: matplotlib is not installed.
        """
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7.0, 3.5), layout="constrained") if isinstance(to, (str, os.PathLike)) else None
        axes: Any = to if figure is None else figure.subplots()
        name, values = self.inputs[0]
        x = values.reshape(self.points, -1)[:, 0].astype(np.float64)
        order = np.argsort(x)
        for one in self.accuracies:
            axes.plot(x[order], one.errors[order], ".", markersize=4, label=f"{one.derivative}{one.output}")
        axes.axhline(self.allowed, color="0.6", linewidth=1)
        span = np.abs(x[x != 0])
        if span.size and span.max() > 100 * span.min():
            axes.set_xscale("log") if x.min() > 0 else axes.set_xscale("symlog", linthresh=float(span.min()))
        axes.set(xlabel=name, ylabel=f"bits lost of {self.significand}", ylim=(-0.5, self.significand + 0.5))
        axes.set_title(self.name)
        axes.legend(fontsize="small")
        if figure is not None:
            figure.savefig(os.fspath(to))
        return axes

    def __str__(self) -> str:
        reference = f"mpmath, {self.digits} digits" if self.digits else "float64"
        against = f"{self.points} points of {self.dtype}, against {reference}"
        undecided = sum(each.undecided for each in self.accuracies)
        notes = []
        if undecided:
            notes.append(
                f"{undecided} evaluations were left out: float64 is not enough there, and mpmath is not installed or "
                "does not know an equation."
            )
        if not self.losses:
            worst = max((each.bits for each in self.accuracies), default=0.0)
            head = f"{self.name} is stable: at most {worst:.1f} bits of {self.significand} lost ({against})."
            return "\n".join([head, *notes])
        head = f"{self.name} loses more than {self.allowed:g} bits of {self.significand} ({against})."
        numbered = [f"{i}. {loss}" for i, loss in enumerate(self.losses, start=1)]
        return "\n".join([head, _table(self.losses), *numbered, *notes])


def _table(losses: tuple[Loss, ...]) -> str:
    table = plain_table()
    for title in ("", "of", "where", "wrong", "bits", "nan", "inf", "0", "run", "line"):
        table.add_column(title, justify="left" if title in ("of", "where", "run", "line") else "right", overflow="fold")
    for i, one in enumerate(losses, start=1):
        line = "" if one.culprit is None else str(one.culprit.place or "an unknown line")
        table.add_row(
            str(i), one.derivative + one.output, one.region, f"{one.bad / max(one.of, 1):.0%}", f"{one.bits:.0f}",
            str(one.nan), str(one.inf), str(one.zero), "" if one.runs == BOTH else one.runs, line,
        )  # fmt: skip
    return as_text(table, WIDTH)


def _short(value: Any) -> str:
    if isinstance(value, list):
        shown = ", ".join(_short(each) for each in value[:4])
        return f"[{shown}{', …' if len(value) > 4 else ''}]"
    return f"{value:.9g}" if isinstance(value, float) else str(value)
