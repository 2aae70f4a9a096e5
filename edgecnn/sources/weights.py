"""Weights files: read without running code from them, unwrapped, and fitted to a network."""

from __future__ import annotations

import difflib
import pickle
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgecnn.errors import WeightsError
from edgecnn.printable import shortened
from edgecnn.sources.plain_pickle import is_whole_pickle, load_plain

# Keys under which training code stores the state dict in a checkpoint, most specific first; and an average next to it.
_WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "params", "weights")
_AVERAGED = (
    *("ema", "model_ema", "ema_model", "state_dict_ema", "ema_state_dict", "model_ema_state_dict", "ema_params"),
    *("params_ema", "averaged_model", "swa_model", "swa_state_dict", "average", "shadow"),
)
# Names that torch's wrappers insert in the middle of others.
_WRAPPING = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"})


class Weights(dict[str, Tensor]):
    """Tensors by name.

    Attributes:
        notes: notes for the user, in sentences.
    """

    notes: tuple[str, ...] = ()


@contextmanager
def reproducible_weights() -> Iterator[None]:
    """Context in which networks get the same random weights every time; torch's generator is restored afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def read_weights(path: str | Path) -> Weights:
    """The tensors of a .pth, .pt, .ckpt or .safetensors file, by name; nothing in it is executed.

    A checkpoint that wraps its state dict is unwrapped, and `module.` is removed from the names. Of raw and
    averaged weights in one file the raw ones are used, and a note says so; FILE#KEY uses those under a key
    ("ema", "a.b").

    Raises:
        WeightsError: missing, truncated, a pickled module, or without tensors; nothing under the key.
    """
    path, key = _split_key(Path(path))
    if not path.is_file():
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*")], n=3)
        hint = f"; beside it there is {', '.join(near)}" if near else ""
        raise WeightsError(f"there is no weights file {path}{hint}")
    if path.suffix == ".safetensors":
        state: Any = _read_safetensors(path)
    else:
        state = _read_torch(path)
    if key:
        tensors = _unwrap(_under(state, key, path))
        found = _Found(tensors, key) if tensors is not None else None
    else:
        found = _found(state)
    if found is None:
        raise WeightsError(
            f"{path} holds no state dict{f' under {key!r}' if key else ''} (found {_describe(state)}): save one with "
            "safetensors.torch.save_file(model.state_dict(), FILE)"
        )
    weights = Weights(_strip_common(found.tensors, "module."))
    if found.others:
        others = ", ".join(f"{path.name}#{name}" for name in found.others)
        weights.notes = (
            f"{path.name} holds several sets of weights: those under {found.key!r} are used; the others are {others}",
        )
    return weights


def weights_file(path: str | Path) -> Path:
    """The file in FILE or FILE#KEY."""
    return _split_key(Path(path))[0]


def _split_key(path: Path) -> tuple[Path, str]:
    if path.exists() or "#" not in path.name:
        return path, ""
    name, _, key = path.name.partition("#")
    return path.with_name(name), key


def _under(state: Any, key: str, path: Path) -> Any:
    """The value of a mapping under "a.b", or under "a" and then "b"."""
    if isinstance(state, Mapping):
        if key in state:
            return state[key]
        first, _, rest = key.partition(".")
        if rest and first in state:
            return _under(state[first], rest, path)
    raise WeightsError(f"{path} has nothing under {shortened(key)!r}; found {_describe(state)}")


