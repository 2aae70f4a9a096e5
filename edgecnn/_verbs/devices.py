"""Say what this machine computes with, and which runtime runs on what."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec

import edgecnn
from edgecnn._devices import EXECUTORS, RUNTIMES, Executor, parse_device
from edgecnn.evidence import Opened
from edgecnn.measure.hardware import Hardware, find_hardware
from edgecnn.measure.machine import Machine, describe_machine
from edgecnn.registry import BACKENDS
from edgecnn.runners.vulkan import vulkan_devices

_CHILD = "edgecnn.measure._trial_child"
_TIMEOUT_S = 120.0
_REFERENCE = "torch"
# Scores are probabilities: what computes in half precision is a thousandth off, what computes nonsense far more.
_MAX_DIFFERENCE = 0.02
# A runtime's packages: of ONNX Runtime, one of several takes the place of the others.
_PACKAGES = {
    "openvino": ("openvino",),
    "onnxruntime": (
        "onnxruntime",
        "onnxruntime-gpu",
        "onnxruntime-webgpu",
        "onnxruntime-directml",
        "onnxruntime-qnn",
    ),
    "litert": ("ai-edge-litert", "tflite-runtime"),
    "torch": ("torch",),
}


class RuntimeFound(msgspec.Struct, frozen=True, kw_only=True):
    """A runtime, installed or not.

    Attributes:
        name: "openvino", "onnxruntime", "litert" or "torch".
        packages: package → version, those that are installed.
        providers: its own names of what it could run on.
        install: what brings it, where it is not installed.
    """

    name: str
    packages: dict[str, str]
    providers: tuple[str, ...] = ()
    install: str = ""


class DeviceTrial(msgspec.Struct, frozen=True, kw_only=True):
    """A runtime on a device.

    Attributes:
        word: what to ask for, as in "onnxruntime:cuda".
        kind: "cpu", "gpu" or "npu".
        works: a small network was opened there and answered as it must; None where that was not tried.
        device_name: the processor, GPU or NPU; "" where it was not found.
        ran_on: proof of what ran; None where nothing did.
        why: why it does not work, or was not tried.
        needs: what it would need: of the machine, and to install.
        seconds: to open it and run once.
    """

    word: str
    kind: str
    works: bool | None
    device_name: str = ""
    ran_on: Opened | None = None
    why: str = ""
    needs: str = ""
    seconds: float | None = None


class DevicesReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a machine computes with.

    Attributes:
        machine: the processor, its instruction sets, the board and its state.
        hardware: GPUs and NPUs that the system sees, usable or not.
        vulkan: GPUs that Vulkan sees: name → type; "software" is a program and no hardware.
        runtimes: those that edgecnn knows.
        trials: each runtime on each kind of device that it knows.
    """

    machine: Machine
    hardware: tuple[Hardware, ...]
    vulkan: dict[str, str]
    runtimes: tuple[RuntimeFound, ...]
    trials: tuple[DeviceTrial, ...]


def devices(device: str | None = None, *, progress: Callable[[int, int, str], None] | None = None) -> DevicesReport:
    """Say what this machine computes with; each device is tried with a small network, in a process of its own.

    Args:
        device: only this ("cpu", "gpu", "onnxruntime:webgpu", …) is tried; without it, all.
        progress: called with (done, in all, what is being tried).

    Raises:
        UnknownNameError: no device is called so.
    """
    wanted = _wanted(device)
    installed = BACKENDS.installed()
    present = [name for name, format_name in RUNTIMES.items() if format_name in installed]
    trials = _Trials(present, progress)
    outcomes = trials.run([row for row in wanted if row.runtime in present])
    return DevicesReport(
        machine=describe_machine(),
        hardware=tuple(find_hardware()),
        vulkan={found.name: found.type for found in vulkan_devices()},
        runtimes=tuple(_runtime(name, trials.found.get(name, ())) for name in RUNTIMES),
        trials=tuple(trial for row in wanted for trial in outcomes.get(row.word_in_full, [_without_runtime(row)])),
    )


def _wanted(device: str | None) -> list[Executor]:
    if device is None:
        return list(EXECUTORS)
    name = parse_device(device)
    return [row for runtime in RUNTIMES for row in name.executors(runtime)]


def _runtime(name: str, found: Sequence[dict[str, Any]]) -> RuntimeFound:
    packages = {}
    for package in _PACKAGES[name]:
        with contextlib.suppress(PackageNotFoundError):
            packages[package] = version(package)
    extra = next(row.extra for row in EXECUTORS if row.runtime == name)
    return RuntimeFound(
        name=name,
        packages=packages,
        providers=tuple(dict.fromkeys(there["provider"] for there in found)),
        install="" if packages else f"pip install 'edgecnn[{extra}]'",
    )


