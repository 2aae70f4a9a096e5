"""Two artifacts layer by layer: the noise is found where it was put in, whatever the formats."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from edgecnn import Classify, FrameSpec, compare_layers
from edgecnn._verbs.inspect import MOST_PICTURES
from edgecnn.bundle import (
    Artifact,
    Bundle,
    LayerRecord,
    Manifest,
    SourceRecord,
    TensorSpec,
    commit,
    staged,
    store_files,
)
from edgecnn.bundle.evidence import Evidence, LayerDamage, QuantizationEvidence
from edgecnn.cli._main import main
from edgecnn.converters.int8.search.plan import Plan
from edgecnn.errors import BundleError, DataError, MissingDependencyError, SpecError, UnknownNameError
from edgecnn.formats import FORMATS, Format, quantizable
from edgecnn.frame import FrameFitter
from edgecnn.measure.layer_noise import LayerComparison, NoiseMeter, best_db, drops_db, ranks

pytestmark = pytest.mark.torch

SIZE_PX, CHANNELS = 16, 8
LAYERS = ("stem", "body.0", "body.1", "head")
Arrays = Mapping[str, NDArray[Any]]


class StandIn:
    """A format made of numpy: a file is JSON that says what is wrong with which layer.

    Without anything wrong, a layer answers normal noise of its own, as drawn for the frame, plus `mean`.
    """

    channels_last = False

    def __init__(self, float_file: Path, layers: Sequence[LayerRecord], *, threads: int) -> None:
        self.layers = [layer.name for layer in layers]

    def layer_outputs(self, file: Path, frame: NDArray[np.uint8]) -> Arrays:
        wrong = json.loads(file.read_text())
        outputs = {}
        for index, name in enumerate(self.layers):
            values = _drawn(frame, index) + wrong.get("mean", 0.0)
            values = values + wrong.get("noise", {}).get(name, 0.0) * _drawn(frame, 100 + index)
            if name in wrong.get("relu", ()):
                values = np.maximum(values, 0)
            if name in wrong.get("not finite", ()):
                values[0, 0] = np.nan
            if name in wrong.get("cropped", ()):
                values = values[:, :, 1:]
            if name not in wrong.get("absent", ()):
                outputs[name] = np.moveaxis(values, 1, -1) if self.channels_last else values
        return outputs


class ChannelsLast(StandIn):
    channels_last = True


class StandInBackend:
    def __init__(self, path: Path, **_: Any) -> None:
        self._wrong = json.loads(path.read_text())

    def infer(self, frame: NDArray[np.uint8]) -> Arrays:
        logits = _drawn(frame, 0) + self._wrong.get("answer", 0.0) * _drawn(frame, 1)
        return {"scores": np.exp(logits)}  # noise of scores is measured in their logarithms

    def close(self) -> None:
        pass


def _drawn(frame: NDArray[np.uint8], seed: int) -> NDArray[np.float32]:
    rng = np.random.default_rng([seed, int(frame.sum())])
    return rng.normal(0, 1, (len(frame), CHANNELS, 12, 12)).astype(np.float32)


@pytest.fixture
def stand_ins(stand_in: Callable[..., Format], monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX and OpenVINO with channels second, TFLite with channels last; no runtime and no tool."""
    monkeypatch.setenv("EDGECNN_VERIFY", "0")  # a child that tries files first doesn't know the stand-ins
    for name, writer in (("onnx", StandIn), ("openvino", StandIn), ("tflite", ChannelsLast)):
        stand_in(name, int8_writer=writer, backend=StandInBackend, suffixes=(".json",))


def bundle_of(
    folder: Path, artifacts: Mapping[str, dict[str, Any]], *, evidence: Evidence | None = None, **changes: Any
) -> Bundle:
    """A bundle whose artifacts are files of the stand-in; `evidence` is that of the int8 ones."""
    with staged(folder) as staging:
        made = []
        for name, wrong in artifacts.items():
            of, precision = name.split(":")
            file = staging / "model.json"
            file.write_text(json.dumps({"artifact": name} | wrong))
            files = store_files(staging, name.replace(":", "-"), [file])
            given = evidence if evidence is not None and precision == "int8" else Evidence()
            made.append(Artifact(format=of, precision=precision, files=files, evidence=given))
        manifest = Manifest(
            name="net",
            source=SourceRecord(model="net"),
            frame=FrameSpec(height_px=SIZE_PX, width_px=SIZE_PX),
            task=Classify(labels=("a", "b")),
            inputs=(TensorSpec(name="frame", dtype="uint8", shape=(1, SIZE_PX, SIZE_PX, 3)),),
            outputs=(TensorSpec(name="scores", dtype="float32", shape=(1, 2)),),
            parameters=1,
            macs=40,
            layers=tuple(LayerRecord(name=name, kind="convolution", macs=10, weights=name) for name in LAYERS),
            artifacts=tuple(made),
        )
        return commit(staging, folder, msgspec.structs.replace(manifest, **changes))


