"""The form of an answer: its tensors, the meaning of their axes, and the ranges of their values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgecnn.errors import SpecError

Array: TypeAlias = NDArray[Any]
Arrays: TypeAlias = Mapping[str, Array]

BATCH: Final = "batch"
CLASSES: Final = "C"
_ROUNDING = 1e-6  # tolerance for probabilities


@dataclass(frozen=True)
class TensorForm:
    """One tensor of an answer.

    Attributes:
        name: name of the tensor, in the graph and in every artifact.
        axes: each a number, or a word. `BATCH` is the number of pictures, `CLASSES` the number of labels; a word in two
            tensors means the same number in both.
        dtype: numpy's name of it.
        low, high: range of its values; None where it is unlimited.
        meaning: explanation for people, such as "xyxy in frame pixels".
    """

    name: str
    axes: tuple[int | str, ...]
    dtype: str = "float32"
    low: float | None = None
    high: float | None = None
    meaning: str = ""

    def __str__(self) -> str:
        """For example "boxes [batch, N, 4] (xyxy in frame pixels)"."""
        text = f"{self.name} [{', '.join(str(axis) for axis in self.axes)}]"
        if self.low is not None and self.high is not None:
            text += f" in [{self.low:g}, {self.high:g}]"
        return f"{text} ({self.meaning})" if self.meaning else text


class OutputSpec(Protocol):
    """An output as described in a manifest."""

    @property
    def name(self) -> str:
        """The tensor's name."""
        ...

    @property
    def dtype(self) -> str:
        """Numpy's name of it."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """The tensor's shape."""
        ...


def describe_forms(forms: Sequence[TensorForm]) -> str:
    """For messages: "boxes [batch, N, 4] (xyxy in frame pixels) and scores [batch, N, C] in [0, 1]"."""
    *first, last = (str(form) for form in forms)
    return f"{', '.join(first)} and {last}" if first else last


def has_form(tensors: Sequence[Array], forms: Sequence[TensorForm]) -> bool:
    """Whether an answer has a form: as many tensors, none empty, with these axes, and values in their ranges.

    Of the dtype only floating point or integer is compared: a network may compute in double.
    """
    if len(tensors) != len(forms):
        return False
    known: dict[str, int] = {}
    return all(
        array.size > 0 and _fits(array.shape, form.axes, known) and _in_range(array, form)
        for array, form in zip(tensors, forms, strict=True)
    )


def extent_of(axis: str, forms: Sequence[TensorForm], shapes: Sequence[Sequence[int]]) -> int | None:
    """The number for a word in an answer; None where no tensor has such an axis."""
    for form, shape in zip(forms, shapes, strict=True):
        if axis in form.axes:
            return int(shape[form.axes.index(axis)])
    return None


def check_outputs(outputs: Sequence[OutputSpec], forms: Sequence[TensorForm], labels: int) -> None:
    """Check that outputs have a form, and that each class has a label.

    Args:
        outputs: the outputs in a manifest.
        forms: the task's forms.
        labels: number of labels.

    Raises:
        SpecError: with the output, and the expected and found values.
    """
    wanted, found = [form.name for form in forms], [output.name for output in outputs]
    if wanted != found:
        raise SpecError(f"outputs must be {', '.join(wanted)}, found {', '.join(found) or 'none'}")
    known: dict[str, int] = {}
    for output, form in zip(outputs, forms, strict=True):
        if output.dtype != form.dtype:
            raise SpecError(f"output {form.name!r} must be {form.dtype}, found {output.dtype}")
        if not _fits(output.shape, form.axes, known):
            raise SpecError(f"outputs must be {describe_forms(forms)}, found {form.name!r} {list(output.shape)}")
        if min(output.shape, default=1) < 1:
            raise SpecError(f"output {form.name!r} must hold values, found {list(output.shape)}")
    classes = known.get(CLASSES, labels)
    if classes != labels:
        raise SpecError(f"labels: expected one for each of the {classes} classes of the outputs, found {labels}")


def _fits(shape: Sequence[int], axes: Sequence[int | str], known: dict[str, int]) -> bool:
    """Whether a shape has these axes; the numbers of words are added to `known`."""
    if len(shape) != len(axes):
        return False
    return all(
        extent == (axis if isinstance(axis, int) else known.setdefault(axis, extent))
        for extent, axis in zip(shape, axes, strict=True)
    )


def _in_range(array: Array, form: TensorForm) -> bool:
    """Whether no value is out of range; NaN is not checked here, because comparing frames detects it (BlindError)."""
    below = form.low is not None and bool(np.min(array) < form.low - _ROUNDING)
    above = form.high is not None and bool(np.max(array) > form.high + _ROUNDING)
    return not (below or above)
