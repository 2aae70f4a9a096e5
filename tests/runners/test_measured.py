"""Which artifact of a network that ships runs: the fastest as measured here, and of int8 ones what is accurate."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

pytest.importorskip("onnxruntime", reason="needs onnxruntime: pip install 'edgecnn[onnx]'")
pytest.importorskip("ai_edge_litert", reason="needs LiteRT: pip install 'edgecnn[tflite]'")

import edgecnn
from edgecnn.bundle import Artifact, Bundle
from edgecnn.bundle.evidence import AccuracyEvidence
from edgecnn.cli._main import main
from edgecnn.flow.evaluation import open_subject
from edgecnn.photographs import photographs
from edgecnn.runners.choose import choose_artifact, find_fitting
from edgecnn.runners.measured import choose_here, recalled_latencies, remember_latencies
from edgecnn.targets import threads_here

pytestmark = pytest.mark.runtime

NAME = "default-detector"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file with the figures of a machine on which nothing was measured yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "edgecnn" / "latencies.json"


@pytest.fixture
def bundle() -> Bundle:
    """A float and an int8 artifact of TFLite and of ONNX, in the place of what ships; never opened."""
    shipped = Bundle.open(NAME)
    one = shipped.manifest.artifacts[0]
    artifacts = [of(one, name, precision) for name in ("onnx", "tflite") for precision in ("fp16", "int8")]
    return Bundle(shipped.folder, msgspec.structs.replace(shipped.manifest, artifacts=tuple(artifacts)))


def of(one: Artifact, name: str, precision: str, *, allowed_drop: bool = False) -> Artifact:
    accuracy = AccuracyEvidence(
        metric="map", value=0.37, low=0.33, high=0.41, n=128, data="val", precision=precision, device="CPU",
        reference_value=0.373, max_drop=0.01, allowed_drop=allowed_drop,
    )  # fmt: skip
    files = tuple(msgspec.structs.replace(file, path=f"{name}-{precision}-0.{name}") for file in one.files)
    evidence = msgspec.structs.replace(one.evidence, accuracy=(accuracy,))
    return msgspec.structs.replace(one, format=name, precision=precision, files=files, evidence=evidence)


def remembered(bundle: Bundle, threads: int | None = None, **latency_ms: float) -> bool:
    """Medians by label, with _ for the space."""
    medians = {label.replace("_", " "): ms for label, ms in latency_ms.items()}
    return remember_latencies(bundle, medians, threads=threads or threads_here())


def test_without_figures_the_most_exact_runs_and_it_is_said_how_to_measure(bundle: Bundle) -> None:
    choice, why = choose_here(bundle)
    assert choice == choose_artifact(bundle) and choice.precision == "fp16"
    assert "edgecnn bench default-detector" in why and "not measured here yet" in why


def test_without_figures_float_of_another_format_runs_before_int8(bundle: Bundle) -> None:
    some = tuple(one for one in bundle.manifest.artifacts if one.label in ("onnx int8", "tflite fp16"))
    mixed = Bundle(bundle.folder, msgspec.structs.replace(bundle.manifest, artifacts=some))
    assert choose_artifact(mixed).artifact.label == "onnx int8"
    assert choose_here(mixed)[0].artifact.label == choose_here(mixed, exact=True)[0].artifact.label == "tflite fp16"
    assert choose_here(mixed, exact=True)[1] == ""


def test_the_fastest_within_its_limit_runs_and_the_others_are_named(bundle: Bundle) -> None:
    assert remembered(bundle, onnx_fp16=5.0, onnx_int8=6.0, tflite_fp16=4.0, tflite_int8=2.5)
    choice, why = choose_here(bundle)
    assert choice.artifact.label == "tflite int8"
    assert "2.5 ms" in why and all(said in why for said in ("onnx fp16 5.0", "onnx int8 6.0", "tflite fp16 4.0"))
    assert choose_here(bundle, format="onnx")[0].artifact.label == "onnx fp16"
    assert choose_here(bundle, precision="fp16")[0].artifact.label == "tflite fp16"
    assert choose_here(bundle, format="onnx", precision="int8") == (
        choose_artifact(bundle, format="onnx", precision="int8"),
        "",
    )


def test_int8_that_saves_next_to_nothing_is_not_worth_its_rounding(bundle: Bundle) -> None:
    remembered(bundle, onnx_fp16=5.0, onnx_int8=6.0, tflite_fp16=4.0, tflite_int8=3.9)
    assert choose_here(bundle)[0].artifact.label == "tflite fp16"


def test_int8_that_is_beyond_its_limit_is_never_chosen(bundle: Bundle) -> None:
    artifacts = [
        of(one, one.format, one.precision, allowed_drop=one.label == "tflite int8") for one in bundle.manifest.artifacts
    ]
    lossy = Bundle(bundle.folder, msgspec.structs.replace(bundle.manifest, artifacts=tuple(artifacts)))
    remembered(lossy, onnx_fp16=5.0, onnx_int8=4.5, tflite_fp16=6.0, tflite_int8=1.0)
    assert choose_here(lossy)[0].artifact.label == "onnx int8"


def test_figures_of_some_artifacts_decide_nothing(bundle: Bundle, cache: Path) -> None:
    assert not remembered(bundle, tflite_int8=1.0, tflite_fp16=2.0)
    assert not cache.exists()


def test_figures_of_other_threads_files_or_processors_do_not_count(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    remembered(bundle, threads=threads_here() + 1, onnx_fp16=5.0, onnx_int8=6.0, tflite_fp16=4.0, tflite_int8=2.5)
    assert choose_here(bundle)[0] == choose_artifact(bundle)
    assert choose_here(bundle, threads=threads_here() + 1)[0].artifact.label == "tflite int8"
    remembered(bundle, onnx_fp16=5.0, onnx_int8=6.0, tflite_fp16=4.0, tflite_int8=2.5)
    one, *others = bundle.manifest.artifacts
    changed = msgspec.structs.replace(one, files=(msgspec.structs.replace(one.files[0], sha256="0" * 64),))
    other = Bundle(bundle.folder, msgspec.structs.replace(bundle.manifest, artifacts=(changed, *others)))
    assert recalled_latencies(bundle) and not recalled_latencies(other)
    monkeypatch.setattr("edgecnn.runners.measured.processor_name", lambda: "another CPU")
    assert not recalled_latencies(bundle)


@pytest.mark.parametrize(
    "content",
    ["", "{", "[1, null, []]", '{"key": 1}', '[{"key": KEY, "latency_ms": {"onnx fp16": "fast"}}]', "[" * 5000],
)
def test_a_damaged_file_counts_as_empty_and_is_replaced(bundle: Bundle, cache: Path, content: str) -> None:
    remembered(bundle, onnx_fp16=5.0, onnx_int8=6.0, tflite_fp16=4.0, tflite_int8=2.5)
    key = json.loads(cache.read_text())[0]["key"]
    cache.write_text(content.replace("KEY", json.dumps(key)))
    assert choose_here(bundle)[0] == choose_artifact(bundle)
    assert remembered(bundle, onnx_fp16=5.0, onnx_int8=6.0, tflite_fp16=4.0, tflite_int8=2.5)
    assert choose_here(bundle)[0].artifact.label == "tflite int8"


def test_a_file_that_others_may_write_to_is_not_believed(bundle: Bundle, cache: Path) -> None:
    remembered(bundle, onnx_fp16=5.0, onnx_int8=6.0, tflite_fp16=4.0, tflite_int8=2.5)
    cache.chmod(0o666)
    assert choose_here(bundle)[0] == choose_artifact(bundle)


def test_a_bundle_of_ones_own_runs_as_before(bundle: Bundle, tmp_path: Path) -> None:
    remembered(bundle, onnx_fp16=5.0, onnx_int8=6.0, tflite_fp16=4.0, tflite_int8=2.5)
    assert choose_here(Bundle(tmp_path / "mine.edge", bundle.manifest)) == (choose_artifact(bundle), "")


def test_bench_measures_run_follows_and_eval_stays_exact(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], without: Callable[..., None]
) -> None:
    without("openvino", "torch")
    exact, _ = choose_here(Bundle.open(NAME), exact=True)
    assert main(["bench", NAME, "--iterations", "2", "--format", "onnx"]) == 0
    assert "not remembered" in capsys.readouterr().err and not cache.exists()
    assert main(["bench", NAME, "--iterations", "11", "--threads", str(threads_here())]) == 0
    assert "remembered for this machine" in capsys.readouterr().err
    (entry,) = json.loads(cache.read_text())
    assert set(entry["latency_ms"]) == {choice.artifact.label for choice in find_fitting(Bundle.open(NAME)).fitting}
    (fast,) = (label for label in entry["latency_ms"] if label.startswith("tflite"))
    entry["latency_ms"] = {label: 1.0 if label == fast else 9.0 for label in entry["latency_ms"]}
    cache.write_text(json.dumps([entry]))
    with edgecnn.open_runner(NAME) as runner:
        assert f"{runner.format} {runner.precision}" == fast
        found = runner(photographs()["cat"])
        assert isinstance(found, edgecnn.Detections) and "cat" in found.names
    picture = Path(edgecnn.__file__).parent / "assets" / "cat.jpg"
    assert main(["run", NAME, str(picture)]) == 0
    assert f"{fast}: the fastest as measured here: 1.0 ms" in capsys.readouterr().err
    subject = open_subject(
        NAME,
        format=None,
        precision=None,
        device="cpu",
        threads=None,
        score=None,
        nms_iou=None,
        trusted_keys=None,
        options={},
    )
    assert subject.format == exact.artifact.format != "tflite"
    subject.runner.close()
