"""How often does an object's id change when frames are missing?

Usage: python benchmarks/tracking.py
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import msgspec
import numpy as np

from edgecnn import Detections, Tracker
from edgecnn.measure.machine import describe_machine

OUT = Path(__file__).parent / "results" / "tracking.json"
OBJECTS, FRAMES, SCENES, FPS = 12, 200, 6, 25.0
WIDTH_PX, HEIGHT_PX = 768, 576


def scene(seed: int) -> Iterator[tuple[Detections, list[int]]]:
    """Objects that walk, bounce, tremble, are missed and hide: what a network would find, and which each is."""
    numbers = np.random.default_rng(seed)
    size = np.array([WIDTH_PX, HEIGHT_PX])
    places = numbers.uniform([50, 50], size - 50, (OBJECTS, 2))
    speeds = numbers.uniform(-4, 4, (OBJECTS, 2))
    sizes = numbers.uniform([20, 50], [40, 100], (OBJECTS, 2))
    hidden = np.zeros(OBJECTS, int)
    for _ in range(FRAMES):
        places = places + speeds
        speeds = np.where((places < 20) | (places > size - 20), -speeds, speeds)
        hides = np.where(numbers.random(OBJECTS) < 0.01, numbers.integers(3, 12, OBJECTS), 0)
        hidden = np.where(hidden > 0, hidden - 1, hides)
        scores = numbers.normal(0.65, 0.2, OBJECTS).clip(0.12, 0.95)
        seen = np.flatnonzero((hidden == 0) & (numbers.random(OBJECTS) > 0.1))
        seen = seen[np.argsort(-scores[seen])]
        boxes = np.concatenate([places - sizes / 2, places + sizes / 2], 1) + numbers.normal(0, 2, (OBJECTS, 4))
        found = Detections(
            boxes[seen].astype(np.float32), scores[seen].astype(np.float32), np.zeros(len(seen), np.int64), ("person",)
        )
        yield found, seen.tolist()


def switches(seed: int, one_of: int) -> int:
    """How often an object's id differs from its last, in a scene of which one of so many frames arrives."""
    arrives = np.random.default_rng(seed)
    tracker = Tracker(fps=FPS)
    last: dict[int, int] = {}
    switched = 0
    for index, (found, objects) in enumerate(scene(seed)):
        if one_of > 1 and arrives.random() >= 1 / one_of:
            continue
        ids = tracker(found, captured_ns=round(index * 1e9 / FPS)).track_ids
        assert ids is not None
        for which, track_id in zip(objects, ids.tolist(), strict=True):
            if track_id >= 0:
                switched += last.get(which, track_id) != track_id
                last[which] = track_id
    return switched


def main() -> None:
    """Write switches a scene by how many frames arrive, and the time of a frame."""
    results = {f"1 of {n}": round(sum(switches(s, n) for s in range(SCENES)) / SCENES, 2) for n in (1, 2, 3, 5)}
    frames = list(scene(0))
    tracker = Tracker(fps=FPS)
    start = time.perf_counter()
    for found, _ in frames:
        tracker(found)
    frame_ms = (time.perf_counter() - start) / len(frames) * 1e3
    result = {
        "tracker": f"edgefirst-tracker {version('edgefirst-tracker')}",
        "machine": msgspec.to_builtins(describe_machine()),
        "switches_a_scene": results,
        "frame_ms": round(frame_ms, 3),
    }
    text = json.dumps(result, indent=1)
    print(text)
    OUT.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
