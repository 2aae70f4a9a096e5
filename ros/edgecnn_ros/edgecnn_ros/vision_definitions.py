"""The fields of vision_msgs 4 (ROS 2 Humble and newer), for readers and writers of bags that have no ROS."""

from __future__ import annotations

from typing import Final

_FIELDS: Final = {
    "Point2D": "float64 x, float64 y",
    "Pose2D": "vision_msgs/Point2D position, float64 theta",
    "BoundingBox2D": "vision_msgs/Pose2D center, float64 size_x, float64 size_y",
    "ObjectHypothesis": "string class_id, float64 score",
    "ObjectHypothesisWithPose": "ObjectHypothesis hypothesis, geometry_msgs/PoseWithCovariance pose",
    "Detection2D": "std_msgs/Header header, ObjectHypothesisWithPose[] results, BoundingBox2D bbox, string id",
    "Detection2DArray": "std_msgs/Header header, Detection2D[] detections",
    "Classification": "std_msgs/Header header, ObjectHypothesis[] results",
    "VisionClass": "uint16 class_id, string class_name",
    "LabelInfo": "std_msgs/Header header, vision_msgs/VisionClass[] class_map, float32 threshold",
}
DEFINITIONS: Final = {f"vision_msgs/msg/{name}": fields.replace(", ", "\n") for name, fields in _FIELDS.items()}
