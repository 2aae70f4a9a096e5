"""What every back end owes, one body for all of them: the runtimes' and torch, which they are compared with."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from edgecnn import Bundle, Classification, Detections, Instances, Runner, SegmentationMap, open_runner
from edgecnn.bundle import MANIFEST, Artifact, sha256_of
from edgecnn.errors import BundleError, DeviceError, SpecError, UnknownNameError
from edgecnn.formats import FORMATS, format_of_runtime
from edgecnn.frame import FrameFitter
from edgecnn.photographs import photographs
from edgecnn.results import Result, UInt8Array
from tests.builders.formats import require_format
from tests.builders.networks import TINY

pytestmark = pytest.mark.torch

Bundles = Callable[[str], Path]
NAMES = [row.name for row in FORMATS if row.backend is not None]
TASKS = sorted(TINY)
every_task = pytest.mark.parametrize("task", TASKS)
every_backend = pytest.mark.parametrize("backend", [*NAMES, "torch"])
every_format = pytest.mark.parametrize("format_name", NAMES)


def open_backend(backend: str, task: str, bundles: Bundles, *, threads: int | None = None) -> Runner:
    """The task's tiny network on one back end."""
    if backend == "torch":
        from edgecnn.converters.deployable.wrapper import open_reference

        return open_reference(TINY[task](), threads=threads)
    require_format(backend)
    return open_runner(bundles(task), format=backend, threads=threads)


@pytest.fixture(scope="session")
def answers() -> Iterator[Callable[[str, UInt8Array], Result]]:
    """The torch network's answer to a picture."""
    pytest.importorskip("torch", reason="needs torch: pip install 'edgecnn[convert]'")
    from edgecnn.converters.deployable.wrapper import open_reference

    runners: dict[str, Runner] = {}

    def answer(task: str, picture: UInt8Array) -> Result:
        if task not in runners:
            runners[task] = open_reference(TINY[task]())
        return runners[task](picture)

    yield answer
    for runner in runners.values():
        runner.close()


def assert_same(found: Result, expected: Result) -> None:
    """The two results are one to every user's eye."""
    assert type(found) is type(expected)
    if isinstance(found, Classification) and isinstance(expected, Classification):
        assert found.labels == expected.labels
        np.testing.assert_array_equal(found.class_ids, expected.class_ids)
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)
    elif isinstance(found, Detections) and isinstance(expected, Detections):
        assert found.labels == expected.labels
        np.testing.assert_array_equal(found.class_ids, expected.class_ids)
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)
        np.testing.assert_allclose(found.boxes_xyxy_px, expected.boxes_xyxy_px, atol=1e-2)
    elif isinstance(found, Instances) and isinstance(expected, Instances):
        assert_same(found.detections, expected.detections)
        assert found.masks.shape == expected.masks.shape
        assert np.mean(found.masks == expected.masks) >= 0.999
    elif isinstance(found, SegmentationMap) and isinstance(expected, SegmentationMap):
        assert found.labels == expected.labels
        assert found.classes.shape == expected.classes.shape
        assert np.mean(found.classes == expected.classes) >= 0.999


def arrays_of(result: Result) -> list[np.ndarray]:
    """Every array that a result holds."""
    if isinstance(result, Classification):
        return [result.class_ids, result.scores]
    if isinstance(result, Instances):
        return [*arrays_of(result.detections), result.masks]
    if isinstance(result, Detections):
        return [result.class_ids, result.scores, result.boxes_xyxy_px]
    assert isinstance(result, SegmentationMap)
    return [result.classes]


@every_task
@every_backend
def test_the_same_photograph_gives_the_same_result(
    backend: str,
    task: str,
    tiny_bundles: Bundles,
    answers: Callable[[str, UInt8Array], Result],
    photograph: UInt8Array,
) -> None:
    expected = answers(task, photograph)
    assert all(array.size for array in arrays_of(expected)), "an empty answer would compare nothing"
    with open_backend(backend, task, tiny_bundles) as runner:
        assert_same(runner(photograph), expected)


@every_task
@every_backend
def test_pictures_of_any_size_follow_each_other(
    backend: str, task: str, tiny_bundles: Bundles, answers: Callable[[str, UInt8Array], Result]
) -> None:
    pictures = photographs()
    sizes = [pictures["cat"], pictures["rocket"][:, :97], pictures["cat"][:31], pictures["coffee"]]
    with open_backend(backend, task, tiny_bundles) as runner:
        for picture in sizes:
            assert_same(runner(picture), answers(task, picture))


