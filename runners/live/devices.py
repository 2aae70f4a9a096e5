"""Cameras of this machine, by OpenCV: V4L2 on Linux."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2

from edgecnn.errors import DeviceError
from edgecnn.results import UInt8Array
from edgecnn.runners.live._opencv import quiet
from edgecnn.runners.live.capture_spec import CaptureSpec
from edgecnn.runners.live.files import declared_fps
from edgecnn.runners.live.frames import believable
from edgecnn.runners.live.reconnect import Reconnect
from edgecnn.runners.live.streams import LiveCamera, OpenCvGrabber, StateListener

_QUEUE = 2  # of the driver: it fills one while the other is read; the thread takes them as they come
_FPS_TOLERANCE = 0.5


class DeviceGrabber(OpenCvGrabber):
    """Frames of a driver, which says when they were taken."""

    def grab(self) -> UInt8Array | None:
        """The next picture; None when the device is gone or silent."""
        image = super().grab()
        # V4L2 stamps with CLOCK_MONOTONIC, and OpenCV passes that on as a position in ms; others give 0
        stamp_ms = self._capture.get(cv2.CAP_PROP_POS_MSEC) if image is not None else 0.0
        self.captured_ns = believable(round(stamp_ms * 1e6)) if stamp_ms > 0 else None
        return image


def open_device(
    source: int | str,
    *,
    spec: CaptureSpec,
    name: str,
    reconnect: Reconnect | None = None,
    on_state: StateListener | None = None,
) -> LiveCamera:
    """A camera of this machine, by index or by path (/dev/videoN).

    Raises:
        DeviceError: it is not there, is in use, or is not a camera.
    """
    capture = _open_driver(source, name, spec)
    return LiveCamera(
        name,
        _grabber(capture),
        reopen=lambda: _grabber(_open_driver(source, name, spec)),
        reconnect=reconnect,
        on_state=on_state,
        notice=_not_as_asked(name, spec, capture),
    )


def _grabber(capture: cv2.VideoCapture) -> DeviceGrabber:
    return DeviceGrabber(capture, fps=declared_fps(capture))


def _open_driver(source: int | str, name: str, spec: CaptureSpec) -> cv2.VideoCapture:
    backend = cv2.CAP_V4L2 if sys.platform == "linux" else cv2.CAP_ANY
    with quiet():
        capture = cv2.VideoCapture(source, backend)
        if not capture.isOpened():
            raise DeviceError(f"{name} does not open: {_why_not(source)}")
        capture.set(cv2.CAP_PROP_BUFFERSIZE, _QUEUE)
        # in this order: which sizes there are depends on the format, which rates on both
        if spec.pixel_format:
            capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*spec.pixel_format))
        if spec.size_px:
            capture.set(cv2.CAP_PROP_FRAME_WIDTH, spec.size_px[0])
            capture.set(cv2.CAP_PROP_FRAME_HEIGHT, spec.size_px[1])
        if spec.fps:
            capture.set(cv2.CAP_PROP_FPS, spec.fps)
    return capture


def _not_as_asked(name: str, spec: CaptureSpec, capture: cv2.VideoCapture) -> str | None:
    """Where a camera gives something else than it was asked for, what it is."""
    grabber = _grabber(capture)
    size = (round(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), round(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)))
    differences = []
    if spec.size_px and size != spec.size_px:
        differences.append(f"{size[0]}x{size[1]} px instead of {spec.size_px[0]}x{spec.size_px[1]}")
    if spec.fps and (grabber.fps is None or abs(grabber.fps - spec.fps) > _FPS_TOLERANCE):
        differences.append(f"{_number(grabber.fps)} frames/s instead of {spec.fps:g}")
    if spec.pixel_format and grabber.pixel_format != spec.pixel_format.strip():
        differences.append(f"{grabber.pixel_format or 'an unknown format'} instead of {spec.pixel_format}")
    return f"{name} gives {', '.join(differences)}" if differences else None


def _number(fps: float | None) -> str:
    return "an unknown number of" if fps is None else f"{fps:g}"


def _why_not(source: int | str) -> str:
    if sys.platform != "linux":
        return "is it connected, and free?"
    path = Path(f"/dev/video{source}" if isinstance(source, int) else source)
    if not path.exists():
        there = ", ".join(sorted(str(device) for device in Path("/dev").glob("video*"))) or "none"
        return f"{path} is not there; cameras here: {there}"
    try:
        with path.open("rb"):
            pass
    except OSError as failed:
        return f"{path}: {failed.strerror}; is another program using it, are you in the group 'video'?"
    return f"{path} is there, but gives no video; of a camera's two devices, one is often for metadata"
