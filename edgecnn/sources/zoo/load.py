"""Builds a network of the zoo and loads its weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from edgecnn.bundle import SourceRecord, sha256_of
from edgecnn.errors import MissingDependencyError, SpecError, WeightsError
from edgecnn.sources.model import ModelOptions, TrainedModel
from edgecnn.sources.user_options import apply, read_labels
from edgecnn.sources.weights import fit_weights, read_weights, reproducible_weights, weights_file
from edgecnn.sources.zoo import ZOO, ZooEntry
from edgecnn.sources.zoo.labels import class_names
from edgecnn.sources.zoo.reference import reference_preprocess
from edgecnn.tasks import TASKS


def load(model: str, options: ModelOptions) -> TrainedModel:
    """Load a network of the zoo; `--labels` of another count builds it for that many classes.

    Raises:
        WeightsError: the file doesn't fit; names the network of the zoo that it does fit.
    """
    entry = ZOO[model]
    labels = read_labels(options.labels) if options.labels is not None else class_names(entry.labels)
    height, width = options.size or (entry.frame.height_px, entry.frame.width_px)
    module = build(entry, classes=len(labels), frame_px=(height, width))
    source = SourceRecord(model=model, random=True, versions={"torch": str(torch.__version__)})
    notes: tuple[str, ...] = ()
    if options.weights is not None:
        path = _packaged_weights(model, entry) if str(options.weights) == "DEFAULT" else Path(options.weights)
        weights = read_weights(path)
        tensors = _under_own_names(entry, weights, module)
        fit_weights(module, tensors, origin=str(path), suggest=_fitting_network(model))
        notes = weights.notes
        source = SourceRecord(
            model=model,
            weights=path.name,
            weights_sha256=sha256_of(weights_file(path)),
            versions={"torch": str(torch.__version__)},
        )
    trained = TrainedModel(
        module=module,
        frame=entry.frame,
        task=TASKS.get(entry.task)(labels=tuple(labels), **entry.task_options),  # type: ignore[call-arg]
        decode=entry.head or _as_tuple,
        name=model,
        source=source,
        reference=reference_preprocess(model, entry.frame),
        warnings=notes,
    )
    return apply(trained, replace(options, labels=None))


@reproducible_weights()
def build(entry: ZooEntry, *, classes: int, frame_px: tuple[int, int]) -> nn.Module:
    """The bare network, with random weights."""
    module, _, attribute = entry.factory.partition(":")
    arguments = dict(entry.arguments)
    if entry.padded_for_frame:
        arguments["frame_px"] = frame_px
    network: nn.Module = getattr(import_module(module), attribute)(**arguments, classes=classes)
    return network


def _under_own_names(entry: ZooEntry, tensors: Mapping[str, Tensor], network: nn.Module) -> Mapping[str, Tensor]:
    if not entry.weights_reader:
        return tensors
    module, _, attribute = entry.weights_reader.partition(":")
    named: Mapping[str, Tensor] = getattr(import_module(module), attribute)(tensors, network)
    return named


def _as_tuple(logits: Tensor) -> tuple[Tensor, ...]:
    return (logits,)


def _packaged_weights(model: str, entry: ZooEntry) -> Path:
    if not entry.weights_package:
        having = [name for name, other in ZOO.items() if other.weights_package]
        raise SpecError(
            f"no package ships weights for {model}: give a file as --weights FILE "
            f"(DEFAULT works for {', '.join(having)})"
        )
    spec = find_spec(entry.weights_package)
    if spec is None or spec.origin is None:
        raise MissingDependencyError(f"the default weights of {model}", entry.weights_package, extra="demo")
    found = sorted(Path(spec.origin).parent.rglob("*.pth"))
    if not found:
        raise WeightsError(f"the package {entry.weights_package} holds no .pth file: install it again")
    return found[0]


def _fitting_network(model: str) -> Callable[[Mapping[str, Tensor]], str | None]:
    def suggest(tensors: Mapping[str, Tensor]) -> str | None:
        """Names the network of the zoo whose names and shapes these are."""
        shapes = {n: tuple(t.shape) for n, t in tensors.items() if not n.endswith("num_batches_tracked")}
        for name, entry in ZOO.items():
            if name == model:
                continue
            with torch.device("meta"):
                size = (entry.frame.height_px, entry.frame.width_px)
                own = build(entry, classes=len(class_names(entry.labels)), frame_px=size).state_dict()
            if shapes == {n: tuple(t.shape) for n, t in own.items() if not n.endswith("num_batches_tracked")}:
                return f"they are the weights of {name}"
        return None

    return suggest
