"""The programs in `examples/`: each is run as it stands, on the detector that ships and footage of its photographs."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

import edgecnn
from edgecnn.errors import DataError
from edgecnn.photographs import photographs
from edgecnn.runners.live.frame import Frame
from tests.builders.repository import REPOSITORY

EXAMPLES = sorted((REPOSITORY / "examples").glob("*.py"))
FRAMES = 48
FPS = 20.0


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A camera that sees a rocket; then the astronaut comes into the picture, goes through it, and is gone."""
    pictures = photographs()
    person = cv2.resize(pictures["astronaut"][:, 90:], None, fx=0.85, fy=0.85)
    path = tmp_path_factory.mktemp("footage") / "passing.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), FPS, (640, 480))
    assert writer.isOpened()
    height, width = person.shape[:2]
    ground = cv2.resize(pictures["coffee"][:60, :80], (640 + 2 * width, 480))
    for index in range(FRAMES):
        frame = ground.copy()
        left = round((640 + width) * (index / (FRAMES - 1)))
        frame[460 - height : 460, left : left + width] = person
        writer.write(np.ascontiguousarray(frame[:, width:-width]))
    writer.release()
    return path


def until(true: Callable[[], object], *, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"{true} is not so after {seconds} s"
        time.sleep(0.02)


def run_example(name: str, *arguments: object, timeout_s: float = 300) -> str:
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "examples" / name), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def loaded(name: str) -> ModuleType:
    """An example as a module."""
    spec = importlib.util.spec_from_file_location(name, REPOSITORY / "examples" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_is_short_and_says_what_it_is(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) < 40
    assert lines[0].startswith('"""')


def test_every_example_is_run_by_a_test_and_named_in_the_how_to() -> None:
    tests = Path(__file__).read_text(encoding="utf-8")
    how_to = (REPOSITORY / "docs" / "how-to" / "embed.md").read_text(encoding="utf-8")
    for path in EXAMPLES:
        assert f'"{path.name}"' in tests or f'"{path.stem}"' in tests
        assert f"examples/{path.name}" in how_to


def test_the_robot_turns_after_who_walks_by(footage: Path) -> None:
    lines = run_example("robot_loop.py", footage).splitlines()
    assert lines[0] == "stand still: nothing fresh"  # the network has not answered yet
    turns = [
        float(match[1]) for line in lines if (match := re.fullmatch(r"turn ([+-]\d\.\d\d), seen \d+ ms ago", line))
    ]
    assert len(turns) + lines.count("stand still: nothing fresh") == len(lines)
    robot = loaded("robot_loop")
    with edgecnn.open_runner("default-detector") as runner:
        found = runner(photographs()["astronaut"])
        assert isinstance(found, edgecnn.Detections)
        centre = robot.turn(found, photographs()["astronaut"].shape[1])
        assert -0.5 < centre < 0.5
        assert robot.turn(found, 10_000) < -0.9, "far on the left of a wide picture"
        assert robot.turn(runner(np.zeros((480, 640, 3), np.uint8)), 640) == 0


def test_people_are_counted_through_the_door_and_in_the_room(footage: Path) -> None:
    lines = run_example("count_people.py", footage).splitlines()
    door, room = lines[-1].split(": ", 1)[1].split("; ")
    assert door in ("door: 1 in, 0 out", "door: 0 in, 1 out")
    assert re.fullmatch(r"room: \d inside, 1 entered", room)


def test_an_event_is_recorded_with_what_came_before_it(footage: Path, tmp_path: Path) -> None:
    out = run_example("record_event.py", footage, "person", tmp_path)
    match = re.match(r"frame (\d+): (person-\d+\.mp4) begins (\d+) frames earlier", out)
    assert match, out
    first, earlier = int(match[1]), int(match[3])
    assert earlier == min(first, 20) > 0
    clip = cv2.VideoCapture(str(tmp_path / match[2]))
    frames = []
    while (read := clip.read())[0]:
        frames.append(read[1])
    clip.release()
    assert earlier + 5 < len(frames) <= FRAMES
    empty = cv2.VideoCapture(str(footage)).read()[1]
    if first <= 20:  # then the clip begins with the first frame of all
        assert np.abs(frames[0].astype(int) - empty).mean() < 12


@pytest.mark.server
def test_the_service_answers_over_http(footage: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]

    def ask(path: str, body: bytes | None = None) -> Any:
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}{path}", data=body, headers={"Content-Type": "image/jpeg"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read())

    def answers() -> bool:
        assert service.poll() is None, "the service ended"
        try:
            return bool(ask("/now")["frame"] == FRAMES - 1)
        except (urllib.error.URLError, ConnectionError):
            return False

    command = [sys.executable, str(REPOSITORY / "examples" / "service.py"), str(footage), str(port)]
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}) as service:
        try:
            until(answers, seconds=180)
            assert ask("/now")["age_ms"] > 0
            found = ask("/detect", cv2.imencode(".jpg", photographs()["cat"])[1].tobytes())["detections"]
            assert found[0]["label"] == "cat" and found[0]["score"] > 0.5 and len(found[0]["box"]) == 4
            with pytest.raises(urllib.error.HTTPError, match="400"):
                ask("/detect", b"no picture")
        finally:
            service.terminate()
    assert service.returncode in (0, -15)