@every_task
@every_backend
def test_a_result_stays_as_it_is_when_the_next_picture_comes(backend: str, task: str, tiny_bundles: Bundles) -> None:
    with open_backend(backend, task, tiny_bundles) as runner:
        height, width = runner.frame.height_px, runner.frame.width_px
        pictures = [np.ascontiguousarray(p[:height, :width]) for p in photographs().values()]  # the frame's own size
        result = runner(pictures[0])
        before = [array.copy() for array in arrays_of(result)]
        for picture in pictures[1:]:
            runner(picture)
    for array, was in zip(arrays_of(result), before, strict=True):
        np.testing.assert_array_equal(array, was)


@every_task
@every_backend
def test_the_picture_is_not_changed(backend: str, task: str, tiny_bundles: Bundles, photograph: UInt8Array) -> None:
    picture = photograph.copy()
    with open_backend(backend, task, tiny_bundles) as runner:
        runner(picture)
    np.testing.assert_array_equal(picture, photograph)


@every_task
@every_format
def test_outputs_are_what_the_manifest_says(
    format_name: str, task: str, tiny_bundles: Bundles, photograph: UInt8Array
) -> None:
    with open_backend(format_name, task, tiny_bundles) as runner:
        manifest = Bundle.open(tiny_bundles(task)).manifest
        frame, _ = FrameFitter(manifest.frame)(photograph)
        outputs = runner.backend.infer(frame)
        assert frame.shape == manifest.inputs[0].shape
        assert list(outputs) == [spec.name for spec in manifest.outputs] == list(manifest.task.outputs)
        for spec in manifest.outputs:
            assert outputs[spec.name].shape == spec.shape
            assert outputs[spec.name].dtype == np.dtype(spec.dtype)


@every_format
def test_an_artifact_for_two_frames_answers_a_single_picture(
    format_name: str,
    batch_bundle: Bundle,
    answers: Callable[[str, UInt8Array], Result],
    photograph: UInt8Array,
) -> None:
    require_format(format_name)
    assert batch_bundle.manifest.inputs[0].shape[0] == 2
    with open_runner(batch_bundle, format=format_name) as runner:
        assert_same(runner(photograph), answers("detect", photograph))
        other = photographs()["cat"]
        fit = FrameFitter(runner.frame)
        pair = np.concatenate([fit(photograph)[0].copy(), fit(other)[0].copy()])
        outputs = {name: value.copy() for name, value in runner.backend.infer(pair).items()}
    assert all(value.shape[0] == 2 for value in outputs.values())
    assert not np.array_equal(outputs["scores"][0], outputs["scores"][1])


