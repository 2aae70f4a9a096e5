"""Frames that the network is unsure of: a bounded private sample that can be corrected and trained on."""

from __future__ import annotations

import json
import random
import stat
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgecnn.datasets import open_dataset
from edgecnn.errors import DataError, SpecError
from edgecnn.results import Detections
from edgecnn.runners.live.frame import Frame
from edgecnn.runners.live.sinks import Annotated
from edgecnn.runners.live.sinks.hard_frames import HardFrameSink, check_hard_frames

LABELS = ("cat", "dog")
UNIX_NS = 1_764_547_200_000_000_000


def frame_at(seconds: float) -> Frame:
    image = np.full((48, 64, 3), int(seconds * 7) % 200, np.uint8)
    return Frame(image, int(seconds * 10), int(seconds * 1e9), UNIX_NS + int(seconds * 1e9), "door")


def found(*scores: float, tracks: tuple[int, ...] | None = None) -> Detections:
    boxes = np.tile(np.array([[4, 5, 24, 35]], np.float32), (len(scores), 1)).reshape(-1, 4)
    ids = None if tracks is None else np.array(tracks, np.int64)
    return Detections(boxes, np.array(scores, np.float32), np.ones(len(scores), np.int64), LABELS, ids)


def sink(folder: Path, **words: Any) -> HardFrameSink:
    return HardFrameSink(folder, name="door", labels=LABELS, threshold=lambda: 0.4, **words)


def deliver(to: HardFrameSink, seconds: float, result: Detections) -> None:
    frame = frame_at(seconds)
    to.deliver(frame, result, Annotated(lambda: frame.image))


def labels(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / "door" / "labels.json").read_text())
    return document


def test_a_score_just_above_the_threshold_is_kept_with_its_box_as_a_data_set(tmp_path: Path) -> None:
    kept = sink(tmp_path)
    deliver(kept, 0, found(0.9))  # sure
    deliver(kept, 1, found())  # nothing there
    assert not (tmp_path / "door" / "labels.json").exists()
    deliver(kept, 2, found(0.9, 0.45))
    deliver(kept, 3, found(0.45))  # too soon after the last
    deliver(kept, 13, found(0.5))
    document = labels(tmp_path)
    assert [image["why"] for image in document["images"]] == ["unsure", "unsure"]
    assert len(document["annotations"]) == 3
    assert document["annotations"][0]["bbox"] == [4, 5, 20, 30]
    assert document["info"]["taken"] == 2
    dataset = open_dataset(tmp_path / "door", task="detect", labels=LABELS)
    samples = list(dataset)
    truths: list[Any] = [sample.truth(np.zeros((48, 64, 3), np.uint8)) for sample in samples]
    assert [len(truth.boxes_xyxy_px) for truth in truths] == [2, 1]
    first = cv2.imread(str(samples[0].path))
    assert first is not None and abs(int(first[0, 0, 0]) - 14) <= 2  # as the camera gave it, nothing drawn
    assert stat.S_IMODE((tmp_path / "door").stat().st_mode) == 0o700
    assert kept.remark == f"2 hard frames in {tmp_path / 'door'}"


def test_the_frame_is_kept_in_which_a_steady_object_was_missing(tmp_path: Path) -> None:
    kept = sink(tmp_path)
    for step in range(6):
        deliver(kept, step / 10, found(0.9, tracks=(1,)))
    deliver(kept, 0.6, found(tracks=()))
    assert not (tmp_path / "door" / "labels.json").exists()
    deliver(kept, 0.7, found(0.9, tracks=(1,)))
    (image,) = labels(tmp_path)["images"]
    assert (image["why"], image["file_name"][-9:]) == ("flicker", ".600Z.jpg")
    assert labels(tmp_path)["annotations"] == []
    other = sink(tmp_path / "other")  # one that has left, or was there once, is no flicker
    for step, result in enumerate([found(0.9, tracks=(2,)), found(tracks=()), found(0.9, tracks=(2,))]):
        deliver(other, step / 10, result)
    for step in range(6):
        deliver(other, 10 + step / 10, found(0.9, tracks=(1,)))
    for seconds, result in ((10.7, found(tracks=())), (12.0, found(tracks=())), (12.1, found(0.9, tracks=(1,)))):
        deliver(other, seconds, result)
    assert not (tmp_path / "other" / "door" / "labels.json").exists()


