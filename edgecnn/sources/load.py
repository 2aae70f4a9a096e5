"""Loads a TrainedModel by name, or from a network object."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecnn.bundle.shipped import shipped_model
from edgecnn.errors import MissingDependencyError
from edgecnn.sources.model import ModelOptions, TrainedModel
from edgecnn.sources.own_code import allow, names_code
from edgecnn.sources.table import source_of

if TYPE_CHECKING:
    from torch import nn


def load_model(model: str | Path | TrainedModel | nn.Module, **options: Any) -> TrainedModel:
    """Load a network by name, or use a given one, and apply the user's options.

    Args:
        model: "torchvision:NAME", a name of our zoo, "default-detector" or "default-segmenter" (they ship with
            edgecnn), "package.module:factory", a NAME.model folder from training, a .pt2 file, or a name that
            another package's source accepts; a TrainedModel, or a torch module (with task, size and labels among the
            options).
        options: the fields of `ModelOptions`.

    A name counts as given by the user: names from files must pass `own_code.check_allowed` first.

    Raises:
        UnknownNameError: no such network.
        SourceError, WeightsError: it cannot be loaded.
        SpecError: the options contradict each other or the network.
        MissingDependencyError: torch is not installed.
    """
    wanted = ModelOptions(**options)
    if isinstance(model, Path):
        model = str(model)
    for word in (wanted.factory, model if isinstance(model, str) else None):
        if word is not None and names_code(word):
            allow(word)
    try:
        import torch  # noqa: F401 - every source needs it, and the message names the extra
    except ModuleNotFoundError as missing:
        raise MissingDependencyError("loading a network", "torch", extra="convert") from missing
    loaded: TrainedModel
    if isinstance(model, str):
        model = str(shipped_model(model) or model)
        kind = source_of(model)
        loaded = kind.load(model, wanted)
        if kind.rebuilds:
            from edgecnn.sources.blueprint import Blueprint

            size = (loaded.frame.height_px, loaded.frame.width_px)
            blueprint = Blueprint(
                model=model,
                labels=loaded.task.labels,
                size=size,
                task=wanted.task or "",
                decode=wanted.head or "",
            )
            loaded = replace(loaded, blueprint=blueprint)
    else:
        from edgecnn.sources import module as source

        loaded = source.adopt(model, wanted)
    if wanted.replace_activations is None:
        return loaded
    from edgecnn.sources.activations import replace_activations

    return replace_activations(loaded, wanted.replace_activations)
