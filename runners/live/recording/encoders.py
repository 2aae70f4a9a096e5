"""Video encoders: H.264 with the system's ffmpeg where it has one, otherwise MPEG-4 with OpenCV; JPEG for AVI."""

from __future__ import annotations

import contextlib
import functools
import os
import queue
import shutil
import subprocess
import tempfile
import threading
from collections import deque
from pathlib import Path
from typing import IO, Any, Final, Protocol

import cv2
import numpy as np

from edgecnn.errors import DataError, StorageError
from edgecnn.results import UInt8Array
from edgecnn.runners.live.cameras.opencv_messages import ffmpeg_backend, open_video, quiet
from edgecnn.runners.live.recording import Codec, Packet, units

_BETWEEN_KEYS_S = 2.0
_JPEG_QUALITY = 90
_UNIT_DELIMITER: Final = b"\x00\x00\x00\x01\x09"
_VOP: Final = b"\x00\x00\x01\xb6"
_DRAIN_S = 5.0
_PROBE_TIMEOUT_S = 20.0
# A board's hardware encoder comes before one that loads the CPU.
_H264_ENCODERS: Final = {
    "h264_v4l2m2m": ("-b:v", "6M"),
    "libx264": ("-preset", "superfast", "-tune", "zerolatency", "-crf", "23"),
    "libopenh264": ("-b:v", "4M"),
}


class Encoder(Protocol):
    """Frames in, packets out, in order; used by one thread at a time.

    Attributes:
        codec: its packets' codec; None before the first packet.
    """

    codec: Codec | None

    def encode(self, image: UInt8Array, at_ns: int) -> list[Packet]:
        """Take a picture of the encoder's size; returns the packets that are ready, possibly of older pictures.

        Raises:
            StorageError: the encoder failed.
        """
        ...

    def ready(self) -> list[Packet]:
        """Packets that are available without another picture."""
        ...

    def finish(self) -> list[Packet]:
        """The remaining packets; ends the encoder. A second call returns nothing."""
        ...


@functools.cache
def h264_encoder() -> str | None:
    """FFmpeg's name of an H.264 encoder that works on this machine, or None; it is tested once."""
    if shutil.which("ffmpeg") is None:
        return None
    picture = bytes(320 * 240 * 3) * 2
    for name in _H264_ENCODERS:
        if "v4l2" in name and not any(Path("/dev").glob("video1?")):
            continue
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            command = _command(name, (320, 240), 25.0)
            tried = subprocess.run(command, input=picture, capture_output=True, timeout=_PROBE_TIMEOUT_S, check=True)
            if _UNIT_DELIMITER in tried.stdout:
                return name
    return None


def records_as() -> str:
    """The codec for .mp4, .mov and .mkv on this machine, in words."""
    name = h264_encoder()
    if name:
        return f"H.264 by ffmpeg ({name}), which browsers play"
    return "MPEG-4 by OpenCV, which browsers don't play; install ffmpeg for H.264 (apt-get install ffmpeg)"


def _command(name: str, size_px: tuple[int, int], fps: float) -> list[str]:
    group = str(max(1, round(fps * _BETWEEN_KEYS_S)))
    # fmt: off
    return [
        "ffmpeg", "-v", "error", "-nostats", "-f", "rawvideo", "-pix_fmt", "bgr24",
        "-s", f"{size_px[0]}x{size_px[1]}", "-r", f"{fps:.6f}", "-i", "pipe:0",
        "-c:v", name, *_H264_ENCODERS[name], "-g", group, "-bf", "0", "-pix_fmt", "yuv420p",
        "-bsf:v", "dump_extra=freq=keyframe,h264_metadata=aud=insert", "-flush_packets", "1", "-f", "h264", "pipe:1",
    ]
    # fmt: on


class H264Encoder:
    """H.264 with the program ffmpeg in a child process.

    Args:
        name: FFmpeg's name of the encoder.
        size_px: width and height, even.
        fps: nominal rate.
    """

    def __init__(self, name: str, size_px: tuple[int, int], fps: float) -> None:
        self.codec: Codec | None = None
        self._name = name
        self._size_px, self._fps = size_px, fps
        self._times: deque[int] = deque()
        self._units: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._process: subprocess.Popen[bytes] | None = subprocess.Popen(
            _command(name, size_px, fps),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,  # Ctrl-C goes to us; we end the program
        )
        self._reader = threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True)
        self._reader.start()

    def encode(self, image: UInt8Array, at_ns: int) -> list[Packet]:
        """Pass one picture to the program."""
        if self._process is None:
            raise StorageError(f"the encoder {self._name} has ended; the recording stops here")
        self._times.append(at_ns)
        try:
            _write(self._process.stdin, np.ascontiguousarray(image).data.cast("B"))
        except OSError as failed:
            self._times.pop()
            raise StorageError(f"the encoder {self._name} of the program ffmpeg ended unexpectedly") from failed
        return self.ready()

    def ready(self) -> list[Packet]:
        """The packets that it has returned so far."""
        packets = []
        with contextlib.suppress(queue.Empty):
            while True:
                packets += self._packet(self._units.get_nowait())
        return packets

    def _packet(self, data: bytes) -> list[Packet]:
        kinds = {unit[0] & 31: unit for unit in units(data)}
        if self.codec is None and 7 in kinds and 8 in kinds:
            header = b"".join(b"\x00\x00\x01" + kinds[kind] for kind in (7, 8))
            self.codec = Codec("h264", header, self._size_px, self._fps)
        if not kinds.keys() & {1, 5} or not self._times:
            return []
        return [Packet(data, self._times.popleft(), 5 in kinds)]

    def _read(self, pipe: IO[bytes] | None) -> None:
        """Split the output at delimiters: each begins a picture."""
        waiting = b""
        with contextlib.suppress(OSError, ValueError):
            while pipe is not None and (more := pipe.read(1 << 16)):
                *whole, waiting = (waiting + more).split(_UNIT_DELIMITER)
                for data in whole:
                    if data:
                        self._units.put(_UNIT_DELIMITER + data)
        if waiting:
            self._units.put(_UNIT_DELIMITER + waiting)

    def finish(self) -> list[Packet]:
        """Close its input, and read the rest of its output."""
        process, self._process = self._process, None
        if process is None:
            return []
        with contextlib.suppress(OSError):
            if process.stdin is not None:
                process.stdin.close()
        self._reader.join(_DRAIN_S)
        process.kill()
        process.wait()
        self._reader.join()
        if process.stdout is not None:
            process.stdout.close()
        return self.ready()


