"""ncnn, which is widely used on Arm boards."""

from edgecnn.formats.format import Executor, Format, Runtime
from edgecnn.registry import Part

_RUNTIME = "ncnn"
_EXTRA = "ncnn"
_MODULES = ("ncnn",)

RUNTIME = Runtime(
    name=_RUNTIME,
    title="ncnn",
    packages=("ncnn",),
    modules=_MODULES,
    extra=_EXTRA,
    executors=(
        Executor(runtime=_RUNTIME, word="cpu", kind="cpu", provider="CPU", extra=_EXTRA),
        Executor(
            runtime=_RUNTIME,
            word="gpu",
            kind="gpu",
            provider="Vulkan",
            extra=_EXTRA,
            needs="a GPU with Vulkan (Debian: libvulkan1 and the GPU's driver)",
        ),
    ),
)

FORMAT = Format(
    name="ncnn",
    title="ncnn",
    suffixes=(".param", ".bin"),
    runtime=RUNTIME,
    precisions=("fp32", "fp16"),
    backend=Part("edgecnn.runners.ncnn.backend:NcnnBackend", needs=_MODULES, extra=_EXTRA),
    layer_timer=Part("edgecnn.runners.ncnn.layer_times:time_layers", needs=_MODULES, extra=_EXTRA),
    converter=Part("edgecnn.converters.ncnn:NcnnConverter", needs=("pnnx",), extra="convert"),
    why_no_int8="the programs that write its int8 files, ncnn2table and ncnn2int8, are not in its packages",
)
