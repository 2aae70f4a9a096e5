"""Makes a video from still photographs: a camera that moves over each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import cv2
import numpy as np

from edgecnn.photographs import photographs
from edgecnn.results import Detections, UInt8Array
from edgecnn.runners.live.frame import frame_now
from edgecnn.runners.live.sinks import Annotated
from edgecnn.runners.live.sinks.video import VideoSink

SIZE_PX = (640, 480)
FPS = 20.0
FRAMES_EACH = 30
_CLOSEST = 1.35  # zoom factor at the near end of a move
_WAYS = (((0.3, 0.45), (0.7, 0.15)), ((0.7, 0.6), (0.3, 0.4)))  # share of the free space, (x, y), from → to
_NOTHING = Detections(np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty(0, np.int64), ())


def write_footage(path: Path, *, progress: Callable[[int, int], None] | None = None) -> int:
    """Write a video of the shipped photographs, one after the other; returns the number of frames.

    Raises:
        StorageError: disk full, or not writable.
    """
    path.unlink(missing_ok=True)
    pictures = photographs()
    total = FRAMES_EACH * len(pictures)
    with VideoSink(path, fps=FPS) as sink:
        for index, image in enumerate(footage(pictures)):
            sink.deliver(frame_now(image, index, path.name), _NOTHING, _unannotated(image))
            if progress:
                progress(index + 1, total)
    return total


def footage(pictures: Mapping[str, UInt8Array]) -> Iterator[UInt8Array]:
    """Frames of `SIZE_PX`, uint8 [height, width, 3] BGR: `FRAMES_EACH` of each picture (any size, same type)."""
    width_px, height_px = SIZE_PX
    for index, picture in enumerate(pictures.values()):
        for step in range(FRAMES_EACH):
            left_px, top_px, wide_px = view(
                (picture.shape[1], picture.shape[0]), step / max(1, FRAMES_EACH - 1), nearing=index % 2 == 0
            )
            scale = width_px / wide_px
            # pixel centres are at half: x' + 0.5 = scale (x + 0.5 - left)
            move = np.array(
                [[scale, 0, scale * (0.5 - left_px) - 0.5], [0, scale, scale * (0.5 - top_px) - 0.5]], np.float64
            )
            frame = cv2.warpAffine(
                picture, move, (width_px, height_px), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
            )
            yield np.asarray(frame, np.uint8)


def view(size_px: tuple[int, int], share: float, *, nearing: bool) -> tuple[float, float, float]:
    """The part of a picture that the camera sees: left, top and width in px of the picture.

    It has the aspect ratio of `SIZE_PX` and stays inside the picture. The move starts and stops gently.

    Args:
        size_px: (width, height) of the picture.
        share: share of the move that is done, 0..1.
        nearing: True to zoom in; otherwise out.
    """
    width, height = size_px
    aspect = SIZE_PX[0] / SIZE_PX[1]
    gently = share * share * (3 - 2 * share)
    zoom = 1 + (_CLOSEST - 1) * (gently if nearing else 1 - gently)
    wide = min(width, height * aspect) / zoom
    start, end = _WAYS[0 if nearing else 1]
    x, y = (a + (b - a) * gently for a, b in zip(start, end, strict=True))
    return x * (width - wide), y * (height - wide / aspect), wide


def _unannotated(image: UInt8Array) -> Annotated:
    return Annotated(lambda: image)
