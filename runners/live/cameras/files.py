"""Pictures and video files as sources: every frame, in order, read in the caller's thread."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import cv2

from edgecnn.errors import DataError, SpecError, near_path
from edgecnn.pictures import PICTURE_SUFFIXES, holds_picture, list_pictures, read_picture
from edgecnn.runners.live.cameras.base import CameraBase
from edgecnn.runners.live.cameras.ffmpeg_program import FfmpegReader, ffmpeg_is_here
from edgecnn.runners.live.cameras.kind import CameraKind, Source, Words
from edgecnn.runners.live.cameras.mp4_header import read_mp4_header
from edgecnn.runners.live.cameras.opencv_messages import ONLY_THE_FILE, open_video
from edgecnn.runners.live.cameras.opencv_reader import OpenCvReader, misread_error
from edgecnn.runners.live.cameras.urls import redacted
from edgecnn.runners.live.cameras.video_reader import VideoReader
from edgecnn.runners.live.frame import Frame, frame_now

if TYPE_CHECKING:
    from typing import Self


class PictureCamera(CameraBase):
    """One picture or several: each is a frame, read on request.

    Attributes:
        unreadable: why pictures of a folder were skipped, one sentence each. A single picture that cannot be read, and
            a folder without any readable picture, are errors.
    """

    live = False
    stills = True
    fps: float | None = None
    dropped = 0

    def __init__(self, name: str, paths: Sequence[Path]) -> None:
        self.name = name
        self.frames_total: int | None = len(paths)
        self.unreadable: list[str] = []
        self._paths = paths
        self._next = 0

    @property
    def remark(self) -> str | None:
        """How many pictures were skipped, and the first of them; None where none was."""
        if not self.unreadable:
            return None
        more = "" if len(self.unreadable) == 1 else ", …"
        return f"{len(self.unreadable)} of {len(self._paths)} pictures skipped: {self.unreadable[0]}{more}"

    @classmethod
    def from_folder(cls, folder: Path) -> Self:
        """The pictures in a folder, sorted by name; subfolders are not searched.

        Raises:
            DataError: it has no pictures.
        """
        paths = list_pictures(folder)
        if not paths:
            raise DataError(
                f"{folder} has no picture ({' '.join(sorted(PICTURE_SUFFIXES))}); its subfolders are not searched"
            )
        return cls(str(folder), paths)

    def __next__(self) -> Frame:
        while self._next < len(self._paths):
            path, index = self._paths[self._next], self._next
            self._next += 1
            try:
                return frame_now(read_picture(path), index, str(path))
            except DataError as unreadable:
                self.unreadable.append(str(unreadable))
                if len(self.unreadable) == len(self._paths):
                    raise
        raise StopIteration

    def close(self) -> None:
        """End the iteration."""
        self._next = len(self._paths)


class VideoCamera(CameraBase):
    """A recording: a video file, or one on a web server.

    Args:
        name: the recording's name in messages.
        reader: an open reader; closed here.

    Attributes:
        remark: set at the end if a part could not be read, or the file gave clearly fewer frames than it
            declares.
        unreadable: the same, as a list of one sentence or none.
    """

    live = False
    stills = False
    dropped = 0

    def __init__(self, name: str, reader: VideoReader) -> None:
        self.name = name
        self.fps = reader.fps
        self.frames_total = reader.frames_total
        self.remark: str | None = None
        self._reader: VideoReader | None = reader
        self._next = 0

    @property
    def unreadable(self) -> list[str]:
        """The part that could not be read."""
        return [self.remark] if self.remark else []

    @classmethod
    def from_file(cls, path: Path, *, name: str) -> Self:
        """Open a video file: with the system's ffmpeg where it is installed, otherwise with OpenCV.

        Raises:
            DataError: it is not a video, or it is damaged.
        """
        if ffmpeg_is_here():
            return cls(name, FfmpegReader(path, name=name))
        options = f"{ONLY_THE_FILE}|fflags;discardcorrupt"
        capture = open_video(str(path.resolve()), options=options)  # an absolute path can't be mistaken for a URL
        if not capture.isOpened():
            raise DataError(f"{path} cannot be read as a picture or a video: another format, or damaged")
        header = read_mp4_header(path)
        if header.mirrored:
            raise misread_error(name, "mirrored pictures")
        packets = open_video(str(path.resolve()), [cv2.CAP_PROP_FORMAT, -1], options=ONLY_THE_FILE)
        reader = OpenCvReader(capture, name=name, packets=packets if packets.isOpened() else None)
        reader.set_hidden_share(1 - header.shown_share)
        return cls(name, reader)

    def __next__(self) -> Frame:
        if self._reader is None:
            raise StopIteration
        read = self._reader.read()
        if read is None:
            complaints = list(self._reader.complaints)
            self.close()
            self._check_complete(complaints)
            raise StopIteration
        image, media_ns = read
        frame = frame_now(image, self._next, self.name, media_ns=media_ns)
        self._next += 1
        return frame

    def _check_complete(self, complaints: list[str]) -> None:
        if self._next == 0:
            why = f" ({complaints[0]})" if complaints else ""
            raise DataError(f"{self.name} opens as a video, but none of its frames can be read; it may be damaged{why}")
        # some containers store no count, and it is estimated from the length: a difference of a few frames means
        # nothing
        total = self.frames_total
        if total is not None and self._next < total - max(2, total // 20):
            self.remark = f"{self.name} ended after {self._next} of {total} frames: truncated or damaged"
        elif complaints:
            self.remark = f"{self.name} is damaged; the decoder says: {'; '.join(complaints)}"

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None


def open_file(path: Path, *, name: str) -> PictureCamera | VideoCamera:
    """A picture, a folder of pictures, or a video file, which gets this name.

    Raises:
        DataError: it does not exist, cannot be read, or is of an unknown kind.
    """
    try:
        if path.is_dir():
            return PictureCamera.from_folder(path)
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for whoever writes into it
            raise DataError(
                f"{redacted(str(path))} is neither a file nor a folder: give a picture, a folder or a video"
            )
        with path.open("rb"):
            pass
    except FileNotFoundError as missing:
        raise DataError(f"{redacted(str(path))} does not exist{near_path(path)}") from missing
    except OSError as failed:
        raise DataError(f"{redacted(str(path))} cannot be read: {failed.strerror}") from failed
    if path.suffix.lower() in PICTURE_SUFFIXES or holds_picture(path):
        return PictureCamera(str(path), [path])
    return VideoCamera.from_file(path, name=name)


def recognise(words: Words) -> Source | None:
    """The source for a path: a video, a picture, a folder. Tried last, since any text may be a path."""
    if isinstance(words, int):
        return None
    scheme, has_scheme, _ = words.partition("://") if isinstance(words, str) else ("", "", "")
    if has_scheme and scheme.replace("+", "").isalnum() and not Path(words).exists():
        raise SpecError(f"{scheme}:// is not supported; expected rtsp://, rtsps://, http:// or https://")
    path = Path(words).expanduser()
    return Source(name=str(path), title="a file", open=lambda opening: open_file(path, name=opening.name))


KIND: Final = CameraKind(
    name="file", form="PATH", about="a video file, a picture, a folder of pictures", recognise=recognise
)
