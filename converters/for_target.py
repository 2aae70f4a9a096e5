"""Artifacts that are compiled for one device: made, run where they belong or in its simulator, measured, or refused."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from edgecnn._devices import default_threads, parse_device
from edgecnn.bundle import Artifact, Manifest, Refusal, store_files
from edgecnn.converters.base import Compiled
from edgecnn.converters.int8.bench import FloatArtifact, Int8Settings, LabelledPictures, batched
from edgecnn.errors import AccuracyError, ConversionError, DeviceError, GateError, MissingDependencyError
from edgecnn.evidence import AccuracyEvidence, Evidence, PlacementEvidence, QuantizationEvidence
from edgecnn.measure import parity
from edgecnn.measure.damage import signal_to_noise_db
from edgecnn.registry import BACKENDS, COMPILERS
from edgecnn.runners.base import Backend
from edgecnn.targets import Target

Progress = Callable[[int, int, str], None]
Answers = list[dict[str, Any]]

# In a simulator a frame takes seconds.
_SLOW_FRAMES, _FRAMES = 4, 16
SLOW_PICTURES = 32


def make_for_target(
    contract: Manifest,
    twin: Artifact,
    folder: Path,
    *,
    target: Target,
    precision: str,
    settings: Int8Settings,
    into: Path,
    progress: Progress,
) -> Artifact | Refusal:
    """One artifact for the target; or why there is none.

    With labelled pictures the metric is compared with the float artifact's on the same ones: those that took no part
    (`settings.evaluate_on`), else those of `settings.search_on`; of a simulated device, `SLOW_PICTURES` of them.

    Args:
        contract: manifest of the bundle that it is for; its artifacts don't count.
        twin: the fp32 artifact that it is made from.
        folder: where the twin's files are.
        target: with a compiler.
        precision: one of those that are compiled for it.
        settings: calibration frames and pictures.
        into: where its files go.
        progress: called with (steps done, steps in all, what is being done).

    Raises:
        MissingDependencyError: the compiler is not installed.
    """
    source = FloatArtifact(
        format=twin.format,
        file=folder / twin.path,
        frame=contract.frame,
        task=contract.task,
        outputs=contract.outputs,
        layers=contract.layers,
        batch=contract.batch,
    )
    compiler_class = COMPILERS.get(target.compiler)
    try:
        with tempfile.TemporaryDirectory(dir=into) as work:
            compiler = compiler_class(source, target, threads=default_threads())
            compiler.calibrate(batched(settings.calibration.frames, contract.batch), progress)
            progress(0, 0, f"compiling for {target.name}")
            compiled = compiler.write(precision, Path(work))
            trial = _Trial(source, target, precision, compiled, settings, slow=compiler.slow_device)
            evidence = trial.evidence(progress)
            files = store_files(into, f"{twin.format}-{precision}-{_as_file(target.name)}", compiled.converted.files)
    except MissingDependencyError:
        raise
    except (GateError, DeviceError) as failed:
        return Refusal(
            format=twin.format,
            precision=precision,
            target=target.name,
            error=type(failed).__name__,
            reason=str(failed),
        )
    return Artifact(
        format=twin.format,
        precision=precision,
        target=target.name,
        device=target.device,
        files=files,
        tool=compiled.converted.tool,
        transposes=compiled.converted.transposes,
        evidence=evidence,
    )


class _Trial:
    """A compiled artifact, run beside the float one that it was made from."""

    def __init__(
        self,
        source: FloatArtifact,
        target: Target,
        precision: str,
        compiled: Compiled,
        settings: Int8Settings,
        *,
        slow: bool,
    ) -> None:
        self._source, self._target, self._precision = source, target, precision
        self._compiled, self._settings, self._slow = compiled, settings, slow

    def evidence(self, progress: Progress) -> Evidence:
        """All that is measured.

        Raises:
            DeviceError: the device, or its simulator, fails on it.
            ConversionError: its answers are no numbers.
            AccuracyError: it loses more than is allowed.
        """
        compiled, settings, layers = self._compiled, self._settings, self._source.layers
        frames = batched(settings.calibration.frames, self._source.batch)
        step = max(len(frames) // (_SLOW_FRAMES if self._slow else _FRAMES), 1)
        chosen = list(range(0, len(frames), step))[: _SLOW_FRAMES if self._slow else _FRAMES]
        backend = self._open()
        try:
            progress(0, 0, f"running {len(chosen)} frames on {backend.opened.device_name}")
            answers = _answers(backend, [frames[index] for index in chosen])
            accuracy, warnings = self._accuracy(backend, progress)
            opened = backend.opened
        finally:
            backend.close()
        expected = _answers(reference := self._source.open(), [frames[index] for index in chosen])
        reference.close()
        snr_db = signal_to_noise_db(answers, expected)
        if not all(value > float("-inf") for value in snr_db.values()):
            raise ConversionError(f"{self._name} answers what is no number, on {opened.device_name}")
        samples = [
            parity.Sample(frames[index], settings.calibration.places[index], right, ())
            for index, right in zip(chosen, expected, strict=True)
        ]
        found = parity.compare(
            samples,
            answers,
            task=self._source.task,
            precision=self._precision,
            match_results=self._source.batch == 1,
            device_name=opened.device_name,
            versions={"runtime": opened.runtime},
            ran_on=opened,
        )
        kept = not any(measured.allowed_drop for measured in accuracy)
        macs = sum(layer.macs for layer in layers)
        on_device = sum(layer.macs for layer in layers if layer.name not in compiled.off_layers)
        return Evidence(
            parity=msgspec.structs.replace(found, ok=kept if accuracy else None),
            accuracy=accuracy,
            quantization=QuantizationEvidence(
                recipe=compiled.recipe,
                calibration=settings.calibration.record,
                float_layers=tuple(layer.name for layer in layers if layer.name in compiled.off_layers),
                int8_mac_share=round(on_device / max(macs, 1), 4),
                snr_db=snr_db,
                warnings=(*settings.calibration.warnings, *warnings),
            ),
            placement=PlacementEvidence(
                operators=compiled.operators,
                off_device=dict(compiled.off_device),
                conversions=compiled.conversions,
                compile_s=compiled.compile_s,
                ran_on=opened,
            ),
            overrides=() if kept else ("allow-drop",),
        )

    def _accuracy(self, backend: Backend, progress: Progress) -> tuple[tuple[AccuracyEvidence, ...], tuple[str, ...]]:
        """The metric beside the float artifact's, and what is to be known of it."""
        settings = self._settings
        pictures = settings.evaluate_on or settings.search_on
        if pictures is None:
            return (), ()
        if self._slow:
            pictures = pictures.limited(SLOW_PICTURES)
        progress(0, 0, f"measuring on pictures of {pictures.name} on {backend.opened.device_name}")
        reference = self._source.open()
        try:
            right = pictures.measure(self._source.runner(reference), resamples=0)
        finally:
            reference.close()
        measured = pictures.measure(self._source.runner(backend))
        drop = right.value - measured.value
        if drop > settings.max_drop and not settings.allow_drop:
            raise AccuracyError(
                f"{self._name} has {measured.metric} {measured.value:.4f} on {measured.n} pictures of {pictures.name} "
                f"({backend.opened.device_name}), the float artifact {right.value:.4f}: a drop of {drop:.4f} "
                f"(--max-drop {settings.max_drop:g}); take 16-bit activations (--precision int8-a16), train for "
                "quantization, or --allow-drop"
            )
        return (
            msgspec.structs.replace(
                measured,
                precision=self._precision,
                reference_value=right.value,
                max_drop=settings.max_drop,
                allowed_drop=drop > settings.max_drop,
            ),
        ), self._leaks(pictures)

    def _leaks(self, pictures: LabelledPictures) -> tuple[str, ...]:
        shared = len(set(pictures.images) & set(self._settings.calibration.record.images))
        if not shared:
            return ()
        warning = (
            f"{shared} of the {len(pictures.images)} pictures that the metric was measured on were calibrated on, too: "
            "it flatters; give others as --evaluate-on"
        )
        return (warning,)

    @property
    def _name(self) -> str:
        return f"{self._source.format} {self._precision} for {self._target.name}"

    def _open(self) -> Backend:
        return BACKENDS.get(self._source.format)(
            self._compiled.converted.files[0],
            outputs=self._source.outputs,
            device=parse_device(self._target.device),
            precision=self._precision,
            threads=default_threads(),
        )


def _answers(backend: Backend, frames: Sequence[Any]) -> Answers:
    return [{name: value.copy() for name, value in backend.infer(frame).items()} for frame in frames]


def _as_file(name: str) -> str:
    return name.replace(":", "-")
