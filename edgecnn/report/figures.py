"""Plots with matplotlib without a window system; files are written completely or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecnn.errors import MissingDependencyError, SpecError, StorageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SUFFIXES = (".png", ".pdf", ".svg")


def check_plotting(path: Path) -> None:
    """Check that a figure can be written there, before long work.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        SpecError: the suffix is not a picture's.
    """
    if path.suffix.lower() not in _SUFFIXES:
        raise SpecError(f"expected a plot file with the suffix {', '.join(_SUFFIXES)}, got {path.name!r}")
    import_matplotlib()


def new_figure(width_inches: float, height_inches: float) -> Figure:
    """An empty figure."""
    import_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # Not pyplot: it would select a window system and keep the figure.
    figure = Figure(figsize=(width_inches, height_inches), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure.

    Raises:
        StorageError: `path` is not writable.
    """
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    try:
        figure.savefig(partial, dpi=130)
        os.replace(partial, path)
    except OSError as failed:
        raise StorageError(f"{path} is not writable: {failed.strerror}") from failed
    finally:
        partial.unlink(missing_ok=True)


def import_matplotlib() -> Any:
    """The package.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        import matplotlib
    except ModuleNotFoundError as missing:
        raise MissingDependencyError("--plot", "matplotlib", extra="eval") from missing
    return matplotlib
