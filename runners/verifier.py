"""An artifact that was never opened on this machine is first opened by a child process, where a crash does no harm.

Runtimes expect files from their own tools: with one byte changed, some files crash the process. What a
child has opened and run is remembered, by the hashes of its files, in `$XDG_CACHE_HOME/edgecnn/opened.json`, so that
this costs time only once per file and machine. Files that ship with edgecnn count as opened.

`EDGECNN_VERIFY=0` in the environment, or `verify=False` in `open_runner`, turns this off: for a program that trusts its
files, or that is itself a process that may crash.
"""

from __future__ import annotations

import hashlib
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

import msgspec

from edgecnn import remembered
from edgecnn.bundle import Artifact, Bundle, TensorSpec
from edgecnn.bundle.shipped import is_shipped
from edgecnn.child import IN_CHILD, Child
from edgecnn.errors import (
    BundleError,
    DeviceError,
    EdgeCnnError,
    Fault,
    MissingDependencyError,
    UnknownNameError,
)
from edgecnn.formats import FORMATS
from edgecnn.formats.devices import DeviceName, parse_device
from edgecnn.processor import processor_name

CHILD = "edgecnn.runners._verifier_child"
OFF = "EDGECNN_VERIFY"  # "0" turns the check off
_START_S = 60.0
CPU_TIMEOUT_S = 120.0  # enough for a large network on a small board
_COMPILE_TIMEOUT_S = 900.0  # enough to compile for a GPU or an NPU
_MOST_REMEMBERED = 1024
_FILE = "opened.json"
_NOT_THERE = (UnknownNameError, MissingDependencyError)  # plug-ins that only this process has loaded
_UNTESTED = "%s is opened untested: no child process could be started (%s)"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Opening:
    """How a file is opened; the child opens it in the same way.

    Attributes:
        path: the file.
        sha256: hash of the file and of each of its companion files.
        format, outputs, device, precision, threads: as for a back end.
        frame_shape: [batch, height, width, 3].
    """

    path: Path
    sha256: Sequence[str]
    format: str
    outputs: Sequence[TensorSpec]
    device: DeviceName
    precision: str
    threads: int | None = None
    frame_shape: tuple[int, ...]

    @property
    def key(self) -> str:
        """Identifies the file and the way it is opened."""
        device = "cpu" if self.device.is_cpu else self.device.text
        words = [self.format, FORMATS.get(self.format).runtime.versions, device, self.precision, processor_name()]
        words += sorted(self.sha256)
        return hashlib.sha256("\0".join(words).encode()).hexdigest()[:40]


