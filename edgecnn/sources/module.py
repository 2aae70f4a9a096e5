"""The user's own network: `package.module:factory`, a TrainedModel, or a torch module with options."""

from __future__ import annotations

import copy
import copyreg
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from edgecnn.bundle import SourceRecord, sha256_of
from edgecnn.errors import SourceError, SpecError
from edgecnn.formats import FORMATS
from edgecnn.frame import FrameSpec
from edgecnn.sources.model import ModelOptions, TrainedModel
from edgecnn.sources.user_options import apply, read_labels
from edgecnn.sources.weights import fit_weights, read_weights, weights_file
from edgecnn.tasks import TASKS, Task

# Packages that edgecnn and its dependencies import by name, now or later; the formats list theirs.
_PACKAGES = frozenset(
    (
        *("cv2", "edgecnn", "faster_coco_eval", "lightning", "matplotlib", "msgspec", "numpy", "onnx_ir", "onnxscript"),
        *("onnxslim", "packaging", "PIL", "psutil", "rich", "safetensors", "scipy", "sympy", "tensorflow", "timm"),
        *("torch", "torch_pruning", "torchao", "torchvision", "typer", "yaml"),
    )
)


def _packages() -> frozenset[str]:
    return _PACKAGES.union(*(row.modules for row in FORMATS))


def load(model: str, options: ModelOptions) -> TrainedModel:
    """Call `package.module:factory` without arguments; the working folder is importable.

    Raises:
        SourceError: it cannot be imported, isn't callable, raises, or returns something else.
        WeightsError: the weights don't fit what it returns.
    """
    made = _made_by(model)
    if not isinstance(made, TrainedModel | nn.Module):
        raise SourceError(
            f"{model}() must return an edgecnn.TrainedModel or a torch.nn.Module, got {type(made).__name__}"
        )
    return adopt(made, options, model=model)


def adopt(made: TrainedModel | nn.Module, options: ModelOptions, *, model: str = "python") -> TrainedModel:
    """Make a TrainedModel from the user's object, with the weights and options given for it."""
    module = made.module if isinstance(made, TrainedModel) else made
    _check_whole(model if model != "python" else type(module).__name__, module)
    source = made.source if isinstance(made, TrainedModel) else SourceRecord(model=model)
    source = replace_model(source, model)
    notes: tuple[str, ...] = ()
    if options.weights is not None:
        path = Path(options.weights)
        weights = read_weights(path)
        fit_weights(module, weights, origin=str(path))
        notes = weights.notes
        source = SourceRecord(model=model, weights=path.name, weights_sha256=sha256_of(weights_file(path)))
    name = model.rpartition(":")[2] if ":" in model else type(module).__name__.lower()
    if isinstance(made, TrainedModel):
        named = made if made.name != "network" else replace(made, name=name)
        return apply(replace(named, source=source, warnings=(*named.warnings, *notes)), options)
    bare = TrainedModel(
        module=module,
        frame=_frame(name, options),
        task=_task(name, options),
        name=name,
        source=source,
        warnings=notes,
    )
    return apply(bare, replace(options, task=None, labels=None))


def replace_model(source: SourceRecord, model: str) -> SourceRecord:
    """The record with the name given by the user, where the network itself has none."""
    import msgspec

    return msgspec.structs.replace(source, model=model) if source.model == "python" else source


def _made_by(model: str) -> Any:
    """The result of the user's callable.

    The working folder is importable only during this call, after all installed packages: no other code can mistake a
    file `onnx.py` next to the factory for the package.
    """
    module_name, _, attribute = model.partition(":")
    here = str(Path.cwd())
    path = list(sys.path)
    sys.path[:] = [place for place in path if Path(place or here) != Path(here)] + [here]
    try:
        factory = _callable(model, _imported(module_name, Path(here)), attribute)
        try:
            return factory()
        except Exception as failed:
            raise SourceError(f"{model}() raised {type(failed).__name__}: {failed}{_place_of(failed)}") from failed
    finally:
        sys.path[:] = path


