"""Decodes the logits of classifiers."""

from __future__ import annotations

import torch
from torch import Tensor


def decode_softmax(logits: Tensor) -> tuple[Tensor]:
    """Logits [batch, classes] → probabilities [batch, classes]."""
    return (torch.softmax(logits, dim=1),)
