"""Sixty kinds of video file, pixel by pixel: python -m benchmarks.video_input.

Each file is made by the program ffmpeg, read by `open_camera`, and decoded by ffmpeg alone, once more. A file passes
where all frames are the same (within two levels of 255, as two versions of one converter round), or where it is
refused or said to be damaged. It is read twice: as where ffmpeg is installed, and as where OpenCV is alone. Results go
to `results/video_input.json`; exit code 1 where a file gives other pictures without a word.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec
import numpy as np

from edgecnn.errors import EdgeCnnError
from edgecnn.measure.machine import describe_machine
from edgecnn.results import UInt8Array
from edgecnn.runners.live.cameras import files
from edgecnn.runners.live.cameras.camera import open_camera
from tests.runners.live.video_kinds import KINDS, Kind, make

RESULTS = Path(__file__).resolve().parent / "results" / "video_input.json"
TABLE = Path(__file__).resolve().parent.parent / "docs" / "video-files.md"
LEVELS = 2
CLOSE_MEAN_LEVELS = 5.0  # colour of ten bits: FFmpeg 8, which OpenCV has, interpolates it otherwise than FFmpeg 5


def decoded(path: Path) -> list[UInt8Array]:
    """Every frame, uint8 [height, width, 3] BGR, by ffmpeg alone, as files that know their own sizes."""
    words = ["ffmpeg", "-v", "quiet", "-nostdin", "-i", str(path), "-fps_mode", "passthrough", "-autoscale", "0"]
    words += ["-f", "image2pipe", "-c:v", "bmp", "-pix_fmt", "bgr24", "-"]
    return list(_pictures(subprocess.run(words, capture_output=True, check=False).stdout))


def _pictures(data: bytes) -> Iterator[UInt8Array]:
    """Bitmaps, one after the other."""
    at = 0
    while at < len(data):
        size, begin, width, height = (int.from_bytes(data[at + i : at + i + 4], "little") for i in (2, 10, 18, 22))
        rows = np.frombuffer(data[at + begin : at + size], np.uint8).reshape(height, -1)
        yield rows[::-1, : 3 * width].reshape(height, width, 3)
        at += size


def compared(path: Path) -> dict[str, Any]:
    """What our reader does with a file: "same", "close", "different", "damaged" (as it says itself) or "refused"."""
    images = []
    try:
        with open_camera(path) as camera:
            images = [frame.image for frame in camera]
            damaged, remark = bool(getattr(camera, "unreadable", ())), camera.remark
    except EdgeCnnError as refused:
        return {"outcome": "refused", "frames": len(images), "why": str(refused).replace(str(path.parent) + "/", "")}
    wanted = decoded(path)
    differences = [_difference(one, other) for one, other in zip(images, wanted, strict=False)]
    worst = max((int(each.max()) for each in differences), default=0)
    mean = max((float(each.mean()) for each in differences), default=0.0)
    same = len(images) == len(wanted) and worst <= LEVELS
    close = len(images) == len(wanted) and mean <= CLOSE_MEAN_LEVELS
    outcome = "damaged" if damaged else "same" if same else "close" if close else "different"
    reason = {"why": remark.replace(str(path.parent) + "/", "")} if remark else {}
    return {
        "outcome": outcome,
        "frames": len(images),
        "wanted": len(wanted),
        "levels": worst,
        "mean_levels": round(mean, 2),
        **reason,
    }


def _difference(one: UInt8Array, other: UInt8Array) -> UInt8Array:
    if one.shape != other.shape:
        return np.full(1, 255, np.uint8)
    difference: UInt8Array = np.abs(one.astype(np.int16) - other).astype(np.uint8)
    return difference


def read_both_ways(kind: Kind, folder: Path) -> dict[str, Any]:
    """As where ffmpeg is installed, and as where OpenCV is alone."""
    path = make(kind, folder)
    row: dict[str, Any] = {"file": kind.name, "ffmpeg": compared(path)}
    with mock.patch.object(files, "ffmpeg_is_here", return_value=False):
        row["opencv"] = compared(path)
    return row


def main() -> int:
    """Make, read, compare; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="kinds whose names hold this")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for kind in KINDS:
            if arguments.only and arguments.only not in kind.name:
                continue
            row = read_both_ways(kind, Path(folder))
            rows.append(row)
            print(f"{kind.name:32} {_words(row['ffmpeg']):44} | {_words(row['opencv'])}"[:200], flush=True)
    wrong = [row["file"] for row in rows for way in ("ffmpeg", "opencv") if row[way]["outcome"] == "different"]
    if not arguments.only:
        outcomes = {
            way: {
                outcome: sum(row[way]["outcome"] == outcome for row in rows)
                for outcome in ("same", "close", "damaged", "refused", "different")
            }
            for way in ("ffmpeg", "opencv")
        }
        machine = msgspec.to_builtins(describe_machine())
        TABLE.write_text(_table(rows, outcomes))
        RESULTS.write_text(json.dumps({"machine": machine, "outcomes": outcomes, "files": rows}, indent=1) + "\n")
    print("different:", ", ".join(wrong) or "none")
    return 1 if wrong else 0


def _table(rows: Sequence[dict[str, Any]], outcomes: dict[str, dict[str, int]]) -> str:
    """What is in docs/."""
    sums = "; ".join(
        f"{name}: " + ", ".join(f"{count} {outcome}" for outcome, count in outcomes[way].items() if count)
        for way, name in (("ffmpeg", "with ffmpeg"), ("opencv", "OpenCV alone"))
    )
    lines = [
        "# Video files that are read correctly",
        "",
        "<!-- generated by benchmarks/video_input.py from benchmarks/results/video_input.json -->",
        "",
        f"`python -m benchmarks.video_input` makes {len(rows)} files, reads each with `open_camera`, and compares",
        "every pixel with the output of the program ffmpeg. *Same*: all frames, within two levels of 255. *Close*:",
        "ten-bit colour, which FFmpeg 8 (in OpenCV) interpolates differently than FFmpeg 5. *Damaged*: reported as",
        "damaged, exit code 1. *Refused*: an error.",
        "",
        f"{sums[:1].upper()}{sums[1:]}.",
        "",
        "| file | frames | with ffmpeg | OpenCV alone |",
        "| --- | --- | --- | --- |",
    ]
    for row in rows:
        frames = row["ffmpeg"].get("wanted", "")
        lines.append(f"| {row['file']} | {frames} | {row['ffmpeg']['outcome']} | {row['opencv']['outcome']} |")
    return "\n".join(lines) + "\n"


def _words(result: dict[str, Any]) -> str:
    return " ".join(str(result[key]) for key in ("outcome", "frames", "wanted", "levels", "why") if key in result)


if __name__ == "__main__":
    sys.exit(main())
