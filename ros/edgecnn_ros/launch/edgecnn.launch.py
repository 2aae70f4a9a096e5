"""Networks on a camera's topic: ros2 launch edgecnn_ros edgecnn.launch.py image:=/camera/image_raw."""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode


def generate_launch_description() -> LaunchDescription:
    """The node, its parameters' file and the topic of its pictures."""
    parameters = Path(get_package_share_directory("edgecnn_ros")) / "config" / "edgecnn.yaml"
    return LaunchDescription(
        [
            DeclareLaunchArgument("image", default_value="/camera/image_raw", description="Topic of the pictures."),
            DeclareLaunchArgument("params", default_value=str(parameters), description="File of parameters."),
            LifecycleNode(
                package="edgecnn_ros",
                executable="edgecnn",
                name="edgecnn",
                namespace="",
                parameters=[LaunchConfiguration("params")],
                remappings=[("image", LaunchConfiguration("image"))],
                output="screen",
                respawn=True,
                respawn_delay=2.0,
            ),
        ]
    )
