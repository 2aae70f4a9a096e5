"""How old a result is: python -m benchmarks.live_age [--bundle NAME.edge] [--seconds 60].

A server (a process of its own) draws its clock into every picture of a stream of 30 a second: the age of each result is
read from the picture itself, codec, network and buffers included, at the moment the result is handed over. The network
is slower than the stream. OpenCV's plain loop (read, infer, read, …) beside it, for a quarter of the time, because its
age only grows.

The bound: one frame interval, one inference (p99), the stream's own delay (median, of frames that nobody infers on),
and 15 ms. Streams: MJPEG over HTTP (`clock_stream.py`), RTSP with H.264 over TCP and UDP (`rtsp_server.py`),
and the same through a GStreamer pipeline. Results go to `results/live_age.json`; exit code 1 where a bound is exceeded.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import cv2
import msgspec
import numpy as np

import edgecnn
from benchmarks.clock_stream import stamped_ms
from edgecnn.errors import MissingDependencyError
from edgecnn.measure.machine import describe_machine
from edgecnn.results import Result, UInt8Array
from edgecnn.runners.live.cameras.capture_spec import TRANSPORTS, RtspTransport
from edgecnn.runners.live.frame import Frame
from edgecnn.runners.runner import Runner
from tests.runners.live.bar_code import read_ms
from tests.runners.live.rtsp_process import NEEDS, RtspServer, rtsp_is_here

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "live_age.json"
STREAM_FPS = 30.0
SLOWEST_FPS = 20.0  # the network is made to take this long at least, so that it is slower than the stream
ALLOWED_MS = 15.0
DELAY_FRAMES = 150

Clock = Callable[[Any], int | None]  # the time in a picture, in ms of CLOCK_MONOTONIC


class AtMost:
    """A runner that takes its time: a network that is slower than the stream, on any machine.

    Attributes:
        times_ms: of its calls.
    """

    def __init__(self, runner: Runner, fps: float) -> None:
        self._runner, self._least_s = runner, 1 / fps
        self.times_ms: list[float] = []

    @property
    def stage_times(self) -> Any:
        """The runner's."""
        return self._runner.stage_times

    def __call__(self, frame: UInt8Array | Frame) -> Result:
        """The runner's answer, after a while."""
        start = time.perf_counter()
        result = self._runner(frame)
        time.sleep(max(0.0, self._least_s - (time.perf_counter() - start)))
        self.times_ms.append((time.perf_counter() - start) * 1000)
        return result


class Ages:
    """Ages of what was handed over, read from the pictures.

    Attributes:
        ages_ms: one each.
        unreadable: pictures without a valid time: they were never sent.
    """

    def __init__(self, clock: Clock) -> None:
        self.ages_ms: list[float] = []
        self.unreadable = 0
        self._clock = clock

    def add(self, picture: UInt8Array) -> None:
        """Of a result that is handed over now."""
        now_ms = time.monotonic_ns() / 1e6
        drawn_ms = self._clock(picture)
        if drawn_ms is None:
            self.unreadable += 1
        else:
            self.ages_ms.append(now_ms - drawn_ms)

    def summary(self) -> dict[str, Any]:
        """Percentiles."""
        named = {f"p{percent}_ms": round(float(np.percentile(self.ages_ms, percent)), 1) for percent in (50, 90, 99)}
        return {
            "n": len(self.ages_ms),
            **named,
            "largest_ms": round(max(self.ages_ms), 1),
            "unreadable": self.unreadable,
        }


def ages_of(
    runner: Runner, source: str, url: str, clock: Clock, seconds: float, transport: RtspTransport | None = None
) -> dict[str, Any]:
    """Of the live loop, and of OpenCV's plain loop, on the same stream."""
    delays = Ages(clock)
    with edgecnn.open_camera(source, rtsp_transport=transport) as camera:
        for frame in camera:
            delays.add(frame.image)
            if frame.index >= DELAY_FRAMES:
                break
    delay_ms = float(np.median(delays.ages_ms))

    slow, live = AtMost(runner, SLOWEST_FPS), Ages(clock)
    with edgecnn.open_camera(source, rtsp_transport=transport) as camera:
        end = time.monotonic() + seconds
        for frame, _ in edgecnn.live(camera, slow):
            live.add(frame.image)
            if time.monotonic() > end:
                break
    network_ms = float(np.percentile(slow.times_ms, 99))
    bound_ms = 1000 / STREAM_FPS + network_ms + delay_ms + ALLOWED_MS

    plain = Ages(clock)
    capture = cv2.VideoCapture(url)
    end = time.monotonic() + seconds / 4
    while time.monotonic() < end:
        there, image = capture.read()
        assert there, "the stream ended"
        slow(cast(UInt8Array, image))
        plain.add(cast(UInt8Array, image))
    capture.release()
    found = live.summary()
    return {
        "live": found,
        "opencv, plain loop": {"seconds": seconds / 4, **plain.summary()},
        "stream_delay_ms": round(delay_ms, 1),
        "inference_p99_ms": round(network_ms, 1),
        "bound_ms": round(bound_ms, 1),
        "load_average": round(os.getloadavg()[0], 1),  # of the machine, which may be shared
        "within_bound": found["p99_ms"] <= bound_ms and not found["unreadable"],
    }


@contextlib.contextmanager
def http_stream() -> Iterator[str]:
    """Address of a running MJPEG server."""
    command = [sys.executable, str(HERE / "clock_stream.py"), "--fps", str(STREAM_FPS)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield server.stdout.readline().strip()
        finally:
            server.kill()


def streams(runner: Runner, seconds: float) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each stream's name and figures; RTSP where its server can run here."""
    with http_stream() as url:
        yield "MJPEG over HTTP", ages_of(runner, url, url, stamped_ms, seconds)
    if not rtsp_is_here():
        print(NEEDS)
        return
    for transport in TRANSPORTS:
        with RtspServer(transport=transport) as server:
            url = server.url()
            figures = ages_of(runner, url, url, read_ms, seconds, transport)
            yield f"RTSP, H.264 over {transport}", figures
    with RtspServer() as server, contextlib.suppress(MissingDependencyError):
        url = server.url()
        pipeline = f"gst: rtspsrc location={url} protocols=tcp latency=0 ! rtph264depay ! avdec_h264 max-threads=1"
        yield "GStreamer: RTSP, H.264 over tcp", ages_of(runner, pipeline, url, read_ms, seconds)


def main() -> int:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--bundle", default="default-detector")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args()
    result: dict[str, Any] = {"bundle": Path(asked.bundle).name, "machine": msgspec.to_builtins(describe_machine())}
    with edgecnn.open_runner(asked.bundle) as runner:
        result["ran"] = {"format": runner.format, "precision": runner.precision}
        result["streams"] = {}
        for name, figures in streams(runner, asked.seconds):
            result["streams"][name] = figures
            print(name, json.dumps(figures), flush=True)
    asked.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0 if all(figures["within_bound"] for figures in result["streams"].values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
