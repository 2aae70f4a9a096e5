"""A separate sink for each of several sources."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from edgecnn.results import Result
from edgecnn.runners.live.frame import Frame
from edgecnn.runners.live.sinks import Annotated, Sink

if TYPE_CHECKING:
    from typing import Self


class SinkBySource:
    """Passes each source's results to its own sink.

    Args:
        sinks: by the source's name (`Frame.source`); entered and left here.
    """

    def __init__(self, sinks: Mapping[str, Sink]) -> None:
        self._sinks = sinks
        self._open = contextlib.ExitStack()

    @property
    def written(self) -> list[Path]:
        """The files that the sinks have written."""
        return [path for sink in self._sinks.values() for path in getattr(sink, "written", ())]

    def deliver(self, frame: Frame, result: Result, annotated: Annotated) -> None:
        """Pass on one result."""
        self._sinks[frame.source].deliver(frame, result, annotated)

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            for sink in self._sinks.values():
                stack.enter_context(sink)
            self._open = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, trace)
