"""Qualcomm's NPU in ONNX Runtime: the plug-in onnxruntime-qnn, on the chip or in its simulator on an x86-64 PC.

The simulator runs what was compiled for the chip, and takes seconds per frame: it can measure accuracy, but not
latency.
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

from edgecnn.bundle import QUANTIZED
from edgecnn.errors import DeviceError, MissingDependencyError
from edgecnn.tool_output import quiet

PROVIDER = "QNNExecutionProvider"
_PACKAGE = "onnxruntime-qnn"
# A compiled context is one node; its operator counts are in a file next to it.
OPERATORS, OPERATORS_ON_NPU = "edgecnn.operators", "edgecnn.operators_on_npu"
# At the border of the NPU's part of the graph, values are converted from levels to floats or back.
_CONVERSIONS = frozenset({"DequantizeLinear", "QuantizeLinear"})
_WARNINGS = 2
_RECORD_ASSIGNMENT = "session.record_ep_graph_assignment_info"


@dataclass(frozen=True)
class Assigned:
    """Where ONNX Runtime put the nodes of a graph.

    Attributes:
        on_npu: names of the nodes on the NPU, without conversions.
        elsewhere: name → operator of the other nodes, without conversions.
        conversions: number of conversions between levels and floats on the CPU.
    """

    on_npu: frozenset[str]
    elsewhere: Mapping[str, str]
    conversions: int


def is_simulated() -> bool:
    """Whether this is the simulator: no x86-64 machine has such an NPU."""
    return platform.machine().lower() in {"x86_64", "amd64"}


def device_name() -> str:
    """Name of the NPU or simulator."""
    return "Qualcomm HTP simulator" if is_simulated() else "Qualcomm HTP"


def is_available() -> bool:
    """Whether the plug-in is installed and finds an NPU or a simulator here."""
    if find_spec("onnxruntime_qnn") is None:
        return False
    import onnxruntime_qnn

    try:
        with quiet(_PACKAGE):
            return bool(_devices(onnxruntime_qnn.get_library_path()))
    except Exception:  # however the plug-in fails, there is no NPU
        return False


def runtime_name() -> str:
    """Packages and versions, as in "onnxruntime 1.31.1, onnxruntime-qnn 2.7.0"."""
    return f"onnxruntime {onnxruntime.__version__}, {_PACKAGE} {version(_PACKAGE)}"


def check_precision(model: Path, precision: str) -> None:
    """Refuse float files: the NPU would compute them in half precision, whatever the requested precision.

    Raises:
        DeviceError: the file is not quantized.
    """
    if precision not in QUANTIZED:
        raise DeviceError(
            f"device 'onnxruntime:qnn' computes in integers, but {model.name} is {precision}: make an artifact with "
            "edgecnn convert --target qualcomm-htp, or use this one with --device cpu"
        )


def open_session(
    model: Path,
    options: onnxruntime.SessionOptions,
    *,
    provider_options: Mapping[str, str] | None = None,
) -> onnxruntime.InferenceSession:
    """Open a file on the NPU: a compiled context, or a graph that is compiled now.

    Args:
        model: an ONNX file.
        options: the session's options; the provider is added to them.
        provider_options: further options for the provider, such as {"htp_arch": "73"}.

    Raises:
        MissingDependencyError: the plug-in is not installed.
        DeviceError: no such NPU here, the file was compiled for another one, or no node went to the NPU.
    """
    try:
        import onnxruntime_qnn
    except ModuleNotFoundError as missing:
        raise MissingDependencyError("device 'onnxruntime:qnn'", "onnxruntime_qnn", extra="qnn") from missing
    if provider_options:
        options.log_severity_level = _WARNINGS  # the only sign of an option that the plug-in doesn't know
    try:
        with quiet(_PACKAGE) as output:
            options.add_session_config_entry(_RECORD_ASSIGNMENT, "1")  # gives a warning if it is already set
            devices = _devices(onnxruntime_qnn.get_library_path())
            if devices:
                chosen = {"backend_path": onnxruntime_qnn.get_qnn_htp_path(), **(provider_options or {})}
                options.add_provider_for_devices(devices, chosen)
                session = onnxruntime.InferenceSession(model, options)
    except Exception as failed:
        way_out = (
            ". It needs a Qualcomm HTP of the architecture that the file was compiled for, with its driver; elsewhere "
            "use --device cpu"
        )
        raise DeviceError(
            f"device 'onnxruntime:qnn' cannot open {model.name}: {_first_line(failed)}"
            + ("" if provider_options else way_out)
        ) from failed
    if (refused := re.search(r"Invalid HTP architecture: \S+", output.text)) is not None:  # silently uses another
        raise DeviceError(f"{_PACKAGE} {version(_PACKAGE)} doesn't know it: {refused.group()}; update it")
    if not devices:
        raise DeviceError(
            f"device 'onnxruntime:qnn' is not available: {_PACKAGE} {version(_PACKAGE)} finds no Qualcomm NPU and no "
            "simulator on this machine; use --device cpu"
        )
    if not assigned(session).on_npu:
        raise DeviceError(
            f"device 'onnxruntime:qnn' runs no operator of {model.name}: it needs a graph whose operators are all "
            "quantized (edgecnn convert --target qualcomm-htp)"
        )
    return session


def assigned(session: onnxruntime.InferenceSession) -> Assigned:
    """Where the nodes of a session from `open_session` run; a compiled context is one node."""
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
    """Provider → number of operators, without conversions; for a compiled context, as its compiler recorded them."""
    where, metadata = assigned(session), session.get_modelmeta().custom_metadata_map
    if OPERATORS in metadata:
        total, on_npu = int(metadata[OPERATORS]), int(metadata[OPERATORS_ON_NPU])
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