# --- ROS 2, which is not on the machines that test this: what stands in for it has vision_msgs' fields, and no more


@dataclass
class _Stamp:
    sec: int = 0
    nanosec: int = 0


@dataclass
class _Header:
    stamp: _Stamp = field(default_factory=_Stamp)
    frame_id: str = ""


@dataclass
class _Point:
    x: float = 0.0
    y: float = 0.0


@dataclass
class _Pose2D:
    position: _Point = field(default_factory=_Point)
    theta: float = 0.0


@dataclass
class _BoundingBox2D:
    center: _Pose2D = field(default_factory=_Pose2D)
    size_x: float = 0.0
    size_y: float = 0.0


@dataclass
class _Hypothesis:
    class_id: str = ""
    score: float = 0.0


@dataclass
class _HypothesisWithPose:
    hypothesis: _Hypothesis = field(default_factory=_Hypothesis)


@dataclass
class _Detection2D:
    header: _Header = field(default_factory=_Header)
    results: list[_HypothesisWithPose] = field(default_factory=list)
    bbox: _BoundingBox2D = field(default_factory=_BoundingBox2D)
    id: str = ""


@dataclass
class _Detection2DArray:
    header: _Header = field(default_factory=_Header)
    detections: list[_Detection2D] = field(default_factory=list)


_MESSAGES = SimpleNamespace(
    Detection2DArray=_Detection2DArray,
    Detection2D=_Detection2D,
    ObjectHypothesis=_Hypothesis,
    ObjectHypothesisWithPose=_HypothesisWithPose,
)


def test_a_message_for_ros_has_the_time_of_capture_and_boxes_by_their_centres() -> None:
    found = edgecnn.Detections(
        np.array([[10, 20, 50, 100]], np.float32), np.array([0.75], np.float32), np.array([0]), ("person",)
    )
    frame = Frame(np.zeros((480, 640, 3), np.uint8), 7, 5, 1_700_000_000_123_456_789, "camera 0")
    message = loaded("ros2_node").to_message(frame, found, _MESSAGES)
    assert (message.header.stamp.sec, message.header.stamp.nanosec) == (1_700_000_000, 123_456_789)
    (one,) = message.detections
    assert one.header == message.header
    assert (one.bbox.center.position.x, one.bbox.center.position.y) == (30, 60)
    assert (one.bbox.size_x, one.bbox.size_y) == (40, 80)
    assert (one.results[0].hypothesis.class_id, one.results[0].hypothesis.score) == ("person", 0.75)