@every_format
def test_an_artifact_for_two_frames_answers_several_pictures_two_at_a_time(
    format_name: str, batch_bundle: Bundle, photograph: UInt8Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_format(format_name)
    pictures = [photograph, photographs()["cat"], photographs()["coffee"][:200]]
    with open_runner(batch_bundle, format=format_name) as runner:
        assert "2 at a time" in repr(runner)
        expected = [runner(picture) for picture in pictures]
        batches: list[UInt8Array] = []
        infer = runner.backend.infer

        def counted(frames: UInt8Array) -> Any:
            batches.append(frames)
            return infer(frames)

        monkeypatch.setattr(runner.backend, "infer", counted)
        found = runner(pictures)
        assert len(batches) == 2, "two of them, and one"
        for one, right in zip(found, expected, strict=True):
            assert_same(one, right)
        assert [one.picture is picture for one, picture in zip(found, pictures, strict=True)] == [True] * 3


@pytest.mark.parametrize("threads", [1, 2])
@every_backend
def test_the_count_of_threads_does_not_change_the_answer(
    backend: str,
    threads: int,
    tiny_bundles: Bundles,
    answers: Callable[[str, UInt8Array], Result],
    photograph: UInt8Array,
) -> None:
    with open_backend(backend, "detect", tiny_bundles, threads=threads) as runner:
        assert runner.backend.opened.threads == threads
        assert_same(runner(photograph), answers("detect", photograph))


@every_format
def test_no_threads_is_refused(format_name: str, tiny_bundle: Path) -> None:
    with pytest.raises(SpecError, match="at least 1, got 0"):
        open_runner(tiny_bundle, format=format_name, threads=0)


@every_backend
def test_after_the_with_block_a_call_is_refused_and_close_does_nothing(
    backend: str, tiny_bundles: Bundles, photograph: UInt8Array
) -> None:
    with open_backend(backend, "classify", tiny_bundles) as runner:
        runner(photograph)
    with pytest.raises(SpecError, match="closed"):
        runner(photograph)
    runner.close()
    runner.close()
    runner.backend.close()  # the back end itself keeps the promise too


@every_backend
def test_a_runner_that_fails_inside_the_with_block_closes(
    backend: str, tiny_bundles: Bundles, photograph: UInt8Array
) -> None:
    with (
        pytest.raises(SpecError, match="uint8"),
        open_backend(backend, "classify", tiny_bundles) as runner,
    ):
        runner(photograph.astype(np.float32))
    with pytest.raises(SpecError, match="closed"):
        runner(photograph)


@every_backend
def test_two_threads_get_their_own_results(
    backend: str, tiny_bundles: Bundles, answers: Callable[[str, UInt8Array], Result]
) -> None:
    pictures = list(photographs().values())[:2]
    expected = [answers("detect", picture) for picture in pictures]
    start = threading.Barrier(2)
    with open_backend(backend, "detect", tiny_bundles) as runner, ThreadPoolExecutor(2) as pool:

        def work(picture: UInt8Array) -> list[Result]:
            start.wait(timeout=30)
            return [runner(picture) for _ in range(20)]

        found = list(pool.map(work, pictures))
    for results, right in zip(found, expected, strict=True):
        for result in results:
            assert_same(result, right)


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((48, 48, 3), np.float32),
        np.zeros((48, 48), np.uint8),
        np.zeros((48, 48, 1), np.uint8),
        np.zeros((48, 48, 4), np.uint8),
        np.zeros((0, 48, 3), np.uint8),
        None,
    ],
    ids=["float", "grey", "one channel", "with alpha", "empty", "none"],
)
@every_backend
def test_what_is_not_a_colour_picture_is_refused(backend: str, wrong: UInt8Array, tiny_bundles: Bundles) -> None:
    expected = r"must be uint8 \[height, width, 3\] BGR(, the path of a picture or an image of Pillow)?, got"
    with open_backend(backend, "classify", tiny_bundles) as runner, pytest.raises(SpecError, match=expected):
        runner(wrong)


@every_backend
def test_views_and_read_only_pictures_are_taken(
    backend: str, tiny_bundles: Bundles, answers: Callable[[str, UInt8Array], Result], photograph: UInt8Array
) -> None:
    flipped = photograph[:, ::-1]
    read_only = photograph.copy()
    read_only.flags.writeable = False
    with open_backend(backend, "detect", tiny_bundles) as runner:
        assert_same(runner(flipped), answers("detect", np.ascontiguousarray(flipped)))
        assert_same(runner(read_only), answers("detect", photograph))


@every_format
def test_an_unknown_device_is_refused_with_what_is_near(format_name: str, tiny_bundle: Path) -> None:
    with pytest.raises(UnknownNameError, match="did you mean cpu") as refused:
        open_runner(tiny_bundle, format=format_name, device="cpuu")
    assert refused.value.exit_code == 2


@every_format
def test_a_device_that_is_not_there_is_refused_and_nothing_else_is_used(
    format_name: str, tiny_bundle: Path, without: Callable[..., None]
) -> None:
    require_format(format_name)
    without("onnxruntime_qnn")  # it brings a simulated NPU
    with pytest.raises(DeviceError, match=r"'npu' is not available.*available here: ") as refused:
        open_runner(tiny_bundle, format=format_name, device="npu")
    assert refused.value.exit_code == 3


