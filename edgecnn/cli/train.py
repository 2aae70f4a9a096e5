"""`edgecnn train`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from edgecnn.cli import _model_options as flags
from edgecnn.cli import _output
from edgecnn.errors import DataError, SpecError

if TYPE_CHECKING:
    from edgecnn._verbs.train import Training
    from edgecnn.compression.train.settings import TrainSettings

_PANEL = "How to train"
_PANEL_TEXT = {"rich_help_panel": _PANEL}


def command(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A network, or a NAME.model folder to train on.")],
    data: Annotated[Path, typer.Option(help="Labelled pictures: a folder or a COCO JSON.", show_default=False)],
    out: Annotated[Path, typer.Option(help="A NAME.model folder to write.", show_default=False)],
    validate_on: Annotated[
        Path | None,
        typer.Option(help="Other labelled pictures, which decide what epoch is kept; default: DATA's val, or a tenth."),
    ] = None,
    split: Annotated[str | None, typer.Option(help="Of DATA to learn from; default: train, else all.")] = None,
    grow: Annotated[
        str | None,
        typer.Option(
            "--head", help="ssdlite or lraspp on a classifier: a detector or a segmenter.", show_default=False
        ),
    ] = None,
    keep_classes: Annotated[
        bool, typer.Option("--keep-classes", help="Go on with the network's classes, of which DATA has only some.")
    ] = False,
    ignore_label: Annotated[
        str | None, typer.Option(help="A class of the data whose pixels don't count in the metric.")
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="A network to learn from as well, as the one before it was pruned; see [distillation] in --settings.",
            show_default=False,
        ),
    ] = None,
    teacher_weights: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Weights of a teacher that brings none of its own.", show_default=False),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the pictures; default 50.", **_PANEL_TEXT)] = None,
    batch: Annotated[int | None, typer.Option(help="Frames a step; default 16.", **_PANEL_TEXT)] = None,
    optimizer: Annotated[
        str | None, typer.Option(help="sgd, adam, adamw or rmsprop; default adamw.", **_PANEL_TEXT)
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Highest; default 0.001.", **_PANEL_TEXT)] = None,
    schedule: Annotated[
        str | None, typer.Option(help="cosine, step or constant; default cosine.", **_PANEL_TEXT)
    ] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Default 0.0005.", **_PANEL_TEXT)] = None,
    l1: Annotated[
        float | None, typer.Option(help="Factor on the weights' magnitudes; default 0.", **_PANEL_TEXT)
    ] = None,
    dropout: Annotated[float | None, typer.Option(help="Rate of the network's dropout layers.", **_PANEL_TEXT)] = None,
    freeze_backbone: Annotated[
        bool, typer.Option("--freeze-backbone", help="Train the new head alone.", **_PANEL_TEXT)
    ] = False,
    early_stop_epochs: Annotated[
        int | None, typer.Option(help="Stop when the metric has not risen for so long.", **_PANEL_TEXT)
    ] = None,
    quantize_for: Annotated[
        str | None,
        typer.Option(help="Train for int8 in openvino, onnx or tflite: with its rounding.", **_PANEL_TEXT),
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that read pictures.", **_PANEL_TEXT)] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights, order and variation; default 0.", **_PANEL_TEXT)] = None,
    settings: Annotated[
        Path | None,
        typer.Option(
            help="A TOML file with all of these, [augmentation] and [distillation]; flags go before it.", **_PANEL_TEXT
        ),
    ] = None,
    weights: flags.Weights = None,
    size: flags.Size = None,
    task: flags.TaskName = None,
    fit: flags.FitName = None,
    mean: flags.Mean = None,
    std: flags.Std = None,
    scale: flags.Scale = None,
    color: flags.Color = None,
    replace_activations: flags.ReplaceActivations = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> int:
    """Fine-tune a network on your pictures: a classifier, detector or segmenter for your classes."""
    from edgecnn._verbs.train import train

    given = {
        "epochs": epochs,
        "batch": batch,
        "optimizer": optimizer,
        "learning_rate": learning_rate,
        "schedule": schedule,
        "weight_decay": weight_decay,
        "l1": l1,
        "dropout": dropout,
        "freeze_backbone": freeze_backbone or None,
        "early_stop_epochs": early_stop_epochs,
        "quantize_for": quantize_for,
        "workers": workers,
        "seed": seed,
    }
    options = flags.model_options(
        weights=weights,
        size=size,
        task=task,
        head=None,
        labels=None,
        fit=fit,
        mean=mean,
        std=std,
        scale=scale,
        color=color,
        replace_activations=replace_activations,
    )
    told = train_settings(settings, {name: value for name, value in given.items() if value is not None})
    with _output.progress_bar("reading pictures") as progress:
        training = train(
            model,
            data=data,
            out=out,
            validate_on=validate_on,
            split=split,
            head=grow,
            keep_classes=keep_classes,
            ignore_label=ignore_label,
            settings=told,
            teacher=teacher,
            teacher_weights=teacher_weights,
            progress=progress,
            **options,
        )
    if as_json:
        _output.print_json(as_document(training))
    else:
        print_training(training)
    return 0


def train_settings(file: Path | None, given: dict[str, Any]) -> TrainSettings:
    """Settings from a TOML file and flags; a flag goes before the file.

    Raises:
        DataError: the file cannot be read.
        SpecError: a word or value that cannot be.
    """
    from edgecnn.compression.train.settings import TrainSettings

    told: dict[str, Any] = {}
    if file is not None:
        try:
            told = msgspec.toml.decode(file.read_bytes())
        except (OSError, msgspec.DecodeError) as failed:
            raise DataError(f"the settings {file} cannot be read: {failed}") from failed
    try:
        return msgspec.convert(told | given, TrainSettings)
    except msgspec.ValidationError as wrong:
        raise SpecError(f"training settings: {wrong}") from wrong


def as_document(training: Training) -> dict[str, Any]:
    """What --json prints."""
    return {
        "model": str(training.folder),
        "metric": training.metric,
        "value": training.value,
        "before": training.before,
        "best_epoch": training.best_epoch,
        "epochs": training.epochs,
        "stopped_early": training.stopped_early,
        "train": training.train,
        "validation": training.validation,
        "new_layers": list(training.new_layers),
        "history": list(training.history),
    }


def print_training(training: Training) -> None:
    """The closing table."""
    rows = [
        (f"{row['epoch']:g}", f"{row['metric']:.4f}", f"{_loss(row):.3f}", f"{row['learning_rate']:.1e}")
        for row in _some(training.history, training.best_epoch)
    ]
    _output.print_table(
        f"{training.folder}", ["epoch", training.metric, "loss", "learning rate"], rows, numeric=[training.metric]
    )
    before = "" if training.before is None else f", {training.before:.4f} before"
    ended = "stopped early" if training.stopped_early else "done"
    _output.stdout.print(
        f"{ended} after {training.epochs} epochs; epoch {training.best_epoch} is kept: {training.metric} "
        f"{training.value:.4f} on {training.validation} pictures that were not trained on{before}"
    )
    _output.stdout.print(f"curves: {training.folder / 'training.png'}, figures: {training.folder / 'training.csv'}")


def _loss(row: dict[str, float]) -> float:
    return sum(value for name, value in row.items() if name.endswith("_loss"))


def _some(history: Any, best_epoch: int) -> list[dict[str, float]]:
    """Ten measured epochs, the best and the last among them."""
    measured = [row for row in history if "metric" in row]
    step = max(len(measured) // 8, 1)
    chosen = [row for i, row in enumerate(measured) if i % step == 0 or row["epoch"] == best_epoch]
    return chosen if chosen[-1] is measured[-1] else [*chosen, measured[-1]]
