"""Times ncnn's layers: ncnn has no profiler, so each blob is requested in turn and its time belongs to its layer."""

from __future__ import annotations

import time
from pathlib import Path

from edgecnn.bundle.evidence import LayerTime
from edgecnn.results import UInt8Array
from edgecnn.runners.backend import LayerRequest, layer_times
from edgecnn.runners.ncnn.backend import FRAME, open_net, planes_of
from edgecnn.runners.ncnn.param import read_layers

_MULTIPLIERS = ("Convolution", "ConvolutionDepthWise", "Deconvolution", "InnerProduct", "Gemm", "MatMul")


def time_layers(path: Path, request: LayerRequest, frame: UInt8Array) -> list[LayerTime]:
    """The layers that ncnn ran, with their median times; conversions between layouts belong to the next layer."""
    net, provider, _ = open_net(path, device=request.device, threads=request.threads, keep_blobs=True)
    layers = [layer for layer in read_layers(path) if layer.works]
    samples: list[list[float]] = [[] for _ in layers]
    for call in range(request.warmup + request.calls):
        with net.create_extractor() as extractor:
            extractor.input(FRAME, planes_of(frame[0]))
            for layer, taken in zip(layers, samples, strict=True):
                start = time.perf_counter_ns()
                extractor.extract(layer.writes[0])
                if call >= request.warmup:
                    taken.append((time.perf_counter_ns() - start) / 1e6)
    return layer_times(
        [
            LayerTime(
                name=layer.name,
                kind=layer.kind,
                where=provider,
                computes="fp32" if layer.kind in _MULTIPLIERS else "",
                time_ms=0,
            )
            for layer in layers
        ],
        samples,
        request.calls,
    )
