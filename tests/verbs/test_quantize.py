"""What `quantize` and `convert --precision int8` promise, in every format: a bound that is kept, or a reason."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest

from edgecnn import Bundle, convert, evaluate, open_runner
from edgecnn import quantize as quantize_as_asked
from edgecnn.bundle import record_evidence
from edgecnn.bundle.evidence import QuantizationEvidence, TwinLatency
from edgecnn.cli._main import main
from edgecnn.converters.quantize_bundle import Conversion
from edgecnn.errors import BundleError, DataError, SpecError, UnknownNameError
from edgecnn.formats import FORMATS, Format
from edgecnn.photographs import photographs
from edgecnn.processor import processor_name
from edgecnn.results import Classification, UInt8Array
from tests.builders.formats import require_format
from tests.builders.networks import TINY

pytestmark = pytest.mark.torch

Bundles = Callable[[str], Path]
quantize = partial(quantize_as_asked, keep_slower=True)  # a tiny network may well be slower in int8
NAMES = [row.name for row in FORMATS if row.int8_writer is not None]
PICTURES = 24
# Fast: each task, and each format. What is left of their product takes its time.
EVERY_TASK_AND_FORMAT = [
    pytest.param(task, name, marks=[] if task == "classify" or name == NAMES[0] else pytest.mark.slow)
    for task in sorted(TINY)
    for name in NAMES
]


def crops(seed: int) -> list[UInt8Array]:
    """Different parts of the photographs that come with edgecnn."""
    sources = list(photographs().values())
    rng = np.random.default_rng(seed)
    found = []
    for index in range(PICTURES):
        picture = sources[index % len(sources)]
        top, left = rng.integers(0, picture.shape[0] - 200), rng.integers(0, picture.shape[1] - 200)
        found.append(np.ascontiguousarray(picture[top : top + 200, left : left + 200]))
    return found


def write(folder: Path, pictures: list[UInt8Array]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for index, picture in enumerate(pictures):
        cv2.imwrite(str(folder / f"{index:03}.png"), picture)
    return folder


@pytest.fixture(scope="module")
def unlabelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("pictures") / "street", crops(0))


@pytest.fixture(scope="module")
def labelled(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """Seed → pictures in class folders, labelled by what the float classifier says: it is always right."""
    made: dict[int, Path] = {}

    def pictures(seed: int) -> Path:
        if seed not in made:
            made[seed] = tmp_path_factory.mktemp("labelled") / f"seed-{seed}"
            with open_runner(tiny_bundle) as runner:
                for label in runner.task.labels:
                    (made[seed] / label).mkdir(parents=True)
                for index, picture in enumerate(crops(seed)):
                    result = runner(picture)
                    assert isinstance(result, Classification)
                    label = result.labels[result.class_ids[0]]
                    cv2.imwrite(str(made[seed] / label / f"{index:03}.png"), picture)
        return made[seed]

    return pictures


def quantization(conversion: Conversion, format_name: str) -> QuantizationEvidence:
    assert conversion.bundle is not None, conversion.refused
    found = conversion.bundle.artifact(format_name, "int8").evidence.quantization
    assert found is not None
    return found


@pytest.mark.parametrize(("task", "format_name"), EVERY_TASK_AND_FORMAT)
def test_every_task_is_quantized_and_answers_nearly_as_float(
    task: str, format_name: str, tiny_bundles: Bundles, unlabelled: Path, tmp_path: Path
) -> None:
    require_format(format_name)
    bundle = tiny_bundles(task)
    before = {path.name: path.read_bytes() for path in bundle.iterdir()}
    out = tmp_path / "small.edge"
    conversion = quantize(bundle, out=out, to=[format_name], calibration=unlabelled)
    assert not conversion.refused, conversion.refused
    evidence = quantization(conversion, format_name)
    assert evidence.int8_mac_share > 0.5
    assert min(evidence.snr_db.values()) > 10
    assert evidence.search is None, "without labels there is nothing to search on"
    assert evidence.calibration is not None
    assert (evidence.calibration.count, evidence.calibration.source) == (PICTURES, "street")
    assert len(evidence.calibration.images) == PICTURES
    assert evidence.latency is not None
    assert evidence.latency.low <= evidence.latency.ratio <= evidence.latency.high
    assert conversion.bundle is not None
    artifact = conversion.bundle.artifact(format_name, "int8")
    assert artifact.evidence.parity is not None
    assert artifact.evidence.parity.ok is None, "figures, and no verdict"
    assert evidence.recipe.startswith("static_wi8_ai8")
    with open_runner(out, format=format_name, precision="int8") as runner:
        runner(crops(5)[0])
    assert {path.name: path.read_bytes() for path in bundle.iterdir()} == before, "the old bundle was changed"


@pytest.mark.parametrize("format_name", NAMES)
def test_with_labels_the_bound_is_kept_and_the_search_is_recorded(
    format_name: str, tiny_bundle: Path, labelled: Callable[[int], Path], tmp_path: Path
) -> None:
    require_format(format_name)
    out = tmp_path / "small.edge"
    conversion = quantize(tiny_bundle, out=out, to=[format_name], data=labelled(0), max_drop=0.1)
    assert not conversion.refused, conversion.refused
    evidence = quantization(conversion, format_name)
    assert evidence.search is not None
    assert evidence.search.float_value == 1
    assert evidence.search.drop <= 0.1
    assert evidence.search.trials >= 1
    assert conversion.bundle is not None
    (accuracy,) = conversion.bundle.artifact(format_name, "int8").evidence.accuracy
    assert accuracy.value == evidence.search.value
    assert accuracy.drop == evidence.search.drop
    assert list(tmp_path.iterdir()) == [out], "the search left its journal behind"
    with pytest.raises(DataError, match=f"{PICTURES} of the {PICTURES} images .* were used"):
        evaluate(out, labelled(0), format=format_name, precision="int8")
    assert evaluate(out, labelled(1), format=format_name, precision="int8").n == PICTURES


def test_a_split_of_the_data_is_searched_and_calibrated_on_alone(
    tiny_bundle: Path, labelled: Callable[[int], Path], tmp_path: Path
) -> None:
    require_format("onnx")
    for split, seed in (("val", 0), ("test", 1)):
        shutil.copytree(labelled(seed), tmp_path / "data" / split)
    out = tmp_path / "x.edge"
    conversion = quantize(tiny_bundle, out=out, to=["onnx"], data=tmp_path / "data", split="val", max_drop=0.2)
    evidence = quantization(conversion, "onnx")
    assert evidence.search is not None and evidence.calibration is not None
    assert set(evidence.calibration.images) == set(evidence.search.images)
    assert evaluate(out, tmp_path / "data", split="test", format="onnx", precision="int8").n == PICTURES
    with pytest.raises(SpecError, match="give --data"):
        quantize(tiny_bundle, out=out, calibration=labelled(0), split="val")


def test_pictures_to_evaluate_on_must_not_have_taken_part(
    tiny_bundle: Path, labelled: Callable[[int], Path], tmp_path: Path
) -> None:
    require_format("onnx")
    for words in ({"data": labelled(0)}, {"calibration": labelled(0)}):
        with pytest.raises(DataError, match="accuracy measured on them would be too high"):
            quantize(tiny_bundle, out=tmp_path / "x.edge", to="onnx", evaluate_on=labelled(0), **words)  # type: ignore[arg-type]
    conversion = quantize(
        tiny_bundle, out=tmp_path / "x.edge", to="onnx", data=labelled(0), evaluate_on=labelled(1), max_drop=0.2
    )
    assert conversion.bundle is not None
    searched, evaluated = conversion.bundle.artifact("onnx", "int8").evidence.accuracy
    assert (searched.data, evaluated.data) == ("seed-0", "seed-1")


def test_an_int8_artifact_is_added_to_a_bundle_in_place_and_replaced_by_the_next(
    tiny_bundle: Path, unlabelled: Path, tmp_path: Path
) -> None:
    require_format("onnx")
    bundle = tmp_path / "own.edge"
    shutil.copytree(tiny_bundle, bundle)
    float_artifacts = Bundle.open(bundle).manifest.artifacts
    for count in (8, 16):
        quantize(bundle, to=["onnx"], calibration=unlabelled, calibration_count=count)
        manifest = Bundle.open(bundle).manifest
        assert manifest.artifacts[: len(float_artifacts)] == float_artifacts
        (added,) = manifest.artifacts[len(float_artifacts) :]
        assert added.evidence.quantization is not None
        assert added.evidence.quantization.calibration is not None
        assert added.evidence.quantization.calibration.count == count
        for artifact in manifest.artifacts:
            Bundle.open(bundle).checked_path(artifact)


def test_a_batch_artifact_is_quantized_too(batch_bundle: Bundle, unlabelled: Path, tmp_path: Path) -> None:
    for name in NAMES:
        require_format(name)
    conversion = quantize(batch_bundle, out=tmp_path / "batch.edge", calibration=unlabelled)
    assert not conversion.refused, conversion.refused


def test_convert_makes_int8_and_float_and_prints_their_figures(
    tmp_path: Path, unlabelled: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    require_format("onnx")
    monkeypatch.setattr("edgecnn.sources.module.import_module", lambda _: _Factories)
    words = [
        "convert",
        "tiny:classifier",
        "--to",
        "onnx",
        "--precision",
        "fp32,int8",
        "--keep-slower",
        "--calibration",
        str(unlabelled),
    ]
    code = main([*words, "--out", str(tmp_path / "c.edge"), "--plot", str(tmp_path / "c.png"), "--json"])
    printed = json.loads(capsys.readouterr().out)
    assert code == 0
    whole, small = printed["artifacts"]
    assert (whole["precision"], small["precision"]) == ("fp32", "int8")
    assert small["int8_mac_share"] > 0.5
    assert small["drop"] is None, "nobody measured it"
    assert small["parity"]["ok"] is None
    assert small["latency"]["ratio"] > 0
    assert "int8_mac_share" not in whole
    assert cv2.imread(str(tmp_path / "c.png")) is not None
    assert main(["inspect", str(tmp_path / "c.edge")]) == 0


class _Factories:
    classifier = staticmethod(TINY["classify"])


def test_int8_alone_leaves_no_float_artifact_in_the_bundle(unlabelled: Path, tmp_path: Path) -> None:
    require_format("onnx")
    out = tmp_path / "c.edge"
    conversion = convert(
        TINY["classify"](), out=out, to=["onnx"], precision=["int8"], calibration=unlabelled, keep_slower=True
    )
    assert not conversion.refused, conversion.refused
    assert [(a.format, a.precision) for a in Bundle.open(out).manifest.artifacts] == [("onnx", "int8")]
    assert len(list(out.iterdir())) == 2


def test_the_device_auto_takes_int8_only_where_it_was_found_faster_and_as_right(
    tiny_bundle: Path, labelled: Callable[[int], Path], tmp_path: Path
) -> None:
    require_format("onnx")
    out = tmp_path / "small.edge"
    conversion = quantize(tiny_bundle, out=out, to=["onnx"], data=labelled(0), max_drop=0.5)
    assert conversion.bundle is not None
    evidence = conversion.bundle.artifact("onnx", "int8").evidence
    faster = TwinLatency(
        latency_ms=1, float_latency_ms=2, ratio=2, low=1.9, high=2.1, device_name=processor_name(), threads=1
    )
    cases = {
        "int8": faster,
        "fp32": msgspec.structs.replace(faster, ratio=0.5, low=0.4, high=0.6),
        "fp32 ": msgspec.structs.replace(faster, device_name="another processor"),
        "fp32  ": None,
    }
    for expected, latency in cases.items():
        assert evidence.quantization is not None
        changed = msgspec.structs.replace(
            evidence, quantization=msgspec.structs.replace(evidence.quantization, latency=latency)
        )
        record_evidence(Bundle.open(out), {("onnx", "int8"): changed})
        with open_runner(out, device="auto", format="onnx") as runner:
            assert runner.precision == expected.strip()
        with open_runner(out, device="cpu", format="onnx") as runner:
            assert runner.precision == "fp32", "the word cpu allows no choice"


def test_an_impossible_request_is_reported_before_the_work(tiny_bundle: Path, unlabelled: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.edge"
    with pytest.raises(SpecError, match="--calibration DATA"):
        quantize(tiny_bundle, out=out)
    with pytest.raises(UnknownNameError, match="int8"):
        quantize(tiny_bundle, out=out, precision="int9", calibration=unlabelled)
    with pytest.raises(UnknownNameError, match="onnx"):
        quantize(tiny_bundle, out=out, to=["onxn"], calibration=unlabelled)
    with pytest.raises(SpecError, match="--max-drop needs labelled pictures"):
        quantize(tiny_bundle, out=out, calibration=unlabelled, max_drop=0.01)
    with pytest.raises(SpecError, match="at least 1, got 0"):
        quantize(tiny_bundle, out=out, calibration=unlabelled, calibration_count=0)
    with pytest.raises(SpecError, match="budget-minutes must be positive"):
        quantize(tiny_bundle, out=out, calibration=unlabelled, budget_minutes=0)
    with pytest.raises(DataError, match="no labels for the task"):
        quantize(tiny_bundle, out=out, data=unlabelled)
    assert not out.exists()


def test_a_bundle_that_says_nothing_of_layers_is_to_be_converted_again(
    tiny_bundle: Path, unlabelled: Path, tmp_path: Path
) -> None:
    bundle = tmp_path / "old.edge"
    shutil.copytree(tiny_bundle, bundle)
    manifest = json.loads((bundle / "manifest.json").read_text())
    del manifest["layers"]
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=r"has no record of its layers.*: convert again"):
        quantize(bundle, to=["onnx"], calibration=unlabelled)


def test_calibration_on_noise_is_warned_of_in_the_evidence(tiny_bundle: Path, tmp_path: Path) -> None:
    require_format("onnx")
    rng = np.random.default_rng(0)
    noise = write(tmp_path / "noise", [rng.integers(0, 256, (100, 100, 3), dtype=np.uint8) for _ in range(20)])
    conversion = quantize(tiny_bundle, out=tmp_path / "x.edge", to=["onnx"], calibration=noise)
    assert any("look like noise" in warning for warning in quantization(conversion, "onnx").warnings)


@pytest.mark.parametrize(("name", "allow_drop"), [*((name, False) for name in NAMES), (NAMES[0], True)])
def test_a_file_with_nothing_in_int8_is_not_written(
    name: str, allow_drop: bool, tiny_bundle: Path, unlabelled: Path, tmp_path: Path, stand_in: Callable[..., Format]
) -> None:
    require_format(name)
    writer = FORMATS.get(name).load_int8_writer()

    class NothingInInt8(writer):  # type: ignore[misc,valid-type]
        """Its runtime would compute every layer in float."""

        def int8_layers(self, file: Path) -> frozenset[str]:
            return frozenset()

    stand_in(name, int8_writer=NothingInInt8)
    out = tmp_path / "out.edge"
    conversion = quantize(tiny_bundle, out=out, to=[name], calibration=unlabelled, allow_drop=allow_drop)
    assert "0% of the multiply-adds in int8" in str(conversion.refused[0].reason)
    assert not out.exists()


def twin_latency(ratio: float, low: float, high: float) -> TwinLatency:
    return TwinLatency(
        latency_ms=8 / ratio, float_latency_ms=8.0, ratio=ratio, low=low, high=high, device_name="here", threads=1
    )


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[TwinLatency]]:
    """Makes the timing answer these, one after the other; returns those that are left."""

    def answer(*latencies: TwinLatency) -> list[TwinLatency]:
        left = list(latencies)
        monkeypatch.setattr("edgecnn.converters.quantize_bundle.time_twins", lambda ours, theirs: left.pop(0))
        return left

    return answer


def test_int8_that_is_slower_here_is_not_written(
    tiny_bundle: Path, unlabelled: Path, tmp_path: Path, measured: Callable[..., list[TwinLatency]]
) -> None:
    require_format("onnx")
    measured(twin_latency(0.8, 0.78, 0.82))
    out = tmp_path / "x.edge"
    (refusal,) = quantize_as_asked(tiny_bundle, out=out, to=["onnx"], calibration=unlabelled).refused
    assert refusal.error == "SpeedError"
    assert "10.00 ms a frame here, float 8.00 ms (0.80 times as fast [0.78, 0.82], here, 1 thread)" in refusal.reason
    assert "--keep-slower" in refusal.reason
    assert not out.exists()


def test_int8_that_is_slower_leaves_no_file_beside_those_that_are_written(
    unlabelled: Path, tmp_path: Path, measured: Callable[..., list[TwinLatency]]
) -> None:
    require_format("onnx")
    measured(twin_latency(0.8, 0.78, 0.82))
    out, both = tmp_path / "c.edge", ["fp32", "int8"]
    conversion = convert(TINY["classify"](), out=out, to=["onnx"], precision=both, calibration=unlabelled)
    assert [refusal.precision for refusal in conversion.refused] == ["int8"]
    assert [artifact.precision for artifact in Bundle.open(out).manifest.artifacts] == ["fp32"]
    assert not [path for path in out.iterdir() if "int8" in path.name]


def test_int8_that_is_slower_here_is_written_and_marked_if_asked_for(
    tiny_bundle: Path, unlabelled: Path, tmp_path: Path, measured: Callable[..., list[TwinLatency]]
) -> None:
    require_format("onnx")
    measured(twin_latency(0.8, 0.78, 0.82))
    evidence = quantization(quantize(tiny_bundle, out=tmp_path / "x.edge", to=["onnx"], calibration=unlabelled), "onnx")
    assert evidence.slower_than_float


@pytest.mark.parametrize(("again", "is_written"), [(1.1, True), (0.99, False)])
def test_where_noise_may_decide_it_is_measured_again(
    again: float, is_written: bool, tiny_bundle: Path, unlabelled: Path, tmp_path: Path, measured: Callable[..., Any]
) -> None:
    require_format("onnx")
    left = measured(twin_latency(1.01, 0.9, 1.1), twin_latency(again, again - 0.02, again + 0.02))
    conversion = quantize_as_asked(tiny_bundle, out=tmp_path / "x.edge", to=["onnx"], calibration=unlabelled)
    assert left == []
    assert (conversion.bundle is not None) == is_written


def test_16_bit_activations_are_for_other_machines_and_written_however_slow_here(
    tiny_bundle: Path, unlabelled: Path, tmp_path: Path, measured: Callable[..., list[TwinLatency]]
) -> None:
    require_format("tflite")
    measured(twin_latency(0.02, 0.01, 0.03))
    out = tmp_path / "x.edge"
    conversion = quantize_as_asked(tiny_bundle, out=out, to=["tflite"], calibration=unlabelled, precision="int8-a16")
    assert conversion.bundle is not None, conversion.refused