@pytest.fixture
def ros(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Stand-ins for rclpy and vision_msgs, no real ROS takes part; `published`, and what `publish` does."""
    world = SimpleNamespace(published=[], topics=[], publish=None)

    def create_publisher(*words: object) -> SimpleNamespace:
        world.topics.append(words)
        return SimpleNamespace(publish=world.publish or world.published.append)

    stand_in = ModuleType("rclpy")
    stand_in.__dict__.update(
        init=lambda: None,
        ok=lambda: True,
        create_node=lambda name: SimpleNamespace(create_publisher=create_publisher),
        spin_once=lambda node, timeout_sec: None,
    )
    messages = ModuleType("vision_msgs")
    messages.__dict__["msg"] = _MESSAGES
    monkeypatch.setitem(sys.modules, "rclpy", stand_in)
    monkeypatch.setitem(sys.modules, "vision_msgs", messages)
    return world


def test_the_ros_node_publishes_what_it_sees(footage: Path, ros: SimpleNamespace) -> None:
    loaded("ros2_node").main(str(footage))
    assert ros.topics == [(_Detection2DArray, "detections", 1)]
    assert len(ros.published) == FRAMES
    labels = {guess.hypothesis.class_id for array in ros.published for one in array.detections for guess in one.results}
    assert "person" in labels


# --- the notebook, cell by cell: what stands last in one is what is shown


def test_the_notebook_shows_pictures_and_a_table() -> None:
    pytest.importorskip("pandas", reason="needs pandas: pip install pandas")
    notebook = json.loads((REPOSITORY / "examples" / "first_look.ipynb").read_text(encoding="utf-8"))
    names: dict[str, Any] = {}
    shown = []
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            continue
        assert cell["outputs"] == [], "what it shows is made when it is run"
        *statements, last = ast.parse(cell["source"]).body
        exec(compile(ast.Module(statements, []), "notebook", "exec"), names)
        assert isinstance(last, ast.Expr)
        shown.append(eval(compile(ast.Expression(last.value), "notebook", "eval"), names))
    runner, found, table, people, cat = shown
    assert repr(runner).startswith("<Runner: detect, 80 classes")
    for each in (found, people, cat):
        assert each._repr_png_().startswith(b"\x89PNG")
    assert table["label"].tolist() == ["person"] and people.names == ["person"] and cat.names == ["cat"]


# --- what fails ends them aloud


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A picture that is cut off."""
    data = cv2.imencode(".png", photographs()["cat"])[1].tobytes()
    (tmp_path / "broken.png").write_bytes(data[:5000])
    return tmp_path / "broken.png"


def test_a_ros_node_whose_publisher_fails_dies_with_the_reason(footage: Path, ros: SimpleNamespace) -> None:
    def fail(message: object) -> None:
        raise RuntimeError("the context is invalid")

    ros.publish = fail
    with pytest.raises(RuntimeError, match="context is invalid"):
        loaded("ros2_node").main(str(footage))


def test_a_ros_node_whose_source_fails_dies_with_the_reason(broken: Path, ros: SimpleNamespace) -> None:
    with pytest.raises(DataError, match="truncated"):
        loaded("ros2_node").main(str(broken))


@pytest.mark.parametrize(
    ("name", "more"), [("robot_loop.py", []), ("count_people.py", []), ("record_event.py", ["person", "."])]
)
def test_a_program_whose_source_fails_ends_with_the_reason(name: str, more: list[str], broken: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "examples" / name), str(broken), *more],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=broken.parent,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        check=False,
    )
    assert done.returncode != 0
    assert "broken.png" in done.stderr and "truncated" in done.stderr


def test_a_service_whose_source_fails_answers_with_the_reason(broken: Path) -> None:
    from fastapi import HTTPException

    service: Any = loaded("service")
    with edgecnn.open_camera(broken) as camera, edgecnn.open_runner("default-detector") as runner:
        with edgecnn.start_live(camera, runner) as service.loop:
            until(lambda: service.loop.ended, seconds=60)
            with pytest.raises(HTTPException) as refused:
                service.now()
        assert refused.value.status_code == 503 and "truncated" in refused.value.detail
