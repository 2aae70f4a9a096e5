"""Makes an artifact for one target: compiles it, runs it on the device or in its simulator, measures or refuses it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from edgecnn.bundle import Artifact, Manifest, Refusal, store_files
from edgecnn.bundle.evidence import PlacementEvidence, QuantizationEvidence
from edgecnn.converters.base import Compiled
from edgecnn.converters.candidate import Outcome, Reference
from edgecnn.converters.int8.float_artifact import FloatArtifact, float_reference
from edgecnn.converters.int8.settings import Int8Settings
from edgecnn.converters.int8.workbench import batched
from edgecnn.converters.trial import REFUSING, Trial
from edgecnn.formats import compiler_of
from edgecnn.native_steps import native_step
from edgecnn.targets import Target, threads_here

Progress = Callable[[int, int, str], None]

# A frame takes seconds in a simulator.
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
    """One artifact for the target, or its refusal.

    With labelled pictures the metric is compared with the float artifact's on the same pictures: on held-out pictures
    (`settings.evaluate_on`), otherwise on `settings.search_on`; on a simulated device, on `SLOW_PICTURES` of them.

    Args:
        contract: manifest of the bundle that the artifact is for; its artifacts are ignored.
        twin: the fp32 artifact that it is made from.
        folder: the folder with the twin's files.
        target: with a compiler.
        precision: one of the precisions that are compiled for it.
        settings: calibration frames and labelled pictures.
        into: the folder for the artifact's files.
        progress: called with (steps done, steps in all, name of the step).

    Raises:
        MissingDependencyError: the compiler is not installed.
    """
    source = FloatArtifact.of(contract, twin, folder)
    compiler_class = compiler_of(twin.format, target.compiler).load(f"target {target.name!r}")
    trial = Trial(twin.format, precision, target=target.name)
    try:
        with native_step(trial.name, f"making {trial.name}"), tempfile.TemporaryDirectory(dir=into) as work:
            compiler = compiler_class(source, target, threads=threads_here())
            compiler.calibrate(batched(settings.calibration.frames, contract.batch), progress)
            progress(0, 0, f"compiling for {target.name}")
            compiled = compiler.write(precision, Path(work))
            outcome = trial.run(
                source.made(compiled.converted.files[0], precision=precision, device=target.device),
                _reference(source, settings, slow=compiler.slow_device),
                way_out="Take 16-bit activations (--precision int8-a16), train for quantization, or --allow-drop",
                report=lambda what: progress(0, 0, what),
            )
            files = store_files(into, f"{twin.format}-{precision}-{_file_name(target.name)}", compiled.converted.files)
    except REFUSING as failed:
        return trial.refused(failed)
    evidence = outcome.evidence(_as_quantized(source, compiled, settings, outcome), _placed(compiled, outcome))
    return trial.artifact(files, compiled.converted, evidence, device=target.device)


def _reference(source: FloatArtifact, settings: Int8Settings, *, slow: bool) -> Reference:
    """The float artifact's answers on some frames, and its metric on the labelled pictures that decide."""
    frames = settings.calibration.frames
    wanted = source.batch * (_SLOW_FRAMES if slow else _FRAMES)
    chosen = list(range(0, len(frames), max(len(frames) // wanted, 1)))[:wanted]
    pictures = settings.evaluate_on or settings.search_on
    if slow and pictures is not None:
        pictures = pictures.limited(SLOW_PICTURES)
    return float_reference(source, settings, chosen, labelled=() if pictures is None else (pictures,))


def _as_quantized(
    source: FloatArtifact, compiled: Compiled, settings: Int8Settings, outcome: Outcome
) -> QuantizationEvidence:
    layers = source.layers
    macs = sum(layer.macs for layer in layers)
    on_device = sum(layer.macs for layer in layers if layer.name not in compiled.off_layers)
    return QuantizationEvidence(
        recipe=compiled.recipe,
        calibration=settings.calibration.record,
        float_layers=tuple(layer.name for layer in layers if layer.name in compiled.off_layers),
        int8_mac_share=round(on_device / max(macs, 1), 4),
        snr_db=outcome.snr_db,
        warnings=(*settings.calibration.warnings, *outcome.warnings),
    )


def _placed(compiled: Compiled, outcome: Outcome) -> PlacementEvidence:
    return PlacementEvidence(
        operators=compiled.operators,
        off_device=dict(compiled.off_device),
        conversions=compiled.conversions,
        compile_s=compiled.compile_s,
        ran_on=outcome.opened,
    )


def _file_name(name: str) -> str:
    return name.replace(":", "-")
