"""Pictures that come as messages, as a camera of edgecnn: its live loop then does what it does for all cameras."""

from __future__ import annotations

import queue
import threading
import time
from dataclasses import dataclass
from typing import Any

from edgecnn.runners.live.cameras.base import CameraBase
from edgecnn.runners.live.frame import Frame
from edgecnn_ros.messages import stamp_ns
from edgecnn_ros.pictures import picture_of

_OLDEST_NS = 60 * 10**9  # an older stamp is of another clock: of a bag that is played, of a camera's own


@dataclass(frozen=True, slots=True)
class StampedFrame(Frame):
    """A frame that came in a message.

    Attributes:
        header: the message's.
    """

    header: Any = None


def frame_of_message(
    message: Any, index: int, source: str, *, ros_now_ns: int, begin_ns: int | None = None
) -> StampedFrame:
    """The frame of a message; its time of capture is the header's stamp.

    Args:
        message: `sensor_msgs/Image` or `CompressedImage`.
        index: number of messages before it.
        source: the topic.
        ros_now_ns: ROS time at which the message came. It gives the picture's age then; where the stamp is no time of
            that clock in the last minute, the age is counted from now.
        begin_ns: the first message's stamp, for a recording.

    Raises:
        DataError: as `picture_of`.
    """
    image, stamp = picture_of(message), stamp_ns(message.header)
    age_ns = ros_now_ns - stamp
    captured_ns = time.monotonic_ns() - (age_ns if 0 <= age_ns < _OLDEST_NS else 0)
    media_ns = None if begin_ns is None else max(0, stamp - begin_ns)
    return StampedFrame(image, index, captured_ns, stamp, source, media_ns, message.header)


class TopicCamera(CameraBase):
    """A camera whose frames come from a topic.

    Args:
        name: its name.
        live: whether frames come at their own rate, so that the loop keeps the newest; otherwise `put` waits until the
            loop has room.
    """

    stills = False
    fps: float | None = None
    frames_total: int | None = None
    dropped = 0
    remark: str | None = None

    def __init__(self, name: str, *, live: bool) -> None:
        self.name, self.live = name, live
        self._frames: queue.Queue[Frame | BaseException | None] = queue.Queue(0 if live else 1)
        self._closed = threading.Event()

    def put(self, frame: Frame | BaseException) -> None:
        """The next frame, or why there will be no more; nothing after `close`."""
        while not self._closed.is_set():
            try:
                return self._frames.put(frame, timeout=0.1)
            except queue.Full:
                continue
        return None

    def end(self) -> None:
        """No more frames: the loop ends after those that were put."""
        while not self._closed.is_set():
            try:
                return self._frames.put(None, timeout=0.1)
            except queue.Full:
                continue
        return None

    def __next__(self) -> Frame:
        while not self._closed.is_set():
            try:
                frame = self._frames.get(timeout=0.1)
            except queue.Empty:
                continue
            if isinstance(frame, BaseException):
                self.close()
                raise frame
            if frame is None:
                self.close()
                break
            return frame
        raise StopIteration

    def close(self) -> None:
        """Nobody waits any more."""
        self._closed.set()
