"""JSON lines: one object a frame, flushed at once, for programs that read along."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self, TypeAlias

import msgspec
import numpy as np

from edgecnn import rle
from edgecnn.results import Classification, Count, Detections, Instances, LineCount, Result
from edgecnn.runners.live.frames import Frame
from edgecnn.runners.live.sinks import Annotated, EndOfRun, storage_error

Record: TypeAlias = dict[str, Any]


class JsonLinesSink:
    """Writes records to a file, or to stdout.

    Args:
        path: a file, which is replaced, or a pipe; "-" is stdout.

    Raises:
        StorageError: it can't be opened.
    """

    def __init__(self, path: str | Path) -> None:
        self._to_stdout = str(path) == "-"
        self._path = Path("stdout" if self._to_stdout else path)
        self._encoder = msgspec.json.Encoder()
        self._buffer = bytearray()
        try:
            self._file: BinaryIO = sys.stdout.buffer if self._to_stdout else self._path.open("wb")
        except OSError as failed:
            raise storage_error(self._path, failed) from failed

    def deliver(self, frame: Frame, result: Result, annotated: Annotated) -> None:
        """Write one line."""
        self._encoder.encode_into(record_of(frame, result), self._buffer)
        self._buffer += b"\n"
        try:
            self._file.write(self._buffer)
            self._file.flush()
        except BrokenPipeError:
            if self._to_stdout:  # Python flushes stdout again at exit, and would complain
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise EndOfRun("the reader has gone") from None
        except OSError as failed:
            raise storage_error(self._path, failed) from failed

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._to_stdout:
            return
        try:
            self._file.close()
        except BrokenPipeError:
            pass  # what was not read when the reader went
        except OSError as failed:
            raise storage_error(self._path, failed) from failed


def record_of(frame: Frame, result: Result) -> Record:
    """What is written of one frame; boxes in source pixels, to 0.01 px, scores to 1e-6."""
    counts: tuple[Count, ...] = ()
    record: Record = {
        "frame": frame.index,
        "captured_ns": frame.captured_ns,
        "captured_unix_ns": frame.captured_unix_ns,
        "age_ms": round(frame.age_ns / 1e6, 3),
        "source": frame.source,
        "size": [frame.image.shape[1], frame.image.shape[0]],
    }
    if isinstance(result, Classification):
        record["task"] = "classify"
        record["classes"] = [{"label": label, "score": round(score, 6)} for label, score in result]
    elif isinstance(result, Detections):
        record["task"] = "detect"
        record["detections"] = _detections(result)
        counts = result.counts
    elif isinstance(result, Instances):
        record["task"] = "instances"
        found = _detections(result.detections)
        for detection, mask in zip(found, result.masks, strict=True):
            detection["rle"] = rle.encode(mask)
        record["detections"] = found
        counts = result.detections.counts
    else:
        record["task"] = "segment"
        masks = rle.encode_classes(result.classes)
        areas_px = {class_id: rle.area_px(mask) for class_id, mask in masks.items()}
        record["segments"] = [
            {
                "label": result.labels[class_id],
                "rle": masks[class_id],
                "share": round(areas_px[class_id] / result.classes.size, 6),
            }
            for class_id in sorted(masks, key=lambda i: -areas_px[i])
        ]
    if counts:
        record["counts"] = records_of_counts(counts)
    return record


def records_of_counts(counts: Sequence[Count]) -> list[Record]:
    """What is written of lines and zones: figures by label."""
    return [
        {"line": count.name, "in": dict(count.in_by_class), "out": dict(count.out_by_class)}
        if isinstance(count, LineCount)
        else {
            "zone": count.name,
            "inside": dict(count.inside_by_class),
            "entered": dict(count.entered_by_class),
            "most_inside": count.most_inside,
        }
        for count in counts
    ]


def _detections(found: Detections) -> list[Record]:
    boxes = np.round(found.boxes_xyxy_px.astype(np.float64), 2).tolist()
    ids = [-1] * len(found) if found.track_ids is None else found.track_ids.tolist()
    tracks = [None if track_id < 0 else track_id for track_id in ids]
    return [
        {"label": found.labels[class_id], "score": round(score, 6), "box": box, "track_id": track}
        for class_id, score, box, track in zip(
            found.class_ids.tolist(), found.scores.tolist(), boxes, tracks, strict=True
        )
    ]