def test_a_bounded_random_sample_stays_and_a_killed_run_is_taken_up(tmp_path: Path) -> None:
    first = sink(tmp_path, most=5, chance=random.Random(3))
    for number in range(40):
        deliver(first, 20.0 * number, found(0.45))
    pictures = sorted(path.name for path in (tmp_path / "door" / "images").iterdir())
    assert sorted(Path(image["file_name"]).name for image in labels(tmp_path)["images"]) == pictures
    assert len(pictures) == 5
    taken = labels(tmp_path)["info"]["taken"]  # when it was last written
    assert 30 < taken <= 40
    assert pictures[-1] > "20251201T000140"  # not only the first five
    images = tmp_path / "door" / "images"
    (images / "20251201T000000.999Z.jpg").write_bytes(b"of a killed process")
    (images / "mine.png").write_bytes(b"of the user")
    again = sink(tmp_path, most=5, chance=random.Random(3))
    assert sorted(path.name for path in images.iterdir()) == sorted([*pictures, "20251201T000000.999Z.jpg", "mine.png"])
    for number in range(30):
        deliver(again, 2000 + 20.0 * number, found(0.45))
    assert labels(tmp_path)["info"]["taken"] > taken
    assert len(labels(tmp_path)["images"]) == 5


OTHERS = [b"", b"[]", b'{"images": 7}', b"\xff", b'{"images": [], "annotations": [{"image_id": 3}]}']


@pytest.mark.parametrize("raw", OTHERS)
def test_labels_that_it_cannot_read_may_be_somebodys_work_and_stay(tmp_path: Path, raw: bytes) -> None:
    deliver(sink(tmp_path), 0, found(0.45))
    pictures = list((tmp_path / "door" / "images").iterdir())
    assert len(pictures) == 1
    (tmp_path / "door" / "labels.json").write_bytes(raw)
    with pytest.raises(DataError, match=r"labels\.json is not what --hard-frames writes.*move it away"):
        sink(tmp_path)
    assert list((tmp_path / "door" / "images").iterdir()) == pictures
    assert (tmp_path / "door" / "labels.json").read_bytes() == raw


def test_what_a_labelling_tool_gives_back_is_gone_on_with(tmp_path: Path) -> None:
    deliver(sink(tmp_path), 0, found(0.45))
    corrected = labels(tmp_path)
    del corrected["info"]
    for image in corrected["images"]:
        del image["why"]
    corrected["annotations"][0]["bbox"] = [1, 2, 3, 4]
    (tmp_path / "door" / "labels.json").write_text(json.dumps(corrected))
    deliver(sink(tmp_path), 20, found(0.45))
    assert labels(tmp_path)["annotations"][0]["bbox"] == [1, 2, 3, 4]
    assert len(labels(tmp_path)["images"]) == 2


def test_cameras_whose_letters_are_not_ascii_have_folders_of_their_own(tmp_path: Path) -> None:
    names = ["кухня", "двери", "a/b", "a b", "a_b", "x" * 70, "y" + "x" * 69]
    folders = {HardFrameSink(tmp_path, name=name, labels=LABELS, threshold=lambda: 0.4).folder for name in names}
    assert len(folders) == len(names) and all(len(folder.name) <= 60 for folder in folders)


def test_numbers_that_cannot_be_are_refused(tmp_path: Path) -> None:
    for count in (0, -1, 10**9):
        if count:
            with pytest.raises(SpecError, match="--keep-hard-frames: expected 1 to"):
                check_hard_frames(tmp_path / "hard", {"keep_hard_frames": count}, tracks=False)
    with pytest.raises(SpecError, match="does not exist"):
        check_hard_frames(tmp_path / "none" / "hard", {}, tracks=False)
