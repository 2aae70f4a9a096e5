"""`edgecnn run`."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any

from edgecnn import options
from edgecnn.cli import _output
from edgecnn.cli._verb import Verb
from edgecnn.errors import SpecError, StorageError
from edgecnn.options import Option, kinds
from edgecnn.printable import printable
from edgecnn.runners.live.signals import EndsInTime
from edgecnn.runners.live.site.log_lines import log as log_line
from edgecnn.runners.live.site.log_lines import log_to

if TYPE_CHECKING:
    from typing import Self

    from rich.status import Status

    from edgecnn.results import Result
    from edgecnn.runners.live import sinks
    from edgecnn.runners.live.frame import Frame
    from edgecnn.runners.live.run_summary import RunStart, RunSummary

VERB = "edgecnn._verbs.run:run"
TABLES = {"cameras": "edgecnn.cli._site:run_cameras"}
_STAGE_NAMES = {"capture": "capture (wait)", "deliver": "draw, deliver"}
_SOME_UNREADABLE = 1  # exit code: the other pictures were done


def command(
    verb: Verb,
    *,
    source: Annotated[
        str | None,
        Option(
            help="A picture, a folder of pictures, a video, or any source of --camera.",
            kind=kinds.SOURCE,
            metavar="SOURCE",
            positional=True,
            instead_of=("camera",),
        ),
    ] = None,
    camera: Annotated[
        Sequence[str],
        Option(
            help="{sources}; or env:NAME or file:PATH that contains one of these.",
            kind=kinds.SOURCE,
            metavar="N|URL",
            repeat=True,
            group=options.CAMERA,
        ),
    ] = (),
    json: Annotated[options.Json, Option(help="Print the summary as JSON.")] = False,
    check: Annotated[
        bool,
        Option(
            help="For a --config file with [cameras]: check it, print what would run, and open nothing.",
            group=options.OUTPUT,
        ),
    ] = False,
    log: Annotated[
        str | None,
        Option(
            help="Write notes as lines with time, level and camera, as text or JSON; with [cameras], always.",
            kind=kinds.one_of("text", "json"),
            group=options.OUTPUT,
        ),
    ] = None,
) -> int:
    """Run a network on a camera, a stream, a video or pictures."""
    if (source is None) != bool(camera):
        raise SpecError("give one source: edgecnn run BUNDLE SOURCE, or edgecnn run BUNDLE --camera N|URL")
    if check:
        raise SpecError("--check checks a file of cameras: give --config FILE.toml with [cameras.NAME] tables")
    if log is not None:
        log_to(log)
    jsonl = verb["jsonl"]
    if json and jsonl == "-":
        raise SpecError("--json and --jsonl - would both write to stdout: give --jsonl a file")
    with EndsInTime():
        asked = source if source is not None else camera
        return _run(verb, asked, json=json, to_stdout=jsonl == "-", note=_note if log is None else log_line)


def _note(text: str, *, level: int = logging.INFO) -> None:
    if level >= logging.ERROR:
        _output.print_error(text)
    else:
        _output.print_note(text)


def _run(verb: Verb, source: str | Sequence[str], *, json: bool, to_stdout: bool, note: Callable[..., None]) -> int:
    report = _Report(lines=not json and not to_stdout, note=note)
    with report.closing():
        summary = verb(
            source=source,
            sinks=[report, *verb["sinks"]],
            on_state=report.state,
            on_fault=lambda fault: note(f"failed: {fault}", level=logging.WARNING),
            progress=report.progress,
            on_start=report.start,
        )
    if json:
        _output.print_json(summary)
    else:
        with contextlib.redirect_stdout(sys.stderr if to_stdout else sys.stdout):
            _print_summary(summary)
    for remark in summary.remarks:
        note(remark)
    for fault in summary.faults:
        note(f"failed: {fault}", level=logging.ERROR)
    if summary.signal:
        return int(128 + summary.signal)
    if summary.faults:
        return StorageError.exit_code
    return _SOME_UNREADABLE if summary.unreadable else 0


class _Report:
    """Output for people: what runs, then a line for each picture, a bar for a video, a status line for a camera.

    It is a sink, so that its lines are in step with the results.
    """

    shows_only = True

    def __init__(self, *, lines: bool, note: Callable[..., None]) -> None:
        self._lines, self._note = lines, note
        self._open = contextlib.ExitStack()
        self._stills = False
        self._bar: _output.ProgressFunction | None = None
        self._status: Status | None = None
        self._first_ns = 0
        self._next_status_ns = 0
        self._frames = 0
        self._given: dict[str, int] = {}
        self._states = 0

    def closing(self) -> contextlib.ExitStack:
        """Closes the bar or the status line at the end of the block."""
        return self._open

    def start(self, start: RunStart) -> None:
        """Print what runs."""
        runner, used, camera = start.runner, start.runner.backend.opened, start.camera
        _output.print_remark(f"{runner.task.name} {camera.name}: {runner.format} {runner.precision} on {used.summary}")
        if runner.why_chosen:
            _output.print_note(f"{runner.format} {runner.precision}: {runner.why_chosen}")
        if start.page_login_url:
            _output.print_remark(f"page: {start.page_login_url}")
        self._stills = camera.stills
        if not _output.is_terminal(sys.stderr):
            return
        if camera.live:
            from rich.console import Console

            people = Console(stderr=True, highlight=False, markup=False)
            self._status = self._open.enter_context(people.status("waiting for the first frame"))
        elif not camera.stills:
            self._bar = self._open.enter_context(_output.progress_bar("frames"))

    def state(self, state: str, why: str) -> None:
        """Print that a live source fell silent, is back, or was given up."""
        self._states += 1
        if self._states > 1 or state != "live":  # the status line shows the first frame's arrival
            self._note(f"source {state}: {why}", level=logging.INFO if state == "live" else logging.WARNING)

    def progress(self, done: int, total: int) -> None:
        """Move the bar."""
        if self._bar:
            self._bar(done, total)

    def deliver(self, frame: Frame, result: Result, annotated: sinks.Annotated) -> None:
        """Print a picture's line; update a camera's status four times a second."""
        if self._stills:
            if self._lines:
                _output.print_line(printable(f"{Path(frame.source).name}: {result}", lines=False))
            return
        if self._status is None:
            return
        now = time.perf_counter_ns()
        self._first_ns = self._first_ns or now
        self._frames += 1
        self._given[frame.source] = frame.index + 1
        if now >= self._next_status_ns:
            self._next_status_ns = now + 250_000_000
            seconds = (now - self._first_ns) / 1e9
            rate = f"{(self._frames - 1) / seconds:.1f} frames/s" if seconds else ""
            from rich.text import Text

            self._status.update(
                Text(
                    f"frame {frame.index}  {rate}  age {frame.age_ns / 1e6:.0f} ms  "
                    f"dropped {sum(self._given.values()) - self._frames}  {printable(result, lines=False)}"
                )
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The bar is closed by `closing`, after the files are closed."""


