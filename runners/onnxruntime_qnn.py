"""Qualcomm's NPU in ONNX Runtime: the plug-in onnxruntime-qnn, on the chip, or on an x86-64 PC in its simulator.

The simulator runs what was compiled for the chip, and takes seconds a frame: what is measured there is accuracy, never
time.
"""

from __future__ import annotations

import platform
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import onnxruntime

from edgecnn._quiet import quiet
from edgecnn.bundle import QUANTIZED
from edgecnn.errors import DeviceError, MissingDependencyError

PROVIDER = "QNNExecutionProvider"
_PACKAGE = "onnxruntime-qnn"
# A compiled context is one node; what it was made of stands beside it.
OPERATORS, OPERATORS_ON_NPU = "edgecnn.operators", "edgecnn.operators_on_npu"
# Where a value crosses the border of the NPU's part of the graph it is turned from levels into floats, or back.
_CONVERSIONS = frozenset({"DequantizeLinear", "QuantizeLinear"})
_WARNINGS = 2
_RECORD_ASSIGNMENT = "session.record_ep_graph_assignment_info"


@dataclass(frozen=True)
class Assigned:
    """Where ONNX Runtime put the nodes of a graph.

    Attributes:
        on_npu: names of the nodes that the NPU has, but for conversions.
        elsewhere: name → operator of those that it doesn't have, but for conversions.
        conversions: how many conversions between levels and floats are left to the processor.
    """

    on_npu: frozenset[str]
    elsewhere: Mapping[str, str]
    conversions: int


def is_simulated() -> bool:
    """Whether what runs here is the simulator: no x86-64 machine has such an NPU."""
    return platform.machine().lower() in {"x86_64", "amd64"}


def device_name() -> str:
    """Of what runs here."""
    return "Qualcomm HTP simulator" if is_simulated() else "Qualcomm HTP"


def is_there() -> bool:
    """Whether the plug-in is installed and finds an NPU, or has a simulator of one here."""
    if find_spec("onnxruntime_qnn") is None:
        return False
    import onnxruntime_qnn

    try:
        with quiet(_PACKAGE):
            return bool(_devices(onnxruntime_qnn.get_library_path()))
    except Exception:  # whatever a plug-in dies of, then there is none
        return False


def runtime_name() -> str:
    """Packages and versions, as in "onnxruntime 1.31.1, onnxruntime-qnn 2.7.0"."""
    return f"onnxruntime {onnxruntime.__version__}, {_PACKAGE} {version(_PACKAGE)}"


def check_precision(model: Path, precision: str) -> None:
    """Float files would be computed in half precision there, whatever was asked for.

    Raises:
        DeviceError: the file is not quantized.
    """
    if precision not in QUANTIZED:
        raise DeviceError(
            f"device 'onnxruntime:qnn' computes in integers, {model.name} is {precision}: build for it with "
            "edgecnn convert --target qualcomm-htp, or open this one on 'cpu'"
        )


def open_session(
    model: Path,
    options: onnxruntime.SessionOptions,
    *,
    told: Mapping[str, str] | None = None,
) -> onnxruntime.InferenceSession:
    """Open a file on the NPU: a compiled context, or a graph that is compiled now.

    Args:
        model: an ONNX file.
        options: of the session; the provider is added to them.
        told: what the provider is told besides, as in {"htp_arch": "73"}.

    Raises:
        MissingDependencyError: the plug-in is not installed.
        DeviceError: no such NPU here, the file was compiled for another, or nothing of it went to the NPU.
    """
    try:
        import onnxruntime_qnn
    except ModuleNotFoundError as missing:
        raise MissingDependencyError("device 'onnxruntime:qnn'", "onnxruntime_qnn", extra="qnn") from missing
    if told:
        options.log_severity_level = _WARNINGS  # all that comes of a word that it doesn't know
    try:
        with quiet(_PACKAGE) as said:
            options.add_session_config_entry(_RECORD_ASSIGNMENT, "1")  # warns where it was told before
            devices = _devices(onnxruntime_qnn.get_library_path())
            if devices:
                chosen = {"backend_path": onnxruntime_qnn.get_qnn_htp_path(), **(told or {})}
                options.add_provider_for_devices(devices, chosen)
                session = onnxruntime.InferenceSession(model, options)
    except Exception as failed:
        way_out = (
            ". It wants a Qualcomm HTP of the architecture that the file was compiled for, with its driver; elsewhere "
            "open the bundle on 'cpu'"
        )
        raise DeviceError(
            f"device 'onnxruntime:qnn' cannot open {model.name}: {_first_line(failed)}{'' if told else way_out}"
        ) from failed
    if (refused := re.search(r"Invalid HTP architecture: \S+", said.text)) is not None:  # it takes another in silence
        raise DeviceError(f"{_PACKAGE} {version(_PACKAGE)} doesn't know it: {refused.group()}; update it")
    if not devices:
        raise DeviceError(
            f"device 'onnxruntime:qnn' is not there: {_PACKAGE} {version(_PACKAGE)} finds no Qualcomm NPU and no "
            "simulator on this machine; open the bundle on 'cpu'"
        )
    if not assigned(session).on_npu:
        raise DeviceError(
            f"device 'onnxruntime:qnn' takes no operator of {model.name}: it wants a graph whose every operator is "
            "quantized (edgecnn convert --target qualcomm-htp)"
        )
    return session


def assigned(session: onnxruntime.InferenceSession) -> Assigned:
    """Where the nodes of a session of `open_session` are; a compiled context is one node."""
    on_npu: set[str] = set()
    elsewhere: dict[str, str] = {}
    conversions = 0
    for part in session.get_provider_graph_assignment_info():
        for node in part.get_nodes():
            if node.op_type in _CONVERSIONS:
                conversions += part.ep_name != PROVIDER
            elif part.ep_name == PROVIDER:
                on_npu.add(node.name)
            else:
                elsewhere[node.name] = node.op_type
    return Assigned(frozenset(on_npu), elsewhere, conversions)


def placed(session: onnxruntime.InferenceSession) -> Counter[str]:
    """Provider → operators that it has, conversions aside; of a compiled context, what its compiler wrote into it."""
    where, told = assigned(session), session.get_modelmeta().custom_metadata_map
    if OPERATORS in told:
        total, on_npu = int(told[OPERATORS]), int(told[OPERATORS_ON_NPU])
    else:
        on_npu = len(where.on_npu)
        total = on_npu + len(where.elsewhere)
    return Counter({PROVIDER: on_npu, "CPUExecutionProvider": total - on_npu}) - Counter()


def _devices(library: str) -> list[onnxruntime.OrtEpDevice]:
    found = _registered()
    if not found:
        onnxruntime.register_execution_provider_library(PROVIDER, library)
        found = _registered()
    return found


def _registered() -> list[onnxruntime.OrtEpDevice]:
    return [device for device in onnxruntime.get_ep_devices() if device.ep_name == PROVIDER]


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
