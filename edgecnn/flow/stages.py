"""The stages of a flow that change a network: each is a table of the recipe and one call of a verb."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from edgecnn.errors import SourceError
from edgecnn.flow.recipe import FineTune, Prune, QuantizeAware, Recipe, Train
from edgecnn.flow.verbs import Verbs
from edgecnn.json_text import encode_json
from edgecnn.training.settings import TrainSettings

if TYPE_CHECKING:
    from edgecnn.sources.model import TrainedModel

Progress = Callable[[int, int, str], None]
START = "start"


@dataclass(frozen=True, kw_only=True)
class Network:
    """The network after a stage, or at the start.

    Attributes:
        stage: the stage's name; "start" for the recipe's own model.
        model: as for `load_model`.
        options: its options.
        identity: digest of the network.
        figures: its stage's measurements: "metric", "value" and "n" of a training.
    """

    stage: str
    model: str
    options: dict[str, Any] = field(default_factory=dict)
    identity: str
    figures: dict[str, Any] = field(default_factory=dict)

    def load(self) -> TrainedModel:
        """Load the network."""
        from edgecnn.sources.load import load_model

        return load_model(self.model, **self.options)


@dataclass(frozen=True, kw_only=True)
class Work:
    """The inputs of a stage.

    Attributes:
        recipe: the whole recipe.
        table: the stage's table.
        network: the network of the stage before.
        unpruned: the network before it was pruned.
        out: the folder NAME.model to write.
        verbs: the verbs that it calls.
        progress: called with (steps done, steps in all, name of the step).
    """

    recipe: Recipe
    table: Any
    network: Network
    unpruned: Network
    out: Path
    verbs: Verbs
    progress: Progress


@dataclass(frozen=True)
class ModelStage:
    """A stage, in the order of the flow.

    Attributes:
        name: name of its table; its folder is called "NUMBER-NAME.model".
        run: calls the verb, and returns figures for the closing table.
    """

    name: str
    run: Callable[[Work], dict[str, Any]]


def _train(work: Work) -> dict[str, Any]:
    table: Train = work.table
    return _trained(work, replace_activations=table.replace_activations, head=table.head)


def _prune(work: Work) -> dict[str, Any]:
    table: Prune = work.table
    data = work.recipe.data
    more: dict[str, Any] = {}
    cost, share = table.cost
    if cost == "latency":
        more["of"] = table.of or work.recipe.convert.formats[0]
    if data.train is not None:
        more |= {"data": data.train, "split": data.split, "validate_on": data.validate_on}
    if table.trains:
        more |= {"ignore_label": data.ignore_label, "settings": table.train, "distill": table.distill}
    pruning = work.verbs.prune(
        work.network.model,
        out=work.out,
        share=share,
        cost=cost,
        importance=table.importance,
        round_to=table.round_to,
        keep=table.keep,
        steps=table.steps,
        progress=work.progress,
        **more,
        **work.network.options,
    )
    figures: dict[str, Any] = {"warnings": list(pruning.warnings)}
    trained = [step for step in pruning.steps if step.value is not None]
    if trained:
        figures |= {"metric": trained[-1].metric, "value": trained[-1].value, "n": trained[-1].n}
    return figures


def _fine_tune(work: Work) -> dict[str, Any]:
    table: FineTune = work.table
    teacher = {"teacher": work.unpruned.load()} if table.distill else {}
    return _trained(work, replace_activations=table.replace_activations, **teacher)


def _quantize_aware(work: Work) -> dict[str, Any]:
    table: QuantizeAware = work.table
    teacher = {"teacher": work.network.load()} if table.distill else {}
    return _trained(work, replace_activations=None, **teacher)


MODEL_STAGES = (
    ModelStage("train", _train),
    ModelStage("prune", _prune),
    ModelStage("fine-tune", _fine_tune),
    ModelStage("quantize-aware", _quantize_aware),
)


def _trained(work: Work, *, replace_activations: str | None, **more: Any) -> dict[str, Any]:
    """Run one training."""
    data, options = work.recipe.data, dict(work.network.options)
    assert data.train is not None  # the recipe was checked
    if replace_activations is not None:
        options["replace_activations"] = replace_activations
    if more.get("head") is not None:
        options.pop("head", None)
    training = work.verbs.train(
        work.network.model,
        data=data.train,
        out=work.out,
        validate_on=data.validate_on,
        split=data.split,
        ignore_label=data.ignore_label,
        settings=settings_of(work.table),
        progress=work.progress,
        **{**options, **{name: value for name, value in more.items() if value is not None}},
    )
    return {
        "metric": training.metric,
        "value": training.value,
        "n": training.validation,
        "before": training.before,
        "best_epoch": training.best_epoch,
        "epochs": training.epochs,
    }


def settings_of(table: TrainSettings) -> TrainSettings:
    """The training settings in a table, without its other fields."""
    return TrainSettings(**{f.name: getattr(table, f.name) for f in msgspec.structs.fields(TrainSettings)})


def digest(*parts: Any) -> str:
    """Digest of plain values."""
    return hashlib.sha256(encode_json(parts, enc_hook=str)).hexdigest()[:20]


def identity_of(model: TrainedModel) -> str:
    """Digest of a network: its parts, weights, frame, task and head."""
    from edgecnn.sources.digest import weights_digest

    head = model.decode
    decode = head if isinstance(head, str | None) else getattr(head, "__qualname__", type(head).__qualname__)
    weights = weights_digest(model)
    weights.update(msgspec.json.encode([model.frame, model.task, decode, model.ranges, str(model.module)]))
    return weights.hexdigest()[:20]


def saved_identity(folder: Path) -> str:
    """Digest of a saved network; "" where there is none, or it is damaged."""
    from edgecnn.bundle import sha256_of
    from edgecnn.sources.saved import describe

    try:
        found = describe(folder)
        if sha256_of(folder / found.weights.path) != found.weights.sha256:
            return ""
    except (SourceError, OSError):
        return ""
    description = msgspec.to_builtins(found)
    return digest({name: value for name, value in description.items() if name not in ("stages", "edgecnn")})
