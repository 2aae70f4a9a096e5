"""`edgecnn demo`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from edgecnn import options
from edgecnn.cli import _output
from edgecnn.cli._verb import Verb
from edgecnn.options import Option

if TYPE_CHECKING:
    from edgecnn.bundle import Artifact
    from edgecnn.demonstration.report import DemoReport, NetworkReport
    from edgecnn.measure.latency import BenchReport


VERB = "edgecnn._verbs.demo:demo"


def command(verb: Verb, *, json: Annotated[options.Json, Option(help="Print demo.json.")] = False) -> int:
    """Run the detector and the segmenter that ship with edgecnn on a video, and measure them."""
    with _output.progress_bar("loading") as progress:
        report = verb(progress=progress)
    if json:
        _output.print_json(report.document())
    else:
        for network in report.networks:
            _print(network)
        _print_end(report)
    for remark in report.remarks:
        _output.print_note(remark)
    return 0 if report.whole else 1


def _print(network: NetworkReport) -> None:
    for refusal in network.refused:
        _output.print_error(f"{network.word}: refused: {refusal.format} {refusal.precision}: {refusal.reason}")
    for left_out in network.left_out:
        what = f"{network.word}: {left_out.format} {left_out.precision}"
        _output.print_remark(f"{what} is skipped: {left_out.reason}", "yellow")
    if network.bench is None:
        return
    ran = list(dict.fromkeys((still.format, still.precision) for still in network.stills))
    answers = {(still.photograph, still.format, still.precision): still.says for still in network.stills}
    names = list(dict.fromkeys(still.photograph for still in network.stills))
    _output.print_table(
        f"{network.word}: results",
        ("photograph", *(" ".join(artifact) for artifact in ran)),
        [(name, *(answers[(name, *artifact)] for artifact in ran)) for name in names],
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
            what = f"{result.format} {result.precision}"
            _output.print_remark(f"unstable: {what}: {'; '.join(result.unstable)}", "yellow")
    for failure in bench.failures:
        _output.print_error(f"{failure.format} {failure.precision}: {failure.reason}")


def _print_end(report: DemoReport) -> None:
    bench = next((network.bench for network in report.networks if network.bench is not None), None)
    if bench is not None:
        _output.print_line(
            "error: largest difference from the torch network, relative;\np50, p90: picture in memory → result; "
            "fit, infer, finish: its stages;\ncold: open → first result",
            "dim",
        )
        _output.print_line(bench.machine.summary, "dim")
    videos = [network.video.path for network in report.networks if network.video is not None]
    stills = sum(len(network.stills) for network in report.networks)
    written = ["demo.json", *videos, *filter(None, [report.contact_sheet])]
    _output.print_line(
        f"written in {report.folder}: {', '.join(written)}, and {stills} {'still' if stills == 1 else 'stills'}"
    )


def _error(artifact: Artifact | None) -> str:
    parity = artifact.evidence.parity if artifact else None
    return f"{parity.max_rel_err:.1e}" if parity else ""
