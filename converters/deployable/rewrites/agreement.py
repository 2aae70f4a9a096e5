"""Checks whether a rewritten network still answers as the original does."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from edgecnn.frame import FrameFitter, FrameSpec
from edgecnn.measure.made_frames import made_frames
from edgecnn.photographs import photographs
from edgecnn.results import UInt8Array

# Relative. Rounding alone reaches 1e-5 in deep networks; a wrong rewrite differs by more than 1e-2.
_LIMIT = 1e-4


def shifted_frames(spec: FrameSpec) -> list[Tensor]:
    """Grey levels of a photograph minus the mean, and of the same photograph dark, bright and blank.

    In the network's colour order, float [1, 3, height, width] each; the original photograph is the first. A rewrite
    must also keep what the network does only with dark pictures.

    Noise is not used: a random EfficientNet-B4 with batch-norm statistics of photographs reacts so strongly to noise
        that one rounding changes its answer by 80 %.
    """
    frame, _ = FrameFitter(spec)(photographs()["astronaut"])
    frame = frame.copy()
    made = made_frames(frame)
    return [_shifted(each, spec) for each in (frame, made["dark"], made["bright"], made["blank"])]


def _shifted(frame: UInt8Array, spec: FrameSpec) -> Tensor:
    levels = torch.from_numpy(frame).permute(0, 3, 1, 2).float()
    levels = levels.flip(1) if spec.colour == "rgb" else levels
    return levels - torch.tensor(spec.mean).reshape(1, 3, 1, 1) / spec.scale


def answers_agree(
    network: nn.Module, frames: Sequence[Tensor], rewritten: nn.Module, rewritten_frames: Sequence[Tensor]
) -> bool:
    """Whether all tensors of the answers agree to 1e-4 of their largest value over all frames.

    Frames for which the original's answer is not finite (it divides by the contrast of a blank frame) are ignored.
    """
    with torch.no_grad():
        answers = [
            (_tensors(network(x)), _tensors(rewritten(other)))
            for x, other in zip(frames, rewritten_frames, strict=True)
        ]
    counting = [(b, a) for b, a in answers if b and all(bool(tensor.isfinite().all()) for tensor in b)]
    if not counting:
        return False
    largest = [
        max(float(tensor.abs().max()) for tensor in some) for some in zip(*(b for b, _ in counting), strict=True)
    ]
    return all(
        float((x - y).abs().max()) <= _LIMIT * size
        for b, a in counting
        for x, y, size in zip(a, b, largest, strict=True)
    )


def _tensors(answer: object) -> list[Tensor]:
    if isinstance(answer, Tensor):
        return [answer]
    parts = answer.values() if isinstance(answer, dict) else answer if isinstance(answer, tuple | list) else []
    return [tensor for part in parts for tensor in _tensors(part)]
