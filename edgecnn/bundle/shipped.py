"""The networks that ship with edgecnn, and their names as MODEL or BUNDLE."""

from __future__ import annotations

from pathlib import Path

ASSETS = Path(__file__).parents[1] / "assets"
DETECTOR, SEGMENTER = "default-detector", "default-segmenter"
DEFAULTS = (DETECTOR, SEGMENTER)


def shipped_model(name: str) -> Path | None:
    """The NAME.model folder that a name selects; None for any other name."""
    return ASSETS / f"{_stem(name)}.model" if name in DEFAULTS else None


def shipped_bundle(name: str | Path) -> Path | None:
    """The NAME.edge folder that a name selects; None for any other, and where a file or folder of that name exists."""
    word = str(name)
    return ASSETS / f"{_stem(word)}.edge" if word in DEFAULTS and not Path(word).exists() else None


def is_shipped(folder: Path) -> bool:
    """Whether a folder belongs to the installed edgecnn, so that it must not be written to."""
    return folder.resolve().parent == ASSETS.resolve()


def _stem(name: str) -> str:
    return name.removeprefix("default-")
