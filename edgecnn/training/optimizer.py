"""Optimizer and learning-rate schedule, from the settings."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from edgecnn.training.settings import TrainSettings

_LAST_SHARE = 0.01  # of the learning rate, at the end of a cosine schedule
_STEPS = ((0.6, 0.1), (0.85, 0.01))


def new_optimizer(network: nn.Module, settings: TrainSettings) -> Optimizer:
    """One of torch's optimizers for the trained parameters; biases and norms have no weight decay."""
    decayed = penalised(network)
    known = {id(weight) for weight in decayed}
    others = [p for p in network.parameters() if p.requires_grad and id(p) not in known]
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": others, "weight_decay": 0.0}]
    rate, momentum = settings.learning_rate, settings.momentum
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=rate, momentum=momentum, nesterov=momentum > 0)
    if settings.optimizer == "rmsprop":
        return torch.optim.RMSprop(groups, lr=rate, momentum=momentum)
    return (torch.optim.Adam if settings.optimizer == "adam" else torch.optim.AdamW)(groups, lr=rate)


def penalised(network: nn.Module) -> list[Tensor]:
    """The trained weights of convolutions and matrix products."""
    return [p for p in network.parameters() if p.requires_grad and p.ndim > 1]


def learning_rate_factor(settings: TrainSettings, steps_an_epoch: int) -> Callable[[int], float]:
    """Step → factor on the highest learning rate."""
    total = settings.epochs * steps_an_epoch
    warm = min(settings.warmup_epochs * steps_an_epoch, total / 2)

    def factor(step: int) -> float:
        if step < warm:
            return (step + 1) / (warm + 1)
        done = min((step - warm) / max(total - warm, 1), 1.0)
        if settings.schedule == "cosine":
            return _LAST_SHARE + (1 - _LAST_SHARE) * (1 + math.cos(math.pi * done)) / 2
        if settings.schedule == "step":
            return next((share for start, share in reversed(_STEPS) if done >= start), 1.0)
        return 1.0

    return factor
