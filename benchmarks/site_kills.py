"""A site whose power is cut, again and again: python -m benchmarks.site_kills [--times 30]

A site of one camera (page, Home Assistant over a real mosquitto, events, JSON lines, a recording) is started, and
killed with all of its processes (SIGKILL) at a random moment: while it starts, while an event lasts, or between two.
Then it is started again, as systemd would. Each time: every event that was there is still there, every event is whole
(its record, its picture, its clip), no line and no recording is lost that was there before, at most the last line is
halved and it is whole or gone after the next start, nothing half-written is left over after it, and the broker says
`offline` and then `online`. Results go to `results/site_kills.json`; exit code 1 where something was lost.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

from benchmarks.site_soak import asked
from benchmarks.visited_site import broker, free_port, start_site, visitor_stream, write_site
from edgecnn.measure.machine import describe_machine

RESULTS = Path(__file__).resolve().parent / "results" / "site_kills.json"
_START_LIMIT_S = 300.0


class Availability:
    """What the broker says of the camera, in order."""

    def __init__(self, port: int) -> None:
        self.said: list[str] = []
        self._changed = threading.Condition()
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        self._client.on_message = self._note
        self._client.on_connect = lambda client, *_: client.subscribe("home/door/status", 1)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def _note(self, client: paho.Client, data: object, message: paho.MQTTMessage) -> None:
        with self._changed:
            self.said.append(message.payload.decode())
            self._changed.notify_all()

    def wait_for(self, word: str) -> bool:
        """Whether it is the newest word within a minute."""
        with self._changed:
            return self._changed.wait_for(lambda: self.said[-1:] == [word], 60)


def frames_in(clip: Path) -> int:
    """How many frames a video gives."""
    video, count = cv2.VideoCapture(str(clip)), 0
    while video.read()[0]:
        count += 1
    return count


class History:
    """What lies in the folder, compared with what lay there before."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._whole: set[str] = set()
        self._recordings: dict[str, int] = {}
        self.wrong: list[str] = []
        self.lines = 0

    def check(self, *, restarted: bool) -> None:
        """Note everything that is missing or not whole."""
        events = self._folder / "events"
        there = {path.name for path in events.glob("2*")}
        self.wrong += [f"event {name} is gone" for name in self._whole - there]
        self.wrong += [f"event {name} is not whole" for name in there - self._whole if not _is_whole(events / name)]
        self._whole |= there
        lines = 0
        for file in self._folder.glob("door*.jsonl"):
            raw = file.read_bytes()
            whole = raw.split(b"\n")
            rest = whole.pop()
            lines += sum(_is_json(line) for line in whole)
            broken = sum(not _is_json(line) for line in whole) + bool(rest and restarted)
            if broken:
                self.wrong.append(f"{broken} lines of {file.name} are not whole")
        if lines < self.lines:
            self.wrong.append(f"{self.lines - lines} lines are gone")
        self.lines = lines
        recordings = {path.name: path.stat().st_size for path in self._folder.glob("door*.mp4")}
        self.wrong += [
            f"{name} is smaller than it was"
            for name, size in self._recordings.items()
            if recordings.get(name, 0) < size
        ]
        self._recordings |= recordings
        if restarted:
            left = [str(path) for path in self._folder.rglob(".*partial*")]
            own = [path for path in left if f"-{os.getpid()}" not in path]
            self.wrong += [f"{path} is left over" for path in own if not _is_of_now(path)]

    def check_recordings(self) -> int:
        """Whether every recording plays; returns how many frames they give."""
        counts = {path.name: frames_in(path) for path in sorted(self._folder.glob("door*.mp4"))}
        self.wrong += [f"{name} gives no frame" for name, count in counts.items() if not count]
        return sum(counts.values())

    @property
    def events(self) -> int:
        """How many events were seen."""
        return len(self._whole)


def _is_of_now(path: str) -> bool:
    """Whether it is of a process that runs."""
    number = path.rpartition("-")[2]
    return number.isdecimal() and Path(f"/proc/{number}").exists()


def _is_json(line: bytes) -> bool:
    with contextlib.suppress(ValueError):
        return isinstance(json.loads(line), dict)
    return False


def _is_whole(event: Path) -> bool:
    try:
        record = json.loads((event / "event.json").read_bytes())
        picture = cv2.imdecode(np.frombuffer((event / "best.jpg").read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    except (OSError, ValueError):
        return False
    return bool(record["objects"]) and picture is not None and frames_in(event / "clip.mp4") > 0


def started(folder: Path, path: Path, web: int) -> tuple[subprocess.Popen[bytes], float]:
    """A site, and how long it took until frames flowed."""
    start_s = time.monotonic()
    process = start_site(path, folder / "log.jsonl")
    while asked(web, "/readyz") != b"ok\n":
        if process.poll() is not None or time.monotonic() - start_s > _START_LIMIT_S:
            raise RuntimeError((folder / "log.jsonl").read_text()[-2000:])
        time.sleep(0.05)
    return process, time.monotonic() - start_s


def kills(times: int, *, fps: float, seed: int) -> dict[str, Any]:
    """Start, kill, look."""
    chance = random.Random(seed)
    with contextlib.ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="edgecnn-kills-")))
        mqtt = opened.enter_context(broker(folder))
        url = opened.enter_context(visitor_stream(fps))
        web = free_port()
        path = write_site(
            folder, url=url, web=web, metrics=free_port(), mqtt=mqtt, kept="7d,2GB", rotate="1d", keep=1000
        )
        availability, history = Availability(mqtt), History(folder)
        back_s, moments, said = [], [], 0
        for _ in range(times):
            early = chance.random() < 0.2
            if early:
                process = start_site(path, folder / "log.jsonl")
                moments.append("starting")
                time.sleep(chance.uniform(0.0, 5.0))
            else:
                process, took_s = started(folder, path, web)
                back_s.append(took_s)
                said += availability.wait_for("online")
                history.check(restarted=True)
                time.sleep(chance.uniform(0.0, 20.0))
                lasts = any((folder / "events").glob(".*partial*"))
                moments.append("during an event" if lasts else "between events")
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            said += early or availability.wait_for("offline")
            history.check(restarted=False)
        process, took_s = started(folder, path, web)
        back_s.append(took_s)
        history.check(restarted=True)
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)
        frames = history.check_recordings()
    expected = sum(2 if moment != "starting" else 1 for moment in moments)
    return {
        "machine": msgspec.to_builtins(describe_machine()),
        "seed": seed,
        "kills": {moment: moments.count(moment) for moment in sorted(set(moments))},
        "wrong": history.wrong,
        "events": history.events,
        "json_lines": history.lines,
        "recorded_frames": frames,
        "availability": {"right": said, "of": expected},
        "back_s": {"median": round(float(np.median(back_s)), 2), "longest": round(max(back_s), 2)},
    }


def main() -> int:
    """Kill, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--times", type=int, default=30)
    parser.add_argument("--fps", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=18)
    parser.add_argument("--out", type=Path, default=RESULTS)
    chosen = parser.parse_args()
    result = kills(chosen.times, fps=chosen.fps, seed=chosen.seed)
    print(json.dumps({name: value for name, value in result.items() if name != "machine"}, indent=1))
    chosen.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    right = result["availability"]
    return 0 if not result["wrong"] and right["right"] == right["of"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
