"""The pictures of an evaluation."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from service.system_errors import naming

Array = npt.NDArray[Any]

_COLOURS = ("#0b6e99", "#c46210", "#6b6b6b", "#5c8a3a")
_SMOOTHING_STEPS = 11


def draw_outer_loss(csv_path: Path, picture: Path) -> None:
    """Draw the run's outer loss from its metrics table."""
    with csv_path.open(newline="") as file:
        rows = [(float(row["outer_step"]), float(row["loss"])) for row in csv.DictReader(file) if row["loss"]]
    steps, losses = np.asarray(rows).reshape(-1, 2).T
    figure, axes = _axes("outer step", "outer loss (mean over a truncation)", "Meta-training")
    axes.plot(steps, losses, color=_COLOURS[0], alpha=0.3, linewidth=0.8, label="each update")
    axes.plot(steps, smoothed(losses), color=_COLOURS[0], label=f"mean over {_SMOOTHING_STEPS} updates")
    axes.legend(frameon=False)
    _save(figure, picture)


def draw_inner_curves(curves: Mapping[str, tuple[Array, Array]], picture: Path, title: str) -> None:
    """Draw learning curves.

    Args:
        curves: inner steps `[evaluations]` and losses `[tasks, evaluations]`, by name of the optimizer.
        picture: file to write.
        title: of the picture.
    """
    figure, axes = _axes("inner step", "training loss", title)
    for colour, (name, (steps, losses)) in zip(_COLOURS, curves.items(), strict=False):
        finite = np.where(np.isfinite(losses), losses, np.nan)
        low, high = np.nanpercentile(finite, (10, 90), axis=0)
        axes.plot(steps, np.nanmean(finite, axis=0), color=colour, label=name)
        axes.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)
    if all(np.nanmin(losses) > 0 for _, losses in curves.values()):
        axes.set_yscale("log")
    axes.legend(frameon=False, title="mean over tasks, 10 % to 90 % shaded", alignment="left")
    _save(figure, picture)


def smoothed(values: Array) -> Array:
    """Return the mean of `values` `[n]` over a centred window, ignoring values that are not finite.

    A trailing window would draw a falling loss above itself. At the ends the window is truncated.
    """
    window = np.ones(min(_SMOOTHING_STEPS, len(values)))
    finite = np.isfinite(values)
    total = np.convolve(np.where(finite, values, 0.0), window, mode="same")
    count = np.convolve(finite, window, mode="same")
    mean: Array = np.divide(total, count, out=np.full(len(values), np.nan), where=count > 0)
    return mean


def _axes(x_label: str, y_label: str, title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6.4, 4.0), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set(xlabel=x_label, ylabel=y_label)
    axes.set_title(title, loc="left", fontsize="medium")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, color="#e0e0e0", linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def _save(figure: Figure, picture: Path) -> None:
    with naming(picture):
        picture.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(picture)
