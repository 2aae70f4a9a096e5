"""The lifecycle node: `ros2 run edgecnn_ros edgecnn`."""

from __future__ import annotations

import sys
from typing import Any

import rclpy
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.executors import ExternalShutdownException
from rclpy.lifecycle import Node, State, TransitionCallbackReturn
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data

from edgecnn.errors import EdgeCnnError
from edgecnn_ros.diagnostics import diagnostics_message
from edgecnn_ros.messages import RosMessages, stamp_ns
from edgecnn_ros.perception import ON_DEMAND, TYPES, Perception
from edgecnn_ros.settings import NETWORK_PARAMETERS, PARAMETERS, Parameter, check_names, settings_of

_NEWEST = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)  # sensor data, and no queue
_RESULTS = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)  # for subscribers of both kinds
_LATCHED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
_REFUSALS_S = 5.0  # at most one line about refused pictures in this time


class EdgecnnNode(Node):  # type: ignore[misc] # without ROS, rclpy's classes are not known
    """Opens networks when configured; while active, answers the pictures of `image` or of its own camera.

    Attributes:
        perception: what it does; None unless it is configured.
        outputs: publishers of results, by topic.
    """

    def __init__(self, **words: Any) -> None:
        super().__init__("edgecnn", **words)
        self._messages = RosMessages()
        self.perception: Perception | None = None
        self.outputs: dict[str, Any] = {}
        self._subscription: Any = None
        self._diagnostics = self.create_publisher(
            self._messages.of("diagnostic_msgs/msg/DiagnosticArray"), "/diagnostics", _RESULTS
        )
        self._timer = self.create_timer(1.0, self._every_second)
        for parameter in PARAMETERS:
            self._declare(parameter.name, parameter)
        for name in check_names(self._value("networks")):
            for parameter in NETWORK_PARAMETERS:
                self._declare(f"{name}.{parameter.name}", parameter)

    def on_configure(self, state: State) -> TransitionCallbackReturn:
        """Open the networks, and say which classes they have."""
        try:
            self.perception = Perception(
                settings_of(self._value), self._messages, self._publish, wanted=self._is_wanted
            )
        except EdgeCnnError as failed:
            self.get_logger().error(str(failed))
            return TransitionCallbackReturn.FAILURE
        for network in self.perception.networks:
            for topic in network.topics:
                self._create_output(f"{network.name}/{topic}", topic)
            self.get_logger().info(f"{network.name}: {network.runner!r}")
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state: State) -> TransitionCallbackReturn:
        """Begin to answer pictures."""
        perception = self.perception
        assert perception is not None
        activated = super().on_activate(state)  # publishers first
        now_ns = self.get_clock().now().nanoseconds
        for network in perception.networks:
            info = network.label_info(now_ns, perception.settings.frame_id)
            self.outputs[f"{network.name}/label_info"].publish(info)
        try:
            perception.start()
        except EdgeCnnError as failed:
            self.get_logger().error(str(failed))
            super().on_deactivate(state)
            return TransitionCallbackReturn.FAILURE
        if perception.settings.source is None:
            kind = "CompressedImage" if perception.settings.compressed else "Image"
            image = self._messages.of(f"sensor_msgs/msg/{kind}")
            self._subscription = self.create_subscription(image, "image", self._on_image, _NEWEST)
        return activated

    def on_deactivate(self, state: State) -> TransitionCallbackReturn:
        """Answer no more pictures; the networks stay open."""
        self._stop()
        return super().on_deactivate(state)

    def on_cleanup(self, state: State) -> TransitionCallbackReturn:
        """Close the networks."""
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: State) -> TransitionCallbackReturn:
        """Close the networks."""
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: State) -> TransitionCallbackReturn:
        """Close the networks; the node may be configured again."""
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def destroy_node(self) -> None:
        """Close the networks, then the node."""
        self._release()
        super().destroy_node()

    def _declare(self, name: str, parameter: Parameter) -> None:
        self.declare_parameter(name, parameter.default, ParameterDescriptor(description=parameter.description))

    def _value(self, name: str) -> Any:
        return self.get_parameter(name).value

    def _create_output(self, full: str, topic: str) -> None:
        quality = _LATCHED if topic == "label_info" else qos_profile_sensor_data if topic in ON_DEMAND else _RESULTS
        self.outputs[full] = self.create_lifecycle_publisher(self._messages.of(TYPES[topic]), f"~/{full}", quality)

    def _publish(self, full: str, message: Any, frame: object) -> None:
        self.outputs[full].publish(message)

    def _is_wanted(self, full: str) -> bool:
        return bool(self.outputs[full].get_subscription_count())

    def _on_image(self, message: Any) -> None:
        assert self.perception is not None
        now_ns = self.get_clock().now().nanoseconds
        if refusal := self.perception.put(message, ros_now_ns=now_ns):
            self.get_logger().warning(
                f"a picture of {stamp_ns(message.header)} ns is refused: {refusal}", throttle_duration_sec=_REFUSALS_S
            )

    def _every_second(self) -> None:
        """Publish how it is; a loop that has failed ends the program."""
        if self.perception is None:
            return
        now_ns = self.get_clock().now().nanoseconds
        self._diagnostics.publish(diagnostics_message(self.perception, self.get_name(), now_ns))
        self.perception.raise_failure()

    def _stop(self) -> None:
        if self._subscription is not None:
            self.destroy_subscription(self._subscription)
            self._subscription = None
        if self.perception is not None:
            self.perception.stop()

    def _release(self) -> None:
        self._stop()
        for publisher in self.outputs.values():
            self.destroy_lifecycle_publisher(publisher)
        self.outputs = {}
        if self.perception is not None:
            self.perception.close()
            self.perception = None

    def start_by_itself(self) -> bool:
        """Configure and activate, where `autostart` says so; whether that went well."""
        if not self._value("autostart"):
            return True
        success = TransitionCallbackReturn.SUCCESS
        return bool(self.trigger_configure() == success and self.trigger_activate() == success)


def main(arguments: list[str] | None = None) -> int:
    """Run the node until it is stopped; 1 where it could not start, or where a camera or network failed."""
    rclpy.init(args=arguments)
    node = None
    try:
        node = EdgecnnNode()
        if not node.start_by_itself():
            return 1
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        return 0
    except EdgeCnnError as failed:
        print(f"edgecnn: {failed}", file=sys.stderr)  # noqa: T201 - the log may be gone
        return 1
    finally:
        if node is not None:
            node.destroy_node()
        if rclpy.ok():  # a signal has ended it otherwise
            rclpy.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
