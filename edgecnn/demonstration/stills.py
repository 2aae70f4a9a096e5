"""Runs artifacts on the shipped photographs: annotated stills, and a contact sheet of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np

from edgecnn.atomic import write_whole
from edgecnn.bundle import Artifact, Bundle
from edgecnn.errors import StorageError
from edgecnn.photographs import photographs
from edgecnn.results import UInt8Array
from edgecnn.runners.live.frame import frame_now
from edgecnn.runners.live.sinks.jsonl import record_of
from edgecnn.runners.runner import open_runner

_PER_FRAME = ("frame", "captured_ns", "captured_unix_ns", "age_ms", "source")
_MOST_SAID = 3
_TILE_HEIGHT_PX = 220


class Still(msgspec.Struct, frozen=True, kw_only=True):
    """Result of one artifact for one photograph.

    Attributes:
        photograph: the photograph's name.
        format, precision: what ran.
        picture: the annotated picture, relative to `demo.json`.
        says: the result in a few words.
        result: as printed by `run --jsonl`, without the frame's times.
    """

    photograph: str
    format: str
    precision: str
    picture: str
    says: str
    result: dict[str, Any]


def take_stills(bundle: Bundle, artifact: Artifact, *, prefix: str, folder: Path, relative_to: Path) -> list[Still]:
    """Run one artifact on every photograph; the annotated ones go to `folder`, named "PREFIX-…".

    Raises:
        MissingDependencyError, DeviceError: the artifact cannot run here.
        StorageError: disk full, or not writable.
    """
    stills = []
    with open_runner(bundle, format=artifact.format, precision=artifact.precision) as runner:
        for index, (name, image) in enumerate(photographs().items()):
            result = runner(image)
            path = folder / f"{prefix}-{name}-{artifact.format}-{artifact.precision}.jpg"
            write_picture(path, runner.task.draw(image, result))
            record = record_of(frame_now(image, index, name), result)
            stills.append(
                Still(
                    photograph=name,
                    format=artifact.format,
                    precision=artifact.precision,
                    picture=path.relative_to(relative_to).as_posix(),
                    says=", ".join(runner.task.findings(result, most=_MOST_SAID)) or "nothing",
                    result={key: value for key, value in record.items() if key not in _PER_FRAME},
                )
            )
    return stills


def row_of_tiles(bundle: Bundle, artifact: Artifact) -> UInt8Array:
    """The photographs side by side, small, with the artifact's results.

    Returns:
        uint8 [220, width, 3] BGR.
    """
    tiles = []
    with open_runner(bundle, format=artifact.format, precision=artifact.precision) as runner:
        for image in photographs().values():
            size_px = (round(image.shape[1] * _TILE_HEIGHT_PX / image.shape[0]), _TILE_HEIGHT_PX)
            small = np.asarray(cv2.resize(image, size_px, interpolation=cv2.INTER_AREA), np.uint8)
            factors = (size_px[0] / image.shape[1], size_px[1] / image.shape[0])
            tiles.append(runner.task.draw(small, runner.task.scaled(runner(image), *factors)))
    return np.concatenate(tiles, axis=1)


def write_contact_sheet(path: Path, rows: Sequence[UInt8Array]) -> None:
    """Write rows of tiles, one below the other, as one picture.

    Raises:
        StorageError: disk full, or not writable.
    """
    write_picture(path, np.concatenate(list(rows), axis=0), quality=80)


def write_picture(path: Path, picture: UInt8Array, *, quality: int = 95) -> None:
    """Encode a picture as JPEG (`quality` 0..100), and write it completely or not at all.

    Raises:
        StorageError: disk full, or not writable.
    """
    encoded, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not encoded:
        raise StorageError(f"{path} could not be encoded")
    write_whole(path, data.tobytes())
