"""Decodes recordings with the system's ffmpeg program, where it is installed.

It reports what OpenCV's reader does not: interlaced frames, damage, and each frame's presentation time.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import queue
import re
import shutil
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import numpy as np

from edgecnn.errors import DataError
from edgecnn.results import UInt8Array
from edgecnn.runners.live.cameras.opencv_messages import CONTAINERS
from edgecnn.runners.live.cameras.video_reader import LARGEST_PX

_OLDEST = (4, 4)  # has -autoscale; older versions silently scaled pictures that change their size
_UNNUMBERED = 99
_PASSTHROUGH_SINCE = (5, 1)  # -fps_mode
_PROBE_TIMEOUT_S = 30.0
_KEPT_COMPLAINTS = 3
_VERSION = re.compile(r"^ff\w+ version n?(\d+)\.(\d+)")
_SHOWN = re.compile(r"\] n: *\d+ pts: *\S+ pts_time: *(\S+) .*? s:(\d+)x(\d+)")
_COMPLAINT = re.compile(
    r"^(?:\[(?!rawvideo)[^\]]*\] )?\[(?:(?:error|fatal|panic)\] (.*)|warning\] (.*[Pp]acket corrupt.*))"
)
_ONLY_THE_FILE: Final = ("-protocol_whitelist", "file", "-format_whitelist", CONTAINERS)


@functools.cache
def program_version(name: str = "ffmpeg") -> tuple[int, int] | None:
    """The program's version if it is installed and new enough, otherwise None; builds without a number count as new."""
    if shutil.which(name) is None:
        return None
    try:
        done = subprocess.run([name, "-version"], capture_output=True, timeout=_PROBE_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    found = _VERSION.match(done.stdout.decode(errors="replace"))
    version = (int(found[1]), int(found[2])) if found else (_UNNUMBERED, 0)
    return version if version >= _OLDEST else None


def ffmpeg_is_here() -> bool:
    """Whether recordings are read by the system's FFmpeg."""
    return program_version() is not None and shutil.which("ffprobe") is not None


def reads_with() -> str:
    """The program or library that reads recordings here, in words."""
    if ffmpeg_is_here():
        major, minor = program_version() or _OLDEST
        return f"by ffmpeg {major}.{minor}" if major < _UNNUMBERED else "by ffmpeg"
    return "by OpenCV, which refuses interlaced files; the program ffmpeg reads them (Debian: apt-get install ffmpeg)"


@dataclass(frozen=True)
class VideoStream:
    """A file's description of its video.

    Attributes:
        index: the stream's index in the file.
        fps: average frame rate.
        frames_total: declared, or computed from the length.
    """

    index: int
    fps: float | None
    frames_total: int | None


class FfmpegReader:
    """Frames of a file, decoded by the system's ffmpeg: upright, in their own size, with their presentation time.

    Args:
        path: the file.
        name: the file's name in messages.

    Raises:
        DataError: not a video.
    """

    def __init__(self, path: Path, *, name: str) -> None:
        self._name = name
        stream = probe(path)
        self.fps = stream.fps
        self.frames_total = stream.frames_total
        self.complaints: list[str] = []
        self._shown: queue.SimpleQueue[tuple[int | None, int, int] | None] = queue.SimpleQueue()
        self._process = subprocess.Popen(
            _command(path, stream.index),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,  # Ctrl-C goes to us; we end the program
        )
        self._listener = threading.Thread(target=self._listen, args=(self._process.stderr,), daemon=True)
        self._listener.start()

    def read(self) -> tuple[UInt8Array, int | None] | None:
        """The next picture and its time in the recording in ns; None at the end.

        Raises:
            DataError: a picture is too large.
        """
        shown = self._shown.get()
        if shown is None:
            self._shown.put(None)
            return None
        media_ns, width_px, height_px = shown
        if width_px * height_px > LARGEST_PX:
            raise DataError(f"{self._name} has pictures of {width_px}x{height_px} px: more than can be read")
        image: UInt8Array = np.empty((height_px, width_px, 3), np.uint8)
        if not _fill(self._process.stdout, image.data.cast("B")):
            return None
        return image, media_ns

    def _listen(self, messages: IO[bytes] | None) -> None:
        """Read FFmpeg's messages: a line for each frame, before its pixels, and errors."""
        try:
            for line in messages or ():
                text = line.decode(errors="replace").rstrip()
                if shown := _SHOWN.search(text):
                    self._shown.put((_in_ns(shown[1]), int(shown[2]), int(shown[3])))
                elif (complaint := _COMPLAINT.match(text)) and len(self.complaints) < _KEPT_COMPLAINTS:
                    self.complaints.append(complaint[1] or complaint[2])
        except (OSError, ValueError):
            pass  # closed
        finally:
            self._shown.put(None)

    def close(self) -> None:
        """End the program; a second call does nothing."""
        self._process.kill()
        self._process.wait()
        self._listener.join()
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


def probe(path: Path) -> VideoStream:
    """A file's description of its video; among several, the one with the most pixels, as players do.

    Raises:
        DataError: it has no video, or cannot be read.
    """
    entries = (
        "stream=index,width,height,avg_frame_rate,nb_frames,duration:stream_tags=DURATION:format=duration,format_name"
    )
    command = ["ffprobe", "-v", "error", *_ONLY_THE_FILE, "-select_streams", "v", "-of", "json"]
    command += ["-show_entries", f"{entries}:stream_disposition=attached_pic", f"file:{path.resolve()}"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_PROBE_TIMEOUT_S, check=False)
        facts = json.loads(done.stdout or b"{}")
    except subprocess.TimeoutExpired:
        raise DataError(f"{path} was not recognised as a video within {_PROBE_TIMEOUT_S:g} s") from None
    except (OSError, ValueError) as failed:
        raise DataError(f"{path} cannot be examined: ffprobe failed ({failed})") from failed
    videos = [each for each in facts.get("streams", ()) if not each.get("disposition", {}).get("attached_pic")]
    if not videos:
        if done.returncode == 0 and facts:
            raise DataError(f"{path} has no video (sound only, or a cover picture)")
        raise DataError(f"{path} cannot be read as a picture or a video: another format, or damaged")
    best = max(videos, key=lambda each: each.get("width", 0) * each.get("height", 0))
    if best.get("width", 0) * best.get("height", 0) > LARGEST_PX:
        raise DataError(f"{path} has pictures of {best['width']}x{best['height']} px: more than can be read")
    fps = _ratio(best.get("avg_frame_rate"))
    return VideoStream(int(best["index"]), fps, _count(best, facts.get("format", {}), fps))


def _command(path: Path, stream: int) -> list[str]:
    """The command that writes each frame's size and time to stderr and its pixels to stdout."""
    version = program_version() or _OLDEST
    as_they_are = ["-fps_mode" if version >= _PASSTHROUGH_SINCE else "-vsync", "passthrough", "-autoscale", "0"]
    as_they_are += ["-enc_time_base", "-1"]  # the file's own: two frames of an uneven rate could get the same time
    # fmt: off
    return [
        "ffmpeg", "-nostdin", "-hide_banner", "-nostats", "-loglevel", "level+info", *_ONLY_THE_FILE,
        "-fflags", "+discardcorrupt", "-max_pixels", str(LARGEST_PX), "-i", f"file:{path.resolve()}",
        "-map", f"0:{stream}", "-vf", "format=bgr24,showinfo=checksum=0", *as_they_are,
        "-f", "rawvideo", "-pix_fmt", "bgr24", "pipe:1",
    ]
    # fmt: on


def _fill(pipe: Any, pixels: memoryview) -> bool:
    """Read exactly as many bytes as fit; False where the pipe ends before."""
    done = 0
    while done < len(pixels):
        count = pipe.readinto(pixels[done:])
        if not count:
            return False
        done += count
    return True


def _in_ns(text: str) -> int | None:
    try:
        seconds = float(text)
    except ValueError:  # NOPTS
        return None
    return round(seconds * 1e9) if math.isfinite(seconds) else None


def _ratio(text: str | None) -> float | None:
    try:
        top, _, bottom = (text or "").partition("/")
        value = float(top) / float(bottom or 1)
    except (ValueError, ZeroDivisionError):
        return None
    return value if 0 < value <= 1000 else None


def _count(stream: dict[str, Any], container: dict[str, Any], fps: float | None) -> int | None:
    """Number of frames to show: an edit list may leave out frames of the file."""
    held = _number(stream.get("nb_frames"))
    own_s = _number(stream.get("duration")) or _in_seconds(stream.get("tags", {}).get("DURATION", ""))
    seconds = own_s or _number(container.get("duration"))
    shown = seconds * fps if seconds and fps else None
    if "mov" not in container.get("format_name", ""):  # a truncated AVI's length covers only what is left
        shown = None if held else shown
    return min((math.ceil(count) for count in (held, shown) if count), default=None)


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) and value > 0 else None


def _in_seconds(clock: str) -> float | None:
    """Seconds from "00:01:02.500000000", the form in Matroska's tag."""
    parts = [_number(part) or 0.0 for part in clock.split(":")]
    return 3600 * parts[0] + 60 * parts[1] + parts[2] if len(parts) == 3 else None