class Verifier:
    """Opens files in a child process; one child serves until it ends."""

    def __init__(self) -> None:
        self._child: Child | None = None

    def check(self, opening: Opening) -> None:
        """Open a file in the child and run it, unless this was done here before.

        Raises:
            BundleError: on the CPU, the file crashes the process that opens it, or hangs it.
            DeviceError: the same on another device, where a driver may be the cause; or the runtime refuses the file:
                a file refused there could crash here, because data after a malformed part can be anything.
        """
        if not is_wanted() or opened_before(opening):
            return
        is_new = self._child is None
        try:
            child = self._started()
        except EdgeCnnError as failed:  # a program whose interpreter cannot be started again
            _log.warning(_UNTESTED, opening.path.name, failed)
            return
        child.send(
            "open",
            path=str(opening.path.absolute()),
            format=opening.format,
            outputs=msgspec.to_builtins(opening.outputs),
            device=opening.device.text,
            precision=opening.precision,
            threads=opening.threads,
            frame_shape=opening.frame_shape,
        )
        on_cpu = opening.device.is_cpu
        try:
            FORMATS.get(opening.format).load_backend()  # import the runtime here while the child does the same
        except EdgeCnnError:
            self.close()
            return  # opening it here will give the error
        if is_new:
            try:
                child.receive()  # of "hello"
            except EdgeCnnError as failed:
                self.close()
                _log.warning(_UNTESTED, opening.path.name, failed)
                return
        try:
            child.receive(expected_s=(CPU_TIMEOUT_S if on_cpu else _COMPILE_TIMEOUT_S) - _START_S)
        except EdgeCnnError as failed:
            fault = Fault.of(failed)
            if fault.crash:
                self.close()
                raise crash_error(opening, fault, on_cpu) from failed
            if not isinstance(failed, _NOT_THERE):
                name = opening.path.name
                reason = fault.reason if name in fault.reason else f"{name}: {fault.reason}"
                raise replace(fault, reason=reason).as_error() from failed
        else:
            remember(opening)

    def close(self) -> None:
        """End the child; a second call does nothing."""
        if self._child is not None:
            self._child.release()
            self._child = None

    def _started(self) -> Child:
        if self._child is None:
            if "python" not in Path(sys.executable or "").name.lower():
                raise DeviceError(f"{sys.executable or 'this program'} is not a Python interpreter")
            self._child = Child(CHILD, timeout_s=_START_S)
            self._child.send("hello")  # not waited for: the runtime is imported here while the child starts
        return self._child

    def __enter__(self) -> Verifier:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def verify_first(
    bundle: Bundle,
    artifact: Artifact,
    *,
    device: DeviceName | None = None,
    precision: str = "fp32",
    threads: int | None = None,
) -> None:
    """Let a child process open a bundle's artifact first, unless it was opened here before or ships with edgecnn.

    Its hashes must have been checked (`Bundle.checked_path`); arguments are those of `open_backend`.

    Raises:
        BundleError, DeviceError: see `Verifier.check`.
    """
    device = device or parse_device("cpu")
    if not is_wanted() or (is_shipped(bundle.folder) and device.is_cpu):
        return
    manifest = bundle.manifest
    opening = Opening(
        path=bundle.folder / artifact.path,
        sha256=[record.sha256 for record in artifact.files],
        format=artifact.format,
        outputs=manifest.outputs,
        device=device,
        precision=precision,
        threads=threads,
        frame_shape=(manifest.batch, manifest.frame.height_px, manifest.frame.width_px, 3),
    )
    with Verifier() as verifier:
        verifier.check(opening)


def is_wanted() -> bool:
    """Whether files are tested first: not in a child that does the test, nor where the user turned it off."""
    return not os.environ.get(IN_CHILD) and os.environ.get(OFF) != "0"


def opened_before(opening: Opening) -> bool:
    """Whether a child has opened this file here before, in the same way."""
    return opening.key in _remembered()


def remember(opening: Opening) -> None:
    """Record that a file was opened; if that cannot be written, it is tested again the next time."""
    keys = [key for key in _remembered() if key != opening.key]
    remembered.keep(_FILE, [*keys, opening.key][-_MOST_REMEMBERED:])


def _remembered() -> list[str]:
    """Keys, oldest first."""
    keys = remembered.recall(_FILE)
    return [key for key in keys if isinstance(key, str)] if isinstance(keys, list) else []


def crash_error(opening: Opening, fault: Fault, on_cpu: bool) -> EdgeCnnError:
    """The error for a child process that crashed or hung: the file is to blame, on an accelerator the driver."""
    how = "hangs" if fault.crash in ("timeout", "SIGXCPU") else f"crashes with {fault.crash}"
    runtime = FORMATS.get(opening.format).runtime.versions
    text = f"{opening.path}: a process that opens it with {runtime} on {opening.device.text} {how}"
    if on_cpu:
        error: EdgeCnnError = BundleError(f"{text}: the file is malformed; copy the bundle again, or convert again")
    else:
        error = DeviceError(f"{text}: its driver or compiler fails on this network; use another device or format")
    error.fault = Fault(type(error).__name__, str(error), error.exit_code, fault.crash)
    return error
