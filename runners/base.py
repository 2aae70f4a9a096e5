"""A runner: frame of any size in, result in source pixels out, whatever runtime is underneath."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgecnn._devices import RUNTIMES, DeviceName, Executor, parse_device, processor_name
from edgecnn.bundle import PRECISIONS, QUANTIZED, Artifact, Bundle, Manifest, TensorSpec
from edgecnn.errors import BundleError, DeviceError, MissingDependencyError, SpecError
from edgecnn.evidence import LayerTime, Opened
from edgecnn.frame import FrameFitter, FrameSpec
from edgecnn.registry import BACKENDS
from edgecnn.results import Result, UInt8Array
from edgecnn.targets import formats_here, threads_here
from edgecnn.tasks import Task

Arrays = Mapping[str, NDArray[Any]]


_MOST = 0.5


@dataclass(frozen=True, kw_only=True)
class FoundDevice:
    """A device that a runtime sees on this machine.

    Attributes:
        word: to ask for exactly this one: "openvino:GPU.0".
        kind: "cpu", "gpu" or "npu".
        provider: the runtime's name for it.
        device_name: the processor, GPU or NPU; "" where only opening something would tell.
    """

    word: str
    kind: str
    provider: str
    device_name: str


@dataclass(frozen=True, kw_only=True)
class LayerRequest:
    """How layers are to be timed.

    Attributes:
        device, precision, threads: as for a back end.
        warmup, calls: inferences before, and those that count.
    """

    device: DeviceName
    precision: str
    threads: int
    warmup: int = 3
    calls: int = 20


def layer_times(layers: Sequence[LayerTime], samples_ms: Sequence[Sequence[float]], calls: int) -> list[LayerTime]:
    """The layers with their times and shares, slowest first.

    Args:
        layers: without times.
        samples_ms: of each; one that runs several times in an inference has as many a call.
        calls: inferences.
    """
    times = [float(np.median(taken)) * len(taken) / calls for taken in samples_ms]
    total = sum(times) or 1.0
    timed = [
        msgspec.structs.replace(layer, time_ms=round(taken, 6), share=round(taken / total, 6))
        for layer, taken in zip(layers, times, strict=True)
    ]
    return sorted(timed, key=lambda layer: -layer.time_ms)


class Backend(Protocol):
    """One artifact, open on one device: arrays in, arrays out.

    Not for two threads at once; `Runner` sees to that. The arrays that `infer` returns may be the runtime's own
    memory: they are valid until the next `infer` or `close`.
    """

    opened: Opened

    @classmethod
    def precisions(cls, artifact_precision: str) -> Sequence[str]:
        """What a file of this precision can be run in; the first is what runs when nobody asks."""
        ...

    @classmethod
    def devices(cls) -> Sequence[FoundDevice]:
        """The devices that the runtime sees now; opens nothing."""
        ...

    def __init__(
        self, path: Path, *, outputs: Sequence[TensorSpec], device: DeviceName, precision: str, threads: int
    ) -> None:
        """Open the file.

        Raises:
            DeviceError: the device is not there, the runtime fails on the file, or it would run it elsewhere or in
                another precision than was asked for.
        """
        ...

    def infer(self, frame: UInt8Array) -> Arrays:
        """Run one batch of frames, uint8 [batch, height, width, 3] BGR, C-contiguous."""
        ...

    def close(self) -> None:
        """Give back what it holds; a second call does nothing."""
        ...


@dataclass(frozen=True, slots=True)
class StageTimes:
    """How long the stages of one frame took, in nanoseconds."""

    fit_ns: int
    infer_ns: int
    finish_ns: int


class Runner:
    """FrameSpec + Backend + Task: a picture in, a Result out.

    One call at a time: calls from several threads wait for each other, and each gets its own result.
    """

    def __init__(self, backend: Backend, *, frame: FrameSpec, task: Task, batch: int = 1) -> None:
        self.backend = backend
        self.frame = frame
        self.task = task
        self.format = ""
        self.precision = backend.opened.precision
        self.stage_times = StageTimes(0, 0, 0)
        self._fitter = FrameFitter(frame)
        self._batch = batch
        self._lock = threading.Lock()
        self._closed = False

    def __call__(self, image: UInt8Array) -> Result:
        """What the network says of one picture.

        Args:
            image: uint8 [height, width, 3] BGR, any size.

        Raises:
            SpecError: not such an array, or the runner is closed.
            DeviceError: the runtime failed.
        """
        with self._lock:
            if self._closed:
                raise SpecError("this runner is closed: open another")
            start = time.perf_counter_ns()
            frame, place = self._fitter(image)
            if self._batch > 1:  # a batch artifact answers single pictures too, at the price of the batch
                frame = np.repeat(frame, self._batch, axis=0)
            fitted = time.perf_counter_ns()
            outputs = self.backend.infer(frame)
            inferred = time.perf_counter_ns()
            result = self.task.finish(outputs, place)
            finished = time.perf_counter_ns()
            self.stage_times = StageTimes(fitted - start, inferred - fitted, finished - inferred)
            return result

    def set_thresholds(self, *, score: float | None = None, nms_iou: float | None = None) -> None:
        """Answer with other thresholds from the next result on; from any thread, and without waiting.

        Raises:
            SpecError: as `with_thresholds`.
        """
        self.task = with_thresholds(self.task, score=score, nms_iou=nms_iou)

    def close(self) -> None:
        """Give the runtime's memory back; a second call does nothing."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self.backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_runner(
    bundle: str | Path | Bundle,
    *,
    device: str = "cpu",
    format: str | None = None,  # noqa: A002 - the command line's word
    precision: str | None = None,
    threads: int | None = None,
    score: float | None = None,
    nms_iou: float | None = None,
) -> Runner:
    """Open a bundle on a device.

    Args:
        bundle: a NAME.edge folder.
        device: "cpu", "gpu", "npu", or exactly, as in "openvino:GPU.0" or "onnxruntime:cuda" (`edgecnn devices` lists
            them); "auto" allows a choice, and takes int8 where it was measured on this processor to be accurate and
            faster.
        format: "onnx", "openvino" or "tflite"; without it the first of openvino, onnx, tflite that the bundle
            holds, that is installed here, and that has such a device.
        precision: what is to run; without it fp32 where the bundle has it. "bf16" runs OpenVINO's fp32 file.
        threads: of one inference; without it, the cores that this process may use, or what its board's target says.
        score, nms_iou: a detector's thresholds; without them, the bundle's.

    Raises:
        BundleError: damaged, or holds no such artifact.
        MissingDependencyError: the runtime is not installed.
        DeviceError: the device is not there, or the runtime fails.
        SpecError: thresholds for a task that has none, or threads below 1.
    """
    opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    name = parse_device(device)
    if threads is not None and threads < 1:
        raise SpecError(f"threads must be at least 1, got {threads}")
    artifact, run_precision = choose_artifact(opened, device=name, format=format, precision=precision)
    backend = BACKENDS.get(artifact.format)(
        opened.checked_path(artifact),
        outputs=opened.manifest.outputs,
        device=name,
        precision=run_precision,
        threads=threads or threads_here(),
    )
    try:
        _check_int8(backend.opened, artifact)
    except DeviceError:
        backend.close()
        raise
    manifest = opened.manifest
    task = with_thresholds(manifest.task, score=score, nms_iou=nms_iou)
    runner = Runner(backend, frame=manifest.frame, task=task, batch=manifest.batch)
    runner.format, runner.precision = artifact.format, run_precision
    return runner


