"""The loop: frames of a camera through a runner; of a live camera, the newest."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence

from edgecnn.results import Result
from edgecnn.runners.live.cameras.camera import Camera
from edgecnn.runners.live.frame import Frame
from edgecnn.runners.live.loop.counters import LiveCounters
from edgecnn.runners.live.loop.threads import ErrorListener, FrameRunner, LoopThreads


def live(
    camera: Camera | Sequence[Camera],
    runner: FrameRunner | Sequence[FrameRunner],
    *,
    max_age_ms: float | None = None,
    counters: LiveCounters | None = None,
    on_error: ErrorListener | None = None,
    on_remark: Callable[[str], None] | None = None,
) -> Generator[tuple[Frame, Result], None, None]:
    """Each frame of a camera with the network's result; for a live camera, only the newest frame.

    Capture, inference and the consumer's work run in parallel, each in a separate thread: while one result is
    consumed, the next is computed. With a live camera nothing queues: a frame that is not taken in
    time is replaced by a newer one, and counted. With a recording nothing is lost; up to three frames are read ahead,
    and are lost if the consumer leaves the loop early.

    Args:
        camera: an open camera from `open_camera`; not closed here. Several cameras are served in turn, and
            `Frame.source` tells which camera a frame is from.
        runner: an open runner from `open_runner`; not closed here, and used only by this loop until it ends. One for
            all cameras, or one for each (needed for tracking); they are never called at the same time.
        max_age_ms: results of older frames are dropped instead of delivered late; only for live cameras.
        counters: updated while the loop runs.
        on_error: called at once, in a thread of the loop, with an exception from a camera or the network, also while
            other cameras continue; by default it is logged. The exception is raised here too, as below. It may stop
            the loop or close cameras; an exception from it is logged.
        on_remark: called when a source has ended of which something could not be read (`Camera.remark`); by default
            that is logged as a warning.

    Raises:
        DataError, DeviceError: as the camera and the runner do; with several cameras, when the last one has ended.
        SpecError: max_age_ms is not positive, or the number of runners is neither one nor the number of cameras.
    """
    threads = LoopThreads(
        camera, runner, max_age_ms=max_age_ms, counters=counters, on_error=on_error, on_remark=on_remark
    )
    try:
        for frame, result in threads.results():
            with threads.delivery(frame):
                yield frame, result
    finally:
        threads.stop()
