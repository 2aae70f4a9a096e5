"""A recording can be played whatever ends it, keeps its time, and never takes another's place."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.kills import kills, small_disk
from edgecnn.errors import SpecError, StorageError
from edgecnn.results import Detections
from edgecnn.runners.live.cameras import files
from edgecnn.runners.live.cameras.camera import open_camera
from edgecnn.runners.live.frame import Frame
from edgecnn.runners.live.recording import encoders, writer
from edgecnn.runners.live.recording.file import GrowingFile
from edgecnn.runners.live.recording.rotation import Rotation, next_of, remove_leftovers
from edgecnn.runners.live.recording.writer import SUFFIXES, RecordingWriter
from edgecnn.runners.live.sinks import Annotated
from edgecnn.runners.live.sinks.text_file import LineFile
from edgecnn.runners.live.sinks.video import VideoSink

from .conftest import HEIGHT_PX, LABELS, WIDTH_PX, count_frames, find_square, square_at, square_frame, until

NOTHING = Detections(np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty(0, np.int64), LABELS)
SECOND_NS = 10**9


@pytest.fixture(params=["ffmpeg", "opencv"])
def encoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """As on a machine with ffmpeg, and as on one without."""
    name = str(request.param)
    if name == "ffmpeg" and encoders.h264_encoder() is None:
        pytest.skip("no ffmpeg with an encoder of H.264 is installed")
    if name == "opencv":
        monkeypatch.setattr(writer, "h264_encoder", lambda: None)
    return name


def _frame(index: int, *, media_ns: int | None = None, captured_ns: int = 0) -> Frame:
    return Frame(square_frame(index), index, captured_ns, captured_ns, "test", media_ns)


def _deliver(sink: VideoSink, frame: Frame) -> None:
    sink.deliver(frame, NOTHING, Annotated(lambda: frame.image))


def _write(path: Path, count: int, *, fps: float = 20.0, **words: object) -> VideoSink:
    with VideoSink(path, fps=fps, **words) as sink:  # type: ignore[arg-type]
        for index in range(count):
            _deliver(sink, _frame(index, media_ns=round(index * 1e9 / fps)))
    return sink


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_each_frame_is_there_and_shows_what_it_showed(tmp_path: Path, suffix: str, encoder: str) -> None:
    path = tmp_path / f"out{suffix}"
    _write(path, 50)
    with open_camera(path) as camera:
        frames = list(camera)
    assert camera.remark is None and camera.fps == pytest.approx(20, abs=0.1)
    assert len(frames) == camera.frames_total == 50
    for index, frame in enumerate(frames):
        assert np.abs(np.subtract(find_square(frame.image), square_at(index))).max() <= 2
        assert frame.media_ns is not None and abs(frame.media_ns * 1e-9 - index / 20) < 0.002


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_file_gives_what_was_written_at_any_moment(
    tmp_path: Path, suffix: str, encoder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes: list[tuple[int, bytes]] = []
    promised: list[tuple[int, int]] = []  # after so many writes, so many frames
    write = GrowingFile._write

    def noted(file: GrowingFile, piece: bytes, at: int) -> int:
        writes.append((at, piece))
        return write(file, piece, at)

    monkeypatch.setattr(GrowingFile, "_write", noted)
    recording = RecordingWriter(tmp_path / f"out{suffix}", (WIDTH_PX, HEIGHT_PX), 20)

    def flush() -> None:
        with recording._working:
            recording._take(recording._encoder.ready())
            recording._flush()
            behind = len(getattr(recording._encoder, "_times", ()))  # an encoder's process works at its own pace
            promised.append((len(writes), recording.frames - behind))

    for index in range(60):
        recording.add(square_frame(index), index * SECOND_NS // 20)
        if index % 10 == 9:
            flush()
    while not recording.is_there:
        time.sleep(0.01)
        flush()
    before = (tmp_path / f"out{suffix}").read_bytes()
    recording.close()
    promised.append((len(writes), 60))
    image, cut = bytearray(), tmp_path / f"cut{suffix}"
    for number, (at, piece) in enumerate(writes):
        frames = max((frames for done, frames in promised if done <= number), default=0)
        for length in {0, 1, len(piece) // 2, len(piece) - 1}:
            cut.write_bytes(_after(image, piece[:length], at))
            assert count_frames(cut) >= frames, (number, at, length, len(piece))
        image = _after(image, piece, at)
    assert count_frames(tmp_path / f"out{suffix}") == 60
    for size in range(4096, len(before), 4096):  # as when the last pages didn't come to the disk
        cut.write_bytes(before[:size])
        assert count_frames(cut) > 0


def _after(image: bytearray, piece: bytes, at: int) -> bytearray:
    """A file's content after a write."""
    return image[:at] + piece + image[at + len(piece) :]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_frames_of_an_uneven_video_keep_their_time(tmp_path: Path, suffix: str, encoder: str) -> None:
    times_s = [0.0, 0.05, 0.4, 0.42, 1.7, 1.75, 3.0]
    with VideoSink(tmp_path / f"out{suffix}", fps=20) as sink:
        for index, at_s in enumerate(times_s):
            _deliver(sink, _frame(index, media_ns=round(at_s * 1e9)))
    with open_camera(sink.written[0]) as camera:
        found_s = [(frame.media_ns or 0) * 1e-9 for frame in camera]
    assert found_s == pytest.approx(times_s, abs=0.002)


