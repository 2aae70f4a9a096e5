"""What the node does, without ROS: networks run on the pictures of a topic or camera, and messages go out."""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from edgecnn.errors import EdgeCnnError, SpecError
from edgecnn.results import Classification, Instances, Result, SegmentationMap
from edgecnn.runners.live.cameras.camera import Camera, open_camera
from edgecnn.runners.live.frame import Frame
from edgecnn.runners.live.loop.background import LiveLoop, start_live
from edgecnn.runners.live.loop.counters import LiveCounters
from edgecnn.runners.live.tracking.tracked_runner import TrackedRunner
from edgecnn.runners.live.tracking.tracker import DEFAULT_FPS, Tracker
from edgecnn.runners.runner import Runner, open_runner
from edgecnn_ros import answers
from edgecnn_ros.messages import Messages, header_at, stamp_ns
from edgecnn_ros.settings import NetworkSettings, Settings
from edgecnn_ros.topic_camera import StampedFrame, TopicCamera, frame_of_message

if TYPE_CHECKING:
    from typing import Self

_log = logging.getLogger(__name__)
Publish: TypeAlias = Callable[[str, Any, Frame], None]
TYPES: Final = {
    "detections": "vision_msgs/msg/Detection2DArray",
    "classification": "vision_msgs/msg/Classification",
    "masks": "sensor_msgs/msg/Image",
    "annotated": "sensor_msgs/msg/Image",
    "label_info": "vision_msgs/msg/LabelInfo",
}
ON_DEMAND: Final = frozenset({"masks", "annotated"})  # made only for a subscriber


class Network:
    """An open network and the messages of its results.

    Attributes:
        name: its name in topics.
        runner: its runner.
        topics: names of its topics, from `TYPES`.
    """

    def __init__(self, settings: NetworkSettings, messages: Messages, class_ids: answers.ClassIds) -> None:
        self.name, self.settings = settings.name, settings
        self._messages, self._class_ids = messages, class_ids
        self.runner: Runner = open_runner(
            settings.bundle,
            device=settings.device,
            format=settings.format,
            precision=settings.precision,
            threads=settings.threads,
            score=settings.score,
            nms_iou=settings.nms_iou,
            trusted_keys=[settings.trusted_key] if settings.trusted_key else None,
        )
        task = self.runner.task
        if settings.track and not task.finds_objects():
            self.runner.close()
            raise SpecError(f"{self.name}.track: only objects can be tracked, but this network's task is {task.name}")
        self.topics = tuple(topic for topic in TYPES if _has(task, topic))

    def called(self, *, live: bool, fps: float | None) -> Runner | TrackedRunner:
        """What the loop calls: the runner, or one that tracks from now on."""
        if not self.settings.track:
            return self.runner
        return TrackedRunner(self.runner, Tracker(fps=fps or DEFAULT_FPS), live=live)

    def message(self, topic: str, header: Any, result: Result, picture: Any) -> Any:
        """The message of one of its topics for a result."""
        messages = self._messages
        if topic == "detections":
            objects = self.runner.task.objects(result)
            return answers.detections_message(messages, header, objects, self._class_ids)  # type: ignore[arg-type]
        if topic == "classification" and isinstance(result, Classification):
            return answers.classification_message(messages, header, result, self._class_ids)
        if topic == "masks" and isinstance(result, SegmentationMap | Instances):
            return answers.masks_message(messages, header, result)
        return answers.annotated_message(messages, header, result, picture)

    def label_info(self, time_ns: int, frame_id: str) -> Any:
        """Names of its classes, as a message."""
        task = self.runner.task
        threshold = float(getattr(task, "score_threshold", 0.0))
        header = header_at(self._messages, time_ns, frame_id)
        return answers.label_info_message(self._messages, header, task.labels, threshold)


def _has(task: Any, topic: str) -> bool:
    if topic == "detections":
        return bool(task.finds_objects())
    if topic == "classification":
        return issubclass(task.result, Classification)
    return topic != "masks" or issubclass(task.result, SegmentationMap | Instances)


