"""Ctrl-C and SIGTERM during a run."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    pass


class Signalled(BaseException):
    """A signal asks the run to end."""

    def __init__(self, number: int) -> None:
        self.name = signal.Signals(number).name
        super().__init__(self.name)


class Signals:
    """SIGINT and SIGTERM during a run: the first ends the loop; while files are closed, none interrupts.

    Attributes:
        first: number of the signal that came first, or None.
    """

    def __init__(self) -> None:
        self.first: int | None = None
        self._raises = False
        self._before: dict[int, Any] = {}

    def catch(self) -> None:
        """From here on, a signal raises Signalled; only the main thread can have handlers."""
        if threading.current_thread() is threading.main_thread():
            self._raises = True
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)

    def defer(self) -> None:
        """From here on, a signal is only noted."""
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
