"""Narrows a network by the user's settings, and records what was done."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgecnn.datasets import Dataset
from edgecnn.errors import SpecError
from edgecnn.pictures import picture_hash

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgecnn.pruning.channels import PruneSettings
    from edgecnn.pruning.latency import Measure
    from edgecnn.sources.model import TrainedModel

Cost = Literal["macs", "parameters", "latency"]


@dataclass(frozen=True, kw_only=True)
class LabelledPictures:
    """Labelled pictures for pruning: gradients for the importance "taylor", and frames for batch norms.

    Attributes:
        dataset: a data set opened for the network's task and labels.
        batch, seed: see `edgecnn.pruning.gradients.loss_gradients`.
    """

    dataset: Dataset
    batch: int
    seed: int

    def gradients_of(self, model: TrainedModel) -> Callable[[nn.Module], None]:
        """A function that runs a network like this one forward and backward on the pictures."""
        from edgecnn.pruning.gradients import loss_gradients
        from edgecnn.training.examples import TrainingPictures
        from edgecnn.training.settings import NO_AUGMENTATION

        pictures = TrainingPictures(self.dataset, model.frame, NO_AUGMENTATION, seed=self.seed, mosaic_until=0)
        return loss_gradients(model, pictures, batch=self.batch, seed=self.seed)

    def frames_of(self, model: TrainedModel) -> Tensor:
        """Some of the pictures as the network's input, float32 [batch, 3, height, width], normalised."""
        import torch

        from edgecnn.frame import FrameFitter
        from edgecnn.pruning.norms import frames_wanted
        from edgecnn.sources.normalise import normalise

        chosen = self._indices[: frames_wanted(model.frame.height_px, model.frame.width_px)]
        fit = FrameFitter(model.frame)
        frames = [torch.from_numpy(fit(self.dataset[index].image())[0].copy()) for index in chosen]
        return normalise(torch.cat(frames), model.frame)

    @property
    def images(self) -> tuple[str, ...]:
        """Content hashes of the pictures that are used."""
        return tuple(picture_hash(self.dataset[index].image()) for index in self._indices)

    @property
    def _indices(self) -> list[int]:
        from edgecnn.pruning.gradients import drawn_batches

        batches = drawn_batches(len(self.dataset), batch=self.batch, seed=self.seed)
        return [index for keys in batches for _, index in keys]

    @property
    def words(self) -> dict[str, Any]:
        """The settings for the record."""
        return {"data": Path(self.dataset.path).name, "batch": self.batch, "seed": self.seed}


@dataclass(frozen=True, kw_only=True)
class Narrowing:
    """How networks are narrowed.

    Attributes:
        unpruned: the network that shares refer to.
        cost: the kind of cost.
        settings: which channels are removed first, and which are kept.
        pictures: labelled pictures; None where there are none.
        of: the artifact whose latency is the cost, such as "openvino:fp32"; "" for other costs.
        measure: times it; None for other costs.
    """

    unpruned: TrainedModel
    cost: Cost
    settings: PruneSettings
    pictures: LabelledPictures | None = None
    of: str = ""
    measure: Measure | None = None

    def is_enough(self, model: TrainedModel, *, share: float, latency_share: float = 1.0) -> bool:
        """Whether a network's cost is already within this share."""
        from edgecnn.pruning.channels import cost_of

        if self.cost == "latency":
            return latency_share <= share
        return cost_of(model, self.cost) <= share * cost_of(self.unpruned, self.cost)

    def narrow(self, model: TrainedModel, *, share: float, latency_share: float = 1.0) -> TrainedModel:
        """A narrower copy, with a history entry that says how it was made and what remains.

        Args:
            model: the unpruned network, or one made from it.
            share: share of the unpruned network's cost that may remain; less than `model` costs.
            latency_share: share of the unpruned latency that `model` takes; used where latency is the cost.

        Raises:
            SpecError, UnknownNameError, SourceError: as `prune_to_share` and `prune_to_latency`.
            ConversionError, DeviceError: it cannot be timed.
        """
        from edgecnn.bundle.evidence import Stage
        from edgecnn.pruning.channels import cost_of, prune_to_share
        from edgecnn.pruning.latency import latency_figures, prune_to_latency

        how: dict[str, Any] = {"settings": self.settings}
        if self.pictures is not None:
            how["frames"] = self.pictures.frames_of(model)
            if self.settings.importance == "taylor":
                how["gradients"] = self.pictures.gradients_of(model)
        figures: dict[str, Any] = {}
        if self.cost == "latency":
            assert self.measure is not None
            reached = prune_to_latency(
                model, share=share, unpruned=self.unpruned, measure=self.measure, latency_share=latency_share, **how
            )
            pruned, figures["latency"] = reached.model, latency_figures(reached, of=self.of, share=share)
        else:
            left = share * cost_of(self.unpruned, self.cost) / cost_of(model, self.cost)
            pruned = prune_to_share(model, share=left, cost=self.cost, **how)
        macs, parameters = multiply_adds(pruned), parameter_count(pruned)
        stage = Stage(
            what="prune",
            settings={
                "share": share,
                "cost": self.cost,
                **dataclasses.asdict(self.settings),
                **({} if self.pictures is None else self.pictures.words),
            },
            figures={"macs": macs, "macs_before": multiply_adds(model), "parameters": parameters, **figures},
            images=() if self.pictures is None else self.pictures.images,
        )
        return dataclasses.replace(pruned, stages=(*model.stages, stage))


def check_same_classes(model: TrainedModel, labels: Sequence[str], data: str | Path) -> None:
    """Check that pictures are labelled with the network's own classes.

    Raises:
        SpecError: they are not.
    """
    if tuple(labels) != model.task.labels:
        raise SpecError(
            f"{data} has {len(labels)} classes ({', '.join(labels[:3])}, …), {model.name} has {len(model.task.labels)} "
            f"({', '.join(model.task.labels[:3])}, …): train it for the data's classes first (edgecnn train), then "
            "prune the trained network"
        )


def multiply_adds(model: TrainedModel) -> int:
    """Multiply-adds of one frame; decoding the answer has none."""
    from edgecnn.pruning.channels import cost_of

    return round(cost_of(model, "macs"))


def parameter_count(model: TrainedModel) -> int:
    """Number of the network's parameters."""
    return sum(parameter.numel() for parameter in model.module.parameters())
