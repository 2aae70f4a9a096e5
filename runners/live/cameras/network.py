"""Network streams, with OpenCV's FFmpeg: RTSP, and MJPEG over HTTP."""

from __future__ import annotations

import dataclasses
import re
import time
from typing import Final
from urllib.parse import urlsplit

import cv2

from edgecnn.errors import DataError, DeviceError, LoginError
from edgecnn.results import UInt8Array
from edgecnn.runners.live.cameras.camera import Camera
from edgecnn.runners.live.cameras.capture_spec import CaptureSpec
from edgecnn.runners.live.cameras.diagnosis import why_closed, why_silent
from edgecnn.runners.live.cameras.files import VideoCamera
from edgecnn.runners.live.cameras.grabber import FoundRecordingError, OpenCvGrabber
from edgecnn.runners.live.cameras.kind import CameraKind, Opening, Source, Words
from edgecnn.runners.live.cameras.live_camera import open_live
from edgecnn.runners.live.cameras.opencv_messages import FILE_OPTIONS, open_video
from edgecnn.runners.live.cameras.opencv_reader import (
    OpenCvReader,
    declared_fps,
    declared_frames,
    misread_content,
)
from edgecnn.runners.live.cameras.reconnect import Reconnect
from edgecnn.runners.live.cameras.urls import check_address, redacted

OPEN_TIMEOUT_MS: Final = 5000
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_NOTHING: Final[frozenset[str]] = frozenset()
_STREAMS: Final = {"rtsp": frozenset({"rtsp_transport"}), "rtsps": _NOTHING, "http": _NOTHING, "https": _NOTHING}
_RECORDINGS: Final = (".mp4", ".mov", ".m4v", ".mkv", ".avi", ".webm", ".mpg", ".mpeg")
# By default, FFmpeg examines a stream for up to 5 s before it gives a frame, and then gives all frames of that time:
# here for 0.1 s. Its "nobuffer" would discard them, including the key frame that all frames until the next one need.
_RTSP_OPTIONS: Final = "allowed_media_types;video|fflags;discardcorrupt|analyzeduration;100000"
_SMEARED: Final = (
    "over udp, the picture is smeared after a packet was lost, until the next key frame: FFmpeg fills the "
    "gaps without reporting them"
)


class StreamGrabber(OpenCvGrabber):
    """Frames of a network stream.

    Args:
        capture: an open capture.
        fps: the declared rate.
        stall_s: the capture's read timeout.
    """

    def __init__(self, capture: cv2.VideoCapture, *, fps: float | None, stall_s: float) -> None:
        super().__init__(capture, fps=fps)
        self._stall_s = stall_s

    def grab(self) -> UInt8Array | None:
        """The next picture; None at the end, on an error, or after the read timeout."""
        asked_s = time.monotonic()
        image = super().grab()
        # at a timeout, FFmpeg's parser still returns the frame that it held back, which is as old as the silence
        return image if time.monotonic() - asked_s < self._stall_s else None


def recognise(words: Words) -> Source | None:
    """The source for "rtsp://…" and "http://…".

    Raises:
        SpecError: an address that is not valid.
    """
    scheme = _SCHEME.match(words) if isinstance(words, str) else None
    if scheme is None or scheme[1].lower() not in _STREAMS:
        return None
    url, protocol = str(words), scheme[1].lower()
    check_address(url)
    return Source(
        name=redacted(url),
        title=f"a stream ({protocol}), whose server sets size and rate,",
        words=_STREAMS[protocol],
        open=lambda opening: open_url(url, opening),
    )


def open_url(url: str, opening: Opening) -> Camera:
    """A network stream; a recording on a web server (its length is known) is read like a file.

    Raises:
        DeviceError: no answer in time, refused, or no video, and `reconnect` does not wait for it.
        DataError: interlaced video, which OpenCV reads wrongly.
    """
    name, spec, policy = opening.name, opening.spec, opening.reconnect
    over_http = url.lower().startswith("http")
    if over_http and urlsplit(url).path.lower().endswith(_RECORDINGS):  # waiting for a missing file makes no sense
        opening = dataclasses.replace(opening, reconnect=dataclasses.replace(policy, give_up_s=0))

    def grabber() -> StreamGrabber:
        capture = _open_stream(url, name, spec, policy)
        if over_http and declared_frames(capture) is not None:
            raise FoundRecordingError(VideoCamera(name, OpenCvReader(capture, name=name)))
        # MJPEG over HTTP declares no rate: what OpenCV reports is FFmpeg's default of 25
        fps = None if over_http else declared_fps(capture)
        opened = StreamGrabber(capture, fps=fps, stall_s=policy.stall_s)
        opened.notice = f"{name}: {_SMEARED}" if spec.rtsp_transport == "udp" else None
        return opened

    return open_live(opening, grabber)


def _open_stream(url: str, name: str, spec: CaptureSpec, policy: Reconnect) -> cv2.VideoCapture:
    parameters = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, OPEN_TIMEOUT_MS]
    parameters += [cv2.CAP_PROP_READ_TIMEOUT_MSEC, round(policy.stall_s * 1000)]
    options = FILE_OPTIONS
    if url.lower().startswith("rtsp"):
        options = f"rtsp_transport;{spec.rtsp_transport or 'tcp'}|{_RTSP_OPTIONS}"
        # each thread of FFmpeg's decoder delays the output by one frame
        parameters += [cv2.CAP_PROP_N_THREADS, 1]
    if silent := why_silent(url):
        raise DeviceError(f"{name} does not open: {silent.text}")
    capture = open_video(url, parameters, options=options)
    if capture.isOpened():
        if reason := misread_content(capture, strict=False):
            capture.release()
            raise DataError(
                f"{name} sends {reason}, which OpenCV reads wrongly: set the camera to progressive, or read it with "
                "GStreamer: 'gst: rtspsrc location=… ! decodebin ! deinterlace ! videoconvert'"
            )
        return capture
    fault = why_closed(url, advice=_advice(url, spec))
    error = LoginError if fault.about_login else DeviceError
    raise error(f"{name} does not open: {fault.text}")


def _advice(url: str, spec: CaptureSpec) -> str:
    """Advice where a server reports no error but sends no frames."""
    if not url.lower().startswith("rtsp://"):
        return "check that it is video"
    return f"over {spec.rtsp_transport or 'tcp'}; try {'tcp' if spec.rtsp_transport == 'udp' else 'udp'}"


KIND: Final = CameraKind(
    name="network",
    form=" ".join(f"{scheme}://" for scheme in _STREAMS),
    about="a network camera or stream: RTSP, MJPEG over HTTP",
    recognise=recognise,
)
