"""Classes of ROS messages, by name: those of an installed ROS, or of a reader of bags.

All messages are made with all of their fields as keywords, which both kinds of classes take.
"""

from __future__ import annotations

import array
from importlib import import_module
from typing import Any, Protocol

from edgecnn.arrays import UInt8Array
from edgecnn.errors import MissingDependencyError


class Messages(Protocol):
    """Gives classes of messages."""

    def of(self, name: str) -> Any:
        """The class of "sensor_msgs/msg/Image"."""
        ...

    def octets(self, values: UInt8Array) -> Any:
        """The values of an uint8[] field."""
        ...

    def octet(self, value: int) -> Any:
        """The value of a byte field."""
        ...


class RosMessages:
    """Those of the ROS that is installed here."""

    def of(self, name: str) -> Any:
        """The class of "sensor_msgs/msg/Image".

        Raises:
            MissingDependencyError: its package is not installed.
        """
        package, _, kind = name.split("/")
        try:
            return getattr(import_module(f"{package}.msg"), kind)
        except ModuleNotFoundError as missing:
            debian = f"ros-$ROS_DISTRO-{package.replace('_', '-')}"
            raise MissingDependencyError("the ROS node", package, install=f"apt-get install {debian}") from missing

    def octets(self, values: UInt8Array) -> Any:
        """An array of bytes: rclpy checks any other sequence value by value."""
        return array.array("B", values.tobytes())

    def octet(self, value: int) -> Any:
        """A byte string."""
        return bytes([value])


def stamp_ns(header: Any) -> int:
    """A header's time in nanoseconds."""
    return int(header.stamp.sec) * 10**9 + int(header.stamp.nanosec)


def header_at(messages: Messages, time_ns: int, frame_id: str) -> Any:
    """A header with a time."""
    sec, nanosec = divmod(time_ns, 10**9)
    stamp = messages.of("builtin_interfaces/msg/Time")(sec=sec, nanosec=nanosec)
    return messages.of("std_msgs/msg/Header")(stamp=stamp, frame_id=frame_id)
