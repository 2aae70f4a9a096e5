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
        turn: returns the number of the turn that it is on for; 0 while it is off. A number that has changed is a turn
            that ended: off and on again may have come between two results.

    Attributes:
        written: what all its sinks have written.
    """

    def __init__(self, make: Callable[[], Sink], turn: Callable[[], int]) -> None:
        self._make, self._turn = make, turn
        self._begun = 0
        self._sink: Sink | None = None
        self._before: list[Sink] = []

    @property
    def written(self) -> list[Path]:
        """The files so far."""
        sinks = [*self._before, *([self._sink] if self._sink else [])]
        return list(dict.fromkeys(path for sink in sinks for path in getattr(sink, "written", ())))

    def deliver(self, frame: Frame, result: Result, annotated: Annotated) -> None:
        """Pass one result on, or not."""
        self._follow()
        if self._sink is not None:
            self._sink.deliver(frame, result, annotated)

    def _follow(self) -> None:
        turn = self._turn()
        if turn != self._begun:
            self.__exit__(None, None, None)
        if turn and self._sink is None:
            self._sink = self._make().__enter__()
        self._begun = turn

    def __enter__(self) -> Self:
        self._follow()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        sink, self._sink = self._sink, None
        if sink is not None:
            self._before = [*self._before[-64:], sink]
            sink.__exit__(kind, error, trace)
