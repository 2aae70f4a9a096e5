"""The interface of a task: everything that depends on the task is a method here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgecnn.errors import SpecError
from edgecnn.tasks.answer_form import Array, Arrays, OutputSpec, TensorForm, check_outputs, has_form

if TYPE_CHECKING:
    from edgecnn.frame import Placement
    from edgecnn.results import Count, Detections, Result, UInt8Array

T = TypeVar("T", bound="Task")


@dataclass(frozen=True)
class Compared:
    """Two tensors that parity compares.

    Attributes:
        found, expected: same shape, before saturation.
        counting: index or bool mask of the values to compare.
        discrete: True for class ids: the share of different values is used instead of their differences.
    """

    found: Array
    expected: Array
    counting: Any = ...
    discrete: bool = False


@dataclass(frozen=True)
class Limits:
    """Limits for the differences of an artifact of one precision.

    Attributes:
        tensors: max |a - b| / max |b| of each output before saturation.
        pixels: share of a class map's pixels that must be equal.
        box_iou, score: limits for detections matched one to one.
    """

    tensors: float
    pixels: float
    box_iou: float
    score: float


@dataclass(frozen=True)
class Match:
    """Agreement of two results for one picture.

    Attributes:
        ok: whether it is within the limits.
        agreement: share of equal parts.
        box_iou: lowest IoU of matched boxes; None without any.
        score: largest difference of matched scores; None without any.
    """

    ok: bool
    agreement: float
    box_iou: float | None = None
    score: float | None = None


@dataclass(frozen=True)
class Gauge:
    """The Prometheus gauge for a result's figures.

    Attributes:
        metric: name of the Prometheus gauge, which has one value per label.
        help: what it counts, one sentence.
    """

    metric: str
    help: str


@dataclass(frozen=True)
class Sensor:
    """How Home Assistant shows a result.

    Attributes:
        key: key of the headline in the state, and in the sensor's topic.
        name: the sensor's name for people.
        figures_key: key of the figures, which become the sensor's attributes.
        icon: from Material Design Icons.
        number: True if the headline is a number, so that statistics are kept.
    """

    key: str
    name: str
    figures_key: str
    icon: str
    number: bool


@dataclass(frozen=True)
class MetricNames:
    """Names of a metric for people.

    Attributes:
        full, short: over all classes, "AP@[.50:.95]" and "AP".
        of_class: for a single class.
        agreement: what `Task.agreement` is the share of.
    """

    full: str
    short: str
    of_class: str
    agreement: str = "results that agree"


class Metric(Protocol):
    """Collects results picture by picture, then gives the metric's value, and its values under resampling."""

    def add(self, result: Any, truth: Any, image: UInt8Array) -> None:
        """Add one picture's result and label, both of this metric's task."""
        ...

    def value(self) -> float:
        """The value over all pictures; NaN where there was nothing to count."""
        ...

    def resampled(self, weights: NDArray[np.int64]) -> NDArray[np.float64]:
        """The value for each row of weights (how often each picture was drawn, int64 [resamples, pictures]).

        Returns:
            float64 [resamples]; NaN where there was nothing to count.
        """
        ...

    def details(self) -> dict[str, Any]:
        """Further figures."""
        ...


