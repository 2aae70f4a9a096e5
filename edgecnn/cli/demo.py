"""`edgecnn demo`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgecnn.cli import _output

if TYPE_CHECKING:
    from edgecnn._verbs.demo import DemoReport
    from edgecnn.bundle import Artifact


def command(
    out: Annotated[Path, typer.Option(help="Folder for pictures, bundle and demo.json.")] = Path("demo"),
    as_json: Annotated[bool, typer.Option("--json", help="Print what demo.json holds.")] = False,
) -> int:
    """Convert a trained network to three formats, run each on photographs, and measure it."""
    from edgecnn._verbs.demo import REPORT, demo

    with _output.progress_bar("loading") as progress:
        report = demo(out, progress=progress)
    if as_json:
        _output.print_json(report.document())
    else:
        _print(report)
        _output.stdout.print(f"written: {report.folder / REPORT} and {len(report.pictures)} pictures", markup=False)
    return 1 if report.refused or report.bench is None or report.bench.failures else 0


def _print(report: DemoReport) -> None:
    for refusal in report.refused:
        _output.people.print(
            f"refused: {refusal.format} {refusal.precision}: {refusal.reason}", style="red", markup=False
        )
    if report.bench is None:
        return
    formats = list(dict.fromkeys(picture.format for picture in report.pictures))
    said = {(picture.photograph, picture.format): _first(picture.result) for picture in report.pictures}
    names = list(dict.fromkeys(picture.photograph for picture in report.pictures))
    _output.print_table(
        "What each format says", ("photograph", *formats), [(n, *(said[n, f] for f in formats)) for n in names]
    )
    artifacts = {(a.format, a.precision): a for a in report.artifacts}
    columns = ("format", "error", "p50 ms", "p90 ms", "fit", "infer", "finish", "cold ms")
    rows = [
        (
            f"{result.format} {result.precision}",
            _error(artifacts.get((result.format, result.precision))),
            *("–" if ms is None else f"{ms:.2f}" for ms in (result.p50_ms, result.p90_ms)),
            *(f"{ms:.2f}" for ms in result.stages.values()),
            f"{result.cold_ms:.0f}",
        )
        for result in report.bench.results
    ]
    _output.print_table(f"{report.bench.bundle}: latency of a picture", columns, rows, numeric=columns[1:])
    _output.stdout.print(
        "error: largest difference from the torch network, relative;\np50, p90: picture in memory → result; "
        "fit, infer, finish: its stages;\ncold: open → first result",
        style="dim",
    )
    _output.stdout.print(report.bench.machine.summary, markup=False, soft_wrap=True, style="dim")
    for result in report.bench.results:
        if result.unstable:
            _output.people.print(
                f"unstable: {result.format}: {'; '.join(result.unstable)}", style="yellow", markup=False, soft_wrap=True
            )
    for failure in report.bench.failures:
        _output.people.print(f"{failure.format}: {failure.reason}", style="red", markup=False, soft_wrap=True)


def _first(result: dict[str, Any]) -> str:
    """The first class, or how many objects or regions there are."""
    if "classes" in result:
        best = result["classes"][0]
        return f"{best['label']} {best['score']:.2f}"
    found = result.get("detections", result.get("segments", []))
    return ", ".join(dict.fromkeys(each["label"] for each in found)) or "nothing"


def _error(artifact: Artifact | None) -> str:
    parity = artifact.evidence.parity if artifact else None
    return f"{parity.max_rel_err:.1e}" if parity else ""
