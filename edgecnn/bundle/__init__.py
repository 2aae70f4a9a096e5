"""A bundle: a folder NAME.edge with a manifest (the contract) and one artifact per format and precision."""

from edgecnn.bundle.bundle import MANIFEST, Bundle, sha256_of
from edgecnn.bundle.manifest import (
    PRECISIONS,
    QUANTIZED,
    SCHEMA_VERSION,
    Artifact,
    FileRecord,
    LayerRanges,
    LayerRecord,
    Manifest,
    Refusal,
    SourceRecord,
    TensorSpec,
)
from edgecnn.bundle.store import (
    attach_sbom,
    check_nothing_lost,
    commit,
    record_evidence,
    removal_remarks,
    staged,
    store_files,
    write_manifest,
)

__all__ = [
    "MANIFEST",
    "PRECISIONS",
    "QUANTIZED",
    "SCHEMA_VERSION",
    "Artifact",
    "Bundle",
    "FileRecord",
    "LayerRanges",
    "LayerRecord",
    "Manifest",
    "Refusal",
    "SourceRecord",
    "TensorSpec",
    "attach_sbom",
    "check_nothing_lost",
    "commit",
    "record_evidence",
    "removal_remarks",
    "sha256_of",
    "staged",
    "store_files",
    "write_manifest",
]
