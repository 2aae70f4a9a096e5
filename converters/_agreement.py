"""Whether a network that was rewritten still answers as the original does."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgecnn._photographs import photographs
from edgecnn.frame import FrameFitter, FrameSpec

# Relative. Rounding alone reaches 1e-5 in deep networks; a wrong rewriting is off by more than 1e-2.
_LIMIT = 1e-4


def shifted_photograph(spec: FrameSpec) -> Tensor:
    """Grey levels of a photograph less the mean, in the network's order of colours, float [1, 3, height, width].

    Noise would not do: a random EfficientNet-B4 whose batch normalisations know photographs answers noise so wildly
    that one rounding of it changes the answer by 80 %.
    """
    frame, _ = FrameFitter(spec)(photographs()["astronaut"])
    levels = torch.from_numpy(frame.copy()).permute(0, 3, 1, 2).float()
    levels = levels.flip(1) if spec.colour == "rgb" else levels
    return levels - torch.tensor(spec.mean).reshape(1, 3, 1, 1) / spec.scale


def answer_alike(network: nn.Module, x: Tensor, rewritten: nn.Module, rewritten_x: Tensor) -> bool:
    """Whether all tensors of the two answers agree to 1e-4 of their largest value."""
    with torch.no_grad():
        expected, found = _tensors(network(x)), _tensors(rewritten(rewritten_x))
    return bool(expected) and all(
        float((a - b).abs().max()) <= _LIMIT * float(b.abs().max()) for a, b in zip(found, expected, strict=True)
    )


def _tensors(answer: object) -> list[Tensor]:
    if isinstance(answer, Tensor):
        return [answer]
    parts = answer.values() if isinstance(answer, dict) else answer if isinstance(answer, tuple | list) else []
    return [tensor for part in parts for tensor in _tensors(part)]
