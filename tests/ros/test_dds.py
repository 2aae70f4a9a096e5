"""The node's code on DDS, the wire of ROS 2, with a driver and a subscriber at the other end of it."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rosbags", reason="needs rosbags: pip install 'edgecnn[ros]'")
pytest.importorskip("cyclonedds", reason="needs Cyclone DDS: pip install cyclonedds")

from cyclonedds.domain import DomainParticipant
from cyclonedds.pub import DataWriter
from cyclonedds.sub import DataReader
from cyclonedds.topic import Topic
from edgecnn_ros.answers import detections_message
from edgecnn_ros.messages import header_at, stamp_ns
from edgecnn_ros.perception import Perception
from edgecnn_ros.settings import Settings

from edgecnn.photographs import photographs
from edgecnn.results import Detections

from .bags import image
from .dds_types import DdsMessages, Detection2DArray, Image

DDS = DdsMessages()
DOMAIN = 77
# On loopback alone, without multicast.
CONFIGURATION = """<CycloneDDS><Domain>
<General><AllowMulticast>false</AllowMulticast>
<Interfaces><NetworkInterface name="lo" multicast="false"/></Interfaces></General>
<Discovery><ParticipantIndex>auto</ParticipantIndex><Peers><Peer address="127.0.0.1"/></Peers></Discovery>
</Domain></CycloneDDS>"""


def taken(reader: Any, count: int) -> list[Any]:
    """So many messages."""
    found: list[Any] = []
    end = time.monotonic() + 60
    while len(found) < count:
        assert time.monotonic() < end, f"{len(found)} of {count} messages came"
        found += reader.take(N=16)
        time.sleep(0.01)
    return found


def until_matched(*writers: Any) -> None:
    """Wait until each has found its reader: what is written before is lost."""
    end = time.monotonic() + 60
    while not all(writer.get_matched_subscriptions() for writer in writers):
        assert time.monotonic() < end
        time.sleep(0.01)


def test_detections_have_the_same_bytes_in_another_implementation_of_cdr(jazzy: Any) -> None:
    found = Detections(
        np.array([[1, 2, 30.5, 40], [0, 0, 9, 9]], np.float32),
        np.array([0.75, 0.5], np.float32),
        np.array([0, 15]),
        tuple(f"class {index}" for index in range(16)),
        np.array([7, -1]),
    )
    kind = "vision_msgs/msg/Detection2DArray"
    ours = detections_message(jazzy, header_at(jazzy, 5_000_000_007, "cam"), found)
    theirs = detections_message(DDS, header_at(DDS, 5_000_000_007, "cam"), found)
    octets = bytes(jazzy.store.serialize_cdr(ours, kind))
    assert bytes(theirs.serialize())[4:] == octets[4:], "after the header, whose options differ"
    assert [one.id for one in Detection2DArray.deserialize(octets).detections] == ["7", ""]


@pytest.mark.server
@pytest.mark.runtime
def test_a_drivers_pictures_are_answered_over_dds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CYCLONEDDS_URI", CONFIGURATION)
    driver, ours = DomainParticipant(DOMAIN), DomainParticipant(DOMAIN)
    camera = DataWriter(driver, Topic(driver, "rt/image", Image))
    subscriber = DataReader(driver, Topic(driver, "rt/edgecnn/objects/detections", Detection2DArray))
    pictures = DataReader(ours, Topic(ours, "rt/image", Image))
    answers = DataWriter(ours, Topic(ours, "rt/edgecnn/objects/detections", Detection2DArray))

    def publish(topic: str, message: Any, frame: object) -> None:
        assert topic == "objects/detections"
        answers.write(message)

    settings = Settings(class_ids="name")
    with Perception(settings, DDS, publish, wanted=lambda topic: False) as perception:
        perception.start()
        until_matched(camera, answers)
        ages_ms = []
        for name, label in (("astronaut", "person"), ("cat", "cat")):
            picture = photographs()[name]
            stamp = time.time_ns()
            header = header_at(DDS, stamp, "front")
            size = {"height": picture.shape[0], "width": picture.shape[1]}
            camera.write(image(DDS, picture[:, :, ::-1], "rgb8", header=header, **size))
            (message,) = taken(pictures, 1)
            message.data = bytes(message.data)
            assert perception.put(message, ros_now_ns=time.time_ns()) is None
            (found,) = taken(subscriber, 1)
            ages_ms.append((time.time_ns() - stamp) / 1e6)
            assert (stamp_ns(found.header), found.header.frame_id) == (stamp, "front")
            assert found.detections[0].results[0].hypothesis.class_id == label
        measured = perception.counters["objects"].age
        assert measured.count == 2
        assert 0 < measured.percentile_ms(100) < max(ages_ms) * 1.02, "the age begins at the driver's stamp"