@pytest.mark.parametrize(
    ("device", "absent"),
    [
        ("openvino:CPU", "openvino:GPU.7"),
        ("onnxruntime:CPUExecutionProvider", "onnxruntime:tensorrt"),
        ("litert:cpu", "litert:edgetpu"),
    ],
)
def test_the_devices_that_the_refusal_lists_can_be_asked_for(
    device: str, absent: str, tiny_bundle: Path, photograph: UInt8Array
) -> None:
    runtime, _, word = device.partition(":")
    meant = format_of_runtime(runtime)
    assert meant is not None
    require_format(meant.name)
    with pytest.raises(DeviceError, match=rf"{absent}' is not available.*here: .*{word}.*needs .*pip install"):
        open_runner(tiny_bundle, device=absent)
    with open_runner(tiny_bundle, device=device) as runner:
        assert runner.format == meant.name
        assert len(runner(photograph))  # type: ignore[arg-type]


def test_a_kind_of_device_that_no_runtime_has_is_refused_with_what_each_needs(
    tiny_bundle: Path, without: Callable[..., None]
) -> None:
    without("onnxruntime_qnn")
    held = [artifact.format for artifact in Bundle.open(tiny_bundle).manifest.artifacts]
    with pytest.raises(DeviceError) as refused:
        open_runner(tiny_bundle, device="npu")
    lines = str(refused.value).splitlines()
    assert len(lines) == len(set(held))
    assert all("'npu' is not available in" in line for line in lines)
    assert sum(" needs " in line for line in lines) == sum(
        any(row.kind == "npu" for row in FORMATS.get(name).runtime.executors) for name in set(held)
    )


def test_a_device_of_another_runtime_than_the_format_is_refused(tiny_bundle: Path) -> None:
    with pytest.raises(SpecError, match="belongs to openvino, but the requested format is 'onnx'"):
        open_runner(tiny_bundle, device="openvino:CPU", format="onnx")


def test_an_unknown_format_is_refused_with_what_is_near(tiny_bundle: Path) -> None:
    with pytest.raises(UnknownNameError, match="did you mean tflite"):
        open_runner(tiny_bundle, format="tflight")


@every_format
def test_a_precision_that_the_bundle_lacks_is_refused_with_what_it_holds(format_name: str, tiny_bundle: Path) -> None:
    require_format(format_name)
    with pytest.raises(BundleError, match=rf"holds no {format_name} int8.*it holds: .*{format_name} fp32"):
        open_runner(tiny_bundle, format=format_name, precision="int8")


def artifact_of(bundle: Bundle, format_name: str) -> Artifact:
    require_format(format_name)
    return bundle.artifact(format_name, "fp32")


@pytest.fixture
def own_bundle(tiny_bundle: Path, tmp_path: Path) -> Bundle:
    """A copy of the classifier's bundle that a test may spoil."""
    return Bundle.open(shutil.copytree(tiny_bundle, tmp_path / "own.edge"))


@pytest.mark.parametrize("index", [0, 1])
@every_format
def test_a_changed_byte_is_noticed_in_every_file(format_name: str, index: int, own_bundle: Bundle) -> None:
    files = artifact_of(own_bundle, format_name).files
    if index >= len(files):
        assert format_name != "openvino", "an IR is two files"
        return
    path = own_bundle.folder / files[index].path
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(BundleError, match=rf"{re.escape(path.name)} is not the file that was verified"):
        open_runner(own_bundle.folder, format=format_name)


@every_format
def test_a_removed_file_is_noticed(format_name: str, own_bundle: Bundle) -> None:
    for record in artifact_of(own_bundle, format_name).files[::-1]:
        (own_bundle.folder / record.path).unlink()
        with pytest.raises(BundleError, match=rf"{re.escape(record.path)} cannot be read: No such file"):
            open_runner(own_bundle.folder, format=format_name)


def test_a_manifest_cannot_name_files_outside_its_bundle(own_bundle: Bundle) -> None:
    artifact = artifact_of(own_bundle, "onnx")
    outside = own_bundle.folder.parent / "outside.onnx"
    shutil.copy(own_bundle.folder / artifact.path, outside)
    text = (own_bundle.folder / MANIFEST).read_text()
    (own_bundle.folder / MANIFEST).write_text(text.replace(artifact.path, "../outside.onnx"))
    with pytest.raises(BundleError, match="must be the name of a file next to the manifest"):
        open_runner(own_bundle.folder, format="onnx")


