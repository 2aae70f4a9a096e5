"""Converts one of the shipped networks if possible, runs it on photographs and footage, and times it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from edgecnn.bundle import PRECISIONS, Artifact, Bundle, Refusal
from edgecnn.bundle.shipped import ASSETS, DETECTOR, SEGMENTER, is_shipped
from edgecnn.demonstration.report import AnnotatedVideo, LeftOut, NetworkReport
from edgecnn.demonstration.stills import Still, row_of_tiles, take_stills
from edgecnn.errors import DataError, DeviceError, MissingDependencyError, SpecError
from edgecnn.formats import convertible, rank
from edgecnn.results import UInt8Array
from edgecnn.runners.live.cameras.camera import open_camera

if TYPE_CHECKING:
    from edgecnn.converters.quantize_bundle import Conversion
    from edgecnn.measure.latency import BenchReport
    from edgecnn.runners.live.run_summary import RunSummary

STILLS = "stills"
NETWORKS = (DETECTOR, SEGMENTER)
_RECORDS = {DETECTOR: "detected.mp4", SEGMENTER: "segmented.mp4"}

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, kw_only=True)
class DemoVerbs:
    """Public functions of these names, passed in by the caller."""

    convert: Callable[..., Conversion]
    run: Callable[..., RunSummary]
    bench: Callable[..., BenchReport]


def can_convert() -> bool:
    """Whether the packages for `convert` are installed, for every shipped format."""
    wanted = shipped_formats()
    return all(find_spec(name) for name in ("torch", "safetensors")) and set(wanted) <= set(convertible())


def shipped_formats() -> list[str]:
    """The formats of the shipped bundles, in order of preference."""
    artifacts = Bundle.open(_shipped(DETECTOR)).manifest.artifacts
    return sorted({artifact.format for artifact in artifacts}, key=rank)


def _shipped(word: str) -> Path:
    return ASSETS / f"{word.removeprefix('default-')}.edge"


def check_video(video: Path, folder: Path) -> None:
    """Refuse at the start a video that cannot be used or would be overwritten.

    Raises:
        DataError: it is not a readable recording.
        SpecError: the demo would overwrite it.
    """
    if not video.is_file():
        raise DataError(f"{video} is not a file: --video needs a recording; for a camera, use edgecnn run {DETECTOR}")
    for name in _RECORDS.values():
        if (folder / name).exists() and (folder / name).samefile(video):
            raise SpecError(f"{video} is an output of the demo: copy it, or choose another --out")
    with open_camera(video) as camera:
        if camera.stills:
            raise DataError(f"{video} is a picture, not a recording: use edgecnn run {DETECTOR} {video}")


def show_network(
    word: str,
    folder: Path,
    footage: Path,
    *,
    verbs: DemoVerbs,
    formats: Sequence[str] | None,
    progress: Progress | None,
) -> tuple[NetworkReport, UInt8Array | None]:
    """All results of one network, and its row of the contact sheet.

    Args:
        word: its name, "default-detector".
        folder: the folder for all results.
        footage: the video to run it on.
        verbs: the verbs to call.
        formats: convert it to these first; None runs the shipped bundle.
        progress: called with (steps done, steps in all, name of the step).
    """
    kind = word.removeprefix("default-")
    step = None if progress is None else _prefixed(progress, kind)
    refused: tuple[Refusal, ...] = ()
    bundle: Bundle | None
    if formats is not None:
        conversion = verbs.convert(word, to=formats, out=folder / f"{kind}.edge", overwrite=True, progress=step)
        bundle, refused = conversion.bundle, conversion.refused
    else:
        bundle = Bundle.open(_shipped(word))
    if bundle is None:
        return _all_refused(word, refused), None
    ran, stills, left_out = _take_all_stills(bundle, kind, folder, step)
    row = row_of_tiles(bundle, ran[0])
    return NetworkReport(
        word=word,
        name=bundle.manifest.name,
        task=bundle.manifest.task.name,
        bundle=bundle.folder,
        converted=formats is not None,
        artifacts=bundle.manifest.artifacts,
        refused=refused,
        left_out=tuple(left_out),
        stills=tuple(stills),
        video=record_footage(verbs.run, bundle, ran[0], footage, folder / _RECORDS[word], step),
        bench=verbs.bench(bundle, profile="quick", record=not is_shipped(bundle.folder), progress=step),
    ), row


def _take_all_stills(
    bundle: Bundle, kind: str, folder: Path, step: Progress | None
) -> tuple[list[Artifact], list[Still], list[LeftOut]]:
    """The artifacts that ran, the preferred one first; their stills; and the artifacts that don't run here."""
    ran, stills, errors, left_out = [], [], [], []
    artifacts = sorted(bundle.manifest.artifacts, key=_preference)
    for index, artifact in enumerate(artifacts):
        if step:
            step(index, len(artifacts), f"stills, {artifact.format} {artifact.precision}")
        try:
            stills += take_stills(bundle, artifact, prefix=kind, folder=folder / STILLS, relative_to=folder)
            ran.append(artifact)
        except (MissingDependencyError, DeviceError) as failed:
            left_out.append(LeftOut(format=artifact.format, precision=artifact.precision, reason=str(failed)))
            errors.append(failed)
    if not ran:
        raise next((error for error in errors if isinstance(error, DeviceError)), errors[0])
    return ran, stills, left_out


def _all_refused(word: str, refused: tuple[Refusal, ...]) -> NetworkReport:
    return NetworkReport(
        word=word,
        name="",
        task="",
        bundle=None,
        converted=True,
        artifacts=(),
        refused=refused,
        left_out=(),
        stills=(),
        video=None,
        bench=None,
    )


def record_footage(
    run: Callable[..., RunSummary],
    bundle: Bundle,
    artifact: Artifact,
    footage: Path,
    video: Path,
    progress: Progress | None,
) -> AnnotatedVideo:
    """The footage with the network's results drawn on it; replaces the one of an earlier demo."""
    video.unlink(missing_ok=True)
    summary = run(
        bundle,
        footage,
        format=artifact.format,
        precision=artifact.precision,
        record=video,
        progress=progress and named_progress(progress, video.name),
    )
    if summary.signal is not None:
        signal.raise_signal(summary.signal)  # `run` ends normally; the user wants the whole demo to end
    return AnnotatedVideo(
        path=video.name,
        format=summary.format,
        precision=summary.precision,
        frames=summary.frames,
        frames_per_s=round(summary.fps, 2),
    )


def _preference(artifact: Artifact) -> tuple[int, int]:
    """Sort key: the default format first, and in it the precision closest to the trained network."""
    return rank(artifact.format), list(PRECISIONS).index(artifact.precision)


def named_progress(progress: Progress, what: str) -> Callable[[int, int], None]:
    """A progress callback for one step of this name."""
    return lambda done, total: progress(done, total, what)


def _prefixed(progress: Progress, kind: str) -> Progress:
    return lambda done, total, what: progress(done, total, f"{kind}: {what}")
