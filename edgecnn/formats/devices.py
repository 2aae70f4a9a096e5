"""Device names: the text that selects a device."""

from __future__ import annotations

from dataclasses import dataclass

from edgecnn.errors import UnknownNameError
from edgecnn.formats import Executor, Runtime, runtime_named, runtimes

KINDS = ("cpu", "gpu", "npu")
AUTO = "auto"


@dataclass(frozen=True)
class DeviceName:
    """A requested device: "cpu", "gpu", "npu", "auto", or exact, such as "openvino:GPU.0" or "onnxruntime:cuda".

    Attributes:
        text: as the user wrote it.
        runtime: the runtime before the colon; "" where there is none.
        device: the part after the colon, or the whole text, as in the table.
        index: number of the device, as in "GPU.1"; None where it is not given.
    """

    text: str
    runtime: str
    device: str
    index: int | None = None

    @property
    def is_auto(self) -> bool:
        """Whether edgecnn may choose the device."""
        return self.device == AUTO

    def executors(self, runtime: Runtime) -> tuple[Executor, ...]:
        """The ways in which this runtime can use the requested device, the preferred one first; may be empty."""
        if self.runtime not in ("", runtime.name):
            return ()
        kind = "cpu" if self.is_auto else self.device
        return tuple(
            row for row in runtime.executors if row.word == kind or (row.kind == kind and not row.by_name_only)
        )

    @property
    def is_cpu(self) -> bool:
        """Whether the request means the CPU, which every runtime has."""
        if not self.runtime:
            return self.is_auto or self.device == "cpu"
        runtime = runtime_named(self.runtime)
        return runtime is not None and any(row.kind == "cpu" for row in self.executors(runtime))


def parse_device(text: str) -> DeviceName:
    """Parse a device name; case is ignored, and a runtime's own name for its device is accepted too.

    Raises:
        UnknownNameError: not in the table; lists the nearest names.
    """
    word, colon, rest = text.partition(":")
    if not colon and text.lower() in (*KINDS, AUTO):
        return DeviceName(text, "", text.lower())
    runtime = runtime_named(word.lower()) if colon else None
    found = None if runtime is None else _exact(text, runtime, rest)
    if found is None:
        raise UnknownNameError("device", text, device_words())
    return found


def _exact(text: str, runtime: Runtime, rest: str) -> DeviceName | None:
    word, dot, number = rest.lower().partition(".")
    if dot and not number.isdigit():
        return None
    index = int(number) if dot else None
    for row in runtime.executors:
        if word in (row.word, row.provider.lower()):
            return DeviceName(text, runtime.name, row.word, index)
    if word in KINDS and any(row.kind == word for row in runtime.executors):
        return DeviceName(text, runtime.name, word, index)
    return None


def all_executors() -> list[Executor]:
    """Every way in which any runtime uses a device, runtime by runtime."""
    return [row for runtime in runtimes() for row in runtime.executors]


def executors_by_name(text: str | None) -> list[Executor]:
    """Every way to use the requested device, runtime by runtime; all of them where none is requested.

    Raises:
        UnknownNameError: there is no such device.
    """
    if text is None:
        return all_executors()
    name = parse_device(text)
    return [row for runtime in runtimes() for row in name.executors(runtime)]


def device_words() -> list[str]:
    """Every text that `parse_device` knows, except numbered devices."""
    return [*KINDS, AUTO, *(row.full_name for row in all_executors())]
