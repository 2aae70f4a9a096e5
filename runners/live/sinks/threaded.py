"""Runs a sink in a separate thread: a slow or failed sink does not delay the run or other sinks."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, TypeAlias

from edgecnn.results import Result
from edgecnn.runners.live.frame import Frame
from edgecnn.runners.live.sinks import Annotated, EndOfRun, Sink

if TYPE_CHECKING:
    from typing import Self

_log = logging.getLogger(__name__)
_Delivery: TypeAlias = tuple[Frame, Result, Annotated]

WAITING = 8  # results: a third of a second at 25 per second, for a disk that pauses
CLOSE_S = 1.2  # for all sinks together: a run ends within two seconds


class ThreadedSink:
    """Delivers to a sink in another thread; for live sources, where results that come too fast are dropped.

    Args:
        sink: entered in the caller's thread; used and left in its own thread.
        name: the sink's name in messages: "record".
        on_failure: called at once, in the sink's thread, with an exception from the sink.

    Attributes:
        dropped: number of results that came too fast, or after the sink had failed.
        shows_only: True if the sink only shows the run, so that the run does not continue for it alone.
        failure: the sink's exception; it gets no more results after that.
    """

    def __init__(self, sink: Sink, name: str, *, on_failure: Callable[[BaseException], None] | None = None) -> None:
        self.name = name
        self.shows_only = getattr(sink, "shows_only", False)
        self.dropped = 0
        self.failure: BaseException | None = None
        self._sink = sink
        self._on_failure = on_failure
        self._end: EndOfRun | None = None
        self._ending = threading.Event()
        self._left: tuple[type[BaseException] | None, BaseException | None, TracebackType | None] = (None, None, None)
        self._waiting: queue.Queue[_Delivery | None] = queue.Queue(WAITING)
        self._thread = threading.Thread(target=self._work, name=f"sink {name}", daemon=True)

    def deliver(self, frame: Frame, result: Result, annotated: Annotated) -> None:
        """Queue a result; never waits.

        Raises:
            EndOfRun: the sink wants no more results.
        """
        if self._end is not None:
            raise self._end
        if self.failure is not None:
            self.dropped += 1
            return
        try:
            self._waiting.put_nowait((frame, result, annotated))
        except queue.Full:
            self.dropped += 1

    def _work(self) -> None:
        while (delivery := self._next()) is not None:
            if self.failure is not None or self._end is not None:
                continue
            try:
                self._sink.deliver(*delivery)
            except EndOfRun as end:
                self._end = end
            except BaseException as failure:
                self._fail(failure)
        try:
            self._sink.__exit__(*self._left)
        except BaseException as failure:
            self._fail(failure)

    def _next(self) -> _Delivery | None:
        """The next queued result; None at the end, when none is left."""
        if self._ending.is_set():
            with contextlib.suppress(queue.Empty):
                return self._waiting.get_nowait()
            return None
        return self._waiting.get()

    def _fail(self, failure: BaseException) -> None:
        if self.failure is None:
            self.failure = failure
            try:
                if self._on_failure is not None:
                    self._on_failure(failure)
            except BaseException:  # the sink must still be left
                _log.exception(
                    "on_failure raised an exception while it handled %s: %s", type(failure).__name__, failure
                )

    def __enter__(self) -> Self:
        self._sink.__enter__()
        self._thread.start()
        return self

    def end(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        """Ask it to deliver the queued results and leave its sink; doesn't wait for it."""
        self._left = (kind, error, trace)
        self._ending.set()
        with contextlib.suppress(queue.Full):  # a full queue needs no wake-up
            self._waiting.put_nowait(None)

    def finish(self, timeout_s: float) -> None:
        """Wait for it after `end`; a sink that is still busy then is abandoned."""
        self._thread.join(timeout_s)
        if self._thread.is_alive():  # closing a sink that is writing would damage its output
            self.failure = self.failure or TimeoutError(f"still busy {CLOSE_S:g} s after the end: left unfinished")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end(kind, error, trace)
        self.finish(CLOSE_S)


class SinkGroup:
    """Sinks that are entered one after the other, and left at the same time, within the time limit of one.

    Args:
        sinks: some of them in separate threads.
    """

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self._sinks = sinks
        self._open = contextlib.ExitStack()
        self._threaded: list[ThreadedSink] = []

    def __enter__(self) -> Sequence[Sink]:
        with contextlib.ExitStack() as stack:
            stack.push(self._leave)
            for sink in self._sinks:
                if isinstance(sink, ThreadedSink):
                    sink.__enter__()
                    self._threaded.append(sink)
                else:
                    stack.enter_context(sink)
            self._open = stack.pop_all()
        return self._sinks

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for sink in self._threaded:
            sink.end(kind, error, trace)
        self._open.__exit__(kind, error, trace)

    def _leave(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        end_s = time.monotonic() + CLOSE_S
        for sink in self._threaded:
            sink.end(kind, error, trace)
        for sink in self._threaded:
            sink.finish(max(0.0, end_s - time.monotonic()))
