"""ONNX Runtime."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from edgecnn._devices import EXECUTORS, DeviceName, Executor, processor_name
from edgecnn._quiet import quiet
from edgecnn.bundle import TensorSpec
from edgecnn.errors import DeviceError
from edgecnn.evidence import Opened
from edgecnn.results import UInt8Array
from edgecnn.runners import onnxruntime_qnn as qnn
from edgecnn.runners.base import Arrays, FoundDevice, absent_device, check_execution, choose_executor
from edgecnn.runners.vulkan import vulkan_devices

_CPU = "CPUExecutionProvider"
_WEBGPU = "WebGpuExecutionProvider"
_RECORD_ASSIGNMENT = "session.record_ep_graph_assignment_info"


class OnnxRuntimeBackend:
    """An ONNX file in an ONNX Runtime session."""

    opened: Opened

    @classmethod
    def precisions(cls, artifact_precision: str) -> Sequence[str]:
        """An ONNX file runs as it is."""
        return (artifact_precision,)

    @classmethod
    def devices(cls) -> Sequence[FoundDevice]:
        """The providers that this build of ONNX Runtime has; whether their device is there, only opening tells."""
        available = _available(EXECUTORS)
        return [
            FoundDevice(
                word=row.word_in_full,
                kind=row.kind,
                provider=row.provider,
                device_name=_device(row)[0],
            )
            for row in EXECUTORS
            if row.runtime == "onnxruntime" and row.provider in available
        ]

    def __init__(
        self, path: Path, *, outputs: Sequence[TensorSpec], device: DeviceName, precision: str, threads: int
    ) -> None:
        with contextlib.ExitStack() as stack:
            folder: Path | None = None
            if "cpu" not in device.kinds:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgecnn-")))
                stack.enter_context(quiet("onnxruntime"))
            row, self._session = open_session(path, device=device, precision=precision, threads=threads, profile=folder)
            self._input = self._session.get_inputs()[0].name
            self._outputs = [spec.name for spec in outputs]
            found = [output.name for output in self._session.get_outputs()]
            if not set(self._outputs) <= set(found):
                raise DeviceError(f"{path.name} has the outputs {found}, the manifest names {self._outputs}")
            on_qnn = row.provider == qnn.PROVIDER
            assigned = qnn.placed(self._session) if on_qnn else _assigned(self._session)
            executed = {} if folder is None or on_qnn else self._executed(folder)
        device_name, simulated = _device(row)
        placed = {name: max(assigned[name], executed.get(name, 0)) for name in {**assigned, **executed}}
        self.opened = check_execution(
            Opened(
                runtime=qnn.runtime_name() if on_qnn else f"onnxruntime {onnxruntime.__version__}",
                provider=row.provider,
                device_name=device_name,
                precision=precision,
                threads=threads,
                operators=sum(placed.values()) or None,
                operators_on_device=placed.get(row.provider, 0) if placed else None,
                operators_elsewhere={name: count for name, count in placed.items() if name != row.provider},
                simulated=simulated,
            ),
            path,
        )

    def infer(self, frame: UInt8Array) -> Arrays:
        """Run one batch of frames, uint8 [batch, height, width, 3] BGR."""
        try:
            values = self._session.run(self._outputs, {self._input: frame})
        except Exception as failed:
            raise DeviceError(f"onnxruntime failed on a frame of shape {list(frame.shape)}: {failed}") from failed
        return dict(zip(self._outputs, values, strict=True))

    def close(self) -> None:
        """Give the session back."""
        self.__dict__.pop("_session", None)

    def _executed(self, folder: Path) -> Mapping[str, int]:
        """Provider → kernels that it ran in one inference, from the runtime's own profile."""
        self.infer(np.zeros(self._session.get_inputs()[0].shape, np.uint8))
        self._session.end_profiling()
        (profile,) = folder.glob("*.json")
        return Counter(
            kernel["args"]["provider"] for kernel in kernels_in(json.loads(profile.read_text(encoding="utf-8")))
        )


