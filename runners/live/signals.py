"""Handles Ctrl-C and SIGTERM during a run."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from typing import Self

_PATIENCE_S: Final = 1.7  # after the signal: what closes normally has closed by then
_STUCK_S: Final = 0.2  # time without a step of the main thread
_LONGEST_S: Final = 15.0
# Threads that call libraries and may not return; what they hold is closed, or as nearly as possible.
_OURS: Final = ("capture ", "open ", "close ", "watch ", "infer", "sink ", "web", "edgecnn-mqtt", "paho", "camera ")


class Signalled(BaseException):
    """A signal asks the run to end."""

    def __init__(self, number: int) -> None:
        self.name = signal.Signals(number).name
        super().__init__(self.name)


class Signals:
    """SIGINT and SIGTERM during a run: the first ends the loop; while files are closed, no signal interrupts.

    Attributes:
        first: number of the first signal, or None.
    """

    def __init__(self) -> None:
        self.first: int | None = None
        self._raises = False
        self._before: dict[int, Any] = {}

    def catch(self) -> None:
        """From now on, a signal raises Signalled; only the main thread can have handlers."""
        if threading.current_thread() is threading.main_thread():
            self._raises = True
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)

    def defer(self) -> None:
        """From now on, a signal is only recorded."""
        self._raises = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.first is None:
            self.first = number
        if self._raises:
            self._raises = False
            raise Signalled(number)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


class EndsInTime:
    """Ends the process after a signal if the program doesn't: a hanging library call does not notice signals.

    For a program's main thread, because only it receives signals; does nothing elsewhere. The exit code for signal n is
    128 + n.
    """

    def __init__(self) -> None:
        self._before = -1
        self._pair: tuple[socket.socket, socket.socket] | None = None
        self._over = threading.Event()

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread() and os.name == "posix":
            reading_end, writing_end = socket.socketpair()
            writing_end.setblocking(False)
            self._before = signal.set_wakeup_fd(writing_end.fileno(), warn_on_full_buffer=False)
            self._pair = reading_end, writing_end
            threading.Thread(target=self._watch, args=(reading_end,), name="signals", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pair is not None:
            self._over.set()
            signal.set_wakeup_fd(self._before)
            self._pair[1].close()  # this ends the watching thread

    def _watch(self, reading_end: socket.socket) -> None:
        with reading_end:
            while (numbers := reading_end.recv(1)) and numbers[0] not in (signal.SIGINT, signal.SIGTERM):
                pass
        if not numbers or self._over.wait(_PATIENCE_S - _STUCK_S):
            return
        start_s, before = time.monotonic(), _place()
        while not self._over.wait(_STUCK_S):
            if _place() == before or time.monotonic() - start_s > _LONGEST_S:
                os._exit(128 + numbers[0])
            before = _place()


def _place() -> tuple[int, int] | None:
    """Position of the main thread in the code."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    return None if frame is None else (id(frame), frame.f_lasti)


def leave(code: int) -> None:
    """End the process at once if a thread is still inside a library: a normal exit would make the library abort.

    Does nothing where no such thread is left, so that the interpreter exits normally.
    """
    if any(each.name.startswith(_OURS) for each in threading.enumerate()):
        flushing = threading.Thread(target=_flush, daemon=True)  # flushing to a pipe that nobody reads would block
        flushing.start()
        flushing.join(_STUCK_S)
        os._exit(code)


def _flush() -> None:
    for console in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            console.flush()
