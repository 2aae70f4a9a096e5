"""A file that was never opened here is opened by a child first: real crashes, real hangs, real malformed files."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edgecnn.bundle import Bundle, TensorSpec, sha256_of
from edgecnn.bundle.shipped import ASSETS
from edgecnn.bundle.store import write_manifest
from edgecnn.child import IN_CHILD, Child
from edgecnn.errors import BundleError, DeviceError, Fault
from edgecnn.formats import runnable
from edgecnn.formats.devices import parse_device
from edgecnn.results import Classification
from edgecnn.runners import verifier
from edgecnn.runners.runner import open_runner

pytestmark = pytest.mark.runtime

PICTURE = np.zeros((40, 60, 3), np.uint8)
# A file that stays as it is, whatever ships.
# With these seeds LiteRT 2.3 was ended by SIGSEGV, or did not come back: what lies behind the file decides.
SMALL_NETWORK = Path(__file__).with_name("small_network.tflite")
CRASHING, HANGING = (1494, 1574), (534,)
NUMBERS = (0, 1, 2, 3, 5, 7, -1, -2, 16, 255, 65535, 65536, 2**31 - 1, -(2**31), 2**20)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(verifier.OFF, raising=False)
    return tmp_path / "cache" / "edgecnn" / "opened.json"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A foreign bundle: a copy of one that ships."""
    return shutil.copytree(ASSETS / "probe.edge", tmp_path / "foreign.edge")


@pytest.fixture
def no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*words: object, **more: object) -> Child:
        raise AssertionError("a child was started")

    monkeypatch.setattr(verifier, "Child", refuse)


def needs(format_name: str) -> None:
    if format_name not in runnable():
        pytest.skip(f"the runtime of {format_name} is not installed")


