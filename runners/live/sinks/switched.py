"""A sink that can be switched off and on; each time it begins anew."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from edgecnn.results import Result
from edgecnn.runners.live.frame import Frame
from edgecnn.runners.live.sinks import Annotated, Sink

if TYPE_CHECKING:
    from typing import Self


class SwitchedSink:
    """Passes results on while it is on; switched off, its sink is left, so that its file is whole.

    Args:
        make: makes the sink; called again each time it is switched on.
        on: returns whether it is on now.

    Attributes:
        written: what all its sinks have written.
    """

    def __init__(self, make: Callable[[], Sink], on: Callable[[], bool]) -> None:
        self._make, self._on = make, on
        self._sink: Sink | None = None
        self._before: list[Sink] = []

    @property
    def written(self) -> list[Path]:
        """The files so far."""
        sinks = [*self._before, *([self._sink] if self._sink else [])]
        return list(dict.fromkeys(path for sink in sinks for path in getattr(sink, "written", ())))

    def deliver(self, frame: Frame, result: Result, annotated: Annotated) -> None:
        """Pass one result on, or not."""
        if not self._on():
            self.__exit__(None, None, None)
            return
        if self._sink is None:
            self._sink = self._make().__enter__()
        self._sink.deliver(frame, result, annotated)

    def __enter__(self) -> Self:
        if self._on():
            self._sink = self._make().__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        sink, self._sink = self._sink, None
        if sink is not None:
            self._before = [*self._before[-64:], sink]
            sink.__exit__(kind, error, trace)
