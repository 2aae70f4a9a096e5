"""Makes a network narrower as the user's words say, and notes what was done to it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgecnn.datasets import Dataset
from edgecnn.datasets.images import picture_hash
from edgecnn.errors import SpecError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgecnn.compression.prune.channels import PruneSettings
    from edgecnn.compression.prune.latency import Measure
    from edgecnn.sources import TrainedModel

Target = Literal["macs", "parameters", "latency"]


@dataclass(frozen=True, kw_only=True)
class LabelledPictures:
    """What pruning looks at: gradients for the importance "taylor", and what batch norms read.

    Attributes:
        dataset: opened for the network's task and labels.
        batch, seed: see `edgecnn.compression.prune.gradients.loss_gradients`.
    """

    dataset: Dataset
    batch: int
    seed: int

    def gradients_of(self, model: TrainedModel) -> Callable[[nn.Module], None]:
        """Runs a network like this one on them, and backward."""
        from edgecnn.compression.prune.gradients import loss_gradients
        from edgecnn.compression.train.pictures import TrainingPictures
        from edgecnn.compression.train.settings import NO_AUGMENTATION

        pictures = TrainingPictures(self.dataset, model.frame, NO_AUGMENTATION, seed=self.seed, mosaic_until=0)
        return loss_gradients(model, pictures, batch=self.batch, seed=self.seed)

    def frames_of(self, model: TrainedModel) -> Tensor:
        """Some of them as the network takes them, float32 [batch, 3, height, width], normalised."""
        import torch

        from edgecnn.compression.prune.norms import frames_wanted
        from edgecnn.frame import FrameFitter
        from edgecnn.sources.normalise import normalise

        chosen = self._indices[: frames_wanted(model.frame.height_px, model.frame.width_px)]
        fit = FrameFitter(model.frame)
        frames = [torch.from_numpy(fit(self.dataset[index].image())[0].copy()) for index in chosen]
        return normalise(torch.cat(frames), model.frame)

    @property
    def images(self) -> tuple[str, ...]:
        """Content hashes of the pictures that are looked at."""
        return tuple(picture_hash(self.dataset[index].image()) for index in self._indices)

    @property
    def _indices(self) -> list[int]:
        from edgecnn.compression.prune.gradients import drawn_batches

        batches = drawn_batches(len(self.dataset), batch=self.batch, seed=self.seed)
        return [index for keys in batches for _, index in keys]

    @property
    def words(self) -> dict[str, Any]:
        """For the record."""
        return {"data": Path(self.dataset.path).name, "batch": self.batch, "seed": self.seed}


@dataclass(frozen=True, kw_only=True)
class Narrowing:
    """How networks are made narrower.

    Attributes:
        unpruned: what shares are of.
        target: what they are shares of.
        settings: what goes first, and what stays.
        pictures: to look at; None where there are none.
        of: the artifact whose latency is the target, "openvino:fp32"; "" for other targets.
        measure: times it; None for other targets.
    """

    unpruned: TrainedModel
    target: Target
    settings: PruneSettings
    pictures: LabelledPictures | None = None
    of: str = ""
    measure: Measure | None = None

    def is_enough(self, model: TrainedModel, *, share: float, latency_share: float = 1.0) -> bool:
        """Whether a network costs no more than this share already."""
        from edgecnn.compression.prune.channels import cost_of

        if self.target == "latency":
            return latency_share <= share
        return cost_of(model, self.target) <= share * cost_of(self.unpruned, self.target)

    def narrow(self, model: TrainedModel, *, share: float, latency_share: float = 1.0) -> TrainedModel:
        """A narrower copy, with a stage that says how, and how much is left.

        Args:
            model: the unpruned network, or what was made of it.
            share: of what the unpruned one costs, that may be left; less than `model` costs.
            latency_share: what `model` takes of the unpruned latency; looked at where that is the target.

        Raises:
            SpecError, UnknownNameError, SourceError: as `prune_to_share` and `prune_to_latency`.
            ConversionError, DeviceError: it cannot be timed.
        """
        from edgecnn.compression.prune.channels import cost_of, prune_to_share
        from edgecnn.compression.prune.latency import latency_figures, prune_to_latency
        from edgecnn.evidence import Stage

        how: dict[str, Any] = {"settings": self.settings}
        if self.pictures is not None:
            how["frames"] = self.pictures.frames_of(model)
            if self.settings.importance == "taylor":
                how["gradients"] = self.pictures.gradients_of(model)
        figures: dict[str, Any] = {}
        if self.target == "latency":
            assert self.measure is not None
            reached = prune_to_latency(
                model, share=share, beside=self.unpruned, measure=self.measure, latency_share=latency_share, **how
            )
            pruned, figures["latency"] = reached.model, latency_figures(reached, of=self.of, share=share)
        else:
            left = share * cost_of(self.unpruned, self.target) / cost_of(model, self.target)
            pruned = prune_to_share(model, share=left, target=self.target, **how)
        macs, parameters = multiply_adds(pruned), parameter_count(pruned)
        stage = Stage(
            what="prune",
            settings={
                "share": share,
                "target": self.target,
                **dataclasses.asdict(self.settings),
                **({} if self.pictures is None else self.pictures.words),
            },
            figures={"macs": macs, "macs_before": multiply_adds(model), "parameters": parameters, **figures},
            images=() if self.pictures is None else self.pictures.images,
        )
        return dataclasses.replace(pruned, stages=(*model.stages, stage))


def check_same_classes(model: TrainedModel, labels: Sequence[str], data: str | Path) -> None:
    """That pictures are labelled with the network's own classes.

    Raises:
        SpecError: they are not.
    """
    if tuple(labels) != model.task.labels:
        raise SpecError(
            f"{data} has {len(labels)} classes ({', '.join(labels[:3])}, …), {model.name} has {len(model.task.labels)} "
            f"({', '.join(model.task.labels[:3])}, …): train it for the data's classes first (edgecnn train), then "
            "prune what that gives"
        )


def multiply_adds(model: TrainedModel) -> int:
    """Of one frame; what decodes the answer has none."""
    from edgecnn.compression.prune.channels import cost_of

    return round(cost_of(model, "macs"))


def parameter_count(model: TrainedModel) -> int:
    """Of the network."""
    return sum(parameter.numel() for parameter in model.module.parameters())
