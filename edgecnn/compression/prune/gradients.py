"""Gradients of the training loss on labelled pictures: what the importance "taylor" looks at."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from edgecnn.compression.train.objective import objective_of
from edgecnn.compression.train.pictures import EpochOrder, TrainingPictures, collate
from edgecnn.errors import DataError
from edgecnn.sources import TrainedModel
from edgecnn.sources.normalise import normalise

BATCHES = 8  # so few rank channels as a whole epoch does: what is compared are sums over all weights of a channel


def drawn_batches(count: int, *, batch: int, seed: int) -> list[list[tuple[int, int]]]:
    """The first batches of a training's first epoch, as (epoch, index) of `count` pictures."""
    return list(EpochOrder(count, batch, seed=seed, epoch=0))[:BATCHES]


def loss_gradients(
    model: TrainedModel, pictures: TrainingPictures, *, batch: int, seed: int
) -> Callable[[nn.Module], None]:
    """A function that runs a network on some batches, and backward; gradients add up.

    The network answers in training mode, as its loss wants it, but norms keep their statistics and nothing is dropped:
    what is judged is the network that ships.

    Args:
        model: whose loss it is; the module is given later.
        pictures: not augmented.
        batch: frames of each of `BATCHES` batches.
        seed: of the choice of pictures.

    Raises:
        SpecError: a network that has no loss of ours.
        DataError: from the function: a loss that is no number.
    """
    objective = objective_of(model)
    batches = drawn_batches(len(pictures), batch=batch, seed=seed)

    def run(network: nn.Module) -> None:
        network.train()
        for part in network.modules():
            if isinstance(part, _BatchNorm | _DropoutNd):
                part.eval()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # of stochastic depth
            for keys in batches:
                frames, targets = collate([pictures[key] for key in keys])
                parts = objective(network(normalise(frames, model.frame)), targets)
                loss = torch.stack(list(parts.values())).sum()
                if not torch.isfinite(loss):
                    raise DataError(
                        f"the loss of {model.name} on the pictures given for taylor is no number ({float(loss)}), so "
                        "its gradients say nothing: train the network first, or take another importance"
                    )
                loss.backward()  # type: ignore[no-untyped-call]

    return run