@pytest.mark.parametrize("kind", ["garbage", "truncated", "empty", "text"])
@every_format
def test_a_broken_model_file_with_the_right_hash_is_an_error_not_a_crash(
    format_name: str, kind: str, own_bundle: Bundle
) -> None:
    artifact = artifact_of(own_bundle, format_name)
    path = own_bundle.folder / artifact.path
    path.write_bytes(
        {
            "garbage": np.random.default_rng(0).bytes(4096),
            "truncated": path.read_bytes()[: path.stat().st_size // 2],
            "empty": b"",
            "text": b"version https://git-lfs.github.com/spec/v1\n",
        }[kind]
    )
    record = msgspec.structs.replace(artifact.files[0], sha256=sha256_of(path), bytes=path.stat().st_size)
    changed = msgspec.structs.replace(artifact, files=(record, *artifact.files[1:]))
    manifest = msgspec.structs.replace(own_bundle.manifest, artifacts=(changed,))
    bundle = Bundle(own_bundle.folder, manifest)
    with pytest.raises((BundleError, DeviceError), match=re.escape(path.name)):
        open_runner(bundle, format=format_name)


@every_format
def test_a_file_with_other_outputs_than_the_manifest_says_is_refused(format_name: str, tiny_bundles: Bundles) -> None:
    require_format(format_name)
    classifier, detector = Bundle.open(tiny_bundles("classify")), Bundle.open(tiny_bundles("detect"))
    manifest = msgspec.structs.replace(classifier.manifest, outputs=detector.manifest.outputs)
    with pytest.raises(DeviceError, match=r"has .*manifest (also )?names"):
        open_runner(Bundle(classifier.folder, manifest), format=format_name)


@every_format
def test_what_opened_says_is_what_ran(format_name: str, tiny_bundle: Path) -> None:
    require_format(format_name)
    with open_runner(tiny_bundle, format=format_name, threads=1) as runner:
        opened = runner.backend.opened
        assert runner.format == format_name
        assert runner.precision == opened.precision == "fp32"
        assert opened.threads == 1
        assert re.search(r" \d+\.\d+", opened.runtime)
        assert opened.provider
        assert opened.device_name
        assert opened.operators
        assert opened.operators_on_device == opened.operators
        assert opened.operators_elsewhere == {}
        assert set(opened.arithmetic) <= {"fp32"}
        assert not opened.simulated


def test_openvino_runs_its_float_file_in_bf16_where_that_is_asked_for(
    tiny_bundle: Path, answers: Callable[[str, UInt8Array], Result], photograph: UInt8Array
) -> None:
    require_format("openvino")
    from edgecnn.runners.openvino.core import CORE

    if "BF16" not in CORE.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        with pytest.raises(DeviceError, match="cannot compute in bf16"):
            open_runner(tiny_bundle, format="openvino", precision="bf16")
        return
    with open_runner(tiny_bundle, format="openvino", precision="bf16") as runner:
        assert runner.precision == "bf16"
        assert "bf16" in runner.backend.opened.arithmetic
        found, expected = runner(photograph), answers("classify", photograph)
    assert isinstance(found, Classification)
    assert isinstance(expected, Classification)
    assert found.class_ids[0] == expected.class_ids[0]
    assert abs(found.scores[0] - expected.scores[0]) < 0.05


@every_format
def test_stages_are_timed(format_name: str, tiny_bundle: Path, photograph: UInt8Array) -> None:
    require_format(format_name)
    with open_runner(tiny_bundle, format=format_name) as runner:
        runner(photograph)
        times = runner.stage_times
    assert min(times.fit_ns, times.infer_ns, times.finish_ns) > 0


@every_format
def test_opening_and_closing_many_times_holds_no_files_open(
    format_name: str, tiny_bundle: Path, photograph: UInt8Array
) -> None:
    require_format(format_name)
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("counts open files in /proc")
    with open_runner(tiny_bundle, format=format_name) as runner:
        runner(photograph)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(4):
        with open_runner(tiny_bundle, format=format_name) as runner:
            runner(photograph)
    assert len(os.listdir("/proc/self/fd")) <= before


@pytest.mark.runtime
def test_ctrl_c_is_an_exception_also_after_two_openvino_runners_ended_in_their_order() -> None:
    require_format("openvino")
    program = """
import signal
import edgecnn
first, second = (edgecnn.open_runner("default-detector", format="openvino", verify=False) for _ in range(2))
first.close()
second.close()
del first, second
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("stopped")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, "stopped\n"), done.stderr
