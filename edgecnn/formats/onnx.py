"""ONNX, opened by ONNX Runtime."""

from edgecnn.formats.format import Executor, Format, Int8Rounding, Runtime
from edgecnn.registry import Part

_RUNTIME = "onnxruntime"
_EXTRA = "onnx"

RUNTIME = Runtime(
    name=_RUNTIME,
    title="ONNX Runtime",
    packages=(
        "onnxruntime",
        "onnxruntime-gpu",
        "onnxruntime-webgpu",
        "onnxruntime-directml",
        "onnxruntime-qnn",
    ),
    modules=("onnxruntime",),
    extra=_EXTRA,
    executors=(
        Executor(runtime=_RUNTIME, word="cpu", kind="cpu", provider="CPUExecutionProvider", extra=_EXTRA),
        Executor(
            runtime=_RUNTIME,
            word="cuda",
            kind="gpu",
            provider="CUDAExecutionProvider",
            extra="cuda",
            needs="an NVIDIA GPU with its driver, CUDA and cuDNN",
        ),
        Executor(
            runtime=_RUNTIME,
            word="tensorrt",
            kind="gpu",
            provider="TensorrtExecutionProvider",
            extra="cuda",
            needs="an NVIDIA GPU with its driver, CUDA and TensorRT",
            by_name_only=True,  # it builds its engine for minutes at every start
        ),
        Executor(
            runtime=_RUNTIME,
            word="directml",
            kind="gpu",
            provider="DmlExecutionProvider",
            extra="directml",
            needs="Windows and a GPU with DirectX 12",
        ),
        Executor(
            runtime=_RUNTIME,
            word="coreml",
            kind="gpu",
            provider="CoreMLExecutionProvider",
            extra=_EXTRA,
            needs="macOS on Apple silicon",
            options={"ModelFormat": "MLProgram", "MLComputeUnits": "CPUAndGPU"},
        ),
        Executor(
            runtime=_RUNTIME,
            word="webgpu",
            kind="gpu",
            provider="WebGpuExecutionProvider",
            extra="webgpu",
            needs="a GPU with Vulkan (Debian: libvulkan1 and the GPU's driver), Metal or DirectX 12",
        ),
        Executor(
            runtime=_RUNTIME,
            word="qnn",
            kind="npu",
            provider="QNNExecutionProvider",
            extra="qnn",
            needs="a Qualcomm NPU, or its simulator on an x86-64 PC",
        ),
        Executor(
            runtime=_RUNTIME,
            word="coreml-npu",
            kind="npu",
            provider="CoreMLExecutionProvider",
            extra=_EXTRA,
            needs="macOS on Apple silicon",
            options={"ModelFormat": "MLProgram", "MLComputeUnits": "CPUAndNeuralEngine"},
        ),
    ),
)

FORMAT = Format(
    name="onnx",
    title="ONNX",
    suffixes=(".onnx",),
    runtime=RUNTIME,
    precisions=("fp32", "fp16", "int8"),
    backend=Part("edgecnn.runners.onnxruntime.backend:OnnxRuntimeBackend", needs=("onnxruntime",), extra=_EXTRA),
    layer_timer=Part("edgecnn.runners.onnxruntime.layer_times:time_layers", needs=("onnxruntime",), extra=_EXTRA),
    converter=Part("edgecnn.converters.onnx:OnnxConverter", needs=("onnx",), extra="convert"),
    int8_writer=Part("edgecnn.converters.int8.onnx.writer:OnnxInt8Writer", needs=("onnx",), extra="convert"),
    # With fewer channels per group, its int8 is slower than float.
    int8_rounding=Int8Rounding(writes_int8=True, smallest_group=32),
    compilers={
        "qualcomm-htp": Part(
            "edgecnn.converters.qualcomm_htp:QualcommHtpCompiler", needs=("onnxruntime_qnn",), extra="qnn"
        ),
    },
)