@dataclass(frozen=True)
class _Found:
    """A state dict in a checkpoint: its key, and the keys of others."""

    tensors: dict[str, Tensor]
    key: str
    others: tuple[str, ...] = ()


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
        origin: name of the file in errors.
        suggest: returns a network that these tensors would fit, if one is known.

    Raises:
        WeightsError: with the first missing, unexpected and misshapen names, and a suggestion.
    """
    own = module.state_dict()
    optional = {name for name in own if name.endswith("num_batches_tracked")}  # old files lack them
    tensors = _rename_to_fit(tensors, own)
    missing = [name for name in own if name not in tensors and name not in optional]
    unexpected = [name for name in tensors if name not in own]
    misshapen = [n for n, t in tensors.items() if n in own and t.shape != own[n].shape]
    if missing or unexpected or misshapen:
        raise WeightsError(_mismatch(origin, own, tensors, missing, unexpected, misshapen, suggest))
    state = OrderedDict(tensors)
    state._metadata = getattr(own, "_metadata", {})  # type: ignore[attr-defined] # some networks ask for their version
    module.load_state_dict(state, strict=False)
    broken = [name for name, t in module.state_dict().items() if t.is_floating_point() and not t.isfinite().all()]
    if broken:
        raise WeightsError(f"{origin} holds NaN or infinite values, first in {broken[0]!r}: save the weights again")


def _read_torch(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            return load_plain(file)
    except Exception as failed:
        if "TorchScript" in str(failed):
            raise WeightsError(
                f"{path} is a TorchScript archive, a whole network: save its weights with "
                "safetensors.torch.save_file(model.state_dict(), FILE) and name the network"
            ) from failed
        if isinstance(failed, pickle.UnpicklingError) and _is_whole(path):
            raise WeightsError(
                f"{path} is a pickled module or holds other Python objects; loading it would run code from the "
                "file. Load it where you trust it, and save only its tensors with "
                "safetensors.torch.save_file(model.state_dict(), FILE)"
            ) from failed
        # An UnpicklingError says how to run the code in the file.
        usable_text = str(failed) and not isinstance(failed, pickle.UnpicklingError)
        raise WeightsError(
            f"{path} is truncated or not a torch file ({path.stat().st_size} bytes): "
            f"{str(failed).splitlines()[0] if usable_text else type(failed).__name__}; copy it again"
        ) from failed


def _is_whole(path: Path) -> bool:
    with path.open("rb") as file:
        return is_whole_pickle(file)


def _read_safetensors(path: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as damaged:
        raise WeightsError(f"{path} is truncated or not a safetensors file: {damaged}") from damaged


def _unwrap(state: Any) -> dict[str, Tensor] | None:
    found = _found(state)
    return None if found is None else found.tensors


def _found(state: Any, depth: int = 0) -> _Found | None:
    """The mapping from names to tensors, inside the usual wrappers or at the top."""
    if not isinstance(state, Mapping) or depth > 3:
        return None
    inside = {
        name: inner
        for name in (*_WRAPPERS, *_AVERAGED)
        if isinstance(state.get(name), Mapping) and (inner := _found(state[name], depth + 1)) is not None
    }
    if inside:  # first: next to them there may be tensors of the training itself (best_acc1)
        first, *others = inside
        inner = inside[first]
        key = f"{first}.{inner.key}" if inner.key else first
        return _Found(inner.tensors, key, (*others, *(f"{first}.{name}" for name in inner.others)))
    tensors = {str(name): value for name, value in state.items() if isinstance(value, Tensor)}
    return _Found(tensors, "") if tensors else None


def _strip_common(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    while tensors and all(name.startswith(prefix) for name in tensors):
        tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return tensors


def _rename_to_fit(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The tensors under the network's own names, where the file's differ by wrappers used in training.

    Names that wrappers insert are removed. If the whole network is found under a prefix, that prefix is removed, and
    tensors outside it too (a loss, a metric, a teacher, the count of an average).
    """
    if not any(part in _WRAPPING for name in own for part in name.split(".")):
        tensors = {".".join(p for p in name.split(".") if p not in _WRAPPING): t for name, t in tensors.items()}
    wanted = {name for name in own if not name.endswith("num_batches_tracked")}
    if wanted <= set(tensors) or not wanted:
        return tensors
    first = min(wanted)
    prefixes = [name.removesuffix(first) for name in tensors if name.endswith(f".{first}")]
    partial: Mapping[str, Tensor] = tensors
    for prefix in sorted(prefixes, key=len):
        renamed = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
        if wanted <= set(renamed):
            return renamed
        if len(renamed) == len(tensors):  # all have the prefix, and it is not the whole network
            partial = renamed
    if partial is not tensors:
        return partial
    first_part = next(iter(tensors), "").partition(".")[0] + "."
    shorter = {name.removeprefix(first_part): t for name, t in tensors.items() if name.startswith(first_part)}
    return (
        shorter if len(shorter) == len(tensors) and set(shorter) & set(own) and not set(tensors) & set(own) else tensors
    )


def _describe(state: Any) -> str:
    if isinstance(state, Mapping):
        return "a mapping with the keys " + (", ".join(map(repr, list(state)[:5])) or "(none)")
    return f"a {type(state).__name__}"


def _mismatch(
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
        meant = f"{near[0]!r} may be meant to be {missing[0]!r}" if near else None
    return "; ".join([*parts, *([meant] if meant else [])])


def _other_classes(shapes: set[tuple[tuple[int, ...], tuple[int, ...]]]) -> str | None:
    """The meaning of shapes that differ from the network's in only one size, everywhere the same."""
    differences = {
        differing[0] if len(differing) == 1 and len(theirs) == len(ours) else None
        for theirs, ours in shapes
        for differing in [[pair for pair in zip(theirs, ours, strict=False) if pair[0] != pair[1]]]
    }
    if len(differences) != 1 or (difference := differences.pop()) is None:
        return None
    return f"it seems to be for {difference[0]} classes, but the network has {difference[1]}: see --labels"
