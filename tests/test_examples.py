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
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

import edgecnn
from edgecnn.photographs import photographs
from tests.builders.repository import REPOSITORY
from tests.runners.live.conftest import StreamServer

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


@pytest.mark.runtime
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


@pytest.mark.runtime
def test_people_are_counted_through_the_door_and_in_the_room(footage: Path) -> None:
    lines = run_example("count_people.py", footage).splitlines()
    door, room = lines[-1].split(": ", 1)[1].split("; ")
    assert door in ("door: 1 in, 0 out", "door: 0 in, 1 out")
    assert re.fullmatch(r"room: \d inside, 1 entered", room)


@pytest.mark.runtime
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


@pytest.mark.runtime
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


@pytest.mark.runtime
@pytest.mark.server
def test_who_stays_in_the_picture_keeps_the_id_when_the_stream_comes_back(tmp_path: Path) -> None:
    data = cv2.imencode(".jpg", photographs()["astronaut"])[1].tobytes()
    server = StreamServer(tmp_path)
    server.fps, server.parts = 10, [b"--frame\r\nContent-Type: image/jpeg\r\n\r\n%b\r\n" % data]
    server.start()
    port = server.server_address[1]
    command = [sys.executable, str(REPOSITORY / "examples" / "follow_again.py"), server.url("stream")]
    lines: list[str] = []
    with subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, stdout=subprocess.PIPE, text=True
    ) as program:
        reader = threading.Thread(target=lambda: lines.extend(program.stdout or ()))
        reader.start()
        try:
            until(lambda: [line for line in lines if line.endswith(": [1]\n")], seconds=120)
            server.kill()
            time.sleep(1)
            server = StreamServer(tmp_path, port=port)
            server.fps, server.parts = 10, [b"--frame\r\nContent-Type: image/jpeg\r\n\r\n%b\r\n" % data]
            server.start()
            until(lambda: lines.count("stream: live\n") == 2, seconds=120)
            time.sleep(2)
        finally:
            program.terminate()
            reader.join()
            server.kill()
    seen = [line for line in lines if line.startswith("frame")]
    assert [line.partition(": ")[2] for line in seen] == ["[1]\n"], "nobody new, and nobody gone"


# --- ROS 2, which is not on the machines that test this: the launch file says what to start, and a replay does it


def launch_file(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A launch file as a module; in place of ROS's actions stand their words."""
    words = {name: lambda *given, **named: SimpleNamespace(given=given, **named) for name in _ACTIONS}
    for module in ("launch", "launch.actions", "launch.substitutions", "launch_ros", "launch_ros.actions"):
        stand_in = ModuleType(module)
        stand_in.__dict__.update(words)
        monkeypatch.setitem(sys.modules, module, stand_in)
    return loaded(name)


_ACTIONS = ("LaunchDescription", "DeclareLaunchArgument", "LaunchConfiguration", "LifecycleNode", "Node")


@pytest.mark.runtime
def test_what_the_launch_file_starts_answers_a_bag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rosbags", reason="needs rosbags: pip install 'edgecnn[ros]'")
    from edgecnn_ros.replay import BagMessages, replay

    from tests.ros.bags import read_bag, write_bag

    argument, driver, node = launch_file("ros2.launch", monkeypatch).generate_launch_description().given[0]
    (parameters,) = node.parameters
    (name,) = parameters["objects.bundle"].given
    assert (name,) == argument.given
    given = {**parameters, "objects.bundle": argument.default_value}
    ((_, topic),) = node.remappings
    assert topic == f"/{driver.namespace}/image_raw"
    messages = BagMessages()
    source = write_bag(tmp_path / "in", messages, [photographs()["astronaut"]] * 2, topic)
    replay(source, tmp_path / "out", given, topic=topic)
    out = read_bag(tmp_path / "out", messages)
    first, second = (message.detections[0] for _, message in out["/edgecnn/objects/detections"])
    assert first.results[0].hypothesis.class_id == "person" and second.id == "1"
    assert len(out["/edgecnn/ground/masks"]) == 2


# --- the notebook, cell by cell: what stands last in one is what is shown


@pytest.mark.runtime
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


@pytest.mark.runtime
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


@pytest.mark.runtime
def test_a_service_whose_source_fails_answers_with_the_reason(broken: Path) -> None:
    from fastapi import HTTPException

    service: Any = loaded("service")
    with edgecnn.open_camera(broken) as camera, edgecnn.open_runner("default-detector") as runner:
        with edgecnn.start_live(camera, runner) as service.loop:
            until(lambda: service.loop.ended, seconds=60)
            with pytest.raises(HTTPException) as refused:
                service.now()
        assert refused.value.status_code == 503 and "truncated" in refused.value.detail
