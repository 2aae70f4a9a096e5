"""`edgecnn data`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgecnn import options
from edgecnn.cli import _output
from edgecnn.cli._verb import Verb

if TYPE_CHECKING:
    from edgecnn.datasets.data_report import DataReport
    from edgecnn.datasets.summary import PartSummary

_CLASSES_SHOWN = 20
_SOMETHING_WRONG = 1  # exit code


VERB = "edgecnn._verbs.data:check_data"


def command(verb: Verb, *, json: options.Json = False) -> int:
    """Check labelled pictures before training: splits, classes, sizes, and what looks wrong (exit code 1)."""
    with _output.progress_bar("reading pictures") as progress:
        report: DataReport = verb(progress=progress)
    if json:
        _output.print_json(report)
    else:
        _print(report)
    return _SOMETHING_WRONG if report.wrong else 0


def _print(report: DataReport) -> None:
    also = f"; it also has labels for: {', '.join(report.other_tasks)}" if report.other_tasks else ""
    _output.print_line(f"{report.data}, labels for: {report.task}{also}")
    opened = [part for part in report.parts if part.error is None]
    if opened:
        rows = [(_name(part), _defined_by(part), part.pictures, *_figures(part)) for part in opened]
        columns = ("split", "by", "pictures", "objects or void", "sizes")
        _output.print_table("parts", columns, rows, numeric=("pictures",))
        _print_classes(opened)
    for part in report.parts:
        if part.error is not None:
            _warn(f"{_name(part)}: {part.error}", wrong=True)
        for reason, count in part.left_out.items():
            _warn(f"{_name(part)}: left out: {count} {reason}", wrong=False)
        for remark in part.remarks:
            _warn(f"{_name(part)}: {remark}", wrong=False)
        for finding in part.findings:
            _warn(f"{_name(part)}: {finding}", wrong=finding.wrong)
    for finding in report.findings:
        _warn(str(finding), wrong=finding.wrong)
    if not report.wrong:
        _output.print_line("nothing in it is certainly wrong")
    if report.grid is not None:
        _output.print_line(f"pictures with their labels: {report.grid}")


def _name(part: PartSummary) -> str:
    return part.split or "all"


def _defined_by(part: PartSummary) -> str:
    return part.defined_by if part.split else part.form


def _figures(part: PartSummary) -> tuple[str, str]:
    sizes = "" if part.picture_px is None else "{0[0]}x{0[1]} … {1[0]}x{1[1]} px".format(*part.picture_px)
    if part.void_share is not None:
        return f"{part.void_share:.1%} void", sizes
    if part.objects is None or part.box_side_px is None:
        return "", sizes
    small, medium, large = (part.box_sizes[name] for name in ("small", "medium", "large"))
    low, middle, high = part.box_side_px
    return (
        f"{part.objects}: {small} small, {medium} medium, {large} large",
        f"sides {low:.0f} … {middle:.0f} … {high:.0f} px",
    )


def _print_classes(parts: list[PartSummary]) -> None:
    """How often each class occurs in each split; without the rarest of many."""
    names = list(dict.fromkeys(name for part in parts for name in part.per_class))
    often = sorted(names, key=lambda name: -sum(part.per_class.get(name, 0) for part in parts))
    shown = often[:_CLASSES_SHOWN]
    rows = [(name, *(_count(part.per_class.get(name, 0), part) for part in parts)) for name in shown]
    if len(often) > len(shown):
        rows.append((f"… {len(often) - len(shown)} more", *("" for _ in parts)))
    columns = ("class", *(_name(part) for part in parts))
    what = "share of pixels" if parts[0].void_share is not None else "objects"
    _output.print_table(f"classes: {what}", columns, rows, numeric=columns[1:])


def _count(value: float, part: PartSummary) -> str:
    return f"{value:.2%}" if part.void_share is not None else f"{value:.0f}"


def _warn(text: str, *, wrong: bool) -> None:
    if wrong:
        _output.print_error(f"wrong: {text}")
    else:
        _output.print_note(text)
