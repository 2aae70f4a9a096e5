"""The node's parameters: one table for the node, its documentation and the settings that they make."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from edgecnn.errors import SpecError
from edgecnn_ros.answers import ClassIds


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter.

    Attributes:
        name: its name; of a network's, without the network's name and the dot.
        default: its default, which also decides its type.
        description: one sentence.
    """

    name: str
    default: str | int | float | bool | list[str]
    description: str


PARAMETERS: Final = (
    Parameter("networks", ["objects"], "Names of the networks, which run in turns on the same pictures."),
    Parameter(
        "source", "", "A camera that the node opens itself (0, rtsp://...); empty: pictures come from the topic image."
    ),
    Parameter("compressed", False, "The topic image is of sensor_msgs/CompressedImage."),
    Parameter("frame_id", "camera", "The frame of headers if the node opens the camera itself."),
    Parameter("max_age_ms", 0.0, "Results of older pictures are dropped instead of published; 0: none are."),
    Parameter("stale_after_s", 2.0, "Without a picture for this time, diagnostics warn."),
    Parameter("class_ids", "number", "class_id of a hypothesis: number (see label_info) or name."),
    Parameter("autostart", True, "Configure and activate at the start, without a lifecycle manager."),
)
NETWORK_PARAMETERS: Final = (
    Parameter("bundle", "default-detector", "Folder of a bundle (NAME.edge), or the name of a network that ships."),
    Parameter("device", "cpu", "As edgecnn run --device."),
    Parameter("format", "", "As --format; empty: the first that is there."),
    Parameter("precision", "", "As --precision; empty: fp32 where it is there."),
    Parameter("threads", 0, "Threads per inference; 0: the cores that the process may use."),
    Parameter("score", -1.0, "A detector's score threshold; negative: the bundle's."),
    Parameter("nms_iou", -1.0, "A detector's NMS threshold; negative: the bundle's."),
    Parameter("track", False, "Give objects ids that they keep from picture to picture."),
    Parameter("trusted_key", "", "Open only a bundle that this public key (a file) signed."),
)
_NAME: Final = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True, slots=True)
class NetworkSettings:
    """One network; fields are parameters, None where they are left to edgecnn."""

    name: str
    bundle: str = "default-detector"
    device: str = "cpu"
    format: str | None = None
    precision: str | None = None
    threads: int | None = None
    score: float | None = None
    nms_iou: float | None = None
    track: bool = False
    trusted_key: str | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """The node; fields are parameters, None where they are left to edgecnn."""

    networks: tuple[NetworkSettings, ...] = (NetworkSettings("objects"),)
    source: str | None = None
    compressed: bool = False
    frame_id: str = "camera"
    max_age_ms: float | None = None
    stale_after_s: float = 2.0
    class_ids: ClassIds = "number"


def check_names(names: Sequence[str]) -> tuple[str, ...]:
    """The networks' names, which become parts of topics' names.

    Raises:
        SpecError: none, one twice, or one that ROS does not allow there.
    """
    if not names or len(set(names)) < len(names):
        raise SpecError(f"networks: expected at least one name, each once, got {list(names)}")
    for name in names:
        if not _NAME.fullmatch(name):
            raise SpecError(f"networks: expected names of lower-case letters, digits and _, got {name!r}")
    return tuple(names)


def settings_of(value: Callable[[str], Any]) -> Settings:
    """Settings of the parameters' values.

    Args:
        value: the value of the parameter with a name.

    Raises:
        SpecError: a value that is not allowed.
    """
    names = check_names(value("networks"))
    if (class_ids := value("class_ids")) not in ("number", "name"):
        raise SpecError(f"class_ids: expected number or name, got {class_ids!r}")
    if not value("stale_after_s") > 0:
        raise SpecError(f"stale_after_s: expected a number above 0, got {value('stale_after_s')}")
    return Settings(
        networks=tuple(_network(name, lambda part, name=name: value(f"{name}.{part}")) for name in names),  # type: ignore[misc]
        source=value("source") or None,
        compressed=value("compressed"),
        frame_id=value("frame_id"),
        max_age_ms=value("max_age_ms") or None,
        stale_after_s=value("stale_after_s"),
        class_ids=cast(ClassIds, class_ids),
    )


def _network(name: str, value: Callable[[str], Any]) -> NetworkSettings:
    return NetworkSettings(
        name=name,
        bundle=value("bundle"),
        device=value("device"),
        format=value("format") or None,
        precision=value("precision") or None,
        threads=value("threads") or None,
        score=None if value("score") < 0 else value("score"),
        nms_iou=None if value("nms_iou") < 0 else value("nms_iou"),
        track=value("track"),
        trusted_key=value("trusted_key") or None,
    )
