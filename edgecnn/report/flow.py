"""Plots a flow: the metric of each network and artifact over its latency."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgecnn.report.figures import new_figure, save_figure

_SMALLEST_SPAN = 0.02  # of the metric: a smaller difference is not enlarged
_NETWORK_COLOUR, _SHIPPED_COLOUR = "#e0a458", "#2c5d8a"


def plot_flow(points: Sequence[tuple[str, bool, float, float]], path: Path, *, title: str, metric: str) -> None:
    """Draw the metric over the latency, one labelled point for each, PNG.

    Args:
        points: name, whether it is shipped, median latency in ms, and the metric. Networks of the stages come in
            their order, and are connected by a line.
        path: the file.
        title, metric: texts of the plot.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        StorageError: the file cannot be written.
    """
    figure = new_figure(8, 5.5)
    axes = figure.subplots()
    for shipped, colour, label, line in (
        (False, _NETWORK_COLOUR, "networks after each stage, fp32", "--"),
        (True, _SHIPPED_COLOUR, "shipped", ""),
    ):
        chosen = [(ms, value) for _, is_shipped, ms, value in points if is_shipped == shipped]
        if chosen:
            axes.plot(*zip(*chosen, strict=True), "o", ls=line, lw=1, color=colour, label=label)
    for number, (name, shipped, ms, value) in enumerate(points):
        # Networks' names above, artifacts' below; neighbours of one kind at different heights.
        offset_px = (-8 if shipped else 8) * (1 + number % 3)
        axes.annotate(name, (ms, value), xytext=(3, offset_px), textcoords="offset points", fontsize=8, va="center")
    if points:
        values = [value for _, _, _, value in points]
        middle = (max(values) + min(values)) / 2
        half = max(0.65 * (max(values) - min(values)), _SMALLEST_SPAN / 2)
        axes.set(xlim=(0, 1.2 * max(ms for _, _, ms, _ in points)), ylim=(middle - half, middle + half))
        axes.legend(fontsize=8, loc="lower left")
    else:
        axes.text(0.5, 0.5, "nothing has both a metric and a latency", ha="center", transform=axes.transAxes)
    axes.set(xlabel="ms, median latency of a picture", ylabel=metric)
    axes.grid(alpha=0.3)
    axes.set_title(f"{title}: up is more accurate, left is faster")
    save_figure(figure, path)
