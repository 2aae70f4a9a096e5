"""Every error that edgecnn raises on purpose, with the exit code that the command line gives it.

EdgeCnnError
  SpecError              a request that is not possible (a size, an option, a frame that does not fit)
    UnknownNameError     no such model, format, head or device; lists the nearest names
  MissingDependencyError a known part whose package is not installed; names the extra
  PluginError            another package's format, task, source, camera or sink that cannot be used
  SourceError            a network that cannot be loaded or does not answer as it must
    WeightsError         a weights file that cannot be read or does not fit
  DataError              an image, video, camera or data set that cannot be read
    SplitError           a data set without the requested split
  BundleError            a bundle that is damaged, unfinished, or from a newer version
    UnknownTaskError     a task that neither edgecnn nor an installed package has
    SignatureError       no trusted signature of its content, older than what ran, or expired (exit 1)
  GateError              a network was run, and differs from what was trained    (exit 1)
    ConversionError      the tool failed on this graph
    ParityError          the converted network's answers differ
    BlindError           the network gives the same answer for every picture: nothing can be compared
    AccuracyError        the converted network's metric is too low
    SpeedError           the int8 network is no faster than the float one
    TrainingError        a training failed
  DeviceError            camera, accelerator or runtime is missing or fails    (exit 3)
    LoginError           a camera refuses the login
    BoardError           another machine cannot be reached, lacks something, or was lost
  StorageError           the disk is full or not writable                      (exit 3)
  InternalError          an unexpected error in a child or on a board             (exit 3)

A `Fault` is any of these on its way from a child, a board or a thread.

Exit codes: 0 done; 1 a gate or a comparison failed; 2 wrong use or bad input; 3 device, disk or internal failure.
"""

from __future__ import annotations

import difflib
import itertools
import os
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from edgecnn.printable import printable

_MOST_NEIGHBOURS = 2000  # files of a folder that are searched for a similar name
_NEAR = 0.7
_FOR_BUILDING = frozenset({"convert", "train", "demo"})  # extras whose packages want a newer Python than a device has
_BUILDS_FROM = (3, 11)


class EdgeCnnError(Exception):
    """Base of every error raised on purpose: what was expected, what was found, what to do."""

    exit_code: ClassVar[int] = 2
    fault: Fault | None = None  # set if it came from a child or a board

    def __str__(self) -> str:
        return printable(super().__str__())  # it may quote a file, a board or another package


class SpecError(EdgeCnnError):
    """A request that is not possible."""


def near_path(path: str | Path, words: Iterable[str] = ()) -> str:
    """The end of a message about a missing path, with similar paths, such as "; did you mean street.edge?".

    Args:
        path: the missing path.
        words: names that are allowed instead of a path, such as "default-detector".

    Returns:
        "" where nothing is similar.
    """
    asked = Path(path)
    try:
        lying = [entry.name for entry in itertools.islice(os.scandir(asked.parent), _MOST_NEIGHBOURS)]
    except OSError:
        lying = []
    names = difflib.get_close_matches(asked.name, lying, n=2, cutoff=_NEAR)
    near = [str(asked.parent / name) for name in names]
    near += difflib.get_close_matches(str(path), list(words), n=1, cutoff=_NEAR)
    return f"; did you mean {' or '.join(near)}?" if near else ""


class UnknownNameError(SpecError):
    """A name that is not in a table.

    Attributes:
        kind: kind of the name ("model", "format", "device").
        name: the requested name.
        known: the known names.
    """

    kind: str = ""
    name: str = ""
    known: Iterable[str] = ()

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        self.kind = kind
        self.name = name
        self.known = sorted(known)
        near = difflib.get_close_matches(name, self.known, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(self.known[:12])}"
        super().__init__(f"no {kind} is called {name!r}; {hint}")


class MissingDependencyError(EdgeCnnError):
    """A part of edgecnn needs a package that is not installed.

    Attributes:
        extra: the extra of edgecnn with that package; None where there is none, and the message says what to install.
    """

    extra: str | None = None

    def __init__(self, name: str, module: str, *, extra: str | None = None, install: str | None = None) -> None:
        self.extra = extra
        how = install or f"pip install 'edgecnn[{extra}]'"
        if extra in _FOR_BUILDING and sys.version_info < _BUILDS_FROM:
            wanted, here = (".".join(map(str, version[:2])) for version in (_BUILDS_FROM, sys.version_info))
            how += f", with Python {wanted} or newer: this is {here}, which is enough to run and measure only"
        super().__init__(f"{name} needs the package {module!r}, which is not installed: {how}")


class PluginError(EdgeCnnError):
    """Another package's table row cannot be used: it fails, has the wrong type, or its name is already used."""


class SourceError(EdgeCnnError):
    """A network that cannot be loaded, or does not answer as its task requires."""


class WeightsError(SourceError):
    """A weights file that cannot be read, or does not fit its network."""


class DataError(EdgeCnnError):
    """An image, a video, a camera or a data set that cannot be read."""


class SplitError(DataError):
    """A data set without the requested split."""


