"""`edgecnn train`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from edgecnn import options
from edgecnn.cli import _output
from edgecnn.cli._verb import Verb
from edgecnn.errors import SpecError
from edgecnn.options import Option
from edgecnn.options.toml import read_toml

if TYPE_CHECKING:
    from edgecnn.training.settings import TrainSettings
    from edgecnn.training.training import Training

VERB = "edgecnn._verbs.train:train"


def command(
    verb: Verb,
    *,
    settings_file: Annotated[
        Path | None,
        Option(
            name="settings",
            help="A TOML file with all of these, [augmentation] and [distillation]; options override it.",
            metavar="FILE.toml",
            group="Training",
        ),
    ] = None,
    json: options.Json = False,
) -> int:
    """Fine-tune a network on your pictures: a classifier, detector or segmenter for your classes."""
    settings = train_settings(settings_file, verb.fields("settings"))
    with _output.progress_bar("reading pictures") as progress:
        training = verb(settings=settings, progress=progress)
    if json:
        _output.print_json(as_document(training))
    else:
        print_training(training)
    return 0


def train_settings(file: Path | None, given: dict[str, Any]) -> TrainSettings:
    """Settings from a TOML file and options; options override the file.

    Raises:
        DataError: the file cannot be read.
        SpecError: an unknown key or an invalid value.
    """
    from edgecnn.training.settings import TrainSettings

    from_file: dict[str, Any] = {}
    if file is not None:
        from_file = read_toml(file, "the settings of a training")
    try:
        return msgspec.convert(from_file | given, TrainSettings)
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
    """The final table."""
    rows = [
        (f"{row['epoch']:g}", f"{row['metric']:.4f}", f"{_loss(row):.3f}", f"{row['learning_rate']:.1e}")
        for row in _shown_epochs(training.history, training.best_epoch)
    ]
    _output.print_table(
        f"{training.folder}", ["epoch", training.metric, "loss", "learning rate"], rows, numeric=[training.metric]
    )
    before = "" if training.before is None else f", {training.before:.4f} before"
    ended = "stopped early" if training.stopped_early else "done"
    epochs = f"{training.epochs} {'epoch' if training.epochs == 1 else 'epochs'}"
    pictures = f"{training.validation} {'picture' if training.validation == 1 else 'pictures'}"
    _output.print_line(
        f"{ended} after {epochs}; epoch {training.best_epoch} is kept: {training.metric} "
        f"{training.value:.4f} on {pictures} not used for training{before}"
    )
    _output.print_line(f"curves: {training.folder / 'training.png'}, figures: {training.folder / 'training.csv'}")


def _loss(row: dict[str, float]) -> float:
    return sum(value for name, value in row.items() if name.endswith("_loss"))


def _shown_epochs(history: Any, best_epoch: int) -> list[dict[str, float]]:
    """Ten measured epochs, including the best and the last."""
    measured = [row for row in history if "metric" in row]
    step = max(len(measured) // 8, 1)
    chosen = [row for i, row in enumerate(measured) if i % step == 0 or row["epoch"] == best_epoch]
    return chosen if chosen[-1] is measured[-1] else [*chosen, measured[-1]]
