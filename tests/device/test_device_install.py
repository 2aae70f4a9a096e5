"""What a board installs: it runs and measures a bundle, and has no torch."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from .conftest import Answer, DeviceEnvironment, make_environment

pytestmark = pytest.mark.slow

FORMATS = {"onnx": "onnx", "openvino": "openvino", "tflite": "tflite"}
SIZE_LIMIT_MB = {"onnx": 450, "openvino": 550, "tflite": 450}
EMBEDDED = """
import sys
import cv2
import edgecnn

with edgecnn.open_runner({bundle!r}, device="cpu") as runner:
    result = runner(cv2.imread({photograph!r}))
    label, score = next(iter(result))
assert runner.format == {format!r}, runner.format
for name in ("torch", "torchvision", "onnx", "litert_torch"):
    assert name not in sys.modules, name
print(label)
"""

WATCHED = """
import json
import sys
import urllib.request
from pathlib import Path

import cv2
import edgecnn

picture = cv2.imread(str(Path(edgecnn.__file__).parent / "assets" / "cat.jpg"))
writer = cv2.VideoWriter("cat.avi", cv2.VideoWriter.fourcc(*"MJPG"), 10.0, picture.shape[1::-1])
for _ in range(5):
    writer.write(picture)
writer.release()
said = {}


class Visitor:
    def start(self, start):
        self.url = start.page_url

    def ask(self, path, data=None):
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        return urllib.request.urlopen(request, timeout=60).read()

    def deliver(self, frame, result, annotated):
        if frame.index == 2:
            said["status"] = json.loads(self.ask("status"))
            said["html"] = self.ask("").decode()
            said["jpeg"] = len(self.ask("picture"))
            said["changed"] = json.loads(self.ask("score", b'{"score": 0.9}'))

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass


visitor = Visitor()
edgecnn.run("default-detector", "cat.avi", web=0, sinks=[visitor], on_start=visitor.start)
said["torch"] = [name for name in ("torch", "torchvision") if name in sys.modules]
print(json.dumps(said))
"""


@pytest.fixture(scope="module", params=list(FORMATS))
def device(request: pytest.FixtureRequest, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> DeviceEnvironment:
    return make_environment(tmp_path_factory.mktemp(request.param), wheel, request.param)


def test_torch_is_not_installed(device: DeviceEnvironment) -> None:
    installed = device.run("python", "-m", "pip", "list", "--format", "freeze")
    names = {line.partition("==")[0].lower() for line in installed.splitlines()}
    assert "edgecnn" in names
    assert not names & {"torch", "torchvision", "litert-torch", "onnx", "nncf", "jax", "scipy", "matplotlib"}


def test_what_is_installed_is_small(device: DeviceEnvironment) -> None:
    assert device.size_mb() < SIZE_LIMIT_MB[device.extra]


def test_run_says_what_it_says_where_the_bundle_was_made(
    device: DeviceEnvironment, bundle: Path, answers_here: dict[tuple[str, str], Answer]
) -> None:
    format_name = FORMATS[device.extra]
    for precision in ("fp32", "fp16"):
        here = answers_here[format_name, precision]
        there = device.classify(bundle, format_name, precision)
        assert there.label == here.label
        assert there.score == pytest.approx(here.score, abs=1e-4)


def test_bench_measures_what_can_run_there(device: DeviceEnvironment, bundle: Path) -> None:
    rows = json.loads(device.run("edgecnn", "bench", bundle, "--iterations", "16", "--no-record", "--json"))
    assert {(row["format"], row["precision"]) for row in rows} == {
        (FORMATS[device.extra], "fp32"),
        (FORMATS[device.extra], "fp16"),
    }
    for row in rows:
        assert row["error"] is None
        assert row["n"] == 16
        assert row["p50_ms"] > 0
        assert set(row["stages"]) == {"fit", "infer", "finish"}


def test_a_program_that_embeds_the_runner_loads_no_torch(
    device: DeviceEnvironment, bundle: Path, answers_here: dict[tuple[str, str], Answer]
) -> None:
    format_name = FORMATS[device.extra]
    photograph = device.site_packages / "edgecnn" / "assets" / "coffee.jpg"
    program = EMBEDDED.format(bundle=str(bundle), photograph=str(photograph), format=format_name)
    assert device.run("python", "-c", program).strip() == answers_here[format_name, "fp32"].label


def test_the_demo_runs_the_networks_that_ship(device: DeviceEnvironment) -> None:
    document = json.loads(device.run("edgecnn", "demo", "--out", "demo", "--json"))
    format_name = FORMATS[device.extra]
    assert [network["word"] for network in document["networks"]] == ["default-detector", "default-segmenter"]
    for network in document["networks"]:
        assert not network["converted"]
        assert {row["format"] for row in network["latency"]} == {format_name}
        assert all(row["error"] is None and row["p50_ms"] > 0 for row in network["latency"])
        assert format_name not in {left_out["format"] for left_out in network["left_out"]}
        assert all("pip install 'edgecnn[" in left_out["reason"] for left_out in network["left_out"])
        assert network["video"]["frames"] == 120
        assert (device.folder / "demo" / network["video"]["path"]).stat().st_size > 100_000
        cat = next(still for still in network["stills"] if still["photograph"] == "cat")
        assert cat["says"].startswith("cat")
    assert (device.folder / "demo" / document["contact_sheet"]).is_file()


def test_a_word_runs_what_ships(device: DeviceEnvironment) -> None:
    photograph = device.site_packages / "edgecnn" / "assets" / "cat.jpg"
    record = json.loads(device.run("edgecnn", "run", "default-detector", photograph, "--jsonl", "-"))
    assert record["detections"][0]["label"] == "cat"


@pytest.mark.parametrize("device", ["onnx"], indirect=True)
def test_the_live_page_is_served_there(device: DeviceEnvironment, wheel: Path) -> None:
    constraints = device.folder / "constraints.txt"
    device.run("python", "-m", "pip", "install", "--quiet", f"{wheel}[web]", "--constraint", constraints)
    report = json.loads(device.run("python", "-c", WATCHED))
    assert report["status"]["sources"][0]["state"] == "file"
    assert report["status"]["score"] == 0.4
    assert "cat" in " ".join(report["status"]["sources"][0]["sees"])
    assert report["html"].startswith("<!doctype html>")
    assert report["jpeg"] > 10_000
    assert report["changed"] == {"score": 0.9}
    assert report["torch"] == []


def test_building_there_names_the_extra(device: DeviceEnvironment) -> None:
    program = "import edgecnn; edgecnn.convert('efficientnet-lite0', out='x.edge')"
    with pytest.raises(AssertionError, match=r"edgecnn\[convert\]"):
        device.run("python", "-c", program)


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="tflite-runtime has no wheel for Python 3.12 and newer")
def test_tflite_runtime_says_what_litert_says(
    wheel: Path, bundle: Path, answers_here: dict[tuple[str, str], Answer], tmp_path: Path
) -> None:
    device = make_environment(tmp_path, wheel, "tflite-runtime")
    assert device.run("python", "-c", "import numpy; print(numpy.__version__)").startswith("1.")
    for precision in ("fp32", "fp16"):
        here = answers_here["tflite", precision]
        there = device.classify(bundle, "tflite", precision)
        assert there.label == here.label
        assert there.score == pytest.approx(here.score, abs=1e-4)
    (row, *_) = json.loads(device.run("edgecnn", "bench", bundle, "--iterations", "8", "--no-record", "--json"))
    assert row["runtime"].startswith("tflite-runtime 2.14")
    assert row["error"] is None
