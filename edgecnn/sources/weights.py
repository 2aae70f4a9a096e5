"""Weights files: read without running code from them, unwrapped, and fitted to a network."""

from __future__ import annotations

import difflib
import pickle
import pickletools
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgecnn.errors import WeightsError

# Where training code keeps the state dict inside a checkpoint, most telling first.
_WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "ema", "net", "network", "params", "weights")


@contextmanager
def reproducible_weights() -> Iterator[None]:
    """Inside, networks are made with the same random weights every time; torch's generator goes on as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a .pth, .pt, .ckpt or .safetensors file, by name; nothing in it is executed.

    A checkpoint that wraps its state dict is unwrapped, and a `module.` in front of every name goes.

    Raises:
        WeightsError: absent, truncated, a pickled module, or without tensors.
    """
    path = Path(path)
    if not path.is_file():
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*")], n=3)
        hint = f"; beside it there is {', '.join(near)}" if near else ""
        raise WeightsError(f"there is no weights file {path}{hint}")
    if path.suffix == ".safetensors":
        state: Any = _read_safetensors(path)
    else:
        state = _read_torch(path)
    tensors = _unwrap(state)
    if tensors is None:
        raise WeightsError(
            f"{path} holds no state dict (found {_describe(state)}): save one with torch.save(model.state_dict(), FILE)"
        )
    return _strip_common(tensors, "module.")


def fit_weights(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    *,
    origin: str,
    suggest: Callable[[Mapping[str, Tensor]], str | None] | None = None,
) -> None:
    """Load tensors into a network; all must fit.

    Args:
        module: changed in place.
        tensors: by name.
        origin: what to call the file in an error.
        suggest: names a network that these tensors would fit, if one is known.

    Raises:
        WeightsError: with the first missing, unexpected and misshapen names, and what might be meant.
    """
    own = module.state_dict()
    optional = {name for name in own if name.endswith("num_batches_tracked")}  # old files lack them
    tensors = _rename_to_fit(tensors, own)
    missing = [name for name in own if name not in tensors and name not in optional]
    unexpected = [name for name in tensors if name not in own]
    misshapen = [n for n, t in tensors.items() if n in own and t.shape != own[n].shape]
    if missing or unexpected or misshapen:
        raise WeightsError(_misfit(origin, own, tensors, missing, unexpected, misshapen, suggest))
    state = OrderedDict(tensors)
    state._metadata = getattr(own, "_metadata", {})  # type: ignore[attr-defined] # some networks ask for their version
    module.load_state_dict(state, strict=False)
    broken = [name for name, t in module.state_dict().items() if t.is_floating_point() and not t.isfinite().all()]
    if broken:
        raise WeightsError(f"{origin} holds NaN or infinite values, first in {broken[0]!r}: it was saved broken")


def _read_torch(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what they say of a file, the errors below say too
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as failed:
        if "TorchScript" in str(failed):
            raise WeightsError(
                f"{path} is a TorchScript archive, a whole network: save its weights with "
                "torch.save(model.state_dict(), FILE), or export the network as a .pt2"
            ) from failed
        if isinstance(failed, pickle.UnpicklingError) and _is_whole_pickle(path):
            raise WeightsError(
                f"{path} is a pickled module or holds other Python objects; loading it would run code from the "
                "file. Load it where you trust it and save torch.save(model.state_dict(), FILE), or a .pt2"
            ) from failed
        told = str(failed) and not isinstance(failed, pickle.UnpicklingError)  # those tell how to run its code
        raise WeightsError(
            f"{path} is truncated or not a torch file ({path.stat().st_size} bytes): "
            f"{str(failed).splitlines()[0] if told else type(failed).__name__}; copy it again"
        ) from failed


def _is_whole_pickle(path: Path) -> bool:
    """Whether a file is made of whole pickles, rather than cut off or something else; nothing is executed."""
    if zipfile.is_zipfile(path):
        return True
    with path.open("rb") as file:
        try:
            for _ in range(4):  # torch's old files: a magic number, the version, the machine, and then the object
                for _ in pickletools.genops(file):
                    pass
                if not file.peek(1):
                    break
        except Exception:
            return False
    return True


def _read_safetensors(path: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as damaged:
        raise WeightsError(f"{path} is truncated or not a safetensors file: {damaged}") from damaged


def _unwrap(state: Any, depth: int = 0) -> dict[str, Tensor] | None:
    """The first mapping from names to tensors, at the top or inside the usual wrappers."""
    if not isinstance(state, Mapping) or depth > 3:
        return None
    tensors = {str(name): value for name, value in state.items() if isinstance(value, Tensor)}
    if tensors and len(tensors) >= len(state) / 2:
        return tensors
    for wrapper in _WRAPPERS:
        if wrapper in state and (inner := _unwrap(state[wrapper], depth + 1)) is not None:
            return inner
    return tensors or None


def _strip_common(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    while tensors and all(name.startswith(prefix) for name in tensors):
        tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return tensors


def _rename_to_fit(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Drop one prefix that all names share, where that makes them the network's own."""
    first = next(iter(tensors), "")
    prefix = first.partition(".")[0] + "."
    if first in own or not all(name.startswith(prefix) for name in tensors):
        return tensors
    renamed = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return renamed if set(renamed) & set(own) else tensors


def _describe(state: Any) -> str:
    if isinstance(state, Mapping):
        return "a mapping with the keys " + (", ".join(map(repr, list(state)[:5])) or "(none)")
    return f"a {type(state).__name__}"


def _misfit(
    origin: str,
    own: Mapping[str, Tensor],
    tensors: Mapping[str, Tensor],
    missing: list[str],
    unexpected: list[str],
    misshapen: list[str],
    suggest: Callable[[Mapping[str, Tensor]], str | None] | None,
) -> str:
    parts = [f"{origin} does not fit this network"]
    if missing:
        parts.append(f"{len(missing)} missing, first {missing[0]!r}")
    if unexpected:
        parts.append(f"{len(unexpected)} unexpected, first {unexpected[0]!r}")
    if misshapen:
        name = misshapen[0]
        parts.append(
            f"{len(misshapen)} of another shape, first {name!r}: {list(tensors[name].shape)} in the file, "
            f"{list(own[name].shape)} in the network"
        )
    meant = suggest(tensors) if suggest is not None else None
    if meant is None and not missing and not unexpected:
        meant = _other_classes({(tuple(tensors[name].shape), tuple(own[name].shape)) for name in misshapen})
    if meant is None and missing and unexpected:
        near = difflib.get_close_matches(missing[0], unexpected, n=1, cutoff=0.6)
        meant = f"is {near[0]!r} meant to be {missing[0]!r}?" if near else None
    return "; ".join([*parts, *([meant] if meant else [])])


def _other_classes(shapes: set[tuple[tuple[int, ...], tuple[int, ...]]]) -> str | None:
    """What it means that the file's shapes and the network's differ in nothing but one size, everywhere the same."""
    differences = {
        differing[0] if len(differing) == 1 and len(theirs) == len(ours) else None
        for theirs, ours in shapes
        for differing in [[pair for pair in zip(theirs, ours, strict=False) if pair[0] != pair[1]]]
    }
    if len(differences) != 1 or (difference := differences.pop()) is None:
        return None
    return f"it seems to be of {difference[0]} classes, and the network is made for {difference[1]}: see --labels"
