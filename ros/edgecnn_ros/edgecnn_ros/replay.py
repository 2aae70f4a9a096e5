"""The node's work on a bag, without ROS: python -m edgecnn_ros.replay IN.bag OUT.bag [NAME:=VALUE ...].

Each picture of the topic is answered by each network, as the node would; messages go to OUT.bag with the headers of
their pictures, at their times in IN.bag. Parameters are the node's. Needs PyPI's rosbags, and no ROS.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import queue
import sqlite3
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rosbags.rosbag2 import Reader, ReaderError, StoragePlugin, Writer
from rosbags.serde import SerdeError
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from edgecnn.arrays import UInt8Array
from edgecnn.atomic import staging_folder
from edgecnn.errors import DataError, EdgeCnnError, SpecError, StorageError
from edgecnn.runners.live.frame import Frame
from edgecnn_ros.diagnostics import diagnostics_message
from edgecnn_ros.messages import stamp_ns
from edgecnn_ros.perception import Perception
from edgecnn_ros.settings import NETWORK_PARAMETERS, PARAMETERS, Parameter, Settings, check_names, settings_of
from edgecnn_ros.vision_definitions import DEFINITIONS

_IMAGES = {"sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"}
_DAMAGED = (ReaderError, SerdeError, sqlite3.Error, OSError, ValueError, IndexError, KeyError, struct.error)
_MOST_IN_THE_LOOP = 64  # it holds fewer pictures at once
DISTRIBUTIONS = {"humble": Stores.ROS2_HUMBLE, "jazzy": Stores.ROS2_JAZZY, "kilted": Stores.ROS2_KILTED}


class BagMessages:
    """Classes of messages of a ROS distribution, from rosbags' definitions of its standard packages."""

    def __init__(self, distribution: str = "jazzy") -> None:
        self.store: Typestore = get_typestore(DISTRIBUTIONS[distribution])
        types: dict[str, Any] = {}
        for name, text in DEFINITIONS.items():
            types |= get_types_from_msg(text, name)
        self.store.register(types)

    def of(self, name: str) -> Any:
        """The class of "sensor_msgs/msg/Image"."""
        return self.store.types[name]

    def octets(self, values: UInt8Array) -> Any:
        """The array itself."""
        return values

    def octet(self, value: int) -> Any:
        """The number itself."""
        return value


class BagWriter:
    """Writes messages to a bag, each at the time of its picture in the bag that is read.

    Attributes:
        counts: number of messages by topic.
    """

    def __init__(self, folder: Path, messages: BagMessages, node: str) -> None:
        self._folder, self.counts = folder, dict[str, int]()
        self._writer = Writer(folder, version=9, storage_plugin=StoragePlugin.SQLITE3)
        self._writer.open()
        self._store, self._node = messages.store, node
        self._connections: dict[str, Any] = {}

    def write(self, topic: str, message: Any, time_ns: int) -> None:
        """Write a message; `topic` is the node's own, or begins with a slash."""
        name = topic if topic.startswith("/") else f"/{self._node}/{topic}"
        kind = message.__msgtype__
        if name not in self._connections:
            self._connections[name] = self._writer.add_connection(name, kind, typestore=self._store)
        self.counts[name] = self.counts.get(name, 0) + 1
        try:
            self._writer.write(self._connections[name], time_ns, self._store.serialize_cdr(message, kind))
        except (sqlite3.Error, OSError) as failed:
            raise StorageError(f"{self._folder} can't be written: {failed}") from failed

    def close(self) -> None:
        """Complete the bag."""
        try:
            self._writer.close()
        except (sqlite3.Error, OSError) as failed:
            raise StorageError(f"{self._folder} can't be written: {failed}") from failed


def replay(
    source: Path, target: Path, parameters: dict[str, Any], *, topic: str | None = None, distribution: str = "jazzy"
) -> dict[str, int]:
    """Answer each picture of a bag; returns the number of messages that were written, by topic.

    Args:
        source: a bag (folder with metadata.yaml, or .mcap).
        target: the bag to write; must not exist.
        parameters: values of the node's parameters by name; defaults for others.
        topic: the pictures' topic; may be left out where there is one.
        distribution: a key of `DISTRIBUTIONS`, whose definitions of messages are used.

    Raises:
        DataError: no bag, or without such a topic, or a message that is no picture.
        SpecError: `target` exists, or a parameter is not allowed.
        EdgeCnnError: a network can't be opened, or failed.
    """
    messages = BagMessages(distribution)
    settings = settings_of(with_defaults(parameters).__getitem__)
    if settings.source is not None:
        raise SpecError("source: the pictures come from the bag here, so leave it out")
    if target.exists():
        raise SpecError(f"{target} exists: remove it, or choose another name")
    with staging_folder(target, marker="metadata.yaml", what="bag") as staging:
        writer = BagWriter(staging / "bag", messages, "edgecnn")
        with contextlib.closing(writer), contextlib.closing(opened(source)) as reader:
            _answer(reader, chosen(reader, topic), settings, messages, writer)
        (staging / "bag").rename(target)
    return writer.counts


