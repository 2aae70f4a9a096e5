"""What every result can do, whatever its task: be shown, drawn, saved, told, compared."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import cv2
import msgspec
import numpy as np

from edgecnn.arrays import UInt8Array
from edgecnn.atomic import write_whole
from edgecnn.errors import SpecError
from edgecnn.given_pictures import image_of_given
from edgecnn.printable import shortened
from edgecnn.results import exchange

if TYPE_CHECKING:
    from pandas import DataFrame

    from edgecnn.arrays import FloatArray
    from edgecnn.given_pictures import GivenPicture

# Tasks stand above results: who reads one is found as a table finds its rows, by name and on first use.
_READERS = ("edgecnn.tasks", "TASKS")
_LONGEST_REPR = 200
_LARGEST_SHOWN_PX = 1600  # of a notebook's picture: the longer side
_INHERITED = ("__repr__", "__eq__")  # a dataclass would get its own, which print and compare whole arrays

SomeResult = TypeVar("SomeResult", bound="Result")


class Result:
    """Base of what a task says of one picture; which task reads one is found by `edgecnn.tasks.TASKS.of`.

    A result that a `Runner` made of a picture (not of a camera's `Frame`) remembers it, which copies nothing: an array
    by reference, so it stays in memory as long as the result, and what is written into it later shows; a file by its
    path, to be read again. Parts of a result remember it, too. What is pickled or copied doesn't.

    Results are equal where all their values are; they have no hash.

    Attributes:
        labels: names of all classes, by class id.
    """

    labels: tuple[str, ...]
    __hash__: ClassVar[None]  # type: ignore[assignment]

    def __init_subclass__(cls, **words: Any) -> None:
        super().__init_subclass__(**words)
        for name in _INHERITED:
            if name not in cls.__dict__:
                setattr(cls, name, getattr(cls, name))

    # --- the picture

    @property
    def picture(self) -> UInt8Array | None:
        """The picture it was found in, uint8 [height, width, 3] BGR, not a copy; None where it isn't known.

        Raises:
            DataError: its file was changed or removed meanwhile.
        """
        known = self.__dict__.get("_picture")
        image: UInt8Array | None = known() if callable(known) else known
        return image

    def draw(self, image: GivenPicture | None = None) -> UInt8Array:
        """A copy of the picture, uint8 [height, width, 3] BGR, with the result on it.

        Args:
            image: the picture, as a `Runner` takes one; without it, the one that it was found in.

        Raises:
            SpecError: no picture, or one of another size than the masks.
            DataError: a file that can't be read.
        """
        canvas = self._given_or_own_picture(image)
        return _reader(self).labelled(self.labels).draw(canvas, self)  # type: ignore[no-any-return]

    def save(self, path: str | Path, image: GivenPicture | None = None) -> Path:
        """Write the drawn picture, whole or not at all, in the format that the suffix says (".jpg", ".png", …).

        Args:
            path: an existing file is replaced.
            image: as for `draw`.

        Returns:
            The path.

        Raises:
            SpecError: as `draw`, or a suffix that no format of pictures has.
            StorageError: disk full, or not writable.
        """
        path = Path(path)
        write_whole(path, _encoded(self.draw(image), path.suffix))
        return path

    def crop(self, image: GivenPicture | None = None) -> list[UInt8Array]:
        """The part of the picture in each box, in the result's order: views of the picture, not copies.

        A box of less than a pixel, or outside the picture, gives an array without pixels.

        Args:
            image: as for `draw`.

        Raises:
            SpecError: as `draw`, or the result has no boxes.
        """
        boxes = self._boxes()
        return _cut_out(self._given_or_own_picture(image), boxes)

    # --- told

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as in the JSON lines of `run`: the task's name, what was found, and counts where there are."""
        document: dict[str, Any] = _reader(self).document(self)
        return document

    def to_json(self, *, indent: int | None = None) -> str:
        """`to_dict` as JSON.

        Args:
            indent: spaces a level; without it, one line.
        """
        line = msgspec.json.encode(self.to_dict())
        return (line if indent is None else msgspec.json.format(line, indent=indent)).decode()

    def to_coco(self, *, image_id: int = 0, category_ids: dict[int, int] | None = None) -> list[dict[str, Any]]:
        """COCO's form of results: a list of image_id, category_id, bbox [left, top, width, height] in px, and score.

        Args:
            image_id: the picture's, in the data set.
            category_ids: the data set's ids by class id; without them, the class ids.

        Raises:
            SpecError: COCO has no form for this kind of result, or a class has no id.
        """
        objects = _reader(self).objects(self)
        if objects is None:
            raise SpecError(f"COCO has no form of results for {type(self).__name__}: to_dict() has one")
        return exchange.coco_records(objects, image_id=image_id, category_ids=category_ids)

    def to_supervision(self) -> Any:
        """The objects as `supervision.Detections`, which shares the arrays of boxes, scores and ids.

        Raises:
            SpecError: the result holds no objects.
            MissingDependencyError: supervision is not installed.
        """
        objects = _reader(self).objects(self)
        if objects is None:
            raise SpecError(f"supervision has no form for {type(self).__name__}: to_dict() has one")
        return exchange.supervision_detections(objects)

    def to_pandas(self) -> DataFrame:
        """A table, a row for each thing found, the first best.

        Raises:
            MissingDependencyError: pandas is not installed.
        """
        return exchange.data_frame(self._columns())

    def __str__(self) -> str:
        """In a few words: "3 person, 1 car", "tabby 0.61, tiger cat 0.21", "road 41 %, sky 22 %"."""
        task = _reader(self)
        return "; ".join((", ".join(task.words(self)) or "nothing", *(str(count) for count in task.counts(self))))

    def __repr__(self) -> str:
        """In one short line, however much was found."""
        try:
            text = str(self)
        except Exception as unreadable:  # a debugger shows it all the same
            text = f"{type(unreadable).__name__}: {unreadable}"
        return f"<{type(self).__name__}: {shortened(text, length=_LONGEST_REPR)}>"

    def _repr_png_(self) -> bytes | None:
        """What a notebook shows: the drawn picture, scaled down where it is large; None where it isn't known."""
        image = self.picture
        if image is None:
            return None
        factor = min(1.0, _LARGEST_SHOWN_PX / max(image.shape[:2]))
        if factor == 1:
            return _encoded(self.draw(image), ".png")
        height, width = image.shape[:2]
        size = (max(1, round(width * factor)), max(1, round(height * factor)))
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        scaled: Result = _reader(self).scaled(self, size[0] / width, size[1] / height)
        return _encoded(scaled.draw(np.asarray(small, np.uint8)), ".png")

    # --- compared

    def __eq__(self, other: object) -> bool:
        """Whether it is of the same class, with the same values; the picture doesn't count."""
        if self is other:
            return True
        if type(self) is not type(other):
            return NotImplemented
        return all(_equal(value, getattr(other, name)) for name, value in _values(self).items())

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_picture"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    # --- for kinds of results

    def _size_px(self) -> tuple[int, int] | None:
        """Width and height of the picture, where the result itself tells them, as masks do."""
        return None

    def _boxes(self) -> FloatArray:
        """Boxes float32 [n, 4] xyxy in source pixels, of what is cut out."""
        objects = _reader(self).objects(self)
        if objects is None:
            raise SpecError(f"a result of the kind {type(self).__name__} has no boxes to cut out")
        boxes: FloatArray = objects.boxes_xyxy_px
        return boxes

    def _columns(self) -> dict[str, Any]:
        """Columns of its table."""
        figures = _reader(self).figures(self)
        return {"label": list(figures), "figure": list(figures.values())}

    def _given_or_own_picture(self, image: GivenPicture | None) -> UInt8Array:
        canvas = self.picture if image is None else image_of_given(image)
        if canvas is None:
            raise SpecError(
                "the picture of this result is not known (a camera's frames are not kept): give it, as in draw(image)"
            )
        size = (canvas.shape[1], canvas.shape[0])
        if self._size_px() not in (None, size):
            width, height = self._size_px() or size
            raise SpecError(f"the result is of a picture of {width}x{height} px, this one has {size[0]}x{size[1]}")
        return canvas


def found_in(result: SomeResult, picture: UInt8Array | Callable[[], UInt8Array] | None) -> SomeResult:
    """The result, which remembers its picture from now on: an array, or what gives it when it is asked for."""
    if picture is not None:
        object.__setattr__(result, "_picture", picture)
    return result


def changed(result: SomeResult, **values: Any) -> SomeResult:
    """A copy with other values of its fields, of the same picture; the other fields are shared."""
    copy: SomeResult = dataclasses.replace(result, **values)  # type: ignore[type-var]
    return found_in(copy, result.__dict__.get("_picture"))


def _reader(result: Result) -> Any:
    """The task that reads it.

    Raises:
        SpecError: no task has results of this class.
    """
    module, table = _READERS
    return getattr(import_module(module), table).of(result)


def _values(result: Any) -> dict[str, Any]:
    if dataclasses.is_dataclass(result):
        return {field.name: getattr(result, field.name) for field in dataclasses.fields(result) if field.compare}
    return dict(result.__getstate__())


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        floats = getattr(a, "dtype", None) is not None and np.issubdtype(a.dtype, np.inexact)
        return a is b or np.array_equal(a, b, equal_nan=bool(floats))
    return bool(a == b)


def _encoded(picture: UInt8Array, suffix: str) -> bytes:
    try:
        done, data = cv2.imencode(suffix or ".", picture)
    except cv2.error:
        done = False
    if not done:
        raise SpecError(f"no format of pictures has the suffix {suffix!r}: use .jpg, .png or .webp")
    return data.tobytes()


def _cut_out(image: UInt8Array, boxes_xyxy_px: FloatArray) -> list[UInt8Array]:
    height, width = image.shape[:2]
    outwards = np.concatenate((np.floor(boxes_xyxy_px[:, :2]), np.ceil(boxes_xyxy_px[:, 2:])), axis=1)
    corners = np.nan_to_num(outwards).clip(0, (width, height, width, height)).astype(np.int64)
    return [image[top : max(top, bottom), left : max(left, right)] for left, top, right, bottom in corners.tolist()]
