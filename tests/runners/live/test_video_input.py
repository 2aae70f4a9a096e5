"""Video files of many kinds give their own frames, or an error: never other pictures without a word."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.video_input import compared
from edgecnn.errors import DataError
from edgecnn.runners.live.cameras import files
from edgecnn.runners.live.cameras.camera import open_camera
from edgecnn.runners.live.cameras.ffmpeg_program import ffmpeg_is_here
from edgecnn.runners.live.cameras.opencv_reader import converts_interlaced
from edgecnn.runners.live.cameras.scan_type import may_be_interlaced

from .video_kinds import KINDS, UNEVEN_S, Kind, make

pytestmark = pytest.mark.skipif(
    shutil.which("ffmpeg") is None or not ffmpeg_is_here(),
    reason="the program ffmpeg, which makes the files, is absent",
)

_ALL = [pytest.param(kind, id=kind.name, marks=[] if kind.quick else [pytest.mark.slow]) for kind in KINDS]


@pytest.mark.parametrize("kind", _ALL)
def test_a_file_gives_its_own_frames_or_is_refused(kind: Kind, tmp_path: Path) -> None:
    result = compared(make(kind, tmp_path))
    if kind.whole and not kind.name.endswith(".ts"):  # two streams in one lose a packet where they meet, and say so
        assert result["outcome"] == "same", result
    else:
        assert result["outcome"] in {"same", "damaged", "refused"}, result
    if not kind.whole:
        assert result["outcome"] in {"damaged", "refused"} and result["why"], result


@pytest.mark.parametrize("kind", _ALL)
def test_opencv_alone_gives_its_own_frames_or_is_refused(
    kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "ffmpeg_is_here", lambda: False)
    result = compared(make(kind, tmp_path))
    if kind.name != "scribbled.avi":  # OpenCV keeps to itself what its decoder says
        assert result["outcome"] in {"same", "close", "damaged", "refused"}, result
    if kind.whole and not kind.name.endswith(".ts"):
        assert result["outcome"] != "damaged", result


def test_opencv_alone_refuses_interlaced_files_and_says_what_reads_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if converts_interlaced(cv2.getBuildInformation()):
        pytest.skip("this OpenCV reads interlaced frames")
    monkeypatch.setattr(files, "ffmpeg_is_here", lambda: False)
    for kind in KINDS:
        if "interlaced" in kind.name and kind.quick and "progressive" not in kind.name:
            with pytest.raises(DataError, match="interlaced frames correctly; install the program ffmpeg"):
                open_camera(make(kind, tmp_path))


def test_each_frame_knows_its_time_in_an_uneven_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(next(kind for kind in KINDS if kind.name == "uneven.mp4"), tmp_path)
    for here in (True, False):
        monkeypatch.setattr(files, "ffmpeg_is_here", lambda here=here: here)
        with open_camera(path) as camera:
            times_s = np.array([(frame.media_ns or 0) * 1e-9 for frame in camera])
        assert np.abs(times_s - UNEVEN_S).max() < 0.002


def test_a_playlist_that_calls_itself_a_video_reads_no_other_file(tmp_path: Path) -> None:
    secret = make(KINDS[0], tmp_path)
    (tmp_path / "list.mp4").write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{secret.name}\n#EXT-X-ENDLIST\n")
    (tmp_path / "script.mp4").write_text(f"ffconcat version 1.0\nfile {secret.name}\n")
    for name in ("list.mp4", "script.mp4"):
        with pytest.raises(DataError), open_camera(tmp_path / name) as camera:
            next(iter(camera))


def test_a_header_that_is_cut_off_may_mean_anything() -> None:
    for codec in ("h264", "hevc", "mpg2", "FMP4"):
        assert may_be_interlaced(codec, b"") is True
    assert may_be_interlaced("h264", b"\x00\x00\x01\x67\x64") is True
    assert may_be_interlaced("VP90", b"") is False
    assert may_be_interlaced("ffv1", b"") is None
