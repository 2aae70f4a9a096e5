"""The user's own network: `package.module:factory`, a TrainedModel, or a torch module with flags."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import nn

from edgecnn.bundle import SourceRecord, sha256_of
from edgecnn.errors import SourceError, SpecError
from edgecnn.frame import FrameSpec
from edgecnn.sources import ModelOptions, TrainedModel
from edgecnn.sources._options import apply, read_labels
from edgecnn.sources.weights import fit_weights, read_weights
from edgecnn.tasks import TASKS, Task


def load(model: str, options: ModelOptions) -> TrainedModel:
    """Call `package.module:factory` without arguments; the working folder is importable.

    Raises:
        SourceError: it cannot be imported, isn't callable, raises, or returns something else.
        WeightsError: the weights don't fit what it returns.
    """
    module_name, _, attribute = model.partition(":")
    factory = _find(model, module_name, attribute)
    try:
        made = factory()
    except Exception as failed:
        raise SourceError(f"{model}() raised {type(failed).__name__}: {failed}") from failed
    if not isinstance(made, TrainedModel | nn.Module):
        raise SourceError(
            f"{model}() must return an edgecnn.TrainedModel or a torch.nn.Module, got {type(made).__name__}"
        )
    return adopt(made, options, model=model)


def adopt(made: TrainedModel | nn.Module, options: ModelOptions, *, model: str = "python") -> TrainedModel:
    """Make a TrainedModel of what the user gave, with the weights and words that came with it."""
    module = made.module if isinstance(made, TrainedModel) else made
    source = made.source if isinstance(made, TrainedModel) else SourceRecord(model=model)
    source = replace_model(source, model)
    if options.weights is not None:
        path = Path(options.weights)
        fit_weights(module, read_weights(path), origin=str(path))
        source = SourceRecord(model=model, weights=path.name, weights_sha256=sha256_of(path))
    name = model.rpartition(":")[2] if ":" in model else type(module).__name__.lower()
    if isinstance(made, TrainedModel):
        named = made if made.name != "network" else replace(made, name=name)
        return apply(replace(named, source=source), options)
    bare = TrainedModel(module=module, frame=_frame(name, options), task=_task(name, options), name=name, source=source)
    return apply(bare, replace(options, task=None, labels=None))


def replace_model(source: SourceRecord, model: str) -> SourceRecord:
    """The record with the words the user wrote, where the network itself names none."""
    import msgspec

    return msgspec.structs.replace(source, model=model) if source.model == "python" else source


def _find(model: str, module_name: str, attribute: str) -> Callable[[], Any]:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found = import_module(module_name)
    except ModuleNotFoundError as missing:
        if missing.name and module_name.startswith(missing.name):
            raise SourceError(
                f"there is no module {module_name!r} (looked in the working folder {here} and in the installed "
                "packages)"
            ) from missing
        raise SourceError(f"importing {module_name!r} failed: {missing}") from missing
    except Exception as failed:
        raise SourceError(f"importing {module_name!r} raised {type(failed).__name__}: {failed}") from failed
    factory = getattr(found, attribute, None)
    if not callable(factory):
        names = [name for name in dir(found) if callable(getattr(found, name)) and not name.startswith("_")]
        what = "is not callable" if factory is not None else "does not exist"
        raise SourceError(f"{model}: {attribute!r} {what}; {module_name} has: {', '.join(names[:8]) or 'nothing'}")
    return factory  # type: ignore[no-any-return]


def _frame(name: str, options: ModelOptions) -> FrameSpec:
    if options.size is None:
        raise SpecError(f"{name} is a bare module: say what it eats, at least --size (as in 320 or 512x256)")
    height, width = options.size
    return FrameSpec(height_px=height, width_px=width)


def _task(name: str, options: ModelOptions) -> Task:
    if options.task is None:
        raise SpecError(f"{name} is a bare module: say what it answers with --task ({', '.join(TASKS)})")
    if options.task not in TASKS:
        raise SpecError(f"no task is called {options.task!r}; known: {', '.join(TASKS)}")
    # Without labels the count of classes is only known once the network has answered.
    labels = read_labels(options.labels) if options.labels is not None else ()
    return TASKS[options.task](labels=labels)
