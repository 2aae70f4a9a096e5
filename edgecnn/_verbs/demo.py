"""The main job on what ships with edgecnn: two networks, four photographs, nothing to fetch."""

from __future__ import annotations

import signal
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import msgspec

from edgecnn._shipped import ASSETS, DETECTOR, SEGMENTER, is_shipped
from edgecnn._staging import write_whole
from edgecnn._verbs._demo_report import REPORT, AnnotatedVideo, DemoReport, LeftOut, NetworkReport
from edgecnn._verbs._footage import write_footage
from edgecnn._verbs._stills import row_of_tiles, take_stills, write_contact_sheet
from edgecnn._verbs.bench import bench
from edgecnn._verbs.convert import convert
from edgecnn._verbs.run import run
from edgecnn.bundle import PRECISIONS, Artifact, Bundle, Refusal
from edgecnn.errors import DataError, DeviceError, MissingDependencyError, SpecError
from edgecnn.registry import BACKENDS, CONVERTERS
from edgecnn.results import UInt8Array
from edgecnn.runners.live.camera import open_camera
from edgecnn.runners.live.sinks import storage_error

FORMATS = ("onnx", "openvino", "tflite")
FOOTAGE = "footage.mp4"
CONTACT_SHEET = "contact_sheet.jpg"
STILLS = "stills"
_RECORDS = {DETECTOR: "detected.mp4", SEGMENTER: "segmented.mp4"}

Progress = Callable[[int, int, str], None]


def demo(out: str | Path = "demo", *, video: str | Path | None = None, progress: Progress | None = None) -> DemoReport:
    """Run the detector and the segmenter that ship with edgecnn on footage, and measure them.

    Where torch and the converters are installed, both are converted first, to three formats, and every file must
    answer as the torch network does. Elsewhere, as on a device, the converted ones that ship are run, with the
    runtimes that are there.

    Args:
        out: a folder for bundles, annotated videos and pictures, and `demo.json`; made if absent.
        video: footage of the user's own; without it, a camera moves over the photographs that ship.
        progress: called with (steps done, steps in all, what is being done), stage by stage.

    Raises:
        DataError: `video` is no recording that can be read.
        MissingDependencyError: no runtime is installed.
        GateError: a network failed before any conversion.
        StorageError: disk full, or `out` not writable.
    """
    folder = Path(out)
    if video is not None:
        _check_video(Path(video), folder)
    converts = can_convert()
    if not converts and not BACKENDS.installed():
        raise MissingDependencyError("running the networks that ship", "onnxruntime", extra=BACKENDS.extra("onnx"))
    try:
        (folder / STILLS).mkdir(parents=True, exist_ok=True)
    except OSError as failed:
        raise storage_error(folder, failed) from failed
    if video is None:
        write_footage(folder / FOOTAGE, progress=progress and _named(progress, "footage"))
    source = Path(video) if video is not None else folder / FOOTAGE
    networks, tiles = [], []
    for word in (DETECTOR, SEGMENTER):
        network, row = _show(word, folder, source, converts=converts, progress=progress)
        networks.append(network)
        tiles += [] if row is None else [row]
    if tiles:
        write_contact_sheet(folder / CONTACT_SHEET, tiles)
    report = DemoReport(
        folder=folder,
        footage=source.name,
        networks=tuple(networks),
        contact_sheet=CONTACT_SHEET if tiles else None,
        remarks=() if converts else (f"the bundles that ship were run: {_to_convert()} converts them here",),
    )
    write_whole(folder / REPORT, msgspec.json.format(msgspec.json.encode(report.document()), indent=1) + b"\n")
    return report


def can_convert() -> bool:
    """Whether what `convert` wants is installed, for all three formats."""
    return all(find_spec(name) for name in ("torch", "safetensors")) and set(FORMATS) <= set(CONVERTERS.installed())


def _to_convert() -> str:
    return "pip install 'edgecnn[convert]'"


def _check_video(video: Path, folder: Path) -> None:
    """Refuse, before minutes have passed, what cannot be run on or would be overwritten."""
    if not video.is_file():
        raise DataError(f"{video} is not a file: --video wants a recording; for a camera, edgecnn run {DETECTOR}")
    for name in _RECORDS.values():
        if (folder / name).exists() and (folder / name).samefile(video):
            raise SpecError(f"{video} is what the demo writes: copy it, or choose another --out")
    with open_camera(video) as camera:
        if camera.stills:
            raise DataError(f"{video} is a picture: --video wants a recording; edgecnn run {DETECTOR} {video} runs it")


def _show(
    word: str, folder: Path, footage: Path, *, converts: bool, progress: Progress | None
) -> tuple[NetworkReport, UInt8Array | None]:
    """Everything about one network, and its row of the contact sheet."""
    kind = word.removeprefix("default-")
    step = None if progress is None else _prefixed(progress, kind)
    refused: tuple[Refusal, ...] = ()
    bundle: Bundle | None
    if converts:
        conversion = convert(word, to=FORMATS, out=folder / f"{kind}.edge", progress=step)
        bundle, refused = conversion.bundle, conversion.refused
    else:
        bundle = Bundle.open(ASSETS / f"{kind}.edge")
    if bundle is None:
        return _nothing_passed(word, refused), None
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
    row = row_of_tiles(bundle, ran[0])
    return NetworkReport(
        word=word,
        name=bundle.manifest.name,
        task=bundle.manifest.task.name,
        bundle=bundle.folder,
        converted=converts,
        artifacts=bundle.manifest.artifacts,
        refused=refused,
        left_out=tuple(left_out),
        stills=tuple(stills),
        video=_record(bundle, ran[0], footage, folder / _RECORDS[word], step),
        bench=bench(bundle, profile="quick", record=not is_shipped(bundle.folder), progress=step),
    ), row


def _nothing_passed(word: str, refused: tuple[Refusal, ...]) -> NetworkReport:
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


def _record(
    bundle: Bundle, artifact: Artifact, footage: Path, target: Path, progress: Progress | None
) -> AnnotatedVideo:
    """The footage with what the network sees drawn on it."""
    summary = run(
        bundle,
        footage,
        format=artifact.format,
        precision=artifact.precision,
        record=target,
        progress=progress and _named(progress, target.name),
    )
    if summary.signal is not None:
        signal.raise_signal(summary.signal)  # `run` ends in peace; what was asked for is the end of everything
    return AnnotatedVideo(
        path=target.name,
        format=summary.format,
        precision=summary.precision,
        frames=summary.frames,
        frames_per_s=round(summary.fps, 2),
    )


def _preference(artifact: Artifact) -> tuple[int, int]:
    """The format that runs when nobody asks comes first, and in it the precision closest to the trained network."""
    return BACKENDS.names().index(artifact.format), list(PRECISIONS).index(artifact.precision)


def _named(progress: Progress, what: str) -> Callable[[int, int], None]:
    return lambda done, total: progress(done, total, what)


def _prefixed(progress: Progress, kind: str) -> Progress:
    return lambda done, total, what: progress(done, total, f"{kind}: {what}")
