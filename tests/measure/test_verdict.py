"""Two networks on the same pictures: the difference, its interval, the verdict, and pictures that may not be used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgecnn.bundle import Artifact, FileRecord
from edgecnn.bundle.evidence import CalibrationRecord, Evidence, QuantizationEvidence, SearchRecord
from edgecnn.datasets import Dataset, LabelTruth, MapTruth, Sample, Truth
from edgecnn.datasets.base import map_classes
from edgecnn.errors import DataError
from edgecnn.measure.accuracy import Accuracy, PairedAccuracy, compare_accuracy, measure_accuracy
from edgecnn.measure.leakage import pictures_seen, refuse_seen_pictures
from edgecnn.measure.verdict import verdict
from edgecnn.pictures import picture_hash, read_picture
from edgecnn.results import Classification, Detections, Result, SegmentationMap, UInt8Array
from edgecnn.tasks import Classify, Detect, Segment

LABELS = ("cat", "dog")
CLASSIFY = Classify(labels=LABELS)
CAT = Classification(np.array([0, 1]), np.array([0.9, 0.1], np.float32), LABELS)
DOG = Classification(np.array([1, 0]), np.array([0.9, 0.1], np.float32), LABELS)
RNG_SEED = 5


def fixed(truth: Truth) -> Callable[[UInt8Array], Truth]:
    return lambda image: truth


def dataset_of(folder: Path, truths: Sequence[Truth]) -> Dataset:
    """A data set of one grey picture, with a truth for each time that it occurs."""
    path = folder / "grey.png"
    cv2.imwrite(str(path), np.full((6, 8, 3), 99, np.uint8))
    samples = tuple(Sample(path, fixed(truth)) for truth in truths)
    return Dataset(folder, "made here", map_classes(LABELS, LABELS, where=folder), samples)


def cats(folder: Path, count: int) -> Dataset:
    return dataset_of(folder, [LabelTruth(0)] * count)


def replay(results: Sequence[Result]) -> Callable[[UInt8Array], Result]:
    """A network that answers these, one after the other."""
    answers = iter(results)
    return lambda image: next(answers)


def right_where(hits: Sequence[bool] | np.ndarray[Any, np.dtype[np.bool_]]) -> Callable[[UInt8Array], Result]:
    return replay([CAT if hit else DOG for hit in hits])


def paired(difference: float, low: float, high: float, *, n: int = 128) -> PairedAccuracy:
    first, second = (Accuracy("top1", value, 0.0, 1.0, n) for value in (0.5 + difference, 0.5))
    return PairedAccuracy(first, second, difference, low, high, None)


def test_each_network_gets_the_figures_that_it_gets_alone(tmp_path: Path) -> None:
    rng = np.random.default_rng(RNG_SEED)
    first, second = rng.random(60) < 0.7, rng.random(60) < 0.8
    seen: list[tuple[int, int]] = []
    found = compare_accuracy(
        right_where(first),
        right_where(second),
        cats(tmp_path, 60),
        task=CLASSIFY,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert found.first == measure_accuracy(right_where(first), cats(tmp_path, 60), task=CLASSIFY)
    assert found.second == measure_accuracy(right_where(second), cats(tmp_path, 60), task=CLASSIFY)
    assert found.difference == found.first.value - found.second.value
    assert found.agreement == np.mean(first == second)
    assert (seen[0], seen[-1]) == ((0, 60), (60, 60))


def test_pairs_show_a_difference_that_two_intervals_hide(tmp_path: Path) -> None:
    second = np.random.default_rng(RNG_SEED).random(128) < 0.6
    first = second.copy()
    first[np.flatnonzero(second)[:9]] = False  # nine more mistakes, all else equal
    found = compare_accuracy(right_where(first), right_where(second), cats(tmp_path, 128), task=CLASSIFY)
    assert found.first.high > found.second.low  # each by itself says nothing
    assert found.difference == pytest.approx(-9 / 128)
    assert found.low < found.difference < found.high < 0
    assert verdict(("int8", "fp32"), found).endswith("worse")


def test_the_interval_of_the_difference_is_about_that_of_a_mean_of_differences(tmp_path: Path) -> None:
    rng = np.random.default_rng(RNG_SEED)
    first, second = rng.random(400) < 0.7, rng.random(400) < 0.8
    found = compare_accuracy(
        right_where(first), right_where(second), cats(tmp_path, 400), task=CLASSIFY, resamples=1000
    )
    deviation = (first.astype(float) - second).std() / np.sqrt(400)
    assert found.high - found.low == pytest.approx(2 * 1.96 * deviation, rel=0.15)


def test_equal_networks_have_no_difference_and_no_verdict(tmp_path: Path) -> None:
    hits = np.random.default_rng(RNG_SEED).random(40) < 0.7
    found = compare_accuracy(right_where(hits), right_where(hits), cats(tmp_path, 40), task=CLASSIFY)
    assert (found.difference, found.low, found.high, found.agreement) == (0, 0, 0, 1)
    said = verdict(("int8", "fp32"), found)
    assert said == "no significant difference between int8 and fp32 with 40 images: +0.000 [+0.000, +0.000]"


def test_equally_good_networks_rarely_get_different_verdicts(tmp_path: Path) -> None:
    rng = np.random.default_rng(RNG_SEED)
    dataset, different = cats(tmp_path, 64), 0
    for _ in range(100):
        first, second = rng.random((2, 64)) < 0.9
        found = compare_accuracy(right_where(first), right_where(second), dataset, task=CLASSIFY)
        different += "no significant difference" not in verdict(("a", "b"), found)
    assert different <= 11  # 5 are expected; more than 11 would come about once in 200 times


def test_without_resamples_the_interval_is_the_difference(tmp_path: Path) -> None:
    found = compare_accuracy(
        right_where([True, False]), right_where([True, True]), cats(tmp_path, 2), task=CLASSIFY, resamples=0
    )
    assert (found.low, found.difference, found.high) == (-0.5, -0.5, -0.5)


class MadeMetric:
    """Returns what it is given: a figure, and the figures of 100 draws."""

    def __init__(self, value: float, draws: np.ndarray[Any, Any]) -> None:
        self._value, self._draws = value, draws

    def add(self, result: Result, truth: Truth, image: UInt8Array) -> None:
        del result, truth, image

    def value(self) -> float:
        return self._value

    def resampled(self, weights: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        assert weights.shape == (100, 30)
        return self._draws

    def details(self) -> dict[str, Any]:
        return {}


def compare_made(monkeypatch: pytest.MonkeyPatch, folder: Path, *metrics: MadeMetric) -> PairedAccuracy:
    made = iter(metrics)
    monkeypatch.setattr(Classify, "new_metric", lambda task, classes, ignored: next(made))
    hits = [True] * 30
    return compare_accuracy(right_where(hits), right_where(hits), cats(folder, 30), task=CLASSIFY, resamples=100)


def test_one_picture_that_makes_the_whole_difference_gives_no_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without = 37 * [0.5]  # a picture is absent from 37 % of the draws
    first = MadeMetric(0.490, np.array([*without, *(63 * [0.492])]))
    found = compare_made(monkeypatch, tmp_path, first, MadeMetric(0.5, np.full(100, 0.5)))
    assert found.low <= found.difference < 0 == found.high


def test_draws_without_a_figure_of_either_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = np.full(100, 0.4), np.full(100, 0.5)
    first[:10], second[5:20] = np.nan, np.nan
    found = compare_made(monkeypatch, tmp_path, MadeMetric(0.4, first), MadeMetric(0.5, second))
    assert (found.low, found.high) == pytest.approx((-0.1, -0.1))


def test_nothing_to_count_is_an_error_for_two_as_for_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = MadeMetric(np.nan, np.full(100, np.nan))
    with pytest.raises(DataError, match="none has an object or pixel that counts"):
        compare_made(monkeypatch, tmp_path, nothing, nothing)


def test_class_maps_agree_by_pixels(tmp_path: Path) -> None:
    truth = MapTruth(np.zeros((2, 4), np.int64))
    first = SegmentationMap(np.array([[0, 0, 0, 0], [0, 0, 1, 1]], np.uint8), LABELS)
    second = SegmentationMap(np.zeros((2, 4), np.uint8), LABELS)
    found = compare_accuracy(
        replay([first]), replay([second]), dataset_of(tmp_path, [truth]), task=Segment(labels=LABELS)
    )
    assert found.agreement == 0.75


def test_detectors_have_no_agreement(tmp_path: Path) -> None:
    pytest.importorskip("faster_coco_eval")
    from edgecnn.datasets import BoxTruth

    box = np.array([[0.0, 0.0, 6.0, 6.0]])
    truth = BoxTruth(box, np.array([0]), np.array([False]), np.array([36.0]))
    result = Detections(box.astype(np.float32), np.array([0.9], np.float32), np.array([0]), LABELS)
    task = Detect(labels=LABELS)
    found = compare_accuracy(replay([result]), replay([result]), dataset_of(tmp_path, [truth]), task=task)
    assert (found.first.value, found.second.value, found.agreement) == (1, 1, None)


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        (paired(-0.021, -0.037, -0.005), "int8 is 0.021 below fp32 [0.005, 0.037]: worse"),
        (paired(0.021, 0.005, 0.037), "int8 is 0.021 above fp32 [0.005, 0.037]: better"),
        (paired(-0.0021, -0.0037, -0.0002), "int8 is 0.0021 below fp32 [0.0002, 0.0037]: worse"),
        (
            paired(-0.004, -0.011, 0.003),
            "no significant difference between int8 and fp32 with 128 images: -0.004 [-0.011, +0.003]",
        ),
        (
            paired(-5e-9, -5e-8, -4e-9),  # ties that rounding broke
            "no significant difference between int8 and fp32 with 128 images: +0.000 [+0.000, +0.000]",
        ),
        (
            paired(-0.5, -1.0, -0.25, n=4),
            "4 images are too few to compare int8 with fp32, expected at least 20: -0.500 [-1.000, -0.250]",
        ),
    ],
    ids=["worse", "better", "slightly worse", "none", "rounding", "too few"],
)
def test_the_verdict_is_a_sentence(figures: PairedAccuracy, said: str) -> None:
    assert verdict(("int8", "fp32"), figures) == said


def test_a_renamed_or_losslessly_saved_copy_has_the_same_hash(tmp_path: Path) -> None:
    image = np.random.default_rng(RNG_SEED).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    for name in ("a.png", "another name.bmp"):
        cv2.imwrite(str(tmp_path / name), image)
        assert picture_hash(read_picture(tmp_path / name)) == picture_hash(image)
    assert picture_hash(image[:, ::-1][:, ::-1]) == picture_hash(image)  # a view with steps, of the same pixels
    assert len(picture_hash(image)) == 16


def test_another_pixel_or_another_shape_is_another_picture() -> None:
    image = np.zeros((4, 6, 3), np.uint8)
    other = image.copy()
    other[3, 5, 2] = 1
    assert len({picture_hash(each) for each in (image, other, image.reshape(6, 4, 3))}) == 3


def artifact(*, calibration: Sequence[str] | None, search: Sequence[str] | None) -> Artifact:
    """An int8 artifact that was calibrated and searched on pictures with these hashes."""
    evidence = QuantizationEvidence(
        recipe="static_wi8_ai8",
        calibration=None
        if calibration is None
        else CalibrationRecord(
            source="train", count=len(calibration), seed=0, preprocess_sha256="", images=tuple(calibration)
        ),
        float_layers=(),
        int8_mac_share=1.0,
        snr_db={},
        search=None
        if search is None
        else SearchRecord(
            metric="top1",
            data="val",
            n=len(search),
            float_value=1.0,
            value=1.0,
            max_drop=0.01,
            trials=1,
            minutes=1.0,
            complete=True,
            images=tuple(search),
        ),
    )
    file = FileRecord(path="a.onnx", sha256="", bytes=0)
    return Artifact(format="onnx", precision="int8", files=(file,), evidence=Evidence(quantization=evidence))


def shades(folder: Path, count: int) -> tuple[Dataset, list[str]]:
    """A data set of so many different pictures, and their hashes."""
    samples, hashes = [], []
    for shade in range(count):
        image = np.full((6, 8, 3), shade, np.uint8)
        path = folder / f"{shade}.png"
        cv2.imwrite(str(path), image)
        samples.append(Sample(path, fixed(LabelTruth(0))))
        hashes.append(picture_hash(image))
    return Dataset(folder, "made here", map_classes(LABELS, LABELS, where=folder), tuple(samples)), hashes


def test_pictures_of_calibration_and_search_are_counted_and_named(tmp_path: Path) -> None:
    dataset, hashes = shades(tmp_path, 10)
    seen = pictures_seen(artifact(calibration=hashes[:3], search=hashes[2:6]), name="x.edge onnx int8")
    with pytest.raises(DataError) as refused:
        refuse_seen_pictures(dataset, seen)
    said = str(refused.value)
    assert "6 of the 10 images" in said
    assert "3 in the calibration of x.edge onnx int8 with train" in said
    assert "4 in the search for float layers of x.edge onnx int8 with val" in said
    assert "--split" in said


def test_one_shared_picture_is_one_too_many(tmp_path: Path) -> None:
    dataset, hashes = shades(tmp_path, 10)
    with pytest.raises(DataError, match="1 of the 10 images") as refused:
        refuse_seen_pictures(dataset, pictures_seen(artifact(calibration=None, search=hashes[-1:]), name="x"))
    assert "calibration" not in str(refused.value)


def test_other_pictures_may_be_measured_on(tmp_path: Path) -> None:
    dataset, _ = shades(tmp_path, 10)
    progress: list[tuple[int, int]] = []
    refuse_seen_pictures(
        dataset,
        pictures_seen(artifact(calibration=["0" * 16], search=["1" * 16]), name="x"),
        progress=lambda done, total: progress.append((done, total)),
    )
    assert progress == [(done, 10) for done in range(10)]


@pytest.mark.parametrize("images", [None, []], ids=["dynamic ranges", "not recorded"])
def test_where_no_picture_took_part_none_is_read(images: list[str] | None, tmp_path: Path) -> None:
    gone = dataset_of(tmp_path, [LabelTruth(0)])
    (tmp_path / "grey.png").unlink()
    refuse_seen_pictures(gone, pictures_seen(artifact(calibration=images, search=None), name="x"))
    refuse_seen_pictures(gone, pictures_seen(Artifact(format="onnx", precision="fp32", files=()), name="x"))
