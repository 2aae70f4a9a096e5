"""`edgecnn run`."""

from __future__ import annotations

import contextlib
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer
from rich.text import Text

from edgecnn.cli import _output
from edgecnn.errors import SpecError, StorageError

if TYPE_CHECKING:
    from rich.status import Status

    from edgecnn._verbs.run import RunStart, RunSummary
    from edgecnn.results import Result
    from edgecnn.runners.live import sinks
    from edgecnn.runners.live.frames import Frame

_STAGE_NAMES = {"capture": "capture (wait)", "deliver": "draw, deliver"}


def command(
    bundle: Annotated[Path, typer.Argument(help="A NAME.edge folder, or default-detector.", show_default=False)],
    source: Annotated[
        str | None,
        typer.Argument(help="A picture, a folder of pictures, a video, or as --camera.", show_default=False),
    ] = None,
    camera: Annotated[
        list[str] | None,
        typer.Option(
            help="Camera index, /dev/videoN, csi, rtsp://, http:// (MJPEG), or 'gst: ELEMENT ! ELEMENT'; "
            "may be repeated for several at once.",
            metavar="N|URL",
        ),
    ] = None,
    camera_size: Annotated[str | None, typer.Option(help="Ask cameras for this size.", metavar="WxH")] = None,
    camera_fps: Annotated[float | None, typer.Option(help="Ask cameras for so many frames a second.")] = None,
    camera_format: Annotated[
        str | None, typer.Option(help="Ask cameras for this pixel format: MJPG, YUYV.", metavar="FOURCC")
    ] = None,
    rtsp_transport: Annotated[str | None, typer.Option(help="tcp or udp; default: tcp, which loses nothing.")] = None,
    device: Annotated[str, typer.Option(help="cpu, gpu, npu, auto, or RUNTIME:DEVICE.")] = "cpu",
    format: Annotated[  # noqa: A002
        str | None, typer.Option(help="openvino, onnx or tflite; default: the first that can run here.")
    ] = None,
    precision: Annotated[str | None, typer.Option(help="fp32, fp16, bf16 or int8; default: fp32.")] = None,
    threads: Annotated[int | None, typer.Option(help="Of one inference; default: all cores.")] = None,
    score: Annotated[
        float | None, typer.Option(help="Show boxes above this score; default: the bundle's, usually 0.3.")
    ] = None,
    nms_iou: Annotated[
        float | None, typer.Option(help="Boxes that overlap more are one object; default: usually 0.5.")
    ] = None,
    track: Annotated[
        bool, typer.Option("--track", help="Give objects ids that they keep from frame to frame.")
    ] = False,
    count_line: Annotated[
        list[str] | None,
        typer.Option(help="Count what crosses this line, in pixels; may be repeated.", metavar="[NAME=]x1,y1,x2,y2"),
    ] = None,
    zone: Annotated[
        list[str] | None,
        typer.Option(help="Count what is in this polygon, in pixels; may be repeated.", metavar="[NAME=]x1,y1,x2,y2,…"),
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="Show a window; q ends.")] = False,
    record: Annotated[
        Path | None,
        typer.Option(help="Write annotated video (.mp4, .mkv, .mov, .avi); of pictures, a file or a folder."),
    ] = None,
    jsonl: Annotated[
        str | None, typer.Option(help="Write one JSON object a frame; - is stdout.", metavar="FILE|-")
    ] = None,
    mqtt: Annotated[
        str | None,
        typer.Option(
            help="Publish one JSON object a frame: mqtt://USER:PASSWORD@HOST/TOPIC, or mqtts://.",
            metavar="URL",
            envvar="EDGECNN_MQTT",
        ),
    ] = None,
    mqtt_qos: Annotated[int, typer.Option(help="MQTT's quality of service.", min=0, max=2)] = 0,
    home_assistant: Annotated[
        bool, typer.Option("--home-assistant", help="Announce the run to Home Assistant, over --mqtt.")
    ] = False,
    metrics: Annotated[
        str | None, typer.Option(help="Serve Prometheus metrics; HOST is 127.0.0.1.", metavar="[HOST:]PORT")
    ] = None,
    web: Annotated[
        str | None,
        typer.Option(
            help="Serve a page with the live picture and figures: 127.0.0.1:8088, or as said.", metavar="[[HOST:]PORT]"
        ),
    ] = None,
    web_token: Annotated[
        str | None,
        typer.Option(
            help="What the page's viewers must show; where others reach it, default: one is made and printed.",
            metavar="TOKEN",
            envvar="EDGECNN_WEB_TOKEN",
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Stop after so many frames.")] = None,
    max_age_ms: Annotated[
        float | None, typer.Option(help="Drop results of a live source that are older, rather than deliver them late.")
    ] = None,
    give_up_s: Annotated[
        float | None,
        typer.Option("--give-up-after", help="Seconds without a frame after which a camera is lost; default: never."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Run a network on a camera, a stream, a video or pictures."""
    if (source is None) != bool(camera):
        raise SpecError("give one source: edgecnn run BUNDLE SOURCE, or edgecnn run BUNDLE --camera N|URL")
    if as_json and jsonl == "-":
        raise SpecError("--json and --jsonl - would both write to stdout: give --jsonl a file")
    from edgecnn._verbs.run import run
    from edgecnn.runners.live.capture_spec import CaptureSpec, parse_size
    from edgecnn.runners.live.reconnect import Reconnect

    capture = CaptureSpec(
        size_px=parse_size(camera_size) if camera_size else None,
        fps=camera_fps,
        pixel_format=camera_format,
        rtsp_transport=rtsp_transport,  # type: ignore[arg-type] # CaptureSpec says which words there are
    )
    report = _Report(lines=not as_json and jsonl != "-")
    with report.closing():
        summary = run(
            bundle,
            source if source is not None else camera or (),
            capture=capture,
            device=device,
            format=format,
            precision=precision,
            threads=threads,
            score=score,
            nms_iou=nms_iou,
            track=track,
            count_lines=count_line or (),
            zones=zone or (),
            show=show,
            record=record,
            jsonl=jsonl,
            mqtt=mqtt,
            mqtt_qos=mqtt_qos,
            home_assistant=home_assistant,
            metrics=metrics,
            web=web,
            web_token=web_token,
            sinks=[report],
            limit=limit,
            max_age_ms=max_age_ms,
            reconnect=Reconnect(give_up_s=give_up_s),
            on_state=report.state,
            progress=report.progress,
            on_start=report.start,
        )
    if as_json:
        _output.print_json(summary)
    else:
        with contextlib.redirect_stdout(sys.stderr if jsonl == "-" else sys.stdout):
            _print_summary(summary)
    for remark in summary.remarks:
        _remark(remark)
    for fault in summary.faults:
        _output.people.print(f"failed: {fault}", style="red", markup=False, soft_wrap=True)
    if summary.signal:
        raise typer.Exit(128 + summary.signal)
    if summary.faults:
        raise typer.Exit(StorageError.exit_code)


class _Report:
    """What a person sees: what runs, then a line a picture, a bar for a video, a status for a camera.

    It is a sink, so that its lines come in step with the results.
    """

    shows_only = True

    def __init__(self, *, lines: bool) -> None:
        self._lines = lines
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
        """Leaves the bar or the status line when the block is left."""
        return self._open

    def start(self, start: RunStart) -> None:
        """Say what runs."""
        runner, used, camera = start.runner, start.runner.backend.opened, start.camera
        _output.people.print(
            f"{runner.task.name} {camera.name}: {runner.format} {runner.precision} on {used.summary}",
            markup=False,
            soft_wrap=True,
        )
        if start.page_login_url:
            _output.people.print(f"page: {start.page_login_url}", markup=False, soft_wrap=True, highlight=False)
        self._stills = camera.stills
        if not _output.people.is_terminal:
            return
        if camera.live:
            self._status = self._open.enter_context(_output.people.status("waiting for the first frame"))
        elif not camera.stills:
            self._bar = self._open.enter_context(_output.progress_bar("frames"))

    def state(self, state: str, why: str) -> None:
        """Say that a live source fell silent, is back, or was given up."""
        self._states += 1
        if self._states > 1:  # that the first frame came, the status line shows
            _remark(f"source {state}: {why}")

    def progress(self, done: int, total: int) -> None:
        """Move the bar."""
        if self._bar:
            self._bar(done, total)

    def deliver(self, frame: Frame, result: Result, annotated: sinks.Annotated) -> None:
        """Print a picture's line; refresh a camera's status four times a second."""
        if self._stills:
            if self._lines:
                sys.stdout.write(f"{Path(frame.source).name}: {in_words(result)}\n")
                sys.stdout.flush()
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
            self._status.update(
                Text(
                    f"frame {frame.index}  {rate}  age {frame.age_ns / 1e6:.0f} ms  "
                    f"dropped {sum(self._given.values()) - self._frames}  {in_words(result)}"
                )
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The bar is left by `closing`, after the files are closed."""


def in_words(result: Result) -> str:
    """A result in a few words: "3 person, 1 car", "tabby 0.61, tiger cat 0.21", "road 41 %, sky 22 %"."""
    from edgecnn.results import Classification, Detections, Instances

    if isinstance(result, Classification):
        return ", ".join(f"{label} {score:.2f}" for label, score in result)
    if isinstance(result, Detections | Instances):
        found = result.detections if isinstance(result, Instances) else result
        counts = Counter(found.labels[class_id] for class_id in found.class_ids.tolist())
        words = ", ".join(f"{count} {label}" for label, count in counts.most_common()) or "nothing"
        return "; ".join((words, *(str(count) for count in found.counts)))
    shares = list(result.shares().items())[:5]
    return ", ".join(f"{label} {100 * share:.0f} %" for label, share in shares)


def _print_summary(summary: RunSummary) -> None:
    rows = [
        (_STAGE_NAMES.get(name, name), _ms(stage.p50_ms), _ms(stage.p90_ms), _ms(stage.mean_ms))
        for name, stage in summary.stages.items()
    ]
    rows.append(("age of result", _ms(summary.age.p50_ms), _ms(summary.age.p90_ms), _ms(summary.age.mean_ms)))
    counts = ", ".join(f"{where} {count}" for where, count in summary.dropped.items())
    dropped = f", {sum(summary.dropped.values())} dropped ({counts})" if counts else ""
    headline = f"{summary.frames} frames in {summary.wall_s:.1f} s: {summary.fps:.1f} frames/s{dropped}"
    if summary.ended != "end of source":
        headline += f"; ended: {summary.ended}"
    columns = ("stage, ms", "p50", "p90", "mean")
    sys.stdout.write(f"{headline}\n")  # not the table's title, which would be wrapped to its width
    _output.print_table("", columns, rows, numeric=columns[1:])
    _print_counts(summary)
    for path in summary.written:
        sys.stdout.write(f"written: {path}\n")


def _print_counts(summary: RunSummary) -> None:
    """One table for lines, one for zones, a row a class."""
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


def _remark(text: str) -> None:
    _output.people.print(f"note: {text}", style="yellow", markup=False, soft_wrap=True)
