"""Metrics agree with their definitions and with faster-coco-eval, and their intervals hold them."""

from __future__ import annotations

import builtins
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgecnn._verbs.evaluate import evaluate
from edgecnn.datasets import UNLABELLED, BoxTruth, Dataset, LabelTruth, MapTruth, Sample, Truth
from edgecnn.datasets.base import map_classes
from edgecnn.errors import BundleError, DataError, MissingDependencyError, SpecError
from edgecnn.flow.evaluation import as_bundle
from edgecnn.measure.accuracy import Accuracy, measure_accuracy
from edgecnn.results import Classification, Detections, Instances, Result, SegmentationMap, UInt8Array
from edgecnn.tasks import Classify, Detect, InstanceSegment, Segment
from edgecnn.tasks.metrics.average_precision import AveragePrecision

LABELS = ("cat", "dog", "owl")
HEIGHT_PX, WIDTH_PX = 48, 64


def fixed(truth: Truth) -> Callable[[UInt8Array], Truth]:
    return lambda image: truth


def dataset_of(folder: Path, truths: Sequence[Truth], *, names: Sequence[str] = LABELS) -> Dataset:
    """A data set of one grey picture, with a truth for each time that it occurs."""
    path = folder / "grey.png"
    cv2.imwrite(str(path), np.full((HEIGHT_PX, WIDTH_PX, 3), 99, np.uint8))
    samples = tuple(Sample(path, fixed(truth)) for truth in truths)
    return Dataset(folder, "made here", map_classes(names, LABELS, where=folder), samples)


def replay(results: Sequence[Result]) -> Callable[[UInt8Array], Result]:
    """A network that answers these, one after the other."""
    answers = iter(results)
    return lambda image: next(answers)


def random_boxes(rng: np.random.Generator, count: int) -> np.ndarray[Any, Any]:
    corners = rng.uniform(0, 30, (count, 2))
    return np.concatenate([corners, corners + rng.uniform(4, 30, (count, 2))], axis=1)


def random_detection_case(
    rng: np.random.Generator, pictures: int, classes: int = 3
) -> tuple[list[BoxTruth], list[Detections]]:
    """Truths (some of them crowds), and results: each truth found with some error, and rubbish."""
    truths, results = [], []
    for _ in range(pictures):
        count = int(rng.integers(0, 6))
        boxes, ids = random_boxes(rng, count), rng.integers(0, classes, count)
        areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
        truths.append(BoxTruth(boxes, ids, rng.random(count) < 0.2, areas))
        found = np.concatenate([boxes + rng.normal(0, 1.5, boxes.shape), boxes, random_boxes(rng, 8)])
        found[:, 2:] = np.maximum(found[:, 2:], found[:, :2] + 1)
        found_ids = np.concatenate([ids, ids, rng.integers(0, classes, 8)])
        scores = rng.random(len(found)).astype(np.float32)
        order = np.argsort(-scores)
        labels = tuple(f"class {i}" for i in range(classes)) if classes != 3 else LABELS
        results.append(Detections(found[order].astype(np.float32), scores[order], found_ids[order], labels))
    return truths, results


def library_stats(truths: Sequence[BoxTruth], results: Sequence[Detections], copies: Sequence[int]) -> Any:
    """What faster-coco-eval says of a data set in which each picture occurs so many times."""
    library = pytest.importorskip("faster_coco_eval")
    content: dict[str, list[dict[str, Any]]] = {"images": [], "annotations": [], "categories": []}
    content["categories"] = [{"id": i, "name": label} for i, label in enumerate(LABELS)]
    found = []
    for truth, result, times in zip(truths, results, copies, strict=True):
        for _ in range(times):
            image_id = len(content["images"]) + 1
            content["images"].append({"id": image_id, "height": HEIGHT_PX, "width": WIDTH_PX})
            for box, class_id, crowd, area in zip(
                truth.boxes_xyxy_px, truth.class_ids, truth.ignored, truth.areas_px2, strict=True
            ):
                content["annotations"].append(
                    {
                        "id": len(content["annotations"]) + 1,
                        "image_id": image_id,
                        "category_id": int(class_id),
                        "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
                        "area": area,
                        "iscrowd": int(crowd),
                    }
                )
            for box, score, class_id in zip(
                result.boxes_xyxy_px.astype(float), result.scores.tolist(), result.class_ids, strict=True
            ):
                bbox = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
                found.append({"image_id": image_id, "category_id": int(class_id), "bbox": bbox, "score": score})
    truth_set = library.COCO(content)
    evaluation = library.COCOeval_faster(truth_set, truth_set.loadRes(found), "bbox")
    evaluation.run()
    return evaluation.stats