def test_an_avi_shows_frames_of_an_uneven_video_longer(tmp_path: Path) -> None:
    with VideoSink(tmp_path / "out.avi", fps=10) as sink:
        for index, at_s in enumerate((0.0, 0.1, 0.5, 1.0)):
            _deliver(sink, _frame(index, media_ns=round(at_s * 1e9)))
    with open_camera(sink.written[0]) as camera:
        places = [find_square(frame.image) for frame in camera]
    assert len(places) == 11
    shown = [min(range(4), key=lambda n: abs(place[0] - square_at(n)[0])) for place in places]
    assert (shown[0], shown[1], shown[5], shown[10]) == (0, 1, 2, 3)


def test_odd_sizes_can_be_recorded(tmp_path: Path, encoder: str) -> None:
    image = np.full((61, 83, 3), 90, np.uint8)
    for suffix in SUFFIXES:
        with VideoSink(tmp_path / f"out{suffix}") as sink:
            for index in range(5):
                sink.deliver(Frame(image, index, 0, 0, "test"), NOTHING, Annotated(lambda: image))
        assert count_frames(sink.written[0]) == 5


def test_what_was_recorded_before_stays(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    path.write_bytes(b"yesterday")
    first, second = _write(path, 5), _write(path, 6)
    assert [each.name for each in first.written + second.written] == ["out.2.mp4", "out.3.mp4"]
    assert path.read_bytes() == b"yesterday"
    assert next_of(path).name == "out.4.mp4"


def test_two_at_once_don_t_write_into_one_file(tmp_path: Path) -> None:
    with VideoSink(tmp_path / "out.mp4") as one, VideoSink(tmp_path / "out.mp4") as other:
        for index in range(5):
            _deliver(one, _frame(index))
            _deliver(other, _frame(index))
    assert sorted(path.name for path in one.written + other.written) == ["out.2.mp4", "out.mp4"]


def test_a_recording_rotates_by_time_and_by_size_and_the_newest_stay(tmp_path: Path) -> None:
    sink = _write(tmp_path / "out.mp4", 100, rotation=Rotation.parse("1s", 3))
    assert [path.name for path in sink.written] == ["out.mp4", "out.2.mp4", "out.3.mp4", "out.4.mp4", "out.5.mp4"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.3.mp4", "out.4.mp4", "out.5.mp4"]
    assert [count_frames(path) for path in sink.written[2:]] == [20, 20, 20]
    sink = _write(tmp_path / "small.avi", 100, rotation=Rotation.parse("50KB"))
    assert len(sink.written) > 2 and sum(count_frames(path) for path in sink.written) == 100


@pytest.mark.parametrize("words", ["100", "1 parsec", "0h", "-1h", "MB", "1h;2h"])
def test_an_impossible_rotation_is_reported(words: str) -> None:
    with pytest.raises(SpecError, match="100MB, a time such as 30m"):
        Rotation.parse(words)


def test_a_rotation_in_words() -> None:
    assert Rotation.parse("1.5GB,2h", 4) == Rotation(1.5e9, 7200.0, 4)
    assert Rotation.parse(None) == Rotation()
    with pytest.raises(SpecError, match="at least 1"):
        Rotation.parse("1h", 0)


def test_an_encoder_that_is_killed_gives_way_to_another(tmp_path: Path) -> None:
    if encoders.h264_encoder() is None:
        pytest.skip("no ffmpeg with an encoder of H.264 is installed")
    with VideoSink(tmp_path / "out.mp4", fps=20) as sink:
        for index in range(31):
            _deliver(sink, _frame(index))
        killed: Any = sink._writer._encoder  # type: ignore[union-attr]
        until(lambda: len(killed._times) <= 3)  # what it holds is lost with it
        killed._process.kill()  # to SIGTERM, it would answer with its next input
        killed._process.wait()
        for index in range(31, 60):
            _deliver(sink, _frame(index))
    assert len(sink.written) == 1 and count_frames(sink.written[0]) >= 55


def test_a_full_disk_leaves_what_was_written_playable(tmp_path: Path, encoder: str) -> None:
    rng = np.random.default_rng(0)
    with small_disk() as folder:
        if folder is None:
            pytest.skip("only root can make a small disk")
        (folder / "out.mp4").write_bytes(b"yesterday")
        sink = VideoSink(folder / "out.mp4", fps=20)
        with pytest.raises(StorageError, match="disk is full"), sink:
            for index in range(2000):
                time.sleep(1 / 20)  # as a camera gives them: what is on the disk is what two seconds made
                image = rng.integers(0, 255, (240, 320, 3), np.uint8)
                sink.deliver(Frame(image, index, 0, 0, "test"), NOTHING, Annotated(lambda image=image: image))  # type: ignore[misc]
        assert (folder / "out.mp4").read_bytes() == b"yesterday"
        assert count_frames(sink.written[0]) > 10


def test_a_write_that_fails_takes_back_what_it_had_written(tmp_path: Path) -> None:
    with small_disk() as folder:
        if folder is None:
            pytest.skip("only root can make a small disk")
        recording = RecordingWriter(folder / "out.avi", (640, 480), 20)
        rng = np.random.default_rng(0)
        with pytest.raises(OSError, match="No space"):
            for index in range(2000):
                recording.add(rng.integers(0, 255, (480, 640, 3), np.uint8), index * SECOND_NS // 20)
        frames = count_frames(folder / "out.avi")
        with pytest.raises(OSError, match="No space"):
            recording.close()
        assert count_frames(folder / "out.avi") >= frames > 0


def test_what_killed_runs_left_hidden_is_removed(tmp_path: Path) -> None:
    done = subprocess.Popen(["true"])
    done.wait()
    dead, alive = tmp_path / f".out.partial-{done.pid}.mp4", tmp_path / ".out.partial-1.mp4"
    for path in (dead, alive, tmp_path / ".mine.mp4"):
        path.write_bytes(b"half")
    remove_leftovers(tmp_path, tmp_path / "out.mp4")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".mine.mp4", alive.name]


# --- lines


def test_lines_are_added_and_a_torn_one_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_bytes(b'{"frame": 0}\n{"frame": 1}\n{"fra')
    lines = LineFile(path)
    lines.write(b'{"frame": 2}\n')
    lines.close()
    assert [json.loads(line)["frame"] for line in path.read_text().splitlines()] == [0, 1, 2]
    path.write_bytes(b'{"frame": 7}')  # whole, but for its end
    LineFile(path).close()
    assert path.read_bytes() == b'{"frame": 7}\n'
    path.write_bytes(b'{"frame": 8}\n' + bytes(300))  # a power cut may leave zeros
    LineFile(path).close()
    assert path.read_bytes() == b'{"frame": 8}\n'


def test_lines_go_on_in_the_next_file(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    lines = LineFile(path, Rotation.parse("1KB", 3))
    for number in range(400):
        lines.write(b'{"frame": %d}\n' % number)
    lines.close()
    names = sorted((each.name for each in tmp_path.iterdir()), key=lambda name: [int(c) for c in name if c.isdigit()])
    assert len(names) == 3 and names[0] == "out.jsonl"
    texts = [(tmp_path / name).read_text() for name in (*names[1:], names[0])]
    there = [json.loads(line)["frame"] for text in texts for line in text.splitlines()]
    assert there == list(range(there[0], 400)) and all((tmp_path / name).stat().st_size <= 1000 for name in names)


def test_a_line_that_does_not_fit_on_the_disk_is_taken_back(tmp_path: Path) -> None:
    with small_disk() as folder:
        if folder is None:
            pytest.skip("only root can make a small disk")
        lines, line = LineFile(folder / "out.jsonl"), b"[" + b"1," * 40_000 + b"1]\n"
        with pytest.raises(OSError, match="No space"):
            while True:
                lines.write(line)
        lines.close()
        assert (folder / "out.jsonl").read_bytes().endswith(b"1]\n")


# --- kills


# Two seconds are for a machine of one's own, by benchmarks/kills.py; where other tests run, an encoder may wait longer.
_WHERE_OTHERS_RUN_S = 6.0


@pytest.mark.server
@pytest.mark.runtime
def test_a_run_that_is_killed_leaves_a_recording() -> None:
    rows = kills(2, full_disks=0, seed=1, limit_s=_WHERE_OTHERS_RUN_S)
    assert [row["wrong"] for row in rows] == [[], []], rows


@pytest.mark.server
@pytest.mark.runtime
@pytest.mark.slow
def test_runs_that_are_killed_leave_recordings() -> None:
    rows = kills(8, full_disks=1, seed=2, limit_s=_WHERE_OTHERS_RUN_S)
    assert not any(row["wrong"] for row in rows), rows


def test_without_ffmpeg_a_recording_is_read_back_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "h264_encoder", lambda: None)
    monkeypatch.setattr(files, "ffmpeg_is_here", lambda: False)
    for suffix in SUFFIXES:
        with open_camera(_write(tmp_path / f"out{suffix}", 30).written[0]) as camera:
            assert len(list(camera)) == 30 and camera.remark is None


@pytest.mark.skipif(shutil.which("ffprobe") is None, reason="ffprobe is not installed")
def test_a_finished_mp4_has_an_index_like_any_other(tmp_path: Path, encoder: str) -> None:
    path = _write(tmp_path / "out.mp4", 90).written[0]
    words = ["ffprobe", "-v", "error", "-show_entries", "stream=nb_frames,duration", "-of", "csv=p=0", str(path)]
    probed = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    duration_s, frames = probed.split(",")
    assert float(duration_s) == pytest.approx(4.5) and int(frames) == 90
    until(lambda: not list(tmp_path.glob(".*")))
