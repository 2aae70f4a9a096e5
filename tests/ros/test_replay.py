"""A bag of pictures in, a bag of results out, through the code of the node."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("rosbags", reason="needs rosbags: pip install 'edgecnn[ros]'")

from edgecnn_ros import replay
from edgecnn_ros.messages import stamp_ns
from rosbags.rosbag2 import Reader

import edgecnn
from edgecnn.errors import DataError, SpecError
from edgecnn.photographs import photographs
from edgecnn.results import Detections, SegmentationMap
from tests.builders.repository import REPOSITORY

from .bags import RECORDED_NS, image, read_bag, stamp_of, write_bag

pytestmark = pytest.mark.runtime
PACKAGE = REPOSITORY / "ros" / "edgecnn_ros"


def run_replay(*words: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edgecnn_ros.replay", *map(str, words)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{PACKAGE}"},
        cwd=cwd,
        check=False,
    )


def test_each_picture_is_answered_with_its_own_header_and_what_the_runner_says(
    bag: Path, tmp_path: Path, jazzy: Any
) -> None:
    done = run_replay(bag, tmp_path / "out.bag")
    assert done.returncode == 0, done.stderr
    out = read_bag(tmp_path / "out.bag", jazzy)
    assert set(out) == {
        "/edgecnn/objects/label_info",
        "/edgecnn/objects/detections",
        "/edgecnn/objects/annotated",
        "/diagnostics",
    }
    pictures = list(photographs().values())
    answers = out["/edgecnn/objects/detections"]
    assert [time_ns for time_ns, _ in answers] == [RECORDED_NS + index for index in range(len(pictures))]
    assert [stamp_ns(message.header) for _, message in answers] == [stamp_of(index) for index in range(len(pictures))]
    with edgecnn.open_runner("default-detector") as runner:
        for picture, (_, message) in zip(pictures, answers, strict=True):
            expected = runner(picture)
            assert isinstance(expected, Detections)
            assert message.header.frame_id == "camera_optical_frame"
            assert all(one.header == message.header and one.id == "" for one in message.detections)
            found = [
                (
                    one.bbox.center.position.x - one.bbox.size_x / 2,
                    one.bbox.center.position.y - one.bbox.size_y / 2,
                    one.bbox.center.position.x + one.bbox.size_x / 2,
                    one.bbox.center.position.y + one.bbox.size_y / 2,
                )
                for one in message.detections
            ]
            np.testing.assert_allclose(np.reshape(found, (-1, 4)), expected.boxes_xyxy_px, atol=1e-9)
            guesses = [one.results[0].hypothesis for one in message.detections]
            assert [int(guess.class_id) for guess in guesses] == expected.class_ids.tolist()
            assert [guess.score for guess in guesses] == expected.scores.tolist()
        ((_, info),) = out["/edgecnn/objects/label_info"]
        assert {one.class_id: one.class_name for one in info.class_map} == dict(enumerate(runner.task.labels))
    for picture, (_, drawn) in zip(pictures, out["/edgecnn/objects/annotated"], strict=True):
        assert (drawn.height, drawn.width, drawn.encoding) == (*picture.shape[:2], "bgr8")


def test_several_networks_answer_each_picture_with_names_and_masks(bag: Path, tmp_path: Path, jazzy: Any) -> None:
    done = run_replay(
        bag, tmp_path / "out", 'networks:=["objects","ground"]', "ground.bundle:=default-segmenter", "class_ids:=name"
    )
    assert done.returncode == 0, done.stderr
    out = read_bag(tmp_path / "out", jazzy)
    first = out["/edgecnn/objects/detections"][0][1].detections[0]
    assert first.results[0].hypothesis.class_id == "person"
    with edgecnn.open_runner("default-segmenter") as runner:
        for picture, (_, mask) in zip(photographs().values(), out["/edgecnn/ground/masks"], strict=True):
            expected = runner(picture)
            assert isinstance(expected, SegmentationMap)
            assert mask.encoding == "mono8"
            assert (mask.data.reshape(picture.shape[:2]) == expected.classes).all()
    ((_, told),) = out["/diagnostics"]
    assert [one.name for one in told.status] == ["edgecnn: objects", "edgecnn: ground"]
    for one in told.status:
        assert one.level == 0
        assert {pair.key: pair.value for pair in one.values}["results"] == "4"


def test_tracked_objects_keep_their_ids(tmp_path: Path, jazzy: Any) -> None:
    wide = np.hstack([photographs()["astronaut"]] * 2)
    moving = [np.ascontiguousarray(wide[:, shift : shift + 512]) for shift in range(0, 40, 8)]
    source = write_bag(tmp_path / "in", jazzy, moving)
    replay.replay(source, tmp_path / "out", {"objects.track": True})
    ids = [
        {one.id for one in message.detections if one.id}
        for _, message in read_bag(tmp_path / "out", jazzy)["/edgecnn/objects/detections"]
    ]
    assert ids[0] == set(), "an object must be seen twice"
    assert set.intersection(*ids[1:])


def test_compressed_pictures_and_the_messages_of_humble(tmp_path: Path) -> None:
    humble = replay.BagMessages("humble")
    from rosbags.rosbag2 import Writer

    header = image(humble, np.zeros(3, np.uint8), "bgr8", height=1, width=1).header
    data = cv2.imencode(".png", photographs()["cat"])[1].reshape(-1)
    kind = "sensor_msgs/msg/CompressedImage"
    message = humble.of(kind)(header=header, format="bgr8; png compressed bgr8", data=data)
    with Writer(tmp_path / "in", version=8) as writer:
        connection = writer.add_connection("/camera/image_raw/compressed", kind, typestore=humble.store)
        writer.write(connection, 7, humble.store.serialize_cdr(message, kind))
    replay.replay(tmp_path / "in", tmp_path / "out", {"class_ids": "name"}, distribution="humble")
    ((time_ns, found),) = read_bag(tmp_path / "out", humble)["/edgecnn/objects/detections"]
    assert time_ns == 7
    assert found.detections[0].results[0].hypothesis.class_id == "cat"


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"objects.bundel": "x"}, "objects.bundel: the node has no such parameter"),
        ({"objects.score": "high"}, "objects.score: expected float"),
        ({"networks": []}, "at least one name"),
        ({"networks": ["a", "a"]}, "each once"),
        ({"networks": ["Not/A/Topic"]}, "lower-case letters"),
        ({"class_ids": "both"}, "expected number or name"),
        ({"source": "0"}, "the pictures come from the bag"),
        ({"objects.bundle": "default-segmenter", "objects.track": True}, "only objects can be tracked"),
    ],
)
def test_a_parameter_that_is_not_allowed_ends_it_before_anything_is_written(
    bag: Path, tmp_path: Path, parameters: dict[str, Any], reason: str
) -> None:
    with pytest.raises(SpecError, match=reason):
        replay.replay(bag, tmp_path / "out", parameters)
    assert list(tmp_path.iterdir()) == []


def test_a_bag_is_never_overwritten_and_a_failed_replay_leaves_none(bag: Path, tmp_path: Path, jazzy: Any) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(SpecError, match="exists"):
        replay.replay(bag, tmp_path / "out", {})
    (tmp_path / "out").rmdir()
    with pytest.raises(DataError, match=r"no topic of pictures /other: it has /camera/image_raw"):
        replay.replay(bag, tmp_path / "out", {}, topic="/other")
    with pytest.raises(DataError, match="is no bag of ROS 2"):
        replay.replay(tmp_path / "absent", tmp_path / "out", {})
    assert list(tmp_path.iterdir()) == []


def test_a_picture_that_is_none_ends_a_replay_with_its_number(tmp_path: Path, jazzy: Any) -> None:
    from rosbags.rosbag2 import Writer

    with Writer(tmp_path / "in", version=9) as writer:
        connection = writer.add_connection("/depth", "sensor_msgs/msg/Image", typestore=jazzy.store)
        message = image(jazzy, np.zeros((4, 4), np.float32).view(np.uint8), "32FC1", height=4, width=4)
        writer.write(connection, 1, jazzy.store.serialize_cdr(message, "sensor_msgs/msg/Image"))
    done = run_replay("in", "out", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("edgecnn: picture 0 of /depth: encoding '32FC1': expected one of bgr8")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_a_damaged_bag_is_an_error_with_a_reason(bag: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "in"
    damaged.mkdir()
    for path in bag.iterdir():
        data = bytearray(path.read_bytes())
        if path.suffix == ".db3":
            data = data[: len(data) // 2]
        (damaged / path.name.replace(bag.name, damaged.name)).write_bytes(data)
    with pytest.raises(DataError, match=r"bag is damaged|is no bag"):
        replay.replay(damaged, tmp_path / "out", {})
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_what_is_written_is_a_bag_for_every_reader(bag: Path, tmp_path: Path) -> None:
    replay.replay(bag, tmp_path / "out", {})
    with Reader(tmp_path / "out") as reader:
        kinds = {each.topic: each.msgtype for each in reader.connections}
        assert all(each.msgdef.data for each in reader.connections), "a bag that explains its own types"
    assert kinds["/edgecnn/objects/detections"] == "vision_msgs/msg/Detection2DArray"