def compared(tmp_path: Path, wrong: dict[str, Any], reference: dict[str, Any] | None = None) -> LayerComparison:
    """An int8 file in which this is wrong, beside its float file."""
    bundle = bundle_of(tmp_path / "net.edge", {"onnx:fp32": reference or {}, "onnx:int8": wrong})
    return compare_layers(bundle, "onnx:fp32", "onnx:int8")


def snr_db(comparison: LayerComparison) -> dict[str, float]:
    return {layer.name: layer.snr_db for layer in comparison.layers}


@pytest.mark.usefixtures("stand_ins")
class TestComparison:
    def test_equal_layers_have_no_noise(self, tmp_path: Path) -> None:
        found = compared(tmp_path, {})
        assert snr_db(found) == dict.fromkeys(LAYERS, 120.0)
        assert found.outputs == {"scores": 120.0}
        assert found.worst == ()
        assert found.conclusion == "no layer is much noisier than the layers before it"

    def test_noise_of_a_hundredth_of_the_power_is_20_db(self, tmp_path: Path) -> None:
        found = compared(tmp_path, {"noise": {"body.0": 0.1}, "answer": 0.1})
        assert snr_db(found)["body.0"] == pytest.approx(20, abs=0.2)
        assert snr_db(found)["body.1"] == 120.0
        assert found.outputs["scores"] == pytest.approx(20, abs=0.5)

    def test_the_layer_where_the_noise_enters_is_named_first(self, tmp_path: Path) -> None:
        found = compared(tmp_path, {"noise": {"stem": 0.01, "body.0": 0.01, "body.1": 0.3, "head": 0.3}})
        worst = found.worst[0]
        assert worst.name == "body.1"
        assert worst.rank == 1
        assert worst.drop_db == pytest.approx(29.3, abs=0.3)
        assert worst.change_db == pytest.approx(-29.5, abs=0.3)
        assert re.fullmatch(
            r"most noise enters at body.1 \(39.\d → 10.\d dB\) and stem \(49.9 → 40.\d dB\)", found.conclusion
        )  # and not at body.0, by a tenth of a decibel

    def test_the_first_layer_is_held_against_what_8_bits_can_be(self, tmp_path: Path) -> None:
        first = compared(tmp_path, {"noise": dict.fromkeys(LAYERS, 0.1)}).layers[0]
        assert first.drop_db == pytest.approx(29.9, abs=0.2)
        assert first.change_db is None
        assert first.rank == 1

    def test_channel_means_do_not_count_as_signal(self, tmp_path: Path) -> None:
        found = compared(tmp_path, {"noise": {"stem": 0.1}, "mean": 10.0}, {"mean": 10.0})
        assert found.layers[0].snr_db == pytest.approx(20, abs=0.2)
        assert found.layers[0].snr_with_means_db == pytest.approx(40, abs=0.2)

    def test_formats_with_channels_last_are_compared_with_formats_with_channels_second(self, tmp_path: Path) -> None:
        bundle = bundle_of(
            tmp_path / "net.edge", {"openvino:fp32": {}, "tflite:fp32": {}, "tflite:int8": {"noise": {"head": 0.1}}}
        )
        found = compare_layers(bundle, "openvino:fp32", "tflite:int8")
        assert snr_db(found)["body.1"] == 120.0
        assert snr_db(found)["head"] == pytest.approx(20, abs=0.2)
        assert (found.reference, found.compared) == ("openvino fp32", "tflite int8")

    @pytest.mark.parametrize("names", [("onnx:fp32", "tflite:int8"), ("tflite:fp32", "onnx:int8")])
    def test_an_activation_fused_in_one_format_only_does_not_count_as_noise(
        self, names: tuple[str, str], tmp_path: Path
    ) -> None:
        fused = {"relu": ["body.0"]}
        artifacts: dict[str, dict[str, Any]] = {"onnx:fp32": {}, "tflite:fp32": fused}
        artifacts |= {"onnx:int8": {}, "tflite:int8": fused}
        found = compare_layers(bundle_of(tmp_path / "net.edge", artifacts), *names)
        assert snr_db(found) == dict.fromkeys(LAYERS, 120.0)

    def test_within_one_format_a_layer_that_lost_its_negative_values_is_noisy(self, tmp_path: Path) -> None:
        assert snr_db(compared(tmp_path, {"relu": ["body.0"]}))["body.0"] < 5

    def test_layers_that_one_side_lacks_are_named_and_the_others_compared(self, tmp_path: Path) -> None:
        found = compared(tmp_path, {"absent": ["stem"], "cropped": ["head"]})
        assert [layer.name for layer in found.layers] == ["body.0", "body.1"]
        assert {layer.name: layer.reason for layer in found.unread} == {
            "stem": "not readable in onnx int8",
            "head": "its outputs have different shapes, [1, 8, 12, 12] and [1, 8, 11, 12]",
        }

    def test_nan_values_count_as_noise_and_are_valid_json(self, tmp_path: Path) -> None:
        found = compared(tmp_path, {"not finite": ["body.1"]})
        assert snr_db(found)["body.1"] == -120.0
        assert found.worst[0].name == "body.1"
        assert json.loads(msgspec.json.encode(found))["layers"][2]["snr_db"] == -120.0

    def test_the_searchs_findings_about_a_layer_are_in_its_row(self, tmp_path: Path) -> None:
        evidence = quantized(float_layers=("body.0",), damage=(LayerDamage(name="head", damage=0.5, kept_float=False),))
        bundle = bundle_of(tmp_path / "net.edge", {"onnx:fp32": {}, "onnx:int8": {}}, evidence=evidence)
        forwards = compare_layers(bundle, "onnx:fp32", "onnx:int8").layers
        assert [layer.int8 for layer in forwards] == [True, False, True, True]
        assert [layer.damage for layer in forwards] == [None, None, None, 0.5]
        backwards = compare_layers(bundle, "onnx:int8", "onnx:fp32").layers
        assert [layer.int8 for layer in backwards] == [None] * 4

    def test_at_most_eight_pictures_are_taken(self, tmp_path: Path) -> None:
        pictures = tmp_path / "street"
        pictures.mkdir()
        for index in range(MOST_PICTURES + 3):
            cv2.imwrite(str(pictures / f"{index:02}.png"), np.full((20, 30, 3), 20 * index, np.uint8))
        bundle = bundle_of(tmp_path / "net.edge", {"onnx:fp32": {}, "onnx:int8": {}})
        steps: list[tuple[int, int, str]] = []
        found = compare_layers(
            bundle, "onnx:fp32", "onnx:int8", data=pictures, progress=lambda *step: steps.append(step)
        )
        assert (found.frames, found.data) == (MOST_PICTURES, "street")
        assert [step[:2] for step in steps] == [(done, MOST_PICTURES) for done in range(MOST_PICTURES + 1)]

    def test_a_batch_is_filled(self, tmp_path: Path) -> None:
        bundle = bundle_of(tmp_path / "net.edge", {"onnx:fp32": {}, "onnx:int8": {}}, batch=3)
        assert compare_layers(bundle, "onnx:fp32", "onnx:int8").frames == 6  # four photographs, two of them twice

    @pytest.mark.parametrize(
        ("names", "error", "said"),
        [
            (("onnx:fp32", "onnx"), SpecError, "expected FORMAT:PRECISION, such as tflite:int8, got 'onnx'"),
            (("onnx:fp32", "onxn:int8"), UnknownNameError, "did you mean onnx"),
            (("onnx:fp32", "onnx:fp16"), BundleError, "holds no onnx fp16"),
            (("onnx:fp32", "onnx:fp32"), SpecError, "the same file"),
            (("onnx:fp32", "tflite:int8"), BundleError, "no tflite fp32 artifact, which is needed"),
            (("onnx:fp32", "openvino:bf16"), SpecError, "eval --versus"),
        ],
    )
    def test_anything_that_cannot_be_compared_is_refused(
        self, names: tuple[str, str], error: type[Exception], said: str, tmp_path: Path
    ) -> None:
        artifacts: dict[str, dict[str, Any]]
        artifacts = {"onnx:fp32": {}, "onnx:int8": {}, "tflite:int8": {}, "openvino:fp32": {}, "openvino:bf16": {}}
        with pytest.raises(error, match=said):
            compare_layers(bundle_of(tmp_path / "net.edge", artifacts), *names)

    def test_a_bundle_without_a_record_of_layers_is_to_be_made_again(self, tmp_path: Path) -> None:
        bundle = bundle_of(tmp_path / "net.edge", {"onnx:fp32": {}, "onnx:int8": {}}, layers=())
        with pytest.raises(BundleError, match="convert again"):
            compare_layers(bundle, "onnx:fp32", "onnx:int8")

    def test_artifacts_with_no_layer_in_common_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(BundleError, match=r"no layer of .* can be read in both"):
            compared(tmp_path, {"absent": list(LAYERS)})

    def test_missing_pictures_are_reported(self, tmp_path: Path) -> None:
        bundle = bundle_of(tmp_path / "net.edge", {"onnx:fp32": {}, "onnx:int8": {}})
        with pytest.raises(DataError, match="nowhere does not exist"):
            compare_layers(bundle, "onnx:fp32", "onnx:int8", data=Path("nowhere"))


