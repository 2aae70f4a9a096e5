"""What fails in a loop's threads is reported at once and raised; no path ends without a word."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest

from edgecnn.errors import DeviceError, SpecError
from edgecnn.results import Result
from edgecnn.runners.live.frame import Frame
from edgecnn.runners.live.loop.asynchronous import live_async
from edgecnn.runners.live.loop.background import LiveLoop, start_live
from edgecnn.runners.live.loop.newest import live
from edgecnn.runners.live.sinks import Annotated
from edgecnn.runners.live.sinks.threaded import ThreadedSink
from edgecnn.runners.live.tracking.counting import ZoneCounter
from edgecnn.runners.live.tracking.tracked_runner import TrackedRunner
from edgecnn.runners.live.tracking.tracker import Tracker
from edgecnn.runners.runner import open_runner

from .conftest import HeldRunner, ScriptedCamera, until


class FailsAfter(ScriptedCamera):
    """A camera that gives one frame, and then fails when it is let."""

    def __init__(self, *, live: bool = True) -> None:
        super().__init__()
        self.live = live
        self.may_fail, self.failed = threading.Event(), threading.Event()
        self.show()

    def __next__(self) -> Frame:
        if self._waiting.empty():
            self.may_fail.wait(60)
            self.failed.set()
            raise DeviceError("the lens fell off")
        return super().__next__()


def no_thread_stays() -> None:
    until(lambda: not [t for t in threading.enumerate() if t.name.startswith(("watch ", "infer", "live"))])


# --- a listener that acts


@pytest.mark.parametrize("is_live", [True, False], ids=["camera", "recording"])
def test_a_listener_may_stop_the_loop_from_the_thread_that_failed(
    is_live: bool, caplog: pytest.LogCaptureFixture
) -> None:
    loops: list[LiveLoop] = []
    camera = FailsAfter(live=is_live)
    with (
        pytest.raises(DeviceError, match="lens"),
        start_live(camera, HeldRunner(held=False), on_error=lambda error: loops[0].stop()) as loop,
    ):
        loops.append(loop)
        camera.may_fail.set()
        until(lambda: loop.ended)
    assert caplog.text == "", "stopping it from there is no fault"
    no_thread_stays()


def test_a_listener_that_wants_to_end_the_program_hides_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def leave(error: BaseException) -> None:
        raise SystemExit(5)

    camera = FailsAfter()
    camera.may_fail.set()
    with (
        pytest.raises(DeviceError, match="lens"),
        start_live(camera, HeldRunner(held=False), on_error=leave) as loop,
    ):
        until(lambda: loop.ended)
    assert "SystemExit: 5" in caplog.text
    no_thread_stays()


# --- a callback that does nothing


async def _awaits(*_: Any) -> None:
    raise AssertionError("nobody awaits this")


class AwaitsToo:
    async def __call__(self, *_: Any) -> None:
        raise AssertionError("nobody awaits this")


@pytest.mark.parametrize("listener", [_awaits, AwaitsToo()], ids=["function", "object"])
@pytest.mark.parametrize("name", ["on_result", "on_error"])
def test_a_coroutine_function_is_refused(name: str, listener: Any) -> None:
    with ScriptedCamera() as camera, pytest.raises(SpecError, match=f"{name}: .*use live_async"):
        start_live(camera, HeldRunner(held=False), **{name: listener})
    no_thread_stays()


def test_a_callback_that_returns_an_awaitable_is_an_error() -> None:
    with pytest.raises(SpecError, match="returns an awaitable"), ScriptedCamera() as camera:
        camera.show()
        with start_live(camera, HeldRunner(held=False), on_result=lambda *both: _awaits(*both)) as loop:
            until(lambda: loop.ended)


def test_anything_that_cannot_be_called_is_refused() -> None:
    wrong: Any = "print"
    with ScriptedCamera() as camera, pytest.raises(SpecError, match="on_result: expected a function, got str"):
        start_live(camera, HeldRunner(held=False), on_result=wrong)


# --- left in the same moment


def test_who_leaves_the_for_in_the_moment_of_a_failure_finds_it_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    camera = FailsAfter()
    results = live(camera, HeldRunner(held=False))
    next(results)
    camera.may_fail.set()
    until(lambda: "watch script 0" not in [thread.name for thread in threading.enumerate()])
    assert caplog.text == ""
    results.close()
    assert "DeviceError: the lens fell off" in caplog.text


def test_who_stops_awaiting_in_the_moment_of_a_failure_finds_it_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def program() -> None:
        camera = FailsAfter()
        async with contextlib.aclosing(live_async(camera, HeldRunner(held=False))) as results:
            async for _ in results:
                camera.may_fail.set()
                await asyncio.to_thread(
                    until, lambda: "watch script 0" not in [thread.name for thread in threading.enumerate()]
                )
                break

    asyncio.run(program())
    assert "DeviceError: the lens fell off" in caplog.text


def test_what_was_raised_is_not_logged_as_well(caplog: pytest.LogCaptureFixture) -> None:
    camera = FailsAfter()
    camera.may_fail.set()
    with pytest.raises(DeviceError, match="lens"):
        list(live(camera, HeldRunner(held=False)))
    assert caplog.text == ""


# --- between camera and callback


@pytest.mark.runtime
def test_a_tracker_that_fails_is_reported_and_raised() -> None:
    pytest.importorskip("edgefirst.tracker", reason="needs edgefirst-tracker: pip install 'edgecnn[track]'")
    reported: list[BaseException] = []
    with open_runner("default-detector") as runner, ScriptedCamera() as camera:
        outside = ZoneCounter([(0, 0), (900, 0), (900, 900)], name="yard")
        tracked = TrackedRunner(runner, Tracker(fps=10), [outside])
        camera.show()
        with (
            pytest.raises(SpecError, match="yard"),
            start_live(camera, tracked, on_error=reported.append) as loop,
        ):
            until(lambda: loop.ended)
    assert [type(error) for error in reported] == [SpecError]


class OneFrame:
    """A sink that fails, and notes that it was left."""

    def __init__(self) -> None:
        self.left = False

    def deliver(self, frame: Frame, result: Result, annotated: Annotated) -> None:
        raise OSError("the disk is gone")

    def __enter__(self) -> OneFrame:
        return self

    def __exit__(self, *_: object) -> None:
        self.left = True


def test_a_sink_is_closed_even_if_the_failure_callback_fails(caplog: pytest.LogCaptureFixture) -> None:
    def listen(error: BaseException) -> None:
        raise RuntimeError("deaf")

    sink, camera = OneFrame(), ScriptedCamera()
    camera.show()
    frame = next(camera)
    with ThreadedSink(sink, "disk", on_failure=listen) as threaded:
        threaded.deliver(frame, HeldRunner(held=False)(frame), Annotated(lambda: frame.image))
        until(lambda: threaded.failure is not None)
    assert sink.left and "deaf" in caplog.text and "the disk is gone" in caplog.text


# --- a recording that ends early


class CutOff(ScriptedCamera):
    live = False
    remark = "a.mp4 ended after 1 of 795 frames"


def _for(camera: Any, runner: Any) -> None:
    list(live(camera, runner))


def _by_callback(camera: Any, runner: Any) -> None:
    with start_live(camera, runner) as loop:
        loop.wait(60)


def _awaited(camera: Any, runner: Any) -> None:
    async def program() -> None:
        async for _ in live_async(camera, runner):
            pass

    asyncio.run(program())


@pytest.mark.parametrize("way", [_for, _by_callback, _awaited])
def test_a_recording_that_ended_early_is_warned_of(
    way: Callable[[Any, Any], None], caplog: pytest.LogCaptureFixture
) -> None:
    camera = CutOff()
    camera.show()
    camera.close()
    way(camera, HeldRunner(held=False))
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (logging.WARNING, "a.mp4 ended after 1 of 795 frames")
    ]


def test_a_remark_reaches_the_callback(caplog: pytest.LogCaptureFixture) -> None:
    camera, reported = CutOff(), list[str]()
    camera.close()
    assert list(live(camera, HeldRunner(held=False), on_remark=reported.append)) == []
    assert reported == [camera.remark] and caplog.text == ""
