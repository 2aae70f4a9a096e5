"""What `convert` promises: evidence for what it writes, figures for what it refuses, and the old bundle until then."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest
import torch
from torch import nn

from edgecnn import Bundle, Classify, FrameSpec, TrainedModel, convert, open_runner
from edgecnn.bundle import MANIFEST, sha256_of
from edgecnn.cli._main import main
from edgecnn.converters.base import Converted
from edgecnn.converters.deployable.wrapper import Deployable
from edgecnn.errors import (
    BlindError,
    ConversionError,
    DataError,
    ParityError,
    SourceError,
    SpecError,
    UnknownNameError,
)
from edgecnn.formats import FORMATS, Format, convertible
from edgecnn.measure.parity import LIMITS
from edgecnn.photographs import photographs
from edgecnn.results import FloatArray, UInt8Array
from edgecnn.sources import ReferencePreprocess
from tests.builders.formats import require_format
from tests.builders.networks import TINY, tiny_classifier, tiny_detector

pytestmark = pytest.mark.torch

Bundles = Callable[[str], Path]


class OtherNetwork:
    """A converter that writes another network than the one it was given."""

    precisions: Sequence[str] = ("fp32", "fp16")

    def __init__(self, deployable: Deployable, *, batch: int) -> None:
        model = tiny_classifier()
        with torch.no_grad():
            model.module.head.weight.mul_(1.01)  # type: ignore[union-attr, operator]
        self._converter = FORMATS.get("openvino").load_converter()(Deployable(model), batch=batch)

    def write(self, precision: str, folder: Path) -> Converted:
        return self._converter.write(precision, folder)


class FailingConverter:
    """A converter whose tool fails on every graph."""

    precisions: Sequence[str] = ("fp32", "fp16")

    def __init__(self, deployable: Deployable, *, batch: int) -> None:
        pass

    def write(self, precision: str, folder: Path) -> Converted:
        (folder / "half").write_text("half a file")
        raise ConversionError("the tool failed on this graph: no such operator")


@pytest.fixture
def converter_named(stand_in: Callable[..., Format]) -> Callable[[str, type], None]:
    """Puts another converter under a name, for one test; what it writes is an IR, so OpenVINO runs it."""
    require_format("openvino")

    def put(name: str, converter: type) -> None:
        stand_in(name, like="openvino", converter=converter)

    return put


@pytest.fixture
def network_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """`module:factory` of the tiny classifier, for the command line."""
    monkeypatch.setattr("edgecnn.sources.module.import_module", lambda _: _Factories)
    monkeypatch.chdir(tmp_path)
    return "tiny_networks:classifier"


class _Factories:
    classifier = staticmethod(tiny_classifier)


def entries(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("task", sorted(TINY))
def test_the_manifest_holds_the_evidence(task: str, tiny_bundles: Bundles) -> None:
    bundle = Bundle.open(tiny_bundles(task))
    manifest = bundle.manifest
    assert [a.format for a in manifest.artifacts] == convertible()
    assert manifest.refused == ()
    assert manifest.parameters == sum(p.numel() for p in TINY[task]().module.parameters())
    assert manifest.macs > 10_000
    assert manifest.inputs[0].shape == (1, manifest.frame.height_px, manifest.frame.width_px, 3)
    assert manifest.frame == TINY[task]().frame
    for artifact in manifest.artifacts:
        evidence = artifact.evidence.parity
        assert evidence is not None
        assert evidence.ok
        assert evidence.frames == len(photographs())
        assert evidence.limit is not None
        assert 0 <= evidence.max_rel_err <= evidence.limit
        assert set(evidence.tensors) == set(manifest.task.outputs)
        assert evidence.agreement == 1
        assert evidence.device_name
        assert set(evidence.versions) == {"runtime", "torch"}
        assert artifact.tool
        for record in artifact.files:
            path = bundle.folder / record.path
            assert (sha256_of(path), path.stat().st_size) == (record.sha256, record.bytes)
    assert entries(bundle.folder) == {MANIFEST, *(f.path for a in manifest.artifacts for f in a.files)}


def test_a_tflite_graph_of_convolutions_is_transposed_at_its_ends_only(tiny_bundles: Bundles) -> None:
    require_format("tflite")
    for task in ("classify", "segment"):
        count = Bundle.open(tiny_bundles(task)).artifact("tflite", "fp32").transposes
        assert count is not None
        assert count <= 2


@pytest.fixture(scope="module")
def half_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The classifier, wide enough that its weights count, in both precisions."""
    model = tiny_classifier()
    torch.manual_seed(5)
    body = model.module.body
    assert isinstance(body, nn.Sequential)
    body[0] = nn.Conv2d(3, 512, 3, stride=2, padding=1)
    body[2] = nn.Conv2d(512, 16, 3, stride=2, padding=1)
    out = tmp_path_factory.mktemp("half") / "half.edge"
    conversion = convert(model, out=out, precision=("fp32", "fp16"))
    assert not conversion.refused, conversion.refused
    assert conversion.bundle is not None
    return conversion.bundle


