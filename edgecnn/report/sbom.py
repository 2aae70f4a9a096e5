"""A bundle's bill of materials (SBOM), as CycloneDX 1.6 JSON: what it is made of, with hashes and licences."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecnn._version import __version__
from edgecnn.bounded import read_bounded
from edgecnn.bundle import Bundle, Manifest, attach_sbom
from edgecnn.errors import BundleError, MissingDependencyError, SpecError
from edgecnn.printable import shortened

if TYPE_CHECKING:
    from cyclonedx.model.component import Component

_LARGEST_BYTES = 8 << 20
_UNKNOWN = "not stated"  # a licence that nobody named
_TOOL = re.compile(r"([A-Za-z0-9._-]{1,100}) ([0-9]+[.][A-Za-z0-9.+_-]+)")  # "onnxscript 0.7.2, opset 18"


def check_sbom(*, wanted: bool = True) -> None:
    """Check that an SBOM can be written, before the work.

    Raises:
        SpecError: it isn't wanted, and only then words for it can be given.
        MissingDependencyError: `cyclonedx-python-lib` is not installed.
    """
    if not wanted:
        raise SpecError("--weights-license and --data-license are for the bill of materials: add --sbom")
    try:
        import cyclonedx.contrib.license.factories  # noqa: F401 - only whether it is there
    except ImportError as missing:
        raise MissingDependencyError("--sbom", "cyclonedx-python-lib", extra="sbom") from missing


def write_sbom(bundle: Bundle, *, weights_license: str | None = None, data_license: str | None = None) -> Bundle:
    """Put an SBOM into a bundle; its manifest names the file, with its hash.

    Args:
        bundle: the bundle.
        weights_license: licence of the weights, an SPDX identifier or expression, or other text.
        data_license: licence of the pictures that it was measured or calibrated on.

    Raises:
        MissingDependencyError: `cyclonedx-python-lib` is not installed.
        BundleError, StorageError: as `attach_sbom`.
    """
    check_sbom()
    return attach_sbom(bundle, sbom_of(bundle.manifest, weights_license=weights_license, data_license=data_license))


@dataclass(frozen=True)
class StatedLicenses:
    """What a bundle's SBOM says: licences as in `write_sbom`."""

    weights: str | None = None
    data: str | None = None


def stated_licenses(folder: Path) -> StatedLicenses | None:
    """The licences that a bundle's SBOM states, to make the next one with; None where it has no SBOM.

    What cannot be read was not stated.
    """
    try:
        bundle = Bundle.open(folder)
    except BundleError:
        return None
    record = bundle.manifest.sbom
    if record is None:
        return None
    try:
        document = json.loads(read_bounded(bundle.folder / record.path, _LARGEST_BYTES))
        components = [document["metadata"]["component"], *document["components"]]
        licenses = {each["bom-ref"]: _stated(each) for each in components}
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return StatedLicenses()
    data = next((stated for ref, stated in licenses.items() if str(ref).startswith("data:")), None)
    return StatedLicenses(licenses.get("network"), data)


def renew_sbom(bundle: Bundle | None, stated: StatedLicenses | None) -> tuple[Bundle | None, tuple[str, ...]]:
    """The bundle with a new SBOM in the place of the one that its change removed, and remarks for the user.

    Args:
        bundle: the changed bundle; None where nothing was changed.
        stated: of the bundle before its change; None where it had no SBOM.
    """
    if bundle is None or stated is None or bundle.manifest.sbom is not None:
        return bundle, ()
    try:
        return write_sbom(bundle, weights_license=stated.weights, data_license=stated.data), ()
    except MissingDependencyError as missing:
        removed = f"{bundle.folder} had a bill of materials, which was of the old artifacts and was removed"
        return bundle, (f"{removed}: {missing}",)


def _stated(component: dict[str, Any]) -> str | None:
    """A component's licence, as it was given."""
    for each in component.get("licenses", ()):
        found = each.get("expression") or each.get("license", {}).get("id") or each.get("license", {}).get("name")
        if isinstance(found, str):
            return found
    return None


