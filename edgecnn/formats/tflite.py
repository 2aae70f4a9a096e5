"""TFLite, opened by LiteRT or, if that is installed instead, by tflite-runtime."""

from edgecnn.formats.format import Executor, Format, Int8Rounding, Runtime
from edgecnn.registry import Part

_RUNTIME = "litert"
_EXTRA = "tflite"
_MODULES = ("ai_edge_litert", "tflite_runtime")

RUNTIME = Runtime(
    name=_RUNTIME,
    title="LiteRT",
    packages=("ai-edge-litert", "tflite-runtime"),
    modules=_MODULES,
    extra=_EXTRA,
    executors=(
        Executor(runtime=_RUNTIME, word="cpu", kind="cpu", provider="XNNPACK", extra=_EXTRA),
        Executor(
            runtime=_RUNTIME,
            word="gpu",
            kind="gpu",
            provider="GPU",
            extra=_EXTRA,
            needs="a GPU with Vulkan (Debian: libvulkan1 and the GPU's driver), Metal or OpenCL",
        ),
        Executor(
            runtime=_RUNTIME,
            word="npu",
            kind="npu",
            provider="NPU",
            extra=_EXTRA,
            needs="an NPU with its maker's dispatch library installed next to LiteRT",
        ),
        Executor(
            runtime=_RUNTIME,
            word="edgetpu",
            kind="npu",
            provider="EdgeTPU",
            extra="tflite-runtime",
            needs="a Coral Edge TPU with libedgetpu1-std, and a file compiled for it",
            by_name_only=True,  # it runs no other files
        ),
    ),
)

FORMAT = Format(
    name="tflite",
    title="TFLite",
    suffixes=(".tflite",),
    runtime=RUNTIME,
    precisions=("fp32", "fp16", "int8", "int8-dynamic", "int8-a16"),
    channels_last=True,
    backend=Part("edgecnn.runners.litert.backend:LiteRtBackend", needs=_MODULES, extra=_EXTRA),
    layer_timer=Part("edgecnn.runners.litert.layer_times:time_layers", needs=_MODULES, extra=_EXTRA),
    converter=Part("edgecnn.converters.tflite:TfliteConverter", needs=("litert_torch",), extra="convert"),
    int8_writer=Part(
        "edgecnn.converters.int8.tflite.writer:TfliteInt8Writer", needs=("ai_edge_quantizer",), extra="convert"
    ),
    int8_rounding=Int8Rounding(writes_int8=True),
)
