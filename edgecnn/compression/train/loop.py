"""The training loop: Lightning's, with what counts decided here. A stop between two epochs changes nothing."""

from __future__ import annotations

import copy
import math
import os
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

from edgecnn.compression.train.distill import Distiller
from edgecnn.compression.train.objective import Objective, detach_parts
from edgecnn.compression.train.optimizer import learning_rate_factor, new_optimizer, penalised
from edgecnn.compression.train.pictures import EpochOrder, TrainingPictures, collate
from edgecnn.compression.train.quiet_lightning import quiet_lightning
from edgecnn.compression.train.settings import TrainSettings
from edgecnn.errors import SourceError, TrainingError
from edgecnn.sources import TrainedModel
from edgecnn.sources.normalise import normalise

Progress = Callable[[int, int, str], None]
Row = dict[str, float]


@dataclass(frozen=True)
class Fitted:
    """How a training ended.

    Attributes:
        model: the network of the best epoch.
        history: a row for each epoch: epoch, learning_rate, seconds, parts of the loss, and the metric where measured.
        best_epoch: counted from 1.
        best_metric: of that epoch.
        stopped_early: whether it ended because the metric no longer rose.
    """

    model: TrainedModel
    history: list[Row]
    best_epoch: int
    best_metric: float
    stopped_early: bool


def fit(
    model: TrainedModel,
    pictures: TrainingPictures,
    objective: Objective,
    settings: TrainSettings,
    *,
    evaluate: Callable[[TrainedModel], float],
    distiller: Distiller | None = None,
    frozen: Collection[str] = (),
    checkpoint: Path | None = None,
    about: str = "",
    progress: Progress | None = None,
) -> Fitted:
    """Train a copy of a network, and keep the epoch with the best metric.

    Args:
        model: is not changed.
        pictures: to learn from.
        objective: the loss.
        settings: how.
        evaluate: the metric of a network, on pictures that it doesn't learn from.
        distiller: what a teacher adds to the loss.
        frozen: names of parameters that stay.
        checkpoint: a file; written after each epoch, taken up where it is there.
        about: what the training is of; a checkpoint about something else is not taken up.
        progress: called with (steps done, steps in all, what is being done).

    Raises:
        TrainingError: the loss is no longer a number, memory ran out, or the checkpoint is of another training.
    """
    module = _Fitting(model, pictures, objective, settings, evaluate, distiller, frozen, checkpoint, about, progress)
    resumed = checkpoint if checkpoint is not None and checkpoint.exists() else None
    interrupts = signal.getsignal(signal.SIGINT)
    try:
        with quiet_lightning():
            trainer = Trainer(
                accelerator="auto",
                devices=1,
                max_epochs=settings.epochs,
                gradient_clip_val=settings.clip_gradient_norm or None,
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                num_sanity_val_steps=0,
                reload_dataloaders_every_n_epochs=1,
            )
            trainer.fit(module, ckpt_path=resumed, weights_only=True)
    except SystemExit as ended:  # Lightning's answer to Ctrl-C
        signal.signal(signal.SIGINT, interrupts)
        raise KeyboardInterrupt from ended
    except (RuntimeError, MemoryError) as failed:
        if "allocate" not in str(failed) and "out of memory" not in str(failed) and not isinstance(failed, MemoryError):
            raise
        raise TrainingError(
            f"memory ran out with {settings.batch} frames a step: take a smaller batch, or a smaller size"
        ) from failed
    return module.fitted()


