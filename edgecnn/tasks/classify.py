"""Image classification: one class for a whole picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
import numpy as np

from edgecnn.frame import Placement
from edgecnn.results import Classification, UInt8Array
from edgecnn.tasks import drawing
from edgecnn.tasks._objects import log_scores
from edgecnn.tasks.answer_form import BATCH, CLASSES, Array, Arrays, TensorForm
from edgecnn.tasks.base import Compared, Gauge, Limits, Match, Metric, MetricNames, Sensor, Task, check_count
from edgecnn.tasks.truth import LABEL

if TYPE_CHECKING:
    from typing import Self

_EVALUATION_CLASSES = 5  # top 5 needs as many
_SUM_ROUNDING = 1e-3


class Classify(Task, msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="classify"):
    """The class of a picture.

    Outputs of every artifact: `scores` float32 [1, C], probabilities.

    Attributes:
        labels: C class names, by class id.
        top: number of classes in a result.
    """

    labels: tuple[str, ...]
    top: int = 5

    name: ClassVar[str] = "classify"
    metric: ClassVar[str] = "top1"
    result: ClassVar[type] = Classification
    truth: ClassVar[str] = LABEL
    default_head: ClassVar[str] = "softmax"
    gauge: ClassVar[Gauge] = Gauge("edgecnn_class_score", "Of the newest result, 0 to 1.")
    sensor: ClassVar[Sensor] = Sensor("label", "Label", "shares", icon="mdi:label", number=False)

    def __post_init__(self) -> None:
        check_count("top", self.top)

    @property
    def answer(self) -> tuple[TensorForm, ...]:
        """Scores."""
        return (TensorForm("scores", (BATCH, CLASSES), low=0, high=1, meaning="probabilities; logits are converted"),)

    def needs_head(self, answer: Sequence[Array]) -> bool:
        """Whether the answer is logits instead of a distribution over the classes."""
        scores = answer[0]
        is_distribution = scores.ndim == 2 and scores.min() >= 0 and np.abs(scores.sum(1) - 1).max() < _SUM_ROUNDING
        return not is_distribution

    def finish(self, outputs: Arrays, place: Placement) -> Classification:
        """The `top` best classes; `place` is not used."""
        scores = outputs["scores"][0]
        order = np.argsort(-scores, kind="stable")[: self.top]
        return Classification(order, scores[order].astype(np.float32), self.labels)

    def for_evaluation(self) -> Self:
        """The task with at least five classes per result."""
        return msgspec.structs.replace(self, top=max(_EVALUATION_CLASSES, self.top))

    def draw(self, image: UInt8Array, result: Classification) -> UInt8Array:
        """A copy of the picture (uint8 [height, width, 3] BGR) with the best names in its corner."""
        canvas = image.copy()
        drawing.corner_lines(canvas, self.words(result))
        return canvas

    @classmethod
    def words(cls, result: Classification, *, most: int | None = None) -> list[str]:
        """For example ["tabby 0.61", "tiger cat 0.21"]."""
        return [f"{label} {score:.2f}" for label, score in result][:most]

    @classmethod
    def record(cls, result: Classification) -> dict[str, Any]:
        """`classes`, best first: label, class id, and score to 1e-6."""
        return {
            "classes": [
                {"label": result.labels[class_id], "class_id": class_id, "score": round(score, 6)}
                for class_id, score in zip(result.class_ids.tolist(), result.scores.tolist(), strict=True)
            ]
        }

    @classmethod
    def figures(cls, result: Classification) -> dict[str, float]:
        """The score of each class of the result, best first."""
        figures: dict[str, float] = {}
        for label, score in result:
            figures.setdefault(label, score)  # of two classes with one name the higher score
        return figures

    @classmethod
    def scaled(cls, result: Classification, factor_x: float, factor_y: float) -> Classification:
        """The same result: nothing in it is measured in pixels."""
        return result

    def compared(self, answer: Arrays, expected: Arrays) -> dict[str, Compared]:
        """Logarithms of the scores, minus their mean.

        For a softmax, logarithms equal the logits up to a constant per frame. Without subtracting it, it would be the
        largest number (6.9 for 1000 classes) and hide errors of a network that is nearly undecided.
        """
        found, right = (log_scores(each["scores"]) for each in (answer, expected))
        centred = [logits - logits.mean(axis=-1, keepdims=True) for logits in (found, right)]
        return {"scores": Compared(*centred)}

    def match(self, found: Classification, expected: Classification, limits: Limits) -> Match:
        """The same best class, or almost a tie."""
        same = bool(found.class_ids[0] == expected.class_ids[0])
        near_tie = len(expected) > 1 and float(expected.scores[0] - expected.scores[1]) < limits.score
        return Match(same or near_tie, float(same))

    @classmethod
    def metric_names(cls) -> MetricNames:
        """Top-1 accuracy."""
        return MetricNames("top-1 accuracy", "top-1", "top-1 accuracy", agreement="pictures with the same best class")

    @classmethod
    def agreement(cls, a: Classification, b: Classification) -> float | None:
        """1 where both have the same best class."""
        return float(a.class_ids[0] == b.class_ids[0])

    def new_metric(self, classes: Sequence[int], ignored: int | None) -> Metric:
        """Top-1 accuracy."""
        from edgecnn.tasks.metrics.top_k import TopK

        return TopK(self.labels)