def choose_artifact(
    bundle: Bundle,
    *,
    device: DeviceName,
    format: str | None,  # noqa: A002
    precision: str | None,
) -> tuple[Artifact, str]:
    """The artifact that these words mean, and the precision to run it in; nothing is opened."""
    manifest = bundle.manifest
    if format is not None:
        BACKENDS.extra(format)  # an unknown name is refused here, with what is near
    if device.runtime:
        meant = RUNTIMES[device.runtime]
        if format not in (None, meant):
            raise SpecError(f"device {device.text!r} belongs to {meant}, but the format asked for is {format!r}")
        format = meant  # noqa: A001
    for candidate in [format] if format else formats_for(device, _usable_formats(manifest, device)):
        for artifact in _best_first(manifest, candidate, device):
            if precision is None:
                return artifact, artifact.precision
            if precision in BACKENDS.get(candidate).precisions(artifact.precision):
                return artifact, precision
    wanted = " ".join(word for word in (format, precision) if word) or "artifact for an installed runtime"
    raise BundleError(f"{bundle.folder} holds no {wanted} for device {device.text!r}; it holds: {held(manifest)}")


def opens_on(artifact: Artifact, device: DeviceName) -> bool:
    """Whether an artifact may be opened on a device: one that was compiled for another may not."""
    runtime = next((runtime for runtime, name in RUNTIMES.items() if name == artifact.format), "")
    return not artifact.device or artifact.device in {row.word_in_full for row in device.executors(runtime)}


