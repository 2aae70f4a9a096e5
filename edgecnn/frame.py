"""Fits pictures of any size into a network's frame, and maps answers back.

One uint8 BGR frame (as from cameras and OpenCV) goes into the graph; colour order, scale, mean and std are
applied inside it. Outside, for every runtime, there is only geometry, and all of it is in this file.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal

import cv2
import msgspec
import numpy as np

from edgecnn.arrays import FloatArray, IntArray, UInt8Array
from edgecnn.errors import SpecError
from edgecnn.resampling import Filter, Resampler

Fit = Literal["letterbox", "stretch", "centre-crop"]
Alignment = Literal["centre", "top-left"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "area"]
ColourOrder = Literal["rgb", "bgr"]

MOST_SIDE_PX = 16_384
MOST_AREA_PX = 1 << 25  # an 8K picture's 33 megapixels: a larger frame would need gigabytes

_OPENCV_INTERPOLATION: dict[Interpolation, int] = {
    "nearest": cv2.INTER_NEAREST,
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
    "area": cv2.INTER_AREA,
}
_ANTIALIAS_FILTER: dict[Interpolation, Filter] = {"bilinear": "triangle", "bicubic": "cubic"}


class FrameSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A network's input: one frame of a fixed size, and the meaning of its values.

    The network gets x = (pixel * scale - mean) / std for each channel, in `colour` order.

    Attributes:
        height_px, width_px: the frame's size.
        fit: "letterbox" keeps the aspect ratio and pads; "stretch" does not keep it; "centre-crop" resizes the short
            side to `resize_short_px`, keeps the aspect ratio, and cuts out the middle.
        alignment: position of the picture in a letterbox.
        pad_value: grey level of a letterbox's border, 0..255.
        resize_short_px: only for "centre-crop"; at least as large as the frame's longer side.
        interpolation: interpolation of the resize; "area" is OpenCV's.
        antialias: widen the filter when shrinking, as Pillow and torchvision do ("bilinear", "bicubic").
        colour: order of the network's channels.
        scale: factor on the 0..255 pixel, before mean and std.
        mean, std: per channel, in `colour` order, on the scaled pixel.
    """

    height_px: int
    width_px: int
    fit: Fit = "letterbox"
    alignment: Alignment = "centre"
    pad_value: int = 114
    resize_short_px: int | None = None
    interpolation: Interpolation = "bilinear"
    antialias: bool = False
    colour: ColourOrder = "rgb"
    scale: float = 1 / 255
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        if self.height_px <= 0 or self.width_px <= 0:
            raise SpecError(f"the frame's size must be positive, got {self.width_px}x{self.height_px} px")
        if max(self.height_px, self.width_px) > MOST_SIDE_PX or self.height_px * self.width_px > MOST_AREA_PX:
            raise SpecError(
                f"the frame's size must be at most {MOST_SIDE_PX} px a side and {MOST_AREA_PX / 1e6:.1f} megapixels, "
                f"got {self.width_px}x{self.height_px} px"
            )
        if not all(0 < value < math.inf for value in self.std):
            raise SpecError(f"std must be positive on every channel, got {self.std}")
        if not all(map(math.isfinite, self.mean)):
            raise SpecError(f"mean must be finite on every channel, got {self.mean}")
        if not 0 < self.scale < math.inf:
            raise SpecError(f"scale must be positive, got {self.scale}")
        if not 0 <= self.pad_value <= 255:
            raise SpecError(f"pad_value must be in 0..255, got {self.pad_value}")
        if self.antialias and self.interpolation not in _ANTIALIAS_FILTER:
            raise SpecError(f"antialias goes with bilinear or bicubic interpolation, not with {self.interpolation}")
        if self.fit == "centre-crop":
            longer = max(self.height_px, self.width_px)
            if self.resize_short_px is None or self.resize_short_px < longer:
                raise SpecError(
                    f"fit 'centre-crop' needs resize_short_px of at least {longer} "
                    f"(the frame's longer side), got {self.resize_short_px}"
                )
            if self.resize_short_px > max(4 * longer, 4096):
                raise SpecError(f"resize_short_px must be at most {max(4 * longer, 4096)}, got {self.resize_short_px}")
        elif self.resize_short_px is not None:
            raise SpecError(f"resize_short_px goes with fit 'centre-crop', not with {self.fit!r}")


