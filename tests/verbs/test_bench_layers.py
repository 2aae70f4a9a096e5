"""`bench --layers`: each runtime's own profile, under the torch network's names."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from edgecnn import Bundle
from edgecnn._verbs.bench import bench
from edgecnn.bundle import Artifact
from edgecnn.cli._main import main
from edgecnn.errors import DeviceError
from edgecnn.formats import FORMATS
from edgecnn.formats.devices import parse_device
from edgecnn.measure.latency import BenchReport
from edgecnn.runners.backend import LayerRequest, layer_times
from tests.builders.formats import require_format

pytestmark = pytest.mark.runtime


@pytest.fixture(scope="module")
def own_bundle(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the classifier's bundle that these tests may write into."""
    return shutil.copytree(tiny_bundle, tmp_path_factory.mktemp("layers") / "own.edge")


@pytest.fixture(scope="module")
def report(own_bundle: Path) -> BenchReport:
    return bench(own_bundle, iterations=2, threads=1, layers=True)


def artifacts(bundle: Path) -> tuple[Artifact, ...]:
    return Bundle.open(bundle).manifest.artifacts


def test_every_format_tells_its_layers_under_the_torch_networks_names(report: BenchReport, own_bundle: Path) -> None:
    torch_names = {layer.name for layer in Bundle.open(own_bundle).manifest.layers}
    assert len(torch_names) == 4
    assert len(report.results) == len(artifacts(own_bundle))
    for result in report.results:
        assert result.layers_missing == ""
        if result.format == "ncnn":  # pnnx gives layers names of its own
            assert "Convolution" in {layer.kind for layer in result.layers}
            continue
        assert torch_names <= {layer.name for layer in result.layers}, result.format
        multiplying = [layer for layer in result.layers if layer.name in torch_names]
        assert {layer.computes for layer in multiplying} == {"fp32"}


def test_the_slowest_comes_first_and_the_shares_make_a_whole(report: BenchReport) -> None:
    for result in report.results:
        times = [layer.time_ms for layer in result.layers]
        assert times == sorted(times, reverse=True)
        assert sum(layer.share for layer in result.layers) == pytest.approx(1, abs=1e-3)


def test_the_manifest_keeps_the_slowest_and_proof_of_what_ran(report: BenchReport, own_bundle: Path) -> None:
    for artifact in artifacts(own_bundle):
        (latency,) = artifact.evidence.latency
        assert 0 < len(latency.figures["layers"]) <= 10
        ran_on = latency.figures["ran_on"]
        assert ran_on["operators"] == ran_on["operators_on_device"] > 0
        assert ran_on["simulated"] is False


def test_people_get_a_table_and_a_picture(
    own_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra [eval]")
    monkeypatch.setenv("COLUMNS", "140")
    held = artifacts(own_bundle)[0].format
    picture = tmp_path / "layers.png"
    words = ["bench", str(own_bundle), "--format", held, "--iterations", "2", "--no-record"]
    assert main([*words, "--layers-plot", str(picture)]) == 0
    assert "the slowest of" in capsys.readouterr().out
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_json_has_layers_only_where_they_were_asked_for(own_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    held = artifacts(own_bundle)[0].format
    words = ["bench", str(own_bundle), "--format", held, "--iterations", "2", "--no-record", "--json"]
    assert main(words) == 0
    (plain,) = json.loads(capsys.readouterr().out)
    assert plain["layers"] == []
    assert main([*words, "--layers"]) == 0
    (document,) = json.loads(capsys.readouterr().out)
    assert set(document["layers"][0]) == {"name", "kind", "where", "computes", "time_ms", "share"}


@pytest.mark.torch
@pytest.mark.parametrize("format_name", ["tflite", "onnx"])
def test_layers_are_reported_only_if_the_runtime_measures_them(format_name: str, tmp_path: Path) -> None:
    require_format(format_name)
    request = LayerRequest(device=parse_device("gpu"), precision="fp32", threads=1)
    with pytest.raises(DeviceError, match="on the CPU only"):
        FORMATS.get(format_name).load_layer_timer()(tmp_path / "none", request, np.zeros((1, 8, 8, 3), np.uint8))


def test_a_layer_that_runs_twice_in_an_inference_counts_twice() -> None:
    from edgecnn.bundle.evidence import LayerTime

    twice, once = (LayerTime(name=name, kind="Conv", where="CPU", computes="fp32", time_ms=0) for name in ("a", "b"))
    first, second = layer_times([once, twice], [[1.0, 1.0, 5.0], [2.0] * 6], calls=3)
    assert (first.name, first.time_ms, second.time_ms) == ("a", 4.0, 1.0)
    assert first.share == pytest.approx(0.8)
