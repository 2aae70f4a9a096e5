"""`edgecnn bench`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from edgecnn.cli import _on_options, _output
from edgecnn.errors import SpecError, StorageError

if TYPE_CHECKING:
    from edgecnn._verbs.on_boards import OnBoard
    from edgecnn.measure.latency import BenchFailure, BenchReport, BenchResult
    from edgecnn.measure.machine import Machine

_COLUMNS = (
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
_NOT_ENOUGH = "–"
_LAYERS_SHOWN = 10


def command(
    bundle: Annotated[Path, typer.Argument(help="A NAME.edge folder, or default-detector.", metavar="BUNDLE")],
    device: Annotated[str, typer.Option(help="cpu, gpu, npu, auto, or RUNTIME:DEVICE.")] = "cpu",
    format: Annotated[  # noqa: A002
        str | None, typer.Option(help="Only openvino, onnx or tflite; default: all whose runtime is here.")
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="Only fp32, fp16 or int8; bf16 runs OpenVINO's fp32 in it.")
    ] = None,
    threads: Annotated[
        str | None, typer.Option(help="Of one inference; several to compare: 1,2,4. Default: all cores.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Pictures to look at: an image, a folder, a video. Default: ours.")
    ] = None,
    picture_size: Annotated[
        str, typer.Option(help="Width x height to which our own pictures are brought.")
    ] = "640x480",
    profile: Annotated[
        str, typer.Option(help="quick (64 samples, 5 s) or standard (1024 samples, 60 s) for each artifact.")
    ] = "quick",
    iterations: Annotated[int | None, typer.Option(help="Exactly so many samples instead.")] = None,
    duration: Annotated[float | None, typer.Option(help="At least so many seconds instead.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds of silence after which a process is given up.")] = 300.0,
    record: Annotated[bool, typer.Option("--record/--no-record", help="Write the figures into the bundle.")] = True,
    on: _on_options.On = None,
    plot: Annotated[Path | None, typer.Option(help="Write a picture of the distributions: FILE.png.")] = None,
    layers: Annotated[
        bool, typer.Option("--layers", help="Also tell how long each layer takes, by the runtime's own profile.")
    ] = False,
    layers_plot: Annotated[Path | None, typer.Option(help="Write a picture of the slowest layers: FILE.png.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write everything, raw samples included: FILE.json.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: a list, one object an artifact.")] = False,
) -> None:
    """Measure latency: each artifact in a process of its own, in turns, one picture at a time."""
    from edgecnn._verbs.bench import bench
    from edgecnn.measure._figures import check_plotting
    from edgecnn.measure.latency import row

    for path in (plot, layers_plot, report):
        if path is not None and not path.parent.is_dir():
            raise StorageError(f"{path} cannot be written: {path.parent} is not a folder")
    for picture in (plot, layers_plot):
        if picture is not None:
            check_plotting(picture)  # before minutes are spent on measuring
    words: dict[str, Any] = {
        "device": device,
        "format": format,
        "precision": precision,
        "threads": _numbers("threads", threads) if threads is not None else None,
        "data": data,
        "picture_size_px": _size(picture_size),
        "profile": profile,
        "iterations": iterations,
        "duration_s": duration,
        "timeout_s": timeout,
        "record": record,
        "layers": layers or layers_plot is not None,
    }
    if on:
        _bench_on_boards(bundle, on, words, plot=plot, layers_plot=layers_plot, report=report, as_json=as_json)
        return
    with _output.progress_bar("bench") as progress:
        measured = bench(bundle, progress=progress, **words)
    if as_json:
        rows = [row(result, measured.machine) for result in measured.results]
        rows += [row(failure, measured.machine) for failure in measured.failures]
        _output.print_json(rows)
    else:
        _print_report(measured)
        _print_layers(measured)
    _remark(measured)
    _write_files(measured, plot=plot, layers_plot=layers_plot, report=report)
    if measured.failures:
        raise typer.Exit(max(failure.exit_code for failure in measured.failures))


def _bench_on_boards(
    bundle: Path,
    on: list[str],
    words: dict[str, Any],
    *,
    plot: Path | None,
    layers_plot: Path | None,
    report: Path | None,
    as_json: bool,
) -> None:
    """The same on boards: one table, a board's own failure among its rows."""
    from edgecnn._verbs.on_boards import bench_on
    from edgecnn.measure.latency import row

    if len(on) > 1:
        _on_options.refuse_with_several_boards(plot=plot, layers_plot=layers_plot, report=report)
    outcomes = bench_on(bundle, on, status=_on_options.say_status, **words)
    measured = [(outcome.on, outcome.result) for outcome in outcomes if outcome.result is not None]
    if as_json:
        rows: list[dict[str, Any]] = []
        for outcome in outcomes:
            if outcome.result is None:
                rows.append(_on_options.error_row(outcome))
                continue
            machine = outcome.result.machine
            rows += [{"on": outcome.on, **row(one, machine)} for one in outcome.result.results]
            rows += [{"on": outcome.on, **row(one, machine)} for one in outcome.result.failures]
        _output.print_json(rows)
    else:
        _print_boards(outcomes)
    for on_board, one in measured:
        if not as_json:
            _print_layers(one)
        _remark(one, on=on_board if len(on) > 1 else "")
        _write_files(one, plot=plot, layers_plot=layers_plot, report=report)
    code = _on_options.say_errors(outcomes)
    code = max([code, *(failure.exit_code for _, one in measured for failure in one.failures)])
    if code:
        raise typer.Exit(code)


