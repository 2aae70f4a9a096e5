"""Measurements of an artifact, as stored in the manifest: figures, amount of data, device and versions."""

from __future__ import annotations

from typing import Any

import msgspec


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """Unknown fields are ignored on reading: a newer minor writer may add some."""


class Opened(Record, frozen=True, kw_only=True):
    """Proof of execution: where a back end really runs, in its runtime's own words.

    Attributes:
        runtime: package and version, such as "onnxruntime 1.31.1".
        provider: the runtime's name for what executes ("CPUExecutionProvider", "CPU", "XNNPACK").
        device_name: name of the CPU, GPU or NPU.
        precision: the requested precision, which was kept ("fp32", "bf16", …).
        threads: threads per inference.
        operators: number of operators in the runtime's graph; None where the runtime doesn't say.
        operators_on_device: number of them that run on the requested device.
        operators_elsewhere: the others: provider → how many.
        arithmetic: convolutions and matrix products: precision ("fp32", "bf16", "int8", …) → how many;
            empty where the runtime doesn't say.
        simulated: True if the device is a program (a software Vulkan driver, an NPU's simulator): its answers are
            real, its speed is not.
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
        """One line for people, such as "Cortex-A76 (ai-edge-litert 2.3.0, XNNPACK, 4 threads)"."""
        parts = [self.runtime, self.provider]
        if self.operators is not None and self.operators_elsewhere:
            elsewhere = ", ".join(f"{count} on {where}" for where, count in self.operators_elsewhere.items())
            parts.append(f"{self.operators_on_device} of {self.operators} operators, {elsewhere}")
        parts.append("1 thread" if self.threads == 1 else f"{self.threads} threads")
        return f"{self.device_name} ({', '.join(parts)})" + (", simulated" if self.simulated else "")


class LayerTime(Record, frozen=True, kw_only=True):
    """Time of one operator in the runtime's fused graph.

    Attributes:
        name: name of the torch network's layer, if the artifact contains it; "" or the runtime's own name otherwise.
        kind: the operator, in the runtime's words.
        where: the provider that executed it.
        computes: "fp32", "int8", …; "" where the runtime doesn't say.
        time_ms: time in one inference while profiling: the sum of all is larger than an inference without profiling.
        share: its share of that sum.
    """

    name: str
    kind: str
    where: str
    computes: str
    time_ms: float
    share: float = 0.0


class ParityEvidence(Record, frozen=True, kw_only=True):
    """Result of comparing an artifact with the torch network.

    Attributes:
        max_rel_err: max |a - b| / max |b| over all compared tensors and frames, before saturation.
        limit: largest error that passes; None for int8 and bf16.
        frames: number of frames compared.
        ok: whether everything below was within its limit; for int8 and bf16, which have no limit, whether the metric
            was, and None where no labelled data was given: figures without a verdict.
        tensors: max relative error of each compared tensor.
        agreement: the task's own comparison (share of equal pixels, of matched detections, of equal top-1).
        worst_box_iou, worst_score_difference: over matched detections; None for other tasks.
        torch_rounding: difference between torch's own answers and those in float64; measured for random networks only.
        made_frames: dark, bright, blank and noise frames → the largest relative error; their limit is five times as
            large.
        device_name, versions: where it ran.
        ran_on: proof of execution; None in bundles of edgecnn 0.1.
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
    made_frames: dict[str, float] = {}
    device_name: str = ""
    versions: dict[str, str] = {}
    ran_on: Opened | None = None


