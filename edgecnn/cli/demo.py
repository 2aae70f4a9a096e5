"""`edgecnn demo`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgecnn.cli import _output

if TYPE_CHECKING:
    from edgecnn._verbs._demo_report import DemoReport, NetworkReport
    from edgecnn.bundle import Artifact
    from edgecnn.measure.latency import BenchReport


def command(
    out: Annotated[Path, typer.Option(help="Folder for bundles, videos, pictures and demo.json.")] = Path("demo"),
    video: Annotated[
        Path | None, typer.Option(help="Your own footage; default: the photographs that ship.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what demo.json holds.")] = False,
) -> int:
    """Run the detector and the segmenter that ship with edgecnn on footage, and measure them."""
    from edgecnn._verbs.demo import demo

    with _output.progress_bar("loading") as progress:
        report = demo(out, video=video, progress=progress)
    if as_json:
        _output.print_json(report.document())
    else:
        for network in report.networks:
            _print(network)
        _print_end(report)
    for remark in report.remarks:
        _output.people.print(f"note: {remark}", style="yellow", markup=False, soft_wrap=True)
    return 0 if report.whole else 1


def _print(network: NetworkReport) -> None:
    for refusal in network.refused:
        _output.people.print(
            f"{network.word}: refused: {refusal.format} {refusal.precision}: {refusal.reason}",
            style="red",
            markup=False,
            soft_wrap=True,
        )
    for left_out in network.left_out:
        _output.people.print(
            f"{network.word}: {left_out.format} {left_out.precision} is left out: {left_out.reason}",
            style="yellow",
            markup=False,
            soft_wrap=True,
        )
    if network.bench is None:
        return
    ran = list(dict.fromkeys((still.format, still.precision) for still in network.stills))
    says = {(still.photograph, still.format, still.precision): still.says for still in network.stills}
    names = list(dict.fromkeys(still.photograph for still in network.stills))
    _output.print_table(
        f"{network.word}: what it says",
        ("photograph", *(" ".join(artifact) for artifact in ran)),
        [(name, *(says[name, *artifact] for artifact in ran)) for name in names],
    )
    _print_latency(network, network.bench)


def _print_latency(network: NetworkReport, bench: BenchReport) -> None:
    artifacts = {(a.format, a.precision): a for a in network.artifacts}
    columns = ("format", "error", "p50 ms", "p90 ms", "fit", "infer", "finish", "cold ms")
    rows = [
        (
            f"{result.format} {result.precision}",
            _error(artifacts.get((result.format, result.precision))),
            *("–" if ms is None else f"{ms:.2f}" for ms in (result.p50_ms, result.p90_ms)),
            *(f"{ms:.2f}" for ms in result.stages.values()),
            f"{result.cold_ms:.0f}",
        )
        for result in bench.results
    ]
    _output.print_table(f"{network.word}: latency of a picture", columns, rows, numeric=columns[1:])
    for result in bench.results:
        if result.unstable:
            _output.people.print(
                f"unstable: {result.format} {result.precision}: {'; '.join(result.unstable)}",
                style="yellow",
                markup=False,
                soft_wrap=True,
            )
    for failure in bench.failures:
        _output.people.print(
            f"{failure.format} {failure.precision}: {failure.reason}", style="red", markup=False, soft_wrap=True
        )


def _print_end(report: DemoReport) -> None:
    bench = next((network.bench for network in report.networks if network.bench is not None), None)
    if bench is not None:
        _output.stdout.print(
            "error: largest difference from the torch network, relative;\np50, p90: picture in memory → result; "
            "fit, infer, finish: its stages;\ncold: open → first result",
            style="dim",
        )
        _output.stdout.print(bench.machine.summary, markup=False, soft_wrap=True, style="dim")
    videos = [network.video.path for network in report.networks if network.video is not None]
    stills = sum(len(network.stills) for network in report.networks)
    written = ["demo.json", *videos, *filter(None, [report.contact_sheet])]
    _output.stdout.print(
        f"written in {report.folder}: {', '.join(written)}, and {stills} stills", markup=False, soft_wrap=True
    )


def _error(artifact: Artifact | None) -> str:
    parity = artifact.evidence.parity if artifact else None
    return f"{parity.max_rel_err:.1e}" if parity else ""
