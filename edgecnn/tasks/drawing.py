"""Draws boxes, names and tints on pictures. OpenCV only; functions change the given canvas."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from edgecnn.results import Count, Detections, Instances, LineCount, SegmentationMap, UInt8Array

_FONT = cv2.FONT_HERSHEY_SIMPLEX
Colour = tuple[int, int, int]
# Colours of lines and zones: bright, and different from typical class colours.
_COUNT_COLOURS: Final[tuple[Colour, ...]] = ((0, 255, 255), (255, 255, 0), (255, 120, 255), (120, 255, 120))


@lru_cache(maxsize=1024)
def colour_of(class_id: int) -> Colour:
    """A BGR colour for a class: hues a golden angle apart, so that neighbouring classes differ."""
    hue = int(class_id * 137.508 / 2) % 180
    value = 255 if class_id % 2 == 0 else 215
    pixel = cv2.cvtColor(np.array([[[hue, 200, value]]], np.uint8), cv2.COLOR_HSV2BGR)
    blue, green, red = pixel[0, 0].tolist()
    return blue, green, red


@lru_cache(maxsize=1)
def _colour_table() -> UInt8Array:
    """Colours of all 256 classes, uint8 [256, 1, 3] BGR, in the form of OpenCV's colour maps."""
    return np.array([[colour_of(i)] for i in range(256)], np.uint8)


def boxes(canvas: UInt8Array, detections: Detections) -> None:
    """Outline every box and write its name, score and track id at it, the best on top; lines and zones are below."""
    thickness, scale = line_weights(canvas)
    places_of_counts(canvas, detections.counts)
    worst_first = range(len(detections) - 1, -1, -1)
    corners = np.rint(detections.boxes_xyxy_px).astype(np.int64)
    class_ids = detections.class_ids.tolist()
    for i in worst_first:
        left, top, right, bottom = corners[i].tolist()
        colour = colour_of(class_ids[i])
        cv2.rectangle(canvas, (left, top), (right, bottom), colour, thickness)
    # Names after all outlines, so that none is crossed; the best boxes choose their place first.
    texts = [_caption(detections, i) for i in range(len(detections))]
    places = plate_places(canvas, texts, corners, scale)
    for i in worst_first:
        _plate(canvas, texts[i], places[i], colour_of(class_ids[i]), scale)
    if detections.counts:
        corner_lines(canvas, [str(count) for count in detections.counts], colours=_count_colours(detections.counts))


def places_of_counts(canvas: UInt8Array, counts: Sequence[Count]) -> None:
    """Draw lines, each with an arrow to its "in" side, and the edges of zones."""
    thickness, scale = line_weights(canvas)
    for count, colour in zip(counts, _count_colours(counts), strict=True):
        if isinstance(count, LineCount):
            start, end = np.array(count.start_px), np.array(count.end_px)
            along = (end - start) / np.linalg.norm(end - start)
            middle = (start + end) / 2
            tip = middle + 50 * scale * np.array([-along[1], along[0]])
            cv2.line(canvas, _pixel(start), _pixel(end), colour, thickness, cv2.LINE_AA)
            cv2.arrowedLine(canvas, _pixel(middle), _pixel(tip), colour, thickness, cv2.LINE_AA, tipLength=0.4)
        else:
            corners = np.rint(np.array(count.corners_px)).astype(np.int32)
            cv2.polylines(canvas, [corners], True, colour, thickness, cv2.LINE_AA)


def masks(canvas: UInt8Array, instances: Instances) -> None:
    """Tint the pixels of every object."""
    detections = instances.detections
    corners = np.rint(detections.boxes_xyxy_px).astype(np.int64) + np.array([-1, -1, 1, 1])
    corners = corners.clip(0, (canvas.shape[1], canvas.shape[0]) * 2)
    for i in range(len(instances) - 1, -1, -1):
        left, top, right, bottom = corners[i].tolist()
        inside = (slice(top, bottom), slice(left, right))
        part = canvas[inside]
        if part.size == 0:
            continue
        colour = np.full(part.shape, colour_of(int(detections.class_ids[i])), np.uint8)
        tinted = cv2.addWeighted(part, 0.5, colour, 0.5, 0)
        np.copyto(part, tinted, where=instances.masks[i][inside][..., None])