def sbom_of(manifest: Manifest, *, weights_license: str | None = None, data_license: str | None = None) -> bytes:
    """The SBOM of a bundle as a file's content; the arguments are those of `write_sbom`."""
    from cyclonedx.model.bom import Bom, BomMetaData
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.model.tool import ToolRepository
    from cyclonedx.output.json import JsonV1Dot6

    network = Component(
        type=ComponentType.MACHINE_LEARNING_MODEL,
        name=manifest.name,
        version=manifest.created_utc or None,
        bom_ref="network",
        description=f"{manifest.task.name}, {manifest.source.model}",
        **_licensed(weights_license),
    )
    bom = Bom(
        metadata=BomMetaData(component=network, tools=ToolRepository(components=_tools(manifest))),
        components=[
            *_weights(manifest, weights_license),
            *_data(manifest, data_license),
            *_artifacts(manifest, weights_license),
        ],
    )
    bom.register_dependency(network, bom.components)
    return JsonV1Dot6(bom).output_as_string(indent=1).encode()


def _weights(manifest: Manifest, license_text: str | None) -> Iterable[Component]:
    from cyclonedx.model.component import Component, ComponentType

    source = manifest.source
    if not source.random and source.weights:
        hashes = _sha256(source.weights_sha256) if source.weights_sha256 else []
        yield Component(
            type=ComponentType.DATA,
            name=source.weights,
            bom_ref="weights",
            description="trained weights",
            hashes=hashes,
            **_licensed(license_text),
        )


def _data(manifest: Manifest, license_text: str | None) -> Iterable[Component]:
    """The pictures that accuracy was measured on and that int8 was calibrated with, by name."""
    from cyclonedx.model.component import Component, ComponentType

    used: dict[str, list[str]] = {}
    for artifact in manifest.artifacts:
        for accuracy in artifact.evidence.accuracy:
            used.setdefault(accuracy.data, []).append("measured on")
        quantization = artifact.evidence.quantization
        if quantization is not None and quantization.calibration is not None:
            used.setdefault(quantization.calibration.source, []).append("calibrated with")
    for name, ways in used.items():
        yield Component(
            type=ComponentType.DATA,
            name=name or "pictures",
            bom_ref=f"data:{name}",
            description=", ".join(dict.fromkeys(ways)),
            **_licensed(license_text),
        )


def _artifacts(manifest: Manifest, license_text: str | None) -> Iterable[Component]:
    from cyclonedx.model.component import Component, ComponentType

    for artifact in manifest.artifacts:
        for record in artifact.files:
            yield Component(
                type=ComponentType.FILE,
                name=record.path,
                bom_ref=f"file:{record.path}",
                description=f"{artifact.label}, written by {artifact.tool or 'an unknown tool'}",
                hashes=_sha256(record.sha256),
                **_licensed(license_text),
            )


def _tools(manifest: Manifest) -> list[Component]:
    """edgecnn, the packages that took part, and the converters, each with its version and licence."""
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    versions = {"edgecnn": manifest.edgecnn or __version__, **manifest.source.versions}
    for artifact in manifest.artifacts:
        for name, version in _TOOL.findall(artifact.tool):
            versions.setdefault(name, version)
    return [
        Component(
            type=ComponentType.LIBRARY,
            name=name,
            version=version,
            bom_ref=f"tool:{name}",
            purl=PackageURL("pypi", name=name.lower().replace("_", "-"), version=version),
            **_licensed(_license_of(name)),
        )
        for name, version in sorted(versions.items())
    ]


def _license_of(package: str) -> str | None:
    """What an installed package says of its licence; None where it isn't installed, or says nothing."""
    try:
        headers: Any = metadata(package)  # a mapping, which its type does not say
    except PackageNotFoundError:
        return None
    if expression := headers.get("License-Expression"):
        return str(expression)
    classified = [
        each.rpartition(" :: ")[2] for each in headers.get_all("Classifier") or () if each.startswith("License")
    ]
    if classified and classified != ["OSI Approved"]:
        return ", ".join(classified)
    text = str(headers.get("License") or "").strip()
    return shortened(text.splitlines()[0], length=80) if text else None


def _licensed(text: str | None) -> dict[str, Any]:
    """A component's licence, or the property that says that nobody named one."""
    from cyclonedx.contrib.license.factories import LicenseFactory
    from cyclonedx.model import Property

    if not text:
        return {"properties": [Property(name="edgecnn:license", value=_UNKNOWN)]}
    return {"licenses": [LicenseFactory().make_from_string(text)]}


def _sha256(digest: str) -> list[Any]:
    from cyclonedx.model import HashAlgorithm, HashType

    return [HashType(alg=HashAlgorithm.SHA_256, content=digest)]
