"""What a device wants of a network: one TOML file each, read and checked when it is asked for.

A new device is a file here and, where its files are compiled for it, one module in `edgecnn.converters`.
"""

from __future__ import annotations

import tomllib
from importlib.resources import files
from typing import Annotated, Any, Literal

import msgspec

from edgecnn._devices import board_model, default_threads, parse_device
from edgecnn.bundle import PRECISIONS, QUANTIZED
from edgecnn.errors import SpecError, UnknownNameError
from edgecnn.registry import BACKENDS

_SUFFIX = ".toml"
_Positive = Annotated[int, msgspec.Meta(ge=1)]
_Names = Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]


class Target(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A device to build for.

    Attributes:
        name: of its file; with ":ARCHITECTURE" where it has several.
        title: for people.
        formats: in the order in which its runtimes are worth trying.
        precisions: those it can run, that `convert` writes.
        makes: of these, what is made when nobody says.
        device: the word that opens its artifacts there, as in "onnxruntime:qnn".
        compiler: name in the table `registry.COMPILERS`; "" where its files are ordinary ones.
        layout: how it holds activations; what we write is NCHW in ONNX and OpenVINO, NHWC in TFLite, and is turned
            by its runtime when the file is opened or compiled.
        static_shape: whether it takes fixed shapes only, which all of ours have.
        round_channels_to: the multiple of channels that its multipliers take at once; `prune --round-to NAME` narrows
            to it.
        threads: of one inference; 0 where the machine's own number is right.
        largest_side_px: task → the largest side of a frame that it is likely to run in real time; larger ones get a
            note.
        architectures: generations whose compiled files differ; the first is built for when nobody says.
        architecture: which of them is meant.
        boards: how the model names of its boards begin, as their firmware gives them.
        notes: what the user should know, in sentences.
    """

    name: str = ""
    title: str
    formats: _Names
    precisions: _Names
    makes: _Names
    device: str
    compiler: str = ""
    layout: Literal["NCHW", "NHWC"]
    static_shape: bool = True
    round_channels_to: _Positive = 8
    threads: Annotated[int, msgspec.Meta(ge=0)] = 0
    largest_side_px: dict[str, _Positive] = {}
    architectures: tuple[str, ...] = ()
    architecture: str = ""
    boards: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in self.formats:
            BACKENDS.extra(name)  # refuses an unknown name, with what is near
        for name in self.precisions:
            if name not in PRECISIONS:
                raise UnknownNameError("precision", name, PRECISIONS)
        if not set(self.makes) <= set(self.precisions):
            raise SpecError(f"target {self.name}: makes {self.makes}, which is not all in precisions {self.precisions}")
        parse_device(self.device)
        if self.architecture and self.architecture not in self.architectures:
            raise UnknownNameError(f"architecture of {self.base_name}", self.architecture, self.architectures)

    @property
    def base_name(self) -> str:
        """The name without the architecture."""
        return self.name.partition(":")[0]

    @property
    def compiled(self) -> tuple[str, ...]:
        """Precisions whose artifacts are compiled for it, and run nowhere else."""
        return tuple(name for name in self.precisions if name in QUANTIZED) if self.compiler else ()


def target_names() -> list[str]:
    """The targets there are, without architectures."""
    return sorted(
        entry.name.removesuffix(_SUFFIX) for entry in files(__name__).iterdir() if entry.name.endswith(_SUFFIX)
    )


def load_target(text: str) -> Target:
    """The target that NAME or NAME:ARCHITECTURE means.

    Raises:
        UnknownNameError: no such target, or architecture; says what is near.
        SpecError: the target has no architectures, or its file is not one.
    """
    name, colon, architecture = text.partition(":")
    names = target_names()
    if name not in names:
        raise UnknownNameError("target", text, names)
    raw = (files(__name__) / f"{name}{_SUFFIX}").read_text(encoding="utf-8")
    told: dict[str, Any] = tomllib.loads(raw)
    built_for = told.get("architectures", ())
    if colon and not built_for:
        raise SpecError(f"target {name} has no architectures to choose from: --target {name}")
    if colon and architecture not in built_for:
        raise UnknownNameError(f"architecture of {name}", architecture, built_for)
    if built_for:
        told["architecture"] = architecture if colon else built_for[0]
        name = f"{name}:{told['architecture']}"
    return read_target({**told, "name": name})


def read_target(told: dict[str, Any]) -> Target:
    """A target from the words of its file.

    Raises:
        SpecError: a word that is unknown, absent, or not what it must be.
    """
    try:
        return msgspec.convert(told, Target)
    except msgspec.ValidationError as wrong:
        if isinstance(wrong.__cause__, SpecError):
            raise wrong.__cause__ from None
        raise SpecError(f"target {told.get('name', '')!r} is not described as it must be: {wrong}") from wrong


def target_of_board(model: str) -> Target | None:
    """The target whose board this is, by the name that its firmware gives; None where no target knows it."""
    if not model:
        return None
    known = (load_target(name) for name in target_names())
    return next((target for target in known if model.startswith(target.boards)), None)


def formats_here() -> list[str]:
    """The formats in the order in which they are taken on this machine where nobody asked for one."""
    target = target_of_board(board_model())
    order = target.formats if target is not None else ()
    return [*order, *(name for name in BACKENDS.names() if name not in order)]


def threads_here() -> int:
    """Threads of one inference where nobody asked: the cores that this process may use, or fewer on some boards."""
    target = target_of_board(board_model())
    allowed = default_threads()
    return min(allowed, target.threads) if target is not None and target.threads else allowed
