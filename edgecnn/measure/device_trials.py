"""Tests which runtime runs on which device: each runs a small network in a child process."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from edgecnn.bundle.evidence import Opened
from edgecnn.child import Child
from edgecnn.errors import EdgeCnnError, Fault
from edgecnn.formats import FORMATS, REFERENCE, Executor, Format
from edgecnn.formats.devices import all_executors

CHILD = "edgecnn.measure._trial_child"
_TIMEOUT_S = 120.0
# Scores are probabilities: half precision differs by a thousandth, wrong results by far more.
MAX_DIFFERENCE = 0.02


class DeviceTrial(msgspec.Struct, frozen=True, kw_only=True):
    """Result of testing a runtime on a device.

    Attributes:
        word: the device name to give, such as "onnxruntime:cuda".
        kind: "cpu", "gpu" or "npu".
        works: True if a small network was opened there and answered correctly; None where that was not tested.
        device_name: name of the CPU, GPU or NPU; "" where it was not found.
        ran_on: proof of execution; None where nothing ran.
        why: why it does not work, or was not tested.
        needs: what it needs: on the machine, and to install.
        seconds: time to open it and run once.
    """

    word: str
    kind: str
    works: bool | None
    device_name: str = ""
    ran_on: Opened | None = None
    why: str = ""
    needs: str = ""
    seconds: float | None = None


class Trials(msgspec.Struct, frozen=True, kw_only=True):
    """Results of testing devices.

    Attributes:
        trials: one for each executor that was requested; one for each of several GPUs of one kind.
        providers: runtime → its own names of the providers available here.
    """

    trials: tuple[DeviceTrial, ...]
    providers: dict[str, tuple[str, ...]]


def try_devices(wanted: Sequence[Executor], *, progress: Callable[[int, int, str], None] | None = None) -> Trials:
    """Test the requested executors whose runtime is installed.

    Args:
        wanted: executors from `edgecnn.formats.devices`.
        progress: called with (done, in all, name of the device).
    """
    present = {row.runtime.name: row for row in FORMATS if row.runs_here}
    trials = _Trials(present, progress)
    outcomes = trials.run([row for row in wanted if row.runtime in present])
    return Trials(
        trials=tuple(trial for row in wanted for trial in outcomes.get(row.full_name, [_without_runtime(row)])),
        providers={
            runtime: tuple(dict.fromkeys(there["provider"] for there in found))
            for runtime, found in trials.found.items()
        },
    )


def _without_runtime(row: Executor) -> DeviceTrial:
    if row.runtime == REFERENCE.name and REFERENCE.is_installed:
        why = "the reference on a workstation; not tested, because importing it takes longer than testing all others"
        return DeviceTrial(word=row.full_name, kind=row.kind, works=None, why=why)
    why = f"{row.runtime} is not installed"
    return DeviceTrial(word=row.full_name, kind=row.kind, works=False, why=why, needs=_needs(row))


def _needs(row: Executor) -> str:
    return "; ".join(filter(None, (row.needs, row.how_to_install)))


class _Trials:
    """Tests devices, each in a child process.

    Attributes:
        found: runtime → the devices that it sees.
    """

    def __init__(self, formats: Mapping[str, Format], progress: Callable[[int, int, str], None] | None) -> None:
        """`formats` are the formats whose runtimes are installed, by the runtime's name."""
        self._formats = formats
        self._progress = progress or (lambda done, total, what: None)
        self.found: dict[str, list[dict[str, Any]]] = {}

    def run(self, rows: Sequence[Executor]) -> dict[str, list[DeviceTrial]]:
        """Device name → its results; one for each of several GPUs of one kind."""
        outcomes: dict[str, list[DeviceTrial]] = {}
        # The CPU is always tested: the same process reports the runtime's other devices.
        first = [row for row in all_executors() if row.kind == "cpu" and row.runtime in self._formats]
        with _started([(self._formats[row.runtime].name, row.full_name) for row in first]) as children:
            for done, (row, child) in enumerate(zip(first, children, strict=True)):
                self._progress(done, len(first) + len(rows), row.full_name)
                report = child.answer()
                self.found[row.runtime] = report.get("found", [])
                name = next((there["device_name"] for there in self.found[row.runtime]), "")
                outcomes[row.full_name] = [_trial(row, row.full_name, name, report)]
        for done, row in enumerate(rows, start=len(first)):
            if row.kind == "cpu":
                continue
            self._progress(done, len(first) + len(rows), row.full_name)
            there = [found for found in self.found[row.runtime] if found["provider"].partition(".")[0] == row.provider]
            outcomes[row.full_name] = [self._try(row, found) for found in there] or [_absent(row)]
        return outcomes

    def _try(self, row: Executor, found: dict[str, Any]) -> DeviceTrial:
        word = f"{row.runtime}:{found['provider']}" if "." in found["provider"] else row.full_name
        with _started([(self._formats[row.runtime].name, word)]) as (child,):
            return _trial(row, word, found["device_name"], child.answer())


def _absent(row: Executor) -> DeviceTrial:
    return DeviceTrial(
        word=row.full_name,
        kind=row.kind,
        works=False,
        why=f"{row.runtime} has no {row.provider} here",
        needs=_needs(row),
    )


def _trial(row: Executor, word: str, device_name: str, report: dict[str, Any]) -> DeviceTrial:
    reason = report.get("reason", "")
    if not reason and "difference" not in report:
        why = "it is available; not tested, because no shipped network has its format"
        return DeviceTrial(word=word, kind=row.kind, works=None, device_name=device_name, why=why)
    if not reason and report["difference"] > MAX_DIFFERENCE:
        reason = f"its answer differs by {report['difference']:.2g} from the expected one: don't use it"
    opened = msgspec.convert(report["opened"], Opened) if "opened" in report else None
    return DeviceTrial(
        word=word,
        kind=row.kind,
        works=not reason,
        device_name=opened.device_name if opened is not None else device_name,
        ran_on=opened,
        why=reason,
        needs=_needs(row) if reason else "",
        seconds=report.get("seconds"),
    )


class _Trier:
    """A child process that tests one device."""

    def __init__(self, format_name: str, device: str) -> None:
        self._child = Child(CHILD, format_name, device, timeout_s=_TIMEOUT_S)
        self._child.send("try")

    def answer(self) -> dict[str, Any]:
        """Its answer; a "reason" where it failed, crashed or did not answer in time."""
        try:
            report = self._child.receive()
        except EdgeCnnError as ended:
            return {"reason": _why(Fault.of(ended))}
        fault = report.get("fault")
        return report if fault is None else {**report, "reason": _why(Fault.from_document(fault))}

    def end(self) -> None:
        """End the process."""
        self._child.release()


def _why(fault: Fault) -> str:
    if fault.crash.startswith("SIG"):
        return f"the runtime crashed ({fault.crash})"
    if fault.crash:
        return f"its process gave no answer ({fault.crash})"
    return str(fault.as_error())


@contextlib.contextmanager
def _started(jobs: Sequence[tuple[str, str]]) -> Iterator[list[_Trier]]:
    """Child processes for (format, device), all at once; all are ended afterwards."""
    with contextlib.ExitStack() as stack:
        children = []
        for format_name, device in jobs:
            children.append(_Trier(format_name, device))
            stack.callback(children[-1].end)
        yield children