def tint(canvas: UInt8Array, segmentation: SegmentationMap) -> None:
    """Tint every pixel of a shown class (not class 0 where it is called background), and add a legend."""
    labels = segmentation.labels
    plain = 0 if labels and labels[0].lower() in {"background", "__background__"} else None
    classes = segmentation.classes
    colours = cv2.applyColorMap(classes, _colour_table())
    if plain is None and segmentation.meant is None:
        cv2.addWeighted(canvas, 0.45, colours, 0.55, 0, dst=canvas)
    else:
        tinted = cv2.addWeighted(canvas, 0.45, colours, 0.55, 0)
        cv2.copyTo(tinted, _shown_pixels(segmentation, plain), canvas)
    shares = {name: share for name, share in segmentation.shares().items() if share >= 0.002}
    ids = {name: i for i, name in reversed(list(enumerate(labels)))}
    shown = [name for name in shares if plain is None or name != labels[plain]][:12]
    corner_lines(
        canvas,
        [f"{name}  {100 * shares[name]:.0f} %" for name in shown],
        colours=[colour_of(ids[name]) for name in shown],
    )


def _shown_pixels(segmentation: SegmentationMap, plain: int | None) -> NDArray[Any]:
    """Pixels with a tinted class: a mask in OpenCV's form."""
    if segmentation.meant is None:
        return cv2.compare(segmentation.classes, plain, cv2.CMP_NE)  # type: ignore[call-overload, no-any-return]
    shown = [class_id for class_id in segmentation.meant if class_id != plain]
    return np.isin(segmentation.classes, shown).view(np.uint8)


def corner_lines(canvas: UInt8Array, lines: Sequence[str], *, colours: Sequence[Colour] | None = None) -> None:
    """Write lines of text into the upper left corner, each on a dark plate."""
    _, scale = line_weights(canvas)
    y = 0
    for i, line in enumerate(lines):
        colour = colours[i] if colours else (40, 40, 40)
        y += plate_size(line, scale)[1]
        _plate(canvas, line, (0, y), colour, scale)


def _caption(detections: Detections, i: int) -> str:
    text = f"{detections.labels[int(detections.class_ids[i])]} {detections.scores[i]:.2f}"
    track_id = -1 if detections.track_ids is None else int(detections.track_ids[i])
    return text if track_id < 0 else f"#{track_id} {text}"


def _count_colours(counts: Sequence[Count]) -> list[Colour]:
    return [_COUNT_COLOURS[i % len(_COUNT_COLOURS)] for i in range(len(counts))]


def _pixel(point: NDArray[np.float64]) -> tuple[int, int]:
    return round(float(point[0])), round(float(point[1]))


def line_weights(canvas: UInt8Array) -> tuple[int, float]:
    """Line thickness in px and font scale that are readable at this size."""
    longer = max(canvas.shape[:2])
    return max(1, round(longer / 400)), max(0.4, longer / 1500)


def plate_size(text: str, scale: float) -> tuple[int, int]:
    """Width and height in px of a text's plate."""
    (width, height), base = cv2.getTextSize(text, _FONT, scale, 1)
    return width + 6, height + base + 4


def plate_places(
    canvas: UInt8Array, texts: Sequence[str], corners: NDArray[np.int64], scale: float
) -> list[tuple[int, int]]:
    """The lower left corner of each text's plate, best first.

    Above its box where there is room and no other plate; otherwise inside its upper edge (for a tall box,
    which that doesn't hide) or below it.
    """
    places: list[tuple[int, int]] = []
    taken = np.empty((len(texts), 4), np.int64)  # left, top, right, bottom
    for i, text in enumerate(texts):
        width, height = plate_size(text, scale)
        left = min(max(int(corners[i, 0]), 0), max(canvas.shape[1] - width, 0))
        top, bottom = int(corners[i, 1]), int(corners[i, 3])
        inside, below = top + height, bottom + height
        order = (top, inside, below) if bottom - top > 4 * height else (top, below, inside)
        choices = [y for y in order if height <= y <= canvas.shape[0]] or [max(top, height)]
        others = taken[:i]
        apart = (others[:, 0] >= left + width) | (others[:, 2] <= left)
        for y in choices:
            if (apart | (others[:, 1] >= y) | (others[:, 3] <= y - height)).all():
                break
        else:
            y = choices[0]
        taken[i] = left, y - height, left + width, y
        places.append((left, y))
    return places


def _plate(canvas: UInt8Array, text: str, anchor: tuple[int, int], colour: Colour, scale: float) -> None:
    """Text on a filled plate with its lower left corner at `anchor`, moved inside the canvas."""
    width, height = plate_size(text, scale)
    left = min(max(anchor[0], 0), max(canvas.shape[1] - width, 0))
    bottom = max(anchor[1], height)
    _, base = cv2.getTextSize(text, _FONT, scale, 1)
    cv2.rectangle(canvas, (left, bottom - height), (left + width - 1, bottom - 1), colour, cv2.FILLED)
    blue, green, red = colour
    bright = 0.114 * blue + 0.587 * green + 0.299 * red > 120
    ink = (0, 0, 0) if bright else (255, 255, 255)
    cv2.putText(canvas, text, (left + 3, bottom - base - 1), _FONT, scale, ink, 1, cv2.LINE_AA)
