"""Opens, watches and closes several cameras together."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final, NoReturn

from edgecnn.errors import SpecError
from edgecnn.runners.live.cameras.base import CameraBase
from edgecnn.runners.live.cameras.camera import Camera
from edgecnn.runners.live.cameras.capture_spec import CaptureSpec
from edgecnn.runners.live.cameras.kind import Opening, Source
from edgecnn.runners.live.cameras.live_camera import CLOSE_S
from edgecnn.runners.live.cameras.reconnect import CameraState, Reconnect, StateListener
from edgecnn.runners.live.cameras.table import source_of
from edgecnn.runners.live.simultaneous_calls import Call, wait_for_all

_FROM_WORST: Final[tuple[CameraState, ...]] = ("lost", "connecting", "stalled", "live")


class CameraGroup(CameraBase):
    """Combined properties of several cameras. Their frames come from `live(group.cameras, …)`.

    Args:
        cameras: open cameras; closed by the group.

    Attributes:
        cameras: the given cameras.
        name: all names.
        live: True if one of them is live.
        stills: True if all give pictures.
        fps: the highest declared rate.
    """

    def __init__(self, cameras: Sequence[Camera]) -> None:
        self.cameras = tuple(cameras)
        self.name = ", ".join(camera.name for camera in cameras)
        self.live = any(camera.live for camera in cameras)
        self.stills = all(camera.stills for camera in cameras)
        self.fps = max((camera.fps for camera in cameras if camera.fps is not None), default=None)

    @property
    def frames_total(self) -> int | None:
        """Number of frames, if all declare it."""
        totals = [camera.frames_total for camera in self.cameras]
        return None if None in totals else sum(total or 0 for total in totals)

    @property
    def dropped(self) -> int:
        """Number of frames that all of them dropped."""
        return sum(camera.dropped for camera in self.cameras)

    @property
    def remark(self) -> str | None:
        """The remarks of all cameras."""
        return "; ".join(camera.remark for camera in self.cameras if camera.remark) or None

    @property
    def notice(self) -> str | None:
        """The cameras whose settings differ from the requested ones."""
        notices = [getattr(camera, "notice", None) for camera in self.cameras]
        return "; ".join(notice for notice in notices if notice) or None

    @property
    def state(self) -> CameraState | None:
        """The worst state of a live camera; None where none is live."""
        states = {getattr(camera, "state", None) for camera in self.cameras}
        return next((state for state in _FROM_WORST if state in states), None)

    def __next__(self) -> NoReturn:
        raise TypeError("a group's frames come from its cameras: live(group.cameras, runner)")

    def close(self) -> None:
        """Close them all at the same time."""
        with contextlib.ExitStack() as stack:  # closes each one, even if another fails to close
            for camera in self.cameras:
                if not camera.live:
                    stack.callback(camera.close)
            live = [Call(camera.close, f"close {camera.name}") for camera in self.cameras if camera.live]
            stack.callback(wait_for_all, live, CLOSE_S)


def open_cameras(
    sources: Sequence[str | int | Path],
    *,
    capture: CaptureSpec | None = None,
    reconnect: Reconnect | None = None,
    on_state: StateListener | None = None,
    names: Sequence[str] = (),
) -> CameraGroup:
    """Open several sources; if one fails, none stays open.

    Args:
        sources: as for `open_camera`. Sources with equal names get a number.
        capture: settings requested from each, as far as its kind has them.
        reconnect: as for `open_camera`.
        on_state: called for each; with several sources, the reason begins with the source's name.
        names: their names, one for each; by default those of the sources.

    Raises:
        SpecError: none of the sources has a requested setting. DataError, DeviceError, MissingDependencyError: as
            `open_camera`; sources that are already open are closed again.
    """
    spec = capture or CaptureSpec()
    meant = [source_of(source) for source in sources]
    if useless := spec.asked.difference(*(each.words for each in meant)):
        raise SpecError(f"none of these sources has a setting {', '.join(sorted(useless))}: leave it out")
    openings = [
        Opening(
            name=name,
            spec=spec.only(each.words),
            reconnect=reconnect or Reconnect(),
            on_state=_named(name, on_state) if len(meant) > 1 else on_state,
        )
        for each, name in zip(meant, names or _distinct_names(meant), strict=True)
    ]
    if len(meant) == 1:
        return CameraGroup([meant[0].open(openings[0])])
    calls = [
        Call(partial(each.open, opening), f"open {opening.name}", unwanted=lambda camera: camera.close())
        for each, opening in zip(meant, openings, strict=True)
    ]
    try:
        return CameraGroup([call.result() for call in calls])
    except BaseException:
        for call in calls:
            call.abandon()
        raise


def _distinct_names(sources: Sequence[Source]) -> list[str]:
    """Numbers names that are equal because parts are hidden: "rtsp://***@host/?channel=***" #1 and #2."""
    names = [source.name for source in sources]
    total, taken = Counter(names), {name for name, count in Counter(names).items() if count == 1}
    distinct = []
    for name in names:
        number = 1
        while total[name] > 1 and f"{name} #{number}" in taken:
            number += 1
        distinct.append(f"{name} #{number}" if total[name] > 1 else name)
        taken.add(distinct[-1])
    return distinct


def _named(name: str, listener: StateListener | None) -> StateListener | None:
    if listener is None:
        return None
    report = listener
    return lambda state, why: report(state, f"{name}: {why}")
