"""Network streams, by OpenCV's FFmpeg: RTSP, and MJPEG over HTTP."""

from __future__ import annotations

import time
from typing import Final

import cv2

from edgecnn.errors import DeviceError
from edgecnn.results import UInt8Array
from edgecnn.runners.live._opencv import FILE_OPTIONS, open_video
from edgecnn.runners.live.capture_spec import CaptureSpec
from edgecnn.runners.live.diagnosis import why_closed
from edgecnn.runners.live.files import VideoCamera, declared_fps, declared_frames
from edgecnn.runners.live.reconnect import Reconnect
from edgecnn.runners.live.streams import LiveCamera, OpenCvGrabber, StateListener

OPEN_TIMEOUT_MS: Final = 5000
# FFmpeg looks at a stream for 5 s at most before it gives a frame, by default, and gives what it has kept meanwhile:
# here for 0.1 s. Its "nobuffer" would throw that away, and with it the key frame that all others until the next need.
_RTSP_OPTIONS: Final = "allowed_media_types;video|fflags;discardcorrupt|analyzeduration;100000"
_SMEARED: Final = (
    "over udp, the picture is smeared after a packet was lost, until the next key frame: FFmpeg fills in what is "
    "missing, and does not say so"
)


class StreamGrabber(OpenCvGrabber):
    """Frames of a network stream.

    Args:
        capture: open.
        fps: as declared.
        stall_s: the capture's read timeout.
    """

    def __init__(self, capture: cv2.VideoCapture, *, fps: float | None, stall_s: float) -> None:
        super().__init__(capture, fps=fps)
        self._stall_s = stall_s

    def grab(self) -> UInt8Array | None:
        """The next picture; None at the end, on an error, or when the read timeout passed."""
        asked_s = time.monotonic()
        image = super().grab()
        # at a timeout, FFmpeg's parser still hands out the frame that it held back, which is as old as the silence
        return image if time.monotonic() - asked_s < self._stall_s else None


def open_url(
    url: str,
    *,
    spec: CaptureSpec,
    name: str,
    reconnect: Reconnect | None = None,
    on_state: StateListener | None = None,
) -> LiveCamera | VideoCamera:
    """A network stream; a recording that a web server holds (its length is known) is read as a file is.

    Raises:
        DeviceError: no answer in time, refused, or no video there.
    """
    policy = reconnect or Reconnect()
    capture = _open_stream(url, name, spec, policy)
    over_http = url.lower().startswith("http")
    if over_http and declared_frames(capture) is not None:
        return VideoCamera(name, capture)

    # MJPEG over HTTP declares no rate: what OpenCV reports is FFmpeg's default of 25
    def grabber(opened: cv2.VideoCapture) -> StreamGrabber:
        fps = None if over_http else declared_fps(opened)
        return StreamGrabber(opened, fps=fps, stall_s=policy.stall_s)

    return LiveCamera(
        name,
        grabber(capture),
        reopen=lambda: grabber(_open_stream(url, name, spec, policy)),
        reconnect=policy,
        on_state=on_state,
        notice=f"{name}: {_SMEARED}" if spec.rtsp_transport == "udp" else None,
    )


def _open_stream(url: str, name: str, spec: CaptureSpec, policy: Reconnect) -> cv2.VideoCapture:
    parameters = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, OPEN_TIMEOUT_MS]
    parameters += [cv2.CAP_PROP_READ_TIMEOUT_MSEC, round(policy.stall_s * 1000)]
    options = FILE_OPTIONS
    if url.lower().startswith("rtsp"):
        options = f"rtsp_transport;{spec.rtsp_transport or 'tcp'}|{_RTSP_OPTIONS}"
        # each thread of FFmpeg's decoder holds a frame back
        parameters += [cv2.CAP_PROP_N_THREADS, 1]
    capture = open_video(url, parameters, options=options)
    if not capture.isOpened():
        raise DeviceError(f"{name} does not open: {why_closed(url, otherwise=_what_else(url, spec))}")
    return capture


def _what_else(url: str, spec: CaptureSpec) -> str:
    """What to try where a server has nothing against us, and yet nothing comes."""
    if not url.lower().startswith("rtsp://"):
        return "is it video?"
    return f"over {spec.rtsp_transport or 'tcp'}; over {'tcp' if spec.rtsp_transport == 'udp' else 'udp'}, perhaps?"
