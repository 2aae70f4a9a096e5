"""Every error that edgecnn raises on purpose, with the exit code that the command line gives it.

EdgeCnnError
  SpecError              what was asked for cannot be (a size, a flag, a frame that does not fit)
    UnknownNameError     no such model, format, head or device; says what is near
  MissingDependencyError known, but its package is not installed; names the extra
  SourceError            a network that cannot be loaded or does not answer as it must
    WeightsError         a weights file that cannot be read or does not fit
  DataError              an image, video, camera or data set that cannot be read
    SplitError           a data set without the split that was asked for
  BundleError            a bundle that is damaged, unfinished, or from a newer version
  GateError              a network was run, and it is not what was trained     (exit 1)
    ConversionError      the tool failed on this graph
    ParityError          it converted, and the numbers differ
    BlindError           it answers the same whatever it sees: nothing can be compared
    AccuracyError        it answers, and the task's metric is too low
    TrainingError        a training that came to nothing
  DeviceError            camera, accelerator or runtime is absent or fails     (exit 3)
    BoardError           another machine cannot be reached, has not what is needed, or was lost
  StorageError           the disk is full or not writable                      (exit 3)

Exit codes: 0 done; 1 a gate or a comparison failed; 2 wrong use or bad input; 3 device, disk or internal failure.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import ClassVar


class EdgeCnnError(Exception):
    """Base of every error raised on purpose: what was expected, what was found, what to do."""

    exit_code: ClassVar[int] = 2


class SpecError(EdgeCnnError):
    """What was asked for cannot be."""


class UnknownNameError(SpecError):
    """A name that is not in a table.

    Attributes:
        kind: what was looked for ("model", "format", "device").
        name: the name that was asked for.
        known: the names there are.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        self.kind = kind
        self.name = name
        self.known = sorted(known)
        near = difflib.get_close_matches(name, self.known, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(self.known[:12])}"
        super().__init__(f"no {kind} is called {name!r}; {hint}")


class MissingDependencyError(EdgeCnnError):
    """A part of edgecnn is known, but the package it stands on is not installed.

    Attributes:
        extra: of edgecnn that brings it; None where none can, and the message says what does.
    """

    def __init__(self, name: str, module: str, *, extra: str | None = None, install: str | None = None) -> None:
        self.extra = extra
        how = install or f"pip install 'edgecnn[{extra}]'"
        super().__init__(f"{name} needs the package {module!r}, which is not installed: {how}")


class SourceError(EdgeCnnError):
    """A network that cannot be loaded, or does not answer as its task wants."""


class WeightsError(SourceError):
    """A weights file that cannot be read, or does not fit its network."""


class DataError(EdgeCnnError):
    """An image, a video, a camera or a data set that cannot be read."""


class SplitError(DataError):
    """A data set has no such split."""


class BundleError(EdgeCnnError):
    """A bundle that is damaged, unfinished, or was written by a newer edgecnn."""


class GateError(EdgeCnnError):
    """A network was run and is not what was trained."""

    exit_code = 1


class ConversionError(GateError):
    """The conversion tool failed on this graph."""


class ParityError(GateError):
    """It converted, and the numbers differ."""


class BlindError(GateError):
    """The network's outputs hardly differ between frames, so a comparison would prove nothing."""


class AccuracyError(GateError):
    """It answers, and the task's metric is too low."""


class TrainingError(GateError):
    """A training came to nothing: its loss is no longer a number, or memory ran out."""


class DeviceError(EdgeCnnError):
    """A camera, an accelerator or a runtime is absent or fails."""

    exit_code = 3


class BoardError(DeviceError):
    """Another machine (`--on`) cannot be reached, has not what is needed, or was lost in the middle."""


class StorageError(EdgeCnnError):
    """The disk is full, or the place is not writable."""

    exit_code = 3