class Perception:
    """Networks on the pictures of one topic or camera: the newest picture, each network in its turn.

    Args:
        settings: see there.
        messages: where classes of messages are from.
        publish: called with a topic ("objects/detections"), a message and its frame, in one thread of the loop.
        wanted: whether anybody subscribes to a topic; asked for pictures alone.
        live: False for pictures of a bag: each is answered, and `put` waits.

    Attributes:
        networks: the open networks.
        received, refused: numbers of messages that came, and of those that were no picture.
        refusal: why the last message was refused; None where it was not.

    Raises:
        EdgeCnnError: a network that can't be opened.
    """

    def __init__(
        self,
        settings: Settings,
        messages: Messages,
        publish: Publish,
        *,
        wanted: Callable[[str], bool] = lambda topic: True,
        live: bool = True,
    ) -> None:
        self.settings, self.messages, self.live = settings, messages, live
        self._publish, self._wanted = publish, wanted
        self.networks: list[Network] = []
        self.received = self.refused = 0
        self.refusal: str | None = None
        self._last_ns: int | None = None
        self._begin_ns: int | None = None
        self.counters: dict[str, LiveCounters] = {}
        self._views: dict[str, TopicCamera] = {}
        self._loop: LiveLoop | None = None
        self._camera: Camera | None = None
        self._reader: threading.Thread | None = None
        try:
            for each in settings.networks:
                self.networks.append(Network(each, messages, settings.class_ids))
        except BaseException:
            self.close()
            raise

    def start(self) -> None:
        """Begin: open the camera, if there is one, and answer what is put.

        Raises:
            EdgeCnnError: the camera can't be opened.
        """
        self.stop()
        fps = None
        if self.settings.source is not None:
            self._camera = open_camera(self.settings.source)
            self.live, fps = self._camera.live, self._camera.fps
        self._views = {network.name: TopicCamera(network.name, live=self.live) for network in self.networks}
        self.counters = {network.name: LiveCounters() for network in self.networks}
        self._last_ns = time.monotonic_ns()
        self._loop = start_live(
            list(self._views.values()),
            [network.called(live=self.live, fps=fps) for network in self.networks],
            on_result=self._on_result,
            on_error=_log_failure,
            max_age_ms=self.settings.max_age_ms,
        )
        if self._camera is not None:
            self._reader = threading.Thread(target=self._read, name="camera", daemon=True)
            self._reader.start()

    def put(self, message: Any, *, ros_now_ns: int) -> str | None:
        """Answer a picture that came in a message.

        Returns:
            Why it was refused; None where it wasn't. A message that is no picture ends nothing: the next may be one.
        """
        self._last_ns = time.monotonic_ns()
        self.received += 1
        try:
            self._begin_ns = stamp_ns(message.header) if self._begin_ns is None and not self.live else self._begin_ns
            frame = frame_of_message(
                message, self.received - 1, "image", ros_now_ns=ros_now_ns, begin_ns=self._begin_ns
            )
        except EdgeCnnError as refused:
            self.refused += 1
            self.refusal = str(refused)
            return self.refusal
        self.refusal = None
        self._hand_out(frame)
        return None

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until all that was put is answered, after `end`; False if that is not so in time.

        Raises:
            Exception: what ended the loop.
        """
        return self._loop is None or self._loop.wait(timeout_s)

    def end(self) -> None:
        """Nothing more will be put."""
        for view in self._views.values():
            view.end()

    def raise_failure(self) -> None:
        """Raise what ended the loop: a camera, a network or a publisher that failed; do nothing while it runs."""
        if self._loop is not None:
            self._loop.newest()

    @property
    def ended(self) -> bool:
        """Whether there will be no more results."""
        return self._loop is not None and self._loop.ended

    @property
    def silent_s(self) -> float:
        """Time since the last picture came, or since the start."""
        return 0.0 if self._last_ns is None else (time.monotonic_ns() - self._last_ns) / 1e9

    @property
    def dropped(self) -> int:
        """Pictures that were not answered because a newer one had come, or because they were too old."""
        return 0 if self._loop is None else sum(self._loop.counters.dropped.values())

    def stop(self) -> None:
        """End the loop and release the camera; a second call does nothing."""
        for view in self._views.values():
            view.close()
        if self._camera is not None:
            self._camera.close()
        if self._reader is not None:
            self._reader.join()
        if self._loop is not None:
            self._loop.stop()
        self._camera = self._reader = self._loop = None
        self._views = {}

    def close(self) -> None:
        """Stop, and close the networks."""
        self.stop()
        for network in self.networks:
            network.runner.close()
        self.networks = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read(self) -> None:
        """Hand out the camera's frames, with headers."""
        views = list(self._views.values())
        assert self._camera is not None
        try:
            for frame in self._camera:
                self._last_ns = time.monotonic_ns()
                self.received += 1
                header = header_at(self.messages, frame.captured_unix_ns, self.settings.frame_id)
                times = (frame.captured_ns, frame.captured_unix_ns)
                self._hand_out(StampedFrame(frame.image, frame.index, *times, frame.source, frame.media_ns, header))
            for view in views:
                view.end()
        except BaseException as failure:  # raised to the caller that waits for results
            for view in views:
                view.put(failure)

    def _hand_out(self, frame: StampedFrame) -> None:
        for name, view in list(self._views.items()):
            view.put(dataclasses.replace(frame, source=name))  # the loop's results are distinguished by it

    def _on_result(self, frame: Frame, result: Result) -> None:
        """Publish what belongs to a result; pictures only for topics with subscribers."""
        assert isinstance(frame, StampedFrame)
        network = next(each for each in self.networks if each.name == frame.source)
        counters = self.counters[network.name]
        for topic in network.topics:
            full = f"{network.name}/{topic}"
            if topic == "label_info" or (topic in ON_DEMAND and not self._wanted(full)):
                continue
            self._publish(full, network.message(topic, frame.header, result, frame.image), frame)
        counters.frames += 1
        counters.age.add(frame.age_ns)
        times = network.runner.stage_times
        counters.stages["infer"].add(times.infer_ns)


def _log_failure(failure: BaseException) -> None:
    _log.error("%s: %s", type(failure).__name__, failure)