@pytest.mark.parametrize("seed", range(3))
def test_average_precision_is_that_of_faster_coco_eval(tmp_path: Path, seed: int) -> None:
    truths, results = random_detection_case(np.random.default_rng(seed), 20)
    expected = library_stats(truths, results, [1] * 20)
    accuracy = measure_accuracy(replay(results), dataset_of(tmp_path, truths), task=Detect(labels=LABELS))
    assert accuracy.metric == "map"
    assert accuracy.value == expected[0]
    assert (accuracy.details["map50"], accuracy.details["map75"]) == (expected[1], expected[2])
    assert np.mean(list(accuracy.details["per_class"].values())) == pytest.approx(expected[0], abs=1e-12)
    assert accuracy.low < accuracy.value < accuracy.high


@pytest.mark.parametrize("seed", range(3))
def test_resampled_average_precision_is_that_of_a_data_set_with_copies(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    truths, results = random_detection_case(rng, 20)
    metric = AveragePrecision(LABELS, dataset_of(tmp_path, truths).classes.common_ids, masks=False)
    image = np.zeros((HEIGHT_PX, WIDTH_PX, 3), np.uint8)
    for truth, result in zip(truths, results, strict=True):
        metric.add(result, truth, image)
    weights = np.concatenate([np.ones((1, 20), np.int64), rng.multinomial(20, [1 / 20] * 20, size=3)])
    expected = [library_stats(truths, results, row)[0] for row in weights]
    assert metric.resampled(weights) == pytest.approx(expected, abs=1e-12)


def test_the_interval_of_128_pictures_with_80_classes_takes_seconds(tmp_path: Path) -> None:
    pytest.importorskip("faster_coco_eval")
    truths, results = random_detection_case(np.random.default_rng(0), 128, classes=80)
    labels = tuple(f"class {i}" for i in range(80))
    dataset = dataset_of(tmp_path, truths)
    dataset = Dataset(dataset.path, "", map_classes(labels, labels, where=tmp_path), dataset.samples)
    start = time.perf_counter()
    measure_accuracy(replay(results), dataset, task=Detect(labels=labels))
    assert time.perf_counter() - start < 20


def test_detections_of_classes_that_the_data_set_lacks_do_not_count(tmp_path: Path) -> None:
    pytest.importorskip("faster_coco_eval")
    box = np.array([[0.0, 0.0, 20.0, 20.0]])
    truth = BoxTruth(box, np.array([0]), np.array([False]), np.array([400.0]))
    result = Detections(
        np.repeat(box, 2, axis=0).astype(np.float32),
        np.array([0.9, 0.8], np.float32),
        np.array([2, 0]),
        LABELS,
    )
    dataset = dataset_of(tmp_path, [truth], names=("dog", "cat"))
    assert measure_accuracy(replay([result]), dataset, task=Detect(labels=LABELS)).value == 1.0


def test_masks_are_measured_as_masks(tmp_path: Path) -> None:
    pytest.importorskip("faster_coco_eval")
    outline = [[0.0, 0.0, 20.0, 0.0, 20.0, 20.0, 0.0, 20.0]]
    box = np.array([[0.0, 0.0, 20.0, 20.0]])
    truth = BoxTruth(box, np.array([1]), np.array([False]), np.array([400.0]), (outline,))
    half = np.zeros((1, HEIGHT_PX, WIDTH_PX), np.bool_)
    half[0, :20, :13] = True  # IoU 0.65: right at 0.50, 0.55, 0.60 and 0.65
    detections = Detections(box.astype(np.float32), np.array([0.9], np.float32), np.array([1]), LABELS)
    accuracy = measure_accuracy(
        replay([Instances(detections, half)]),
        dataset_of(tmp_path, [truth]),
        task=InstanceSegment(labels=LABELS),
    )
    assert accuracy.value == pytest.approx(0.4)
    assert accuracy.details["map_boxes"] == pytest.approx(1.0)


def test_nothing_found_is_an_average_precision_of_zero(tmp_path: Path) -> None:
    pytest.importorskip("faster_coco_eval")
    truths, _ = random_detection_case(np.random.default_rng(0), 4)
    empty = Detections(np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty(0, np.int64), LABELS)
    accuracy = measure_accuracy(replay([empty] * 4), dataset_of(tmp_path, truths), task=Detect(labels=LABELS))
    assert (accuracy.value, accuracy.low, accuracy.high) == (0, 0, 0)


def test_a_data_set_without_objects_has_no_average_precision(tmp_path: Path) -> None:
    pytest.importorskip("faster_coco_eval")
    none = BoxTruth(np.empty((0, 4)), np.empty(0, np.int64), np.empty(0, np.bool_), np.empty(0))
    empty = Detections(np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty(0, np.int64), LABELS)
    with pytest.raises(DataError, match="none has an object or pixel that counts"):
        measure_accuracy(replay([empty]), dataset_of(tmp_path, [none]), task=Detect(labels=LABELS))


def test_without_faster_coco_eval_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def without(name: str, *arguments: Any, **keywords: Any) -> Any:
        if name.startswith("faster_coco_eval"):
            raise ModuleNotFoundError(name=name)
        return original(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingDependencyError, match=r"edgecnn\[eval\]"):
        measure_accuracy(replay([]), dataset_of(tmp_path, [LabelTruth(0)]), task=Detect(labels=LABELS))


def class_map(rows: Sequence[Sequence[int]]) -> np.ndarray[Any, Any]:
    return np.array(rows, np.int64)


def segmentation_accuracy(
    folder: Path, truth: np.ndarray[Any, Any], predicted: np.ndarray[Any, Any], **options: Any
) -> Accuracy:
    result = SegmentationMap(predicted.astype(np.uint8), LABELS)
    dataset = dataset_of(folder, [MapTruth(truth)], names=options.pop("names", LABELS))
    return measure_accuracy(replay([result]), dataset, task=Segment(labels=LABELS), **options)


def test_mean_iou_is_that_of_a_case_computed_by_hand(tmp_path: Path) -> None:
    truth = class_map([[0, 0, 0, 1], [1, 1, UNLABELLED, UNLABELLED]])
    predicted = class_map([[0, 0, 1, 1], [1, 0, 0, 2]])
    accuracy = segmentation_accuracy(tmp_path, truth, predicted)
    # cat: 2 right of 3 true and 3 predicted, so 2 / 4; dog: 2 of 3 and 3, so 2 / 4; owl: nowhere
    assert accuracy.details["per_class"] == {"cat": 0.5, "dog": 0.5}
    assert accuracy.value == 0.5
    assert accuracy.details["pixel_accuracy"] == pytest.approx(4 / 6)
    assert accuracy.details["counted_pixel_share"] == pytest.approx(6 / 8)


def test_a_class_without_labels_is_wrong_but_not_averaged(tmp_path: Path) -> None:
    accuracy = segmentation_accuracy(tmp_path, class_map([[0, 0, 0, 0]]), class_map([[0, 0, 0, 2]]))
    assert accuracy.details["per_class"] == {"cat": 0.75}
    assert accuracy.value == 0.75


def test_a_class_that_the_data_set_lacks_is_wrong_but_not_averaged(tmp_path: Path) -> None:
    truth, predicted = class_map([[0, 0, 1, 1]]), class_map([[0, 2, 1, 1]])
    accuracy = segmentation_accuracy(tmp_path, truth, predicted, names=("cat", "dog"))
    assert accuracy.details["per_class"] == {"cat": 0.5, "dog": 1.0}


@pytest.mark.parametrize("label", ["dog", "1", 1])
def test_an_ignored_class_leaves_its_pixels_out(tmp_path: Path, label: str | int) -> None:
    truth, predicted = class_map([[0, 0, 1, 1]]), class_map([[0, 1, 0, 0]])
    accuracy = segmentation_accuracy(tmp_path, truth, predicted, ignore_label=label)
    assert accuracy.details["per_class"] == {"cat": 0.5}


def test_an_ignored_class_must_be_one_of_the_data(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no class 'yak'"):
        segmentation_accuracy(tmp_path, class_map([[0]]), class_map([[0]]), ignore_label="yak")


def test_a_map_without_a_counted_pixel_has_no_mean_iou(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none has an object or pixel that counts"):
        segmentation_accuracy(tmp_path, class_map([[UNLABELLED]]), class_map([[0]]))


def test_the_interval_of_mean_iou_comes_from_whole_pictures(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    truths = [MapTruth(rng.integers(0, 3, (8, 8))) for _ in range(30)]
    results = [
        SegmentationMap(np.where(rng.random((8, 8)) < rng.random(), t.classes, 0).astype(np.uint8), LABELS)
        for t in truths
    ]
    dataset, task = dataset_of(tmp_path, truths), Segment(labels=LABELS)
    first = measure_accuracy(replay(results), dataset, task=task)
    again = measure_accuracy(replay(results), dataset, task=task)
    assert 0 < first.low < first.value < first.high < 1
    assert first == again  # the same seed


def classification(*class_ids: int) -> Classification:
    scores = np.linspace(0.9, 0.1, len(class_ids), dtype=np.float32)
    return Classification(np.array(class_ids), scores, LABELS)


def test_top_1_counts_the_best_class_and_top_5_any_of_them(tmp_path: Path) -> None:
    truths = [LabelTruth(0), LabelTruth(0), LabelTruth(1), LabelTruth(1)]
    results = [
        classification(0, 1, 2),
        classification(1, 0, 2),
        classification(1, 0, 2),
        classification(1, 2, 0),
    ]
    seen: list[tuple[int, int]] = []
    accuracy = measure_accuracy(
        replay(results),
        dataset_of(tmp_path, truths),
        task=Classify(labels=LABELS),
        progress=lambda done, total: seen.append((done, total)),
    )
    assert (accuracy.metric, accuracy.value, accuracy.n) == ("top1", 0.75, 4)
    assert accuracy.details["top5"] == 1.0
    assert accuracy.details["per_class"] == {"cat": 0.5, "dog": 1.0}
    assert accuracy.low <= 0.75 <= accuracy.high
    assert (seen[0], seen[-1]) == ((0, 4), (4, 4))


def test_the_interval_of_top_1_is_about_that_of_a_binomial(tmp_path: Path) -> None:
    hits = np.random.default_rng(3).random(400) < 0.8
    results = [classification(*((0, 1) if hit else (1, 0))) for hit in hits]
    accuracy = measure_accuracy(
        replay(results),
        dataset_of(tmp_path, [LabelTruth(0)] * 400),
        task=Classify(labels=LABELS),
        resamples=500,
    )
    half_width = 1.96 * np.sqrt(0.8 * 0.2 / 400)
    assert accuracy.high - accuracy.low == pytest.approx(2 * half_width, rel=0.2)


def test_ignoring_a_label_is_for_segmentation(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="segmentation"):
        measure_accuracy(
            replay([]),
            dataset_of(tmp_path, [LabelTruth(0)]),
            task=Classify(labels=LABELS),
            ignore_label="cat",
        )


def test_detectors_are_evaluated_with_low_thresholds_by_default() -> None:
    task = Detect(labels=LABELS, max_detections=50).for_evaluation()
    assert (task.score_threshold, task.nms_iou, task.max_detections) == (0.01, 0.65, 300)
    changed_task = Detect(labels=LABELS).for_evaluation().with_thresholds(score=0.5, nms_iou=0.4)
    assert (changed_task.score_threshold, changed_task.nms_iou) == (0.5, 0.4)


def test_a_network_has_no_onnx_artifact(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="edgecnn convert torchvision:resnet18 --to onnx"):
        evaluate("torchvision:resnet18", tmp_path, format="onnx")


def test_what_is_called_a_bundle_must_be_one(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="does not exist"):
        evaluate(tmp_path / "gone.edge", tmp_path)


def test_names_of_networks_are_not_bundles() -> None:
    assert as_bundle("yolox-nano") is None
    assert as_bundle("net.pt2") is None
