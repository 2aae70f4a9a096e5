"""The node's own lines, with stand-ins for rclpy: no real ROS takes part here, see `ros_stand_in`."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rosbags", reason="needs rosbags: pip install 'edgecnn[ros]'")

from edgecnn_ros.messages import header_at, stamp_ns

from edgecnn.photographs import photographs

from .bags import image
from .ros_stand_in import World

pytestmark = pytest.mark.runtime
NOW_NS = 1_700_000_000_000_000_000


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, jazzy: Any) -> World:
    """A world without ROS in which the node can be imported."""
    import sys

    world = World()
    world.now_ns = NOW_NS
    for name, module in world.modules(jazzy).items():
        monkeypatch.setitem(sys.modules, name, module)
        monkeypatch.setitem(sys.modules, name.partition(".")[0], world.modules(jazzy).get("rclpy", module))
    monkeypatch.delitem(sys.modules, "edgecnn_ros.node", raising=False)
    return world


def until(true: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def photograph(messages: Any, name: str, *, age_ms: float) -> Any:
    picture = photographs()[name]
    header = header_at(messages, NOW_NS - round(age_ms * 1e6), "front")
    return image(messages, picture, "bgr8", height=picture.shape[0], width=picture.shape[1], header=header)


def main() -> Any:
    return importlib.import_module("edgecnn_ros.node").main([])


def test_it_answers_pictures_as_vision_msgs_with_their_headers(world: World, jazzy: Any) -> None:
    found = world.published

    def spin(node: Any) -> None:
        world.callbacks["image"](photograph(jazzy, "astronaut", age_ms=5))
        until(lambda: "~/objects/detections" in found)
        world.callbacks["image"](image(jazzy, np.zeros((2, 2), np.uint16).view(np.uint8), "16UC1", height=2, width=2))
        world.subscribed.add("~/objects/annotated")
        node.timers[0]()
        world.callbacks["image"](photograph(jazzy, "cat", age_ms=5))
        until(lambda: "~/objects/annotated" in found)
        node.timers[0]()

    world.during_spin = spin
    world.parameters["class_ids"] = "name"
    assert main() == 0
    first, second = found["~/objects/detections"]
    assert first.detections[0].results[0].hypothesis.class_id == "person"
    assert (stamp_ns(first.header), first.header.frame_id) == (NOW_NS - 5_000_000, "front")
    (drawn,) = found["~/objects/annotated"]  # of the second picture alone: nobody wanted the first
    assert drawn.header == second.header
    (info,) = found["~/objects/label_info"]
    assert info.class_map[0].class_name == "person"
    warned, fine = (array.status[0] for array in found["/diagnostics"])
    assert (warned.level, fine.level) == (b"\x01", b"\x00")
    assert "refused: encoding '16UC1'" in warned.message
    assert any("is refused: encoding '16UC1'" in line for line in world.log)
    assert world.callbacks == {} and world.nodes == []


def test_it_asks_for_the_newest_picture_and_offers_what_every_subscriber_takes(world: World) -> None:
    assert main() == 0
    assert (world.quality["image"].depth, world.quality["image"].reliability) == (1, "best effort")
    assert world.quality["~/objects/detections"].reliability == "reliable"
    assert world.quality["~/objects/annotated"].reliability == "best effort"
    assert world.quality["~/objects/label_info"].durability == "transient local"


def test_old_pictures_are_dropped_and_counted(world: World, jazzy: Any) -> None:
    def spin(node: Any) -> None:
        world.callbacks["image"](photograph(jazzy, "cat", age_ms=5000))
        until(lambda: node.perception.dropped == 1)
        node.timers[0]()

    world.during_spin = spin
    world.parameters["max_age_ms"] = 1000.0
    assert main() == 0
    assert "~/objects/detections" not in world.published
    (told,) = world.published["/diagnostics"]
    assert ("dropped (all networks)", "1") in [(pair.key, pair.value) for pair in told.status[0].values]


def test_silence_is_told(world: World) -> None:
    def spin(node: Any) -> None:
        until(lambda: node.perception.silent_s > 0.05)
        node.timers[0]()

    world.during_spin = spin
    world.parameters["stale_after_s"] = 0.05
    assert main() == 0
    (told,) = world.published["/diagnostics"]
    assert told.status[0].level == b"\x01" and told.status[0].message.startswith("no picture for 0.")


def test_it_opens_a_camera_itself(world: World, tmp_path: Path) -> None:
    import cv2

    cv2.imwrite(str(tmp_path / "astronaut.png"), photographs()["astronaut"])
    world.parameters |= {"source": str(tmp_path), "frame_id": "door", "class_ids": "name"}
    world.during_spin = lambda node: until(lambda: node.perception.ended)
    assert main() == 0
    (found,) = world.published["~/objects/detections"]
    assert found.header.frame_id == "door"
    assert abs(stamp_ns(found.header) - time.time_ns()) < 600e9
    assert "image" not in world.callbacks


def test_it_can_be_deactivated_and_activated_again(world: World, jazzy: Any) -> None:
    def spin(node: Any) -> None:
        assert node.on_deactivate(None) == "success"
        assert "image" not in world.callbacks
        assert node.trigger_activate() == "success"
        world.callbacks["image"](photograph(jazzy, "cat", age_ms=5))
        until(lambda: "~/objects/detections" in world.published)
        node.on_deactivate(None)
        assert node.on_cleanup(None) == "success"
        node.timers[0]()  # has nothing to tell now
        assert node.trigger_configure() == node.trigger_activate() == "success"

    world.during_spin = spin
    assert main() == 0
    assert len(world.published["~/objects/label_info"]) == 3


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"objects.bundle": "absent.edge"}, "absent.edge does not exist"),
        ({"source": "absent.mp4"}, "absent.mp4"),
        ({"class_ids": "both"}, "expected number or name"),
        ({"objects.track": True, "objects.bundle": "default-segmenter"}, "only objects can be tracked"),
    ],
)
def test_what_cannot_start_says_why_and_ends(world: World, parameters: dict[str, Any], reason: str) -> None:
    world.parameters = parameters
    assert main() == 1
    assert any(reason in line for line in world.log), world.log
    assert world.nodes == []


def test_a_camera_that_fails_ends_the_node_with_the_reason(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 50)

    def spin(node: Any) -> None:
        until(lambda: node.perception.ended)
        node.timers[0]()

    world.during_spin = spin
    world.parameters["source"] = str(tmp_path / "broken.png")
    assert main() == 1
    assert "broken.png" in capsys.readouterr().err


def test_a_publisher_that_fails_ends_the_node(world: World, jazzy: Any) -> None:
    def spin(node: Any) -> None:
        node.outputs["objects/detections"].publish = lambda message: 1 / 0
        world.callbacks["image"](photograph(jazzy, "cat", age_ms=5))
        until(lambda: node.perception.ended)
        node.timers[0]()

    world.during_spin = spin
    with pytest.raises(ZeroDivisionError):
        main()
    assert world.nodes == []
