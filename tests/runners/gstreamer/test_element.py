"""The element `edgecnninfer` in real pipelines, where PyGObject and GStreamer are installed."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import edgecnn
from edgecnn.errors import MissingDependencyError
from edgecnn.photographs import photographs
from edgecnn.runners.gstreamer import plugin_folder, register
from edgecnn.runners.live.cameras.gstreamer import gstreamer
from tests.builders.repository import REPOSITORY
from tests.runners.live.rtsp_process import NEEDS, RtspServer, rtsp_is_here

pytestmark = pytest.mark.runtime
ASTRONAUT = REPOSITORY / "edgecnn" / "assets" / "astronaut.jpg"


@functools.cache
def gst() -> Any:
    """GStreamer with the element; None where it is not here."""
    try:
        found = gstreamer()
        register()
        register()  # a second one does nothing
    except MissingDependencyError:
        return None
    return found if found.ElementFactory.find("videotestsrc") else None


needs_gstreamer = pytest.mark.skipif(
    gst() is None, reason="needs PyGObject and GStreamer: pip install 'edgecnn[gstreamer]'"
)


def run(description: str, *, buffers: int | None = None) -> tuple[list[Any], list[dict[str, Any]], str | None]:
    """Run a pipeline that ends in an appsink: its samples, its JSON results and its error."""
    kinds = gst().MessageType
    pipeline = gst().parse_launch(f"{description} ! appsink name=out sync=false max-buffers=1")
    out, bus = pipeline.get_by_name("out"), pipeline.get_bus()
    samples: list[Any] = []
    pipeline.set_state(gst().State.PLAYING)
    results: list[dict[str, Any]] = []
    error = None
    end_s = time.monotonic() + 60
    try:
        while error is None and (buffers is None or len(samples) < buffers):
            assert time.monotonic() < end_s
            sample = out.try_pull_sample(50_000_000)
            samples += [] if sample is None else [sample]
            while (message := bus.pop_filtered(kinds.ELEMENT | kinds.ERROR)) is not None:
                if message.type == kinds.ERROR:
                    error = error or message.parse_error()[0].message
                elif message.get_structure().get_name() == "edgecnn-result":
                    results.append(json.loads(message.get_structure().get_string("json")))
            if sample is None and out.is_eos():
                break
        return samples, results, error
    finally:
        pipeline.set_state(gst().State.NULL)


def picture_of(sample: Any) -> Any:
    """Without the padding of its rows, whose bytes mean nothing."""
    buffer, words = sample.get_buffer(), sample.get_caps().get_structure(0)
    height, width = words.get_value("height"), words.get_value("width")
    rows = np.frombuffer(bytes(buffer.extract_dup(0, buffer.get_size())), np.uint8).reshape(height, -1)
    return np.ascontiguousarray(rows[:, : 3 * width].reshape(height, width, 3))


def stamps(samples: list[Any]) -> list[tuple[int, int, int]]:
    return [(each.get_buffer().pts, each.get_buffer().dts, each.get_buffer().duration) for each in samples]


@needs_gstreamer
def test_a_file_is_answered_as_the_runner_answers_it() -> None:
    samples, results, error = run(f"filesrc location={ASTRONAUT} ! jpegdec ! videoconvert ! edgecnninfer")
    assert error is None and len(samples) == 1
    picture = picture_of(samples[0])
    with edgecnn.open_runner("default-detector") as runner:
        assert results == [{"pts_ns": 0, **runner(picture).to_dict()}]
    assert [each["label"] for each in results[0]["detections"]] == ["person"]


@needs_gstreamer
def test_each_buffer_of_a_test_source_passes_unchanged_with_its_stamps() -> None:
    # 33 px: rows are padded to 100 bytes
    source = "videotestsrc num-buffers=9 ! video/x-raw,format=BGR,width=33,height=21,framerate=30/1"
    plain, _, _ = run(source)
    passed, results, error = run(f"{source} ! edgecnninfer bundle=default-segmenter")
    assert error is None
    assert stamps(passed) == stamps(plain) and len(plain) == 9
    assert all((picture_of(a) == picture_of(b)).all() for a, b in zip(passed, plain, strict=True))
    assert [each["pts_ns"] for each in results] == [pts for pts, _, _ in stamps(plain)]


@needs_gstreamer
def test_an_overlay_is_drawn_and_nothing_else_changes() -> None:
    source = f"filesrc location={ASTRONAUT} ! jpegdec ! videoscale ! videoconvert ! video/x-raw,width=401,height=300"
    (plain,), (result,), _ = run(f"{source} ! videoconvert ! edgecnninfer")
    (drawn,), _, error = run(f"{source} ! videoconvert ! edgecnninfer overlay=true messages=false")
    assert error is None and stamps([drawn]) == stamps([plain])
    with edgecnn.open_runner("default-detector") as runner:
        assert (picture_of(drawn) == runner(picture_of(plain)).draw()).all()
    assert result["detections"]


@needs_gstreamer
def test_objects_of_a_video_are_followed_by_its_own_time(tmp_path: Path) -> None:
    pytest.importorskip("edgefirst.tracker", reason="needs edgefirst-tracker: pip install 'edgecnn[track]'")
    wide = np.hstack([photographs()["astronaut"]] * 2)
    writer = cv2.VideoWriter(str(tmp_path / "walk.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 20, (512, 512))
    for shift in range(0, 48, 8):
        writer.write(np.ascontiguousarray(wide[:, shift : shift + 512]))
    writer.release()
    source = f"filesrc location={tmp_path}/walk.avi ! avidemux ! jpegdec ! videoconvert"
    samples, results, error = run(f"{source} ! edgecnninfer track=true")
    assert error is None and len(samples) == 6
    ids = [{each["track_id"] for each in result["detections"]} - {None} for result in results]
    assert ids[0] == set() and set.intersection(*ids[1:])


@needs_gstreamer
@pytest.mark.server
@pytest.mark.skipif(not rtsp_is_here(), reason=NEEDS)
def test_a_live_stream_is_answered_with_the_stamps_of_its_buffers() -> None:
    with RtspServer(size="320x240") as server:
        source = f"rtspsrc location={server.url()} protocols=tcp latency=0 ! rtph264depay ! avdec_h264 ! videoconvert"
        newest = "queue leaky=downstream max-size-buffers=1"
        samples, results, error = run(f"{source} ! {newest} ! edgecnninfer", buffers=8)
    assert error is None and len(samples) == 8
    times = [pts for pts, _, _ in stamps(samples)]
    assert times == sorted(set(times))
    assert times == [each["pts_ns"] for each in results][: len(times)]


@needs_gstreamer
@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("bundle=absent.edge", "absent.edge does not exist"),
        ("format=paper", "paper"),
        ("bundle=default-segmenter track=true", "only objects can be tracked"),
        ("bundle=default-segmenter score=0.5", "score"),
        ("trusted-key=absent.pem", "absent.pem"),
    ],
)
def test_what_cannot_start_is_an_error_on_the_bus(words: str, reason: str) -> None:
    samples, results, error = run(f"videotestsrc num-buffers=3 ! videoconvert ! edgecnninfer {words}")
    assert samples == results == []
    assert error is not None and reason in error


@needs_gstreamer
def test_a_network_that_fails_ends_the_pipeline_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgecnn.runners.runner import Runner

    def fail(self: Runner, picture: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(Runner, "__call__", fail)
    samples, _, error = run("videotestsrc num-buffers=3 ! videoconvert ! edgecnninfer")
    assert samples == [] and error == "RuntimeError: out of memory"


@needs_gstreamer
def test_results_are_attached_where_gstreamer_has_words_for_them() -> None:
    from edgecnn.runners.gstreamer.attached import analytics

    if analytics() is None:
        pytest.skip("needs GStreamer 1.24 with GstAnalytics: apt-get install gir1.2-gst-plugins-bad-1.0")
    (sample,), (result,), _ = run(f"filesrc location={ASTRONAUT} ! jpegdec ! videoconvert ! edgecnninfer")
    relations = analytics().buffer_get_analytics_relation_meta(sample.get_buffer())
    there, found = relations.get_od_mtd(0)
    assert there
    known, left, top, width, height, score = found.get_location()
    box = [left, top, left + width, top + height]
    assert known and np.abs(np.subtract(box, result["detections"][0]["box"])).max() <= 1
    assert score == pytest.approx(result["detections"][0]["score"], abs=1e-4)


@needs_gstreamer
@pytest.mark.skipif(shutil.which("gst-launch-1.0") is None, reason="needs apt-get install gstreamer1.0-tools")
def test_gst_launch_finds_the_element_by_the_folder_that_is_told(tmp_path: Path) -> None:
    told = subprocess.run(
        [sys.executable, "-m", "edgecnn.runners.gstreamer"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    assert Path(told.stdout.strip()) == plugin_folder()
    environment = {
        **os.environ,
        "GST_PLUGIN_PATH": told.stdout.strip(),
        "GST_REGISTRY": str(tmp_path / "registry"),
        "PYTHONPATH": os.pathsep.join((str(REPOSITORY), str(Path(np.__file__).parents[1]))),
    }
    inspected = subprocess.run(
        ["gst-inspect-1.0", "edgecnninfer"], capture_output=True, text=True, env=environment, check=False
    )
    if inspected.returncode != 0:
        pytest.skip("needs GStreamer's loader of Python plug-ins, for this Python")
    words = [
        "filesrc",
        f"location={ASTRONAUT}",
        "!",
        "jpegdec",
        "!",
        "videoconvert",
        "!",
        "edgecnninfer",
        "!",
        "fakesink",
    ]
    done = subprocess.run(
        ["gst-launch-1.0", "-m", *words], capture_output=True, text=True, env=environment, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "edgecnn-result" in done.stdout and "person" in done.stdout


def test_without_pygobject_the_element_says_what_to_install(without: Any) -> None:
    without("gi")
    with pytest.raises(MissingDependencyError, match=r"edgecnn\[gstreamer\]"):
        register()
