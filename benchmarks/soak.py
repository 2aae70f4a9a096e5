"""Does a run stay as it began? python -m benchmarks.soak [--minutes 60]

`edgecnn.run` on a stream that is faster than the network (MJPEG over HTTP, a process of its own), with tracking,
drawing, JSON lines and metrics, which are fetched as it goes. Every few seconds, what the process holds is read:
resident memory, threads, descriptors, frames so far, processor time. After the warm-up, memory must not grow by 1 MB
an hour, threads and descriptors must stay as they were, and the rate must not decay; where others use the machine too,
the processor time of a frame says more than the rate. No recording: a video file's index grows with the video.

Results go to `results/soak.json`; exit code 1 where something is not flat.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edgecnn._verbs.run import run
from edgecnn.measure.machine import describe_machine, read_core_times
from edgecnn.measure.timing import others_share
from edgecnn.results import Result
from edgecnn.runners.live.frame import Frame
from edgecnn.runners.live.run_summary import RunStart
from edgecnn.runners.live.sinks import Annotated, EndOfRun

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "soak.json"
STREAM_FPS = 120.0
GROWTH_LIMIT_MB_PER_H = 1.0
DECAY_LIMIT = 0.05  # of processor time per frame, last third over first


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What the process held at one moment."""

    at_s: float
    frames: int
    rss_kb: int
    threads: int
    descriptors: int
    cpu_s: float
    allocated_kb: int | None = None
    python_blocks: int | None = None


class _MallocInfo(ctypes.Structure):
    """`struct mallinfo2` of glibc's malloc.h."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


def allocated_kb() -> int | None:
    """What is allocated and not yet freed, by malloc, of all threads; None where the C library is not glibc.

    Resident memory also counts what the allocator keeps for the next to ask, which goes by when threads happen to run.
    """
    with contextlib.suppress(AttributeError):
        ask = ctypes.CDLL(None).mallinfo2
        ask.restype = _MallocInfo
        info = ask()
        return int(info.uordblks + info.hblkhd) // 1024
    return None


class Watch:
    """A sink that draws every frame, and reads what the process holds now and then; ends the run in time."""

    def __init__(self, *, seconds: float, every_s: float) -> None:
        self.readings: list[Reading] = []
        self._seconds, self._every_s = seconds, every_s
        self._frames = 0
        self._start_s = time.monotonic()

    def deliver(self, frame: Frame, result: Result, annotated: Annotated) -> None:
        """Count, draw, read."""
        assert annotated.picture.shape == frame.image.shape
        self._frames += 1
        at_s = time.monotonic() - self._start_s
        if at_s >= len(self.readings) * self._every_s:
            self.readings.append(self._read(at_s))
        if at_s >= self._seconds:
            raise EndOfRun("it was long enough")

    def _read(self, at_s: float) -> Reading:
        resident_pages = int(Path("/proc/self/statm").read_text().split()[1])
        return Reading(
            at_s=round(at_s, 3),
            frames=self._frames,
            rss_kb=resident_pages * os.sysconf("SC_PAGESIZE") // 1024,
            threads=threading.active_count(),
            descriptors=len(os.listdir("/proc/self/fd")),
            cpu_s=round(time.process_time(), 3),
            allocated_kb=allocated_kb(),
            python_blocks=sys.getallocatedblocks(),
        )

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *error: object) -> None: ...


class Scraper(threading.Thread):
    """Fetches the metrics every two seconds, as Prometheus would."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.fetched = 0
        self.over = threading.Event()
        self._url = f"http://127.0.0.1:{port}/metrics"

    def run(self) -> None:
        """Until it is over."""
        while not self.over.wait(2):
            # the run may end while it is being asked
            with contextlib.suppress(OSError), urllib.request.urlopen(self._url, timeout=30) as answer:
                self.fetched += b"edgecnn_frames_total" in answer.read()


