"""Several cameras that are opened, watched and closed together."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, NoReturn, Self

from edgecnn.errors import SpecError
from edgecnn.runners.live.camera import Camera, name_of, open_camera, words_of
from edgecnn.runners.live.capture_spec import CaptureSpec
from edgecnn.runners.live.reconnect import CameraState, Reconnect
from edgecnn.runners.live.streams import StateListener

_FROM_WORST: Final[tuple[CameraState, ...]] = ("lost", "connecting", "stalled", "live")


class CameraGroup:
    """What can be said of several cameras at once. Frames come from its `cameras`, by `live`.

    Args:
        cameras: open; closed by the group.

    Attributes:
        cameras: as they were given.
        name: all names.
        live: one of them is.
        stills: all give pictures.
        fps: the highest that is declared.
    """

    def __init__(self, cameras: Sequence[Camera]) -> None:
        self.cameras = tuple(cameras)
        self.name = ", ".join(camera.name for camera in cameras)
        self.live = any(camera.live for camera in cameras)
        self.stills = all(camera.stills for camera in cameras)
        self.fps = max((camera.fps for camera in cameras if camera.fps is not None), default=None)

    @property
    def frames_total(self) -> int | None:
        """How many frames there will be, where all say."""
        totals = [camera.frames_total for camera in self.cameras]
        return None if None in totals else sum(total or 0 for total in totals)

    @property
    def dropped(self) -> int:
        """How many frames all have dropped."""
        return sum(camera.dropped for camera in self.cameras)

    @property
    def remark(self) -> str | None:
        """What each has to say."""
        return "; ".join(camera.remark for camera in self.cameras if camera.remark) or None

    @property
    def notice(self) -> str | None:
        """Which of them are not as they were asked to be."""
        notices = [getattr(camera, "notice", None) for camera in self.cameras]
        return "; ".join(notice for notice in notices if notice) or None

    @property
    def state(self) -> CameraState | None:
        """The worst state that a live one is in; None where none is live."""
        states = {getattr(camera, "state", None) for camera in self.cameras}
        return next((state for state in _FROM_WORST if state in states), None)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> NoReturn:
        raise TypeError("a group's frames come from its cameras: live(group.cameras, runner)")

    def close(self) -> None:
        """Close them all."""
        with contextlib.ExitStack() as stack:  # each, also where closing another fails
            for camera in self.cameras:
                stack.callback(camera.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_cameras(
    sources: Sequence[str | int | Path],
    *,
    capture: CaptureSpec | None = None,
    reconnect: Reconnect | None = None,
    on_state: StateListener | None = None,
) -> CameraGroup:
    """Open several sources, or none where one fails.

    Args:
        sources: as for `open_camera`. Those that would have the same name get a number.
        capture: what is asked of each, as far as its kind can be asked.
        reconnect: as for `open_camera`.
        on_state: told of each; where there are several, the reason begins with its name.

    Raises:
        SpecError: none of them can be asked for something that is asked for.
        DataError, DeviceError, MissingDependencyError: as `open_camera` does.
    """
    spec = capture or CaptureSpec()
    words = [words_of(source) for source in sources]
    if useless := spec.asked.difference(*words):
        raise SpecError(f"none of these sources can be asked for {', '.join(sorted(useless))}")
    with contextlib.ExitStack() as stack:
        cameras = []
        for source, name, own_words in zip(sources, _distinct_names(sources), words, strict=True):
            asked = spec.only(own_words)
            camera = open_camera(
                source,
                size_px=asked.size_px,
                fps=asked.fps,
                pixel_format=asked.pixel_format,
                rtsp_transport=asked.rtsp_transport,
                name=name,
                reconnect=reconnect,
                on_state=_named(name, on_state) if len(sources) > 1 else on_state,
            )
            cameras.append(stack.enter_context(camera))
        stack.pop_all()
    return CameraGroup(cameras)


def _distinct_names(sources: Sequence[str | int | Path]) -> list[str]:
    """Two channels of a recorder differ in what is hidden: "rtsp://***@host/?channel=***" #1 and #2."""
    names = [name_of(source) for source in sources]
    total, seen = Counter(names), Counter[str]()
    distinct = []
    for name in names:
        seen[name] += 1
        distinct.append(f"{name} #{seen[name]}" if total[name] > 1 else name)
    return distinct


def _named(name: str, listener: StateListener | None) -> StateListener | None:
    if listener is None:
        return None
    tell = listener
    return lambda state, why: tell(state, f"{name}: {why}")
