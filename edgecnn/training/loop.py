"""The training loop: Lightning's, with our own decisions. A stop between two epochs changes nothing."""

from __future__ import annotations

import copy
import math
import os
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Collection
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

from edgecnn.errors import SourceError, TrainingError
from edgecnn.sources.model import TrainedModel
from edgecnn.sources.normalise import normalise
from edgecnn.training.distill import Distiller
from edgecnn.training.examples import EpochOrder, TrainingPictures, collate
from edgecnn.training.objective import Objective, detach_parts, guide_of
from edgecnn.training.optimizer import learning_rate_factor, new_optimizer, penalised
from edgecnn.training.quiet_lightning import quiet_lightning
from edgecnn.training.settings import TrainSettings

Progress = Callable[[int, int, str], None]
Row = dict[str, float]


@dataclass(frozen=True)
class Fitted:
    """The result of a training run.

    Attributes:
        model: the network of the best epoch.
        history: a row for each epoch: epoch, learning_rate, seconds, parts of the loss, and the metric where measured.
        best_epoch: counted from 1.
        best_metric: metric of that epoch.
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
        model: not changed.
        pictures: training pictures.
        objective: the loss.
        settings: how to train.
        evaluate: returns a network's metric on validation pictures.
        distiller: a teacher's part of the loss.
        frozen: names of parameters that are not trained.
        checkpoint: a file; written after each epoch, continued from if it exists.
        about: identifies the training run; a checkpoint of another run is not continued.
        progress: called with (steps done, steps in all, name of the step).

    Raises:
        TrainingError: the loss is not finite, memory ran out, or the checkpoint belongs to another run.
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
    except SystemExit as ended:  # Lightning's reaction to Ctrl-C
        signal.signal(signal.SIGINT, interrupts)
        raise KeyboardInterrupt from ended
    except (RuntimeError, MemoryError) as failed:
        if "allocate" not in str(failed) and "out of memory" not in str(failed) and not isinstance(failed, MemoryError):
            raise
        raise TrainingError(
            f"memory ran out with {settings.batch} frames per step: use a smaller batch, or a smaller size"
        ) from failed
    return module.fitted()


class _Fitting(LightningModule):
    """The module that Lightning trains."""

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
        self.guide = guide_of(model) if distiller is None or settings.distillation.labels else None
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
        if "jax" in sys.modules:  # imported by the TFLite converter; its threads don't survive the fork of a worker
            workers = 0
        return DataLoader(self._pictures, batch_sampler=order, collate_fn=collate, num_workers=workers)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        frames, truths = batch
        return frames.to(device), [truth.to(device) for truth in truths]

    def configure_optimizers(self) -> Any:
        steps_an_epoch = len(EpochOrder(len(self._pictures), self._settings.batch, seed=0, epoch=0))
        trained = self.network if self.guide is None else nn.ModuleList([self.network, self.guide])
        optimizer = new_optimizer(trained, self._settings)
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
        self.network.train()  # it is in evaluation mode, and Lightning does not change modes
        _freeze_norms(self.network, self._frozen, all_of_them=self._settings.freeze_norms)
        if self.guide is not None:
            self.guide.train()
            self.guide.begin_epoch(self.current_epoch, self._settings.epochs)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        torch.manual_seed(self._settings.seed * 1_000_003 + self.global_step)  # dropout: the same after a restart
        frames, truths = batch
        x = normalise(frames, self._model.frame).to(memory_format=torch.channels_last)
        with ExitStack() as watching:
            for helper in (self._distiller, self.guide):
                if helper is not None:
                    watching.enter_context(helper.watching(self.network))
            answer = self.network(x)
        parts = {} if self._distiller is None else self._distiller(frames, answer)
        factor = 1.0 if self._distiller is None else self._settings.distillation.labels
        if factor:
            on_labels = self._objective(answer if self.guide is None else self.guide(answer), truths)
            parts = {**{name: factor * value for name, value in on_labels.items()}, **parts}
        if self._settings.l1:
            weights = penalised(self.network)
            parts = {**parts, "l1": self._settings.l1 * torch.stack([w.abs().sum() for w in weights]).sum()}
        loss = torch.stack(list(parts.values())).sum()
        if not torch.isfinite(loss):
            found = ", ".join(f"{name} {value:g}" for name, value in detach_parts(parts).items())
            raise TrainingError(
                f"the loss is not finite in epoch {self.current_epoch + 1}, step {batch_idx + 1} ({found}): "
                "use a lower learning rate, or a longer warm-up; check the labels"
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
            partial = self._checkpoint.with_suffix(".partial")
            self.trainer.save_checkpoint(partial)
            os.replace(partial, self._checkpoint)

    def _measure(self, epoch: int) -> float:
        if self._progress is not None:
            total = int(self.trainer.estimated_stepping_batches)
            self._progress(self.global_step, total, self._what("measuring"))
        counted = self._counted()
        try:
            metric = self._evaluate(replace(self._model, module=counted))
        except SourceError as broken:  # the answer's form was right before
            raise TrainingError(
                f"the network's answers are not finite after epoch {epoch}: use a lower learning rate, or a "
                "longer warm-up"
            ) from broken
        if metric > self._best_metric:
            self._best_epoch, self._best_metric = epoch, metric
            self._best = {name: tensor.clone() for name, tensor in counted.state_dict().items()}
        return metric

    def _counted(self) -> nn.Module:
        """A copy of the network to evaluate: the moving average, if there is one."""
        network: nn.Module = self.average.module if self._settings.ema_decay else self.network
        return copy.deepcopy(network).to(memory_format=torch.contiguous_format).eval()

    def _what(self, doing: str) -> str:
        best = f", best {self._best_metric:.4f}" if self._best_epoch else ""
        return f"epoch {self.current_epoch + 1} of {self._settings.epochs}: {doing}{best}"

    # Continuing after a stop

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
                f"{self._checkpoint} belongs to a training with another network, other data or settings: continue with "
                "the same options, or remove it to start again"
            )
        self._history, self._best = kept["history"], kept["best"]
        self._best_epoch, self._best_metric = kept["best_epoch"], kept["best_metric"]
        self._stopped_early = kept["stopped_early"]

    def fitted(self) -> Fitted:
        """The result.

        Raises:
            TrainingError: the metric was never finite.
        """
        if not self._best:
            raise TrainingError("the metric was not finite after any epoch: the network answers NaN")
        module = copy.deepcopy(self._model.module)
        module.load_state_dict(self._best)
        model = replace(self._model, module=module.eval())
        return Fitted(model, self._history, self._best_epoch, self._best_metric, self._stopped_early)


def _set_dropout(network: nn.Module, rate: float | None) -> None:
    for module in network.modules():
        if rate is not None and isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = rate


def _freeze_norms(network: nn.Module, frozen: frozenset[str], *, all_of_them: bool) -> None:
    """Norms whose weights are frozen keep their statistics too."""
    for name, module in network.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and (all_of_them or f"{name}.weight" in frozen):
            module.eval()


def _moving(decay: float) -> Callable[[Tensor, Tensor, Tensor | int], Tensor]:
    """The update of the moving average; it follows closely at first, otherwise the random start would remain for long.

    Source: TensorFlow's ExponentialMovingAverage with num_updates.
    """

    def step(average: Tensor, current: Tensor, count: Tensor | int) -> Tensor:
        kept = min(decay, (1 + float(count)) / (10 + float(count)))
        return average * kept + current * (1 - kept) if average.is_floating_point() else current

    return step
