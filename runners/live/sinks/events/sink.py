"""Writes an event while it happens, into a folder that appears when it is whole."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

import cv2
import numpy as np

from edgecnn.atomic import write_durably
from edgecnn.errors import StorageError
from edgecnn.json_text import encode_json
from edgecnn.results import Result, UInt8Array
from edgecnn.runners.live.frame import Frame
from edgecnn.runners.live.sinks import Annotated, camera_in_files, storage_error
from edgecnn.runners.live.sinks.events.dwell import Dwell, Stay
from edgecnn.runners.live.sinks.events.limits import BEGAN, KeepLimits
from edgecnn.runners.live.sinks.video import VideoSink
from edgecnn.tasks import TASKS

if TYPE_CHECKING:
    from typing import Self

_LONGEST_S: Final = 60.0  # an object that stays on makes the next event
_QUALITY: Final = 85
_SLACK_S: Final = 1e-6
_MOST_BEFORE: Final = 600  # pictures, whatever the rate


class EventSink:
    """Writes an event for objects that stay in a zone: FOLDER/TIME_CAMERA/ with clip.mp4, best.jpg and event.json.

    The folder appears by one rename when it is whole: a process that is killed leaves nothing that looks like an event,
    and what it left is removed at the next start. While one event lasts, further objects belong to it.

    Args:
        folder: for all events; several cameras may share it.
        name: the camera's, in the folders' names.
        live: True for a live source: times are those of capture, otherwise those of the recording.
        after_s: time in a zone after which an object is an event.
        before_s: seconds of the clip before that.
        apart_s: shortest time from one event's end to the next one's begin.
        keep: which old events are deleted.
        report: called with a remark for the end of the run.
        on_event: called with an event's record when its folder is there.

    Attributes:
        written: the folder.

    Raises:
        StorageError: the folder can't be written.
    """

    name = "events"

    def __init__(
        self,
        folder: str | Path,
        *,
        name: str,
        live: bool,
        after_s: float = 2.0,
        before_s: float = 5.0,
        apart_s: float = 0.0,
        keep: KeepLimits | None = None,
        report: Callable[[str], None] | None = None,
        on_event: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        self._on_event = on_event or (lambda record: None)
        self._folder, self._live = Path(folder), live
        self._name = camera_in_files(name)
        self._before_s, self._apart_s = before_s, apart_s
        self._keep, self._report = keep or KeepLimits(), report or (lambda text: None)
        self._dwell = Dwell(after_s)
        self._before: deque[tuple[float, Frame, bytes]] = deque(maxlen=_MOST_BEFORE)
        self._event: _Event | None = None
        self._quiet_until_s = -np.inf
        self._count = 0
        self.written: list[Path] = [self._folder]
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as failed:
            raise storage_error(self._folder, failed) from failed

    def deliver(self, frame: Frame, result: Result, annotated: Annotated) -> None:
        """Look at one result.

        Raises:
            StorageError: the disk is full, or not writable.
        """
        at_s = frame.at_ns(live=self._live) * 1e-9
        objects = TASKS.of(result).objects(result)
        stays, better = ([], False) if objects is None else self._dwell.update(objects, at_s)
        try:
            if self._event is not None and (not stays or at_s - self._event.began_s > _LONGEST_S):
                self._end(at_s)
            if self._event is None and stays and at_s >= self._quiet_until_s:
                self._begin(frame, at_s)
            if self._event is not None:
                self._event.add(frame, annotated.picture, stays, better=better)
            self._remember(frame, annotated, at_s)
        except OSError as failed:
            raise storage_error(self._folder, failed) from failed

    def _remember(self, frame: Frame, annotated: Annotated, at_s: float) -> None:
        if self._before_s <= 0 or self._event is not None:
            return
        encoded = cv2.imencode(".jpg", annotated.picture, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes()
        self._before.append((at_s, frame, encoded))
        while self._before and at_s - self._before[0][0] > self._before_s:
            self._before.popleft()

    def _begin(self, frame: Frame, at_s: float) -> None:
        began = time.strftime("%Y-%m-%dT%H-%M-%S", time.gmtime(frame.captured_unix_ns // 10**9))
        milliseconds = frame.captured_unix_ns // 10**6 % 1000
        name = f"{began}.{milliseconds:03d}Z_{self._name}"
        self._event = _Event(self._folder / name, self._name, frame, at_s, live=self._live)
        for before_s, before, jpeg in self._before:
            if at_s - before_s > self._before_s + _SLACK_S:
                continue
            picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
            assert picture is not None
            self._event.write(before, np.asarray(picture, np.uint8))
        self._before.clear()

    def _end(self, at_s: float) -> None:
        event, self._event = self._event, None
        if event is not None:
            self._quiet_until_s = at_s + self._apart_s
            self._on_event(event.finish())
            self._count += 1
            self._keep.apply(self._folder, self._name)

    def __enter__(self) -> Self:
        for left_over in self._folder.glob(f".{BEGAN}_{self._name}.partial-*"):
            shutil.rmtree(left_over, ignore_errors=True)  # of a process that was killed
        self._keep.apply(self._folder, self._name)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish the event that lasts; one that could not even begin, on a full disk, is none."""
        if self._event is not None and not self._event.objects:
            self._event.drop()
        elif self._event is not None:
            self._end(self._event.last_s)
        if self._count:
            self._report(f"{self._count} {'event' if self._count == 1 else 'events'} in {self._folder}")


