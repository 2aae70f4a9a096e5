"""Does a site stay as it began? python -m benchmarks.site_soak [--minutes 60]

A site of one camera runs as a service would: page, metrics, Home Assistant over a real mosquitto, events within limits,
JSON lines and a recording that rotate. As it goes, the page's status and events, and the metrics, are fetched, and the
file is read again (SIGHUP) every five minutes. What the process holds is read from outside: resident memory, threads,
descriptors, processor time, frames, and the size of all that it keeps on disk.

Results go to `results/site_soak.json`; exit code 1 where something is not flat.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import tempfile
import time
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from benchmarks.soak import GROWTH_LIMIT_MB_PER_H
from benchmarks.visited_site import broker, free_port, start_site, visitor_stream, write_site
from edgecnn.measure.machine import describe_machine

RESULTS = Path(__file__).resolve().parent / "results" / "site_soak.json"
RELOAD_S = 300.0
_START_LIMIT_S = 180.0


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What the process held at one moment, and what lay on the disk."""

    at_s: float
    frames: int
    rss_kb: int
    threads: int
    descriptors: int
    cpu_s: float
    events: int
    disk_mb: float


def asked(port: int, path: str) -> bytes:
    """An answer of the site; b"" where none came."""
    with (
        contextlib.suppress(OSError),
        urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer,
    ):
        content: bytes = answer.read()
        return content
    return b""


def bytes_in(folder: Path) -> int:
    """What lies in a folder; what goes while we look is left out."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += Path(place, name).stat().st_size
    return total


def read(process: subprocess.Popen[bytes], folder: Path, web: int, at_s: float) -> Reading:
    """One reading."""
    place = Path(f"/proc/{process.pid}")
    fields = (place / "stat").read_text().rpartition(")")[2].split()
    pages = int((place / "statm").read_text().split()[1])
    status = json.loads(asked(web, "/status?since=999999") or b"{}")
    return Reading(
        at_s=round(at_s, 1),
        frames=status.get("frames", -1),
        rss_kb=pages * os.sysconf("SC_PAGESIZE") // 1024,
        threads=len(os.listdir(place / "task")),
        descriptors=len(os.listdir(place / "fd")),
        cpu_s=(int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"),
        events=len(list((folder / "events").glob("2*"))),
        disk_mb=round(bytes_in(folder) / 1e6, 2),
    )


def judge(readings: list[Reading]) -> dict[str, Any]:
    """Figures after the warm-up, and whether they are flat.

    What an event needs while it lasts (a file, an encoder, its threads) comes and goes: the least of each third counts.
    Resident memory is that of the most in each twelfth, by Theil and Sen.
    """
    thirds = [readings[i[0] : i[-1] + 1] for i in np.array_split(np.arange(len(readings)), 3)]
    least = {name: [min(getattr(r, name) for r in part) for part in thirds] for name in ("threads", "descriptors")}
    twelfths = np.array_split(np.arange(len(readings)), 12)
    at_h = np.array([np.mean([readings[i].at_s for i in part]) for part in twelfths]) / 3600
    mb = np.array([max(readings[i].rss_kb for i in part) for part in twelfths]) / 1024
    first, second = np.triu_indices(12, k=3)
    growth = np.median((mb[second] - mb[first]) / (at_h[second] - at_h[first]))
    cpu_ms = [1e3 * (p[-1].cpu_s - p[0].cpu_s) / max(1, p[-1].frames - p[0].frames) for p in (thirds[0], thirds[-1])]
    return {
        "growth_mb_per_h": round(float(growth), 3),
        "rss_mb": [round(float(mb.min()), 1), round(float(mb.max()), 1)],
        **{f"least_{name}": values for name, values in least.items()},
        "cpu_ms_per_frame": [round(value, 2) for value in cpu_ms],
        "most_disk_mb": max(r.disk_mb for r in readings),
        "flat": {
            "memory": bool(growth < GROWTH_LIMIT_MB_PER_H),
            "threads": least["threads"][-1] <= least["threads"][0],
            "descriptors": least["descriptors"][-1] <= least["descriptors"][0],
        },
    }


def soak(minutes: float, *, fps: float, warmup_s: float, every_s: float) -> dict[str, Any]:
    """Run, read, judge."""
    with contextlib.ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="edgecnn-soak-")))
        mqtt = opened.enter_context(broker(folder))
        url = opened.enter_context(visitor_stream(fps))
        web, metrics = free_port(), free_port()
        path = write_site(folder, url=url, web=web, metrics=metrics, mqtt=mqtt)
        process = start_site(path, folder / "log.jsonl")
        opened.callback(process.kill)
        end_s = time.monotonic() + _START_LIMIT_S
        while b'"live"' not in asked(web, "/status"):
            if process.poll() is not None or time.monotonic() > end_s:
                raise RuntimeError((folder / "log.jsonl").read_text()[-2000:])
            time.sleep(0.2)
        readings: list[Reading] = []
        start_s, fetched, reloads = time.monotonic(), 0, 0
        while (at_s := time.monotonic() - start_s) < minutes * 60:
            readings.append(read(process, folder, web, at_s))
            fetched += b"edgecnn_frames_total" in asked(metrics, "/metrics")
            fetched += b'"kept":true' in asked(web, "/events")
            if at_s >= (reloads + 1) * RELOAD_S:
                process.send_signal(signal.SIGHUP)
                reloads += 1
            time.sleep(every_s)
        process.send_signal(signal.SIGTERM)
        code = process.wait(30)
        log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines() if line.startswith("{")]
    kept = [reading for reading in readings if reading.at_s >= warmup_s]
    return {
        "machine": msgspec.to_builtins(describe_machine()),
        "minutes": round(readings[-1].at_s / 60, 2),
        "stream_fps": fps,
        "warmup_s": warmup_s,
        "frames": readings[-1].frames,
        "events_kept": readings[-1].events,
        "answers_fetched": fetched,
        "reloads": [reloads, sum("reloaded:" in line["message"] for line in log)],
        "errors": [line["message"] for line in log if line["level"] == "error"],
        "exit_code": code,
        **judge(kept),
        "readings": [asdict(reading) for reading in readings],
    }


def main() -> int:
    """Soak, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--fps", type=float, default=5.0)
    parser.add_argument("--warmup-s", type=float, default=300.0)
    parser.add_argument("--every-s", type=float, default=10.0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    chosen = parser.parse_args()
    result = soak(chosen.minutes, fps=chosen.fps, warmup_s=chosen.warmup_s, every_s=chosen.every_s)
    print(json.dumps({name: value for name, value in result.items() if name not in ("machine", "readings")}, indent=1))
    chosen.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0 if all(result["flat"].values()) and not result["errors"] and result["exit_code"] == 143 else 1


if __name__ == "__main__":
    raise SystemExit(main())
