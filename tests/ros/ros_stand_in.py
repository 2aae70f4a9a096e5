"""What stands in for rclpy, which can't be installed without ROS: it has the names that the node uses, and no more.

Messages are real ones, by rosbags' definitions. No graph, no middleware and no state machine of ROS takes part.
"""

from __future__ import annotations

from types import ModuleType, SimpleNamespace
from typing import Any

from edgecnn_ros.replay import BagMessages

PACKAGES = ("builtin_interfaces", "std_msgs", "geometry_msgs", "sensor_msgs", "vision_msgs", "diagnostic_msgs")


class World:
    """Parameters that are set, subscribers that there are, and what happens.

    Attributes:
        parameters: values that are not the defaults.
        subscribed: topics with a subscriber.
        published: messages by topic.
        log: lines of the node's log.
        during_spin: called instead of waiting for messages.
        now_ns: ROS time.
    """

    def __init__(self) -> None:
        self.parameters: dict[str, Any] = {}
        self.subscribed: set[str] = set()
        self.published: dict[str, list[Any]] = {}
        self.quality: dict[str, Any] = {}
        self.callbacks: dict[str, Any] = {}
        self.log: list[str] = []
        self.now_ns = 0
        self.during_spin: Any = lambda node: None
        self.nodes: list[Any] = []

    def modules(self, messages: BagMessages) -> dict[str, ModuleType]:
        """Stand-ins by name, for `sys.modules`."""
        node = type("Node", (_Node,), {"world": self})
        results = SimpleNamespace(SUCCESS="success", FAILURE="failure", ERROR="error")
        found = {
            "rclpy": _module(init=lambda args: None, spin=self.during_it, ok=lambda: True, shutdown=lambda: None),
            "rclpy.executors": _module(ExternalShutdownException=type("ExternalShutdownException", (Exception,), {})),
            "rclpy.lifecycle": _module(Node=node, State=object, TransitionCallbackReturn=results),
            "rclpy.qos": _module(
                DurabilityPolicy=SimpleNamespace(TRANSIENT_LOCAL="transient local"),
                QoSProfile=lambda **words: SimpleNamespace(**words),
                ReliabilityPolicy=SimpleNamespace(RELIABLE="reliable", BEST_EFFORT="best effort"),
                qos_profile_sensor_data=SimpleNamespace(depth=5, reliability="best effort"),
            ),
            "rcl_interfaces.msg": _module(ParameterDescriptor=lambda **words: SimpleNamespace(**words)),
        }
        for package in PACKAGES:
            kinds = {name.rpartition("/")[2]: kind for name, kind in messages.store.types.items() if package in name}
            found[f"{package}.msg"] = _module(**kinds)
        return found

    def during_it(self, node: Any) -> None:
        """In place of rclpy.spin."""
        self.during_spin(node)


def _module(**names: Any) -> ModuleType:
    module = ModuleType("stand_in")
    module.__dict__.update(names)
    return module


class _Node:
    """A lifecycle node: transitions call the node's methods, and publishers are silent unless it is active."""

    world: World

    def __init__(self, name: str) -> None:
        self._name, self._active = name, False
        self._values: dict[str, Any] = {}
        self.timers: list[Any] = []
        self.world.nodes.append(self)

    def declare_parameter(self, name: str, default: Any, descriptor: Any) -> None:
        assert descriptor.description
        self._values[name] = self.world.parameters.get(name, default)

    def get_parameter(self, name: str) -> Any:
        return SimpleNamespace(value=self._values[name])

    def get_name(self) -> str:
        return self._name

    def get_logger(self) -> Any:
        note = lambda line, **_: self.world.log.append(line)  # noqa: E731
        return SimpleNamespace(info=note, warning=note, error=note)

    def get_clock(self) -> Any:
        return SimpleNamespace(now=lambda: SimpleNamespace(nanoseconds=self.world.now_ns))

    def create_timer(self, period_s: float, callback: Any) -> Any:
        self.timers.append(callback)
        return callback

    def create_publisher(self, kind: Any, topic: str, quality: Any) -> Any:
        return self._publisher(kind, topic, quality, managed=False)

    def create_lifecycle_publisher(self, kind: Any, topic: str, quality: Any) -> Any:
        return self._publisher(kind, topic, quality, managed=True)

    def _publisher(self, kind: Any, topic: str, quality: Any, *, managed: bool) -> Any:
        self.world.quality[topic] = quality

        def publish(message: Any) -> None:
            assert isinstance(message, kind)
            if self._active or not managed:
                self.world.published.setdefault(topic, []).append(message)

        return SimpleNamespace(publish=publish, get_subscription_count=lambda: int(topic in self.world.subscribed))

    def destroy_lifecycle_publisher(self, publisher: Any) -> None: ...

    def create_subscription(self, kind: Any, topic: str, callback: Any, quality: Any) -> Any:
        self.world.callbacks[topic] = callback
        self.world.quality[topic] = quality
        return topic

    def destroy_subscription(self, topic: str) -> None:
        del self.world.callbacks[topic]

    def on_activate(self, state: Any) -> str:
        self._active = True
        return "success"

    def on_deactivate(self, state: Any) -> str:
        self._active = False
        return "success"

    def trigger_configure(self) -> Any:
        return self.on_configure(None)  # type: ignore[attr-defined]

    def trigger_activate(self) -> Any:
        return self.on_activate(None)

    def destroy_node(self) -> None:
        self.world.nodes.remove(self)
