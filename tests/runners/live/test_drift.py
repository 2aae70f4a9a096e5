"""Drift: what a camera gives now, compared with what it gave when it was set up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecnn.errors import DataError, SpecError
from edgecnn.results import Detections
from edgecnn.runners.live.frame import Frame
from edgecnn.runners.live.sinks import Annotated
from edgecnn.runners.live.sinks.drift import ALARM, DriftSink, check_drift, stability_index

from .conftest import write_video

LABELS = ("cat", "dog")


class Camera:
    """Gives a frame a second, whose brightness and scores vary about given ones."""

    def __init__(self) -> None:
        self.second = 0
        self._chance = np.random.default_rng(0)

    def deliver(self, to: DriftSink, seconds: int, *, grey: float = 120, score: float = 0.8, label: int = 0) -> None:
        for _ in range(seconds):
            self.second += 1
            level = np.clip(self._chance.normal(grey, 10), 0, 255)
            image = np.full((32, 32, 3), level, np.uint8)
            image[::16] = 0
            scores = np.clip(self._chance.normal(score, 0.05, 2), 0.01, 0.99).astype(np.float32)
            result = Detections(np.zeros((2, 4), np.float32), scores, np.full(2, label), LABELS)
            frame = Frame(image, self.second, self.second * 10**9, self.second * 10**9, "door")
            to.deliver(frame, result, Annotated(lambda image=image: image))  # type: ignore[misc]


def sink(file: Path, alarms: list[dict[str, float]] | None = None, *, learn_s: float = 300) -> DriftSink:
    alarm = None if alarms is None else alarms.append
    return DriftSink(file, labels=LABELS, learn_s=learn_s, on_alarm=alarm)


def test_the_same_scene_does_not_drift_and_another_does(tmp_path: Path) -> None:
    camera, alarms = Camera(), list[dict[str, float]]()
    kept = sink(tmp_path / "door.json", alarms)
    camera.deliver(kept, 301)
    assert kept.drift == {}
    camera.deliver(kept, 299)
    assert kept.drift == {}  # not before as long a time was seen again
    camera.deliver(kept, 301)
    assert kept.drift.keys() == {"brightness", "contrast", "scores", "labels"}
    assert max(kept.drift.values()) < 0.1 and alarms == []
    camera.deliver(kept, 300, score=0.55)
    assert kept.drift["scores"] > ALARM
    assert kept.drift["brightness"] < 0.1 and kept.drift["labels"] < 0.1
    assert len(alarms) == 1 and alarms[0]["scores"] > ALARM
    camera.deliver(kept, 2500)  # it is over, and told anew when it comes again
    camera.deliver(kept, 600, grey=30, label=1)
    assert len(alarms) == 2
    assert kept.drift["brightness"] > ALARM and kept.drift["labels"] > ALARM
    assert (kept.remark or "").startswith(f"drift from {tmp_path / 'door.json'}: brightness ")


def test_a_baseline_goes_on_after_a_restart(tmp_path: Path) -> None:
    camera, file = Camera(), tmp_path / "door.json"
    with sink(file) as first:
        camera.deliver(first, 150)
    assert 140 <= json.loads(file.read_text())["learned_s"] < 150
    camera.second += 5000  # while it was off
    with sink(file, learn_s=9) as second:  # the file's own time counts
        camera.deliver(second, 100)
        assert second.drift == {}
    with sink(file) as third:
        camera.deliver(third, 200)
    camera.second += 5000
    with sink(file) as fourth:
        camera.deliver(fourth, 300)
        assert fourth.drift and max(fourth.drift.values()) < 0.1


def test_the_index_is_that_of_its_formula() -> None:
    p, q = np.array([99.5, 199.5, 699.5]), np.array([199.5, 299.5, 499.5])
    shares = [(each + 0.5) / (each.sum() + 1.5) for each in (p, q)]
    expected = sum((a - b) * np.log(a / b) for a, b in zip(*shares, strict=True))
    assert stability_index(p, q) == pytest.approx(expected)
    assert stability_index(p, p) == 0
    assert stability_index(p, np.zeros(3)) == 0
    assert np.isfinite(stability_index(np.array([10.0, 0]), np.array([0, 10.0])))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda document: document.update(labels=[1.0]), "another network"),
        (lambda document: document.update(brightness=[-1.0] * 10), "another network"),
        (lambda document: document.update(learn_s=0), "another network"),
        (lambda document: document.update(recent={"scores": [1.0]}), "another network"),
        (lambda document: document.update(scores="many"), "is no baseline"),
        (lambda document: document.clear(), "is no baseline"),
    ],
)
def test_a_file_that_is_no_baseline_of_this_network_is_refused(tmp_path: Path, change: Any, told: str) -> None:
    file = tmp_path / "door.json"
    with sink(file) as kept:
        Camera().deliver(kept, 10)
    document = json.loads(file.read_text())
    change(document)
    file.write_text(json.dumps(document))
    with pytest.raises(DataError, match=told):
        sink(file)


def test_times_that_cannot_be_are_refused(tmp_path: Path) -> None:
    check_drift(tmp_path / "door.json", {"drift_learn": "12h"}, tracks=False)
    for text in ("2GB", "soon", "0s"):
        with pytest.raises(SpecError):
            check_drift(tmp_path / "door.json", {"drift_learn": text}, tracks=False)


def test_a_run_measures_it_and_prometheus_gets_it(run_squares: Any, tmp_path: Path) -> None:
    pytest.importorskip("prometheus_client", reason="needs prometheus-client: pip install 'edgecnn[live]'")
    from edgecnn.runners.live.loop.counters import LiveCounters
    from edgecnn.runners.live.sinks.run_collector import RunCollector

    source = write_video(tmp_path / "in.avi", frames=33, fps=10)
    run_squares(source, drift=tmp_path / "door.json", drift_learn="2s", hard_frames=tmp_path / "hard")
    document = json.loads((tmp_path / "door.json").read_text())
    assert document["learned_s"] >= 2
    assert sum(document["labels"]) == 3  # a square in each of three seconds
    assert document["compared"] == 1
    with pytest.raises(SpecError, match="--keep-hard-frames belongs to --hard-frames: give --hard-frames FOLDER too"):
        run_squares(source, keep_hard_frames=3)
    collector = RunCollector(LiveCounters(), {}, {}, {}, {})
    assert "edgecnn_drift" not in {family.name for family in collector.collect()}
    collector.drift = lambda: [lambda: {"scores": 0.5}]
    (drift,) = [family for family in collector.collect() if family.name == "edgecnn_drift"]
    assert [(sample.labels, sample.value) for sample in drift.samples] == [({"of": "scores"}, 0.5)]


def test_a_file_of_cameras_asks_for_them(tmp_path: Path) -> None:
    from edgecnn._verbs.run_site import read_plan

    (tmp_path / "in.mp4").touch()
    file = tmp_path / "street.toml"
    file.write_text(
        f'bundle = "default-detector"\ndrift = "{tmp_path}/base.json"\n[cameras.door]\nsource = "{tmp_path}/in.mp4"\n'
        f'hard-frames = "{tmp_path}/hard"\nkeep-hard-frames = 9\ndrift-learn = "12h"\n'
    )
    plan = read_plan(file)
    assert plan.faults() == []
    asked = plan.cameras[0].sinks
    assert {key: str(path) for key, path in asked.asked.items()} == {
        "hard_frames": f"{tmp_path}/hard",
        "drift": f"{tmp_path}/base-door.json",
    }
    assert (asked.words["keep_hard_frames"], asked.words["drift_learn"]) == (9, "12h")
    file.write_text(file.read_text().replace('"12h"', '"soon"'))
    (fault,) = read_plan(file).faults()
    assert fault.startswith("[cameras.door] sinks: ")
