"""Cameras of this machine, with OpenCV: V4L2 on Linux."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Final

import cv2

from edgecnn.errors import DeviceError, SpecError
from edgecnn.results import UInt8Array
from edgecnn.runners.live.cameras.camera import Camera
from edgecnn.runners.live.cameras.capture_spec import CaptureSpec
from edgecnn.runners.live.cameras.grabber import OpenCvGrabber
from edgecnn.runners.live.cameras.kind import CameraKind, FoundCamera, Opening, Source, Words
from edgecnn.runners.live.cameras.live_camera import open_live
from edgecnn.runners.live.cameras.opencv_messages import quiet
from edgecnn.runners.live.cameras.opencv_reader import declared_fps
from edgecnn.runners.live.frame import plausible_capture_time

_QUEUE = 2  # driver buffers: it fills one while the other is read; the thread takes frames as they come
_FPS_TOLERANCE = 0.5


class DeviceGrabber(OpenCvGrabber):
    """Frames of a driver that reports when they were taken."""

    def grab(self) -> UInt8Array | None:
        """The next picture; None when the device was removed or is silent."""
        image = super().grab()
        # V4L2 stamps frames with CLOCK_MONOTONIC, and OpenCV returns that as a position in ms; other drivers give 0
        stamp_ms = self._capture.get(cv2.CAP_PROP_POS_MSEC) if image is not None else 0.0
        self.captured_ns = plausible_capture_time(round(stamp_ms * 1e6)) if stamp_ms > 0 else None
        return image


def recognise(words: Words) -> Source | None:
    """A camera of this machine, by index (0, "0") or by path (/dev/videoN).

    Raises:
        SpecError: a negative index.
    """
    if isinstance(words, int) or (isinstance(words, str) and words.isdecimal()):
        if int(words) < 0:
            raise SpecError(f"expected a camera index of 0 or more, got {words}")
        return _source(int(words), f"camera {words}")
    return _source(words, words) if isinstance(words, str) and words.startswith("/dev/video") else None


def _source(device: int | str, name: str) -> Source:
    return Source(
        name=name,
        title=KIND.about,
        words=frozenset({"size_px", "fps", "pixel_format"}),
        open=lambda opening: open_device(device, opening),
    )


def open_device(device: int | str, opening: Opening) -> Camera:
    """A camera of this machine, by index or by path (/dev/videoN).

    Raises:
        DeviceError: it does not exist, is in use, or is not a camera, and `reconnect` does not wait for it.
    """

    def grabber() -> DeviceGrabber:
        capture = _open_driver(device, opening.name, opening.spec)
        opened = DeviceGrabber(capture, fps=declared_fps(capture))
        opened.notice = _differences(opening.name, opening.spec, capture, opened)
        return opened

    return open_live(opening, grabber)


def _open_driver(source: int | str, name: str, spec: CaptureSpec) -> cv2.VideoCapture:
    backend = cv2.CAP_V4L2 if sys.platform == "linux" else cv2.CAP_ANY
    with quiet():
        capture = cv2.VideoCapture(source, backend)
        if not capture.isOpened():
            raise DeviceError(f"{name} does not open: {_reason_closed(source)}")
        capture.set(cv2.CAP_PROP_BUFFERSIZE, _QUEUE)
        # in this order: the available sizes depend on the format, the rates on both
        if spec.pixel_format:
            capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*spec.pixel_format))
        if spec.size_px:
            capture.set(cv2.CAP_PROP_FRAME_WIDTH, spec.size_px[0])
            capture.set(cv2.CAP_PROP_FRAME_HEIGHT, spec.size_px[1])
        if spec.fps:
            capture.set(cv2.CAP_PROP_FPS, spec.fps)
    return capture


def _differences(name: str, spec: CaptureSpec, capture: cv2.VideoCapture, grabber: DeviceGrabber) -> str | None:
    """The settings in which a camera differs from the requested ones, in words."""
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


def _reason_closed(source: int | str) -> str:
    if sys.platform != "linux":
        return "check that it is connected and not in use"
    path = Path(f"/dev/video{source}" if isinstance(source, int) else source)
    if not path.exists():
        there = ", ".join(sorted(str(device) for device in Path("/dev").glob("video*"))) or "none"
        return f"{path} does not exist; cameras here: {there}"
    try:
        with path.open("rb"):
            pass
    except OSError as failed:
        return f"{path}: {failed.strerror}; check that no other program uses it and that you are in the group 'video'"
    return f"{path} exists, but gives no video; of a camera's two devices, one is often for metadata"


def found() -> list[FoundCamera]:
    """The kernel's video devices; of several devices of one camera, the first gives its pictures."""
    cameras = []
    for device in sorted(Path("/sys/class/video4linux").glob("video*"), key=lambda path: (len(path.name), path.name)):
        with contextlib.suppress(OSError):
            if (device / "index").read_text().strip() in ("", "0"):
                name = (device / "name").read_text(errors="replace").strip()
                cameras.append(FoundCamera(kind=KIND.name, source=f"/dev/{device.name}", device_name=name))
    return cameras or [FoundCamera(kind=KIND.name, source="/dev/videoN", works=False, why="no camera is connected")]


KIND: Final = CameraKind(
    name="device", form="N or /dev/videoN", about="a camera of this machine", recognise=recognise, found=found
)