def artifacts_for(manifest: Manifest, device: DeviceName, *, precision: str | None) -> list[Artifact]:
    """Those that may be opened on a device; where some were compiled for it, and no precision is asked for, these."""
    fitting = [artifact for artifact in manifest.artifacts if opens_on(artifact, device)]
    compiled = [artifact for artifact in fitting if artifact.device]
    return compiled if compiled and precision is None else fitting


def held(manifest: Manifest) -> str:
    """A bundle's artifacts, for messages, with the device of those that want one."""
    names = [a.label + (f" (device {a.device})" if a.device else "") for a in manifest.artifacts]
    return ", ".join(names) or "none"


def with_thresholds(task: Task, *, score: float | None, nms_iou: float | None) -> Task:
    """The task with other thresholds.

    Raises:
        SpecError: the task has none, or they are outside 0..1.
    """
    changes = {"score_threshold": score, "nms_iou": nms_iou}
    changes = {name: value for name, value in changes.items() if value is not None}
    if not changes:
        return task
    if not hasattr(task, "score_threshold"):
        raise SpecError(f"score and nms-iou are thresholds of detectors; this network's task is {task.name}")
    for name, value in changes.items():
        if value is not None and not 0 <= value <= 1:
            raise SpecError(f"{name} must be in 0..1, got {value}")
    return msgspec.structs.replace(task, **changes)


def _usable_formats(manifest: Manifest, device: DeviceName) -> list[str]:
    held = {artifact.format for artifact in manifest.artifacts if opens_on(artifact, device)}
    installed = BACKENDS.installed()
    usable = [name for name in formats_here() if name in installed and name in held]
    if held and not usable:
        first = next(name for name in BACKENDS.names() if name in held)
        raise MissingDependencyError("this bundle", " or ".join(sorted(held)) + " runtime", extra=BACKENDS.extra(first))
    return usable


def formats_for(device: DeviceName, usable: Sequence[str]) -> list[str]:
    """The formats whose runtime has such a device here.

    Raises:
        DeviceError: none has; says what each has, and needs.
    """
    if "cpu" in device.kinds:  # every runtime has one, and none is loaded to find out
        return list(usable)
    runtimes = {name: runtime for runtime, name in RUNTIMES.items()}
    fitting, absent = [], []
    for name in usable:
        wanted = device.executors(runtimes[name])
        found = BACKENDS.get(name).devices()
        if any(row.provider == there.provider.partition(".")[0] for row in wanted for there in found):
            fitting.append(name)
        else:
            has = [there.word for there in found]
            absent.append(absent_device(device, runtime=runtimes[name], available=has, wanted=wanted))
    if absent and not fitting:
        raise DeviceError("\n".join(str(error) for error in absent))
    return fitting