@pytest.mark.usefixtures("stand_ins")
class TestCommand:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> str:
        evidence = quantized(float_layers=("body.0",), warnings=("few pictures",))
        wrong = {"noise": {"stem": 0.01, "body.1": 0.3}, "absent": ["head"]}
        bundle = bundle_of(tmp_path / "net.edge", {"onnx:fp32": {}, "onnx:int8": wrong}, evidence=evidence)
        return str(bundle.folder)

    def test_the_table_has_the_layers_in_order_and_ends_with_a_sentence(
        self, folder: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["inspect", folder, "--layers", "onnx:fp32", "onnx:int8"]) == 0
        said = capsys.readouterr().out
        places = [said.index(f"\n{name} ") for name in LAYERS[:3]]
        assert places == sorted(places)
        assert next(line for line in said.splitlines() if "◀1" in line).startswith("body.1")
        assert "1 of 4 layers were not compared, not readable in onnx int8: head" in said
        assert said.splitlines()[-1].startswith("most noise enters at body.1 (")

    def test_json_is_the_whole_comparison(self, folder: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["inspect", folder, "--layers", "onnx:fp32", "onnx:int8", "--json"]) == 0
        document = json.loads(capsys.readouterr().out)
        assert [layer["name"] for layer in document["layers"]] == list(LAYERS[:3])
        stem = document["layers"][0]
        assert stem["snr_db"] == pytest.approx(40, abs=0.2)
        assert (stem["macs"], stem["int8"], stem["change_db"]) == (10, True, None)
        assert document["unread"] == [{"name": "head", "reason": "not readable in onnx int8"}]

    def test_the_plot_is_a_picture(self, folder: str, tmp_path: Path) -> None:
        pytest.importorskip("matplotlib")
        plot = tmp_path / "layers.png"
        assert main(["inspect", folder, "--layers", "onnx:fp32", "onnx:int8", "--plot", str(plot)]) == 0
        picture = cv2.imread(str(plot))
        assert picture is not None
        assert picture.std() > 5

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["--plot", "x.png"], "--layers A B"),
            (["--data", "x"], "--layers A B"),
            (["--layers", "onnx:fp32", "onnx:int8", "--plot", "x.txt"], "expected a plot file"),
            (["--layers", "onnx:fp32", "onnx:int4"], "holds no onnx int4"),
        ],
        ids=" ".join,
    )
    def test_wrong_words_end_with_code_2_and_one_line(
        self, words: list[str], said: str, folder: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["inspect", folder, *words]) == 2
        captured = capsys.readouterr()
        assert said in captured.err
        assert len(captured.err.strip().splitlines()) == 1

    def test_without_layers_the_int8_artifacts_show_how_they_were_made(
        self, folder: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["inspect", folder]) == 0
        captured = capsys.readouterr()
        assert "75%" in captured.out
        assert "onnx int8: 1 of 4 layers are float: body.0" in captured.out
        assert "few pictures" in captured.err