def mutated(content: bytes, seed: int) -> bytes:
    """Some whole numbers of the file, in its structure or its weights, replaced."""
    rng, changed = random.Random(seed), bytearray(content)
    for _ in range(rng.choice([1, 2, 3])):
        place = rng.randrange(len(changed) // 4) * 4
        number = rng.choice([*NUMBERS, rng.randrange(2**31)])
        changed[place : place + 4] = number.to_bytes(4, "little", signed=True)
    return bytes(changed)


def with_mutated_tflite(folder: Path, seed: int) -> Path:
    """The bundle with such a file, its hash redone: the path of the file."""
    manifest = Bundle.open(folder).manifest
    (artifact,) = [one for one in manifest.artifacts if one.format == "tflite"]
    path = folder / artifact.path
    path.write_bytes(mutated(SMALL_NETWORK.read_bytes(), seed))
    record = msgspec.structs.replace(artifact.files[0], sha256=sha256_of(path))
    changed = msgspec.structs.replace(artifact, files=(record,))
    write_manifest(folder, msgspec.structs.replace(manifest, artifacts=(changed,)))
    return path


def dying_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """A child that does `how` where it would open a file."""
    program = (
        "import os, signal, time\n"
        "from edgecnn.child import serve\n"
        f"def end(**words): {how}\n"
        "serve({'hello': dict, 'open': end})\n"
    )
    (tmp_path / "dying_verifier.py").write_text(program)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(verifier, "CHILD", "dying_verifier")


@pytest.mark.parametrize("seed", [*CRASHING, *HANGING])
def test_a_malformed_file_is_refused_by_name_and_ends_nothing_here(
    bundle: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs("tflite")
    path = with_mutated_tflite(bundle, seed)
    monkeypatch.setattr(verifier, "CPU_TIMEOUT_S", 20.0)
    with pytest.raises((BundleError, DeviceError), match=path.name):
        open_runner(bundle, format="tflite")


@pytest.mark.parametrize(
    ("how", "crash"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
        ("os.abort()", "SIGABRT"),
        ("os._exit(3)", "exit code 3"),
    ],
)
def test_a_crash_names_the_file_and_is_not_remembered(
    bundle: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, how: str, crash: str
) -> None:
    needs("onnx")
    dying_child(tmp_path, monkeypatch, how)
    for _ in range(2):
        with pytest.raises(BundleError, match=rf"onnx-fp32.*onnxruntime .* crashes with {crash}"):
            open_runner(bundle, format="onnx")
    assert not cache.exists()


def test_a_hang_is_ended_after_its_time(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs("onnx")
    dying_child(tmp_path, monkeypatch, "time.sleep(600)")
    monkeypatch.setattr(verifier, "CPU_TIMEOUT_S", 1.0)
    with pytest.raises(BundleError, match="hangs"):
        open_runner(bundle, format="onnx")


def test_on_another_device_than_the_cpu_the_driver_is_to_blame(bundle: Path) -> None:
    opening = verifier.Opening(
        path=bundle / "x.onnx",
        sha256=[],
        format="onnx",
        outputs=(),
        device=parse_device("gpu"),
        precision="fp32",
        threads=1,
        frame_shape=(1, 8, 8, 3),
    )
    error = verifier.crash_error(opening, Fault.crashed("SIGSEGV", "x"), on_cpu=False)
    assert type(error) is DeviceError
    assert "on gpu crashes with SIGSEGV: its driver" in str(error)


@pytest.mark.parametrize("format_name", ["onnx", "openvino", "tflite"])
def test_what_was_opened_before_starts_no_child(
    bundle: Path, cache: Path, request: pytest.FixtureRequest, format_name: str
) -> None:
    needs(format_name)
    with open_runner(bundle, format=format_name) as runner:
        first = runner(PICTURE)
    assert len(json.loads(cache.read_text())) == 1
    request.getfixturevalue("no_child")
    with open_runner(bundle, format=format_name) as runner:
        again = runner(PICTURE)
    assert isinstance(first, Classification)
    assert isinstance(again, Classification)
    assert np.array_equal(again.scores, first.scores)


def test_another_file_runtime_device_or_precision_is_another_opening(tmp_path: Path) -> None:
    def key(**changes: object) -> str:
        words: dict[str, object] = {
            "path": tmp_path,
            "sha256": ["a", "b"],
            "format": "onnx",
            "outputs": (),
            "device": parse_device("cpu"),
            "precision": "fp32",
            "threads": 1,
            "frame_shape": (1, 8, 8, 3),
        }
        return verifier.Opening(**{**words, **changes}).key  # type: ignore[arg-type]

    assert key() == key(path=tmp_path / "moved", threads=4, sha256=["b", "a"])
    others = [key(sha256=["a"]), key(device=parse_device("gpu")), key(precision="fp16"), key(format="tflite")]
    assert len({key(), *others}) == 5


def unwritable(cache: Path) -> None:
    cache.parent.parent.mkdir(parents=True)
    cache.parent.write_text("a file where the folder would be")


def damaged(cache: Path) -> None:
    cache.parent.mkdir(parents=True)
    cache.write_text('{"not": [')


def of_other_types(cache: Path) -> None:
    cache.parent.mkdir(parents=True)
    cache.write_text('[1, null, {"a": 2}]')


@pytest.mark.parametrize("prepare", [unwritable, damaged, of_other_types])
def test_a_cache_that_cannot_be_used_costs_a_child_and_no_more(
    bundle: Path, cache: Path, prepare: Callable[[Path], None]
) -> None:
    needs("onnx")
    prepare(cache)
    with open_runner(bundle, format="onnx") as runner:
        runner(PICTURE)


@pytest.mark.usefixtures("no_child")
def test_a_cache_that_others_may_write_is_not_believed(bundle: Path, cache: Path) -> None:
    needs("onnx")
    cache.parent.mkdir(parents=True)
    manifest = Bundle.open(bundle).manifest
    artifact = next(one for one in manifest.artifacts if one.label == "onnx fp32")
    opening = verifier.Opening(
        path=bundle / artifact.path,
        sha256=[record.sha256 for record in artifact.files],
        format="onnx",
        outputs=manifest.outputs,
        device=parse_device("cpu"),
        precision="fp32",
        threads=1,
        frame_shape=(1, 8, 8, 3),
    )
    cache.write_text(json.dumps([opening.key]))
    cache.chmod(0o600)
    assert verifier.opened_before(opening)
    cache.chmod(0o622)
    assert not verifier.opened_before(opening)


def test_no_more_is_remembered_than_is_useful(bundle: Path, cache: Path) -> None:
    needs("onnx")
    cache.parent.mkdir(parents=True)
    cache.write_text(json.dumps([f"{number:040}" for number in range(3000)]))
    open_runner(bundle, format="onnx").close()
    assert len(json.loads(cache.read_text())) == 1024


@pytest.mark.usefixtures("no_child")
def test_what_ships_counts_as_opened() -> None:
    needs("onnx")
    open_runner(ASSETS / "probe.edge", format="onnx").close()


@pytest.mark.usefixtures("no_child")
def test_it_can_be_left_out(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs("onnx")
    open_runner(bundle, format="onnx", verify=False).close()
    with monkeypatch.context() as words:
        words.setenv(verifier.OFF, "0")
        open_runner(bundle, format="onnx").close()
    monkeypatch.setenv(IN_CHILD, "1")
    open_runner(bundle, format="onnx").close()


def test_a_program_whose_interpreter_cannot_be_started_opens_it_itself(
    bundle: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    needs("onnx")
    for executable in ("", "/usr/bin/true", "/no/such/python3"):
        monkeypatch.setattr(sys, "executable", executable)
        open_runner(bundle, format="onnx").close()
    assert caplog.text.count("is opened untested") == 3
    assert not cache.exists()


def onnx_bomb(path: Path, values: int) -> None:
    """Scores of five, and a sum over so many values that nobody sees."""
    onnx = pytest.importorskip("onnx", reason="needs onnx to make the file")
    from onnx import TensorProto, helper

    shape = helper.make_tensor("shape_value", TensorProto.INT64, [2], [values // 1024, 1024])
    nodes = [
        helper.make_node("Cast", ["frame"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["float"], ["mean"], keepdims=0),
        helper.make_node("Constant", [], ["shape"], value=shape),
        helper.make_node("Expand", ["mean", "shape"], ["many"]),
        helper.make_node("Sin", ["many"], ["sines"]),
        helper.make_node("ReduceMean", ["sines"], ["scores"], keepdims=0),
    ]
    frame = helper.make_tensor_value_info("frame", TensorProto.UINT8, [1, 8, 8, 3])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, [])
    graph = helper.make_graph(nodes, "bomb", [frame], [scores])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))


@pytest.mark.skipif(sys.platform != "linux", reason="bounds are the system's")
def test_a_file_of_some_bytes_that_takes_all_memory_is_refused_in_seconds(tmp_path: Path) -> None:
    needs("onnx")
    opening = verifier.Opening(
        path=tmp_path / "bomb.onnx",
        sha256=("0" * 64,),
        format="onnx",
        outputs=(TensorSpec(name="scores", dtype="float32", shape=()),),
        device=parse_device("cpu"),
        precision="fp32",
        frame_shape=(1, 8, 8, 3),
    )
    onnx_bomb(opening.path, 1024)
    with verifier.Verifier() as tried:
        tried.check(opening)
    onnx_bomb(opening.path, 1 << 33)
    start_s = time.monotonic()
    bomb = dataclasses.replace(opening, sha256=("1" * 64,))
    with verifier.Verifier() as tried, pytest.raises((BundleError, DeviceError), match=r"bomb\.onnx"):
        tried.check(bomb)
    assert time.monotonic() - start_s < 60  # of which most is a busy machine's
