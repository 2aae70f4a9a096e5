"""Messages and bags as ROS 2 has them, by rosbags, without ROS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from edgecnn_ros.messages import header_at
from edgecnn_ros.replay import BagMessages
from rosbags.rosbag2 import Reader, Writer

BEGIN_NS = 1_700_000_000_123_456_789  # of the first picture's stamp
RECORDED_NS = 1_800_000_000_000_000_000  # the bag's own time of the first message


def image(messages: Any, data: Any, encoding: str, *, height: int, width: int, **words: Any) -> Any:
    """An `Image`."""
    octets = np.ascontiguousarray(data).reshape(-1)
    words = {
        "step": octets.size // max(height, 1),
        "is_bigendian": 0,
        "header": header_at(messages, BEGIN_NS, "cam"),
    } | words
    return messages.of("sensor_msgs/msg/Image")(
        height=height, width=width, encoding=encoding, data=messages.octets(octets), **words
    )


def stamp_of(index: int) -> int:
    """Of a picture of `write_bag`: not evenly spaced, and not the bag's times."""
    return BEGIN_NS + index * 33_333_333 + index % 2


def write_bag(path: Path, messages: BagMessages, pictures: list[Any], topic: str = "/camera/image_raw") -> Path:
    """A bag of rgb8 pictures, whose rows are padded."""
    with Writer(path, version=9) as writer:
        connection = writer.add_connection(topic, "sensor_msgs/msg/Image", typestore=messages.store)
        for index, picture in enumerate(pictures):
            height, width = picture.shape[:2]
            rows = np.zeros((height, 3 * width + 5), np.uint8)
            rows[:, : 3 * width] = picture[:, :, ::-1].reshape(height, -1)
            header = header_at(messages, stamp_of(index), "camera_optical_frame")
            message = image(messages, rows, "rgb8", height=height, width=width, header=header)
            writer.write(
                connection, RECORDED_NS + index, messages.store.serialize_cdr(message, "sensor_msgs/msg/Image")
            )
    return path


def read_bag(path: Path, messages: BagMessages) -> dict[str, list[tuple[int, Any]]]:
    """Times and messages by topic."""
    found: dict[str, list[tuple[int, Any]]] = {}
    with Reader(path) as reader:
        for connection, time_ns, raw in reader.messages():
            message = messages.store.deserialize_cdr(raw, connection.msgtype)
            found.setdefault(connection.topic, []).append((time_ns, message))
    return found
