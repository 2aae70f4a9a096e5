"""Compares two artifacts of a bundle layer by layer, on the same frames."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.bundle import Artifact, Bundle, LayerRecord, Manifest
from edgecnn.converters.int8.base import Int8Writer
from edgecnn.errors import BundleError, SpecError
from edgecnn.formats import FORMATS
from edgecnn.frame import FrameFitter
from edgecnn.measure.damage import signal_to_noise_db
from edgecnn.measure.layer_noise import (
    LayerComparison,
    LayerNoise,
    NoiseMeter,
    UnreadLayer,
    best_db,
    drops_db,
    ranks,
)
from edgecnn.results import UInt8Array
from edgecnn.runners.backend import open_backend
from edgecnn.runners.verifier import verify_first
from edgecnn.targets import threads_here

Progress = Callable[[int, int, str], None]
Outputs = Mapping[str, NDArray[Any]]
Bounds = tuple[float | None, float | None]

_RELU6 = 6.0


def compare_artifacts(
    bundle: Bundle,
    reference: Artifact,
    compared: Artifact,
    pictures: Sequence[UInt8Array],
    *,
    data: str,
    progress: Progress | None = None,
) -> LayerComparison:
    """Run both on each picture, and compare every layer of the second with the same layer of the first.

    Args:
        bundle: the bundle with both, and with an fp32 artifact of each format.
        reference, compared: two artifacts with different files, of one format or of two.
        pictures: uint8 [height, width, 3] BGR, of any size.
        data: name of the pictures.
        progress: called with (frames done, frames in all, name of the step).

    Raises:
        BundleError: no fp32 artifact of a format, no record of the network's layers, or no layer readable in both.
        SpecError: the same artifact twice, or an artifact whose layers cannot be read.
        ConversionError: a file cannot be read or run.
    """
    manifest = bundle.manifest
    if not manifest.layers:
        raise BundleError(f"{bundle.folder} has no record of its layers (written by an older edgecnn): convert again")
    _refuse(reference, compared)
    frames = _frames(manifest, pictures)
    names = [_name(artifact) for artifact in (reference, compared)]
    sides = [_Side.open(bundle, artifact) for artifact in (reference, compared)]
    meters = {layer.name: NoiseMeter() for layer in manifest.layers}
    unread: dict[str, str] = {}
    for done, frame in enumerate(frames):
        if progress is not None:
            progress(done, len(frames), "running layer by layer")
        outputs = [side.outputs(frame) for side in sides]
        bounds = _bounds(sides, frame, outputs) if reference.format != compared.format else {}
        for layer in manifest.layers:
            absent = [name for name, found in zip(names, outputs, strict=True) if layer.name not in found]
            if absent:
                unread[layer.name] = f"not readable in {' and '.join(absent)}"
                continue
            expected, found = (side.rows(of[layer.name], layer) for side, of in zip(sides, outputs, strict=True))
            if expected.shape != found.shape:
                shapes = " and ".join(str(list(of[layer.name].shape)) for of in outputs)
                unread[layer.name] = f"its outputs have different shapes, {shapes}"
                continue
            low, high = bounds.get(layer.name, (None, None))
            if (low, high) != (None, None):
                expected, found = np.clip(expected, low, high), np.clip(found, low, high)
            meters[layer.name].add(found, expected)
    read = [layer for layer in manifest.layers if layer.name not in unread]
    if not read:
        raise BundleError(f"no layer of {bundle.folder} can be read in both {' and '.join(names)}; convert again")
    if progress is not None:
        progress(len(frames), len(frames), "running as a whole")
    answers = [_answers(bundle, artifact, frames) for artifact in (reference, compared)]
    return LayerComparison(
        bundle=manifest.name,
        reference=names[0],
        compared=names[1],
        data=data,
        frames=sum(len(frame) for frame in frames),
        best_db=best_db(compared.precision),
        outputs=signal_to_noise_db(answers[1], answers[0]),
        layers=_layers(read, meters, compared),
        unread=tuple(UnreadLayer(name, reason) for name, reason in unread.items()),
    )


def _frames(manifest: Manifest, pictures: Sequence[UInt8Array]) -> list[UInt8Array]:
    """The pictures as they go into the artifacts; a batch that they don't fill begins with the first again."""
    fitter = FrameFitter(manifest.frame)
    fitted = [fitter(picture)[0].copy() for picture in pictures]
    batch = manifest.batch
    return [
        np.concatenate([fitted[index % len(fitted)] for index in range(start, start + batch)])
        for start in range(0, len(fitted), batch)
    ]


