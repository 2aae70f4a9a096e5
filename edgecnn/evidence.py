"""What was measured of an artifact, as it stands in the manifest: figures, on how much data, where, with what."""

from __future__ import annotations

from typing import Any

import msgspec


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """Unknown fields are ignored on reading: a newer minor writer may add some."""


class Opened(Record, frozen=True, kw_only=True):
    """Proof of execution: what a back end really runs on, in its runtime's own words.

    Attributes:
        runtime: package and version, as in "onnxruntime 1.31.1".
        provider: the runtime's name for what executes ("CPUExecutionProvider", "CPU", "XNNPACK").
        device_name: the processor, GPU or NPU.
        precision: what was asked for and is held ("fp32", "bf16", …).
        threads: threads of one inference.
        operators: of the graph as the runtime has it; None where the runtime doesn't say.
        operators_on_device: those of them that run on the device that was asked for.
        operators_elsewhere: where the others run: provider → how many.
        arithmetic: of the convolutions and matrix products, how many compute in what ("fp32", "bf16", "int8", …);
            empty where the runtime doesn't say.
        simulated: the device is a program (a Vulkan driver in software, an NPU's simulator): function is real there,
            speed is not.
    """

    runtime: str
    provider: str
    device_name: str
    precision: str
    threads: int
    operators: int | None = None
    operators_on_device: int | None = None
    operators_elsewhere: dict[str, int] = {}
    arithmetic: dict[str, int] = {}
    simulated: bool = False

    @property
    def summary(self) -> str:
        """One line for people, as in "Cortex-A76 (ai-edge-litert 2.3.0, XNNPACK, 4 threads)"."""
        parts = [self.runtime, self.provider]
        if self.operators is not None and self.operators_elsewhere:
            elsewhere = ", ".join(f"{count} on {where}" for where, count in self.operators_elsewhere.items())
            parts.append(f"{self.operators_on_device} of {self.operators} operators, {elsewhere}")
        parts.append("1 thread" if self.threads == 1 else f"{self.threads} threads")
        return f"{self.device_name} ({', '.join(parts)})" + (", simulated" if self.simulated else "")


class LayerTime(Record, frozen=True, kw_only=True):
    """How long one operator took, as the runtime has it after fusing.

    Attributes:
        name: of the torch network's layer, where the artifact carries it; "" or the runtime's own otherwise.
        kind: the operator, in the runtime's words.
        where: what executed it.
        computes: "fp32", "int8", …; "" where the runtime doesn't say.
        time_ms: of one inference, while profiling: the sum of all is more than an inference takes otherwise.
        share: of that sum.
    """

    name: str
    kind: str
    where: str
    computes: str
    time_ms: float
    share: float = 0.0


class ParityEvidence(Record, frozen=True, kw_only=True):
    """What comparing an artifact with the torch network gave.

    Attributes:
        max_rel_err: max |a - b| / max |b| over all compared tensors and frames, before saturation.
        limit: the largest that would have passed; None for int8 and bf16.
        frames: how many frames were compared.
        ok: whether everything below was inside its limit; for int8 and bf16, which have none, whether the metric was,
            and None where no labelled data was given: figures without a verdict.
        tensors: max relative error of each compared tensor.
        agreement: the task's own comparison (share of equal pixels, of matched detections, of equal top-1).
        worst_box_iou, worst_score_difference: of matched detections; None for other tasks.
        torch_rounding: how far torch's own answers are from those in float64; looked at for random networks only.
        device_name, versions: where it ran.
        ran_on: proof of that; None in bundles of edgecnn 0.1.
    """

    max_rel_err: float
    limit: float | None
    frames: int
    ok: bool | None
    tensors: dict[str, float]
    agreement: float | None = None
    worst_box_iou: float | None = None
    worst_score_difference: float | None = None
    torch_rounding: float | None = None
    device_name: str = ""
    versions: dict[str, str] = {}
    ran_on: Opened | None = None


class PreprocessEvidence(Record, frozen=True, kw_only=True):
    """What comparing our pre-processing with the source's own gave.

    Attributes:
        compared: False where the source has none of its own or the user changed the frame; `reason` says which.
        reference: name of what it was compared with.
        max_levels, mean_levels: difference in grey levels of 255.
    """

    compared: bool
    reason: str = ""
    reference: str = ""
    max_levels: float | None = None
    mean_levels: float | None = None
    frames: int = 0


class AccuracyEvidence(Record, frozen=True, kw_only=True):
    """A task metric on labelled data, with its 95 % bootstrap interval over images.

    Attributes:
        ran_on: proof of what ran; None in bundles of edgecnn 0.1.
    """

    metric: str
    value: float
    low: float
    high: float
    n: int
    data: str
    precision: str
    device: str
    reference_value: float | None = None
    max_drop: float | None = None
    allowed_drop: bool = False
    ran_on: Opened | None = None

    @property
    def drop(self) -> float | None:
        """How far it lies below what it is held against; negative where it is above."""
        return None if self.reference_value is None else self.reference_value - self.value


