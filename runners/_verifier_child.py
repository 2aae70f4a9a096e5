"""The child process that opens an artifact first (see `verifier`): if the runtime crashes, only the child ends."""

from __future__ import annotations

import contextlib
import math
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edgecnn.bundle import TensorSpec
from edgecnn.child import serve
from edgecnn.formats import FORMATS
from edgecnn.formats.devices import parse_device
from edgecnn.runners.backend import open_backend

_SECONDS, _SECONDS_A_MB, _SECONDS_A_MEGAPIXEL = 10.0, 1.0, 10.0  # of a processor on which edgecnn is imported in one
_BYTES, _BYTES_A_BYTE, _BYTES_A_PIXEL = 1 << 30, 8, 1 << 10
_imported_s = 1.0


def open_and_run(
    path: str,
    format: str,  # noqa: A002 - the field's word
    outputs: list[dict[str, Any]],
    device: str,
    precision: str,
    threads: int | None,
    frame_shape: list[int],
) -> dict[str, Any]:
    """Check a file, open it as a back end does, and run a blank frame and a noise frame."""
    bounds = _bounded(Path(path), frame_shape) if parse_device(device).is_cpu else contextlib.nullcontext()
    with bounds:  # a driver of another device maps and compiles what it likes
        _open_and_run(Path(path), format, outputs, device, precision, threads, frame_shape)
    return {}


def _open_and_run(
    path: Path,
    format_name: str,
    outputs: list[dict[str, Any]],
    device: str,
    precision: str,
    threads: int | None,
    frame_shape: list[int],
) -> None:
    kind = FORMATS.get(format_name).load_backend()
    if check := getattr(kind, "check_file", None):  # runtimes check little and may open a broken file
        check(path)
    backend = open_backend(
        format_name,
        path,
        outputs=msgspec.convert(outputs, list[TensorSpec]),
        device=parse_device(device),
        precision=precision,
        threads=threads,
    )
    try:
        noise = np.random.default_rng(0).integers(0, 256, frame_shape, dtype=np.uint8)
        for frame in (np.zeros_like(noise), noise):
            for answer in backend.infer(frame).values():
                answer.copy()
    finally:
        backend.close()


@contextlib.contextmanager
def _bounded(path: Path, frame_shape: Sequence[int]) -> Iterator[None]:
    """While inside, this process is ended by what would take processor time or memory without end.

    What is allowed grows with the file and the frame, and time with how slow this machine is: with the
    processor time that this process took to start.
    """
    try:
        import resource

        status = Path("/proc/self/status").read_text()
        held = int(re.findall(r"VmData:\s+(\d+) kB", status)[0]) << 10
    except (ImportError, OSError, IndexError):  # not Linux
        yield
        return
    size = sum(file.stat().st_size for file in (path, path.with_suffix(".bin")) if file.is_file())
    pixels = math.prod(frame_shape[:3])
    seconds = _imported_s * (_SECONDS + _SECONDS_A_MB * size / 1e6 + _SECONDS_A_MEGAPIXEL * pixels / 1e6)
    limits = {
        resource.RLIMIT_CPU: math.ceil(time.process_time() + seconds) + 1,
        resource.RLIMIT_DATA: held + _BYTES + _BYTES_A_BYTE * size + _BYTES_A_PIXEL * pixels,
    }
    before = {kind: resource.getrlimit(kind) for kind in limits}
    for kind, limit in limits.items():
        soft, hard = before[kind]
        known = [value for value in (limit, soft) if value != resource.RLIM_INFINITY]
        resource.setrlimit(kind, (min(known), hard))
    try:
        yield
    finally:
        for kind, pair in before.items():
            resource.setrlimit(kind, pair)


def main() -> None:
    """Serve requests to open a file."""
    global _imported_s
    _imported_s = max(time.process_time(), 0.5)
    serve({"hello": dict, "open": open_and_run})


if __name__ == "__main__":
    main()
