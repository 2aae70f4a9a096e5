"""A result is a list: counted, indexed, sliced, filtered; parts are views where numpy makes views."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgecnn.errors import SpecError, UnknownNameError
from edgecnn.results import Items, SegmentationMap
from tests.results.samples import KINDS, SIZE_PX, detections, each_kind, instances, segmentation

EACH = pytest.mark.parametrize("result", each_kind(), ids=KINDS)


@EACH
def test_a_slice_holds_the_first(result: Items) -> None:
    assert len(result[:1]) == 1
    assert result[:1].names == result.names[:1]
    assert len(list(result[1:])) == len(result) - 1


@EACH
def test_a_number_a_mask_and_positions_choose_what_numpy_would(result: Items) -> None:
    names = result.names
    assert result[0].names == names[:1]
    assert result[-1].names == names[-1:]
    assert result[np.int64(1)].names == names[1:2]
    mask = np.zeros(len(result), np.bool_)
    mask[1] = True
    assert result[mask].names == result[mask.tolist()].names == names[1:2]
    ordered = [0, 2] if isinstance(result, SegmentationMap) else [2, 0]  # classes of a map come largest first
    assert result[[2, 0]].names == [names[i] for i in ordered]
    assert result[np.array([-1])].names == names[-1:]
    assert len(result[[]]) == len(result[~(mask | True)]) == len(result[5:]) == 0


@EACH
@pytest.mark.parametrize("index", [99, -99, [0, 99], [True] * 99])
def test_what_is_not_there_is_an_index_error(result: Items, index: Any) -> None:
    with pytest.raises(IndexError, match=r"(of|for) a result with"):
        result[index]


@EACH
@pytest.mark.parametrize("index", ["person", 0.5, (0, 1), None, True, [0.5], ["person"], np.zeros((2, 2), np.int64)])
def test_anything_but_an_index_is_a_type_error(result: Items, index: Any) -> None:
    with pytest.raises(TypeError, match="index"):
        result[index]


def test_slices_are_views_and_masks_are_copies() -> None:
    found = instances()
    for part, shared in ((found[1:3], True), (found[0], True), (found[[0, 1]], False)):
        assert np.shares_memory(part.masks, found.masks) is shared
        assert np.shares_memory(part.boxes_xyxy_px, found.boxes_xyxy_px) is shared
        assert np.shares_memory(part.scores, found.scores) is shared
    map_ = segmentation()
    assert map_.filter(labels="car").classes is map_.classes


def test_a_part_keeps_ids_and_the_counts_of_the_whole() -> None:
    found = detections()
    part = found[[3, 1]]
    assert part.track_ids is not None and part.track_ids.tolist() == [10, 8]
    assert part.boxes_xyxy_px[:, 2].tolist() == [8, 4]
    assert part.counts == found.counts and part.labels == found.labels


@pytest.mark.parametrize("result", [detections(7), instances(7)], ids=["detections", "instances"])
def test_filters_by_class_score_and_area(result: Items) -> None:
    assert result.filter(labels="person").names == ["person"] * 3
    assert result.filter(labels=["car", 2]).names == ["car", "dog"] * 2
    assert result.filter(labels={"dog"}).class_ids.tolist() == [2, 2]
    assert len(result.filter(min_score=0.6)) == 4, "the limit itself counts"
    assert len(result.filter(labels="person", min_score=0.6)) == 2
    assert len(result.filter(min_score=1)) == 0
    assert result.filter() is result and result.filter(min_score=0.3) is result, "nothing is copied where all stay"


def test_areas_are_of_boxes_and_of_masks() -> None:
    assert detections().areas_px2.tolist() == [20, 40, 60, 80]
    assert instances().areas_px2.tolist() == [18, 36, 54, 72]
    assert segmentation().areas_px2.tolist() == [900, 200, 100]
    assert len(detections().filter(area=(40, 60))) == 2
    assert len(instances().filter(area=(40, 60))) == 1
    assert len(detections().filter(area=(41, None))) == len(detections().filter(area=(None, 59))) == 2
    assert segmentation().filter(area=(150, 1000)).names == ["car", "dog"]


@EACH
@pytest.mark.parametrize("labels", [["persn"], "persn", 3, [-1], [None], [1.5]])
def test_a_class_that_is_not_there_is_an_error(result: Items, labels: Any) -> None:
    with pytest.raises(SpecError):
        result.filter(labels=labels)
    with pytest.raises(UnknownNameError, match="did you mean person"):
        result.filter(labels="persn")


@pytest.mark.parametrize("limits", [(5,), 5, (9, 1), ("a", "b"), (float("nan"), 1)])
def test_limits_that_cannot_be_are_an_error(limits: Any) -> None:
    with pytest.raises(SpecError, match=r"area must be \(low, high\)"):
        detections().filter(area=limits)
    with pytest.raises(SpecError, match="min_score"):
        detections().filter(min_score=50)


def test_what_things_do_not_have_they_are_not_filtered_by() -> None:
    classification = each_kind()[2]
    with pytest.raises(SpecError, match="no areas"):
        classification.filter(area=(0, 1))
    with pytest.raises(SpecError, match="no scores"):
        segmentation().filter(min_score=0.5)


def test_a_part_of_a_map_means_only_its_classes() -> None:
    map_ = segmentation()
    part = map_.filter(labels=["dog", "person"])
    assert list(part) == [("dog", 200 / 1200), ("person", 100 / 1200)]
    assert part.shares() == dict(part)
    assert [segment["label"] for segment in part.to_dict()["segments"]] == ["dog", "person"]
    assert part.masks.shape == (2, SIZE_PX[1], SIZE_PX[0])
    assert part.masks.sum(axis=(1, 2)).tolist() == [200, 100]
    assert len(map_[:0]) == 0 and not map_[:0].shares()


def test_what_a_map_does_not_mean_is_not_tinted() -> None:
    map_ = segmentation()
    large = SegmentationMap(np.kron(map_.classes, np.ones((10, 10), np.uint8)), map_.labels)
    image = np.zeros((*large.classes.shape, 3), np.uint8)
    car, dog = (299, 0), (99, 199)  # beside the legend
    assert large.draw(image)[car].any() and large.draw(image)[dog].any()
    drawn = large.filter(labels="dog").draw(image)
    assert drawn[dog].any() and not drawn[car].any()
    assert not large[:0].draw(image).any()


def test_instances_are_iterated_with_their_masks() -> None:
    box, score, label, mask = next(iter(instances()))
    assert (box.tolist(), round(score, 3), label, int(mask.sum())) == ([0, 0, 2, 10], 0.9, "person", 18)