class CalibrationRecord(Record, frozen=True, kw_only=True):
    """The frames that activation ranges were read off.

    Attributes:
        source: name of the folder or file.
        count: frames.
        seed: of the choice of frames.
        preprocess_sha256: hash of the FrameSpec that they went through.
        images: content hashes of the pictures, so that an evaluation can tell that it would measure on them.
    """

    source: str
    count: int
    seed: int
    preprocess_sha256: str
    images: tuple[str, ...]


class LayerDamage(Record, frozen=True, kw_only=True):
    """What a layer does to the network's answer when it alone is int8.

    Attributes:
        name: of the layer.
        damage: see `edgecnn.measure.damage`; 0 is none.
        kept_float: whether the artifact computes it in float for that.
    """

    name: str
    damage: float
    kept_float: bool


class SearchRecord(Record, frozen=True, kw_only=True):
    """How the layers to keep float were found.

    Attributes:
        metric, data, n: what was measured, on which data, how many pictures.
        float_value: of the float artifact of the same format.
        value: of the artifact that was kept.
        max_drop: the bound.
        trials: how many artifacts were measured.
        minutes: how long it took, all sessions together.
        complete: False where the budget ended it.
        images: content hashes of the pictures.
    """

    metric: str
    data: str
    n: int
    float_value: float
    value: float
    max_drop: float
    trials: int
    minutes: float
    complete: bool
    images: tuple[str, ...]

    @property
    def drop(self) -> float:
        """How much the int8 artifact's metric lies below the float one's, on the search's pictures."""
        return self.float_value - self.value


class TwinLatency(Record, frozen=True, kw_only=True):
    """Latency beside the float artifact of the same format, measured in turns.

    Attributes:
        latency_ms, float_latency_ms: medians of whole frames.
        ratio, low, high: float latency over this one's, with a 95 % interval; above 1 is faster.
        device_name, threads: where.
    """

    latency_ms: float
    float_latency_ms: float
    ratio: float
    low: float
    high: float
    device_name: str
    threads: int


class QuantizationEvidence(Record, frozen=True, kw_only=True):
    """How an int8 artifact was made, and what it is worth.

    Attributes:
        recipe: a name that decodes.
        calibration: None where none was needed (dynamic ranges).
        float_layers: kept float, by choice or because the runtime runs them so.
        int8_mac_share: of the multiply-adds, those that the runtime runs in int8.
        snr_db: signal-to-noise ratio of each output against the float artifact's, on calibration frames.
        damage: of each layer, worst first.
        search: None where no labelled data was given.
        latency: None where it was not measured.
        warnings: in sentences.
    """

    recipe: str
    calibration: CalibrationRecord | None
    float_layers: tuple[str, ...]
    int8_mac_share: float
    snr_db: dict[str, float]
    damage: tuple[LayerDamage, ...] = ()
    search: SearchRecord | None = None
    latency: TwinLatency | None = None
    warnings: tuple[str, ...] = ()

    @property
    def slower_than_float(self) -> bool:
        """Whether it was measured to be no faster than its float twin: then there is no reason to use it here."""
        return self.latency is not None and self.latency.ratio <= 1


class PlacementEvidence(Record, frozen=True, kw_only=True):
    """Where the operators of an artifact that was compiled for a device are computed.

    Attributes:
        operators: of the float network.
        off_device: operator → how many of them are not on the device.
        conversions: how many conversions at its borders are left to the processor.
        compile_s: how long the compilation took.
        ran_on: proof of what it ran on; a simulator says that it is one.
    """

    operators: int
    off_device: dict[str, int]
    conversions: int
    compile_s: float
    ran_on: Opened

    @property
    def share(self) -> float:
        """Of the operators, those that are on the device."""
        return 1 - sum(self.off_device.values()) / max(self.operators, 1)


class LatencyEvidence(Record, frozen=True, kw_only=True):
    """What `bench` measured of an artifact on one machine, in the shape that `bench --json` prints."""

    figures: dict[str, Any]
    machine: dict[str, Any]


class Evidence(Record, frozen=True, kw_only=True):
    """What was measured of one artifact."""

    parity: ParityEvidence | None = None
    accuracy: tuple[AccuracyEvidence, ...] = ()
    latency: tuple[LatencyEvidence, ...] = ()
    quantization: QuantizationEvidence | None = None
    placement: PlacementEvidence | None = None
    overrides: tuple[str, ...] = ()


class Stage(Record, frozen=True, kw_only=True):
    """One thing that was done to a network.

    Attributes:
        what: "train", "prune", …
        settings: what it was told.
        figures: what was measured at its end: the metric, its data, epochs, multiply-adds, …
        images: content hashes of the pictures that took part, those that decided when to stop included.
    """

    what: str
    settings: dict[str, Any] = msgspec.field(default_factory=dict)
    figures: dict[str, Any] = msgspec.field(default_factory=dict)
    images: tuple[str, ...] = ()