class PreprocessEvidence(Record, frozen=True, kw_only=True):
    """Result of comparing our pre-processing with the source's own.

    Attributes:
        compared: False where the source has none of its own or options changed the frame; `reason` says which.
        reference: name of the source's pre-processing.
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
        ran_on: proof of execution; None in bundles of edgecnn 0.1.
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
        """How far the metric is below its reference; negative where it is above."""
        return None if self.reference_value is None else self.reference_value - self.value


class CalibrationRecord(Record, frozen=True, kw_only=True):
    """The frames from which activation ranges were taken.

    Attributes:
        source: name of the folder or file.
        count: number of frames.
        seed: calibration seed, which chose the frames.
        preprocess_sha256: hash of the FrameSpec that they were fitted with.
        images: content hashes of the pictures, so that an evaluation can detect that it uses the same ones.
    """

    source: str
    count: int
    seed: int
    preprocess_sha256: str
    images: tuple[str, ...]


class LayerDamage(Record, frozen=True, kw_only=True):
    """Effect of a layer on the network's answer when it alone is int8.

    Attributes:
        name: the layer's name.
        damage: see `edgecnn.measure.damage`; 0 means none.
        kept_float: whether the artifact computes it in float because of that.
    """

    name: str
    damage: float
    kept_float: bool


class SearchRecord(Record, frozen=True, kw_only=True):
    """How the layers to keep float were found.

    Attributes:
        metric, data, n: the metric, the data and the number of pictures.
        float_value: metric of the float artifact of the same format.
        value: metric of the artifact that was kept.
        max_drop: the largest allowed drop.
        trials: how many artifacts were measured.
        minutes: time of the search, all sessions together.
        complete: False where the time budget ended it.
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
        """How far the int8 artifact's metric is below the float one's, on the search's pictures."""
        return self.float_value - self.value


class TwinLatency(Record, frozen=True, kw_only=True):
    """Latency compared with the float artifact of the same format, measured in turns.

    Attributes:
        latency_ms, float_latency_ms: medians of whole frames.
        ratio, low, high: float latency divided by this one's, with a 95 % interval; above 1 is faster.
        device_name, threads: device and threads per inference.
    """

    latency_ms: float
    float_latency_ms: float
    ratio: float
    low: float
    high: float
    device_name: str
    threads: int


class QuantizationEvidence(Record, frozen=True, kw_only=True):
    """How an int8 artifact was made, and its measurements.

    Attributes:
        recipe: a short name that lists the settings.
        calibration: None where none was needed (dynamic ranges).
        float_layers: layers that run in float, by choice or because the runtime runs them so.
        int8_mac_share: share of the multiply-adds that the runtime runs in int8.
        snr_db: signal-to-noise ratio of each output against the float artifact's, on calibration frames.
        damage: damage of each layer, worst first.
        search: None where no labelled data was given.
        latency: None where it was not measured.
        warnings: warnings, in sentences.
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
    """Where the operators of an artifact compiled for a target run.

    Attributes:
        operators: number of operators in the float network.
        off_device: operator → how many of them do not run on the device.
        conversions: how many conversions at the device's inputs and outputs the CPU has to do.
        compile_s: compile time.
        ran_on: proof of execution; says if it was a simulator.
    """

    operators: int
    off_device: dict[str, int]
    conversions: int
    compile_s: float
    ran_on: Opened

    @property
    def share(self) -> float:
        """Share of the operators that run on the device."""
        return 1 - sum(self.off_device.values()) / max(self.operators, 1)


class LatencyEvidence(Record, frozen=True, kw_only=True):
    """Latency of an artifact on one machine, measured by `bench`, in the form of `bench --json`."""

    figures: dict[str, Any]
    machine: dict[str, Any]


class Evidence(Record, frozen=True, kw_only=True):
    """All measurements of one artifact."""

    parity: ParityEvidence | None = None
    accuracy: tuple[AccuracyEvidence, ...] = ()
    latency: tuple[LatencyEvidence, ...] = ()
    quantization: QuantizationEvidence | None = None
    placement: PlacementEvidence | None = None
    overrides: tuple[str, ...] = ()


class Stage(Record, frozen=True, kw_only=True):
    """One step in a network's history.

    Attributes:
        what: "train", "prune", …
        settings: its settings.
        figures: measurements at its end: the metric, its data, epochs, multiply-adds, …
        images: content hashes of the pictures that were used, including those that decided when to stop.
    """

    what: str
    settings: dict[str, Any] = msgspec.field(default_factory=dict)
    figures: dict[str, Any] = msgspec.field(default_factory=dict)
    images: tuple[str, ...] = ()