class _Event:
    """One event, written into a hidden folder until it is whole."""

    def __init__(self, folder: Path, camera: str, frame: Frame, at_s: float, *, live: bool) -> None:
        self.began_s = self.last_s = at_s
        self._folder, self._camera, self._frame = folder, camera, frame
        self._partial = folder.with_name(f".{folder.name}.partial-{os.getpid()}")
        self._partial.mkdir()
        self._clip = VideoSink(self._partial / "clip.mp4", live=True)
        self._live = live
        self.objects: dict[tuple[str, int], Stay] = {}
        self._best: UInt8Array | None = None

    def add(self, frame: Frame, picture: UInt8Array, stays: list[Stay], *, better: bool) -> None:
        """A further picture of it."""
        self.write(frame, picture)
        self.objects |= {(stay.zone, stay.track_id): stay for stay in stays}
        self.last_s = max([self.last_s, *(stay.last_s for stay in stays)])
        if self._best is None or (better and stays):
            self._best = picture

    def write(self, frame: Frame, picture: UInt8Array) -> None:
        """Into the clip, at its own time."""
        at_ns = frame.at_ns(live=self._live)
        timed = Frame(picture, frame.index, at_ns, frame.captured_unix_ns, frame.source)
        self._clip.deliver(timed, None, Annotated(lambda: picture))  # type: ignore[arg-type] # the clip draws nothing

    def finish(self) -> dict[str, Any]:
        """Make it whole, and let it appear; returns its record. If that fails, nothing of it stays."""
        try:
            self._clip.__exit__(None, None, None)
            if self._best is not None:
                best = cv2.imencode(".jpg", self._best, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
                write_durably(self._partial / "best.jpg", best)
            record = self._record()
            write_durably(self._partial / "event.json", encode_json(record, indent=1))
            os.replace(self._partial, self._folder)
        except OSError as failed:
            self.drop()
            raise storage_error(self._folder, failed) from failed
        except StorageError:
            self.drop()
            raise
        return record

    def drop(self) -> None:
        """Leave nothing of it."""
        with contextlib.suppress(OSError, StorageError):
            self._clip.__exit__(None, None, None)
        shutil.rmtree(self._partial, ignore_errors=True)

    def _record(self) -> dict[str, Any]:
        began_unix_ns = self._frame.captured_unix_ns
        return {
            "event": self._folder.name,
            "camera": self._camera,
            "source": self._frame.source,
            "began_unix_ns": began_unix_ns,
            "frame": self._frame.index,
            "seconds": round(self.last_s - self.began_s, 3),
            "objects": [
                {
                    "track_id": stay.track_id,
                    "label": stay.label,
                    "zone": stay.zone or None,
                    "score": round(stay.score, 4),
                    "box": stay.box,
                    "seconds": round(stay.last_s - stay.since_s, 3),
                }
                for stay in self.objects.values()
            ],
        }
