"""A camera that goes away and returns, 50 times: python -m benchmarks.reconnect [--times 50] [--transport tcp].

An RTSP server whose every picture holds the time it was made at is killed at a random moment, stays away for a random
while, and returns in another size. Measured from the moment it says that it accepts connections again: when the first
picture made after that is handed over. Every frame that is delivered must be whole and not older than the one before;
threads and descriptors must be as many in the end as before. Results go to `results/reconnect.json`; exit code 1 where
a limit is exceeded.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

import edgecnn
from edgecnn.measure.machine import describe_machine
from edgecnn.runners.live.cameras.capture_spec import RtspTransport
from edgecnn.runners.live.frame import Frame
from tests.runners.live.bar_code import read_ms
from tests.runners.live.rtsp_process import NEEDS, RtspServer, rtsp_is_here

RESULTS = Path(__file__).resolve().parent / "results" / "reconnect.json"
SIZES = ("640x480", "320x240", "1280x720")
LIMIT_S = 2.0
LONGEST_LIFE_S, LONGEST_ABSENCE_S = 1.5, 3.0


class Watched:
    """What came out of a camera so far."""

    def __init__(self) -> None:
        self.frames = 0
        self.invented = 0
        self.newest_ms = 0

    def look(self, frame: Frame) -> None:
        """Read the time in a frame."""
        self.frames += 1
        drawn_ms = read_ms(frame.image)
        if drawn_ms is None or drawn_ms < self.newest_ms:
            self.invented += 1
        else:
            self.newest_ms = drawn_ms


def threads_and_descriptors() -> tuple[int, int]:
    """Of this process."""
    gc.collect()
    return threading.active_count(), len(os.listdir("/proc/self/fd"))


def settled(enough: Callable[[], bool]) -> bool:
    """Whether it comes to that within ten seconds."""
    end_s = time.monotonic() + 10
    while not enough() and time.monotonic() < end_s:
        time.sleep(0.05)
    return enough()


def restarts(times: int, transport: RtspTransport, seed: int) -> dict[str, Any]:
    """Kill and start the server so many times, and watch."""
    chance = random.Random(seed)
    watched, returns_s, starts_s = Watched(), list[float](), list[float]()
    states: list[str] = []
    with RtspServer(transport=transport) as server:
        with edgecnn.open_camera(
            server.url(), rtsp_transport=transport
        ) as camera:  # what OpenCV keeps for the process is there after this
            next(iter(camera))
        before = threads_and_descriptors()
        note_state = states.append
        with edgecnn.open_camera(
            server.url(), rtsp_transport=transport, on_state=lambda state, _: note_state(state)
        ) as camera:
            for turn in range(times):
                end_s = time.monotonic() + chance.uniform(0, LONGEST_LIFE_S)
                while time.monotonic() < end_s:
                    watched.look(next(iter(camera)))
                server.kill()
                time.sleep(chance.uniform(0, LONGEST_ABSENCE_S))
                server.words["size"] = size = SIZES[(turn + 1) % len(SIZES)]
                server.start()
                starts_s.append(server.start_s)
                while True:
                    frame = next(iter(camera))
                    watched.look(frame)
                    if watched.newest_ms > server.accepted_s * 1000:
                        break
                returns_s.append(time.monotonic() - server.accepted_s)
                assert "{1}x{0}".format(*frame.image.shape[:2]) == size
                print(f"{turn + 1}: {returns_s[-1]:.2f} s", flush=True)
        as_before = settled(lambda: threads_and_descriptors() <= before)
        after = threads_and_descriptors()
    return {
        "transport": transport,
        "times": times,
        "seconds_from_return_to_frame": {
            "largest": round(max(returns_s), 3),
            "median": round(float(np.median(returns_s)), 3),
            "all": [round(seconds, 3) for seconds in returns_s],
        },
        "server_start_median_s": round(float(np.median(starts_s)), 3),
        "frames": watched.frames,
        "invented_or_older": watched.invented,
        "threads_and_descriptors": {"before": before, "after": after},
        "states": {state: states.count(state) for state in sorted(set(states))},
        "within_limits": max(returns_s) <= LIMIT_S and watched.invented == 0 and as_before,
    }


def main() -> int:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--times", type=int, default=50)
    parser.add_argument("--transport", choices=("tcp", "udp"), nargs="+", default=["tcp", "udp"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args()
    if not rtsp_is_here():
        print(NEEDS)
        return 3
    runs = [restarts(asked.times, transport, asked.seed) for transport in asked.transport]
    result = {"limit_s": LIMIT_S, "runs": runs, "machine": msgspec.to_builtins(describe_machine())}
    asked.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps([{**run, "seconds_from_return_to_frame": None} for run in runs]))
    return 0 if all(run["within_limits"] for run in runs) else 1


if __name__ == "__main__":
    raise SystemExit(main())
