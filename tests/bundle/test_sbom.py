"""A bundle's bill of materials: what it names, that it is in the manifest, and when it goes."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest

import edgecnn
from edgecnn.bundle import MANIFEST, Bundle, commit, staged
from edgecnn.errors import BundleError, SpecError, StorageError
from edgecnn.report.sbom import StatedLicenses, renew_sbom, sbom_of, stated_licenses, write_sbom
from tests.builders.signed import key_pair, small_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return Bundle.open(small_bundle(tmp_path / "street.edge"))


def read(bundle: Bundle) -> dict[str, Any]:
    assert bundle.manifest.sbom is not None
    document: dict[str, Any] = json.loads((bundle.folder / bundle.manifest.sbom.path).read_bytes())
    return document


@pytest.mark.torch
def test_convert_writes_it_and_the_manifest_names_it(tmp_path: Path) -> None:
    from tests.builders.networks import tiny_classifier

    words = {"sbom": True, "weights_license": "Apache-2.0", "data_license": "CC-BY-4.0"}
    converted = edgecnn.convert(tiny_classifier(), out=tmp_path / "net.edge", to=["onnx"], **words).bundle  # type: ignore[arg-type]
    assert converted is not None
    bundle = Bundle.open(converted.folder)
    record = bundle.manifest.sbom
    assert record is not None
    raw = (bundle.folder / record.path).read_bytes()
    assert (record.sha256, record.bytes) == (hashlib.sha256(raw).hexdigest(), len(raw))
    document = read(bundle)
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    tools = {tool["name"]: tool for tool in document["metadata"]["tools"]["components"]}
    assert tools["edgecnn"]["licenses"] == [{"license": {"id": "Apache-2.0"}}]
    assert f"torch {tools['torch']['version']}" in bundle.manifest.artifacts[0].tool
    assert "opset" not in tools


def test_it_names_each_file_with_its_hash_and_what_nobody_stated(bundle: Bundle) -> None:
    written = write_sbom(bundle, weights_license="MIT OR Apache-2.0")
    parts = {part["name"]: part for part in read(written)["components"]}
    for artifact in bundle.manifest.artifacts:
        for record in artifact.files:
            part = parts[record.path]
            assert part["hashes"] == [{"alg": "SHA-256", "content": record.sha256}]
            assert part["licenses"] == [{"expression": "MIT OR Apache-2.0"}]
    unstated = json.loads(sbom_of(bundle.manifest))["metadata"]["component"]
    assert unstated["properties"] == [{"name": "edgecnn:license", "value": "not stated"}]


def test_it_is_as_the_schema_of_cyclonedx_says(bundle: Bundle) -> None:
    pytest.importorskip("jsonschema")
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    for words in ({}, {"weights_license": "my own words", "data_license": "CC-BY-4.0"}):
        assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(sbom_of(bundle.manifest, **words).decode()) is None


def test_a_second_takes_the_place_of_the_first(bundle: Bundle) -> None:
    first = write_sbom(bundle).manifest.sbom
    second = write_sbom(bundle, weights_license="MIT").manifest.sbom
    assert first is not None and second is not None
    assert [path.name for path in bundle.folder.glob("sbom*")] == [second.path]


def test_new_artifacts_remove_it(bundle: Bundle) -> None:
    written = write_sbom(bundle)
    with staged(bundle.folder) as staging:
        commit(staging, bundle.folder, written.manifest)
    assert Bundle.open(bundle.folder).manifest.sbom is None
    assert list(bundle.folder.glob("sbom*")) == []


def test_a_changed_bundle_gets_a_new_one_with_the_licences_of_the_old_one(bundle: Bundle) -> None:
    for weights, data in (("MIT OR Apache-2.0", "CC-BY-4.0"), ("my own words", None), (None, "MIT")):
        before = write_sbom(bundle, weights_license=weights, data_license=data)
        named = {part["bom-ref"]: part.get("licenses") for part in read(before)["components"]}
        stated = stated_licenses(bundle.folder)
        with staged(bundle.folder) as staging:
            changed = commit(staging, bundle.folder, before.manifest)
        assert changed.manifest.sbom is None
        after, remarks = renew_sbom(changed, stated)
        assert after is not None and remarks == ()
        assert {part["bom-ref"]: part.get("licenses") for part in read(after)["components"]} == named


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{}", b'{"metadata": {"component": 1}, "components": 2}', b"[" * 100_000, b'{"metadata": 1}'],
)
def test_the_licences_of_a_damaged_one_were_not_stated(content: bytes, bundle: Bundle) -> None:
    written = write_sbom(bundle, weights_license="MIT")
    assert written.manifest.sbom is not None
    (bundle.folder / written.manifest.sbom.path).write_bytes(content)
    assert stated_licenses(bundle.folder) == StatedLicenses()


def test_without_its_library_it_is_gone_and_the_user_is_told(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cyclonedx.contrib.license.factories", None)
    after, remarks = renew_sbom(bundle, StatedLicenses("MIT"))
    assert after is bundle
    assert "had a bill of materials" in remarks[0] and "cyclonedx-python-lib" in remarks[0]


@pytest.mark.torch
def test_quantize_keeps_it_up_to_date(tmp_path: Path) -> None:
    from tests.builders.networks import tiny_classifier

    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for index in range(4):
        noise = np.random.default_rng(index).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        cv2.imwrite(str(pictures / f"{index}.png"), noise)
    words = {"sbom": True, "weights_license": "Apache-2.0"}
    edgecnn.convert(tiny_classifier(), out=tmp_path / "net.edge", to=["onnx"], **words)  # type: ignore[arg-type]
    done = edgecnn.quantize(tmp_path / "net.edge", calibration=pictures, allow_drop=True, keep_slower=True)
    assert done.bundle is not None and not any("materials" in warning for warning in done.warnings)
    bundle = Bundle.open(done.bundle.folder)
    names = {part["name"] for part in read(bundle)["components"]}
    assert {record.path for artifact in bundle.manifest.artifacts for record in artifact.files} <= names
    assert {artifact.precision for artifact in bundle.manifest.artifacts} == {"fp32", "int8"}
    assert read(bundle)["metadata"]["component"]["licenses"] == [{"license": {"id": "Apache-2.0"}}]


def test_it_is_signed_with_the_rest(bundle: Bundle, tmp_path: Path) -> None:
    keys = key_pair(tmp_path)
    written = write_sbom(bundle)
    edgecnn.sign(bundle.folder, key=keys.private)
    edgecnn.verify(bundle.folder, keys.public)
    with pytest.raises(StorageError, match="is signed"):
        write_sbom(bundle)
    assert written.manifest.sbom is not None
    (bundle.folder / written.manifest.sbom.path).write_text("{}")
    with pytest.raises(BundleError, match="is not as it was signed"):
        edgecnn.verify(bundle.folder, keys.public)


def test_a_manifest_names_no_other_file_as_its_bill_of_materials(bundle: Bundle) -> None:
    document = json.loads((bundle.folder / MANIFEST).read_bytes())
    own = msgspec.to_builtins(bundle.manifest.artifacts[0].files[0])
    for record, says in (({**own, "path": "../x.json"}, "sbom"), (own, "a file of an artifact")):
        (bundle.folder / MANIFEST).write_text(json.dumps({**document, "sbom": record}))
        with pytest.raises(BundleError, match=says):
            Bundle.open(bundle.folder)


@pytest.mark.torch
def test_licences_without_a_bill_of_materials_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="add --sbom"):
        edgecnn.convert("yolox-nano", out=tmp_path / "net.edge", weights_license="MIT")
