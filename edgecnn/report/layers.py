"""Plots layers: the damage of each in int8, and the noise of each along the network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgecnn.bundle import Artifact, Manifest
from edgecnn.measure.layer_noise import LayerComparison, LayerNoise
from edgecnn.report.figures import new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INT8_COLOUR, FLOAT_COLOUR = "#2c5d8a", "#e0a458"
_MARK_COLOUR = "#b3261e"
_MOST_NAMES = 60  # that can be read below an axis
_NOISE_TICKS_DB = (0, 10, 20, 30, 40, 50)  # ticks of the second axis, which shows noise in percent


def plot_damage(manifest: Manifest, path: Path) -> None:
    """Plot each layer's damage when it alone is int8, in the network's order, one panel per artifact.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        StorageError: `path` is not writable.
    """
    searched = [
        artifact
        for artifact in manifest.artifacts
        if artifact.evidence.quantization is not None and artifact.evidence.quantization.damage
    ]
    figure = new_figure(13, 1.2 + 3.2 * max(len(searched), 1))
    panels = figure.subplots(max(len(searched), 1), 1, squeeze=False)[:, 0]
    if not searched:
        panels[0].text(0.5, 0.5, "no layer was measured alone: all are int8 within the limit", ha="center")
        panels[0].set_axis_off()
    for axes, artifact in zip(panels, searched, strict=False):
        _damage_panel(axes, artifact, [layer.name for layer in manifest.layers])
    figure.suptitle(f"{manifest.name}: damage of each layer when it alone is int8", fontsize=13, fontweight="bold")
    save_figure(figure, path)


def _damage_panel(axes: Axes, artifact: Artifact, order: list[str]) -> None:
    evidence = artifact.evidence.quantization
    assert evidence is not None
    by_name = {layer.name: layer for layer in evidence.damage}
    shown = [by_name[name] for name in order if name in by_name]
    finite = [layer.damage for layer in shown if np.isfinite(layer.damage) and layer.damage > 0]
    top = max(finite, default=1.0)
    heights = [min(max(layer.damage, min(finite, default=1e-6)), 10 * top) for layer in shown]
    colours = [FLOAT_COLOUR if layer.kept_float else INT8_COLOUR for layer in shown]
    axes.bar(range(len(shown)), heights, color=colours, width=0.8)
    axes.set_yscale("log")
    axes.set_ylabel("noise / signal")
    kept = sum(layer.kept_float for layer in shown)
    axes.set_title(
        f"{artifact.format} {artifact.precision}: {len(shown) - kept} layers int8 (blue), {kept} float (orange), "
        f"{evidence.int8_mac_share:.0%} of the multiply-adds in int8",
        fontsize=10,
        loc="left",
    )
    _name_layers(axes, [layer.name for layer in shown])
    axes.grid(axis="y", alpha=0.3)


def plot_layer_comparison(comparison: LayerComparison, path: Path) -> None:
    """Plot the signal-to-noise ratio over the layers, in the order of execution.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        StorageError: `path` is not writable.
    """
    layers, best = comparison.layers, comparison.best_db
    values = np.array([min(layer.snr_db, best) for layer in layers])  # float layers above the limit are cut off
    figure = new_figure(13, 6.4)
    axes = figure.subplots()
    axes.plot(values, color="0.75", linewidth=0.9, zorder=1)
    axes.step(
        range(len(layers)),
        np.minimum.accumulate(values),
        where="post",
        color=_MARK_COLOUR,
        linestyle=":",
        linewidth=1.1,
        label="lowest so far",
        zorder=2,
    )
    for label, colour, of in (
        ("int8", INT8_COLOUR, True),
        ("float", FLOAT_COLOUR, False),
        (comparison.compared, INT8_COLOUR, None),
    ):
        for above, marker, more in ((False, "o", ""), (True, "^", f", {best:.0f} dB or more")):
            places = [i for i, layer in enumerate(layers) if layer.int8 is of and (layer.snr_db >= best) is above]
            if places:
                axes.plot(places, values[places], marker, markersize=4.5, color=colour, label=label + more, zorder=3)
    _mark_worst(axes, layers, values.tolist())
    _name_layers(axes, [layer.name for layer in layers])
    _label_comparison(axes, comparison)
    save_figure(figure, path)


def _mark_worst(axes: Axes, layers: tuple[LayerNoise, ...], values: list[float]) -> None:
    """A ring and a name for each layer where most noise enters; names below each other, beside the curve."""
    top, bottom = max(values), min(min(values), 0.0)
    span = max(top - bottom, 1.0)
    axes.set_ylim(bottom - 0.06 * span, top + 0.42 * span)
    marked = [index for index, layer in enumerate(layers) if layer.rank is not None]
    left = [index for index in marked if index <= 0.6 * len(layers)]
    right = [index for index in marked if index not in left]
    for place, index in enumerate([*left, *reversed(right)]):  # so that no line crosses a name
        layer, side = layers[index], 1 if index in left else -1
        axes.plot(index, values[index], "o", markersize=11, fillstyle="none", color=_MARK_COLOUR, zorder=4)
        axes.annotate(
            f"{layer.rank}.  {layer.name}: {layer.snr_db:.1f} dB, {layer.drop_db:.1f} lower",
            xy=(index, values[index]),
            xytext=(index + side * 0.015 * len(layers), top + (0.34 - 0.11 * place) * span),
            fontsize=9,
            color=_MARK_COLOUR,
            ha="left" if index in left else "right",
            va="center",
            arrowprops={
                "arrowstyle": "-",
                "color": _MARK_COLOUR,
                "linewidth": 0.7,
                "shrinkB": 6,
                "relpos": (0.0 if index in left else 1.0, 0.5),
            },
            zorder=5,
        )


def _label_comparison(axes: Axes, comparison: LayerComparison) -> None:
    outputs = ", ".join(f"{name} {value:.1f} dB" for name, value in comparison.outputs.items())
    unread = f"; {len(comparison.unread)} layers not readable" if comparison.unread else ""
    pictures = f"{comparison.frames} pictures ({comparison.data})"
    axes.set_title(f"outputs: {outputs}; {pictures}{unread}", fontsize=10, loc="left")
    axes.set_ylabel("signal-to-noise ratio of the layer's output, dB")
    axes.axhline(0, color="0.4", linewidth=0.8)
    axes.grid(axis="y", alpha=0.3)
    axes.legend(loc="upper right", fontsize=9)
    low, high = axes.get_ylim()
    ticks = [tick for tick in _NOISE_TICKS_DB if low <= tick <= high]
    noise = axes.secondary_yaxis("right")
    noise.set_yticks(ticks, [f"{100 / 10 ** (tick / 10):g} %" for tick in ticks])
    noise.set_ylabel("noise power, of the signal's")
    assert axes.figure is not None
    axes.figure.suptitle(
        f"{comparison.bundle}: {comparison.compared} compared with {comparison.reference}, layer by layer",
        fontsize=13,
        fontweight="bold",
    )


def _name_layers(axes: Axes, names: list[str]) -> None:
    """Names below the axis; every second or third where there are many."""
    every = max(len(names) // _MOST_NAMES + 1, 1)
    shown = names[::every]
    axes.set_xticks(range(0, len(names), every), shown, rotation=90, fontsize=5 if len(shown) > 30 else 7)
    axes.set_xlim(-1, len(names))
