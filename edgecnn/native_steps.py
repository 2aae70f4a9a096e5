"""Steps in other people's native code, which may end this process: whoever watches it learns which step that was.

`edgecnn.cli` runs the verbs that write artifacts in a process of their own, which is started again without a step that
ended it. A step that ended the process before is refused here. Without a watcher (the Python functions), a step is
only done.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping

from edgecnn.errors import ConversionError

_LONGEST_BYTES = 200
_crashed: dict[str, str] = {}
_file: int | None = None


def watch_steps(file: int, crashed: Mapping[str, str]) -> None:
    """Tell of each step from now on.

    Args:
        file: a descriptor; it always holds the name of the step that is being done, filled up with blanks.
        crashed: steps that ended the process before, and the signals.
    """
    global _file
    _file = file
    _crashed.update(crashed)


def step_in(file: int) -> str:
    """The step that a process was doing when it ended; "" for none."""
    return os.pread(file, _LONGEST_BYTES, 0).decode(errors="replace").strip()


@contextlib.contextmanager
def native_step(name: str, what: str) -> Iterator[None]:
    """While inside, an end of the process is this step's.

    Args:
        name: of the step: "onnx", "tflite int8".
        what: in words: "writing ONNX".

    Raises:
        ConversionError: it ended the process before.
    """
    if name in _crashed:
        raise ConversionError(
            f"{what} crashed the process ({_crashed[name]}): what does it has a bug in one of the network's operators, "
            "or too little memory; the other artifacts were made without it"
        )
    _report(name)
    try:
        yield
    finally:
        _report("")


def crashed_from(text: str) -> dict[str, str]:
    """`crashed` of `watch_steps`, as JSON."""
    found = json.loads(text or "{}")
    return {str(name): str(how) for name, how in found.items()}


def _report(name: str) -> None:
    if _file is not None:
        os.pwrite(_file, name.encode()[:_LONGEST_BYTES].ljust(_LONGEST_BYTES), 0)
