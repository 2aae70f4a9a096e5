"""An exported program: a .pt2 file, as torch.export.save writes it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from edgecnn.bundle import SourceRecord, sha256_of
from edgecnn.errors import SourceError, SpecError
from edgecnn.sources import ModelOptions, TrainedModel
from edgecnn.sources.module import adopt


def load(model: str, options: ModelOptions) -> TrainedModel:
    """Load an exported program whose one input is float32 [batch, 3, height, width].

    Raises:
        SourceError: absent, damaged, or with another kind of input.
        SpecError: --size differs from the size it was exported for, or --weights was given.
    """
    path = Path(model)
    if not path.is_file():
        raise SourceError(f"there is no file {path}")
    if options.weights is not None:
        raise SpecError(f"{path} brings its own weights: leave --weights out")
    try:
        program = torch.export.load(path)
    except Exception as failed:
        raise SourceError(f"{path} is truncated or not an exported program (.pt2): {failed}") from failed
    inputs = [
        node.meta["val"]
        for node in program.graph.nodes
        if node.op == "placeholder" and node.name in program.graph_signature.user_inputs
    ]
    if len(inputs) != 1 or inputs[0].dim() != 4 or inputs[0].shape[1] != 3:
        found = ", ".join(str(list(value.shape)) for value in inputs)
        raise SourceError(f"{path} must take one float32 [batch, 3, height, width] tensor, it takes {found}")
    height, width = inputs[0].shape[2:]
    if isinstance(height, int) and isinstance(width, int):
        if options.size not in (None, (height, width)):
            raise SpecError(f"{path} was exported for {width}x{height} px: leave --size out, or export it again")
        options = replace(options, size=(height, width))
    loaded = adopt(program.module(), options, model=path.name)
    source = SourceRecord(model=path.name, weights=path.name, weights_sha256=sha256_of(path))
    return replace(loaded, name=path.stem, source=source)
