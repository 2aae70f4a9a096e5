"""A grid of labelled pictures with their labels drawn on them, to check them before training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from edgecnn.atomic import write_whole
from edgecnn.datasets import BoxTruth, LabelTruth, MapTruth, Truth
from edgecnn.errors import StorageError
from edgecnn.results import UInt8Array
from edgecnn.tasks.drawing import colour_of, corner_lines

TILE_PX = (400, 300)  # width, height
_GAP_PX = 6
_BACKGROUND = 24
_VOID = (255, 255, 255)  # BGR, hatched: no class has it
_TINT = 0.55
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_LEAST_SHARE = 0.002  # of a picture, for a class to be named


def truth_tile(image: UInt8Array, truth: Truth, labels: Sequence[str], *, title: str) -> UInt8Array:
    """One picture with its labels, uint8 [300, 400, 3] BGR.

    Args:
        image: uint8 [height, width, 3] BGR.
        truth: the picture's labels.
        labels: class names, by class id.
        title: written below it.
    """
    width, height = TILE_PX[0], TILE_PX[1] - 18
    scale = min(width / image.shape[1], height / image.shape[0])
    size = max(round(image.shape[1] * scale), 1), max(round(image.shape[0] * scale), 1)
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    small = np.asarray(cv2.resize(image, size, interpolation=way), np.uint8)
    if isinstance(truth, BoxTruth):
        _boxes(small, truth, labels, scale)
    elif isinstance(truth, MapTruth):
        _classes(small, truth, labels)
    elif isinstance(truth, LabelTruth):
        corner_lines(small, [labels[truth.class_id]], colours=[colour_of(truth.class_id)])
    tile = np.full((TILE_PX[1], TILE_PX[0], 3), _BACKGROUND, np.uint8)
    left, top = (width - size[0]) // 2, (height - size[1]) // 2
    tile[top : top + size[1], left : left + size[0]] = small
    shown = title.encode("ascii", "replace").decode()[-56:]  # the font has only ASCII
    cv2.putText(tile, shown, (4, TILE_PX[1] - 5), _FONT, 0.4, (220, 220, 220), 1, cv2.LINE_AA)
    return tile


def write_grid(tiles: Sequence[UInt8Array], path: Path) -> None:
    """Write tiles as one PNG, completely or not at all.

    Raises:
        StorageError: disk full, or not writable.
    """
    columns = max(min(math.ceil(math.sqrt(len(tiles))), 4), 1)
    rows = math.ceil(len(tiles) / columns)
    width, height = TILE_PX[0] + _GAP_PX, TILE_PX[1] + _GAP_PX
    sheet = np.full((rows * height + _GAP_PX, columns * width + _GAP_PX, 3), 0, np.uint8)
    for index, tile in enumerate(tiles):
        top, left = index // columns * height + _GAP_PX, index % columns * width + _GAP_PX
        sheet[top : top + TILE_PX[1], left : left + TILE_PX[0]] = tile
    encoded, data = cv2.imencode(".png", sheet)
    if not encoded:
        raise StorageError(f"{path} could not be encoded")
    write_whole(path, data.tobytes())


def _boxes(canvas: UInt8Array, truth: BoxTruth, labels: Sequence[str], scale: float) -> None:
    corners = np.rint(truth.boxes_xyxy_px * scale).astype(np.int64).clip(-10_000, 10_000)
    order = np.argsort(-(truth.boxes_xyxy_px[:, 2:] - truth.boxes_xyxy_px[:, :2]).prod(axis=1), kind="stable")
    for index in order.tolist():  # small ones on top
        left, top, right, bottom = corners[index].tolist()
        colour = colour_of(int(truth.class_ids[index]))
        if index < len(truth.outlines) and isinstance(truth.outlines[index], list):
            rings = [np.rint(np.reshape(ring, (-1, 2)) * scale).astype(np.int32) for ring in truth.outlines[index]]
            cv2.polylines(canvas, rings, True, colour, 2, cv2.LINE_AA)
        cv2.rectangle(canvas, (left, top), (right, bottom), colour, 1 if truth.ignored[index] else 2)
    taken: list[tuple[int, int, int, int]] = []
    for index in order[::-1].tolist():
        left, top, *_ = corners[index].tolist()
        name = labels[int(truth.class_ids[index])] + (" (ignored)" if truth.ignored[index] else "")
        _name(canvas, name, (max(left, 0), max(top, 12)), colour_of(int(truth.class_ids[index])), taken)


def _name(
    canvas: UInt8Array,
    name: str,
    at: tuple[int, int],
    colour: tuple[int, int, int],
    taken: list[tuple[int, int, int, int]],
) -> None:
    """Write a name where it covers no other; in a crowd, boxes without names are better than unreadable ones."""
    text = name.encode("ascii", "replace").decode()
    (width, height), base = cv2.getTextSize(text, _FONT, 0.36, 1)
    left, bottom = min(at[0], max(canvas.shape[1] - width, 0)), at[1]
    place = left, bottom - height - base, left + width + 4, bottom
    if any(place[0] < r and l < place[2] and place[1] < b and t < place[3] for l, t, r, b in taken):  # noqa: E741
        return
    taken.append(place)
    cv2.rectangle(canvas, place[:2], place[2:], colour, cv2.FILLED)
    bright = 0.114 * colour[0] + 0.587 * colour[1] + 0.299 * colour[2] > 120
    ink = (0, 0, 0) if bright else (255, 255, 255)
    cv2.putText(canvas, text, (left + 2, bottom - base), _FONT, 0.36, ink, 1, cv2.LINE_AA)


def _classes(canvas: UInt8Array, truth: MapTruth, labels: Sequence[str]) -> None:
    """Tint every pixel by its class, except the background; void is hatched."""
    plain = 0 if labels and labels[0].lower() in {"background", "__background__"} else None
    size = canvas.shape[1], canvas.shape[0]
    ids = np.asarray(cv2.resize(truth.classes.astype(np.int32), size, interpolation=cv2.INTER_NEAREST))
    present, counts = np.unique(ids, return_counts=True)
    rows, columns = np.indices(ids.shape)
    lines, colours = [], []
    for class_id, count in sorted(zip(present.tolist(), counts.tolist(), strict=True), key=lambda pair: -pair[1]):
        colour = _VOID if class_id < 0 else colour_of(class_id)
        here = ids == class_id
        if class_id < 0:
            here &= (rows + columns) // 4 % 2 == 0
        if class_id == plain:
            continue
        canvas[here] = ((1 - _TINT) * canvas[here] + _TINT * np.array(colour)).astype(np.uint8)
        if count >= _LEAST_SHARE * ids.size:
            lines.append(f"{'void' if class_id < 0 else labels[class_id]}  {count / ids.size:.0%}")
            colours.append(colour)
    corner_lines(canvas, lines[:8], colours=colours[:8])