class BundleError(EdgeCnnError):
    """A bundle that is damaged, unfinished, or was written by a newer edgecnn."""


class UnknownTaskError(BundleError):
    """A bundle or a saved network with a task that no installed package has."""


class SignatureError(BundleError):
    """A bundle without a trusted signature of its content, older than what ran here, or expired."""

    exit_code = 1


class GateError(EdgeCnnError):
    """A network was run and differs from what was trained."""

    exit_code = 1


class ConversionError(GateError):
    """The conversion tool failed on this graph."""


class ParityError(GateError):
    """The converted network's answers differ."""


class BlindError(GateError):
    """The network's outputs hardly differ between frames, so a comparison would prove nothing."""


class AccuracyError(GateError):
    """The converted network's metric is too low."""


class SpeedError(GateError):
    """The int8 network is no faster than the float one that it was made from."""


class TrainingError(GateError):
    """A training failed: its loss is not finite, or memory ran out."""


class DeviceError(EdgeCnnError):
    """A camera, an accelerator or a runtime is missing or fails."""

    exit_code = 3


class LoginError(DeviceError):
    """A camera refuses the login: waiting would not help."""


class BoardError(DeviceError):
    """Another machine (`--on`) cannot be reached, lacks something, or was lost during a job."""


class StorageError(EdgeCnnError):
    """The disk is full, or the place is not writable."""

    exit_code = 3


class InternalError(EdgeCnnError):
    """An unexpected error in a child or on a board: a bug in edgecnn or in a library."""

    exit_code = 3


_LONGEST_REASON = 8192
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_LINE = re.compile(r"(?P<kind>[A-Z][A-Za-z0-9]{0,62}Error): (?P<reason>.+)")
_EXIT_CODES = (1, 2, 3)


@dataclass(frozen=True)
class Fault:
    """An error in a form that can be passed from a child, a board or a thread to the exit code.

    Attributes:
        kind: name of the error's class.
        reason: its text.
        exit_code: the command line's exit code.
        crash: how a process ended without reporting an error: a signal's name, "exit code 3" or "timeout"; "" for
            an error that was raised.
    """

    kind: str
    reason: str
    exit_code: int = 3
    crash: str = ""

    @classmethod
    def of(cls, error: BaseException) -> Fault:
        """From any error: one of ours, or another one, which is an internal failure."""
        known = getattr(error, "fault", None)
        if isinstance(known, Fault):
            return known
        code = error.exit_code if isinstance(error, EdgeCnnError) else InternalError.exit_code
        return cls(type(error).__name__, str(error)[:_LONGEST_REASON], code)

    @classmethod
    def crashed(cls, how: str, reason: str) -> Fault:
        """From a process that crashed: ended by the runtime, a driver or the system."""
        return cls(DeviceError.__name__, reason[:_LONGEST_REASON], DeviceError.exit_code, how)

    @classmethod
    def of_line(cls, line: str, exit_code: int) -> Fault:
        """From the last line of a command line elsewhere, "SpecError: …", and its exit code."""
        exit_code = exit_code if exit_code in _EXIT_CODES else InternalError.exit_code
        found = _LINE.fullmatch(line.strip())
        if found is None or found["kind"] not in _classes():
            kind = {1: GateError, 2: SpecError}.get(exit_code, DeviceError)
            return cls(kind.__name__, line.strip()[:_LONGEST_REASON], exit_code)
        return cls(found["kind"], found["reason"][:_LONGEST_REASON], exit_code)

    @classmethod
    def from_document(cls, document: Any) -> Fault:
        """From `document`, as received; another form becomes an internal failure."""
        fields = document if isinstance(document, dict) else {}
        kind, reason = fields.get("kind"), fields.get("reason")
        code, crash = fields.get("exit_code"), fields.get("crash", "")
        if not (isinstance(kind, str) and _NAME.fullmatch(kind) and isinstance(reason, str) and isinstance(crash, str)):
            return cls(InternalError.__name__, f"an error of no known form: {str(document)[:200]}")
        code = code if code in _EXIT_CODES else InternalError.exit_code
        return cls(kind, reason[:_LONGEST_REASON], code, crash[:64])

    def document(self) -> dict[str, Any]:
        """The fault as plain values."""
        return asdict(self)

    def as_error(self) -> EdgeCnnError:
        """An error of its class; for an unknown class, an InternalError that names it."""
        found = _classes().get(self.kind)
        text = self.reason if found is not None else f"{self.kind}: {self.reason}"
        found = found or InternalError
        error = found.__new__(found)
        Exception.__init__(error, text)
        error.fault = self
        return error


def _classes() -> dict[str, type[EdgeCnnError]]:
    """Name → class, for every error of the family."""

    def below(parent: type[EdgeCnnError]) -> Iterator[type[EdgeCnnError]]:
        for child in parent.__subclasses__():
            yield child
            yield from below(child)

    family: list[type[EdgeCnnError]] = [EdgeCnnError, *below(EdgeCnnError)]
    return {error.__name__: error for error in family}
