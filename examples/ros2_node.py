"""A ROS 2 node that publishes what a camera sees as vision_msgs/Detection2DArray: python3 ros2_node.py [SOURCE]."""

import sys
from typing import Any

import edgecnn


def to_message(frame: edgecnn.Frame, detections: edgecnn.Detections, messages: Any) -> Any:
    """A Detection2DArray, stamped with the time of capture; `messages` is `vision_msgs.msg`."""
    array = messages.Detection2DArray()
    array.header.stamp.sec, array.header.stamp.nanosec = divmod(frame.captured_unix_ns, 10**9)
    array.header.frame_id = "camera"
    for box, score, label in detections:
        (left, top, right, bottom), found = box.tolist(), messages.Detection2D(header=array.header)
        found.bbox.center.position.x, found.bbox.center.position.y = (left + right) / 2, (top + bottom) / 2
        found.bbox.size_x, found.bbox.size_y = right - left, bottom - top
        guess = messages.ObjectHypothesis(class_id=label, score=score)
        found.results = [messages.ObjectHypothesisWithPose(hypothesis=guess)]
        array.detections.append(found)
    return array


def main(source: str) -> None:
    import rclpy
    from vision_msgs import msg as messages

    rclpy.init()
    node = rclpy.create_node("edgecnn")
    publisher = node.create_publisher(messages.Detection2DArray, "detections", 1)
    with edgecnn.open_camera(source) as camera, edgecnn.open_runner("default-detector") as runner:
        send = lambda frame, found: publisher.publish(to_message(frame, found, messages))  # noqa: E731
        with edgecnn.start_live(camera, runner, on_result=send) as loop:
            while rclpy.ok() and not loop.wait(0.05):  # raises what ended the loop
                rclpy.spin_once(node, timeout_sec=0)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "0")
