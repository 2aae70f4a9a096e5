"""OpenVINO IR, opened by OpenVINO."""

from edgecnn.formats.format import Executor, Format, Int8Rounding, Runtime
from edgecnn.registry import Part

_RUNTIME = "openvino"
_EXTRA = "openvino"

RUNTIME = Runtime(
    name=_RUNTIME,
    title="OpenVINO",
    packages=("openvino",),
    modules=("openvino",),
    extra=_EXTRA,
    executors=(
        Executor(runtime=_RUNTIME, word="cpu", kind="cpu", provider="CPU", extra=_EXTRA),
        Executor(
            runtime=_RUNTIME,
            word="gpu",
            kind="gpu",
            provider="GPU",
            extra=_EXTRA,
            needs="an Intel GPU with its OpenCL driver (Debian: intel-opencl-icd)",
        ),
        Executor(
            runtime=_RUNTIME,
            word="npu",
            kind="npu",
            provider="NPU",
            extra=_EXTRA,
            needs="an Intel Core Ultra with the driver intel_vpu and its compiler (linux-npu-driver)",
        ),
    ),
)

FORMAT = Format(
    name="openvino",
    title="OpenVINO IR",
    suffixes=(".xml", ".bin"),
    runtime=RUNTIME,
    precisions=("fp32", "fp16", "bf16", "int8"),
    also_runs={"fp32": ("bf16",)},  # the same file, rounded at run time
    backend=Part("edgecnn.runners.openvino.backend:OpenVinoBackend", needs=("openvino",), extra=_EXTRA),
    layer_timer=Part("edgecnn.runners.openvino.layer_times:time_layers", needs=("openvino",), extra=_EXTRA),
    converter=Part("edgecnn.converters.openvino:OpenVinoConverter", needs=("openvino",), extra="convert"),
    int8_writer=Part("edgecnn.converters.int8.openvino.writer:OpenVinoInt8Writer", needs=("nncf",), extra="convert"),
    int8_rounding=Int8Rounding(writes_int8=False, depthwise_by_channel=True),
)
