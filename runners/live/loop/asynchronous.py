"""The live loop for async programs: like `live`, without blocking the event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence

from edgecnn.results import Result
from edgecnn.runners.live.cameras.camera import Camera
from edgecnn.runners.live.frame import Frame
from edgecnn.runners.live.loop.counters import LiveCounters
from edgecnn.runners.live.loop.threads import ErrorListener, FrameRunner, LoopThreads


async def live_async(
    camera: Camera | Sequence[Camera],
    runner: FrameRunner | Sequence[FrameRunner],
    *,
    max_age_ms: float | None = None,
    counters: LiveCounters | None = None,
    on_error: ErrorListener | None = None,
) -> AsyncGenerator[tuple[Frame, Result], None]:
    """Each frame of a camera with the network's result, as `live`, for `async for`.

    Capture and inference run in separate threads, so the event loop stays free. While the consumer awaits
    something else, results of a live camera are replaced by newer ones. It may be cancelled at any moment; when it has
    ended, camera and runner are free and may be closed. After a `break`, the loop ends where
    `contextlib.aclosing` says, or some time later without it.

    Args:
        camera, runner, max_age_ms, counters, on_error: as for `live`. `open_camera` and `open_runner` may
            block: inside an event loop, use `await asyncio.to_thread(open_camera, …)`.

    Raises:
        DataError, DeviceError, SpecError: as for `live`.
    """
    loop, arrived = asyncio.get_running_loop(), asyncio.Event()

    def notify() -> None:
        with contextlib.suppress(RuntimeError):  # the event loop was closed first
            loop.call_soon_threadsafe(arrived.set)

    threads = LoopThreads(camera, runner, max_age_ms=max_age_ms, counters=counters, on_answer=notify, on_error=on_error)
    try:
        while True:
            arrived.clear()
            answer = threads.result_now()
            if answer is None:
                if threads.over():
                    return
                await arrived.wait()
                continue
            with threads.delivery(answer[0]):
                yield answer
            await asyncio.sleep(0)  # lets other tasks run even if the consumer awaits nothing
    finally:
        # Waits in a thread for the running inference; a second cancellation must not interrupt that.
        await asyncio.shield(asyncio.to_thread(threads.stop))