class Mpeg4Encoder:
    """MPEG-4 part 2 with OpenCV: several frames at a time, because it returns nothing before it is closed.

    Args:
        size_px: width and height, even.
        fps: nominal rate.
        together: number of frames that are encoded together.

    Raises:
        DataError: this OpenCV cannot encode it.
    """

    def __init__(self, size_px: tuple[int, int], fps: float) -> None:
        self._size_px, self._fps = size_px, fps
        self._together = max(1, round(fps))
        self._times: list[int] = []
        self._writer: cv2.VideoWriter | None = None
        self._descriptor = -1
        self.codec: Codec | None = Codec("mpeg4", self._header(), size_px, fps)

    def _header(self) -> bytes:
        """The object layer, which OpenCV writes only into MP4."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "header.mp4"
            writer = self._open(path)
            writer.write(np.zeros((self._size_px[1], self._size_px[0], 3), np.uint8))
            writer.release()
            capture = open_video(str(path))
            with quiet():
                there, header = capture.retrieve(flag=int(capture.get(cv2.CAP_PROP_CODEC_EXTRADATA_INDEX)))
            capture.release()
        if not there or header is None:
            raise DataError("this OpenCV encodes MPEG-4 but gives no header for it: use .avi")
        return bytes(header.tobytes())

    def _open(self, path: Path) -> cv2.VideoWriter:
        with quiet():
            writer = cv2.VideoWriter(
                str(path), ffmpeg_backend(), cv2.VideoWriter.fourcc(*"mp4v"), self._fps, self._size_px
            )
        if not writer.isOpened():
            width, height = self._size_px
            raise DataError(f"this OpenCV cannot encode MPEG-4 at {width}x{height} px: use .avi")
        return writer

    def encode(self, image: UInt8Array, at_ns: int) -> list[Packet]:
        """Add one picture to the group that is encoded together."""
        if self._writer is None:
            self._descriptor, name = tempfile.mkstemp(suffix=".m4v", prefix="edgecnn-")
            try:
                self._writer = self._open(Path(name))
            finally:
                os.unlink(name)  # so that no file is left however this process ends
        self._writer.write(image)
        self._times.append(at_ns)
        return self.ready() if len(self._times) >= self._together else []

    def ready(self) -> list[Packet]:
        """Encode the pictures taken so far; the next ones start a new group."""
        if self._writer is None:
            return []
        self._writer.release()
        self._writer = None
        try:
            data = _read_whole(self._descriptor)
        finally:
            os.close(self._descriptor)
        times, self._times = self._times, []
        frames = [_VOP + frame for frame in data.split(_VOP)[1:]]
        if len(frames) != len(times):  # OpenCV doesn't report a failed write
            raise StorageError(f"the disk is full: {tempfile.gettempdir()} needs space for a second of video")
        return [Packet(frame, at_ns, frame[4] >> 6 == 0) for frame, at_ns in zip(frames, times, strict=True)]

    def finish(self) -> list[Packet]:
        """The remaining packets."""
        return self.ready()


class JpegEncoder:
    """Encodes each frame as a JPEG picture.

    Args:
        size_px: width and height.
        fps: nominal rate.
    """

    def __init__(self, size_px: tuple[int, int], fps: float) -> None:
        self.codec: Codec | None = Codec("jpeg", b"", size_px, fps)

    def encode(self, image: UInt8Array, at_ns: int) -> list[Packet]:
        """Encode it at once."""
        _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
        return [Packet(data.tobytes(), at_ns, key=True)]

    def ready(self) -> list[Packet]:
        """Always empty."""
        return []

    def finish(self) -> list[Packet]:
        """Always empty."""
        return []


def _write(pipe: Any, pixels: memoryview) -> None:
    while pixels:
        pixels = pixels[pipe.write(pixels) :]


def _read_whole(descriptor: int) -> bytes:
    size = os.fstat(descriptor).st_size
    return os.pread(descriptor, size, 0)