def _best_first(manifest: Manifest, format: str, device: DeviceName) -> list[Artifact]:  # noqa: A002
    """Those that open there; first what was compiled for it, then by precision."""
    order = list(PRECISIONS)
    held = [a for a in manifest.artifacts if a.format == format and opens_on(a, device)]
    held.sort(key=lambda a: order.index(a.precision) if a.precision in order else len(order))
    held.sort(key=lambda a: not a.device)
    if device.device == "auto":  # a stable sort: what is not worth it stays behind float
        held.sort(key=lambda a: a.precision not in QUANTIZED or not _worth_choosing(a))
    return held


def _worth_choosing(artifact: Artifact) -> bool:
    """Whether an int8 artifact was measured to be as right as float within its bound, and faster, on this processor."""
    evidence = artifact.evidence
    latency = evidence.quantization.latency if evidence.quantization is not None else None
    accurate = bool(evidence.accuracy) and not any(measured.allowed_drop for measured in evidence.accuracy)
    return accurate and latency is not None and latency.low > 1 and latency.device_name == processor_name()


def choose_executor(
    device: DeviceName, *, runtime: str, package: str, available: Sequence[str], listed: Sequence[str] = ()
) -> Executor:
    """The preferred row of the table that is what was asked for and is there.

    Args:
        device: as asked for.
        runtime: whose rows: "openvino", "onnxruntime" or "litert".
        package: the runtime's name for people.
        available: its names of the providers that are there.
        listed: what the refusal says is there; without it, `available`.

    Raises:
        DeviceError: nothing of that is there; says what is, and what to install.
    """
    wanted = device.executors(runtime)
    for row in wanted:
        if row.provider in available:
            return row
    raise absent_device(device, runtime=package, available=listed or available, wanted=wanted)


def absent_device(
    device: DeviceName, *, runtime: str, available: Sequence[str], wanted: Sequence[Executor] = (), why: str = ""
) -> DeviceError:
    """The error of a device that a runtime doesn't have."""
    text = f"device {device.text!r} is not there for {runtime}; here it has: {', '.join(available)}."
    if why:
        text += f" {why[0].upper()}{why[1:].rstrip('.')}."
    ways = [f"{row.word_in_full} needs {row.needs} (pip install 'edgecnn[{row.extra}]')" for row in wanted]
    return DeviceError(f"{text} {'; '.join(ways) or 'Ask for one of these, or for auto to let edgecnn choose'}")


def check_execution(opened: Opened, path: Path) -> Opened:
    """What was opened, if it is what was asked for.

    Most of the graph's operators must be on the device, and its convolutions and matrix products must compute in the
    precision that was asked for, as far as the runtime says; "fp16" leaves that to the device (docs/decisions/0002).

    Raises:
        DeviceError: it is not.
    """
    if opened.operators and (opened.operators_on_device or 0) < _MOST * opened.operators:
        elsewhere = ", ".join(f"{count} on {where}" for where, count in opened.operators_elsewhere.items())
        raise DeviceError(
            f"{opened.provider} takes only {opened.operators_on_device} of the {opened.operators} operators of "
            f"{path.name}; the others would run elsewhere ({elsewhere}): ask for that device instead"
        )
    computes = opened.arithmetic
    wrong = {
        "fp32": bool(computes) and set(computes) != {"fp32"},
        "bf16": bool(computes) and "bf16" not in computes,
    }
    if wrong.get(opened.precision, False):
        raise _other_precision(opened, path.name)
    return opened


def _check_int8(opened: Opened, artifact: Artifact) -> None:
    """An artifact with layers in int8 must run some of them in int8; how many, its evidence says."""
    made = artifact.evidence.quantization
    if made is not None and made.int8_mac_share > 0 and opened.arithmetic and "int8" not in opened.arithmetic:
        raise _other_precision(opened, artifact.path)


def _other_precision(opened: Opened, file: str) -> DeviceError:
    found = ", ".join(f"{count} in {name}" for name, count in opened.arithmetic.items())
    return DeviceError(
        f"{file} was asked to run in {opened.precision}, but on {opened.device_name} {opened.provider} computes "
        f"otherwise (convolutions and matrix products: {found})"
    )
