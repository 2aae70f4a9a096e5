"""Show edgecnn with the two networks and four photographs that ship with it; nothing is downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from edgecnn import options
from edgecnn._verbs.bench import bench
from edgecnn._verbs.convert import convert
from edgecnn._verbs.run import run
from edgecnn.atomic import write_whole
from edgecnn.demonstration.footage import write_footage
from edgecnn.demonstration.report import REPORT, DemoReport
from edgecnn.demonstration.shipped_network import (
    NETWORKS,
    STILLS,
    DemoVerbs,
    Progress,
    can_convert,
    check_video,
    named_progress,
    shipped_formats,
    show_network,
)
from edgecnn.demonstration.stills import write_contact_sheet
from edgecnn.formats import no_runtime, runnable
from edgecnn.json_text import encode_json
from edgecnn.options import Option
from edgecnn.runners.live.sinks import storage_error

FOOTAGE = "footage.mp4"
CONTACT_SHEET = "contact_sheet.jpg"
_SHIPPED_WERE_RUN = "the bundles that ship were run; to convert them here: pip install 'edgecnn[convert]'"


def demo(
    out: Annotated[
        str | Path, Option(help="A folder for bundles, videos, pictures and demo.json.", group=options.MADE)
    ] = "demo",
    *,
    video: Annotated[
        str | Path | None, Option(help="Your own video.", default="the photographs that ship", group=options.MADE)
    ] = None,
    progress: Progress | None = None,
) -> DemoReport:
    """Run the detector and the segmenter that ship with edgecnn on a video, and measure them.

    If torch and the converters are installed, both are first converted to three formats, and every file's answers must
    agree with the torch network's. Otherwise, as on a device, the bundles that ship are run with the installed
    runtimes.

    Args:
        out: a folder for bundles, annotated videos and pictures, and `demo.json`; created if absent.
        video: your own video; default: a camera movement over the photographs that ship.
        progress: called with (steps done, steps in total, current step), stage by stage.

    Raises:
        DataError: `video` is not a readable recording.
        MissingDependencyError: no runtime is installed.
        GateError: a network failed before any conversion.
        StorageError: disk full, or `out` not writable.
    """
    folder = Path(out)
    if video is not None:
        check_video(Path(video), folder)
    converts = can_convert()
    if not converts and not runnable():
        raise no_runtime("running the networks that ship", shipped_formats())
    try:
        (folder / STILLS).mkdir(parents=True, exist_ok=True)
    except OSError as failed:
        raise storage_error(folder, failed) from failed
    if video is None:
        write_footage(folder / FOOTAGE, progress=progress and named_progress(progress, "footage"))
    source = Path(video) if video is not None else folder / FOOTAGE
    networks, tiles = [], []
    verbs = DemoVerbs(convert=convert, run=run, bench=bench)
    formats = shipped_formats() if converts else None
    for word in NETWORKS:
        network, row = show_network(word, folder, source, verbs=verbs, formats=formats, progress=progress)
        networks.append(network)
        tiles += [] if row is None else [row]
    if tiles:
        write_contact_sheet(folder / CONTACT_SHEET, tiles)
    report = DemoReport(
        folder=folder,
        footage=source.name,
        networks=tuple(networks),
        contact_sheet=CONTACT_SHEET if tiles else None,
        remarks=() if converts else (_SHIPPED_WERE_RUN,),
    )
    write_whole(folder / REPORT, encode_json(report.document(), indent=1) + b"\n")
    return report
