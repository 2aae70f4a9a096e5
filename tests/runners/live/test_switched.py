"""A sink that is switched off and on begins anew, however quickly the two follow each other."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import pytest

from edgecnn.errors import SpecError
from edgecnn.runners.live.controls import Controls
from edgecnn.runners.live.loop.counters import LiveCounters
from edgecnn.runners.live.sinks.switched import SwitchedSink


class _Written:
    """A file, as it would be: what it holds, and whether it is whole."""

    def __init__(self, files: list[_Written]) -> None:
        self.frames: list[int] = []
        self.whole = False
        self.written = [f"{len(files)}.mkv"]
        files.append(self)

    def deliver(self, frame: int, result: Any, annotated: Any) -> None:
        assert not self.whole
        self.frames.append(frame)

    def __enter__(self) -> _Written:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.whole = True


@pytest.mark.parametrize("seen", [False, True], ids=["between two results", "for a result"])
def test_each_switching_on_is_a_file_of_its_own(seen: bool) -> None:
    files: list[_Written] = []
    controls = Controls(None, LiveCounters(), records=True)  # type: ignore[arg-type]
    sink = SwitchedSink(lambda: _Written(files), lambda: controls.recording)  # type: ignore[arg-type, return-value]
    with sink:
        sink.deliver(1, None, None)  # type: ignore[arg-type]
        controls.record(on=False)
        if seen:
            sink.deliver(2, None, None)  # type: ignore[arg-type]
            assert files[0].whole
        controls.record(on=True)
        controls.record(on=True)  # said twice, it is the same recording
        for frame in (3, 4):
            sink.deliver(frame, None, None)  # type: ignore[arg-type]
        controls.record(on=False)
    assert [(file.frames, file.whole) for file in files] == [([1], True), ([3, 4], True)]
    assert [str(path) for path in sink.written] == ["0.mkv", "1.mkv"]


def test_a_run_that_does_not_record_cannot_be_made_to() -> None:
    controls = Controls(None, LiveCounters())  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="no recording"):
        controls.record(on=True)
    assert controls.recording == 0
