"""`edgecnn run --config FILE.toml` with [cameras.NAME] tables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecnn.cli import _output
from edgecnn.errors import DeviceError, SpecError

if TYPE_CHECKING:
    from edgecnn.runners.live.site.plan import CameraPlan, SitePlan
    from edgecnn.runners.live.site.site import Site, SiteSummary

_OWN = ("json", "check", "log")


def run_cameras(file: Path, given: Mapping[str, Any]) -> int:
    """Check the file, and run its cameras; returns the exit code."""
    from edgecnn._verbs.run_site import checked_plan, run_site
    from edgecnn.runners.live.signals import EndsInTime
    from edgecnn.runners.live.site.log_lines import log, log_to

    if refused := [key for key in ("source", "camera", "show") if given.get(key)]:
        raise SpecError(f"{refused[0]} is given for a file of cameras: each camera's source is in its table")
    options = {key: value for key, value in given.items() if key not in _OWN}
    if given.get("check"):
        plan = checked_plan(file, given=options)
        _print_plan(plan, json=bool(given.get("json")))
        return 0
    log_to(given.get("log") or "text")

    def started(site: Site) -> None:
        log(f"{_count(len(site.plan.cameras), 'camera')} of {file}")

    with EndsInTime():
        summary = run_site(file, given=options, on_start=started)
    if given.get("json"):
        _output.print_json(summary)
    else:
        _print_summary(summary)
    if summary.signal:
        return int(128 + summary.signal)
    return DeviceError.exit_code if summary.faults else 0


def _print_plan(plan: SitePlan, *, json: bool) -> None:
    rows = [_row(camera) for camera in plan.cameras]
    if json:
        _output.print_json({"cameras": rows, "web": plan.web, "metrics": plan.metrics})
        return
    columns = ("camera", "source", "network", "objects", "zones, lines", "sinks")
    _output.print_table("", columns, [tuple(row.values()) for row in rows])
    _output.print_line(f"{_count(len(rows), 'camera')}, {_count(len(plan.networks()), 'network')}; nothing was opened")


def _row(camera: CameraPlan) -> dict[str, str]:
    objects, sinks = camera.objects, camera.sinks
    chosen = [*objects.selection.classes] or ["all"]
    scores = [f"{label} > {score:g}" for label, score in objects.selection.class_scores.items()]
    if (score := camera.thresholds.get("score")) is not None:
        scores.insert(0, f"> {score:g}")
    places = [text.partition("=")[0] for text in (*objects.zones, *objects.count_lines)]
    return {
        "camera": camera.name,
        "source": camera.source,
        "network": camera.network.bundle,
        "objects": ", ".join([*chosen, *scores]),
        "places": ", ".join(places),
        "sinks": ", ".join([*sinks.asked, *(str(each).partition("=")[0] for each in sinks.more)]),
    }


def _print_summary(summary: SiteSummary) -> None:
    rows = [
        (name, each.frames, f"{each.fps:.1f}", sum(each.dropped.values()), each.ended)
        if each
        else (name, 0, "", 0, "never ran")
        for name, each in summary.cameras.items()
    ]
    columns = ("camera", "frames", "frames/s", "dropped", "ended")
    _output.print_table("", columns, rows, numeric=columns[1:4])
    for name, fault in summary.faults.items():
        _output.print_error(f"{name}: failed: {fault}")


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
