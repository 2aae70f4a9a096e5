"""`edgecnn bench`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from edgecnn import options
from edgecnn.cli import _on_options, _output
from edgecnn.cli._verb import Verb
from edgecnn.errors import StorageError
from edgecnn.options import Option

if TYPE_CHECKING:
    from edgecnn.flow.boards import OnBoard
    from edgecnn.measure.latency import BenchFailure, BenchReport, BenchResult
    from edgecnn.measure.machine import Machine
    from edgecnn.measure.speed_difference import Measured

COLUMNS = (
    "",
    "format",
    "precision",
    "threads",
    "n",
    "p50 ms",
    "p90 ms",
    "p99 ms",
    "fit",
    "infer",
    "finish",
    "cold ms",
    "peak MB",
    "file MB",
    "remark",
)
KEYS = 4  # columns that name a row
_NOT_ENOUGH = "–"
_LAYERS_SHOWN = 10


VERB = "edgecnn._verbs.bench:bench"


def command(
    verb: Verb,
    *,
    on: options.On = (),
    plot: Annotated[
        Path | None, Option(help="Draw the distributions: FILE.png.", metavar="FILE.png", group=options.OUTPUT)
    ] = None,
    layers_plot: Annotated[
        Path | None, Option(help="Draw the slowest layers: FILE.png.", metavar="FILE.png", group=options.OUTPUT)
    ] = None,
    report: Annotated[
        Path | None,
        Option(help="Write everything, raw samples included: FILE.json.", metavar="FILE.json", group=options.OUTPUT),
    ] = None,
    baseline: Annotated[
        Path | None,
        Option(
            help="Compare with an earlier FILE.json of `bench --json` or --report; exit code 1 if slower.",
            metavar="FILE.json",
            group=options.OUTPUT,
        ),
    ] = None,
    allow_percent: options.AllowPercent = 0.0,
    json: Annotated[options.Json, Option(help="Print JSON: a list, one object an artifact.")] = False,
) -> int:
    """Measure latency: each artifact in its own process, in turns, one picture at a time."""
    from edgecnn.measure.latency import row
    from edgecnn.measure.speed_difference import read_measured, share_of
    from edgecnn.report.figures import check_plotting

    before = None if baseline is None else read_measured(baseline)
    allowed = share_of(allow_percent)
    for path in (plot, layers_plot, report):
        if path is not None and not path.parent.is_dir():
            raise StorageError(f"{path} cannot be written: {path.parent} is not a folder")
    for picture in (plot, layers_plot):
        if picture is not None:
            check_plotting(picture)  # before minutes of measuring
    words = {"layers": True} if layers_plot is not None else {}
    files = {"plot": plot, "layers_plot": layers_plot, "report": report}
    if on:
        rows, code = _bench_on_boards({**verb.words(), **words}, on, files, as_json=json)
        return max(code, _compare(before, rows, allowed, as_json=json))
    with _output.progress_bar("bench") as progress:
        measured = verb(progress=progress, **words)
    rows = [row(outcome, measured.machine) for outcome in (*measured.results, *measured.failures)]
    if json:
        _output.print_json(rows)
    else:
        _print_report(measured)
        _print_layers(measured)
    _remark(measured)
    _write_files(measured, **files)
    code = max((failure.exit_code for failure in measured.failures), default=0)
    return max(code, _compare(before, rows, allowed, as_json=json))


def _compare(before: Measured | None, rows: list[dict[str, Any]], allowed: float, *, as_json: bool) -> int:
    """Compare with the earlier measurement; returns the exit code."""
    if before is None:
        return 0
    from edgecnn.cli.compare import print_comparison, print_verdict
    from edgecnn.measure.speed_difference import compare_measured, of_document

    comparison = compare_measured(before, of_document("this measurement", rows), allowed=allowed)
    if not as_json:
        print_comparison(comparison)
    return print_verdict(comparison)


def _bench_on_boards(
    words: dict[str, Any], on: Sequence[str], files: dict[str, Path | None], *, as_json: bool
) -> tuple[list[dict[str, Any]], int]:
    """The same on boards: one table with failed boards among its rows; returns the rows and the exit code."""
    from edgecnn._verbs.on_boards import bench_on
    from edgecnn.measure.latency import row

    if len(on) > 1:
        _on_options.refuse_with_several_boards(**files)
    outcomes = bench_on(words.pop("bundle"), on, status=_on_options.print_status, **words)
    measured = [(outcome.on, outcome.result) for outcome in outcomes if outcome.result is not None]
    rows: list[dict[str, Any]] = []
    for outcome in outcomes:
        if outcome.result is None:
            rows.append(_on_options.error_row(outcome))
            continue
        machine = outcome.result.machine
        rows += [{"on": outcome.on, **row(one, machine)} for one in outcome.result.results]
        rows += [{"on": outcome.on, **row(one, machine)} for one in outcome.result.failures]
    if as_json:
        _output.print_json(rows)
    else:
        _print_boards(outcomes)
    for on_board, one in measured:
        if not as_json:
            _print_layers(one)
        _remark(one, on=on_board if len(on) > 1 else "")
        _write_files(one, **files)
    code = _on_options.print_errors(outcomes)
    return rows, max([code, *(failure.exit_code for _, one in measured for failure in one.failures)])


def _print_boards(outcomes: list[OnBoard[BenchReport]]) -> None:
    measured = [(outcome.on, outcome.result) for outcome in outcomes if outcome.result is not None]
    for on, report in measured:
        _output.print_line(f"{on}:")
        _print_machine(report.machine)
    if not measured:
        return
    # Without --threads, each board has its own number, and the row is the same.
    counts = [{*(r.threads for r in report.results), *(f.threads for f in report.failures)} for _, report in measured]
    several = any(len(threads) > 1 for threads in counts)

    def what(each: BenchResult | BenchFailure) -> tuple[str, ...]:
        return (each.format, each.precision, *([str(each.threads)] if several else []))

    cells: dict[tuple[str, ...], dict[str, str]] = {}
    for on, report in measured:
        for result in report.results:
            cells.setdefault(what(result), {})[on] = _latencies(result, result is report.fastest)
        for failure in report.failures:
            cells.setdefault(what(failure), {})[on] = "failed"
    boards = [on for on, _ in measured]
    report = measured[0][1]
    pictures = f" ({report.results[0].pictures}; {report.results[0].profile})" if report.results else ""
    _output.print_table(
        f"{report.bundle}: p50 / p90 in ms of a picture, in memory → Result{pictures}",
        ("format", "precision", *(["threads"] if several else []), *(on.removeprefix("ssh://") for on in boards)),
        [(*row, *(held.get(on, "") for on in boards)) for row, held in cells.items()],
        numeric=[on.removeprefix("ssh://") for on in boards],
    )


def _latencies(result: BenchResult, is_fastest: bool) -> str:
    figures = [_NOT_ENOUGH if ms is None else f"{ms:.2f}" for ms in (result.p50_ms, result.p90_ms)]
    return ("★ " if is_fastest else "") + " / ".join(figures)


def _write_files(measured: BenchReport, *, plot: Path | None, layers_plot: Path | None, report: Path | None) -> None:
    from edgecnn.report.latency import plot_layers, plot_report, write_report

    if report is not None:
        write_report(measured, report)
    if plot is not None:
        if measured.results:
            plot_report(measured, plot)
        else:
            _output.print_note(f"{plot} was not written: there are no measurements")
    if layers_plot is not None:
        if any(result.layers for result in measured.results):
            plot_layers(measured, layers_plot)
        else:
            _output.print_note(f"{layers_plot} was not written: no layers were timed")


def _print_machine(machine: Machine) -> None:
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    _output.print_line(machine.summary)
    _output.print_line(f"{machine.os}, Linux {machine.kernel}, Python {machine.python}, {versions}", "dim")


def _print_report(measured: BenchReport) -> None:
    _print_machine(measured.machine)
    if not measured.results:
        return
    fastest = measured.fastest
    first = measured.results[0]
    _output.print_table(
        f"{measured.bundle} on {first.device_name}: latency of a picture, in memory → Result "
        f"({first.pictures}; {first.profile})",
        COLUMNS,
        [_cells(result, result is fastest) for result in measured.results],
        numeric=COLUMNS[3:-1],
        keys=KEYS,
    )


def _print_layers(measured: BenchReport) -> None:
    for result in measured.results:
        if result.layers:
            total_ms = sum(layer.time_ms for layer in result.layers)
            _output.print_table(
                f"{_name(result)}: the slowest of {len(result.layers)} layers, {total_ms:.2f} ms together, profiled",
                ("layer", "operator", "computes", "ms", "share"),
                [
                    (t.name, t.kind, t.computes, f"{t.time_ms:.3f}", f"{t.share:.1%}")
                    for t in result.layers[:_LAYERS_SHOWN]
                ],
                numeric=("ms", "share"),
            )


def _cells(result: BenchResult, is_fastest: bool) -> tuple[object, ...]:
    return (
        "★" if is_fastest else "",
        result.format,
        result.precision,
        result.threads,
        result.n,
        *(_NOT_ENOUGH if ms is None else f"{ms:.2f}" for ms in (result.p50_ms, result.p90_ms, result.p99_ms)),
        *(f"{ms:.2f}" for ms in result.stages.values()),
        f"{result.cold_ms:.0f}",
        f"{result.peak_rss_mb:.0f}",
        f"{result.file_bytes / 1e6:.1f}",
        "unstable" if result.unstable else "",
    )


def _remark(measured: BenchReport, *, on: str = "") -> None:
    """Print notes about a run; `on` names the board if there are several."""
    where = f"{on}: " if on else ""
    for result in measured.results:
        if result.layers_missing:
            _output.print_note(f"no layers of {_name(result)}: {result.layers_missing}")
        if result.ran_on.simulated:
            _output.print_note(f"{result.device_name} is simulated: it shows that things work, not how fast they are")
        if result.ran_on.operators_elsewhere:
            _output.print_note(f"{_name(result)} ran on {result.ran_on.summary}")
        if result.unstable:
            _output.print_remark(f"{where}unstable: {_name(result)}: {'; '.join(result.unstable)}", "yellow")
    if measured.machine.emulated:
        _output.print_remark(
            f"{where}note: this board is emulated: it shows that things work, not how fast they are", "yellow"
        )
    for note in measured.notes:
        _output.print_remark(f"{where}note: {note}", "yellow")
    for failure in measured.failures:
        _output.print_error(f"{where}{failure.format} {failure.precision}: {failure.error}: {failure.reason}")


def _name(result: BenchResult) -> str:
    return f"{result.format} {result.precision}, threads {result.threads}"
