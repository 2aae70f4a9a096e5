"""Targets: what a board or chip requires of a network; one TOML file each, read and checked when it is needed.

A new target is a file here and, if its files are compiled for it, one module in `edgecnn.converters`.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.resources import files
from typing import Annotated, Any, Literal

import msgspec

from edgecnn.bundle import PRECISIONS, QUANTIZED
from edgecnn.errors import SpecError, UnknownNameError
from edgecnn.formats import FORMATS, Format, compiler_of, rank
from edgecnn.formats.devices import parse_device
from edgecnn.older_python import tomllib
from edgecnn.processor import board_model, default_threads

_SUFFIX = ".toml"
_Positive = Annotated[int, msgspec.Meta(ge=1)]
_Names = Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]


class Target(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A board or chip to build for.

    Attributes:
        name: the file's name; with ":ARCHITECTURE" where it has several.
        title: the name of the board or chip in messages.
        formats: in the order in which its runtimes should be tried.
        precisions: precisions that it can run and `convert` writes.
        makes: the precisions of these that are made by default.
        device: the device name that opens its artifacts there, such as "onnxruntime:qnn".
        compiler: a compiler of its formats (see `edgecnn.formats`); "" where its files are ordinary ones.
        layout: its layout of activations; our files are NCHW in ONNX and OpenVINO, NHWC in TFLite, and its runtime
            converts them when the file is opened or compiled.
        static_shape: whether it takes fixed shapes only, as all of ours are.
        round_channels_to: number of channels that its multipliers process at once; `prune --round-to NAME` makes
            channel counts multiples of it.
        threads: threads per inference; 0 for the machine's own number.
        largest_side_px: task → the largest side of a frame that it can probably run in real time; a larger frame gives
            a note.
        architectures: generations with different compiled files; the first is the default.
        architecture: the chosen generation.
        boards: beginnings of its boards' model names, as their firmware reports them.
        notes: notes for the user, in sentences.
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
            FORMATS.get(name)  # raises for an unknown name, with the nearest known names
        for name in self.precisions:
            if name not in PRECISIONS:
                raise UnknownNameError("precision", name, PRECISIONS)
        if not set(self.makes) <= set(self.precisions):
            raise SpecError(f"target {self.name}: makes {self.makes}, not all in precisions {self.precisions}")
        parse_device(self.device)
        if self.compiler:
            compiler_of(self.formats[0], self.compiler)
        if self.architecture and self.architecture not in self.architectures:
            raise UnknownNameError(f"architecture of {self.base_name}", self.architecture, self.architectures)

    @property
    def base_name(self) -> str:
        """The name without the architecture."""
        return self.name.partition(":")[0]

    def opens(self, row: Format) -> bool:
        """Whether its files can be opened on the device, whether or not that is worth trying."""
        device = parse_device(self.device)
        return row.name in self.formats or (not self.compiler and bool(device.executors(row.runtime)))

    @property
    def compiled(self) -> tuple[str, ...]:
        """Precisions whose artifacts are compiled for it and run nowhere else."""
        return tuple(name for name in self.precisions if name in QUANTIZED) if self.compiler else ()


def target_names() -> list[str]:
    """All targets, without architectures."""
    return sorted(
        entry.name.removesuffix(_SUFFIX) for entry in files(__name__).iterdir() if entry.name.endswith(_SUFFIX)
    )


def load_target(text: str) -> Target:
    """The target that NAME or NAME:ARCHITECTURE selects.

    Raises:
        UnknownNameError: no such target or architecture; lists the nearest names.
        SpecError: the target has no architectures, or its file is not valid.
    """
    name, colon, architecture = text.partition(":")
    names = target_names()
    if name not in names:
        raise UnknownNameError("target", text, names)
    raw = (files(__name__) / f"{name}{_SUFFIX}").read_text(encoding="utf-8")
    document: dict[str, Any] = tomllib.loads(raw)
    built_for = document.get("architectures", ())
    if colon and not built_for:
        raise SpecError(f"target {name} has no architectures: give --target {name}")
    if colon and architecture not in built_for:
        raise UnknownNameError(f"architecture of {name}", architecture, built_for)
    if built_for:
        document["architecture"] = architecture if colon else built_for[0]
        name = f"{name}:{document['architecture']}"
    return read_target({**document, "name": name})


def read_target(document: dict[str, Any]) -> Target:
    """A target from the content of its file.

    Raises:
        SpecError: a field is unknown, missing or not valid.
    """
    try:
        return msgspec.convert(document, Target)
    except msgspec.ValidationError as wrong:
        if isinstance(wrong.__cause__, SpecError):
            raise wrong.__cause__ from None
        raise SpecError(f"the file of target {document.get('name', '')!r} is not valid: {wrong}") from wrong


def target_of_board(model: str) -> Target | None:
    """The target of a board, by the model name that its firmware reports; None where no target knows it."""
    if not model:
        return None
    known = (load_target(name) for name in target_names())
    return next((target for target in known if model.startswith(target.boards)), None)


def in_order_here(formats: Iterable[str]) -> list[str]:
    """These formats in the default order of preference on this machine."""
    target = target_of_board(board_model())
    first = target.formats if target is not None else ()
    return sorted(formats, key=lambda name: (first.index(name) if name in first else len(first), rank(name)))


def threads_here() -> int:
    """Default threads per inference: the cores that this process may use, or fewer on some boards."""
    target = target_of_board(board_model())
    allowed = default_threads()
    return min(allowed, target.threads) if target is not None and target.threads else allowed