def _print_boards(outcomes: list[OnBoard[BenchReport]]) -> None:
    measured = [(outcome.on, outcome.result) for outcome in outcomes if outcome.result is not None]
    for on, report in measured:
        _output.stdout.print(f"{on}:", markup=False, soft_wrap=True)
        _print_machine(report.machine)
    if not measured:
        return
    # Where nobody asked for threads, each board has its own number, and the row is the same.
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
    from edgecnn.measure.report import plot_layers, plot_report

    if report is not None:
        _write_report(report, measured)
    if plot is not None:
        if measured.results:
            plot_report(measured, plot)
        else:
            _say(f"note: {plot} was not written: nothing was measured", "yellow")
    if layers_plot is not None:
        if any(result.layers for result in measured.results):
            plot_layers(measured, layers_plot)
        else:
            _say(f"note: {layers_plot} was not written: no layers were timed", "yellow")


def _print_machine(machine: Machine) -> None:
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    _output.stdout.print(machine.summary, markup=False, soft_wrap=True)
    _output.stdout.print(
        f"{machine.os}, Linux {machine.kernel}, Python {machine.python}, {versions}",
        markup=False,
        soft_wrap=True,
        style="dim",
    )


def _print_report(measured: BenchReport) -> None:
    _print_machine(measured.machine)
    if not measured.results:
        return
    fastest = measured.fastest
    first = measured.results[0]
    _output.print_table(
        f"{measured.bundle} on {first.device_name}: latency of a picture, in memory → Result "
        f"({first.pictures}; {first.profile})",
        _COLUMNS,
        [_cells(result, result is fastest) for result in measured.results],
        numeric=_COLUMNS[3:-1],
    )


def _print_layers(measured: BenchReport) -> None:
    for result in measured.results:
        if result.layers:
            total_ms = sum(layer.time_ms for layer in result.layers)
            _output.print_table(
                f"{_name(result)}: the slowest of {len(result.layers)} layers, {total_ms:.2f} ms together, profiled",
                ("layer", "operator", "computes", "ms", "share"),
                [
                    (escape(t.name), escape(t.kind), t.computes, f"{t.time_ms:.3f}", f"{t.share:.1%}")
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
    """What else is to be known of a run; `on` says of which, where there are several."""
    where = f"{on}: " if on else ""
    for result in measured.results:
        if result.layers_missing:
            _say(f"note: no layers of {_name(result)}: {result.layers_missing}", "yellow")
        if result.ran_on.simulated:
            _say(f"note: {result.device_name} is simulated: it shows that things work, not how fast they are", "yellow")
        if result.ran_on.operators_elsewhere:
            _say(f"note: {_name(result)} ran on {result.ran_on.summary}", "yellow")
        if result.unstable:
            _say(f"{where}unstable: {_name(result)}: {'; '.join(result.unstable)}", "yellow")
    if measured.machine.emulated:
        _say(f"{where}note: this board is emulated: it shows that things work, not how fast they are", "yellow")
    for note in measured.notes:
        _say(f"{where}note: {note}", "yellow")
    for failure in measured.failures:
        _say(f"{where}{failure.format} {failure.precision}: {failure.error}: {failure.reason}", "red")


def _name(result: BenchResult) -> str:
    return f"{result.format} {result.precision}, threads {result.threads}"


def _say(line: str, style: str) -> None:
    _output.people.print(line, style=style, markup=False, soft_wrap=True)


def _write_report(path: Path, measured: BenchReport) -> None:
    import msgspec

    try:
        path.write_bytes(msgspec.json.encode(measured) + b"\n")
    except OSError as failed:
        raise StorageError(f"{path} is not writable: {failed.strerror}") from failed


def _numbers(option: str, text: str) -> list[int]:
    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        raise SpecError(f"{option} wants whole numbers, as in 1,2,4; got {text!r}") from None


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.lower().partition("x")
    if not (width.isdigit() and height.isdigit()):
        raise SpecError(f"a picture size is WIDTHxHEIGHT, as in 640x480; got {text!r}")
    return int(width), int(height)
