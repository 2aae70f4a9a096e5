"""The verbs that write artifacts run in a process of their own: an exporter that crashes ends only that one.

This process waits, hands signals on, and starts the verb again without the step that ended it, so that the other
artifacts are made. It imports nothing heavy.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from types import FrameType

from edgecnn.cli import _output
from edgecnn.native_steps import crashed_from, step_in, watch_steps

_VERBS = ("convert", "quantize", "compress")
_STEPS, _CRASHED = "EDGECNN_STEPS_FILE", "EDGECNN_STEPS_CRASHED"
_FORWARDED = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT")
_CRASHES = ("SIGSEGV", "SIGBUS", "SIGABRT", "SIGFPE", "SIGILL")
_END_WITH_PARENT = 1  # PR_SET_PDEATHSIG


def is_wanted(words: Sequence[str]) -> bool:
    """Whether a command line is one to watch over, and can be here."""
    verb = next((word for word in words if not word.startswith("-")), "")
    is_help = any(word in ("-h", "--help") for word in words)
    return verb in _VERBS and not is_help and os.name == "posix" and bool(sys.executable)


def begin() -> bool:
    """Whether this is the process that does the work; its steps are then told of."""
    file, crashed = os.environ.pop(_STEPS, ""), os.environ.pop(_CRASHED, "")  # not for this one's own children
    if not file.isdecimal():
        return False
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_END_WITH_PARENT, signal.SIGKILL)
    watch_steps(int(file), crashed_from(crashed))
    return True


def run(words: Sequence[str]) -> int:
    """Run a command line in a process of its own, and again without what ended it; returns the exit code."""
    crashed: dict[str, str] = {}
    while True:
        code, step, stopped_by = _run_once(words, crashed)
        if code >= 0:
            return code
        if stopped_by:  # its end was asked for, however native code takes a signal
            return 128 + stopped_by
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        if name not in _CRASHES:
            _output.print_error(f"its process was ended by {name}" + (" (out of memory?)" if name == "SIGKILL" else ""))
            return 128 - code
        if not step or step in crashed:
            _output.print_error(f"internal failure: crashed with {name}; the lines above say where")
            return 3
        crashed[step] = name
        _output.print_note(f"making {step} crashed with {name}; the lines above say where; started again without it")


def _run_once(words: Sequence[str], crashed: dict[str, str]) -> tuple[int, str, int]:
    """The exit code of one process, negative for a signal; the step that it was doing; the signal handed on, or 0."""
    stopped_by = 0
    with tempfile.TemporaryFile() as steps:
        environment = {**os.environ, _STEPS: str(steps.fileno()), _CRASHED: json.dumps(crashed)}
        # A group of its own: Ctrl-C comes here, and is handed on once.
        process = subprocess.Popen(
            [sys.executable, *_interpreter_options(), "-m", "edgecnn", *words],
            env=environment,
            pass_fds=[steps.fileno()],
            preexec_fn=os.setpgrp,  # as process_group=0 of Python 3.11; no threads here yet
        )

        def forward_signal(number: int, frame: FrameType | None) -> None:
            nonlocal stopped_by
            stopped_by = number
            process.send_signal(number)

        def stop(number: int, frame: FrameType | None) -> None:
            process.send_signal(signal.SIGSTOP)
            os.kill(os.getpid(), signal.SIGSTOP)
            process.send_signal(signal.SIGCONT)

        before = {name: signal.signal(getattr(signal, name), forward_signal) for name in _FORWARDED}
        before["SIGTSTP"] = signal.signal(signal.SIGTSTP, stop)
        try:
            return process.wait(), step_in(steps.fileno()), stopped_by
        finally:
            for name, handler in before.items():
                signal.signal(getattr(signal, name), handler)


def _interpreter_options() -> list[str]:
    """Those of this process that decide what is imported."""
    flags = sys.flags
    options = [("-P", getattr(flags, "safe_path", False)), ("-s", flags.no_user_site), ("-E", flags.ignore_environment)]
    return [option for option, given in options if given]