class Task:
    """Base class of all tasks. A task is also a frozen `msgspec.Struct`: `tag_field="kind"`, and its name as the tag.

    Members without a default here must be defined; `edgecnn.tasks.TASKS` refuses a class that lacks one. Methods that
    read a result are class methods: a result has its own labels, so no settings are needed. Every result class belongs
    to one task (its `result`); a task with results like another's must derive its own result class.

    Attributes:
        labels: class names, by class id; empty before the network has run, where none were given.
        name: its name on the command line and in manifests.
        metric: name of its accuracy metric, in [0, 1], higher is better.
        result: the class of its results, derived from `edgecnn.results.Result`.
        truth: the kind of labels that it needs for measuring: see `edgecnn.tasks.truth`.
        gauge, sensor: see there.
        default_head: decoder for a network whose answer is not in the task's form; "" for none.
        metric_packages: packages that the metric needs, in addition to edgecnn's own requirements.
        leaves_out_a_class: whether the metric can ignore a class of the labels (`--ignore-label`).
        threshold_fields: names of thresholds that may be changed while running, each with its field.
    """

    __slots__ = ()

    labels: tuple[str, ...]
    name: ClassVar[str]
    metric: ClassVar[str]
    result: ClassVar[type]
    truth: ClassVar[str]
    gauge: ClassVar[Gauge]
    sensor: ClassVar[Sensor]
    default_head: ClassVar[str] = ""
    metric_packages: ClassVar[tuple[str, ...]] = ()
    leaves_out_a_class: ClassVar[bool] = False
    threshold_fields: ClassVar[Mapping[str, str]] = {}

    # --- the answer

    @property
    def answer(self) -> tuple[TensorForm, ...]:
        """The form of the network's decoded answer."""
        raise NotImplementedError

    @property
    def output_forms(self) -> tuple[TensorForm, ...]:
        """Outputs of every artifact, in the graph's order; equal to the answer unless the graph has a further step."""
        return self.answer

    @property
    def outputs(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(form.name for form in self.output_forms)

    @property
    def discrete_outputs(self) -> frozenset[str]:
        """Outputs with class ids instead of amounts: those of an integer type."""
        return frozenset(form.name for form in self.output_forms if "int" in form.dtype)

    @property
    def decides_in_graph(self) -> bool:
        """Whether the graph reduces the answer's first tensor to ids: the best along its second axis, uint8."""
        return False

    def needs_head(self, answer: Sequence[Array]) -> bool:
        """Whether a network with this answer gets the `default_head`: the answer is not in the task's form."""
        return bool(self.default_head) and not has_form(answer, self.answer)

    @property
    def labels_whole_picture(self) -> bool:
        """Whether the answer is one value per class for the whole picture, as with a classifier."""
        return [len(form.axes) for form in self.answer] == [2]

    def check_outputs(self, outputs: Sequence[OutputSpec]) -> None:
        """Check that a manifest's outputs fit this task, and that each class has a label.

        Raises:
            SpecError: with the field, and the expected and found values.
        """
        check_outputs(outputs, self.output_forms, len(self.labels))

    @classmethod
    def labelled(cls: type[T], labels: Sequence[str]) -> T:
        """The task with these labels and default settings."""
        return cls(labels=tuple(labels))  # type: ignore[call-arg]

    def with_labels(self: T, labels: Sequence[str]) -> T:
        """The task with other labels."""
        return _replaced(self, labels=tuple(labels))

    # --- from outputs to results

    def finish(self, outputs: Arrays, place: Placement) -> Result:
        """The result of one picture, in its own pixels.

        Args:
            outputs: by name, for a batch; only its first picture is used.
            place: the picture's position in the frame.
        """
        raise NotImplementedError

    @property
    def thresholds(self) -> dict[str, float]:
        """The thresholds that may be changed while running, by name ("score", "nms_iou")."""
        return {word: getattr(self, name) for word, name in self.threshold_fields.items()}

    def with_thresholds(self: T, **wanted: float | None) -> T:
        """The task with other thresholds; None leaves one unchanged.

        Raises:
            SpecError: the task has no such threshold, or the value is not allowed.
        """
        changes = {word: value for word, value in wanted.items() if value is not None}
        unknown = sorted(set(changes) - set(self.threshold_fields))
        if unknown:
            known = ", ".join(self.threshold_fields) or "none"
            raise SpecError(
                f"{' and '.join(unknown).replace('_', '-')}: the task {self.name} has no such threshold; it has "
                f"{known.replace('_', '-')}"
            )
        return _replaced(self, **{self.threshold_fields[word]: value for word, value in changes.items()})

    def for_evaluation(self: T) -> T:
        """The task with the thresholds that its metric needs."""
        return self

    # --- reading a result

    def draw(self, image: UInt8Array, result: Any) -> UInt8Array:
        """A copy of the picture (uint8 [height, width, 3] BGR) with the result drawn on it."""
        raise NotImplementedError

    @classmethod
    def words(cls, result: Any, *, most: int | None = None) -> list[str]:
        """A result in a few words, most important first: ["3 person", "1 car"], ["road 41 %"]; at most `most`."""
        raise NotImplementedError

    @classmethod
    def findings(cls, result: Any, *, most: int) -> list[str]:
        """The findings one by one, highest score first: ["person 0.93", "tie 0.41"]; at most `most`."""
        return cls.words(result, most=most)

    @classmethod
    def record(cls, result: Any) -> dict[str, Any]:
        """The result as JSON, plain values only; the task's name and the counts are added to it."""
        raise NotImplementedError

    @classmethod
    def document(cls, result: Any) -> dict[str, Any]:
        """The complete JSON of a result: the task's name, the record, and counts where there are any."""
        counts = [count.record() for count in cls.counts(result)]
        return {"task": cls.name, **cls.record(result), **({"counts": counts} if counts else {})}

    @classmethod
    def figures(cls, result: Any) -> dict[str, float]:
        """A result as numbers, one per label."""
        raise NotImplementedError

    @classmethod
    def headline(cls, result: Any) -> float | str | None:
        """A result as one value: by default, its most important label."""
        figures = cls.figures(result)
        return max(figures, key=lambda label: figures[label]) if figures else None

    @classmethod
    def scaled(cls, result: Any, factor_x: float, factor_y: float) -> Any:
        """The result for the same picture at another size."""
        raise NotImplementedError

    @classmethod
    def objects(cls, result: Any) -> Detections | None:
        """The objects, where the task has any: they can be tracked and counted."""
        return None

    @classmethod
    def with_objects(cls, result: Any, objects: Detections) -> Any:
        """The result with tracked objects; the same number in the same order."""
        raise NotImplementedError(f"{cls.name} has no objects")

    @classmethod
    def finds_objects(cls) -> bool:
        """Whether results have objects that can be tracked and counted."""
        return _function(cls, "objects") is not _function(Task, "objects")

    @classmethod
    def counts(cls, result: Any) -> tuple[Count, ...]:
        """Counts of its objects at lines and in zones."""
        objects = cls.objects(result)
        return () if objects is None else objects.counts

    # --- comparing two answers for one picture

    def compared(self, answer: Arrays, expected: Arrays) -> dict[str, Compared]:
        """The tensors for parity, by output: values before saturation, and a selection of them.

        Both answers have all outputs, with equal shapes and finite values.
        """
        discrete = self.discrete_outputs
        return {name: Compared(answer[name], expected[name], discrete=name in discrete) for name in self.outputs}

    def match(self, found: Any, expected: Any, limits: Limits) -> Match:
        """Compare two results of one picture."""
        raise NotImplementedError

    @classmethod
    def metric_names(cls) -> MetricNames:
        """The metric's names for people."""
        return MetricNames(cls.metric, cls.metric, cls.metric)

    @classmethod
    def agreement(cls, a: Any, b: Any) -> float | None:
        """Share of equal parts of two results; None where it depends on chance, as for many low-scored boxes."""
        return None

    # --- accuracy

    def new_metric(self, classes: Sequence[int], ignored: int | None) -> Metric:
        """A new metric for one data set.

        Args:
            classes: ids of the network's classes that the data set has, in increasing order.
            ignored: the class to ignore, for a task that can.

        Raises:
            MissingDependencyError: the metric needs a package that is not installed.
        """
        raise NotImplementedError


_OWED_ATTRIBUTES = ("name", "metric", "result", "truth", "gauge", "sensor")
_OWED_METHODS = ("answer", "finish", "draw", "words", "record", "figures", "scaled", "match", "new_metric")
_TAG_FIELD = "kind"


def check_task(part: Any, name: str) -> type[Task]:
    """The class, if it is a complete task of this name.

    Raises:
        SpecError: with the missing members.
    """
    if not (isinstance(part, type) and issubclass(part, Task) and issubclass(part, msgspec.Struct)):
        raise SpecError(
            f"task {name!r} must be a class derived from edgecnn.tasks.Task and msgspec.Struct, got {part!r}"
        )
    absent = [each for each in _OWED_ATTRIBUTES if not hasattr(part, each)]
    absent += [each for each in _OWED_METHODS if _function(part, each) is _function(Task, each)]
    if absent:
        raise SpecError(f"task {name!r} ({part.__module__}.{part.__name__}) must define {', '.join(absent)}")
    config = part.__struct_config__
    if part.name != name or config.tag != name or config.tag_field != _TAG_FIELD:
        raise SpecError(
            f"task {name!r} must have this name, tag_field={_TAG_FIELD!r} and tag={name!r}; found name={part.name!r}, "
            f"tag_field={config.tag_field!r}, tag={config.tag!r}"
        )
    return part


def check_share(name: str, value: float) -> None:
    """Check that a field is a share.

    Raises:
        SpecError: outside 0..1.
    """
    if not 0 <= value <= 1:
        raise SpecError(f"{name} must be in 0..1, got {value}")


def check_count(name: str, value: int) -> None:
    """Check that a field is a positive number.

    Raises:
        SpecError: below 1.
    """
    if value < 1:
        raise SpecError(f"{name} must be at least 1, got {value}")


def _function(owner: type, name: str) -> Any:
    found = getattr(owner, name)
    return getattr(found, "__func__", found)  # a class method is bound again each time


def _replaced(task: T, **changes: Any) -> T:
    return msgspec.structs.replace(task, **changes) if changes else task  # type: ignore[type-var]