def _print_summary(summary: RunSummary) -> None:
    rows = [
        (_STAGE_NAMES.get(name, name), _ms(stage.p50_ms), _ms(stage.p90_ms), _ms(stage.mean_ms))
        for name, stage in summary.stages.items()
    ]
    rows.append(("age of result", _ms(summary.age.p50_ms), _ms(summary.age.p90_ms), _ms(summary.age.mean_ms)))
    counts = ", ".join(f"{where} {count}" for where, count in summary.dropped.items())
    dropped = f", {sum(summary.dropped.values())} dropped ({counts})" if counts else ""
    frames = f"{summary.frames} {'frame' if summary.frames == 1 else 'frames'}"
    headline = f"{frames} in {summary.wall_s:.1f} s: {summary.fps:.1f} frames/s{dropped}"
    if summary.ended != "end of source":
        headline += f"; ended: {summary.ended}"
    columns = ("stage, ms", "p50", "p90", "mean")
    _output.print_line(headline)
    _output.print_table("", columns, rows, numeric=columns[1:])
    _print_counts(summary)
    for path in summary.written:
        _output.print_line(f"written: {printable(path, lines=False)}")


def _print_counts(summary: RunSummary) -> None:
    """One table for lines, one for zones, one row for each class."""
    for kind, first, second in (("line", "in", "out"), ("zone", "inside", "entered")):
        rows = _rows_by_class([count for count in summary.counts if kind in count], kind, first, second)
        if rows:
            _output.print_table("", (kind, "class", first, second), rows, numeric=(first, second))


def _rows_by_class(counts: Sequence[dict[str, Any]], name: str, first: str, second: str) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for count in counts:
        labels = sorted({*count[first], *count[second]}) or [""]
        rows += [(count[name], label, count[first].get(label, 0), count[second].get(label, 0)) for label in labels]
    return rows


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