class _Fitting(LightningModule):
    """What Lightning trains."""

    def __init__(
        self,
        model: TrainedModel,
        pictures: TrainingPictures,
        objective: Objective,
        settings: TrainSettings,
        evaluate: Callable[[TrainedModel], float],
        distiller: Distiller | None,
        frozen: Collection[str],
        checkpoint: Path | None,
        about: str,
        progress: Progress | None,
    ) -> None:
        super().__init__()
        self.network = copy.deepcopy(model.module).to(memory_format=torch.channels_last)  # twice as fast on a CPU
        _set_dropout(self.network, settings.dropout)
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad_(name not in frozen)
        self.average = AveragedModel(self.network, avg_fn=_moving(settings.ema_decay), use_buffers=True)
        self.average.requires_grad_(False)
        self._model, self._pictures, self._objective, self._settings = model, pictures, objective, settings
        self._evaluate, self._distiller, self._frozen = evaluate, distiller, frozenset(frozen)
        self._checkpoint, self._about, self._progress = checkpoint, about, progress
        self._history: list[Row] = []
        self._best: dict[str, Tensor] = {}
        self._best_epoch, self._best_metric = 0, -math.inf
        self._stopped_early = False
        self._parts: defaultdict[str, float] = defaultdict(float)
        self._started = time.monotonic()

    # Data and optimizer

    def train_dataloader(self) -> Any:
        settings = self._settings
        order = EpochOrder(len(self._pictures), settings.batch, seed=settings.seed, epoch=self.current_epoch)
        workers = settings.workers if settings.workers is not None else min((os.cpu_count() or 1) - 1, 1)
        if "jax" in sys.modules:  # converting to TFLite brings it; its threads don't survive the fork of a worker
            workers = 0
        return DataLoader(self._pictures, batch_sampler=order, collate_fn=collate, num_workers=workers)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        frames, targets = batch
        return frames.to(device), [target.to(device) for target in targets]

    def configure_optimizers(self) -> Any:
        steps_an_epoch = len(EpochOrder(len(self._pictures), self._settings.batch, seed=0, epoch=0))
        optimizer = new_optimizer(self.network, self._settings)
        factor = learning_rate_factor(self._settings, steps_an_epoch)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    # One epoch

    def on_train_start(self) -> None:
        if self._stopped_early:  # killed after its last epoch, before the result was written
            self.trainer.should_stop = True

    def on_train_epoch_start(self) -> None:
        self._parts.clear()
        self._started = time.monotonic()
        self.network.train()  # it comes in evaluation mode, and Lightning leaves modes as they are
        _freeze_norms(self.network, self._frozen, all_of_them=self._settings.freeze_norms)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        torch.manual_seed(self._settings.seed * 1_000_003 + self.global_step)  # dropout: the same after a resume
        frames, targets = batch
        x = normalise(frames, self._model.frame).to(memory_format=torch.channels_last)
        if self._distiller is None:
            parts = self._objective(self.network(x), targets)
        else:
            with self._distiller.watching(self.network):
                answer = self.network(x)
            parts = self._distiller(frames, answer)
            if factor := self._settings.distillation.labels:
                on_labels = self._objective(answer, targets)
                parts = {**{name: factor * value for name, value in on_labels.items()}, **parts}
        if self._settings.l1:
            weights = penalised(self.network)
            parts = {**parts, "l1": self._settings.l1 * torch.stack([w.abs().sum() for w in weights]).sum()}
        loss = torch.stack(list(parts.values())).sum()
        if not torch.isfinite(loss):
            found = ", ".join(f"{name} {value:g}" for name, value in detach_parts(parts).items())
            raise TrainingError(
                f"the loss is no longer a number in epoch {self.current_epoch + 1}, step {batch_idx + 1} ({found}): "
                "take a lower learning rate, or a longer warm-up; look for labels that cannot be"
            )
        for name, value in detach_parts(parts).items():
            self._parts[name] += value
        if self._progress is not None:
            total = int(self.trainer.estimated_stepping_batches)
            self._progress(self.global_step, total, self._what(f"loss {float(loss.detach()):.3f}"))
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.average.update_parameters(self.network)

    def on_train_epoch_end(self) -> None:
        settings, epoch = self._settings, self.current_epoch + 1
        steps = len(self.trainer.train_dataloader or ())
        row: Row = {"epoch": epoch, "learning_rate": self.trainer.optimizers[0].param_groups[0]["lr"]}
        row |= {f"{name}_loss": total / steps for name, total in self._parts.items()}
        if epoch % settings.evaluate_every == 0 or epoch == settings.epochs:
            row["metric"] = self._measure(epoch)
        row["seconds"] = round(time.monotonic() - self._started, 2)
        self._history.append(row)
        patience = settings.early_stop_epochs
        if patience is not None and epoch - self._best_epoch >= patience and self._best_epoch:
            self._stopped_early = self.trainer.should_stop = True
        if self._checkpoint is not None:
            beside = self._checkpoint.with_suffix(".partial")
            self.trainer.save_checkpoint(beside)
            os.replace(beside, self._checkpoint)

    def _measure(self, epoch: int) -> float:
        if self._progress is not None:
            total = int(self.trainer.estimated_stepping_batches)
            self._progress(self.global_step, total, self._what("measuring"))
        counted = self._counted()
        try:
            metric = self._evaluate(replace(self._model, module=counted))
        except SourceError as broken:  # its form was right before
            raise TrainingError(
                f"the network's answers are no longer numbers after epoch {epoch}: take a lower learning rate, or a "
                "longer warm-up"
            ) from broken
        if metric > self._best_metric:
            self._best_epoch, self._best_metric = epoch, metric
            self._best = {name: tensor.clone() for name, tensor in counted.state_dict().items()}
        return metric

    def _counted(self) -> nn.Module:
        """A copy of the network that counts: the average, if there is one."""
        network: nn.Module = self.average.module if self._settings.ema_decay else self.network
        return copy.deepcopy(network).to(memory_format=torch.contiguous_format).eval()

    def _what(self, doing: str) -> str:
        best = f", best {self._best_metric:.4f}" if self._best_epoch else ""
        return f"epoch {self.current_epoch + 1} of {self._settings.epochs}: {doing}{best}"

    # Going on after a stop

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["edgecnn"] = {
            "about": self._about,
            "history": self._history,
            "best": self._best,
            "best_epoch": self._best_epoch,
            "best_metric": self._best_metric,
            "stopped_early": self._stopped_early,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        kept = checkpoint["edgecnn"]
        if kept["about"] != self._about:
            raise TrainingError(
                f"{self._checkpoint} is of a training with another network, other data or settings: go on with the "
                "same words, or remove it to begin anew"
            )
        self._history, self._best = kept["history"], kept["best"]
        self._best_epoch, self._best_metric = kept["best_epoch"], kept["best_metric"]
        self._stopped_early = kept["stopped_early"]

    def fitted(self) -> Fitted:
        """The result.

        Raises:
            TrainingError: the metric was never a number.
        """
        if not self._best:
            raise TrainingError("the metric was not a number after any epoch: the network answers NaN")
        module = copy.deepcopy(self._model.module)
        module.load_state_dict(self._best)
        model = replace(self._model, module=module.eval())
        return Fitted(model, self._history, self._best_epoch, self._best_metric, self._stopped_early)


def _set_dropout(network: nn.Module, rate: float | None) -> None:
    for module in network.modules():
        if rate is not None and isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = rate


def _freeze_norms(network: nn.Module, frozen: frozenset[str], *, all_of_them: bool) -> None:
    """Norms whose weights stay keep their statistics, too."""
    for name, module in network.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and (all_of_them or f"{name}.weight" in frozen):
            module.eval()


def _moving(decay: float) -> Callable[[Tensor, Tensor, Tensor | int], Tensor]:
    """The average's step; it follows closely at first, or the random start would stay in it for long.

    Source: TensorFlow's ExponentialMovingAverage with num_updates.
    """

    def step(average: Tensor, current: Tensor, count: Tensor | int) -> Tensor:
        kept = min(decay, (1 + float(count)) / (10 + float(count)))
        return average * kept + current * (1 - kept) if average.is_floating_point() else current

    return step
