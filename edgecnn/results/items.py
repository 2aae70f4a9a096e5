"""Results that are lists of things: counted, indexed, filtered."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from edgecnn.arrays import BoolArray, FloatArray, IntArray
from edgecnn.errors import SpecError, UnknownNameError
from edgecnn.results.result import Result

Some = TypeVar("Some", bound="Items")
Index: TypeAlias = slice | IntArray | BoolArray
Label: TypeAlias = str | int  # a class by its name, or by its id


class Items(Result):
    """A result that is a list of things, each of a class; best first.

    `result[i]`, `result[a:b]`, `result[mask]` (bool [n]) and `result[positions]` (whole numbers) are results of the
    same kind with a part of the things. Numbers and slices give views of the arrays, masks and positions copies, as in
    numpy.

    Attributes:
        class_ids: int64 [n].
        scores: float32 [n] in [0, 1]; None of things without.
        areas_px2: float64 [n], in source pixels; None of things without.
    """

    class_ids: IntArray
    scores: FloatArray | None

    @property
    def areas_px2(self) -> NDArray[np.float64] | None:
        """Float64 [n], in source pixels; None of things without."""
        return None

    @property
    def names(self) -> list[str]:
        """The label of each."""
        return [self.labels[class_id] for class_id in self.class_ids.tolist()]

    def part(self: Some, index: Index) -> Some:
        """Those at a slice, a mask or positions; what `[]` stands on, which has checked the index."""
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self.class_ids)

    def __iter__(self) -> Iterator[Any]:
        """Each as a result with one, where a kind doesn't say otherwise."""
        return (self.part(slice(i, i + 1)) for i in range(len(self)))

    def __getitem__(self: Some, index: Any) -> Some:
        """A result with those at a number, a slice, a mask or positions.

        Raises:
            IndexError: outside, or a mask of another length.
            TypeError: none of these.
        """
        return self.part(_checked(index, len(self)))

    def filter(
        self: Some,
        *,
        labels: Label | Iterable[Label] | None = None,
        min_score: float | None = None,
        area: tuple[float | None, float | None] | None = None,
    ) -> Some:
        """Those that meet all conditions, in their order; where all do, the result itself, else with arrays of its own.

        Args:
            labels: classes, by name or id; one, or several.
            min_score: score at least this, 0..1.
            area: area from low to high, both included, in px² of the source picture: of the mask where there is one,
                else of the box. None for no limit, as in (1000, None).

        Raises:
            SpecError: no class of that name or id, limits that can't be, or things without scores or areas.
        """
        keep = np.ones(len(self), np.bool_)
        if labels is not None:
            keep &= np.isin(self.class_ids, _class_ids(labels, self.labels))
        if min_score is not None:
            if not 0 <= min_score <= 1:
                raise SpecError(f"min_score must be in 0..1, got {min_score}")
            keep &= self._owned("scores", getattr(self, "scores", None)) >= np.float32(min_score)
        if area is not None:
            low, high = _limits(area)
            areas = self._owned("areas", self.areas_px2)
            keep &= (areas >= low) & (areas <= high)
        return self if keep.all() else self.part(keep)

    def _columns(self) -> dict[str, Any]:
        columns: dict[str, Any] = {"label": self.names, "class_id": self.class_ids}
        if (scores := getattr(self, "scores", None)) is not None:
            columns["score"] = scores
        if (areas := self.areas_px2) is not None:
            columns["area_px2"] = areas
        return columns

    def _owned(self, what: str, values: NDArray[Any] | None) -> NDArray[Any]:
        if values is None:
            raise SpecError(f"a result of the kind {type(self).__name__} has no {what} to filter by")
        return values


def _checked(index: Any, count: int) -> Index:
    if isinstance(index, slice):
        return index
    if isinstance(index, list | np.ndarray) and np.ndim(index) == 1:
        return _positions(np.asarray(index, None if len(index) else np.int64), count)
    try:
        position = operator.index(index)
    except TypeError:
        position = None
    if position is None or isinstance(index, bool | np.bool_):
        raise TypeError(
            "the index of a result must be a whole number, a slice, a boolean mask or an array of whole numbers, got "
            f"{index!r:.60}; filter(labels=...) finds classes"
        )
    if not -count <= position < count:
        raise IndexError(f"index {position} of a result with {count}")
    position %= count
    return slice(position, position + 1)


def _positions(index: NDArray[Any], count: int) -> Index:
    if index.dtype == np.bool_:
        if len(index) != count:
            raise IndexError(f"a mask for a result with {count} must have as many values, got {len(index)}")
        return index
    if not np.issubdtype(index.dtype, np.integer):
        raise TypeError(f"an array that indexes a result must be of bool or whole numbers, got {index.dtype}")
    if len(index) and not -count <= index.min() <= index.max() < count:
        raise IndexError(f"indices {index.min()} to {index.max()} of a result with {count}")
    return index


def _class_ids(wanted: Label | Iterable[Label], labels: tuple[str, ...]) -> list[int]:
    ids: list[int] = []
    for label in [wanted] if isinstance(wanted, str) or not isinstance(wanted, Iterable) else wanted:
        if isinstance(label, str):
            found = [i for i, name in enumerate(labels) if name == label]
            if not found:
                raise UnknownNameError("class", label, labels)
            ids += found
        elif isinstance(label, int | np.integer) and 0 <= label < len(labels):
            ids.append(int(label))
        else:
            raise SpecError(f"a class is a name or an id of 0..{len(labels) - 1}, got {label!r:.60}")
    return ids


def _limits(area: tuple[float | None, float | None]) -> tuple[float, float]:
    try:
        first, last = area
        low, high = 0.0 if first is None else float(first), np.inf if last is None else float(last)
    except (TypeError, ValueError):
        raise SpecError(f"area must be (low, high) in px², got {area!r:.60}") from None
    if not low <= high:
        raise SpecError(f"area must be (low, high) in px², low first, got ({low:g}, {high:g})")
    return low, high
