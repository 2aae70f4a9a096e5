"""A sink in a thread of its own: a slow one holds nothing back, and one that fails is alone with it."""

from __future__ import annotations

import queue
import threading
from types import TracebackType
from typing import Self, TypeAlias

from edgecnn.results import Result
from edgecnn.runners.live.frames import Frame
from edgecnn.runners.live.sinks import Annotated, EndOfRun, Sink

_Delivery: TypeAlias = tuple[Frame, Result, Annotated]

WAITING = 8  # results: a third of a second at 25 a second, for a disk that hesitates
CLOSE_S = 1.5  # a run ends within two seconds


class SinkBeside:
    """Delivers to a sink from another thread; for live sources, where what comes too fast is dropped.

    Args:
        sink: entered and left in the caller's thread, used in its own.
        name: for people: "record".

    Attributes:
        dropped: results that it was too slow for, or that came after it had failed.
        shows_only: as the sink says: it shows how a run goes, and a run doesn't go on for its sake.
        failure: what it raised; it gets nothing more then.
    """

    def __init__(self, sink: Sink, name: str) -> None:
        self.name = name
        self.shows_only = getattr(sink, "shows_only", False)
        self.dropped = 0
        self.failure: Exception | None = None
        self._sink = sink
        self._end: EndOfRun | None = None
        self._waiting: queue.Queue[_Delivery | None] = queue.Queue(WAITING)
        self._thread = threading.Thread(target=self._work, name=f"sink {name}", daemon=True)

    def deliver(self, frame: Frame, result: Result, annotated: Annotated) -> None:
        """Leave a result; never waits.

        Raises:
            EndOfRun: the sink wants no more.
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
        while (delivery := self._waiting.get()) is not None:
            if self.failure is not None or self._end is not None:
                continue
            try:
                self._sink.deliver(*delivery)
            except EndOfRun as end:
                self._end = end
            except Exception as failure:
                self.failure = failure

    def __enter__(self) -> Self:
        self._sink.__enter__()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._waiting.put(None, timeout=CLOSE_S)
            self._thread.join(CLOSE_S)
        except queue.Full:
            pass
        if self._thread.is_alive():  # stuck in the sink: closing it under its hands would break what it writes
            self.failure = self.failure or TimeoutError(f"still busy {CLOSE_S:g} s after the end: left as it is")
            return
        try:
            self._sink.__exit__(kind, error, trace)
        except Exception as failure:
            self.failure = self.failure or failure
