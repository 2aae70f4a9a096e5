"""Tells two networks apart by their weights."""

from __future__ import annotations

import hashlib

import numpy as np

from edgecnn.sources import TrainedModel


def weights_digest(model: TrainedModel) -> hashlib._Hash:
    """SHA-256 of all tensors of a network and their names, with more to be added."""
    digest = hashlib.sha256()
    for name, tensor in model.module.state_dict().items():
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(tensor.detach().cpu().numpy()).tobytes())
    return digest