def _answer(
    reader: Reader, connections: list[Any], settings: Settings, messages: BagMessages, writer: BagWriter
) -> None:
    """Feed the pictures to the node's code, and write what it publishes."""
    times: dict[int, int] = {}  # in the bag, by the frame's index
    published: queue.SimpleQueue[tuple[str, Any, int]] = queue.SimpleQueue()  # SQLite stays in its thread

    def write() -> None:
        while not published.empty():
            topic, message, index = published.get()
            writer.write(topic, message, times[index])

    def publish(topic: str, message: Any, frame: Frame) -> None:
        published.put((topic, message, frame.index))

    with Perception(settings, messages, publish, live=False) as perception:
        perception.start()
        time_ns = 0
        for index, (message, time_ns) in enumerate(pictures_in(reader, connections, messages)):
            if index == 0:
                for network in perception.networks:
                    info = network.label_info(stamp_ns(message.header), message.header.frame_id)
                    writer.write(f"{network.name}/label_info", info, time_ns)
            times[index] = time_ns
            times.pop(index - _MOST_IN_THE_LOOP, None)
            if refusal := perception.put(message, ros_now_ns=stamp_ns(message.header)):
                raise DataError(f"picture {index} of {connections[0].topic}: {refusal}")
            perception.raise_failure()
            write()
        perception.end()
        perception.wait()
        write()
        writer.write("/diagnostics", diagnostics_message(perception, "edgecnn", time_ns), time_ns)


def opened(source: Path) -> Reader:
    """An open reader of a bag.

    Raises:
        DataError: it is absent, damaged, or not a bag of ROS 2.
    """
    try:
        reader = Reader(source)
        reader.open()
        return reader
    except _DAMAGED as failed:
        raise DataError(f"{source} is no bag of ROS 2 that can be read: {failed}") from failed


def pictures_in(reader: Reader, connections: list[Any], messages: BagMessages) -> Iterator[tuple[Any, int]]:
    """Each picture's message and its time in the bag.

    Raises:
        DataError: the bag or a message is damaged.
    """
    stored = reader.messages(connections=connections)
    while True:
        try:
            connection, time_ns, raw = next(stored)
            yield messages.store.deserialize_cdr(raw, connection.msgtype), time_ns
        except StopIteration:
            return
        except _DAMAGED as failed:
            raise DataError(f"the bag is damaged: {type(failed).__name__}: {failed}") from failed


def chosen(reader: Reader, topic: str | None) -> list[Any]:
    """The connections of the pictures' topic.

    Raises:
        DataError: there is none, or several to choose from.
    """
    pictures = [each for each in reader.connections if each.msgtype in _IMAGES]
    topics = sorted({each.topic for each in pictures})
    if topic is None and len(topics) > 1:
        raise DataError(f"the bag has {len(topics)} topics of pictures: choose one with --topic: {', '.join(topics)}")
    found = [each for each in pictures if topic in (None, each.topic)]
    if not found:
        there = ", ".join(topics) or "none of sensor_msgs/Image or CompressedImage"
        raise DataError(f"the bag has no topic of pictures{f' {topic}' if topic else ''}: it has {there}")
    return found


def with_defaults(given: dict[str, Any]) -> dict[str, Any]:
    """All of the node's parameters.

    Raises:
        SpecError: one that the node does not have, or of another type.
    """
    values: dict[str, Any] = {}
    for parameter in PARAMETERS:
        values[parameter.name] = _checked(parameter.name, parameter, given)
    for name in check_names(values["networks"]):
        for parameter in NETWORK_PARAMETERS:
            values[f"{name}.{parameter.name}"] = _checked(f"{name}.{parameter.name}", parameter, given)
    if unknown := sorted(set(given) - set(values)):
        raise SpecError(f"{unknown[0]}: the node has no such parameter; it has {', '.join(values)}")
    return values


def _checked(name: str, parameter: Parameter, given: dict[str, Any]) -> Any:
    kind, value = type(parameter.default), given.get(name, parameter.default)
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise SpecError(f"{name}: expected {kind.__name__} such as {parameter.default!r}, got {value!r}")
    return value


def _assignments(words: list[str]) -> Iterator[tuple[str, Any]]:
    """NAME:=VALUE, the value as JSON where it is that (numbers, true, lists), else a text."""
    for word in words:
        name, separator, value = word.partition(":=")
        if not separator:
            raise SpecError(f"{word}: expected NAME:=VALUE")
        try:
            yield name, json.loads(value)
        except ValueError:
            yield name, value


def main(arguments: list[str] | None = None) -> int:
    """Run it; 2 where it failed."""
    parser = argparse.ArgumentParser(prog="python -m edgecnn_ros.replay", description=__doc__)
    parser.add_argument("source", type=Path, metavar="IN.bag")
    parser.add_argument("target", type=Path, metavar="OUT.bag")
    parser.add_argument("parameters", nargs="*", metavar="NAME:=VALUE", help="as in objects.score:=0.5")
    parser.add_argument("--topic", help="of the pictures, where the bag has several")
    parser.add_argument(
        "--distribution", choices=list(DISTRIBUTIONS), default="jazzy", help="the ROS distribution of its messages"
    )
    options = parser.parse_args(arguments)
    try:
        given = dict(_assignments(options.parameters))
        counts = replay(options.source, options.target, given, topic=options.topic, distribution=options.distribution)
    except EdgeCnnError as failed:
        print(f"edgecnn: {failed}", file=sys.stderr)  # noqa: T201
        return 2
    for name, count in counts.items():
        print(f"{count:6} {name}")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
