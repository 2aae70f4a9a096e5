"""Fine-tune a network on labelled pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from edgecnn import options
from edgecnn.options import Fields, Option, kinds
from edgecnn.sources.model import TrainedModel
from edgecnn.training.settings import TrainSettings
from edgecnn.training.training import Training, train_network

if TYPE_CHECKING:
    from typing import Unpack


__all__ = ["Training", "train"]

_TEACHER = "Teacher"
Progress = Callable[[int, int, str], None]


def train(
    model: options.Network,
    *,
    data: Annotated[str | Path, Option(help="Labelled pictures: a folder or a COCO JSON.", group=options.LABELS)],
    out: options.NewModel,
    validate_on: options.ValidateOn = None,
    split: options.LearnFrom = None,
    head: Annotated[
        str | None,
        Option(
            help="A new head on a classifier (ssdlite: detector, lraspp: segmenter), or a decoder: yolox, "
            "nanodet, ssd.",
            metavar="NAME",
            group=options.NETWORK,
        ),
    ] = None,
    keep_classes: Annotated[bool, Option(group=options.LABELS)] = False,
    ignore_label: options.IgnoreLabel = None,
    settings: Annotated[TrainSettings | None, Fields("edgecnn.training.settings:TrainSettings")] = None,
    teacher: Annotated[
        str | Path | TrainedModel | None,
        Option(
            help="Another network to learn from, such as the unpruned one; see [distillation] in --settings.",
            kind=kinds.TEXT,
            metavar="MODEL",
            group=_TEACHER,
            code=True,
        ),
    ] = None,
    teacher_weights: Annotated[
        str | Path | None,
        Option(help="Weights for a teacher without weights.", kind=kinds.TEXT, metavar="FILE", group=_TEACHER),
    ] = None,
    progress: Progress | None = None,
    **model_options: Unpack[options.NetworkWithoutHead],
) -> Training:
    """Fine-tune a network for the classes of the data, and save it as NAME.model.

    If the data's classes are the network's, it keeps its head; otherwise it gets a new one, and classes with the same
    name in both keep their weights. After a stop, it continues when it is called again with the same arguments.

    Args:
        model: as for `load_model`.
        data: labelled pictures, as `edgecnn.datasets.open_dataset` takes them.
        out: a folder NAME.model to write.
        validate_on: held-out labelled pictures, which decide which epoch is kept; default: the data's "val", otherwise
            a tenth of the pictures, drawn by the seed, which is not used for training.
        split: split of the data to train on; default: "train", otherwise all.
        head: "ssdlite" or "lraspp": a new head on a classifier, which makes it a detector or a segmenter; or, as for
            `load_model`, the decoder for the raw maps of your own module.
        keep_classes: keep the network's classes if the data has only some of them.
        ignore_label: for segmentation, a class of the data whose pixels do not count in the metric.
        settings: how to train.
        teacher: a network to learn from in addition to the labels, usually the unpruned one; as for `load_model`. It
            must have the student's task, classes, head and frame size, and uses its own normalisation.
        teacher_weights: for a teacher without weights.
        progress: called with (steps done, steps in total, current step).
        model_options: as for `load_model` (weights, size, replace_activations, …).

    Raises:
        SpecError: an impossible request.
        DataError: pictures or labels that cannot be used for training; none is skipped silently.
        TrainingError: the loss is NaN or infinite, or memory ran out.
        StorageError: not enough room on the disk, or not writable.
        MissingDependencyError: a package of the extra [train] is not installed.
    """
    return train_network(
        model,
        data=data,
        out=out,
        validate_on=validate_on,
        split=split,
        head=head,
        keep_classes=keep_classes,
        ignore_label=ignore_label,
        settings=settings,
        teacher=teacher,
        teacher_weights=teacher_weights,
        progress=progress,
        model_options={**model_options},
    )
