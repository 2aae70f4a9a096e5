"""What artifacts say of the photographs that ship: annotated stills, and a contact sheet of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np

from edgecnn._photographs import photographs
from edgecnn._staging import write_whole
from edgecnn.bundle import Artifact, Bundle
from edgecnn.errors import StorageError
from edgecnn.results import Detections, Result, SegmentationMap, UInt8Array
from edgecnn.runners.base import Runner, open_runner
from edgecnn.runners.live.frames import frame_now
from edgecnn.runners.live.sinks.jsonl import record_of

_PER_FRAME = ("frame", "captured_ns", "captured_unix_ns", "age_ms", "source")
_MOST_SAID = 3
_LEAST_SHARE = 0.005  # of a picture's pixels that are worth a word
_TILE_HEIGHT_PX = 220


class Still(msgspec.Struct, frozen=True, kw_only=True):
    """What one artifact says of one photograph.

    Attributes:
        photograph: its name.
        format, precision: what ran.
        picture: the annotated picture, relative to `demo.json`.
        says: the result in a few words.
        result: as `run --jsonl` prints it, without the times of the frame.
    """

    photograph: str
    format: str
    precision: str
    picture: str
    says: str
    result: dict[str, Any]


def take_stills(bundle: Bundle, artifact: Artifact, *, prefix: str, folder: Path, relative_to: Path) -> list[Still]:
    """Every photograph through one artifact; the annotated ones go to `folder`, named "PREFIX-…".

    Raises:
        MissingDependencyError, DeviceError: the artifact cannot run here.
        StorageError: disk full, or not writable.
    """
    stills = []
    with open_runner(bundle, format=artifact.format, precision=artifact.precision) as runner:
        for index, (name, image) in enumerate(photographs().items()):
            result = runner(image)
            target = folder / f"{prefix}-{name}-{artifact.format}-{artifact.precision}.jpg"
            write_picture(target, _drawn(runner, image, result))
            record = record_of(frame_now(image, index, name), result)
            stills.append(
                Still(
                    photograph=name,
                    format=artifact.format,
                    precision=artifact.precision,
                    picture=target.relative_to(relative_to).as_posix(),
                    says=in_few_words(record),
                    result={key: value for key, value in record.items() if key not in _PER_FRAME},
                )
            )
    return stills


def in_few_words(record: dict[str, Any]) -> str:
    """A record of `run --jsonl`: "person 0.93, tie 0.41", "cat 61 %", "nothing"; the best three of them."""
    if "segments" in record:
        said = [
            f"{segment['label']} {100 * segment['share']:.0f} %"
            for segment in record["segments"]
            if segment["label"].strip("_").lower() != "background" and segment["share"] >= _LEAST_SHARE
        ]
    else:
        found = record["detections"] if "detections" in record else record["classes"]
        said = [f"{each['label']} {each['score']:.2f}" for each in found]
    return ", ".join(said[:_MOST_SAID]) or "nothing"


def row_of_tiles(bundle: Bundle, artifact: Artifact) -> UInt8Array:
    """The photographs side by side, small, with what the artifact says of them in full.

    Returns:
        uint8 [220, width, 3] BGR.
    """
    tiles = []
    with open_runner(bundle, format=artifact.format, precision=artifact.precision) as runner:
        for image in photographs().values():
            size_px = (round(image.shape[1] * _TILE_HEIGHT_PX / image.shape[0]), _TILE_HEIGHT_PX)
            small = np.asarray(cv2.resize(image, size_px, interpolation=cv2.INTER_AREA), np.uint8)
            tiles.append(_drawn(runner, small, shrunk(runner(image), image, size_px)))
    return np.concatenate(tiles, axis=1)


def write_contact_sheet(target: Path, rows: Sequence[UInt8Array]) -> None:
    """Rows of tiles, one below the other, as one picture.

    Raises:
        StorageError: disk full, or not writable.
    """
    write_picture(target, np.concatenate(list(rows), axis=0), quality=80)


def shrunk(result: Result, image: UInt8Array, size_px: tuple[int, int]) -> Result:
    """A result as it is for the same picture at another size, (width, height) in px."""
    if isinstance(result, Detections):
        factor = np.array([size_px[0] / image.shape[1], size_px[1] / image.shape[0]] * 2, np.float32)
        return replace(result, boxes_xyxy_px=result.boxes_xyxy_px * factor)
    if isinstance(result, SegmentationMap):
        return replace(
            result,
            classes=np.asarray(cv2.resize(result.classes, size_px, interpolation=cv2.INTER_NEAREST), np.uint8),
        )
    return result


def write_picture(target: Path, picture: UInt8Array, *, quality: int = 95) -> None:
    """Encode a picture as JPEG (`quality` 0..100), and write it whole or not at all.

    Raises:
        StorageError: disk full, or not writable.
    """
    encoded, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not encoded:
        raise StorageError(f"{target} could not be encoded")
    write_whole(target, data.tobytes())


def _drawn(runner: Runner, image: UInt8Array, result: Result) -> UInt8Array:
    draw: Callable[[UInt8Array, Any], UInt8Array] = runner.task.draw  # a task draws the results that it makes
    return draw(image, result)