@dataclass(frozen=True)
class Placement:
    """Position of a source picture in a frame: x_frame = x_source * scale_x + offset_x_px.

    Pixel edges, not centres, are the origin: a box that covers the whole picture maps to one that covers its
    whole area in the frame.

    Attributes:
        source_height_px, source_width_px: size of the source picture.
        scale_x, scale_y: frame pixels per source pixel.
        offset_x_px, offset_y_px: left and top edge of the picture in the frame; negative where it was cut.
        resized_height_px, resized_width_px: size of the whole picture after the resize, before any cut.
        frame_height_px, frame_width_px: size of the frame.
    """

    source_height_px: int
    source_width_px: int
    scale_x: float
    scale_y: float
    offset_x_px: int
    offset_y_px: int
    resized_height_px: int
    resized_width_px: int
    frame_height_px: int
    frame_width_px: int

    def boxes_to_source(self, boxes_xyxy_px: FloatArray) -> FloatArray:
        """Boxes in frame pixels, float32 [n, 4] xyxy, as boxes in source pixels, clipped to the picture."""
        shift, scale, limit = self._affine_xyxy
        boxes: FloatArray = boxes_xyxy_px - shift
        boxes /= scale
        np.maximum(boxes, 0, out=boxes)
        np.minimum(boxes, limit, out=boxes)
        return boxes

    def boxes_to_frame(self, boxes_xyxy_px: FloatArray) -> FloatArray:
        """Boxes in source pixels, float32 [n, 4] xyxy, as boxes in frame pixels; not clipped."""
        shift, scale, _ = self._affine_xyxy
        boxes: FloatArray = (boxes_xyxy_px * scale + shift).astype(np.float32)
        return boxes

    @cached_property
    def _affine_xyxy(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Shift and scale of boxes, and the picture's size, float32 [4] each: computed once, not for every frame."""
        shift = np.array([self.offset_x_px, self.offset_y_px] * 2, np.float32)
        scale = np.array([self.scale_x, self.scale_y] * 2, np.float32)
        limit = np.array([self.source_width_px, self.source_height_px] * 2, np.float32)
        return shift, scale, limit

    @property
    def covered(self) -> tuple[slice, slice]:
        """Rows and columns of the frame that the picture covers."""
        bottom = min(self.offset_y_px + self.resized_height_px, self.frame_height_px)
        right = min(self.offset_x_px + self.resized_width_px, self.frame_width_px)
        return slice(max(self.offset_y_px, 0), bottom), slice(max(self.offset_x_px, 0), right)

    @property
    def cut_px(self) -> tuple[int, int]:
        """Number of rows and columns of the resized picture above and left of the frame."""
        return max(-self.offset_y_px, 0), max(-self.offset_x_px, 0)

    def map_to_source(self, frame_map: UInt8Array, *, fill: int = 0) -> UInt8Array:
        """Convert a map over the frame, uint8 [height, width], to a map over the source picture.

        Nearest neighbour, also for a map with fewer cells than the frame has pixels; parts removed by a centre crop are
        `fill`.
        """
        if frame_map.shape[:2] != (self.frame_height_px, self.frame_width_px):
            rows = nearest_lines(frame_map.shape[0], self.frame_height_px)
            frame_map = frame_map.take(rows, axis=0).take(
                nearest_lines(frame_map.shape[1], self.frame_width_px), axis=1
            )
        seen = frame_map[self.covered]
        if self.cut_px == (0, 0):
            if seen.shape[:2] == (self.source_height_px, self.source_width_px):
                return seen.copy()  # `frame_map` may be the runtime's own memory
            whole = seen
        else:
            whole = np.full((self.resized_height_px, self.resized_width_px), fill, frame_map.dtype)
            top, left = self.cut_px
            whole[top : top + seen.shape[0], left : left + seen.shape[1]] = seen
        rows, columns = self._nearest_lines
        return whole.take(columns, axis=1).take(rows, axis=0)

    @cached_property
    def _nearest_lines(self) -> tuple[IntArray, IntArray]:
        """Row and column of the resized picture that is nearest to each of the source's, int64 [source size]."""
        return (
            nearest_lines(self.resized_height_px, self.source_height_px),
            nearest_lines(self.resized_width_px, self.source_width_px),
        )


def nearest_lines(length: int, resized: int) -> IntArray:
    """Line of `length` whose centre is nearest to that of each of `resized` lines, int64 [resized].

    As OpenCV 5's INTER_NEAREST_EXACT, which adds up steps; 4 rounds them to 16 bits first, and finds other lines. The
    C++ runner does the same (`runners/cpp/src/frame.cpp`).
    """
    steps = np.full(resized, length / resized)
    steps[0] *= 0.5
    lines: IntArray = np.minimum(np.cumsum(steps).astype(np.int64), length - 1)
    return lines


@lru_cache(maxsize=64)
def placement(spec: FrameSpec, height_px: int, width_px: int) -> Placement:
    """The position of a picture of this size in the frame described by `spec`.

    Sources of the rounding: letterbox, YOLOX's `preproc` (floor of size times ratio); centre crop,
    torchvision's `resize` (floor of the longer side) and `center_crop` (round half to even of the margin).
    """
    if spec.fit == "stretch":
        resized_height, resized_width = spec.height_px, spec.width_px
        top = left = 0
    elif spec.fit == "letterbox":
        ratio = min(spec.height_px / height_px, spec.width_px / width_px)
        resized_height = min(max(int(height_px * ratio), 1), spec.height_px)
        resized_width = min(max(int(width_px * ratio), 1), spec.width_px)
        centred = spec.alignment == "centre"
        top = (spec.height_px - resized_height) // 2 if centred else 0
        left = (spec.width_px - resized_width) // 2 if centred else 0
    else:
        short = spec.resize_short_px or 0
        if height_px <= width_px:
            resized_height, resized_width = short, int(short * width_px / height_px)
        else:
            resized_height, resized_width = int(short * height_px / width_px), short
        top = -round((resized_height - spec.height_px) / 2.0)
        left = -round((resized_width - spec.width_px) / 2.0)
    return Placement(
        source_height_px=height_px,
        source_width_px=width_px,
        scale_x=resized_width / width_px,
        scale_y=resized_height / height_px,
        offset_x_px=left,
        offset_y_px=top,
        resized_height_px=resized_height,
        resized_width_px=resized_width,
        frame_height_px=spec.height_px,
        frame_width_px=spec.width_px,
    )


class FrameFitter:
    """Fits pictures into frames, in one reused buffer: the frame loop allocates nothing.

    Must not be used by two threads at once: the frame returned by a call is overwritten by the next call.
    """

    def __init__(self, spec: FrameSpec) -> None:
        self.spec = spec
        self._batch: UInt8Array = np.empty((1, spec.height_px, spec.width_px, 3), np.uint8)
        self._placement: Placement | None = None
        self._resampler: Resampler | None = None

    def __call__(self, image: UInt8Array) -> tuple[UInt8Array, Placement]:
        """Fit one picture.

        Args:
            image: uint8 [height, width, 3] BGR, any size.

        Returns:
            The frame, uint8 [1, spec.height_px, spec.width_px, 3] BGR, and the picture's position in it.

        Raises:
            SpecError: image is not uint8 [height, width, 3].
        """
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3:
            found = f"{image.dtype} {list(image.shape)}" if isinstance(image, np.ndarray) else type(image).__name__
            raise SpecError(f"a picture must be uint8 [height, width, 3] BGR, got {found}")
        height, width, channels = image.shape
        if channels != 3 or height == 0 or width == 0:
            raise SpecError(f"a picture must be uint8 [height, width, 3] BGR, got shape {list(image.shape)}")
        place = placement(self.spec, height, width)
        frame = self._batch[0]
        if place is not self._placement:  # the border is painted only when the geometry changes
            frame.fill(self.spec.pad_value)
            self._placement, self._resampler = place, None
        self._resize(image, place, frame[place.covered])
        return self._batch, place

    def _resize(self, image: UInt8Array, place: Placement, out: UInt8Array) -> None:
        spec = self.spec
        size = (place.resized_height_px, place.resized_width_px)
        top, left = place.cut_px
        cut = (slice(top, top + out.shape[0]), slice(left, left + out.shape[1]))
        if size == image.shape[:2]:
            np.copyto(out, image[cut])
        elif spec.antialias:
            if self._resampler is None:
                kernel = _ANTIALIAS_FILTER[spec.interpolation]
                shown = (out.shape[0], out.shape[1])
                self._resampler = Resampler(image.shape[:2], size, cut_px=place.cut_px, shown=shown, kernel=kernel)
            self._resampler(image, out)
        else:
            interpolation = _OPENCV_INTERPOLATION[spec.interpolation]
            with _without_ipp(spec.interpolation):
                if out.shape[:2] == size and out.flags.c_contiguous:
                    cv2.resize(image, size[::-1], dst=out, interpolation=interpolation)
                else:
                    np.copyto(out, cv2.resize(image, size[::-1], interpolation=interpolation)[cut])


@contextlib.contextmanager
def _without_ipp(interpolation: Interpolation) -> Iterator[None]:
    """Context without Intel's IPP, which OpenCV has on x86 alone, for what it rounds otherwise: bicubic, by a level."""
    used = interpolation == "bicubic" and cv2.ipp.useIPP()
    if used:
        cv2.ipp.setUseIPP(False)  # of this thread
    try:
        yield
    finally:
        if used:
            cv2.ipp.setUseIPP(True)
