"""A Raspberry Pi's own camera ("csi"), with picamera2."""

from __future__ import annotations

import re
import time
from importlib import import_module
from typing import Any, Final, cast

from edgecnn.errors import DeviceError, MissingDependencyError
from edgecnn.results import UInt8Array
from edgecnn.runners.live.cameras.camera import Camera
from edgecnn.runners.live.cameras.capture_spec import CaptureSpec
from edgecnn.runners.live.cameras.kind import CameraKind, FoundCamera, Opening, Source, Words
from edgecnn.runners.live.cameras.live_camera import open_live
from edgecnn.runners.live.frame import plausible_capture_time

_BGR: Final = "RGB888"  # DRM's name for the memory order B, G, R
_DEFAULT_SIZE_PX: Final = (1280, 720)
_WORDS: Final = re.compile(r"csi(?::(\d+))?")
_INSTALL: Final = (
    "apt-get install python3-picamera2, and make the virtual environment with --system-site-packages "
    "(it needs libcamera, which is not on PyPI)"
)


class CsiGrabber:
    """Frames of a picamera2.Picamera2, which is started here.

    Args:
        camera: the camera; closed here.
        spec: the requested settings.
        stall_s: time without a frame after which `grab` gives up.
    """

    captured_ns: int | None = None
    pixel_format: str | None = _BGR
    notice: str | None = None

    def __init__(self, camera: Any, spec: CaptureSpec, *, stall_s: float) -> None:
        self._camera, self._stall_s = camera, stall_s
        controls = {"FrameRate": spec.fps} if spec.fps else {}
        main = {"format": _BGR, "size": spec.size_px or _DEFAULT_SIZE_PX}
        camera.configure(camera.create_video_configuration(main=main, controls=controls))
        given = camera.camera_configuration()["main"]
        self.size_px = cast(tuple[int, int], tuple(given["size"]))
        self.fps = spec.fps
        camera.start()

    def grab(self) -> UInt8Array | None:
        """The next picture; None if none came in time."""
        try:
            request = self._camera.capture_request(wait=False).get_result(timeout=self._stall_s)
        except TimeoutError:
            return None
        except RuntimeError as failed:
            raise DeviceError(f"the camera gives no frame: {failed}") from failed
        try:
            image = request.make_array("main")
            taken_ns = request.get_metadata().get("SensorTimestamp")
        finally:
            request.release()
        if taken_ns is not None:  # on CLOCK_BOOTTIME, which also runs while the machine sleeps
            age_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - int(taken_ns)
            self.captured_ns = plausible_capture_time(time.monotonic_ns() - age_ns)
        return cast(UInt8Array, image)

    def close(self) -> None:
        """Stop and release the camera."""
        self._camera.stop()
        self._camera.close()


def recognise(words: Words) -> Source | None:
    """The source for "csi" and "csi:1"."""
    found = _WORDS.fullmatch(words) if isinstance(words, str) else None
    if found is None:
        return None
    return Source(
        name=found[0],
        title="csi",
        words=frozenset({"size_px", "fps"}),
        open=lambda opening: open_csi(int(found[1] or 0), opening),
    )


def open_csi(index: int, opening: Opening) -> Camera:
    """The Raspberry Pi's camera of that number.

    Raises:
        DeviceError: it does not exist or is in use, and `reconnect` does not wait for it.
        MissingDependencyError: picamera2 is not installed.
    """
    try:
        picamera2: Any = import_module("picamera2")
    except ModuleNotFoundError as missing:
        raise MissingDependencyError("csi", missing.name or "picamera2", install=_INSTALL) from missing
    name, spec = opening.name, opening.spec

    def grabber() -> CsiGrabber:
        try:
            camera = picamera2.Picamera2(index)
        except (RuntimeError, IndexError) as failed:  # IndexError: no camera of that number
            raise DeviceError(
                f"{name} does not open: {failed or 'no such camera'}; check its ribbon cable and that no other program "
                "uses it; rpicam-hello --list-cameras lists the cameras"
            ) from failed
        try:
            opened = CsiGrabber(camera, spec, stall_s=opening.reconnect.stall_s)
        except (RuntimeError, ValueError) as failed:
            camera.close()
            raise DeviceError(f"{name} does not accept these settings: {failed}") from failed
        if spec.size_px and opened.size_px != spec.size_px:
            given, asked = ("x".join(map(str, size)) for size in (opened.size_px, spec.size_px))
            opened.notice = f"{name} gives {given} px instead of {asked}"
        return opened

    return open_live(opening, grabber)


def found() -> list[FoundCamera]:
    """The cameras that libcamera finds."""
    try:
        picamera2: Any = import_module("picamera2")
        cameras = picamera2.Picamera2.global_camera_info()
    except ImportError:
        why = "picamera2 is not installed"
        return [FoundCamera(kind=KIND.name, source=KIND.form, works=False, why=why, needs=_INSTALL)]
    except (RuntimeError, AttributeError) as failed:
        return [FoundCamera(kind=KIND.name, source=KIND.form, works=False, why=f"libcamera fails: {failed}")]
    rows = [
        FoundCamera(kind=KIND.name, source=f"csi:{number}", device_name=str(camera.get("Model", "")))
        for number, camera in enumerate(cameras)
    ]
    return rows or [FoundCamera(kind=KIND.name, source=KIND.form, works=False, why="no camera is connected")]


KIND: Final = CameraKind(
    name="csi", form="csi or csi:N", about="a Raspberry Pi's own camera", recognise=recognise, found=found
)
