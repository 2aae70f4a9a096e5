"""Decodes recordings and streams with OpenCV, as far as its results are correct.

Built with FFmpeg 7.1 or newer (its wheels since 4.13), it reports success and returns old memory where the conversion
to BGR fails, as for interlaced frames: it is used only where the video's header says that there are none.
"""

from __future__ import annotations

import functools
import math
import re
from typing import cast

import cv2

from edgecnn.errors import DataError
from edgecnn.results import UInt8Array
from edgecnn.runners.live.cameras.opencv_messages import quiet
from edgecnn.runners.live.cameras.scan_type import may_be_interlaced, turns_interlaced

_HIDES_FRAMES = frozenset({"VP80"})  # some of its packets are never shown


class OpenCvReader:
    """Frames of an open capture.

    Args:
        capture: capture of a file, or of a recording on a server.
        name: the recording's name in messages.
        packets: the same file, opened a second time without a decoder, to detect changes within the stream.

    Raises:
        DataError: OpenCV would give other pictures than the file's.
    """

    def __init__(self, capture: cv2.VideoCapture, *, name: str, packets: cv2.VideoCapture | None = None) -> None:
        self.fps = declared_fps(capture)
        self.frames_total = declared_frames(capture)
        self.complaints: list[str] = []
        self._name = name
        self._capture: cv2.VideoCapture | None = capture
        self._codec = declared_format(capture) or ""
        self._packets = packets
        self._seen = self._given = self._left_out = 0
        if reason := misread_content(capture, strict=True):
            self.close()
            raise misread_error(self._name, reason)

    def read(self) -> tuple[UInt8Array, int | None] | None:
        """The next picture and its time in the recording in ns; None at the end.

        Raises:
            DataError: the frames become interlaced.
        """
        if self._capture is None:
            return None
        self._next_packet()
        there, image = self._capture.read()
        if not there or image is None:
            self._count_lost()
            return None
        self._given += 1
        at_ms = self._capture.get(cv2.CAP_PROP_POS_MSEC)
        return cast(UInt8Array, image), round(at_ms * 1e6) if math.isfinite(at_ms) and at_ms >= 0 else None

    def set_hidden_share(self, share: float) -> None:
        """Set the share of the file that is not shown, and so not missing."""
        if self.frames_total is not None:
            total = self.frames_total
            self.frames_total = max(1, math.ceil(total * (1 - share) - 1e-6))
            left_out = total - self.frames_total
            self._left_out = left_out + 2 if left_out else 0  # 2: the cuts may lie within a frame

    def _next_packet(self) -> bool:
        """Take the next packet; False where there is none."""
        if self._packets is None:
            return False
        there, packet = self._packets.read()
        if not there or packet is None:
            return False
        self._seen += 1
        if turns_interlaced(self._codec, packet.tobytes()):
            raise misread_error(self._name, f"interlaced frames, which begin after {self._given} others,")
        return True

    def _count_lost(self) -> None:
        while self._next_packet():
            pass
        lost = self._seen - self._given - self._left_out
        if lost > 0 and self._codec not in _HIDES_FRAMES:
            self.complaints.append(f"{lost} of {self._seen} frames could not be decoded")

    def close(self) -> None:
        """Release the file; a second call does nothing."""
        for capture in (self._capture, self._packets):
            if capture is not None:
                capture.release()
        self._capture = self._packets = None


def misread_error(name: str, what: str) -> DataError:
    """The error for a file that OpenCV alone reads wrongly."""
    return DataError(
        f"{name}: OpenCV does not read {what} correctly; install the program ffmpeg, which does "
        "(Debian: apt-get install ffmpeg)"
    )


def misread_content(capture: cv2.VideoCapture, *, strict: bool) -> str | None:
    """What OpenCV would read wrongly in an open capture; None where no problem is known.

    Args:
        capture: opened with OpenCV's FFmpeg; other back ends are trusted.
        strict: also reject a capture whose scan type is unknown.
    """
    if backend_of(capture) != "FFMPEG" or converts_interlaced(cv2.getBuildInformation()):
        return None
    codec = declared_format(capture) or ""
    interlaced = may_be_interlaced(codec, _header(capture))
    if interlaced is None and strict:
        return f"each video of this codec ({codec or 'unknown'})"
    return "interlaced frames" if interlaced else None


@functools.cache
def converts_interlaced(build: str) -> bool:
    """Whether this OpenCV's FFmpeg converts interlaced frames unchanged: it refuses since swscale 8."""
    version = re.search(r"swscale:\s+YES \((\d+)\.", build)
    return version is not None and int(version[1]) < 8


def backend_of(capture: cv2.VideoCapture) -> str:
    """Name of the back end in OpenCV; "" where it doesn't say."""
    try:
        return str(capture.getBackendName())
    except cv2.error:
        return ""


def _header(capture: cv2.VideoCapture) -> bytes:
    """The codec header (FFmpeg's extradata); empty where there is none."""
    upright = capture.get(cv2.CAP_PROP_ORIENTATION_AUTO)
    with quiet():
        capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)  # otherwise it would be rotated like a picture
        try:
            there, header = capture.retrieve(flag=int(capture.get(cv2.CAP_PROP_CODEC_EXTRADATA_INDEX)))
        except cv2.error:
            return b""
        finally:
            capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, upright)
    return bytes(header.tobytes()) if there and header is not None else b""


def declared_format(capture: cv2.VideoCapture) -> str | None:
    """The four-character code of what a capture's source sends, where it is known."""
    number = capture.get(cv2.CAP_PROP_FOURCC)
    if not math.isfinite(number) or number <= 0:
        return None
    code = (int(number) & 0xFFFFFFFF).to_bytes(4, "little").decode("ascii", errors="replace").rstrip("\0 ")
    return code if code.isascii() and code.isprintable() and code else None


def declared_fps(capture: cv2.VideoCapture) -> float | None:
    """Frames per second that the source declares, or None where it declares none or an impossible rate."""
    fps = capture.get(cv2.CAP_PROP_FPS)
    return fps if math.isfinite(fps) and 0 < fps <= 1000 else None


def declared_frames(capture: cv2.VideoCapture) -> int | None:
    """Number of frames that the source declares, or None where it declares none."""
    count = capture.get(cv2.CAP_PROP_FRAME_COUNT)
    return int(count) if math.isfinite(count) and count >= 1 else None
