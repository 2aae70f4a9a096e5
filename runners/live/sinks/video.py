"""Annotated video files."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final

from edgecnn.errors import DataError, SpecError, StorageError
from edgecnn.frame import FrameFitter, FrameSpec
from edgecnn.results import Result, UInt8Array
from edgecnn.runners.live.frame import Frame
from edgecnn.runners.live.recording.rotation import Rotation, drop_oldest, family_of, remove_leftovers
from edgecnn.runners.live.recording.writer import RecordingWriter, kind_of
from edgecnn.runners.live.sinks import Annotated, storage_error

if TYPE_CHECKING:
    from typing import Self

UNKNOWN_FPS: Final = 30.0
_RESERVE_BYTES: Final = 1 << 20  # left free for other programs on this disk
_LONGEST_PAUSE_S: Final = 10.0
_SHORTEST_NS: Final = 1_000_000  # between two frames: Matroska's unit is a millisecond


class VideoSink:
    """Records annotated frames.

    However the run ends (a signal, SIGKILL, a power cut, a full disk), the file is playable up to its last second.
    An existing file at `path` is never changed: the recording then gets the next number, NAME.2.mp4.

    Args:
        path: .mp4, .mov or .mkv (H.264 where the program ffmpeg is installed, otherwise MPEG-4), .avi (Motion JPEG).
        fps: the file's nominal rate.
        live: True to keep the time at which frames were captured. With a recorded source, each frame keeps its time
            within the recording; where that is unknown, frames follow each other at `fps`. An .avi has a constant rate:
            frames are repeated or left out. Where `live`, pictures of another size than the first are fitted into the
            first's.
        rotation: when the next file begins.

    Attributes:
        written: the files, in order.

    Raises:
        SpecError: an unknown kind of file.
        StorageError: its folder does not exist or is not writable.
    """

    def __init__(
        self, path: Path, *, fps: float = UNKNOWN_FPS, live: bool = False, rotation: Rotation | None = None
    ) -> None:
        self.path = path
        self.fps = fps
        self.written: list[Path] = []
        self._live = live
        self._rotation = rotation or Rotation()
        self._constant_rate = kind_of(path) == ".avi"
        self._writer: RecordingWriter | None = None
        self._size = (0, 0)
        self._fitter: FrameFitter | None = None
        self._taken = 0
        self._began_ns = self._last_ns = 0
        if path.is_dir():
            raise SpecError(f"{path} is a folder: give the name of a video file")
        try:  # to report now, not after the first frame, that this can't be written
            with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".edgecnn-"):
                pass
        except OSError as failed:
            raise storage_error(path, failed) from failed
        remove_leftovers(path.parent, path)

    def deliver(self, frame: Frame, result: Result, annotated: Annotated) -> None:
        """Write one frame."""
        picture = annotated.picture
        size = (picture.shape[1], picture.shape[0])
        at_ns = self._time_of(frame)
        if self._writer is None:
            self._begin(size, at_ns)
        elif size != self._size and self._live:  # a stream that returns in another size continues in the same file
            picture = self._fitted(picture)
        elif size != self._size:
            raise DataError(
                f"the picture's size changed from {self._size[0]}x{self._size[1]} to {size[0]}x{size[1]} px "
                f"at frame {frame.index}, and {self.path.name} can only hold one size "
                "(record pictures of a folder into a folder)"
            )
        if self._is_full(at_ns):
            self._end()
            self._begin(self._size, at_ns)
        self._write(picture, at_ns)
        self._taken += 1

    def _write(self, picture: UInt8Array, at_ns: int) -> None:
        writer = self._writer
        assert writer is not None
        if shutil.disk_usage(self.path.parent).free < _RESERVE_BYTES:
            raise StorageError(f"the disk is full: {writer.path} ends after {writer.frames} frames")
        since_ns = at_ns - self._began_ns
        try:
            if not self._constant_rate:
                self._last_ns = max(since_ns, self._last_ns + _SHORTEST_NS) if writer.frames else 0
                writer.add(picture, self._last_ns)
            else:
                for _ in range(self._repeats(since_ns, writer.frames)):
                    writer.add(picture, round(writer.frames * 1e9 / self.fps))
        except OSError as failed:
            error = storage_error(writer.path, failed)
            raise StorageError(f"{error}: it ends after {writer.frames} frames") from failed
        self._note(writer)

    def _time_of(self, frame: Frame) -> int:
        if self._live:
            return frame.captured_ns
        return round(self._taken * 1e9 / self.fps) if frame.media_ns is None else frame.media_ns

    def _repeats(self, since_ns: int, written: int) -> int:
        """Number of times that a picture is written to fill the time at a constant rate."""
        due = int(since_ns * 1e-9 * self.fps + (0.0 if self._live else 0.5)) + 1
        return min(due - written, int(_LONGEST_PAUSE_S * self.fps))

    def _is_full(self, at_ns: int) -> bool:
        writer = self._writer
        if writer is None or not writer.frames:
            return False
        too_long = at_ns - self._began_ns >= self._rotation.max_s * 1e9
        return too_long or writer.is_full or writer.size_bytes >= self._rotation.max_bytes

    def _fitted(self, picture: UInt8Array) -> UInt8Array:
        """The picture in the file's size, with its aspect ratio kept."""
        if self._fitter is None:
            self._fitter = FrameFitter(FrameSpec(width_px=self._size[0], height_px=self._size[1], pad_value=0))
        fitted: UInt8Array = self._fitter(picture)[0][0]
        return fitted

    def _begin(self, size: tuple[int, int], at_ns: int) -> None:
        self._writer = RecordingWriter(self.path, size, self.fps)
        self._size, self._began_ns, self._last_ns = size, at_ns, 0

    def _end(self) -> None:
        writer, self._writer = self._writer, None
        if writer is None:
            return
        try:
            writer.close()
        except OSError as failed:
            raise storage_error(writer.path, failed) from failed
        finally:
            self._note(writer)

    def _note(self, writer: RecordingWriter) -> None:
        """Record that a file exists; the oldest may be deleted then."""
        if writer.is_there and writer.path not in self.written:
            self.written.append(writer.path)
            drop_oldest(family_of(self.path), self._rotation.keep)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
