"""The process's one OpenVINO Core, which is never let go.

Each Core's CPU plug-in gives signals a stack of its own (sigaltstack), and frees it with the Core. Of two that end in
the order in which they began, the second gives signals the stack that the first has freed: the next Ctrl-C, which
Python takes on that stack, is a segmentation fault (SigAltStackSetup in OpenVINO's CPU plug-in; seen with 2026.4).
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Iterator
from typing import Any

import openvino

CORE: Any = openvino.Core()


class _SignalStack(ctypes.Structure):
    """What sigaltstack(2) reads and writes."""

    _fields_ = (("base", ctypes.c_void_p), ("flags", ctypes.c_int), ("size_bytes", ctypes.c_size_t))


@contextlib.contextmanager
def kept_signal_stack() -> Iterator[None]:
    """Around what makes Cores of its own: signals of this thread have the same stack after it."""
    if sys.platform != "linux":
        yield
        return
    before, libc = _SignalStack(), ctypes.CDLL(None)
    libc.sigaltstack(None, ctypes.byref(before))
    try:
        yield
    finally:
        libc.sigaltstack(ctypes.byref(before), None)
