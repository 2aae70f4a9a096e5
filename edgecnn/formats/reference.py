"""torch, the reference on a workstation: a runtime without a file format."""

from edgecnn.formats.format import Executor, Runtime

TORCH = "torch"

REFERENCE = Runtime(
    name=TORCH,
    title="torch",
    packages=("torch",),
    modules=("torch",),
    extra="convert",
    executors=(
        Executor(runtime=TORCH, word="cpu", kind="cpu", provider="cpu", extra="convert"),
        Executor(
            runtime=TORCH,
            word="cuda",
            kind="gpu",
            provider="cuda",
            extra="convert",
            needs="an NVIDIA GPU with its driver, or an AMD one with ROCm",
        ),
    ),
)
