"""edgecnn in a ROS 2 graph: pictures in, `vision_msgs` out.

Only `node.py` imports rclpy. All that doesn't need ROS lies beside it, so that `replay.py` runs the same code on bags
without ROS.
"""
