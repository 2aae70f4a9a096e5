"""Runs several calls at once, each in a thread with limited waiting time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class Call(Generic[T]):
    """A call in a separate thread, which ends with the process.

    Args:
        function: called at once.
        name: the thread's name.
        unwanted: called with the result if it comes after `abandon`.
    """

    def __init__(self, function: Callable[[], T], name: str, *, unwanted: Callable[[T], object] | None = None) -> None:
        self._function, self._unwanted = function, unwanted
        self._results: list[T] = []
        self._failure: BaseException | None = None
        self._abandoned = False
        self._ending = threading.Lock()
        self._ended = threading.Event()
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def _work(self) -> None:
        result: list[T] = []
        try:
            result.append(self._function())
        except BaseException as failure:  # raised to the waiting caller
            self._failure = failure
        with self._ending:
            late = self._abandoned
            if not late:
                self._results = result
        self._ended.set()
        if late and result and self._unwanted is not None:
            self._unwanted(result[0])

    def wait(self, timeout_s: float | None = None) -> bool:
        """Whether it ended in time; a signal interrupts the wait."""
        return self._ended.wait(timeout_s)

    def result(self) -> T:
        """Wait for it; return its result, or raise its exception."""
        self._ended.wait()
        if self._failure is not None:
            raise self._failure
        return self._results[0]

    def abandon(self) -> None:
        """Ignore the result from now on."""
        with self._ending:
            self._abandoned = True
        if self._results and self._unwanted is not None:
            self._unwanted(self._results[0])


def wait_for_all(calls: Sequence[Call[T]], timeout_s: float) -> None:
    """Wait for all, within the time limit of one; raises the first exception of those that ended."""
    end_s = time.monotonic() + timeout_s
    for call in calls:
        if call.wait(max(0.0, end_s - time.monotonic())) and call._failure is not None:
            raise call._failure
