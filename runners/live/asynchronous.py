"""The loop for programs that await: what `live` gives, without holding the event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence

from edgecnn.results import Result
from edgecnn.runners.live.camera import Camera
from edgecnn.runners.live.frames import Frame
from edgecnn.runners.live.loop import FrameRunner, LiveCounters, Pipeline


async def live_async(
    camera: Camera | Sequence[Camera],
    runner: FrameRunner | Sequence[FrameRunner],
    *,
    max_age_ms: float | None = None,
    counters: LiveCounters | None = None,
) -> AsyncGenerator[tuple[Frame, Result], None]:
    """Each frame of a camera with what the network says of it, as `live`, for `async for`.

    Capture and inference go on in threads of their own, and the event loop is free meanwhile. While the consumer awaits
    something else, results of a live camera give way to newer ones. It may be cancelled at any moment; when it has
    ended, camera and runner are free and may be closed. A loop that is left by `break` ends where
    `contextlib.aclosing` says, or some time later without it.

    Args:
        camera, runner, max_age_ms, counters: as for `live`. `open_camera` and `open_runner` take their time: inside an
            event loop, `await asyncio.to_thread(open_camera, …)`.

    Raises:
        DataError, DeviceError, SpecError: as for `live`.
    """
    loop, arrived = asyncio.get_running_loop(), asyncio.Event()

    def tell() -> None:
        with contextlib.suppress(RuntimeError):  # the event loop was closed before this one
            loop.call_soon_threadsafe(arrived.set)

    pipeline = Pipeline(camera, runner, max_age_ms=max_age_ms, counters=counters, on_answer=tell)
    try:
        while True:
            arrived.clear()
            answer = pipeline.result_now()
            if answer is None:
                if pipeline.over():
                    return
                await arrived.wait()
                continue
            with pipeline.delivery(answer[0]):
                yield answer
            await asyncio.sleep(0)  # where the consumer awaits nothing, others get their turn
    finally:
        # Waits for the inference that is running, in a thread; a second cancellation must not leave it half done.
        await asyncio.shield(asyncio.to_thread(pipeline.stop))
