"""`edgecnn bench`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from edgecnn.cli import _output
from edgecnn.errors import SpecError, StorageError

if TYPE_CHECKING:
    from edgecnn.measure.latency import BenchReport, BenchResult

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
    from edgecnn.measure.report import plot_layers, plot_report

    for path in (plot, layers_plot, report):
        if path is not None and not path.parent.is_dir():
            raise StorageError(f"{path} cannot be written: {path.parent} is not a folder")
    for picture in (plot, layers_plot):
        if picture is not None:
            check_plotting(picture)  # before minutes are spent on measuring
    with _output.progress_bar("bench") as progress:
        measured = bench(
            bundle,
            device=device,
            format=format,
            precision=precision,
            threads=_numbers("threads", threads) if threads is not None else None,
            data=data,
            picture_size_px=_size(picture_size),
            profile=profile,
            iterations=iterations,
            duration_s=duration,
            timeout_s=timeout,
            record=record,
            layers=layers or layers_plot is not None,
            progress=progress,
        )
    if as_json:
        rows = [row(result, measured.machine) for result in measured.results]
        rows += [row(failure, measured.machine) for failure in measured.failures]
        _output.print_json(rows)
    else:
        _print_report(measured)
        _print_layers(measured)
    _remark(measured)
    if report is not None:
        _write_report(report, measured)
    if plot is not None:
        if measured.results:
            plot_report(measured, plot)
        else:
            _output.people.print(f"note: {plot} was not written: nothing was measured", style="yellow")
    if layers_plot is not None:
        if any(result.layers for result in measured.results):
            plot_layers(measured, layers_plot)
        else:
            _say(f"note: {layers_plot} was not written: no layers were timed", "yellow")
    if measured.failures:
        raise typer.Exit(max(failure.exit_code for failure in measured.failures))


def _print_report(measured: BenchReport) -> None:
    versions = ", ".join(f"{name} {version}" for name, version in measured.machine.versions.items())
    _output.stdout.print(measured.machine.summary, markup=False, soft_wrap=True)
    _output.stdout.print(
        f"{measured.machine.os}, Linux {measured.machine.kernel}, Python {measured.machine.python}, {versions}",
        markup=False,
        soft_wrap=True,
        style="dim",
    )
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


def _remark(measured: BenchReport) -> None:
    for result in measured.results:
        if result.layers_missing:
            _say(f"note: no layers of {_name(result)}: {result.layers_missing}", "yellow")
        if result.ran_on.simulated:
            _say(f"note: {result.device_name} is simulated: it shows that things work, not how fast they are", "yellow")
        if result.ran_on.operators_elsewhere:
            _say(f"note: {_name(result)} ran on {result.ran_on.summary}", "yellow")
        if result.unstable:
            _say(f"unstable: {_name(result)}: {'; '.join(result.unstable)}", "yellow")
    if measured.machine.emulated:
        _say("note: this board is emulated: it shows that things work, not how fast they are", "yellow")
    for note in measured.notes:
        _say(f"note: {note}", "yellow")
    for failure in measured.failures:
        _say(
            f"{failure.format} {failure.precision}: {failure.error}: {failure.reason}",
            "red",
        )


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