def _available(rows: Sequence[Executor]) -> list[str]:
    """The providers of this build, and of those that are plug-ins the ones that are installed and have a device."""
    built_in = [name for name in onnxruntime.get_available_providers() if name != qnn.PROVIDER]
    if any(row.provider == qnn.PROVIDER for row in rows) and qnn.is_there():
        return [*built_in, qnn.PROVIDER]
    return list(built_in)


def _session(path: Path, options: Any, row: Executor, told: Mapping[str, str], precision: str) -> Any:
    if row.provider == qnn.PROVIDER:
        qnn.check_precision(path, precision)
        return qnn.open_session(path, options, told=told)
    # Providers outside the list are never used; one inside it that fails must not fall back in silence.
    return onnxruntime.InferenceSession(path, options, providers=[(row.provider, told)], disable_fallback=True)


def open_session(
    path: Path, *, device: DeviceName, precision: str, threads: int, profile: Path | None = None
) -> tuple[Executor, onnxruntime.InferenceSession]:
    """The row of the table that was chosen, and a session on its provider alone.

    Args:
        path: the file.
        device: as asked for.
        precision: that the file is in.
        threads: of one inference.
        profile: a folder for ONNX Runtime's profile, which `end_profiling` writes; None for none. Qualcomm's plug-in,
            which says itself what it has of the graph, writes none.

    Raises:
        DeviceError: the device is not there, or ONNX Runtime fails on the file.
    """
    available = _available(device.executors("onnxruntime"))
    row = choose_executor(device, runtime="onnxruntime", package="onnxruntime", available=available)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # warnings about graph details are not for users
    options.add_session_config_entry(_RECORD_ASSIGNMENT, "1")
    if profile is not None and row.provider != qnn.PROVIDER:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile / "profile")
    told = {**row.options, **({"device_id": str(device.index)} if device.index is not None else {})}
    try:
        session = _session(path, options, row, told, precision)
    except DeviceError:
        raise
    except Exception as failed:
        raise DeviceError(f"onnxruntime cannot open {path.name} on {row.provider}: {failed}") from failed
    if session.get_providers()[0] != row.provider:
        raise absent_device(device, runtime="onnxruntime", available=session.get_providers(), wanted=[row])
    return row, session


def kernels_in(profile: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of a profile's events, those of kernels that ran; each tells its provider."""
    return [
        event for event in profile if event.get("cat") == "Node" and event.get("args", {}).get("provider") is not None
    ]


def _assigned(session: Any) -> Counter[str]:
    """Provider → nodes that were given to it when the file was opened; empty in versions that don't tell.

    A provider that compiles whole subgraphs shows as one kernel in a profile, and is told here node by node; of one
    with kernels of its own (WebGPU), this list has gaps, but not its profile: of the two counts, the larger is right.
    """
    counts: Counter[str] = Counter()
    if hasattr(session, "get_provider_graph_assignment_info"):
        for subgraph in session.get_provider_graph_assignment_info():
            counts[subgraph.ep_name] += len(subgraph.get_nodes())
    return counts


def _device(row: Executor) -> tuple[str, bool]:
    """The name of the device that a provider runs on, and whether it is simulated; its kind where nobody says."""
    if row.provider == _CPU:
        return processor_name(), False
    if row.provider == qnn.PROVIDER:
        return qnn.device_name(), qnn.is_simulated()
    if row.provider == _WEBGPU:
        first = next(iter(vulkan_devices()), None)
        return (row.kind.upper(), False) if first is None else (first.name, first.is_software)
    for found in onnxruntime.get_ep_devices() if hasattr(onnxruntime, "get_ep_devices") else ():
        if found.ep_name == row.provider:
            told = dict(found.device.metadata)
            return str(told.get("Description") or found.device.vendor or row.kind.upper()), False
    return row.kind.upper(), False
