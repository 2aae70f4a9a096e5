"""A hash of a network's weights."""

from __future__ import annotations

import hashlib

import numpy as np

from edgecnn.sources.model import TrainedModel


def weights_digest(model: TrainedModel) -> hashlib._Hash:
    """SHA-256 of all tensors of a network and their names; more can be added to it."""
    digest = hashlib.sha256()
    for name, tensor in model.module.state_dict().items():
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(tensor.detach().cpu().numpy()).tobytes())
    return digest
