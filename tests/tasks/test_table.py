"""The table of tasks, with one of another package in it: what it must define, what sinks and gates do with it."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from edgecnn.bundle.evidence import ParityEvidence
from edgecnn.errors import PluginError, SpecError, UnknownNameError, UnknownTaskError
from edgecnn.frame import FrameFitter, FrameSpec
from edgecnn.measure import parity
from edgecnn.results import Classification, Detections, Result
from edgecnn.runners.live.frame import frame_now
from edgecnn.runners.live.loop.counters import LiveCounters
from edgecnn.runners.live.sinks import Annotated
from edgecnn.runners.live.sinks.home_assistant import HomeAssistantDevice
from edgecnn.runners.live.sinks.jsonl import record_of
from edgecnn.tasks import TASKS, Classify, Detect, InstanceSegment, Segment, Task
from edgecnn.tasks.answer_form import TensorForm, check_outputs, has_form
from edgecnn.tasks.base import check_task
from edgecnn.tasks.table import GROUP, TaskTable, decoded_task
from tests.builders.repository import REPOSITORY

HOW_TO = REPOSITORY / "docs" / "how-to" / "add-a-task.md"
ROWS = {"classify": "edgecnn.tasks.classify:Classify"}
IMAGE = np.zeros((48, 64, 3), np.uint8)

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Puts a module where Python finds it, and an entry point for it; the real table sees it too."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def put(module: str, text: str, **tasks: str) -> None:
        (tmp_path / f"{module}.py").write_text(text, encoding="utf-8")
        info = tmp_path / f"{module}-2.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 2.5\n", encoding="utf-8")
        points = "\n".join(f"{name} = {module}:{attribute}" for name, attribute in tasks.items())
        (info / "entry_points.txt").write_text(f"[{GROUP}]\n{points}\n", encoding="utf-8")
        for name, value in (("_plugins", None), ("_loaded", {}), ("_refused", {}), ("_readers", {})):
            monkeypatch.setattr(TASKS, name, value)

    return put


@pytest.fixture
def crowd(install: Install) -> Any:
    """The how-to's task, and a result of it."""
    text = re.search(r"<!-- file: edgecnn_crowd.py -->\n```python\n(.*?)```", HOW_TO.read_text("utf-8"), re.DOTALL)
    assert text is not None
    install("edgecnn_crowd_of_test", text[1], crowd="Crowd")
    task = TASKS.get("crowd").labelled(("cat", "dog"))
    _, place = FrameFitter(FrameSpec(height_px=24, width_px=32))(IMAGE)
    density = np.zeros((1, 2, 6, 8), np.float32)
    density[0, 1, 2, 3] = 3
    return task, task.finish({"density": density}, place)


def test_a_task_of_another_package_is_in_the_table(crowd: Any) -> None:
    task, result = crowd
    assert TASKS.has("crowd") and TASKS.names()[:4] == ["classify", "detect", "segment", "instances"]
    assert TASKS.of(result) is type(task)
    assert TASKS.package_of("crowd") == {"edgecnn_crowd_of_test": "2.5"}
    assert TASKS.package_of("detect") == {}


def test_every_sink_tells_its_results(crowd: Any) -> None:
    task, result = crowd
    frame = frame_now(IMAGE, 0, "here")
    assert record_of(frame, result)["task"] == "crowd"
    assert record_of(frame, result)["crowd"] == {"dog": 3.0, "cat": 0.0}
    device = HomeAssistantDevice("a", "crowd")
    state = device.state((frame, result), fps=None)
    assert (state["count"], state["counts"]) == (3.0, {"dog": 3.0, "cat": 0.0})
    sensor = device.discovery()
    assert any(topic.endswith("/count/config") for topic in sensor)
    assert task.draw(IMAGE, result).shape == IMAGE.shape
    assert task.words(result) == ["3 dog", "0 cat"]
    assert task.objects(result) is None and not task.finds_objects()


@pytest.mark.server
def test_metrics_tell_its_results(crowd: Any) -> None:
    pytest.importorskip("prometheus_client", reason="needs prometheus-client: pip install 'edgecnn[live]'")
    from edgecnn.runners.live.sinks.metrics import MetricsSink

    _, result = crowd
    with MetricsSink(0, counters=LiveCounters(), dropped={}, faults={}, info={}) as sink:
        assert sink.url
        sink.deliver(frame_now(IMAGE, 0, "here"), result, Annotated(lambda: IMAGE))
        with urllib.request.urlopen(sink.url, timeout=60) as answer:
            text = answer.read().decode()
    assert 'edgecnn_crowd{label="dog"} 3.0' in text
    assert 'edgecnn_crowd{label="cat"} 0.0' in text


@pytest.mark.parametrize(("off", "ok"), [(0.0, True), (1e-6, True), (0.1, False)])
def test_parity_compares_its_outputs(crowd: Any, off: float, ok: bool) -> None:
    task, _ = crowd
    rng = np.random.default_rng(0)
    frame, place = FrameFitter(FrameSpec(height_px=24, width_px=32))(IMAGE)
    expected = {"density": rng.random((1, 2, 6, 8)).astype(np.float32)}
    sample = parity.Sample(frame, place, expected, (expected["density"],))
    found: ParityEvidence = parity.compare(
        [sample], [{"density": expected["density"] + np.float32(off)}], task=task, precision="fp32", match_results=True
    )
    assert found.ok is ok