def quantized(**changes: Any) -> Evidence:
    """The evidence of an int8 artifact."""
    made = QuantizationEvidence(
        recipe="by hand", calibration=None, float_layers=(), int8_mac_share=0.75, snr_db={"scores": 20.0}
    )
    return Evidence(quantization=msgspec.structs.replace(made, **changes))


def test_a_branch_that_comes_after_a_clean_one_is_not_blamed_for_what_it_was_given() -> None:
    values = [40.0, 20.0, 38.0, 20.5, 10.0]  # a noisy branch, a clean one, the noisy one goes on
    assert drops_db(values, best=49.9) == pytest.approx([9.9, 20.0, 0, 0, 10.0])
    assert ranks([9.9, 20.0, 0, 0, 10.0]) == [3, 1, None, None, 2]
    assert ranks([0.9, 20.0, 0, 0, 1.0]) == [None, 1, None, None, 2]


def test_the_first_int8_layer_after_float_ones_is_held_against_what_8_bits_can_be() -> None:
    assert drops_db([120.0, 110.0, 30.0], best=49.9) == pytest.approx([0, 0, 19.9])


def test_a_constant_layer_is_measured_by_its_power() -> None:
    meter = NoiseMeter()
    right = np.full((5, 3), 10, np.float32)
    meter.add(right + 1, right)
    assert meter.snr_db() == pytest.approx(20)


