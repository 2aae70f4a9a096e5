"""Times layers with OpenVINO's performance counters."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from edgecnn.bundle.evidence import LayerTime
from edgecnn.results import UInt8Array
from edgecnn.runners.backend import LayerRequest, layer_times
from edgecnn.runners.openvino.backend import MULTIPLIERS, compile_file, computes_in

_MODULE = re.compile(r"__module\.(?P<path>[^/]+)")


def time_layers(path: Path, request: LayerRequest, frame: UInt8Array) -> list[LayerTime]:
    """The layers that OpenVINO ran, with their median times."""
    _, compiled = compile_file(
        path, device=request.device, precision=request.precision, threads=request.threads, profiling=True
    )
    infer = compiled.create_infer_request()
    for _ in range(request.warmup):
        infer.infer(frame)
    times: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for _ in range(request.calls):
        infer.infer(frame)
        for info in infer.get_profiling_info():
            taken = info.real_time.total_seconds() * 1e3
            if taken > 0:
                times[info.node_name, info.node_type, info.exec_type].append(taken)
    return layer_times(
        [
            LayerTime(
                name=_torch_name(name, kind),
                kind=kind,
                where=execution,
                computes=computes_in(execution) if kind in MULTIPLIERS else "",
                time_ms=0,
            )
            for name, kind, execution in times
        ],
        list(times.values()),
        request.calls,
    )


def _torch_name(name: str, kind: str) -> str:
    """Gets "body.0" from "__module.network.body.0/aten::_convolution/Convolution"."""
    found = _MODULE.search(name)
    if found is None:
        return name
    path = found["path"].removeprefix("network.").removeprefix("network")
    return path if kind in MULTIPLIERS else "/".join(filter(None, (path, kind)))