def test_it_is_read_from_json_by_its_kind(crowd: Any) -> None:
    task, _ = crowd
    assert decoded_task(TASKS, Task, msgspec.to_builtins(task)) == task


def test_an_unknown_task_is_refused() -> None:
    with pytest.raises(UnknownTaskError, match="'pose' is not known here"):
        decoded_task(TaskTable(ROWS, group="edgecnn.tests.none"), Task, {"kind": "pose"})
    with pytest.raises(UnknownNameError, match="did you mean classify"):
        TaskTable(ROWS, group="edgecnn.tests.none").get("clasify")


def test_our_names_stay_ours(install: Install, caplog: pytest.LogCaptureFixture) -> None:
    install("evil_tasks", "raise SystemError('imported')", detect="Detect")
    assert TASKS.get("detect") is Detect
    assert TASKS.names() == ["classify", "detect", "segment", "instances"]
    assert "evil_tasks" in caplog.text


def test_a_package_that_cannot_be_imported_is_named(install: Install) -> None:
    install("broken_tasks", "import not_installed_anywhere", pose="Pose")
    said = r"task 'pose' of the package broken_tasks 2\.5 is skipped: it cannot be loaded: .*not_installed_anywhere"
    with pytest.raises(PluginError, match=said):
        TASKS.get("pose")
    found = Classification(np.array([0]), np.array([1.0], np.float32), ("a",))
    assert TASKS.of(found) is Classify, "others are still read"


def test_a_result_without_a_task_is_reported() -> None:
    class Strange(Result):
        pass

    with pytest.raises(SpecError, match=r"no task has results of the class .*Strange"):
        TASKS.of(Strange())


def test_a_result_derived_from_one_of_ours_is_read_as_that() -> None:
    class Faces(Detections):
        pass

    faces = Faces(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64), ("face",))
    assert TASKS.of(faces) is Detect


class Half(Task, msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="half"):
    labels: tuple[str, ...]
    name = "half"


class Misnamed(Detect, frozen=True, kw_only=True, tag_field="kind", tag="other"):
    name = "misnamed"


@pytest.mark.parametrize(
    ("part", "name", "said"),
    [
        (Half, "half", "must define metric, result, truth, gauge, sensor, answer, finish, draw, words"),
        (Misnamed, "misnamed", "tag='misnamed'; found name='misnamed'"),
        (Detect, "detector", "must have this name"),
        (dict, "dict", "must be a class derived from edgecnn.tasks.Task"),
        (Detect(labels=()), "detect", "must be a class derived"),
    ],
)
def test_a_class_that_is_not_a_whole_task_is_refused_with_what_it_must_define(part: Any, name: str, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        check_task(part, name)


@pytest.mark.parametrize("name", TASKS.names())
def test_ours_are_whole(name: str) -> None:
    task = TASKS.get(name)
    assert check_task(task, name) is task
    assert task.metric_names().full


FORMS = (TensorForm("boxes", ("batch", "N", 4)), TensorForm("scores", ("batch", "N", "C"), low=0, high=1))


@pytest.mark.parametrize(
    ("boxes", "scores", "fits"),
    [
        ((2, 5, 4), (2, 5, 3), True),
        ((2, 5, 4), (2, 6, 3), False),
        ((2, 5, 5), (2, 5, 3), False),
        ((2, 5, 4), (1, 5, 3), False),
        ((2, 5, 4), (2, 5), False),
        ((2, 0, 4), (2, 0, 3), False),
    ],
)
def test_axes_with_one_word_have_one_extent(boxes: tuple[int, ...], scores: tuple[int, ...], fits: bool) -> None:
    assert has_form([np.zeros(boxes), np.zeros(scores)], FORMS) is fits


@pytest.mark.parametrize(
    ("value", "fits"), [(0.0, True), (1.0000001, True), (1.01, False), (-0.1, False), (np.nan, True)]
)
def test_values_out_of_range_are_not_of_the_form_and_no_numbers_are_for_parity_to_find(
    value: float, fits: bool
) -> None:
    assert has_form([np.zeros((1, 2, 4)), np.full((1, 2, 3), value)], FORMS) is fits


def test_outputs_without_an_axis_of_classes_take_any_number_of_labels() -> None:
    task = Segment(labels=("a", "b"))
    task.check_outputs([_Output("classes", "uint8", (1, 4, 4))])
    with pytest.raises(SpecError, match="outputs must be classes, found none"):
        check_outputs([], task.output_forms, 2)


class _Output(msgspec.Struct):
    name: str
    dtype: str
    shape: tuple[int, ...]


@pytest.mark.parametrize("task", [Detect(labels=("a",)), InstanceSegment(labels=("a",))], ids=lambda task: task.name)
def test_thresholds_are_changed_by_their_words(task: Task) -> None:
    assert task.thresholds == {"score": 0.3, "nms_iou": 0.5}
    assert task.with_thresholds(score=0.7, nms_iou=None).thresholds == {"score": 0.7, "nms_iou": 0.5}
    with pytest.raises(SpecError, match=r"score_threshold must be in 0\.\.1, got 7"):
        task.with_thresholds(score=7)
    with pytest.raises(SpecError, match=r"score_threshold must be in 0\.\.1, got nan"):
        task.with_thresholds(score=float("nan"))
    with pytest.raises(SpecError, match=r"brightness: the task .* it has score, nms-iou"):
        task.with_thresholds(brightness=0.5)
