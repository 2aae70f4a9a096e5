"""Reads the rows of YOLO's label files: boxes, polygons or key points, recognised over the whole data set.

A row of a pose data set is `class x y width height` and then the key points. Read as a polygon it would give a wrong
box: key points are recognised by `kpt_shape` in the data.yaml, and rows that look like them without it are refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgecnn.datasets.base import BoxArray, beginning, refuse_mostly_outside
from edgecnn.datasets.untrusted_documents import MAX_LABEL_BYTES, read_text
from edgecnn.errors import DataError

_BOX = 4  # centre x, centre y, width, height
_POLYGON = 6  # three corners
_FORMS = "`class x y width height` or `class x1 y1 x2 y2 x3 y3 …`"
_NEARLY_ALL = 0.95


@dataclass(frozen=True)
class Row:
    """One object: class id of the data set, box xyxy and polygon [n, 2] in shares of the picture."""

    class_id: int
    box_xyxy: tuple[float, float, float, float]
    polygon: BoxArray | None

    @property
    def has_area(self) -> bool:
        """Whether the box has an area."""
        left, top, right, bottom = self.box_xyxy
        return right > left and bottom > top


@dataclass(frozen=True)
class _Raw:
    class_id: int
    values: tuple[float, ...]
    where: str
    text: str


def read_rows(
    files: Mapping[Path, Path], class_count: int, *, names: Sequence[str], kpt_shape: tuple[int, int] | None
) -> dict[Path, list[Row]]:
    """The objects of each picture.

    Args:
        files: picture → its label file.
        class_count: class ids must be below this.
        names: class names, for messages.
        kpt_shape: key points per row, and numbers per key point; None where the data set doesn't give it.

    Raises:
        DataError: a row in another form, a class id out of range, numbers outside 0..1, or rows of key points.
    """
    raw = {picture: _read(file, class_count, names) for picture, file in files.items()}
    rows = [row for found in raw.values() for row in found]
    if kpt_shape is None:
        _refuse_key_points(rows)
    read = {picture: [_row(row, kpt_shape) for row in found] for picture, found in raw.items()}
    boxes = [row.box_xyxy for found in read.values() for row in found if row.polygon is None]
    if boxes:
        array = np.array(boxes, np.float64)
        where = str(next(iter(files.values())).parent)
        meant = "`class x y width height`: the centre and the size, not two corners"
        refuse_mostly_outside(array, np.ones((len(array), 2)), where=where, meant=meant)
    return read


def _read(file: Path, class_count: int, names: Sequence[str]) -> list[_Raw]:
    rows = []
    for number, text in enumerate(read_text(file, limit_bytes=MAX_LABEL_BYTES).splitlines(), 1):
        fields = text.split()
        if not fields:
            continue
        where = f"{file}, line {number}"
        try:
            class_id, values = int(fields[0]), tuple(float(field) for field in fields[1:])
        except ValueError as wrong:
            raise DataError(f"{where}: expected a class id and numbers, found {text[:60]!r}") from wrong
        if not 0 <= class_id < class_count:
            raise DataError(
                f"{where}: class id {class_id}, but there are {class_count} class names: {beginning(names)}"
            )
        rows.append(_Raw(class_id, values, where, text))
    return rows


def _row(raw: _Raw, kpt_shape: tuple[int, int] | None) -> Row:
    count = len(raw.values)
    if kpt_shape is not None:
        wanted = _BOX + kpt_shape[0] * kpt_shape[1]
        if count != wanted:
            raise DataError(
                f"{raw.where}: kpt_shape [{kpt_shape[0]}, {kpt_shape[1]}] in the data.yaml makes rows of {wanted + 1} "
                f"fields, found {count + 1}"
            )
        return _box(raw, raw.values[:_BOX])
    if count == _BOX:
        return _box(raw, raw.values)
    if count >= _POLYGON and count % 2 == 0:
        _check_shares(raw, raw.values)
        polygon = np.array(raw.values, np.float64).reshape(-1, 2)
        left, top = polygon.min(axis=0).tolist()
        right, bottom = polygon.max(axis=0).tolist()
        return Row(raw.class_id, (left, top, right, bottom), polygon)
    raise DataError(f"{raw.where}: expected {_FORMS}, found {count + 1} fields")


def _box(raw: _Raw, values: Sequence[float]) -> Row:
    _check_shares(raw, values)
    x, y, width, height = values
    return Row(raw.class_id, (x - width / 2, y - height / 2, x + width / 2, y + height / 2), None)


def _check_shares(raw: _Raw, values: Sequence[float]) -> None:
    if not all(-0.01 <= value <= 1.01 for value in values):  # slightly outside because of rounding
        raise DataError(f"{raw.where}: expected shares of the picture in 0..1, found {raw.text[:60]!r}")


def _refuse_key_points(rows: Sequence[_Raw]) -> None:
    """Refuse rows of a pose data set: all of one length, beginning with a box that has points in it."""
    counts = {len(row.values) for row in rows}
    if len(counts) != 1 or (count := counts.pop()) <= _BOX:
        return
    values = np.array([row.values for row in rows], np.float64)
    shape = next((dim for dim in (3, 2) if (count - _BOX) % dim == 0 and _are_key_points(values, dim)), None)
    if shape is not None:
        points = (count - _BOX) // shape
        raise DataError(
            f"{rows[0].where}: these rows look like a box and {points} key points of {shape} numbers, not like "
            f"polygons. Add `kpt_shape: [{points}, {shape}]` to the data.yaml, to use their boxes; or remove the "
            "key points"
        )


def _are_key_points(values: BoxArray, dim: int) -> bool:
    box, points = values[:, :_BOX], values[:, _BOX:].reshape(len(values), -1, dim)
    if dim == 3:  # the third number means: not labelled, hidden, visible
        if not np.isin(points[..., 2], (0, 1, 2)).all():
            return False
        seen = points[..., 2] > 0
    else:
        seen = (points != 0).any(axis=2)
    places, centre, half = points[..., :2], box[:, None, :2], box[:, None, 2:] / 2
    within = (np.abs(places - centre) <= half + 0.01).all(axis=2) | ~seen
    if within.all(axis=1).mean() < _NEARLY_ALL:
        return False
    if dim == 3:
        return True
    # A polygon's corners follow each other: its second is near the others, where a box has its size.
    rest = np.where(seen[..., None], places, np.nan)
    some = seen.sum(axis=1) >= 2
    if not some.any():
        return False
    low, high = np.nanmin(rest[some], axis=1), np.nanmax(rest[some], axis=1)
    room = (high - low) / 2 + 1e-3
    second = box[some, 2:]
    near = ((second >= low - room) & (second <= high + room)).all(axis=1)
    return bool(near.mean() < 0.5)