def growth_mb_per_h(readings: list[Reading]) -> dict[str, float]:
    """Slope of the resident memory: the median of all pairs' slopes (Theil and Sen), and the pairs' quartiles.

    Of the most that is held in each twelfth of the run: single readings jump by a frame (0.9 MB at 640x480),
    as one more or less is under way.
    """
    twelfths = [part for part in np.array_split(np.arange(len(readings)), 12) if len(part)]
    at_h = np.array([np.mean([readings[i].at_s for i in part]) for part in twelfths]) / 3600
    mb = np.array([max(readings[i].rss_kb for i in part) for part in twelfths]) / 1024
    first, second = np.triu_indices(len(twelfths), k=max(len(twelfths) // 4, 1))
    slopes = (mb[second] - mb[first]) / (at_h[second] - at_h[first])
    low, high = np.percentile(slopes, (25, 75)).tolist()
    return {"value": round(float(np.median(slopes)), 3), "low": round(low, 3), "high": round(high, 3)}


def thirds(readings: list[Reading]) -> dict[str, Any]:
    """Rate and processor time per frame in the first and the last third."""
    third = max(len(readings) // 3, 1)

    def of(part: list[Reading]) -> tuple[float, float]:
        frames = part[-1].frames - part[0].frames
        return frames / (part[-1].at_s - part[0].at_s), (part[-1].cpu_s - part[0].cpu_s) / frames * 1e3

    (fps_first, cpu_first), (fps_last, cpu_last) = of(readings[: third + 1]), of(readings[-third - 1 :])
    return {
        "fps_thirds": [round(fps_first, 2), round(fps_last, 2)],
        "cpu_ms_per_frame": [round(cpu_first, 3), round(cpu_last, 3)],
        "cpu_of_first": round(cpu_last / cpu_first, 4),
    }


def _drift(values: list[float] | list[int]) -> float | None:
    half = len(values) // 2
    return round(min(values[half:]) - min(values[:half]), 3) if half else None


def judge(readings: list[Reading]) -> dict[str, Any]:
    """Figures after the warm-up, and whether they are flat."""
    growth, parts = growth_mb_per_h(readings), thirds(readings)
    spans = {name: sorted({getattr(r, name) for r in readings}) for name in ("threads", "descriptors")}
    settled = {name: (values[0], values[-1]) for name, values in spans.items()}
    rss_mb = [r.rss_kb / 1024 for r in readings]
    # In a short run, resident memory cannot tell a megabyte an hour from noise: buffers of a frame's size come and go.
    # What leaks raises the least that is allocated.
    allocated_mb = [r.allocated_kb / 1024 for r in readings if r.allocated_kb is not None]
    blocks = [r.python_blocks for r in readings if r.python_blocks is not None]
    more_mb, more_blocks = _drift(allocated_mb), _drift(blocks)
    fps_first, fps_last = parts["fps_thirds"]
    flat = {
        "memory": growth["value"] < GROWTH_LIMIT_MB_PER_H
        or (more_mb is not None and more_mb < GROWTH_LIMIT_MB_PER_H / 2),
        # a scrape that is being answered has a thread and two descriptors
        "threads": settled["threads"][1] - settled["threads"][0] <= 1,
        "descriptors": settled["descriptors"][1] - settled["descriptors"][0] <= 3,
        "rate": parts["cpu_of_first"] < 1 + DECAY_LIMIT or fps_last > fps_first * (1 - DECAY_LIMIT),
    }
    return {
        "growth_mb_per_h": growth,
        "second_half_less_first_mb": more_mb,
        "second_half_less_first_python_blocks": more_blocks,
        "rss_mb": [round(min(rss_mb), 2), round(max(rss_mb), 2)],
        **settled,
        **parts,
        "flat": flat,
    }


def soak(bundle: str, *, minutes: float, warmup_s: float, every_s: float) -> dict[str, Any]:
    """Run, read, judge."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    watch, scraper = Watch(seconds=minutes * 60, every_s=every_s), Scraper(port)
    command = [sys.executable, str(HERE / "clock_stream.py"), "--fps", str(STREAM_FPS)]
    ran: dict[str, str] = {}

    def begin(start: RunStart) -> None:
        used = start.runner.backend.opened
        ran.update(format=start.runner.format, precision=start.runner.precision, runtime=used.runtime)
        scraper.start()

    before = read_core_times()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            url = server.stdout.readline().strip()
            summary = run(bundle, url, track=True, jsonl=os.devnull, metrics=port, sinks=[watch], on_start=begin)
        finally:
            scraper.over.set()
            server.kill()
    others, _ = others_share(before, read_core_times(), own_cpu_s=time.process_time())
    kept = [reading for reading in watch.readings if reading.at_s >= warmup_s]
    return {
        "machine": msgspec.to_builtins(describe_machine()),
        "bundle": Path(bundle).name,
        "ran": ran,
        "minutes": round(watch.readings[-1].at_s / 60, 2),
        "warmup_s": warmup_s,
        "frames": summary.frames,
        "fps": round(summary.fps, 2),
        "dropped": summary.dropped,
        "faults": summary.faults,
        "metrics_fetched": scraper.fetched,
        "others_busy_cores": others,
        **judge(kept),
        "readings": [asdict(reading) for reading in watch.readings],
    }


def main() -> int:
    """Soak, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--bundle", default="default-detector")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--warmup-s", type=float, default=120.0)
    parser.add_argument("--every-s", type=float, default=5.0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--judge", action="store_true", help="only judge the readings in --out again")
    asked = parser.parse_args()
    if asked.judge:
        result = json.loads(asked.out.read_text(encoding="utf-8"))
        result |= judge([Reading(**r) for r in result["readings"] if r["at_s"] >= result["warmup_s"]])
    else:
        result = soak(asked.bundle, minutes=asked.minutes, warmup_s=asked.warmup_s, every_s=asked.every_s)
    print(json.dumps({name: value for name, value in result.items() if name not in ("machine", "readings")}, indent=1))
    asked.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0 if all(result["flat"].values()) and not result["faults"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
