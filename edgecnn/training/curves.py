"""Training history as a table and as a plot."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from edgecnn.report.figures import new_figure, save_figure

Row = dict[str, float]


def as_csv(history: Sequence[Row]) -> bytes:
    """A line for each epoch; the metric is empty where it was not measured."""
    columns = list(dict.fromkeys(name for row in history for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(history)
    return text.getvalue().encode()


def plot_curves(history: Sequence[Row], path: Path, *, metric: str, best_epoch: int) -> None:
    """Draw the parts of the loss and the metric over the epochs, PNG.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        StorageError: the file cannot be written.
    """
    figure = new_figure(8, 6)
    losses, metrics = figure.subplots(2, 1, sharex=True)
    epochs = [row["epoch"] for row in history]
    for name in dict.fromkeys(name for row in history for name in row if name.endswith("_loss")):
        losses.plot(epochs, [row[name] for row in history], label=name.removesuffix("_loss"))
    losses.set_ylabel("loss")
    losses.set_yscale("log")
    losses.legend()
    measured = [row for row in history if "metric" in row]
    metrics.plot([row["epoch"] for row in measured], [row["metric"] for row in measured], marker=".", color="black")
    best = next((row for row in measured if row["epoch"] == best_epoch), None)
    if best is not None:
        metrics.plot([best["epoch"]], [best["metric"]], "o", color="tab:red", label=f"best: {best['metric']:.4f}")
        metrics.legend()
    metrics.set_ylabel(metric)
    metrics.set_xlabel("epoch")
    for axes in (losses, metrics):
        axes.grid(alpha=0.3)
    save_figure(figure, path)
