"""Checks a manifest's values when a bundle is opened; types and field names were checked before."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any

import msgspec

from edgecnn.bundle.manifest import Artifact, FileRecord, Manifest, TensorSpec
from edgecnn.errors import SpecError
from edgecnn.printable import printable, shortened

# Far above the values of any network for edge devices; they prevent a manifest from using up all memory.
MOST_BATCH = 1024
MOST_VALUES = 1 << 31  # of one tensor
MOST_FRAME_BYTES = 1 << 28  # of all frames that go in at once
MOST_DIMENSIONS = 8
MOST_NAMES = 100_000  # labels, layers, artifacts
LONGEST_NAME = 1000
MOST_DETECTIONS = 1_000_000
LARGEST_FILE = 1 << 31  # as ONNX and TFLite files at most are; a hole of more on disk would be hashed for minutes

DTYPES = frozenset(
    (
        *("bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"),
        *("float16", "bfloat16", "float32", "float64"),
    )
)
_SHA256 = re.compile("[0-9a-f]{64}")
_UNSAFE_IN_FILE_NAMES = re.compile(r'[/\\:*?"<>|]')  # on any system that a bundle may be copied to
_SHARES = ("score_threshold", "nms_iou", "threshold", "mask_threshold")
_COUNTS = {"max_detections": MOST_DETECTIONS, "top": MOST_NAMES}


def check_contract(manifest: Manifest) -> None:
    """Check that every value of a manifest is possible.

    Raises:
        SpecError: one is not; names the field, the expected and the found value.
    """
    _name("name", manifest.name)
    _check_task(manifest.task)
    if not 1 <= manifest.batch <= MOST_BATCH:
        raise SpecError(f"batch must be 1 to {MOST_BATCH}, got {manifest.batch}")
    for field in ("parameters", "macs"):
        if not 0 <= getattr(manifest, field) < 1 << 62:
            raise SpecError(f"{field} must be 0 or more, got {getattr(manifest, field)}")
    _check_tensors("inputs", manifest.inputs)
    _check_tensors("outputs", manifest.outputs)
    _check_frame(manifest)
    _check_few("layers", manifest.layers)
    _check_few("artifacts", manifest.artifacts)
    _check_unique("artifacts", [artifact.key for artifact in manifest.artifacts])
    for index, artifact in enumerate(manifest.artifacts):
        _check_artifact(f"artifacts[{index}]", artifact)
    if manifest.sbom is not None:
        check_file("sbom", manifest.sbom)
        if manifest.sbom.path in {record.path for artifact in manifest.artifacts for record in artifact.files}:
            raise SpecError("sbom names a file of an artifact")


def check_file(field: str, record: FileRecord) -> None:
    """Check that a file record names one file next to the manifest, with a valid hash and size.

    Raises:
        SpecError: it doesn't.
    """
    path = record.path
    if (
        not path
        or path.startswith((".", "-", "~"))
        or path != path.strip()
        or len(path.encode(errors="replace")) > 255
        or printable(path, lines=False) != path
        or _UNSAFE_IN_FILE_NAMES.search(path)
    ):
        raise SpecError(f"{field}.path must be the name of a file next to the manifest, got {shortened(path)!r}")
    if not _SHA256.fullmatch(record.sha256):
        raise SpecError(f"{field}.sha256 must be 64 hexadecimal digits, got {shortened(record.sha256)!r}")
    if not 0 <= record.bytes <= LARGEST_FILE:
        raise SpecError(f"{field}.bytes must be 0 to 2^31, got {record.bytes}")


def _check_artifact(field: str, artifact: Artifact) -> None:
    for name in ("format", "precision"):
        _name(f"{field}.{name}", getattr(artifact, name))
    for name in ("target", "device"):
        if getattr(artifact, name):
            _name(f"{field}.{name}", getattr(artifact, name))
    for number, record in enumerate(artifact.files):
        check_file(f"{field}.files[{number}]", record)
    _check_unique(f"{field}.files", [record.path for record in artifact.files])
    if "manifest.json" in {record.path.lower() for record in artifact.files}:
        raise SpecError(f"{field}.files names the manifest itself")


def _check_task(task: Any) -> None:
    _check_few("task.labels", task.labels)
    longest = max(map(len, task.labels), default=0)
    if longest > LONGEST_NAME:
        raise SpecError(f"task.labels must have at most {LONGEST_NAME} letters each, one has {longest}")
    for field in msgspec.structs.fields(task):
        value = getattr(task, field.name)
        if field.name in _SHARES and value is not None and not 0 <= value <= 1:
            raise SpecError(f"task.{field.name} must be in 0..1, got {value}")
        if field.name in _COUNTS and not 1 <= value <= _COUNTS[field.name]:
            raise SpecError(f"task.{field.name} must be 1 to {_COUNTS[field.name]}, got {value}")
        if isinstance(value, float) and not math.isfinite(value):
            raise SpecError(f"task.{field.name} must be finite, got {value}")


def _check_tensors(field: str, tensors: tuple[TensorSpec, ...]) -> None:
    if not 1 <= len(tensors) <= 64:
        raise SpecError(f"{field} must be 1 to 64 tensors, got {len(tensors)}")
    _check_unique(field, [tensor.name for tensor in tensors])
    for tensor in tensors:
        _name(f"{field}.name", tensor.name)
        if tensor.dtype not in DTYPES:
            raise SpecError(f"{field}: {tensor.name!r} has dtype {shortened(tensor.dtype)!r}; known: {sorted(DTYPES)}")
        shape = tensor.shape
        if len(shape) > MOST_DIMENSIONS or min(shape, default=1) < 1 or math.prod(shape) > MOST_VALUES:
            raise SpecError(
                f"{field}: {tensor.name!r} must have at most {MOST_DIMENSIONS} dimensions, each 1 or more, and at most "
                f"2^31 values; its shape is {shortened(list(shape))}"
            )


def _check_frame(manifest: Manifest) -> None:
    """Check that the frame fits the graph's input."""
    first, frame = manifest.inputs[0], manifest.frame
    if first.dtype != "uint8" or len(first.shape) != 4:
        return
    expected = (manifest.batch, frame.height_px, frame.width_px)
    if first.shape[:3] != expected:
        raise SpecError(
            f"inputs: {first.name!r} has the shape {list(first.shape)}, but batch, frame.height_px and frame.width_px "
            f"are {list(expected)}"
        )

    if math.prod(first.shape) > MOST_FRAME_BYTES:
        raise SpecError(
            f"inputs: a batch of frames {list(first.shape)} has {math.prod(first.shape) / 1e6:.0f} MB; it may have "
            f"{MOST_FRAME_BYTES >> 20} MB"
        )


def _name(field: str, text: str) -> None:
    if not text or len(text) > LONGEST_NAME or printable(text, lines=False) != text:
        raise SpecError(
            f"{field} must be 1 to {LONGEST_NAME} letters without control characters, got {shortened(text)!r}"
        )


def _check_few(field: str, values: tuple[Any, ...]) -> None:
    if len(values) > MOST_NAMES:
        raise SpecError(f"{field} must be at most {MOST_NAMES}, got {len(values)}")


def _check_unique(field: str, values: Iterable[object]) -> None:
    seen: set[object] = set()
    for value in values:
        if value in seen:
            raise SpecError(f"{field} names {shortened(value)} twice")
        seen.add(value)