@dataclass(frozen=True)
class _Side:
    """One artifact with readable layers.

    Attributes:
        channels_last: whether the format puts channels last.
        file, float_file: its file, and the fp32 file of that format, in which its layers are found.
        writer: reads only this file, because some writers keep the last file open.
        float_writer: reads the fp32 file.
    """

    channels_last: bool
    file: Path
    float_file: Path
    writer: Int8Writer
    float_writer: Int8Writer

    @classmethod
    def open(cls, bundle: Bundle, artifact: Artifact) -> _Side:
        float_file = bundle.checked_path(_float_twin(bundle, artifact))
        file = bundle.checked_path(artifact)
        row = FORMATS.get(artifact.format)
        writer_class = row.load_int8_writer()
        writer = writer_class(float_file, bundle.manifest.layers, threads=threads_here())
        if file == float_file:
            return cls(row.channels_last, file, float_file, writer, writer)
        float_writer = writer_class(float_file, bundle.manifest.layers, threads=threads_here())
        return cls(row.channels_last, file, float_file, writer, float_writer)

    def outputs(self, frame: UInt8Array) -> Outputs:
        return self.writer.layer_outputs(self.file, frame)

    def float_outputs(self, frame: UInt8Array, outputs: Outputs) -> Outputs:
        """Outputs of the fp32 file; returns `outputs` where this is the fp32 file."""
        return outputs if self.file == self.float_file else self.float_writer.layer_outputs(self.float_file, frame)

    def rows(self, values: NDArray[Any], layer: LayerRecord) -> NDArray[np.float32]:
        """A layer's output as [positions, channels], the same for every format."""
        if layer.kind == "linear":  # always channels last, except a matrix product that became a 1x1 convolution
            while values.ndim > 2 and values.shape[-1] == 1:
                values = values[..., 0]
        elif not self.channels_last and values.ndim > 2:
            values = np.moveaxis(values, 1, -1)
        return np.asarray(values.reshape(-1, values.shape[-1]), np.float32)


def _refuse(reference: Artifact, compared: Artifact) -> None:
    if "bf16" in (reference.precision, compared.precision):
        raise SpecError(
            "bf16 is OpenVINO's way to run its fp32 file, and its layers cannot be read then: compare the "
            "answers instead (edgecnn eval --versus)"
        )
    if reference.sha256 == compared.sha256:
        raise SpecError(f"{_name(reference)} and {_name(compared)} are the same file: name two different artifacts")


def _float_twin(bundle: Bundle, artifact: Artifact) -> Artifact:
    for other in bundle.manifest.artifacts:
        if (other.format, other.precision) == (artifact.format, "fp32"):
            return other
    held = ", ".join(_name(other) for other in bundle.manifest.artifacts)
    raise BundleError(
        f"{bundle.folder} has no {artifact.format} fp32 artifact, which is needed to find the layers of "
        f"{_name(artifact)}; it holds: {held}. Convert again with --precision fp32,… --to {artifact.format}"
    )


def _bounds(sides: Sequence[_Side], frame: UInt8Array, outputs: Sequence[Outputs]) -> dict[str, Bounds]:
    """Bounds to clip a layer's outputs to, so that both are after the same activation.

    Formats differ in which activations are part of a layer (TFLite: ReLU and ReLU6). The bounds come from the float
    files: only an activation gives a minimum of exactly 0 or a maximum of exactly 6 in one file and not in the other.
    """
    first, second = (side.float_outputs(frame, given) for side, given in zip(sides, outputs, strict=True))
    found: dict[str, Bounds] = {}
    for name in first.keys() & second.keys():
        lows, highs = ([float(end(of[name])) for of in (first, second)] for end in (np.min, np.max))
        low = 0.0 if min(lows) < 0 == max(lows) else None
        high = _RELU6 if max(highs) > _RELU6 == min(highs) else None
        found[name] = low, high
    return found


def _layers(
    read: Sequence[LayerRecord], meters: Mapping[str, NoiseMeter], compared: Artifact
) -> tuple[LayerNoise, ...]:
    evidence = compared.evidence.quantization
    damage = {} if evidence is None else {layer.name: layer.damage for layer in evidence.damage}
    snr_db = [meters[layer.name].snr_db() for layer in read]
    drops = [round(drop, 2) for drop in drops_db(snr_db, best=best_db(compared.precision))]
    return tuple(
        LayerNoise(
            name=layer.name,
            kind=layer.kind,
            macs=layer.macs,
            head=layer.head,
            int8=None if evidence is None else layer.name not in evidence.float_layers,
            snr_db=snr_db[index],
            snr_with_means_db=meters[layer.name].snr_with_means_db(),
            change_db=round(snr_db[index] - snr_db[index - 1], 2) if index else None,
            drop_db=drops[index],
            rank=rank,
            damage=damage.get(layer.name),
        )
        for index, (layer, rank) in enumerate(zip(read, ranks(drops), strict=True))
    )


def _answers(bundle: Bundle, artifact: Artifact, frames: Sequence[UInt8Array]) -> list[Outputs]:
    verify_first(bundle, artifact, precision=artifact.precision)
    backend = open_backend(
        artifact.format,
        bundle.folder / artifact.path,
        outputs=bundle.manifest.outputs,
        precision=artifact.precision,
    )
    try:
        return [{name: values.copy() for name, values in backend.infer(frame).items()} for frame in frames]
    finally:
        backend.close()


def _name(artifact: Artifact) -> str:
    return f"{artifact.format} {artifact.precision}"
