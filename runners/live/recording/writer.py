"""A recording that is written to the disk while it is made."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np

from edgecnn.errors import SpecError, StorageError
from edgecnn.results import UInt8Array
from edgecnn.runners.live.recording import Codec, Container, Packet
from edgecnn.runners.live.recording.avi import Avi
from edgecnn.runners.live.recording.encoders import Encoder, H264Encoder, JpegEncoder, Mpeg4Encoder, h264_encoder
from edgecnn.runners.live.recording.file import GrowingFile
from edgecnn.runners.live.recording.matroska import Matroska
from edgecnn.runners.live.recording.mp4 import Mp4
from edgecnn.runners.live.recording.rotation import next_of

_CONTAINERS: Final[dict[str, Callable[[GrowingFile, Codec], Container]]] = {
    ".mp4": Mp4,
    ".mov": lambda file, codec: Mp4(file, codec, quicktime=True),
    ".mkv": Matroska,
    ".avi": Avi,
}
SUFFIXES: Final = tuple(_CONTAINERS)
_FLUSH_S = 0.4
_LOOK_S = 0.2
_TO_DISK_S = 0.75
_MOST_WAITING: Final = 4 << 20
_RENEW_S = 10.0


class RecordingWriter:
    """Writes one video file. Everything older than a second stays playable, whatever happens.

    The file appears with its first frame, and grows by whole pieces; it is synchronised to the disk every second.

    Args:
        path: its suffix selects the kind; if a file exists there, the next unused name is taken (see `next_of`).
        size_px: width and height of the pictures.
        fps: nominal rate.

    Attributes:
        path: the file's path, once it exists.
        is_there: True if the file exists under its name.
        frames: number of frames taken.
        size_px: width and height in the file: even, where the encoder needs that.
        constant_rate: True if the file stores no time for each frame.

    Raises:
        SpecError: an unknown kind of file.
        DataError: it can't be encoded here.
    """

    def __init__(self, path: Path, size_px: tuple[int, int], fps: float) -> None:
        self.path = self._wanted = path
        self.frames = 0
        self._fps = fps
        suffix = kind_of(path)
        self.constant_rate = suffix == ".avi"
        self._make_container = _CONTAINERS[suffix]
        self.size_px, self._encoder = _encoder(suffix, size_px, fps)
        self._file: GrowingFile | None = None
        self._container: Container | None = None
        self._failure: OSError | None = None
        self._waiting_bytes = 0
        self._flushed_s = 0.0
        self._renewed_s = -_RENEW_S
        self._dirty = False
        self.is_there = False
        self._working = threading.Lock()
        self._over = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name=f"keep {path.name}", daemon=True)
        self._keeper.start()

    @property
    def size_bytes(self) -> int:
        """Size of the data that was written or is waiting to be written."""
        return (self._file.size_bytes if self._file else 0) + self._waiting_bytes

    @property
    def is_full(self) -> bool:
        """Whether this kind of file can't hold much more."""
        return self._container is not None and self.size_bytes > self._container.largest_bytes

    def add(self, image: UInt8Array, at_ns: int) -> None:
        """Take a picture.

        Args:
            image: uint8 [height, width, 3] BGR, of the file's size, except for a last odd row or column.
            at_ns: presentation time, from the recording's beginning; later than the one before.

        Raises:
            OSError: the file can't be written any further; what was written stays playable.
            StorageError: the encoder failed.
        """
        with self._working:
            if self._failure is not None:
                raise self._failure
            self._take(self._encoded(_padded(image, self.size_px), at_ns))
            self.frames += 1
            if self._waiting_bytes > _MOST_WAITING or time.monotonic() - self._flushed_s >= _FLUSH_S:
                self._take(self._encoder.ready())
                self._flush()

    def _encoded(self, image: UInt8Array, at_ns: int) -> list[Packet]:
        """Encode one picture; a killed encoder is replaced by a new one, at most once in a while."""
        try:
            return self._encoder.encode(image, at_ns)
        except StorageError:
            if time.monotonic() - self._renewed_s < _RENEW_S:
                raise
            self._renewed_s = time.monotonic()
            rest = self._encoder.finish()
            _, self._encoder = _encoder(kind_of(self._wanted), self.size_px, self._fps)
            return rest + self._encoder.encode(image, at_ns)

    def _take(self, packets: list[Packet]) -> None:
        if packets and self._container is None:
            assert self._encoder.codec is not None
            self._file = self._new_file()
            self._container = self._make_container(self._file, self._encoder.codec)
        for packet in packets:
            assert self._container is not None
            self._container.add(packet)
            self._waiting_bytes += len(packet.data)

    def _new_file(self) -> GrowingFile:
        while True:
            with contextlib.suppress(FileExistsError):  # another process created it first
                return GrowingFile(next_of(self._wanted))

    def _appear(self, file: GrowingFile) -> None:
        while not self.is_there:
            with contextlib.suppress(FileExistsError):
                file.appear(next_of(self._wanted))
                self.is_there = True
        self.path = file.path

    def _flush(self) -> None:
        if self._container is not None:
            self._container.flush()
            if self._file is not None and not self.is_there:
                self._appear(self._file)
            self._dirty = self._dirty or self._waiting_bytes > 0
            self._waiting_bytes = 0
        self._flushed_s = time.monotonic()

    def _keep(self) -> None:
        """Write waiting data while no picture comes, and synchronise the file, in a separate thread."""
        on_disk_s = 0.0
        while not self._over.wait(_LOOK_S):
            try:
                with self._working:
                    if self._over.is_set() or self._failure is not None:
                        return
                    if time.monotonic() - self._flushed_s >= _FLUSH_S + _LOOK_S:
                        self._take(self._encoder.ready())
                        self._flush()
                    dirty = self._dirty and time.monotonic() - on_disk_s >= _TO_DISK_S
                    self._dirty = self._dirty and not dirty
                if dirty and self._file is not None:
                    self._file.to_disk()
                    on_disk_s = time.monotonic()
            except OSError as failed:
                self._failure = failed
            except StorageError as failed:
                self._failure = OSError(str(failed))

    def close(self) -> None:
        """Write the rest and the index; a second call does nothing.

        Raises:
            OSError: something could not be written; the rest is playable.
        """
        if self._over.is_set():
            return
        with self._working:
            self._over.set()
        self._keeper.join()
        try:
            self._take(self._encoder.finish())
            if self._container is not None and self._file is not None:
                if self._failure is None:
                    self._flush()
                self._container.finish()
                self._file.to_disk()
        finally:
            with contextlib.suppress(StorageError):
                self._encoder.finish()
            if self._file is not None:
                self._file.close()


def kind_of(path: Path) -> str:
    """The suffix that selects the kind of video file.

    Raises:
        SpecError: videos cannot be written with this suffix.
    """
    suffix = path.suffix.lower()
    if suffix not in _CONTAINERS:
        raise SpecError(f"{path}: expected a video file with one of these suffixes: {', '.join(SUFFIXES)}")
    return suffix


def _encoder(suffix: str, size_px: tuple[int, int], fps: float) -> tuple[tuple[int, int], Encoder]:
    """The encoder for this kind of file on this machine, and the size that it takes."""
    if suffix == ".avi":
        return size_px, JpegEncoder(size_px, fps)
    width, height = size_px
    even = (width + width % 2, height + height % 2)
    name = h264_encoder()
    return even, H264Encoder(name, even, fps) if name else Mpeg4Encoder(even, fps)


def _padded(image: UInt8Array, size_px: tuple[int, int]) -> UInt8Array:
    """The picture with its last row and column repeated, where the encoder needs even sizes."""
    height, width = image.shape[:2]
    if (width, height) == size_px:
        return image
    return np.pad(image, ((0, size_px[1] - height), (0, size_px[0] - width), (0, 0)), mode="edge")