def test_no_signal_and_no_noise_is_equal_and_no_signal_with_noise_is_lost() -> None:
    nothing = np.zeros((5, 3), np.float32)
    equal, lost = NoiseMeter(), NoiseMeter()
    equal.add(nothing, nothing)
    lost.add(nothing + 1, nothing)
    assert (equal.snr_db(), lost.snr_db()) == (120.0, -120.0)


def test_more_bits_can_be_better() -> None:
    assert best_db("int8") == best_db("int8-dynamic") < best_db("fp16") < best_db("fp32")


# With the real writers


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A small classifier, untrained, fp32 and fp16 in every format."""
    torch = pytest.importorskip("torch", reason="needs torch: pip install 'edgecnn[convert]'")
    import edgecnn

    torch.manual_seed(3)
    nn = torch.nn
    network = nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1, groups=16),
        nn.ReLU6(),
        nn.Conv2d(16, 16, 1),
        nn.SiLU(),
        nn.Conv2d(16, 16, 3, stride=2, padding=1),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(64, 5),
    )
    with torch.no_grad():
        for layer in network:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight)
    network[-1].weight.data *= 10
    conversion = edgecnn.convert(
        network,
        task="classify",
        size=(48, 48),
        to=quantizable(),
        precision=("fp32", "fp16"),
        out=tmp_path_factory.mktemp("small") / "small.edge",
    )
    assert conversion.bundle is not None, conversion.refused
    return conversion.bundle


def with_int8(bundle: Bundle, name: str, layers: Sequence[str], work: Path) -> Bundle:
    """The bundle with an int8 artifact beside, in which these layers are int8; in memory only."""
    manifest = bundle.manifest
    rng = np.random.default_rng(0)
    fitter = FrameFitter(manifest.frame)
    pictures = [cv2.resize(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8), (64, 64)) for _ in range(8)]
    writer_class = FORMATS.get(name).load_int8_writer()
    writer = writer_class(bundle.folder / bundle.artifact(name, "fp32").path, manifest.layers, threads=1)
    writer.calibrate([fitter(picture.astype(np.uint8))[0].copy() for picture in pictures])
    converted = writer.write(Plan(int8_layers=frozenset(layers)), work)
    files = store_files(bundle.folder, f"{name}-int8", list(converted.files))
    made = Artifact(format=name, precision="int8", files=files)
    return Bundle(bundle.folder, msgspec.structs.replace(manifest, artifacts=(*manifest.artifacts, made)))


def installed(name: str) -> None:
    try:
        FORMATS.get(name).load_int8_writer()
    except MissingDependencyError as missing:
        pytest.skip(str(missing))


@pytest.mark.parametrize("name", [row.name for row in FORMATS if row.int8_writer is not None])
def test_the_one_int8_layer_is_where_the_noise_enters(name: str, small: Bundle, tmp_path: Path) -> None:
    installed(name)
    names = [layer.name for layer in small.manifest.layers]
    found = compare_layers(with_int8(small, name, names[2:3], tmp_path), f"{name}:fp32", f"{name}:int8")
    assert [layer.name for layer in found.layers] == names
    assert found.worst[0].name == names[2]
    values = list(snr_db(found).values())
    assert min(values[:2]) > 80
    assert all(10 < value < 50 for value in values[2:])


@pytest.mark.parametrize("name", [row.name for row in FORMATS if row.int8_writer is not None])
def test_fp16_is_compared_with_fp32(name: str, small: Bundle) -> None:
    installed(name)
    found = compare_layers(small, f"{name}:fp32", f"{name}:fp16")
    assert found.unread == ()
    assert all(value > 50 for value in snr_db(found).values())


@pytest.mark.parametrize(("a", "b"), [("onnx", "tflite"), ("tflite", "openvino"), ("openvino", "onnx")])
def test_float_artifacts_of_two_formats_agree_in_every_layer(a: str, b: str, small: Bundle) -> None:
    installed(a)
    installed(b)
    found = compare_layers(small, f"{a}:fp32", f"{b}:fp32")
    assert found.unread == ()
    assert all(value > 90 for value in snr_db(found).values())