@pytest.mark.parametrize("format_name", [row.name for row in FORMATS if row.converter is not None])
def test_fp16_halves_the_file_and_answers_nearly_the_same(
    format_name: str, half_bundle: Bundle, photograph: UInt8Array
) -> None:
    require_format(format_name)
    whole, half = half_bundle.artifact(format_name, "fp32"), half_bundle.artifact(format_name, "fp16")
    weights = half_bundle.manifest.parameters
    assert whole.bytes - half.bytes == pytest.approx(2 * weights, rel=0.1)
    assert half.evidence.parity is not None
    assert half.evidence.parity.limit == LIMITS["fp16"].tensors
    answers = []
    for precision in ("fp32", "fp16"):
        with open_runner(half_bundle, format=format_name, precision=precision) as runner:
            assert runner.precision == precision
            answers.append(runner(photograph))
    np.testing.assert_array_equal(answers[0].class_ids, answers[1].class_ids)  # type: ignore[attr-defined]
    np.testing.assert_allclose(answers[0].scores, answers[1].scores, atol=1e-2)  # type: ignore[attr-defined]
    assert not np.array_equal(answers[0].scores, answers[1].scores)  # type: ignore[attr-defined]


def test_refusal_is_per_artifact_and_the_others_are_written(
    converter_named: Callable[[str, type], None],
    network_module: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    converter_named("wrong", OtherNetwork)
    code = main(["convert", network_module, "--to", "wrong,openvino", "--out", "net.edge", "--json"])
    printed = capsys.readouterr()
    assert code == 1
    document = json.loads(printed.out)
    assert document["bundle"] == "net.edge"
    (artifact,) = document["artifacts"]
    assert set(artifact) >= {"format", "precision", "path", "sha256", "bytes", "parity"}
    assert (artifact["format"], artifact["precision"]) == ("openvino", "fp32")
    assert artifact["sha256"] == sha256_of(Path(artifact["path"]))
    assert artifact["parity"]["ok"] is True
    assert artifact["parity"]["frames"] == 4
    assert 0 <= artifact["parity"]["max_rel_err"] < 1e-4
    (refusal,) = document["refused"]
    assert (refusal["format"], refusal["precision"], refusal["error"]) == ("wrong", "fp32", "ParityError")
    assert "'scores' differs from the torch network by" in refusal["reason"]
    assert refusal["parity"]["ok"] is False
    assert refusal["parity"]["max_rel_err"] > refusal["parity"]["limit"] == 1e-4
    manifest = Bundle.open("net.edge").manifest
    assert [a.format for a in manifest.artifacts] == ["openvino"]
    assert [r.format for r in manifest.refused] == ["wrong"]


def test_nothing_passes_and_nothing_is_written(
    converter_named: Callable[[str, type], None],
    network_module: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    converter_named("failing", FailingConverter)
    words = ["convert", network_module, "--to", "failing", "--precision", "fp32,fp16", "--out", "net.edge"]
    assert main([*words, "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["bundle"] is None
    assert document["artifacts"] == []
    assert [r["error"] for r in document["refused"]] == ["ConversionError"] * 2
    assert [r["parity"] for r in document["refused"]] == [None] * 2
    assert entries(Path()) == set()
    assert main(words) == 1
    said = capsys.readouterr().err
    assert "refused: failing fp32: ConversionError: the tool failed on this graph: no such operator" in said
    assert "nothing passed: net.edge was not written" in said


@pytest.fixture
def own_bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A copy of the classifier's bundle, in the way of the next conversion."""
    import shutil

    return shutil.copytree(tiny_bundle, tmp_path / "net.edge")


def test_the_old_bundle_stays_when_the_new_conversion_fails(
    own_bundle: Path, converter_named: Callable[[str, type], None]
) -> None:
    before = {path.name: path.read_bytes() for path in own_bundle.iterdir()}
    converter_named("failing", FailingConverter)
    assert convert(tiny_classifier(), out=own_bundle, to=["failing"]).bundle is None
    blind = tiny_classifier()
    with torch.no_grad():
        blind.module.head.weight.zero_()  # type: ignore[union-attr, operator]
    with pytest.raises(BlindError):
        convert(blind, out=own_bundle)
    assert {path.name: path.read_bytes() for path in own_bundle.iterdir()} == before
    assert entries(own_bundle.parent) == {own_bundle.name}


def test_a_new_bundle_leaves_no_file_of_the_old_and_keeps_the_users(own_bundle: Path) -> None:
    require_format("openvino")
    (own_bundle / "LICENSE").write_text("the user's")
    (own_bundle / "onnx-fp32-0123456789.onnx").write_text("of an older version")
    conversion = convert(tiny_detector(), out=own_bundle, to=["openvino"])
    assert conversion.bundle is not None
    (artifact,) = conversion.bundle.manifest.artifacts
    assert entries(own_bundle) == {MANIFEST, "LICENSE", *(record.path for record in artifact.files)}
    assert Bundle.open(own_bundle).manifest.task.name == "detect"


def test_a_folder_that_is_not_a_bundle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(SpecError, match="exists and is not a bundle"):
        convert(tiny_classifier(), out=tmp_path / "photos")
    (tmp_path / "file").write_text("keep me")
    with pytest.raises(SpecError, match="exists and is not a bundle"):
        convert(tiny_classifier(), out=tmp_path / "file")
    assert (tmp_path / "file").read_text() == "keep me"


@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_a_network_that_answers_the_same_for_every_picture_is_blind(value: float, tmp_path: Path) -> None:
    model = tiny_classifier()
    with torch.no_grad():
        model.module.head.weight.fill_(value)  # type: ignore[union-attr, operator]
    with pytest.raises(BlindError, match="the network is blind: its outputs for 4 different pictures") as refused:
        convert(model, out=tmp_path / "net.edge")
    assert refused.value.exit_code == 1
    assert entries(tmp_path) == set()


def reference_of(model: TrainedModel, *, scale: float) -> ReferencePreprocess:
    """A pre-processing for pictures that already have the frame's size."""
    from edgecnn.frame import FrameFitter

    def apply(picture: UInt8Array) -> FloatArray:
        frame = FrameFitter(model.frame)(np.ascontiguousarray(picture[..., ::-1]))[0][0][..., ::-1]
        mean, std = np.array(model.frame.mean), np.array(model.frame.std)
        array: FloatArray = ((frame * scale - mean) / std).transpose(2, 0, 1).astype(np.float32)
        return array

    return ReferencePreprocess("the trainer's own", apply)


def test_a_wrong_preprocessing_is_refused_before_any_conversion(tmp_path: Path) -> None:
    model = tiny_classifier()
    model = replace(model, reference=reference_of(model, scale=1 / 250))
    with pytest.raises(ParityError, match=r"the frame differs from the trainer's own's by up to .* grey levels"):
        convert(model, out=tmp_path / "net.edge")
    assert entries(tmp_path) == set()


def test_a_right_preprocessing_is_in_the_evidence(tmp_path: Path) -> None:
    require_format("openvino")
    model = tiny_classifier()
    model = replace(model, reference=reference_of(model, scale=1 / 255))
    bundle = convert(model, out=tmp_path / "net.edge", to=["openvino"]).bundle
    assert bundle is not None
    evidence = bundle.manifest.preprocess
    assert evidence is not None
    assert (evidence.compared, evidence.reference, evidence.frames) == (True, "the trainer's own", 4)
    assert evidence.max_levels == pytest.approx(0, abs=0.1)
    assert evidence.mean_levels == pytest.approx(0, abs=0.1)


def test_a_preprocessing_that_was_not_compared_is_reported_as_such(tiny_bundle: Path) -> None:
    evidence = Bundle.open(tiny_bundle).manifest.preprocess
    assert evidence is not None
    assert not evidence.compared
    assert "no reference" in evidence.reason


class BrighterPixels(nn.Module):
    """Two classes: dark and bright."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1)
        with torch.no_grad():
            self.conv.weight.copy_(torch.tensor([-8.0, 8.0]).reshape(2, 1, 1, 1).expand(2, 3, 1, 1))
            self.conv.bias.copy_(torch.tensor([12.0, -12.0]))  # type: ignore[union-attr]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x).mean(dim=(2, 3))  # type: ignore[no-any-return]


def light_meter() -> TrainedModel:
    return TrainedModel(
        module=BrighterPixels(),
        frame=FrameSpec(height_px=16, width_px=16),
        task=Classify(labels=("dark", "bright"), top=2),
        name="light-meter",
    )


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders of dark and bright pictures."""
    folder = tmp_path_factory.mktemp("light")
    rng = np.random.default_rng(0)
    for name, low, high in (("dark", 0, 120), ("bright", 135, 255)):
        (folder / name).mkdir()
        for i in range(6):
            picture = rng.integers(low, high, (20, 30, 3), np.uint8)
            cv2.imwrite(str(folder / name / f"{i}.png"), picture)
    return folder


@pytest.fixture
def worse_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime names the wrong class for a third of the pictures once parity has been compared."""
    require_format("onnx")
    from edgecnn.runners.onnxruntime.backend import OnnxRuntimeBackend

    infer = OnnxRuntimeBackend.infer
    calls = 0

    def wrong(self: OnnxRuntimeBackend, frame: UInt8Array) -> dict[str, Any]:
        nonlocal calls
        calls += 1
        outputs = dict(infer(self, frame))
        if calls > 8 + 4 and calls % 3 == 0:  # made frames are compared, too
            outputs["scores"] = 1 - outputs["scores"]
        return outputs

    monkeypatch.setattr(OnnxRuntimeBackend, "infer", wrong)


def test_labelled_data_gives_accuracy_evidence(labelled: Path, tmp_path: Path) -> None:
    require_format("openvino")
    bundle = convert(light_meter(), out=tmp_path / "net.edge", to=["openvino"], data=labelled, max_drop=0.02).bundle
    assert bundle is not None
    (artifact,) = bundle.manifest.artifacts
    (evidence,) = artifact.evidence.accuracy
    assert (evidence.metric, evidence.value, evidence.reference_value, evidence.n) == ("top1", 1, 1, 12)
    assert (evidence.max_drop, evidence.allowed_drop, evidence.precision) == (0.02, False, "fp32")
    assert evidence.data == labelled.name
    assert artifact.evidence.overrides == ()
    assert artifact.evidence.parity is not None
    assert artifact.evidence.parity.frames == 8, "compared on the user's pictures"


@pytest.mark.usefixtures("worse_backend")
def test_a_drop_of_the_metric_is_refused_with_figures(labelled: Path, tmp_path: Path) -> None:
    conversion = convert(light_meter(), out=tmp_path / "net.edge", to=["onnx"], data=labelled)
    assert conversion.bundle is None
    (refusal,) = conversion.refused
    assert refusal.error == "AccuracyError"
    assert refusal.reason.startswith("onnx fp32 has top1 0.")
    assert "the torch network 1.0000: a drop of 0." in refusal.reason
    assert "(--max-drop 0.01). Give --allow-drop to write it anyway" in refusal.reason
    assert refusal.parity is not None
    assert refusal.parity.ok
    assert entries(tmp_path) == set()


@pytest.mark.usefixtures("worse_backend")
def test_an_allowed_drop_is_written_and_recorded(labelled: Path, tmp_path: Path) -> None:
    conversion = convert(light_meter(), out=tmp_path / "net.edge", to=["onnx"], data=labelled, allow_drop=True)
    assert conversion.bundle is not None
    (artifact,) = Bundle.open(tmp_path / "net.edge").manifest.artifacts
    assert artifact.evidence.overrides == ("allow-drop",)
    (evidence,) = artifact.evidence.accuracy
    assert evidence.allowed_drop
    assert evidence.value < 0.9 < (evidence.reference_value or 0)


@pytest.mark.usefixtures("worse_backend")
def test_a_drop_within_max_drop_passes_without_an_override(labelled: Path, tmp_path: Path) -> None:
    conversion = convert(light_meter(), out=tmp_path / "net.edge", to=["onnx"], data=labelled, max_drop=0.5)
    assert conversion.bundle is not None
    (artifact,) = conversion.bundle.manifest.artifacts
    assert artifact.evidence.overrides == ()
    assert not artifact.evidence.accuracy[0].allowed_drop


def test_pictures_without_labels_serve_for_parity_alone(labelled: Path, tmp_path: Path) -> None:
    require_format("openvino")
    folder = tmp_path / "plain"
    folder.mkdir()
    for source in (labelled / "dark" / "0.png", labelled / "bright" / "0.png"):
        (folder / f"{source.parent.name}.png").write_bytes(source.read_bytes())
    bundle = convert(light_meter(), out=tmp_path / "net.edge", to=["openvino"], data=folder).bundle
    assert bundle is not None
    (artifact,) = bundle.manifest.artifacts
    assert artifact.evidence.accuracy == ()
    assert artifact.evidence.parity is not None
    assert artifact.evidence.parity.frames == 2
    with pytest.raises(DataError):
        convert(light_meter(), out=tmp_path / "other.edge", to=["openvino"], data=folder, max_drop=0.01)
    assert entries(tmp_path) == {"plain", "net.edge"}


def test_a_bound_without_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="--max-drop needs labelled pictures"):
        convert(light_meter(), out=tmp_path / "net.edge", max_drop=0.01)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["torchvision:resnet19"], "no torchvision network is called 'resnet19'; did you mean resnet1"),
        (["yolox-nona"], "no model is called 'yolox-nona'; did you mean yolox-nano"),
        (["yolox-nano", "--to", "onxx"], "no format is called 'onxx'; did you mean onnx"),
        (["yolox-nano", "--precision", "fp23"], "called 'fp23'; did you mean fp32"),
        (["yolox-nano", "--batch", "0"], "batch must be at least 1, got 0"),
        (["yolox-nano", "--size", "big"], "--size must be a number or WIDTHxHEIGHT, such as 320 or 512x256"),
        (["yolox-nano", "--task", "classify"], "is a network to detect, not to classify"),
        (["yolox-nano", "--head", "yolo"], "no head is called 'yolo'; did you mean yolox"),
        (["yolox-nano", "--mean", "a,b,c"], "--mean must be three numbers"),
        (["absent.pt2"], "there is no file absent.pt2"),
        (["weights.pth"], "holds weights, not a network"),
        (["yolox-nano", "--weights", "absent.pth"], "there is no weights file absent.pth"),
        (["no_such_module:factory"], "there is no module 'no_such_module'"),
        (["yolox-nano", "--data", "absent"], "absent"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_wrong_words_end_with_2_one_line_and_no_bundle(
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["convert", *words, "--out", "net.edge"]) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert len(printed.err.strip().splitlines()) == 1
    assert printed.out == ""
    assert entries(tmp_path) == set()


def test_an_unknown_format_and_precision_name_what_is_near(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="did you mean tflite"):
        convert(tiny_classifier(), out=tmp_path / "net.edge", to=["tfilte"])
    with pytest.raises(UnknownNameError, match="did you mean fp16"):
        convert(tiny_classifier(), out=tmp_path / "net.edge", precision=["fp61"])
    with pytest.raises(SpecError, match="no converter is installed"):
        convert(tiny_classifier(), out=tmp_path / "net.edge", to=[])
    assert entries(tmp_path) == set()


def test_labels_of_another_count_are_refused(tmp_path: Path) -> None:
    model = tiny_classifier()
    model = replace(model, task=Classify(labels=("a", "b")))
    with pytest.raises(SpecError, match="the network has 5 classes, but 2 labels were given"):
        convert(model, out=tmp_path / "net.edge")
    assert entries(tmp_path) == set()


def test_a_detector_that_answers_raw_maps_is_refused_with_the_way_out(tmp_path: Path) -> None:
    model = replace(tiny_detector(), decode=None)
    with pytest.raises(SourceError, match=r"must answer boxes .* it answers \[1, 7, 8, 12\] in .*--head NAME"):
        convert(model, out=tmp_path / "net.edge")
    assert entries(tmp_path) == set()


def test_asking_twice_for_the_same_makes_it_once(tmp_path: Path) -> None:
    require_format("openvino")
    conversion = convert(
        light_meter(), out=tmp_path / "net.edge", to=["openvino", "openvino"], precision=["fp32", "fp32"]
    )
    assert conversion.bundle is not None
    assert len(conversion.bundle.manifest.artifacts) == 1


def test_the_network_that_was_given_is_not_changed(tmp_path: Path) -> None:
    require_format("openvino")
    model = tiny_classifier()
    model.module.train()
    before = {name: tensor.clone() for name, tensor in model.module.state_dict().items()}
    convert(model, out=tmp_path / "net.edge", to=["openvino"])
    assert model.module.training
    for name, tensor in model.module.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_progress_goes_from_nothing_to_all(tmp_path: Path) -> None:
    require_format("openvino")
    steps: list[tuple[int, int, str]] = []
    convert(light_meter(), out=tmp_path / "net.edge", to=["openvino"], progress=lambda *step: steps.append(step))
    assert [done for done, _, _ in steps] == sorted({done for done, _, _ in steps})
    assert steps[0][0] == 0
    assert steps[-1][2] == "writing"
    assert {total for _, total, _ in steps} == {3}


def test_a_manifest_of_a_conversion_is_read_back_as_it_was_made(tmp_path: Path) -> None:
    require_format("openvino")
    conversion = convert(light_meter(), out=tmp_path / "net.edge", to=["openvino"])
    assert conversion.bundle is not None
    read = Bundle.open(tmp_path / "net.edge").manifest
    assert msgspec.json.encode(read) == msgspec.json.encode(conversion.bundle.manifest)
    assert read.name == "light-meter"
