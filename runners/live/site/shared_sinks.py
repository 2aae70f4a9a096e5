"""The sinks that several cameras share: the page, and the metrics of all."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from edgecnn._version import __version__
from edgecnn.errors import SpecError
from edgecnn.results import Result
from edgecnn.runners.live.frame import Frame
from edgecnn.runners.live.loop.counters import LiveCounters
from edgecnn.runners.live.sinks import Annotated, Sink
from edgecnn.runners.live.sinks.kind import Counts
from edgecnn.runners.live.site.camera_run import CameraRun

if TYPE_CHECKING:
    from typing import Self

    from edgecnn.runners.live.sinks.web import WebSink


class SharedSink:
    """Passes the results of several cameras to one sink, one at a time; it may be replaced while they run.

    Args:
        name: the sink's name.

    Attributes:
        behind: the sink, which is entered and left elsewhere; None while there is none.
        shows_only: True: no camera runs for it alone.
    """

    shows_only = True

    def __init__(self, name: str) -> None:
        self.name = name
        self.behind: Sink | None = None
        self._delivering = threading.Lock()

    def deliver(self, frame: Frame, result: Result, annotated: Annotated) -> None:
        """Pass one result on."""
        with self._delivering:
            if self.behind is not None:
                self.behind.deliver(frame, result, annotated)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing: the other cameras still need it."""


class SummedCounts(Mapping[str, Callable[[], int]]):
    """The drops, or the faults, of several cameras: by stage or sink, a function that returns the sum.

    Args:
        cameras: returns the cameras that run now.
        word: "dropped" or "faults", of their `Setting`.
    """

    def __init__(self, cameras: Callable[[], Sequence[CameraRun]], word: str) -> None:
        self._cameras, self._word = cameras, word

    def _counts(self) -> list[Counts]:
        settings = [camera.setting for camera in self._cameras()]
        return [getattr(setting, self._word) for setting in settings if setting is not None]

    def __getitem__(self, name: str) -> Callable[[], int]:
        return lambda: sum(counts[name]() for counts in self._counts() if name in counts)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name for counts in self._counts() for name in list(counts)))

    def __len__(self) -> int:
        return len(list(iter(self)))


def shared_page(
    address: str | int, cameras: Callable[[], Sequence[CameraRun]], total: LiveCounters, token: str | None
) -> WebSink:
    """The page of several cameras: the list at its top selects one.

    Args:
        address, token: as for `WebSink`; "" is the default address.
        cameras: returns the cameras that run now, in the order of the list.
        total: their counters together.

    Raises:
        SpecError, MissingDependencyError: as `WebSink`.
    """
    from edgecnn.runners.live.sinks.web import DEFAULT_PORT, Watched, WebSink

    def score(index: int) -> float | None:
        at = list(cameras())
        return at[index].runner.task.thresholds.get("score") if index < len(at) else None

    def set_score(wanted: float, index: int) -> None:
        at = list(cameras())
        if index >= len(at):
            raise SpecError(f"there is no camera {index}")
        at[index].runner.set_thresholds(score=wanted)

    watched = Watched(
        info=_InfoNow(cameras),
        counters=total,
        dropped=SummedCounts(cameras, "dropped"),
        faults=SummedCounts(cameras, "faults"),
        sources={camera.plan.name: _StateOf(cameras, camera.plan.name) for camera in cameras()},
        score=score,
        set_score=set_score,
        events=lambda: [folder for camera in cameras() if camera.setting for folder in camera.setting.event_folders],
    )
    return WebSink(DEFAULT_PORT if address == "" else address, watched=watched, token=token)


class _StateOf:
    """The state of the camera that has a name now: a reload may have replaced it."""

    def __init__(self, cameras: Callable[[], Sequence[CameraRun]], name: str) -> None:
        self._cameras, self._name = cameras, name

    def __call__(self) -> tuple[str, str]:
        found = [camera for camera in self._cameras() if camera.plan.name == self._name]
        return found[0].state() if found else ("ended", "")


class _InfoNow(Mapping[str, str]):
    """What runs now: a reload may have opened another network."""

    def __init__(self, cameras: Callable[[], Sequence[CameraRun]]) -> None:
        self._cameras = cameras

    def __getitem__(self, word: str) -> str:
        return info_of(self._cameras())[word]

    def __iter__(self) -> Iterator[str]:
        return iter(info_of(self._cameras()))

    def __len__(self) -> int:
        return len(info_of(self._cameras()))


def info_of(cameras: Sequence[CameraRun]) -> dict[str, str]:
    """What runs, in words; where cameras differ, all of them."""
    runners = [camera.runner for camera in cameras]
    words = {
        "source": [camera.plan.name for camera in cameras],
        "task": [runner.task.name for runner in runners],
        "format": [runner.format for runner in runners],
        "precision": [runner.precision for runner in runners],
        "device": [runner.backend.opened.device_name for runner in runners],
        "runtime": [runner.backend.opened.runtime for runner in runners],
        "version": [__version__],
        "bundle": [camera.plan.network.version for camera in cameras],
    }
    return {word: ", ".join(dict.fromkeys(each)) for word, each in words.items()}
