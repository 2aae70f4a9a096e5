"""The loop inside other people's programs: awaited, by callback, or looked at now and then."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

import edgecnn
from edgecnn.errors import DataError, DeviceError, SpecError
from edgecnn.photographs import photographs
from edgecnn.results import Detections, Result, UInt8Array
from edgecnn.runners.live.cameras.camera import open_camera
from edgecnn.runners.live.frame import Frame
from edgecnn.runners.live.loop.asynchronous import live_async
from edgecnn.runners.live.loop.background import LiveLoop, start_live
from edgecnn.runners.live.loop.counters import LiveCounters
from edgecnn.runners.live.loop.newest import live

from .conftest import HeldRunner, ScriptedCamera, SquareRunner, square_at, until, write_video


def _corner(result: Result) -> tuple[float, ...]:
    assert isinstance(result, Detections)
    return tuple(result.boxes_xyxy_px[0, :2].tolist())


async def _awaited(true: Callable[[], object]) -> None:
    await asyncio.to_thread(until, true)


def _no_thread_stays() -> None:
    until(lambda: not [t for t in threading.enumerate() if t.name.startswith(("watch ", "infer", "live"))])


class Broken(SquareRunner):
    """A network that fails."""

    def __call__(self, frame: UInt8Array | Frame) -> Detections:
        raise DeviceError("the accelerator is gone")


# --- async


def test_awaited_every_frame_of_a_file_meets_its_own_result(tmp_path: Path) -> None:
    counters = LiveCounters()

    async def program() -> list[tuple[int, tuple[float, ...]]]:
        with open_camera(write_video(tmp_path / "square.avi", frames=25)) as camera:
            results = live_async(camera, SquareRunner(), counters=counters)
            return [(frame.index, _corner(result)) async for frame, result in results]

    assert asyncio.run(program()) == [(index, square_at(index)) for index in range(25)]
    assert counters.frames == 25 and counters.stages["deliver"].count == 25
    _no_thread_stays()


def test_the_event_loop_is_free_while_the_network_works() -> None:
    runner = HeldRunner()

    async def program() -> int:
        with ScriptedCamera() as camera:
            async with contextlib.aclosing(live_async(camera, runner)) as results:
                waiting = asyncio.ensure_future(anext(results))
                camera.show(age_ms=1000)
                await _awaited(lambda: runner.begun)
                assert not waiting.done()  # and yet we are here
                runner.let()
                frame, _ = await waiting
                assert frame.age_ns > 1e9, "the time of capture goes through"
                return frame.index

    assert asyncio.run(program()) == 0


def test_who_awaits_something_else_meanwhile_gets_the_newest_result() -> None:
    counters, runner = LiveCounters(), HeldRunner(held=False)

    async def program() -> list[int]:
        with ScriptedCamera() as camera:
            async with contextlib.aclosing(live_async(camera, runner, counters=counters)) as results:
                camera.show()
                indices = [(await anext(results))[0].index]
                for index in range(1, 10):
                    camera.show()
                    await _awaited(lambda: counters.dropped["deliver"] == index - 1 and len(runner.begun) > index)  # noqa: B023
                return [*indices, (await anext(results))[0].index]

    assert asyncio.run(program()) == [0, 9]


def test_other_tasks_run_while_a_recording_is_processed(tmp_path: Path) -> None:
    async def program() -> int:
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        with open_camera(write_video(tmp_path / "square.avi", frames=25)) as camera:
            task = asyncio.create_task(other())
            async for _ in live_async(camera, SquareRunner()):
                pass
            task.cancel()
        return turns

    assert asyncio.run(program()) >= 25


def test_a_cancelled_task_leaves_camera_and_network_free() -> None:
    runner = HeldRunner()

    async def program() -> None:
        async def watch(camera: ScriptedCamera) -> None:
            async for _ in live_async(camera, runner):
                raise AssertionError("nothing was answered")

        with ScriptedCamera() as camera:
            task = asyncio.create_task(watch(camera))
            camera.show()
            await _awaited(lambda: runner.begun)
            task.cancel()
            await asyncio.sleep(0)
            runner.let()  # the inference that runs is waited for
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(program())
    _no_thread_stays()


def test_a_timeout_around_a_silent_camera_ends_the_wait() -> None:
    async def program() -> None:
        with ScriptedCamera() as camera, pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05), contextlib.aclosing(live_async(camera, SquareRunner())) as results:
                await anext(results)

    asyncio.run(program())
    _no_thread_stays()


def test_errors_are_raised_where_it_is_awaited(tmp_path: Path) -> None:
    async def first(make: Callable[[], Awaitable[object]]) -> None:
        await make()

    (tmp_path / "a.png").write_bytes(b"rubbish")
    with open_camera(tmp_path / "a.png") as camera, pytest.raises(DataError, match=r"a\.png"):
        asyncio.run(first(lambda: anext(live_async(camera, SquareRunner()))))
    with open_camera(write_video(tmp_path / "square.avi", frames=3)) as camera:
        with pytest.raises(DeviceError, match="accelerator is gone"):
            asyncio.run(first(lambda: anext(live_async(camera, Broken()))))
        with pytest.raises(SpecError, match="max_age_ms: expected a positive number"):
            asyncio.run(first(lambda: anext(live_async(camera, SquareRunner(), max_age_ms=-1))))
    _no_thread_stays()


def test_several_cameras_are_awaited_together() -> None:
    runner = HeldRunner(held=False)

    async def program() -> list[tuple[float, ...]]:
        cameras = [ScriptedCamera(number) for number in range(3)]
        async with contextlib.aclosing(live_async(cameras, runner)) as results:
            found = []
            for number in (2, 0, 1):
                cameras[number].show()
                found.append(_corner((await anext(results))[1]))
        for camera in cameras:
            camera.close()
        return found

    assert asyncio.run(program()) == [(2, 0), (0, 0), (1, 0)]


# --- in the background


def test_a_callback_gets_every_frame_of_a_file_in_order(tmp_path: Path) -> None:
    found: list[tuple[int, tuple[float, ...]]] = []
    threads: set[str] = set()

    def keep(frame: Frame, result: Result) -> None:
        found.append((frame.index, _corner(result)))
        threads.add(threading.current_thread().name)

    with (
        open_camera(write_video(tmp_path / "square.avi", frames=25)) as camera,
        start_live(camera, SquareRunner(), on_result=keep) as loop,
    ):
        assert loop.wait(60)
    assert found == [(index, square_at(index)) for index in range(25)]
    assert threads == {"live"} and loop.ended and loop.counters.frames == 25
    _no_thread_stays()


def test_the_newest_result_is_there_at_once_and_its_age_grows() -> None:
    with ScriptedCamera() as camera, start_live(camera, HeldRunner(held=False)) as loop:
        nothing = loop.newest()
        assert nothing is None
        for index in (0, 1, 2):
            camera.show()
            until(lambda: (seen := loop.newest()) and seen[0].index == index)  # noqa: B023
        seen = loop.newest()
        assert seen is not None and seen[0].index == 2
        age_ns = seen[0].age_ns
        time.sleep(0.001)
        assert seen[0].age_ns > age_ns, "a camera that fell silent is seen by the age of its last frame"
        assert not loop.wait(0)
    assert loop.wait(0)
    _no_thread_stays()


def test_a_callback_that_raises_ends_the_loop_and_newest_raises_it() -> None:
    def fail(frame: Frame, result: Result) -> None:
        raise RuntimeError("the gripper is jammed")

    with ScriptedCamera() as camera, start_live(camera, HeldRunner(held=False), on_result=fail) as loop:
        camera.show()
        until(lambda: loop.ended)
        for look in (loop.newest, loop.wait):
            with pytest.raises(RuntimeError, match="gripper is jammed"):
                look()
    _no_thread_stays()


def test_newest_raises_the_networks_error() -> None:
    with ScriptedCamera() as camera, start_live(camera, Broken()) as loop:
        camera.show()
        until(lambda: loop.ended)
        with pytest.raises(DeviceError, match="accelerator is gone"):
            loop.newest()


def test_a_callback_may_stop_its_own_loop() -> None:
    seen: list[int] = []

    def enough(frame: Frame, result: Result) -> None:
        seen.append(frame.index)
        loops[0].stop()

    loops: list[LiveLoop] = []
    with ScriptedCamera() as camera:
        loops.append(start_live(camera, HeldRunner(held=False), on_result=enough))
        camera.show()
        assert loops[0].wait(60)
        camera.show()
    assert seen == [0]
    _no_thread_stays()


# --- several at once


def test_several_loops_in_one_process_keep_apart(tmp_path: Path) -> None:
    video = write_video(tmp_path / "square.avi", frames=40)
    expected = [(index, square_at(index)) for index in range(40)]
    called: list[tuple[int, tuple[float, ...]]] = []

    async def awaited() -> list[tuple[int, tuple[float, ...]]]:
        with open_camera(video) as camera:
            return [(frame.index, _corner(result)) async for frame, result in live_async(camera, SquareRunner())]

    with open_camera(video) as one, open_camera(video) as other:
        loop = start_live(one, SquareRunner(), on_result=lambda f, r: called.append((f.index, _corner(r))))
        iterated = live(other, SquareRunner())
        first = next(iterated)
        assert asyncio.run(awaited()) == expected
        found = [(frame.index, _corner(result)) for frame, result in (first, *iterated)]
        assert loop.wait(60)
    assert found == called == expected
    _no_thread_stays()


@pytest.mark.runtime
def test_loops_that_share_one_open_runner_each_get_their_own_answers() -> None:
    astronaut, cat = (photographs()[name] for name in ("astronaut", "cat"))
    with edgecnn.open_runner("default-detector") as runner:
        alone = [runner(image) for image in (astronaut, cat)]
        assert all(isinstance(result, Detections) for result in alone)
        cameras = [_Still(name, image) for name, image in (("astronaut", astronaut), ("cat", cat))]
        found: dict[str, list[Result]] = {"astronaut": [], "cat": []}
        loops = [start_live(c, runner, on_result=lambda f, r: found[f.source].append(r)) for c in cameras]
        assert all(loop.wait(60) for loop in loops)
    for name, expected in zip(found, alone, strict=True):
        assert len(found[name]) == 6
        for result in found[name]:
            assert isinstance(result, Detections) and isinstance(expected, Detections)
            assert result.boxes_xyxy_px == pytest.approx(expected.boxes_xyxy_px)


class _Still(ScriptedCamera):
    """One picture, six times; waits for who takes it."""

    live = False

    def __init__(self, name: str, image: UInt8Array) -> None:
        super().__init__()
        self.name = name
        for index in range(6):
            self._waiting.put(Frame(image, index, time.monotonic_ns(), time.time_ns(), name))
        self.close()


# --- what fails is never unseen


def _fail(frame: Frame, result: Result) -> None:
    raise ValueError("the callback is wrong")


def test_a_callbacks_error_is_reported_at_once_and_raised_at_the_end_of_the_block() -> None:
    errors: list[BaseException] = []
    with pytest.raises(ValueError, match="callback is wrong"), ScriptedCamera() as camera:
        camera.show()
        with start_live(camera, HeldRunner(held=False), on_result=_fail, on_error=errors.append):
            until(lambda: errors)
    assert [str(error) for error in errors] == ["the callback is wrong"]
    _no_thread_stays()


def test_it_is_raised_once() -> None:
    with (
        ScriptedCamera() as camera,
        start_live(camera, HeldRunner(held=False), on_result=_fail, on_error=lambda error: None) as loop,
    ):
        camera.show()
        with pytest.raises(ValueError, match="callback is wrong"):
            loop.wait(60)


def test_it_hides_no_other_error_that_leaves_the_block() -> None:
    with (
        pytest.raises(KeyError, match="mine"),
        ScriptedCamera() as camera,
        start_live(camera, HeldRunner(held=False), on_result=_fail, on_error=lambda error: None) as loop,
    ):
        camera.show()
        until(lambda: loop.ended)
        raise KeyError("mine")


def test_a_callback_that_wants_to_end_the_program_is_not_swallowed() -> None:
    def leave(frame: Frame, result: Result) -> None:
        raise SystemExit(5)

    with pytest.raises(SystemExit), ScriptedCamera() as camera:
        camera.show()
        with start_live(camera, HeldRunner(held=False), on_result=leave, on_error=lambda error: None) as loop:
            until(lambda: loop.ended)


def test_without_a_listener_it_is_logged_at_once(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ValueError, match="callback is wrong"), ScriptedCamera() as camera:
        camera.show()
        with start_live(camera, HeldRunner(held=False), on_result=_fail) as loop:
            until(lambda: loop.ended)
            assert "ValueError: the callback is wrong" in caplog.text


class BrokenCamera(ScriptedCamera):
    """A camera that fails when it is asked for a frame."""

    def __next__(self) -> Frame:
        raise DeviceError("the lens fell off")


def test_one_of_several_cameras_that_fails_is_reported_while_the_others_go_on() -> None:
    errors: list[BaseException] = []
    with pytest.raises(DeviceError, match="lens"), ScriptedCamera(0) as good:
        cameras = [good, BrokenCamera(1)]
        with start_live(cameras, HeldRunner(held=False), on_error=errors.append) as loop:
            until(lambda: errors)
            good.show()
            until(lambda: loop.newest() is not None)
            good.close()
            until(lambda: loop.ended)
    assert len(errors) == 1


def test_awaited_a_failed_camera_is_reported_at_once_and_raised_at_the_end() -> None:
    errors: list[BaseException] = []

    async def program() -> int:
        with ScriptedCamera(0) as good:
            good.show()
            results = live_async([good, BrokenCamera(1)], HeldRunner(held=False), on_error=errors.append)
            seen = 0
            async for _ in results:
                seen += 1
                while not errors:
                    await asyncio.sleep(0.01)
                good.close()
            return seen

    with pytest.raises(DeviceError, match="lens"):
        asyncio.run(program())
    assert len(errors) == 1


def test_a_listener_that_fails_hides_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def listen(error: BaseException) -> None:
        raise RuntimeError("deaf")

    with pytest.raises(ValueError, match="callback is wrong"), ScriptedCamera() as camera:
        camera.show()
        with start_live(camera, HeldRunner(held=False), on_result=_fail, on_error=listen) as loop:
            until(lambda: loop.ended)
    assert "deaf" in caplog.text and "callback is wrong" in caplog.text
