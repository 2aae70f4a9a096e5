"""Objects are used by class, by score and by place."""

from __future__ import annotations

import numpy as np
import pytest

from edgecnn.errors import SpecError, UnknownNameError
from edgecnn.results import Detections
from edgecnn.runners.live.tracking.selection import Selection
from edgecnn.tasks import TASKS, Detect

LABELS = ("person", "car", "dog")


def found(*objects: tuple[str, float, tuple[int, int]]) -> Detections:
    """Objects of 10x20 px, by the middle of their lower edge."""
    boxes = [[x - 5, y - 20, x + 5, y] for _, _, (x, y) in objects]
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array([score for _, score, _ in objects], np.float32),
        np.array([LABELS.index(label) for label, _, _ in objects], np.int64),
        LABELS,
    )


SEEN = found(("person", 0.9, (50, 50)), ("person", 0.4, (50, 90)), ("car", 0.5, (90, 50)), ("dog", 0.35, (10, 99)))


@pytest.mark.parametrize(
    ("selection", "kept"),
    [
        (Selection(), [True, True, True, True]),
        (Selection(classes=("person", "dog")), [True, True, False, True]),
        (Selection(class_scores={"person": 0.5}), [True, False, True, True]),
        (Selection(masks=("0,80,100,80,100,100,0,100",)), [True, False, True, False]),
        (Selection(classes=("person",), masks=("tree=40,40,60,40,60,60,40,60",)), [False, True, False, False]),
    ],
)
def test_what_is_not_selected_is_left_out(selection: Selection, kept: list[bool]) -> None:
    assert selection.kept(SEEN).tolist() == kept


def test_a_picture_without_objects_stays_one() -> None:
    everything = Selection(classes=("person",), class_scores={"car": 0.5}, masks=("0,0,9,0,9,9",))
    assert everything.kept(found()).tolist() == []


def test_options_are_read_and_wrong_ones_named() -> None:
    assert Selection.parse(["car"], ["car=0.5"], ()).class_scores == {"car": 0.5}
    with pytest.raises(SpecError, match=r"expected CLASS=SCORE, such as person=0.5; got 'car'"):
        Selection.parse(None, ["car"], ())
    with pytest.raises(SpecError, match=r"'car' must be in 0..1, got 7"):
        Selection.parse(None, ["car=7"], ())
    with pytest.raises(SpecError, match="expected x1"):
        Selection.parse(None, (), ["0,0,1,1"])
    with pytest.raises(UnknownNameError, match="did you mean person"):
        Selection(classes=("persn",)).check(Detect(labels=LABELS))
    with pytest.raises(SpecError, match="classify finds none"):
        Selection(classes=("person",)).check(TASKS.get("classify").labelled(LABELS))
