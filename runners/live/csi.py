"""A Raspberry Pi's own camera ("csi"), by picamera2."""

from __future__ import annotations

import time
from importlib import import_module
from typing import Any, Final, cast

from edgecnn.errors import DeviceError, MissingDependencyError
from edgecnn.results import UInt8Array
from edgecnn.runners.live.capture_spec import CaptureSpec
from edgecnn.runners.live.frames import believable
from edgecnn.runners.live.reconnect import Reconnect
from edgecnn.runners.live.streams import LiveCamera, StateListener

_BGR: Final = "RGB888"  # DRM's name for what lies in memory as B, G, R
_DEFAULT_SIZE_PX: Final = (1280, 720)
_INSTALL: Final = (
    "apt-get install python3-picamera2, and make the virtual environment with --system-site-packages "
    "(it stands on libcamera, which is not on PyPI)"
)


class CsiGrabber:
    """Frames of a picamera2.Picamera2, which it starts.

    Args:
        camera: closed by this.
        spec: what is asked of it.
        stall_s: without a frame for so long, grab gives up.
    """

    captured_ns: int | None = None
    pixel_format: str | None = _BGR

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
        """The next picture; None where none came in time."""
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
        if taken_ns is not None:  # on CLOCK_BOOTTIME, which goes on while the machine sleeps
            age_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - int(taken_ns)
            self.captured_ns = believable(time.monotonic_ns() - age_ns)
        return cast(UInt8Array, image)

    def close(self) -> None:
        """Stop the camera and give it back."""
        self._camera.stop()
        self._camera.close()


def open_csi(
    index: int = 0,
    *,
    spec: CaptureSpec,
    name: str,
    reconnect: Reconnect | None = None,
    on_state: StateListener | None = None,
) -> LiveCamera:
    """The Raspberry Pi's camera of that number.

    Raises:
        DeviceError: it is not there, or in use.
        MissingDependencyError: picamera2 is not installed.
    """
    try:
        picamera2: Any = import_module("picamera2")
    except ModuleNotFoundError as missing:
        raise MissingDependencyError("csi", missing.name or "picamera2", install=_INSTALL) from missing
    policy = reconnect or Reconnect()

    def grabber() -> CsiGrabber:
        try:
            camera = picamera2.Picamera2(index)
        except (RuntimeError, IndexError) as failed:  # an IndexError where there is no camera of that number
            raise DeviceError(
                f"{name} does not open: {failed or 'no such camera'}; is its ribbon seated, does another program "
                "use it? rpicam-hello --list-cameras shows what is there"
            ) from failed
        try:
            return CsiGrabber(camera, spec, stall_s=policy.stall_s)
        except (RuntimeError, ValueError) as failed:
            camera.close()
            raise DeviceError(f"{name} does not take these settings: {failed}") from failed

    first = grabber()
    notice = None
    if spec.size_px and first.size_px != spec.size_px:
        notice = f"{name} gives {first.size_px[0]}x{first.size_px[1]} px instead of {spec.size_px[0]}x{spec.size_px[1]}"
    return LiveCamera(name, first, reopen=grabber, reconnect=policy, on_state=on_state, notice=notice)
