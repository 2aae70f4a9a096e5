"""A hundred runs that are ended while they record: python -m benchmarks.kills [--times 100].

`edgecnn run default-detector` watches a stream whose every picture says when it was made, records it and writes JSON
lines, beside a recording of yesterday with the same name. It is ended at a random moment by SIGKILL or SIGTERM. Before,
its file is copied at random moments: that is what a power cut leaves of it. Some runs write to a disk that fills up.
Afterwards each file must give frames up to two seconds before the newest JSON line, yesterday's recording must be as
it was, nothing hidden may be left, every JSON line must be whole after the next run has begun, and SIGTERM must end
it with code 143. Every other run has no ffmpeg: OpenCV encodes. Results go to `results/kills.json`; exit code 1 where
something was lost.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.clock_stream import stamped_ms
from edgecnn.errors import EdgeCnnError
from edgecnn.measure.machine import describe_machine
from edgecnn.runners.live.cameras.camera import open_camera
from edgecnn.runners.live.sinks.text_file import LineFile

RESULTS = Path(__file__).resolve().parent / "results" / "kills.json"
LOSS_LIMIT_S = 2.0
SUFFIXES = (".mp4", ".mkv", ".avi", ".mov")
YESTERDAY = b"yesterday's recording"
_START_LIMIT_S = 120.0
_DISK_BYTES = 4 << 20


@contextlib.contextmanager
def clock_stream(fps: int) -> Iterator[str]:
    """The address of a stream of clocks."""
    script = Path(__file__).parent / "clock_stream.py"
    words = [sys.executable, str(script), "--fps", str(fps)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield server.stdout.readline().strip()
        finally:
            server.kill()


def started(url: str, path: Path, *, ffmpeg: bool) -> subprocess.Popen[bytes]:
    """A run that records, after its first frame is in the file."""
    environment = dict(os.environ)
    if not ffmpeg:
        environment["PATH"] = str(Path(sys.executable).parent)
    words = ["run", "default-detector", "--camera", url, "--record", str(path)]
    words += ["--jsonl", str(path.with_suffix(".jsonl"))]
    process = subprocess.Popen(
        [sys.executable, "-m", "edgecnn", *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment
    )
    recording = recorded(path)
    end_s = time.monotonic() + _START_LIMIT_S
    while not recording.exists():
        if process.poll() is not None or time.monotonic() > end_s:
            process.kill()
            raise RuntimeError(f"it did not record: {process.communicate()[1].decode(errors='replace')[-2000:]}")
        time.sleep(0.02)
    return process


def recorded(path: Path) -> Path:
    """Where a recording goes, beside yesterday's."""
    return path.with_name(f"{path.stem}.2{path.suffix}")


def last_seen_ms(path: Path) -> tuple[int, int | None]:
    """How many frames a file gives, and the time in the last one."""
    count, last_ms = 0, None
    try:
        with open_camera(path) as camera:
            for frame in camera:
                count += 1
                last_ms = stamped_ms(frame.image)
    except EdgeCnnError:
        pass
    return count, last_ms


def newest_ns(lines: Path) -> int:
    """When the newest picture was taken whose result had been delivered, as the JSON lines say."""
    whole = lines.read_bytes().split(b"\n")[:-1]
    return int(json.loads(whole[-1])["captured_ns"]) if whole else 0


def loss_s(path: Path, delivered_ns: int) -> dict[str, Any]:
    """How much before the newest result that had been delivered a file ends."""
    frames, last_ms = last_seen_ms(path)
    loss = None if last_ms is None else max(0.0, round(delivered_ns / 1e9 - last_ms / 1e3, 2))
    return {"frames": frames, "loss_s": loss}


