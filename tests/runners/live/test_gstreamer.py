"""GStreamer pipelines as sources, run by the real GStreamer where PyGObject is installed."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecnn.cli import _main
from edgecnn.errors import DeviceError, LoginError, MissingDependencyError, SpecError
from edgecnn.runners.live.cameras.camera import open_camera
from edgecnn.runners.live.cameras.gstreamer import gstreamer
from edgecnn.runners.live.cameras.live_camera import LiveCamera
from edgecnn.runners.live.cameras.reconnect import Reconnect
from edgecnn.runners.live.cameras.table import source_of

from .bar_code import read_ms
from .conftest import find_square, square_at, until, write_video
from .rtsp_process import NEEDS, RtspServer, rtsp_is_here

AT_ONCE = Reconnect(give_up_s=0)


def _gstreamer_is_here() -> bool:
    try:
        return bool(gstreamer().ElementFactory.find("videotestsrc"))
    except MissingDependencyError:
        return False


needs_gstreamer = pytest.mark.skipif(
    not _gstreamer_is_here(), reason="needs PyGObject and GStreamer: pip install 'edgecnn[gstreamer]'"
)


@needs_gstreamer
def test_a_live_pipeline_gives_bgr_with_the_time_of_its_own_stamps() -> None:
    red = "gst: videotestsrc is-live=true pattern=red ! video/x-raw,width=322,height=240,framerate=50/1"
    with open_camera(red) as camera:  # 322: its rows are longer than its pixels, to end at 4 bytes
        assert isinstance(camera, LiveCamera) and camera.name == "gst: videotestsrc"
        frames = []
        for frame in camera:
            now_ns = time.monotonic_ns()
            assert 0 <= now_ns - frame.captured_ns < 10e9
            assert abs(frame.captured_unix_ns - time.time_ns()) < 10e9
            frames.append(frame)
            if len(frames) == 12:
                break
        assert camera.fps == 50 and camera.size_px == (322, 240)
    for frame in frames:
        assert frame.image.shape == (240, 322, 3) and frame.image.dtype == np.uint8
        assert np.abs(frame.image.astype(int) - (0, 0, 255)).max() < 4
    steps = np.diff([frame.captured_ns for frame in frames]) / 20e6
    assert (steps > 0.9).all() and np.abs(steps - np.round(steps)).max() < 0.05  # its clock, however late it was read


@needs_gstreamer
def test_a_pipeline_that_is_not_live_gives_every_frame_in_order(tmp_path: Path) -> None:
    path = write_video(tmp_path / "square.avi", frames=40)
    with open_camera(f"gst: filesrc location={path} ! decodebin") as camera:
        assert not camera.live and camera.dropped == 0
        places = []
        for frame in camera:
            places.append(find_square(frame.image))
            time.sleep(0.0005)
        assert camera.fps == 20
    assert places == [square_at(index) for index in range(40)]


@needs_gstreamer
@pytest.mark.parametrize(
    ("pipeline", "error", "message"),
    [
        ("gst:", SpecError, "expected a pipeline after gst:"),
        ("gst: nothing-of-that-name", SpecError, "no element"),
        ("gst: videotestsrc ! video/x-raw,format=I420 ! jpegdec", SpecError, "is not a valid pipeline"),
        ("gst: v4l2src device=/dev/video99", DeviceError, "does not start: Cannot identify device"),
        ("gst: filesrc location=/absent ! decodebin", DeviceError, "does not start"),
    ],
)
def test_a_pipeline_that_cannot_run_says_why(pipeline: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        open_camera(pipeline, reconnect=AT_ONCE)


@needs_gstreamer
def test_a_pipeline_that_ends_or_fails_is_started_again_until_it_is_given_up() -> None:
    states: list[str] = []
    source = "gst: videotestsrc is-live=true num-buffers=5 ! video/x-raw,framerate=50/1"
    with open_camera(source, on_state=lambda state, _: states.append(state)) as camera:
        assert isinstance(camera, LiveCamera)
        for frame in camera:
            if frame.index >= 12:
                break
        assert camera.reconnects >= 2
    assert states[:3] == ["live", "connecting", "live"]
    with open_camera(source, reconnect=Reconnect(give_up_s=0)) as camera, pytest.raises(DeviceError, match="given up"):
        list(camera)


@needs_gstreamer
@pytest.mark.skipif(not rtsp_is_here(), reason=NEEDS)
def test_a_pipeline_reads_rtsp_and_returns_with_its_server() -> None:
    with RtspServer(user="watcher", password="geheim") as server:
        source = f"rtspsrc location={server.url(login='watcher:geheim@')} protocols=tcp latency=0"
        pipeline = f"gst: {source} ! rtph264depay ! avdec_h264"
        with open_camera(pipeline, reconnect=Reconnect(stall_s=2)) as camera:
            assert "geheim" not in camera.name
            newest_ms = 0
            for turn in range(2):
                for frame in camera:
                    drawn_ms = read_ms(frame.image)
                    assert drawn_ms is not None and drawn_ms >= newest_ms
                    newest_ms = drawn_ms
                    if newest_ms > server.accepted_s * 1000:
                        break
                if not turn:
                    server.kill()
                    server.words["size"] = "320x240"
                    server.start()
            assert frame.image.shape == (240, 320, 3)
        with pytest.raises(LoginError, match="gives no frame: Unauthorized") as caught:
            open_camera(pipeline.replace("geheim", "wrong"))
    assert "wrong" not in str(caught.value)


@needs_gstreamer
@pytest.mark.skipif(not rtsp_is_here(), reason=NEEDS)
def test_over_udp_a_pipeline_that_waits_for_key_frames_leaves_out_what_lacks_packets(run_squares: Any) -> None:
    with RtspServer(transport="udp", lose_every=11, key_interval=10) as server:
        source = f"gst: rtspsrc location={server.url()} protocols=udp latency=0"
        pipeline = f"{source} ! rtph264depay wait-for-keyframe=true ! avdec_h264 output-corrupt=false"
        assert _main.main(["run", "no.edge", "--camera", pipeline, "--limit", "2"]) == 0
        with open_camera(pipeline) as camera:
            for frame in camera:
                assert read_ms(frame.image) is not None
                if frame.index == 20:
                    break


@needs_gstreamer
def test_closing_a_pipeline_ends_its_threads() -> None:
    before = {thread.name for thread in threading.enumerate()}
    camera = open_camera("gst: videotestsrc is-live=true")
    next(iter(camera))
    camera.close()
    camera.close()
    assert list(camera) == []
    until(lambda: {thread.name for thread in threading.enumerate()} <= before)


def test_without_pygobject_a_pipeline_says_what_to_install(without: Callable[..., None]) -> None:
    without("gi")
    with pytest.raises(MissingDependencyError, match=r"'gi'.*apt-get install .*edgecnn\[gstreamer\]"):
        open_camera("gst: videotestsrc")


def test_a_pipelines_name_has_no_properties() -> None:
    source = "gst: rtspsrc location=rtsp://me:geheim@cam/1 user-pw=geheim ! rtph264depay ! video/x-raw,width=3 ! a b=c"
    assert source_of(source).name == "gst: rtspsrc ! rtph264depay ! a"


@pytest.mark.runtime
@needs_gstreamer
def test_openvino_looks_for_devices_in_a_process_that_has_gstreamer() -> None:
    pytest.importorskip("openvino")
    program = (
        "import edgecnn\n"
        "with edgecnn.open_camera('gst: videotestsrc num-buffers=1') as camera: next(iter(camera))\n"
        "import openvino\n"  # it throws and catches in there: twice, since the first may use what was found before
        "for _ in range(2): print(openvino.Core().available_devices)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