def _without_runtime(row: Executor) -> DeviceTrial:
    if row.runtime == _REFERENCE and _runtime(_REFERENCE, ()).packages:
        why = "the reference on a workstation; not tried, for importing it takes longer than trying all the others"
        return DeviceTrial(word=row.word_in_full, kind=row.kind, works=None, why=why)
    why = f"{row.runtime} is not installed"
    return DeviceTrial(word=row.word_in_full, kind=row.kind, works=False, why=why, needs=_needs(row))


def _needs(row: Executor) -> str:
    return "; ".join(filter(None, (row.needs, f"pip install 'edgecnn[{row.extra}]'")))


class _Trials:
    """Tries devices, each in a process of its own.

    Attributes:
        found: runtime → what it sees.
    """

    def __init__(self, runtimes: Sequence[str], progress: Callable[[int, int, str], None] | None) -> None:
        self._runtimes = runtimes
        self._progress = progress or (lambda done, total, what: None)
        self.found: dict[str, list[dict[str, Any]]] = {}

    def run(self, rows: Sequence[Executor]) -> dict[str, list[DeviceTrial]]:
        """Word → what came of it; of several GPUs of one kind, one each."""
        outcomes: dict[str, list[DeviceTrial]] = {}
        # The processor is tried in any case: the same process says which other devices there are.
        first = [row for row in EXECUTORS if row.kind == "cpu" and row.runtime in self._runtimes]
        with _started([(RUNTIMES[row.runtime], row.word_in_full) for row in first]) as children:
            for done, (row, child) in enumerate(zip(first, children, strict=True)):
                self._progress(done, len(first) + len(rows), row.word_in_full)
                said = child.answer()
                self.found[row.runtime] = said.get("found", [])
                name = next((there["device_name"] for there in self.found[row.runtime]), "")
                outcomes[row.word_in_full] = [_trial(row, row.word_in_full, name, said)]
        for done, row in enumerate(rows, start=len(first)):
            if row.kind == "cpu":
                continue
            self._progress(done, len(first) + len(rows), row.word_in_full)
            there = [found for found in self.found[row.runtime] if found["provider"].partition(".")[0] == row.provider]
            outcomes[row.word_in_full] = [self._try(row, found) for found in there] or [_absent(row)]
        return outcomes

    @staticmethod
    def _try(row: Executor, found: dict[str, Any]) -> DeviceTrial:
        word = f"{row.runtime}:{found['provider']}" if "." in found["provider"] else row.word_in_full
        with _started([(RUNTIMES[row.runtime], word)]) as (child,):
            return _trial(row, word, found["device_name"], child.answer())


def _absent(row: Executor) -> DeviceTrial:
    return DeviceTrial(
        word=row.word_in_full,
        kind=row.kind,
        works=False,
        why=f"{row.runtime} has no {row.provider} here",
        needs=_needs(row),
    )


def _trial(row: Executor, word: str, device_name: str, said: dict[str, Any]) -> DeviceTrial:
    reason = said.get("reason", "")
    if not reason and said["difference"] > _MAX_DIFFERENCE:
        reason = f"it answers {said['difference']:.2g} off what it must: don't use it"
    opened = msgspec.convert(said["opened"], Opened) if "opened" in said else None
    return DeviceTrial(
        word=word,
        kind=row.kind,
        works=not reason,
        device_name=opened.device_name if opened is not None else device_name,
        ran_on=opened,
        why=reason,
        needs=_needs(row) if reason else "",
        seconds=said.get("seconds"),
    )


class _Child:
    """A process that tries one device."""

    def __init__(self, format_name: str, device: str) -> None:
        home = str(Path(edgecnn.__file__).resolve().parents[1])
        paths = [home, *filter(None, [os.environ.get("PYTHONPATH")])]
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", _CHILD, format_name, device],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )

    def answer(self) -> dict[str, Any]:
        """What it said; a "reason" where it died or said nothing for too long."""
        try:
            said, _ = self._process.communicate(timeout=_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            return {"reason": f"no answer within {_TIMEOUT_S:.0f} s"}
        code = self._process.returncode
        if code < 0:
            return {"reason": f"the runtime ended its process ({signal.Signals(-code).name})"}
        try:
            answer: dict[str, Any] = json.loads(said)
        except ValueError:
            return {"reason": f"its process ended with exit code {code}"}
        return answer

    def end(self) -> None:
        """Leave nothing running."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()


@contextlib.contextmanager
def _started(jobs: Sequence[tuple[str, str]]) -> Iterator[list[_Child]]:
    """Processes for (format, device), all at once; none is left."""
    with contextlib.ExitStack() as stack:
        children = []
        for format_name, device in jobs:
            children.append(_Child(format_name, device))
            stack.callback(children[-1].end)
        yield children