def _imported(name: str, here: Path) -> ModuleType:
    first = name.partition(".")[0]
    own = next((p for p in (here / first / "__init__.py", here / f"{first}.py") if p.is_file()), None)
    try:
        if own is not None and not _is_from(sys.modules.get(first), here):
            if first in sys.modules or (first in _packages() and find_spec(first) is not None):
                raise SourceError(
                    f"{own} has the name of an installed package, {first!r}, and would be imported instead of it: "
                    f"rename it"
                )
            spec = spec_from_file_location(first, own, submodule_search_locations=_folder(own))
            assert spec is not None and spec.loader is not None
            sys.modules[first] = module_from_spec(spec)  # before an installed package of this name that nothing uses
            try:
                spec.loader.exec_module(sys.modules[first])
            except BaseException:
                del sys.modules[first]
                raise
        return import_module(name)
    except ModuleNotFoundError as missing:
        if missing.name and name.startswith(missing.name):
            raise SourceError(
                f"there is no module {name!r} (looked in the working folder {here} and in the installed packages)"
            ) from missing
        raise SourceError(f"importing {name!r} failed: {missing}{_place_of(missing)}") from missing
    except SourceError:
        raise
    except Exception as failed:
        raise SourceError(f"importing {name!r} raised {type(failed).__name__}: {failed}{_place_of(failed)}") from failed


def _folder(own: Path) -> list[str] | None:
    return [str(own.parent)] if own.name == "__init__.py" else None


def _is_from(module: ModuleType | None, here: Path) -> bool:
    file = getattr(module, "__file__", None)
    return file is not None and here in Path(file).resolve().parents


def _place_of(failed: BaseException) -> str:
    """The place in the user's own files where it was raised."""
    frames = traceback.extract_tb(failed.__traceback__)
    own = [frame for frame in frames if Path.cwd() in Path(frame.filename).parents and frame.filename != __file__]
    return f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""


def _callable(model: str, found: Any, attribute: str) -> Callable[[], Any]:
    factory = getattr(found, attribute, None)
    if not callable(factory):
        names = [name for name in dir(found) if callable(getattr(found, name)) and not name.startswith("_")]
        what = "is not callable" if factory is not None else "does not exist"
        module_name = model.partition(":")[0]
        raise SourceError(f"{model}: {attribute!r} {what}; {module_name} has: {', '.join(names[:8]) or 'nothing'}")
    return factory  # type: ignore[no-any-return]


def _check_whole(name: str, module: nn.Module) -> None:
    """Check that the network can be traversed, copied and traced.

    Raises:
        SourceError: TorchScript, an attribute that hides one of nn.Module's own, or one that cannot be copied.
    """
    if isinstance(module, torch.jit.ScriptModule):
        raise SourceError(
            f"{name} is TorchScript, which cannot be converted: give the torch.nn.Module that it was made from, or "
            "export it with torch.export.export and name the .pt2"
        )
    for path, part in _parts(module):
        hidden = [
            key for key in vars(part) if callable(getattr(nn.Module, key, None)) and not callable(vars(part)[key])
        ]
        if hidden:
            raise SourceError(
                f"{name}: {path or type(module).__name__} has an attribute {hidden[0]!r}, which hides "
                f"torch.nn.Module.{hidden[0]}: rename it in {type(part).__name__}"
            )
    try:
        copy.deepcopy(module)
    except Exception as failed:
        for path, part in _parts(module):
            for key, value in vars(part).items():
                if key not in {"_modules", "_parameters", "_buffers"} and not _copies(value):
                    raise SourceError(
                        f"{name}: {path or type(module).__name__}.{key} holds {type(value).__name__}, which cannot be "
                        "copied, and a network is copied before it is changed: create it where it is used, or remove "
                        "it"
                    ) from failed
        raise SourceError(f"{name} cannot be copied: {type(failed).__name__}: {failed}") from failed


def _parts(module: nn.Module, path: str = "", seen: set[int] | None = None) -> Iterator[tuple[str, nn.Module]]:
    """Like named_modules, which an attribute may hide."""
    seen = set() if seen is None else seen
    if id(module) in seen:
        return
    seen.add(id(module))
    yield path, module
    for key, child in module._modules.items():
        if child is not None:
            yield from _parts(child, f"{path}.{key}" if path else key, seen)


def _copies(value: object) -> bool:
    try:
        copy.deepcopy(value)
    except Exception:
        return False
    return True


def _same_module(name: str) -> ModuleType:
    return sys.modules.get(name) or import_module(name)


# A network may hold a Python module (`self.ops = torch.ops`, a configuration): its copy shares it.
copyreg.pickle(ModuleType, lambda module: (_same_module, (module.__name__,)))


def _frame(name: str, options: ModelOptions) -> FrameSpec:
    if options.size is None:
        raise SpecError(f"{name} is a plain module: give its input size with --size (320 or 512x256)")
    height, width = options.size
    return FrameSpec(height_px=height, width_px=width)


def _task(name: str, options: ModelOptions) -> Task:
    if options.task is None:
        raise SpecError(f"{name} is a plain module: give its task with --task ({', '.join(TASKS.names())})")
    # Without labels the number of classes is only known after the network has run.
    labels = read_labels(options.labels) if options.labels is not None else ()
    return TASKS.get(options.task).labelled(labels)
