"""A format that another package adds: half-equipped, in every verb; and its bundles where the package is not."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgecnn import Bundle, bench, convert, inspect, open_runner, quantize
from edgecnn.cli._main import main
from edgecnn.errors import BundleError, SpecError
from edgecnn.formats import FORMATS
from edgecnn.photographs import photographs
from edgecnn.runners.choose import find_fitting
from tests.builders.formats import require_format
from tests.builders.networks import TINY
from tests.builders.plug_in import install

pytestmark = pytest.mark.torch

# OpenVINO's own parts under other names, without layer times and without int8.
PLUG_IN = """
from edgecnn.formats import Executor, Format, Part, Runtime

RUNTIME = Runtime(
    name="twin-runtime",
    title="Twin",
    packages=("openvino",),
    modules=("openvino",),
    install="pip install twin-of-openvino",
    executors=(Executor(runtime="twin-runtime", word="cpu", kind="cpu", provider="CPU", install="pip install twin"),),
)
FORMAT = Format(
    name="twin",
    title="Twin of OpenVINO IR",
    suffixes=(".xml", ".bin"),
    runtime=RUNTIME,
    precisions=("fp32", "fp16"),
    backend=Part("edgecnn.runners.openvino.backend:OpenVinoBackend", install="pip install twin-of-openvino"),
    converter=Part("edgecnn.converters.openvino:OpenVinoConverter", install="pip install twin-of-openvino"),
)
"""
PROJECT = """
[project]
name = "twin-of-openvino"
version = "1.2"

[project.entry-points."edgecnn.formats"]
twin = "twin_of_openvino:FORMAT"

[tool.setuptools]
py-modules = ["twin_of_openvino"]

[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the package is installed."""
    return install(tmp_path_factory.mktemp("twin"), PROJECT, {"twin_of_openvino.py": PLUG_IN})


@pytest.fixture
def plug_in(site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The package is installed, for this process and those that it starts."""
    require_format("openvino")
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(site), os.environ.get("PYTHONPATH", "")))))
    FORMATS.search_again()
    yield
    uninstall(site)


def uninstall(site: Path) -> None:
    """As if the package were not there, in this process."""
    sys.path[:] = [folder for folder in sys.path if folder != str(site)]
    FORMATS.search_again()
    sys.modules.pop("twin_of_openvino", None)


@pytest.fixture
def twin_bundle(plug_in: None, tmp_path: Path) -> Bundle:
    """The tiny classifier in that format alone."""
    conversion = convert(TINY["classify"](), out=tmp_path / "net.edge", to=["twin"])
    assert not conversion.refused, conversion.refused
    assert conversion.bundle is not None
    return conversion.bundle


def test_it_is_written_run_and_measured(twin_bundle: Bundle) -> None:
    with open_runner(twin_bundle) as runner:
        assert runner.format == "twin"
        assert runner.artifact == twin_bundle.manifest.artifacts[0]
        assert len(runner(photographs()["coffee"]))  # type: ignore[arg-type]
    report = bench(twin_bundle, iterations=1, threads=1, record=False, layers=True)
    assert not report.failures, report.failures
    (result,) = report.results
    assert (result.format, result.layers) == ("twin", ())
    assert "format 'twin' cannot be timed layer by layer" in result.layers_missing


def test_missing_parts_are_reported(twin_bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="has no fp32 artifact of a format that can be quantized"):
        quantize(twin_bundle, calibration=tmp_path)


def test_help_and_devices_name_it(plug_in: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", "--help"]) == 0
    assert "twin" in capsys.readouterr().out
    assert main(["devices", "twin-runtime:cpu"]) == 3  # nothing was proved
    assert "it is available; not tested, because no shipped network has its format" in " ".join(
        capsys.readouterr().out.split()
    )


def test_without_the_package_its_bundle_opens_and_choosing_says_what_is_missing(
    twin_bundle: Bundle, site: Path
) -> None:
    uninstall(site)
    bundle = Bundle.open(twin_bundle.folder)
    assert [artifact.label for artifact in inspect(bundle).artifacts] == ["twin fp32"]
    cases: list[dict[str, Any]] = [{}, {"format": "twin"}, {"precision": "fp32"}]
    for words in cases:
        with pytest.raises(BundleError, match=r"holds twin artifacts \(written by openvino .*\), but the format"):
            open_runner(bundle, **words)
    assert find_fitting(bundle).fitting == ()
    with pytest.raises(BundleError, match="install the package that adds it"):
        bench(bundle, iterations=1)
    assert main(["inspect", str(bundle.folder)]) == 0


def test_with_an_unknown_format_the_others_are_chosen(
    plug_in: None, site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = convert(TINY["classify"](), out=tmp_path / "net.edge", to=["twin", "openvino"]).bundle
    assert made is not None
    uninstall(site)
    with open_runner(made.folder) as runner:
        assert runner.format == "openvino"
    report = bench(made.folder, iterations=1, threads=1, record=False)
    assert [result.format for result in report.results] == ["openvino"]
    (note,) = report.notes
    assert note.startswith("twin is skipped: ")


def test_a_device_of_another_runtime_is_refused(twin_bundle: Bundle) -> None:
    with pytest.raises(SpecError, match="device 'openvino:CPU' belongs to openvino, but the requested format"):
        open_runner(twin_bundle, device="openvino:CPU", format="twin")
    with pytest.raises(SpecError, match="device 'torch:cpu' runs torch networks"):
        open_runner(twin_bundle, device="torch:cpu")
