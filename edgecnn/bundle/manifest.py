"""The content of a manifest: the contract, the artifacts, and their measurements."""

from __future__ import annotations

from typing import Annotated

import msgspec

from edgecnn.bundle.evidence import Evidence, ParityEvidence, PreprocessEvidence, Record
from edgecnn.frame import FrameSpec
from edgecnn.tasks import Task

SCHEMA_VERSION = 1
# The precision that runs, not the file's; int8 recipes are named as in ai-edge-quantizer (w weights, a activations).
PRECISIONS = {
    "fp32": "everything in 32-bit float",
    "fp16": "weights stored in 16-bit float; the device chooses the precision of computation",
    "bf16": "computes in bfloat16, accumulates in 32 bits (OpenVINO)",
    "int8": "static_wi8_ai8: int8 weights, int8 activations with ranges from calibration",
    "int8-dynamic": "dynamic_wi8_afp32: int8 weights, activations float or quantized at run time (TFLite)",
    "int8-a16": "static_wi8_ai16: int8 weights, 16-bit activations (TFLite, Qualcomm HTP)",
}

QUANTIZED = tuple(name for name in PRECISIONS if name.startswith("int8"))  # made from a float artifact


class TensorSpec(Record, frozen=True, kw_only=True):
    """One input or output: name, numpy dtype name, shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]


class FileRecord(Record, frozen=True, kw_only=True):
    """One file of a bundle: its path inside the bundle, SHA-256 and size."""

    path: str
    sha256: str
    bytes: int


class LayerRanges(Record, frozen=True, kw_only=True):
    """A layer's activation ranges, learned in training for int8.

    Attributes:
        reads, writes: low and high of its input's and output's 256 levels; None where none was learned. The output is
            taken after batch normalisation, and after a ReLU or ReLU6 that is its only reader.
    """

    reads: tuple[float, float] | None = None
    writes: tuple[float, float] | None = None


class LayerRecord(Record, frozen=True, kw_only=True):
    """A layer with weights of the torch network, used to find the layer in every format.

    Attributes:
        name: name of the torch module ("backbone.stem.conv").
        kind: "convolution", "depthwise", "transposed" or "linear".
        macs: multiply-adds of one frame.
        weights: fingerprint of the float32 weights that the converters saw (batch norms folded in).
        head: whether no other layer follows before the network's answer.
        learned: its ranges, if the network was trained for int8.
    """

    name: str
    kind: str
    macs: int
    weights: str
    head: bool = False
    learned: LayerRanges | None = None


class Artifact(Record, frozen=True, kw_only=True):
    """One network for one runtime.

    Attributes:
        format: name in the table of formats ("onnx", "openvino", "tflite").
        precision: the precision that runs (see PRECISIONS).
        files: the file to open, then its companion files.
        tool: name, version and settings of the program that wrote it (opset, recipe).
        transposes: number of transposes in its graph; None where they were not counted.
        target: the target that it was compiled for, such as "qualcomm-htp:v73"; "" for a file for any machine.
        device: the device name that is required to open it, such as "onnxruntime:qnn"; "" where `target` is "".
    """

    format: str
    precision: str
    target: str = ""
    device: str = ""
    files: Annotated[tuple[FileRecord, ...], msgspec.Meta(min_length=1)]
    tool: str = ""
    transposes: int | None = None
    evidence: Evidence = Evidence()

    @property
    def key(self) -> tuple[str, ...]:
        """Unique in a bundle: format and precision, and the target where it has one."""
        return (self.format, self.precision, self.target) if self.target else (self.format, self.precision)

    @property
    def label(self) -> str:
        """The artifact's name in messages: "onnx int8", "onnx int8-a16 for qualcomm-htp:v73"."""
        return f"{self.format} {self.precision}" + (f" for {self.target}" if self.target else "")

    @property
    def path(self) -> str:
        """The file to open, relative to the bundle."""
        return self.files[0].path

    @property
    def sha256(self) -> str:
        """Hash of the file to open."""
        return self.files[0].sha256

    @property
    def bytes(self) -> int:
        """Size of all its files."""
        return sum(file.bytes for file in self.files)


class Refusal(Record, frozen=True, kw_only=True):
    """An artifact that did not pass, or could not be made."""

    format: str
    precision: str
    error: str
    reason: str
    target: str = ""
    parity: ParityEvidence | None = None


class SourceRecord(Record, frozen=True, kw_only=True):
    """The network's source.

    Attributes:
        model: MODEL as the user gave it ("torchvision:resnet18").
        weights: file name, "DEFAULT", or "" for random weights.
        weights_sha256: hash of the weights file; "" where there was none.
        random: True where no trained weights were given.
        versions: versions of the packages that were used.
    """

    model: str
    weights: str = ""
    weights_sha256: str = ""
    random: bool = False
    versions: dict[str, str] = msgspec.field(default_factory=dict)


class Manifest(Record, frozen=True, kw_only=True):
    """The contract (inputs, outputs, task, frame), the artifacts and their measurements."""

    schema: int = SCHEMA_VERSION
    edgecnn: str = ""
    created_utc: str = ""
    name: str
    source: SourceRecord
    frame: FrameSpec
    task: Task
    batch: int = 1
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    in_graph: tuple[str, ...] = ()
    parameters: int
    macs: int
    layers: tuple[LayerRecord, ...] = ()
    preprocess: PreprocessEvidence | None = None
    artifacts: tuple[Artifact, ...] = ()
    sbom: FileRecord | None = None  # CycloneDX JSON: what it is made of
    refused: tuple[Refusal, ...] = ()
