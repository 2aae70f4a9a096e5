"""What reads a live source: frames, one after the other, as they come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, cast

import cv2

from edgecnn.results import UInt8Array
from edgecnn.runners.live.cameras.opencv_messages import quiet
from edgecnn.runners.live.cameras.opencv_reader import declared_format

if TYPE_CHECKING:
    from edgecnn.runners.live.cameras.camera import Camera


class Grabber(Protocol):
    """The interface of a live source: frames, one after the other, as they come. Used by one thread at a time.

    Attributes:
        fps: declared pictures per second.
        pixel_format: what it sends, in the driver's or codec's words; None where it is unknown.
        captured_ns: CLOCK_MONOTONIC time at which the last picture was taken; None where only its arrival time is
            known.
        notice: settings that differ from the requested ones.
    """

    fps: float | None
    pixel_format: str | None
    captured_ns: int | None
    notice: str | None

    def grab(self) -> UInt8Array | None:
        """Wait for the next picture, uint8 [height, width, 3] BGR, which the caller may keep; None at the end."""
        ...

    def close(self) -> None:
        """Release the device."""
        ...


class OpenCvGrabber:
    """Frames of a cv2.VideoCapture."""

    captured_ns: int | None = None
    notice: str | None = None

    def __init__(self, capture: cv2.VideoCapture, *, fps: float | None) -> None:
        self.fps = fps
        self.pixel_format = declared_format(capture)
        self._capture = capture

    def grab(self) -> UInt8Array | None:
        """The next picture; None at the end, on an error, or after the read timeout."""
        with quiet():  # our states report a silence already
            there, image = self._capture.read()
        return cast(UInt8Array, image) if there else None

    def close(self) -> None:
        """Release the capture."""
        self._capture.release()


class FoundRecordingError(Exception):
    """A source that was opened as live turned out to be a recording.

    Attributes:
        camera: the open recording.
    """

    def __init__(self, camera: Camera) -> None:
        super().__init__(f"{camera.name} is a recording")
        self.camera = camera
