"""A camera's driver, and two networks on its pictures: ros2 launch examples/ros2.launch.py bundle:=street.edge."""

from typing import Any

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node

PARAMETERS: dict[str, Any] = {
    "networks": ["objects", "ground"],
    "class_ids": "name",
    "max_age_ms": 300.0,
    "objects.bundle": LaunchConfiguration("bundle"),
    "objects.track": True,
    "ground.bundle": "default-segmenter",
}


def generate_launch_description() -> LaunchDescription:
    driver = Node(package="v4l2_camera", executable="v4l2_camera_node", name="camera", namespace="camera")
    networks = LifecycleNode(
        package="edgecnn_ros",
        executable="edgecnn",
        name="edgecnn",
        namespace="",
        parameters=[PARAMETERS],
        remappings=[("image", "/camera/image_raw")],
        respawn=True,  # it ends where a network or a camera fails
        output="screen",
    )
    bundle = DeclareLaunchArgument("bundle", default_value="default-detector")
    return LaunchDescription([bundle, driver, networks])
