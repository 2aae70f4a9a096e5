"""Reads outlines in COCO's form, and checks them before a C++ library draws them."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from edgecnn import rle
from edgecnn.datasets.base import Outline
from edgecnn.errors import DataError
from edgecnn.pictures import MAX_PIXELS

_FARTHEST_PX = 1e6  # from the picture's corner: the library draws with whole numbers


class _Runs(msgspec.Struct):
    size: list[int]
    counts: list[int] | str


def read_outline(raw: msgspec.Raw, width_px: float | None, height_px: float | None, *, where: str) -> Outline:
    """Polygons [[x1, y1, ...], ...] in px, or runs of the picture's size.

    Raises:
        DataError: another form, a value that is not a number, or runs of another size than the picture's.
    """
    wanted = "expected polygons [[x1, y1, x2, y2, x3, y3, …], …] or runs {'size', 'counts'}"
    data = bytes(memoryview(raw))
    try:
        if data[:1] != b"{":
            polygons = msgspec.json.decode(data, type=list[list[float]])
            if not polygons or any(
                len(one) < 6
                or len(one) % 2
                or not -_FARTHEST_PX <= min(one) <= max(one) <= _FARTHEST_PX
                or not all(map(math.isfinite, one))
                for one in polygons
            ):
                raise DataError(f"{where}: {wanted}")
            return polygons
        runs = msgspec.json.decode(data, type=_Runs)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as wrong:
        raise DataError(f"{where}: {wanted}; {wrong}") from wrong
    if len(runs.size) != 2 or min(runs.size) < 0 or runs.size[0] * runs.size[1] > MAX_PIXELS:
        raise DataError(f"{where} has runs of the size {runs.size[:4]}")
    if None not in (width_px, height_px) and tuple(runs.size) != (height_px, width_px):
        raise DataError(f"{where} has runs of {runs.size[1]}x{runs.size[0]} px, but its picture {width_px}x{height_px}")
    if isinstance(runs.counts, str):
        try:
            rle.decode({"size": runs.size, "counts": runs.counts})
        except DataError as wrong:
            raise DataError(f"{where}: {wrong}") from wrong
    elif min(runs.counts, default=0) < 0 or sum(runs.counts) != runs.size[0] * runs.size[1]:
        raise DataError(f"{where} has runs that don't fill its picture")
    outline: dict[str, Any] = {"size": runs.size, "counts": runs.counts}
    return outline
