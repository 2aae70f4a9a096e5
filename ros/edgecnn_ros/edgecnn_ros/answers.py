"""Results as messages: `vision_msgs`, and class maps as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal, TypeAlias

import numpy as np

from edgecnn.results import Classification, Detections, Instances, Result, SegmentationMap
from edgecnn.runners.live.tracking.tracker import UNTRACKED
from edgecnn_ros.messages import Messages
from edgecnn_ros.pictures import image_message

ClassIds: TypeAlias = Literal["number", "name"]
_MOST_INSTANCES: Final = 2**16 - 1


def detections_message(messages: Messages, header: Any, found: Detections, class_ids: ClassIds = "number") -> Any:
    """A `Detection2DArray`, best first; `id` is the track id, empty for an object that is not tracked.

    Args:
        messages: where its class is from.
        header: of the picture; all detections share it.
        found: boxes in pixels of that picture.
        class_ids: "number" as in `LabelInfo`, or "name".
    """
    one = messages.of("vision_msgs/msg/Detection2D")
    tracks = [UNTRACKED] * len(found) if found.track_ids is None else found.track_ids.tolist()
    detections = [
        one(
            header=header,
            results=[_hypothesis_with_pose(messages, found, index, class_ids)],
            bbox=_box(messages, *box),
            id="" if track == UNTRACKED else str(track),
        )
        for index, (box, track) in enumerate(zip(found.boxes_xyxy_px.tolist(), tracks, strict=True))
    ]
    return messages.of("vision_msgs/msg/Detection2DArray")(header=header, detections=detections)


def _box(messages: Messages, left: float, top: float, right: float, bottom: float) -> Any:
    position = messages.of("vision_msgs/msg/Point2D")(x=(left + right) / 2, y=(top + bottom) / 2)
    center = messages.of("vision_msgs/msg/Pose2D")(position=position, theta=0.0)
    return messages.of("vision_msgs/msg/BoundingBox2D")(center=center, size_x=right - left, size_y=bottom - top)


def _hypothesis(messages: Messages, labels: Sequence[str], class_id: int, score: float, class_ids: ClassIds) -> Any:
    name = labels[class_id] if class_ids == "name" else str(class_id)
    return messages.of("vision_msgs/msg/ObjectHypothesis")(class_id=name, score=score)


def _hypothesis_with_pose(messages: Messages, found: Detections, index: int, class_ids: ClassIds) -> Any:
    """Without a pose: all of it is zero, as where nothing was set."""
    pose = messages.of("geometry_msgs/msg/Pose")(
        position=messages.of("geometry_msgs/msg/Point")(x=0.0, y=0.0, z=0.0),
        orientation=messages.of("geometry_msgs/msg/Quaternion")(x=0.0, y=0.0, z=0.0, w=1.0),
    )
    unknown = messages.of("geometry_msgs/msg/PoseWithCovariance")(pose=pose, covariance=np.zeros(36))
    class_id, score = int(found.class_ids[index]), float(found.scores[index])
    hypothesis = _hypothesis(messages, found.labels, class_id, score, class_ids)
    return messages.of("vision_msgs/msg/ObjectHypothesisWithPose")(hypothesis=hypothesis, pose=unknown)


def classification_message(messages: Messages, header: Any, found: Classification, class_ids: ClassIds) -> Any:
    """A `Classification`, best first."""
    pairs = zip(found.class_ids.tolist(), found.scores.tolist(), strict=True)
    results = [_hypothesis(messages, found.labels, class_id, score, class_ids) for class_id, score in pairs]
    return messages.of("vision_msgs/msg/Classification")(header=header, results=results)


def label_info_message(messages: Messages, header: Any, labels: Sequence[str], threshold: float) -> Any:
    """A `LabelInfo`: names of all classes, and the score below which nothing is published."""
    one = messages.of("vision_msgs/msg/VisionClass")
    classes = [one(class_id=class_id, class_name=name) for class_id, name in enumerate(labels)]
    return messages.of("vision_msgs/msg/LabelInfo")(header=header, class_map=classes, threshold=threshold)


def masks_message(messages: Messages, header: Any, found: SegmentationMap | Instances) -> Any:
    """An `Image` of the picture's size.

    Of a segmentation: "mono8", each pixel's class id. Of instances: "mono16", 0 for background, otherwise one more
    than the object's place in the `Detection2DArray`; of objects that overlap, the better one.
    """
    if isinstance(found, SegmentationMap):
        return image_message(messages, header, found.classes, "mono8")
    numbers = np.zeros(found.masks.shape[1:], np.uint16)
    for index in reversed(range(min(len(found), _MOST_INSTANCES))):
        numbers[found.masks[index]] = index + 1
    return image_message(messages, header, numbers, "mono16")


def annotated_message(messages: Messages, header: Any, found: Result, picture: Any) -> Any:
    """An `Image` ("bgr8") of the picture with the result drawn on it."""
    return image_message(messages, header, found.draw(picture), "bgr8")
