"""The picture of a solved Burgers equation: prediction, reference, error and loss curve."""

from pathlib import Path

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from jaxpartials.demo.burgers import EVERY, Solution, Training


def write(solution: Solution, training: Training, out: Path) -> None:
    """Draw the four panels into the file `out`; its suffix names the format.

    Raises:
        OSError: the file cannot be written.
        ValueError: matplotlib knows no format of that suffix.
    """
    figure = Figure(figsize=(11, 7), layout="constrained")
    (prediction, reference), (error, loss) = figure.subplots(2, 2)
    field = {"cmap": "RdBu_r", "vmin": -1.0, "vmax": 1.0}
    _field(figure, prediction, solution, solution.predicted, "prediction u(t, x)", **field)
    _field(figure, reference, solution, solution.exact, "Cole-Hopf solution", **field)
    distance = np.abs(solution.predicted - solution.exact)
    title = f"|error|; relative L2 error {solution.relative_error:.1e}"
    _field(figure, error, solution, np.maximum(distance, 1e-6), title, cmap="magma", norm=LogNorm(1e-6, 1))
    steps = np.minimum(EVERY * np.arange(1, len(training.losses) + 1), training.steps)
    loss.semilogy(steps, training.losses, marker="." if len(steps) < 20 else None, linewidth=0.8)
    loss.set(title="loss: mean square weighted residual", xlabel="step")
    loss.grid(alpha=0.3)
    figure.savefig(out, dpi=120)


def _field(figure, axes, solution, values, title, **style):
    image = axes.pcolormesh(solution.t, solution.x, values.T, shading="nearest", rasterized=True, **style)
    axes.set(title=title, xlabel="t", ylabel="x")
    figure.colorbar(image, ax=axes)
