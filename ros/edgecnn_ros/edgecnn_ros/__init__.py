"""edgecnn in a ROS 2 graph: pictures in, `vision_msgs` out.

Only `node.py` imports rclpy. The other modules do not need ROS, so `replay.py` runs the same code on bags
without ROS.
"""
