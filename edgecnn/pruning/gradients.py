"""Gradients of the training loss on labelled pictures, for the importance "taylor"."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from edgecnn.errors import DataError
from edgecnn.sources.model import TrainedModel
from edgecnn.sources.normalise import normalise
from edgecnn.training.examples import EpochOrder, TrainingPictures, collate
from edgecnn.training.objective import objective_of

BATCHES = 8  # enough to rank channels like a whole epoch: sums over all weights of a channel are compared


def drawn_batches(count: int, *, batch: int, seed: int) -> list[list[tuple[int, int]]]:
    """The first batches of a training run's first epoch, as (epoch, index) of `count` pictures."""
    return list(EpochOrder(count, batch, seed=seed, epoch=0))[:BATCHES]


def loss_gradients(
    model: TrainedModel, pictures: TrainingPictures, *, batch: int, seed: int
) -> Callable[[nn.Module], None]:
    """A function that runs a network forward and backward on some batches; gradients add up.

    The network runs in training mode, as its loss requires, but batch norms keep their statistics and dropout is off:
    the network to judge is the one that ships.

    Args:
        model: the network with the loss; its module is given later.
        pictures: not augmented.
        batch: frames in each of `BATCHES` batches.
        seed: seed for the choice of pictures.

    Raises:
        SpecError: a network without a loss here.
        DataError: from the function: a loss that is not finite.
    """
    objective = objective_of(model)
    batches = drawn_batches(len(pictures), batch=batch, seed=seed)

    def run(network: nn.Module) -> None:
        network.train()
        for part in network.modules():
            if isinstance(part, _BatchNorm | _DropoutNd):
                part.eval()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # for stochastic depth
            for keys in batches:
                frames, truths = collate([pictures[key] for key in keys])
                parts = objective(network(normalise(frames, model.frame)), truths)
                loss = torch.stack(list(parts.values())).sum()
                if not torch.isfinite(loss):
                    raise DataError(
                        f"the loss of {model.name} on the pictures for taylor is not finite ({float(loss)}), so "
                        "its gradients mean nothing: train the network first, or use another importance"
                    )
                loss.backward()  # type: ignore[no-untyped-call]

    return run
