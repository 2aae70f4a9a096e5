"""Latency as JSON and as plots: the distribution of each artifact's samples, and the times of its stages."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgecnn.errors import SpecError, StorageError
from edgecnn.json_text import encode_json
from edgecnn.measure.latency import STAGES, BenchReport, BenchResult
from edgecnn.report.figures import import_matplotlib, new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_STAGE_COLOURS = {"fit": "#8fb8de", "infer": "#2c5d8a", "finish": "#e0a458"}
_MOST_COLOURS = 10
_LAYERS_SHOWN = 20
_NAME_SHOWN = 60  # the end of a long name tells more than its beginning
_TAIL_CUT = 99.5  # percent of the samples that the distributions' axis shows


def write_report(report: BenchReport, path: Path) -> None:
    """Write everything as JSON, raw samples included.

    Raises:
        StorageError: disk full, or `path` is not writable.
    """
    try:
        path.write_bytes(encode_json(report) + b"\n")  # a pipe or a device is written to as it is
    except OSError as failed:
        raise StorageError(f"{path} is not writable: {failed.strerror}") from failed


def plot_report(report: BenchReport, path: Path) -> None:
    """Write a plot of a run: distributions above, medians with their stages below.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        StorageError: `path` is not writable.
    """
    results = sorted(report.results, key=lambda result: result.stages["infer"])
    figure = new_figure(11, 6.2 + 0.42 * len(results))
    matplotlib = import_matplotlib()
    above, below = figure.subplots(2, 1, height_ratios=(5, 1.2 + 0.42 * len(results)))
    colours = matplotlib.colormaps["tab10" if len(results) <= _MOST_COLOURS else "turbo"]
    _distributions(above, results, [_colour(colours, i, len(results)) for i in range(len(results))])
    _stages(below, results)
    figure.suptitle(f"{report.bundle}: latency of a picture, in memory → Result", fontsize=13, fontweight="bold")
    figure.supxlabel(
        f"{report.machine.summary}\n{results[0].pictures}; {results[0].profile}; {results[0].measured_utc}",
        fontsize=8,
        color="0.4",
    )
    save_figure(figure, path)


def plot_layers(report: BenchReport, path: Path) -> None:
    """Write a plot of the slowest layers: one column per artifact, with the sum of its other layers.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        SpecError: no result has layers.
        StorageError: `path` is not writable.
    """
    results = [result for result in report.results if result.layers]
    if not results:
        raise SpecError("no artifact's layers were timed: give --layers too")
    figure = new_figure(min(6.5 * len(results), 20), 2.2 + 0.28 * _LAYERS_SHOWN)
    for axes, result in zip(figure.subplots(1, len(results), squeeze=False)[0], results, strict=True):
        shown, rest = result.layers[:_LAYERS_SHOWN], result.layers[_LAYERS_SHOWN:]
        bars = [(layer.name or layer.kind, layer.time_ms, layer.kind) for layer in shown]
        if rest:
            bars.append((f"the other {len(rest)}", sum(layer.time_ms for layer in rest), ""))
        kinds = list(dict.fromkeys(kind for _, _, kind in bars))
        colours = import_matplotlib().colormaps["tab20"]
        for place, (name, time_ms, kind) in enumerate(bars):
            axes.barh(place, time_ms, color=colours(kinds.index(kind) % 20) if kind else "0.8", alpha=0.55)
            axes.annotate(
                f"{name[-_NAME_SHOWN:]}  {time_ms:.3g} ms",
                (0, place),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=7.5,
            )
        axes.invert_yaxis()
        axes.set_yticks([])
        axes.set(xlabel="ms of one inference, profiled", title=_name(result))
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{report.bundle}: slowest layers", fontsize=13, fontweight="bold")
    figure.supxlabel(report.machine.summary, fontsize=8, color="0.4")
    save_figure(figure, path)


def _distributions(axes: Axes, results: list[BenchResult], colours: list[Any]) -> None:
    """Share of the samples up to each latency."""
    shown_ms = 0.0
    for result, colour in zip(results, colours, strict=True):
        total_ms = np.sort(np.asarray(result.samples.total_ns)) / 1e6
        share = np.arange(1, len(total_ms) + 1) / len(total_ms)
        axes.step(total_ms, share, where="post", color=colour, linewidth=1.8, label=_name(result))
        for percent, marker in ((50, "o"), (90, "s"), (99, "^")):
            ms = getattr(result, f"p{percent}_ms")
            if ms is not None:
                axes.plot(ms, percent / 100, marker, color=colour, markersize=6, markeredgecolor="white")
        shown_ms = max(shown_ms, float(np.percentile(total_ms, _TAIL_CUT)))
    axes.set(xlabel="ms, end to end", ylabel="share of samples at or below", ylim=(0, 1.02))
    axes.set_xlim(0, shown_ms * 1.05)
    axes.grid(alpha=0.3)
    axes.legend(
        fontsize=8,
        loc="upper left",
        bbox_to_anchor=(1.01, 1),
        title="● p50  ■ p90  ▲ p99,\nwhere n allows",
        title_fontsize=8,
        alignment="left",
    )


def _stages(axes: Axes, results: list[BenchResult]) -> None:
    """Median of each stage, fastest on top."""
    names = [_name(result) for result in results]
    left = np.zeros(len(results))
    for stage in STAGES:
        widths = np.array([result.stages[stage] for result in results])
        axes.barh(names, widths, left=left, color=_STAGE_COLOURS[stage], label=stage, height=0.62)
        left += widths
    longest = float(left.max())
    for position, (result, end) in enumerate(zip(results, left.tolist(), strict=True)):
        words = " + ".join(f"{result.stages[stage]:.2f}" for stage in STAGES)
        axes.text(end + 0.01 * longest, position, f"{words} ms", va="center", fontsize=8)
    axes.set_xlim(0, longest * 1.3)
    axes.invert_yaxis()
    axes.set_xlabel("ms, median of each stage: fit + infer + finish")
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1))


def _name(result: BenchResult) -> str:
    unstable = " (unstable)" if result.unstable else ""
    return f"{result.format} {result.precision}, threads {result.threads}{unstable}"


def _colour(colours: Any, index: int, count: int) -> Any:
    return colours(index) if count <= _MOST_COLOURS else colours(index / (count - 1))
