"""The flags that say what a network is, shared by every verb that takes a MODEL."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from edgecnn.errors import SpecError

_PANEL = "What the network is"

Weights = Annotated[
    str | None,
    typer.Option(
        "--weights", help="A .pth or .safetensors file, or DEFAULT for the published ones.", rich_help_panel=_PANEL
    ),
]
Size = Annotated[str | None, typer.Option("--size", help="320, or WIDTHxHEIGHT as in 512x256.", rich_help_panel=_PANEL)]
TaskName = Annotated[
    str | None,
    typer.Option("--task", help="classify, detect, segment or instances.", rich_help_panel=_PANEL),
]
Head = Annotated[str | None, typer.Option("--head", help="How raw maps decode: yolox, ssd.", rich_help_panel=_PANEL)]
Labels = Annotated[Path | None, typer.Option("--labels", help="Class names, one a line.", rich_help_panel=_PANEL)]
FitName = Annotated[
    str | None, typer.Option("--fit", help="letterbox, stretch or centre-crop.", rich_help_panel=_PANEL)
]
Mean = Annotated[str | None, typer.Option("--mean", help="As in 0.485,0.456,0.406.", rich_help_panel=_PANEL)]
Std = Annotated[str | None, typer.Option("--std", help="As in 0.229,0.224,0.225.", rich_help_panel=_PANEL)]
Scale = Annotated[
    float | None,
    typer.Option("--scale", help="Factor on the 0..255 pixel, before mean and std.", rich_help_panel=_PANEL),
]
Color = Annotated[str | None, typer.Option("--color", help="rgb or bgr.", rich_help_panel=_PANEL)]

ReplaceActivations = Annotated[
    str | None,
    typer.Option(
        "--replace-activations",
        help="relu or relu6 instead of SiLU, hard-swish, …: for weights that were fine-tuned so.",
        rich_help_panel=_PANEL,
    ),
]


def model_options(
    *,
    weights: str | None,
    size: str | None,
    task: str | None,
    head: str | None,
    labels: Path | None,
    fit: str | None,
    mean: str | None,
    std: str | None,
    scale: float | None,
    color: str | None,
    replace_activations: str | None,
) -> dict[str, Any]:
    """The flags as `load_model` takes them; what was not given is left out.

    Raises:
        SpecError: a flag that cannot be read.
    """
    given = {
        "weights": weights,
        "size": None if size is None else parse_size(size),
        "task": task,
        "head": head,
        "labels": labels,
        "fit": _one_of("--fit", fit, ("letterbox", "stretch", "centre-crop")),
        "mean": _triple("--mean", mean),
        "std": _triple("--std", std),
        "scale": scale,
        "color": _one_of("--color", color, ("rgb", "bgr")),
        "replace_activations": replace_activations,
    }
    return {name: value for name, value in given.items() if value is not None}


def parse_size(text: str) -> tuple[int, int]:
    """(height, width) in px from "320" or "512x256" (width x height)."""
    parts = text.lower().split("x")
    if len(parts) not in (1, 2) or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise SpecError(f"--size must be as in 320 or 512x256 (width x height), got {text!r}")
    width, height = (int(parts[0]), int(parts[-1]))
    return height, width


def split_words(flag: str, text: str) -> list[str]:
    """The words of a list with commas."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise SpecError(f"{flag} is empty")
    return words


def _triple(flag: str, text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        values = tuple(float(word) for word in text.replace(",", " ").split())
    except ValueError as wrong:
        raise SpecError(f"{flag} must be three numbers as in 0.485,0.456,0.406, got {text!r}") from wrong
    if len(values) == 1:
        values *= 3
    if len(values) != 3:
        raise SpecError(f"{flag} must be one or three numbers, got {text!r}")
    return values


def _one_of(flag: str, text: str | None, words: tuple[str, ...]) -> str | None:
    if text is not None and text not in words:
        raise SpecError(f"{flag} must be one of {', '.join(words)}, got {text!r}")
    return text
