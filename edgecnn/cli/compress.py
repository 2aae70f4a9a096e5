"""`edgecnn compress`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgecnn.cli import _output

if TYPE_CHECKING:
    from edgecnn._verbs.compress import Compression, Point

EVALUATED = "evaluate_on"
_METRIC_NAMES = {"map": "AP", "miou": "mean IoU", "top1": "top-1"}


def command(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE.toml", help="The network, the data, and the stages.")],
    out: Annotated[
        Path | None,
        typer.Option(help="A folder for networks, bundle and figures; default: the recipe's name.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what compress.json holds.")] = False,
) -> int:
    """Train, prune, fine-tune, convert, quantize and measure, as a recipe says; go on where it was stopped."""
    from edgecnn._verbs.compress import compress

    with _output.progress_bar("reading the recipe") as progress:
        compression = compress(recipe, out=out, progress=progress)
    if as_json:
        _output.print_json(compression.document())
    else:
        print_compression(compression)
    for refusal in compression.refused:
        line = f"refused: {refusal.format} {refusal.precision}: {refusal.error}: {refusal.reason}"
        _output.people.print(line, style="red", markup=False, soft_wrap=True)
    if compression.refused:
        return 1
    return max((failure.exit_code for failure in compression.failures), default=0)


def print_compression(compression: Compression) -> None:
    """The closing table, and what to know of it."""
    metric = _METRIC_NAMES.get(compression.metric, "metric")
    columns = ("", metric, "M MACs", "M params", "MB", "ms", "times faster")
    rows = [_row(point) for point in (*compression.networks, *compression.artifacts)]
    _output.print_table(str(compression.folder), columns, rows, numeric=columns[2:6])
    for line in _footnotes(compression, metric):
        _output.stdout.print(line, markup=False, soft_wrap=True)
    _output.stdout.print(compression.machine.summary, markup=False, soft_wrap=True, style="dim")
    if before := [stage for stage, is_done in compression.before.items() if is_done]:
        _output.people.print(f"done before, and not again: {', '.join(before)}", markup=False, soft_wrap=True)
    for note in compression.notes:
        _output.people.print(f"note: {note}", style="yellow", markup=False, soft_wrap=True)
    shipped = "nothing passed" if compression.bundle is None else f"to ship: {compression.bundle}"
    _output.stdout.print(f"{shipped}; figures: {compression.folder / 'compress.json'}", markup=False, soft_wrap=True)


def _row(point: Point) -> tuple[object, ...]:
    value = "" if point.value is None else f"{point.value:.4f}"
    if point.low is not None:
        value += f"\n[{point.low:.3f}, {point.high:.3f}]"
    faster = "" if point.times_faster is None else f"{point.times_faster:.2f}x"
    if point.times_faster is not None and point.times_faster_low != point.times_faster_high:
        faster += f"\n[{point.times_faster_low:.2f}, {point.times_faster_high:.2f}]"
    return (
        point.name,
        value,
        "" if point.macs is None else f"{point.macs / 1e6:.1f}",
        "" if point.parameters is None else f"{point.parameters / 1e6:.2f}",
        f"{point.file_bytes / 1e6:.2f}",
        "" if point.latency_ms is None else f"{point.latency_ms:.2f}",
        faster,
    )


def _footnotes(compression: Compression, metric: str) -> list[str]:
    """What the figures were measured on, and beside what."""
    lines = []
    measured = {(p.measured_on, p.n) for p in (*compression.networks, *compression.artifacts) if p.value is not None}
    for place, n in sorted(measured, key=str):
        what = "that took part in nothing else" if place == EVALUATED else f"of {place}: they took part in decisions"
        lines.append(f"{metric}: on {n} pictures {what}")
    timed = next((point for point in compression.networks if point.latency_ms is not None), None)
    if timed is not None:
        lines.append(f"ms: median of a picture, all in turns; networks as {timed.format} {timed.precision}")
    unpruned = [(p.latency_ms, p) for p in compression.baselines if p.latency_ms is not None]
    if unpruned:
        fastest = min(unpruned, key=lambda pair: pair[0])[1]
        others = ", ".join(f"{point.format} {ms:.2f}" for ms, point in unpruned)
        lines.append(
            f"times faster: than {fastest.stage} as {fastest.format} fp32, its fastest ({others} ms), "
            "with a 95 % interval"
        )
    return lines