def one_run(
    url: str, folder: Path, number: int, rng: random.Random, *, full_disk: bool, limit_s: float
) -> dict[str, Any]:
    """Begin, copy, end, look."""
    suffix, how = SUFFIXES[number % len(SUFFIXES)], ("SIGKILL", "SIGTERM")[number // len(SUFFIXES) % 2]
    ffmpeg = number // (2 * len(SUFFIXES)) % 2 == 0
    path = folder / f"out{suffix}"
    path.write_bytes(YESTERDAY)
    process = started(url, path, ffmpeg=ffmpeg)
    copies = []
    for copy in range(2):
        time.sleep(rng.uniform(0.1, 2.5 if not full_disk else 4.0))
        newest = newest_ns(path.with_suffix(".jsonl"))
        target = Path(tempfile.gettempdir()) / f"edgecnn-kills-{os.getpid()}-{copy}{suffix}"
        shutil.copyfile(recorded(path), target)
        copies.append((target, newest))
    ended_ns = time.monotonic_ns()
    process.send_signal(getattr(signal, how))
    messages = process.communicate(timeout=60)[1].decode(errors="replace")
    took_s = (time.monotonic_ns() - ended_ns) / 1e9
    row: dict[str, Any] = {"file": suffix, "end": how, "encoder": "ffmpeg" if ffmpeg else "opencv"}
    row |= {"full_disk": full_disk, "exit_code": process.returncode, "end_s": round(took_s, 2)}
    LineFile(path.with_suffix(".jsonl")).close()  # as the next run does
    row |= loss_s(recorded(path), newest_ns(path.with_suffix(".jsonl")))
    row["power_cuts"] = [loss_s(target, newest) for target, newest in copies]
    for target, _ in copies:
        target.unlink()
    row["lines"] = sum(bool(json.loads(line)) for line in path.with_suffix(".jsonl").read_text().splitlines())
    row["yesterday_kept"] = path.read_bytes() == YESTERDAY
    row["left_behind"] = sorted(each.name for each in folder.iterdir() if each.name.startswith("."))
    row["wrong"] = wrong(row, limit_s)
    if row["wrong"]:
        row["said"] = messages[-600:]
    return row


def wrong(row: dict[str, Any], limit_s: float) -> list[str]:
    """What of a run is not as it must be."""
    found = []
    expected = {"SIGKILL": {-signal.SIGKILL}, "SIGTERM": {128 + signal.SIGTERM}}[row["end"]]
    if row["full_disk"]:  # when it was full isn't known: it must have frames
        expected |= {3}
        losses = [0.0 if each["frames"] else None for each in (row, *row["power_cuts"])]
    else:
        losses = [each["loss_s"] for each in (row, *row["power_cuts"])]
    if any(loss is None or loss > limit_s for loss in losses):
        found.append("lost")
    if row["exit_code"] not in expected:
        found.append("exit code")
    if not row["yesterday_kept"]:
        found.append("yesterday's recording")
    if row["left_behind"]:
        found.append("left behind")
    return found


@contextlib.contextmanager
def small_disk() -> Iterator[Path | None]:
    """A folder on a disk with little room; None where this user can't make one."""
    with tempfile.TemporaryDirectory() as folder:
        size = f"size={_DISK_BYTES}"
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", size, "none", folder], capture_output=True, check=False)
        if done.returncode:
            yield None
            return
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", folder], check=False)


def kills(
    times: int, *, full_disks: int, seed: int = 0, fps: int = 12, limit_s: float = LOSS_LIMIT_S
) -> list[dict[str, Any]]:
    """So many runs; the last of them on a disk that fills up."""
    rng, rows = random.Random(seed), []
    with clock_stream(fps) as url:
        for number in range(times + full_disks):
            full = number >= times
            with contextlib.ExitStack() as stack:
                folder: Path | None = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                if full:
                    folder = stack.enter_context(small_disk())
                    if folder is None:
                        continue
                    (folder / "filler").write_bytes(bytes(_DISK_BYTES - (1 << 20) - rng.randrange(100_000, 500_000)))
                assert folder is not None
                rows.append(one_run(url, folder, number, rng, full_disk=full, limit_s=limit_s))
            print(json.dumps(rows[-1]), flush=True)
    return rows


def main() -> int:
    """Kill, look, write; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--full-disks", type=int, default=8)
    arguments = parser.parse_args()
    return write_results(kills(arguments.times, full_disks=arguments.full_disks))


def write_results(rows: list[dict[str, Any]]) -> int:
    """Sum up; returns the exit code."""
    whole = [row for row in rows if not row["full_disk"]]
    ends = sorted(row["end_s"] for row in whole if row["end"] == "SIGTERM")
    losses = {how: [row["loss_s"] for row in whole if row["end"] == how] for how in ("SIGKILL", "SIGTERM")}
    losses["power cut"] = [cut["loss_s"] for row in whole for cut in row["power_cuts"]]
    known = {how: [value for value in each if value is not None] for how, each in losses.items()}
    summary = {
        "runs": {how: len(each) for how, each in losses.items()} | {"full disk": len(rows) - len(whole)},
        "wrong": sum(bool(row["wrong"]) for row in rows),
        "worst_loss_s": {how: max(each, default=None) for how, each in known.items()},
        "sigterm_end_s": {"median": ends[len(ends) // 2] if ends else None, "longest": ends[-1] if ends else None},
    }
    machine = msgspec.to_builtins(describe_machine())
    RESULTS.write_text(json.dumps({"machine": machine, "summary": summary, "runs": rows}, indent=1) + "\n")
    print(json.dumps(summary, indent=1))
    return 1 if summary["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
