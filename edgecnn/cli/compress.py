"""`edgecnn compress`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from edgecnn import options
from edgecnn.cli import _output
from edgecnn.cli._verb import Verb
from edgecnn.options import Option

if TYPE_CHECKING:
    from edgecnn._verbs.compress import Compression, Point

EVALUATED = "evaluate_on"


VERB = "edgecnn._verbs.compress:compress"


def command(verb: Verb, *, json: Annotated[options.Json, Option(help="Print compress.json.")] = False) -> int:
    """Train, prune, fine-tune, convert, quantize and measure as a recipe says; continue after a stop."""
    with _output.progress_bar("reading the recipe") as progress:
        compression = verb(progress=progress)
    if json:
        _output.print_json(compression.document())
    else:
        print_compression(compression)
    for refusal in compression.refused:
        line = f"refused: {refusal.format} {refusal.precision}: {refusal.error}: {refusal.reason}"
        _output.print_error(line)
    if compression.refused:
        return 1
    return max((failure.exit_code for failure in compression.failures), default=0)


def print_compression(compression: Compression) -> None:
    """The final table, and notes about it."""
    from edgecnn.tasks import TASKS

    metric = TASKS.measured_by(compression.metric).metric_names().short if compression.metric else "metric"
    columns = ("", metric, "M MACs", "M params", "MB", "ms", "times faster")
    rows = [_row(point) for point in (*compression.networks, *compression.artifacts)]
    _output.print_table(str(compression.folder), columns, rows, numeric=columns[2:6])
    for line in _footnotes(compression, metric):
        _output.print_line(line)
    _output.print_line(compression.machine.summary, "dim")
    if before := [stage for stage, is_done in compression.before.items() if is_done]:
        _output.print_remark(f"done before, not repeated: {', '.join(before)}")
    for note in compression.notes:
        _output.print_note(note)
    shipped = "nothing passed" if compression.bundle is None else f"to ship: {compression.bundle}"
    _output.print_line(f"{shipped}; figures: {compression.folder / 'compress.json'}")


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
    """What the figures were measured on, and compared with."""
    lines = []
    measured = {(p.measured_on, p.n) for p in (*compression.networks, *compression.artifacts) if p.value is not None}
    for place, n in sorted(measured, key=str):
        what = "used for nothing else" if place == EVALUATED else f"of {place}, which were used for decisions"
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
