"""Layers as a picture: what each does to the answer in int8."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgecnn.bundle import Artifact, Manifest
from edgecnn.measure._figures import new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INT8_COLOUR, FLOAT_COLOUR = "#2c5d8a", "#e0a458"
_MOST_NAMES = 60  # that can be read below an axis


def plot_damage(manifest: Manifest, path: Path) -> None:
    """Each layer's damage when it alone is int8, in the network's order, one panel an artifact, as a picture.

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
        panels[0].text(0.5, 0.5, "no layer was measured alone: all are int8 within the bound", ha="center")
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
    every = max(len(shown) // _MOST_NAMES + 1, 1)
    axes.set_xticks(range(0, len(shown), every), [layer.name for layer in shown[::every]], rotation=90, fontsize=5)
    axes.set_xlim(-1, len(shown))
    axes.grid(axis="y", alpha=0.3)
