"""Runs ONNX files in ONNX Runtime."""

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

from edgecnn.bundle import TensorSpec
from edgecnn.bundle.evidence import Opened
from edgecnn.errors import DeviceError
from edgecnn.formats import Executor
from edgecnn.formats.devices import DeviceName
from edgecnn.formats.onnx import RUNTIME
from edgecnn.processor import processor_name
from edgecnn.results import UInt8Array
from edgecnn.runners.backend import Arrays, FoundDevice, absent_device, choose_executor
from edgecnn.runners.onnxruntime import qnn
from edgecnn.runners.proof import check_execution
from edgecnn.runners.vulkan import vulkan_devices
from edgecnn.tool_output import quiet

_CPU = "CPUExecutionProvider"
_WEBGPU = "WebGpuExecutionProvider"
_RECORD_ASSIGNMENT = "session.record_ep_graph_assignment_info"
# On x86 CPUs without VNNI, products of uint8 and int8 are added in pairs of 16 bits, which overflow: the same
# file would give other answers than where it was verified. Slower kernels don't; elsewhere this changes nothing.
_EXACT_INT8_PRODUCTS = ("session.x64quantprecision", "1")


class OnnxRuntimeBackend:
    """An ONNX file in an ONNX Runtime session."""

    opened: Opened

    @classmethod
    def devices(cls) -> Sequence[FoundDevice]:
        """The providers of this ONNX Runtime build; whether their device exists is known only after opening."""
        available = _available(RUNTIME.executors)
        return [
            FoundDevice(
                word=row.full_name,
                kind=row.kind,
                provider=row.provider,
                device_name=_device(row)[0],
            )
            for row in RUNTIME.executors
            if row.provider in available
        ]

    def __init__(
        self, path: Path, *, outputs: Sequence[TensorSpec], device: DeviceName, precision: str, threads: int
    ) -> None:
        with contextlib.ExitStack() as stack:
            folder: Path | None = None
            if not device.is_cpu:
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
        """Release the session."""
        self.__dict__.pop("_session", None)

    def _executed(self, folder: Path) -> Mapping[str, int]:
        """Provider → number of kernels that it ran in one inference, from the runtime's profile."""
        self.infer(np.zeros(self._session.get_inputs()[0].shape, np.uint8))
        self._session.end_profiling()
        (profile,) = folder.glob("*.json")
        return Counter(
            kernel["args"]["provider"] for kernel in kernels_in(json.loads(profile.read_text(encoding="utf-8")))
        )


def _available(rows: Sequence[Executor]) -> list[str]:
    """The build's providers; plug-in providers only if they are installed and have a device."""
    built_in = [name for name in onnxruntime.get_available_providers() if name != qnn.PROVIDER]
    if any(row.provider == qnn.PROVIDER for row in rows) and qnn.is_available():
        return [*built_in, qnn.PROVIDER]
    return list(built_in)


def _session(path: Path, options: Any, row: Executor, provider_options: Mapping[str, str], precision: str) -> Any:
    if row.provider == qnn.PROVIDER:
        qnn.check_precision(path, precision)
        return qnn.open_session(path, options, provider_options=provider_options)
    # Providers outside the list are never used; one inside it that fails must not fall back silently.
    return open_model(path, options, providers=[(row.provider, provider_options)], disable_fallback=True)


def open_session(
    path: Path, *, device: DeviceName, precision: str, threads: int, profile: Path | None = None
) -> tuple[Executor, onnxruntime.InferenceSession]:
    """The chosen executor, and a session on its provider only.

    Args:
        path: the file.
        device: the requested device.
        precision: the file's precision.
        threads: threads per inference.
        profile: a folder for ONNX Runtime's profile, which `end_profiling` writes; None for none. Qualcomm's plug-in
            writes none, because it reports its nodes itself.

    Raises:
        DeviceError: the device does not exist, or ONNX Runtime fails on the file.
    """
    available = _available(device.executors(RUNTIME))
    row = choose_executor(device, RUNTIME, available=available)
    options = session_options(threads)
    options.add_session_config_entry(_RECORD_ASSIGNMENT, "1")
    if profile is not None and row.provider != qnn.PROVIDER:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile / "profile")
    provider_options = {**row.options, **({"device_id": str(device.index)} if device.index is not None else {})}
    try:
        session = _session(path, options, row, provider_options, precision)
    except DeviceError:
        raise
    except Exception as failed:
        raise DeviceError(f"onnxruntime cannot open {path.name} on {row.provider}: {failed}") from failed
    if session.get_providers()[0] != row.provider:
        raise absent_device(device, runtime=RUNTIME.name, available=session.get_providers(), wanted=[row])
    return row, session


def open_model(model: Path | bytes, options: onnxruntime.SessionOptions, **how: Any) -> onnxruntime.InferenceSession:
    """A session with these options; `how` is passed to ONNX Runtime.

    ONNX Runtime's step that makes int8 products exact fails on weights shared by two layers: such a file is opened
    without.
    """
    try:
        return onnxruntime.InferenceSession(model, options, **how)
    except Exception as failed:
        if "AddInitializedOrtValue" not in str(failed):
            raise
        options.add_session_config_entry(_EXACT_INT8_PRODUCTS[0], "0")
        return onnxruntime.InferenceSession(model, options, **how)


def session_options(threads: int) -> onnxruntime.SessionOptions:
    """Options common to all sessions: no log output, and equal int8 results on every CPU."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # warnings about graph details don't help users
    options.add_session_config_entry(*_EXACT_INT8_PRODUCTS)
    return options


def kernels_in(profile: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The profile's events of kernels that ran; each names its provider."""
    return [
        event for event in profile if event.get("cat") == "Node" and event.get("args", {}).get("provider") is not None
    ]


def _assigned(session: Any) -> Counter[str]:
    """Provider → number of nodes assigned to it when the file was opened; empty in versions that don't tell.

    A provider that compiles whole subgraphs is one kernel in a profile, but is listed here node by node; for a provider
    with separate kernels (WebGPU) this list has gaps, but its profile has not: the larger of the two counts is right.
    """
    counts: Counter[str] = Counter()
    if hasattr(session, "get_provider_graph_assignment_info"):
        for subgraph in session.get_provider_graph_assignment_info():
            counts[subgraph.ep_name] += len(subgraph.get_nodes())
    return counts


def _device(row: Executor) -> tuple[str, bool]:
    """Name of the provider's device, and whether it is simulated; the device's kind where the name is unknown."""
    if row.provider == _CPU:
        return processor_name(), False
    if row.provider == qnn.PROVIDER:
        return qnn.device_name(), qnn.is_simulated()
    if row.provider == _WEBGPU:
        first = next(iter(vulkan_devices()), None)
        return (row.kind.upper(), False) if first is None else (first.name, first.is_software)
    for found in onnxruntime.get_ep_devices() if hasattr(onnxruntime, "get_ep_devices") else ():
        if found.ep_name == row.provider:
            metadata = dict(found.device.metadata)
            return str(metadata.get("Description") or found.device.vendor or row.kind.upper()), False
    return row.kind.upper(), False
