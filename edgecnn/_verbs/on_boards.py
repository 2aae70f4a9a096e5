"""`bench`, `evaluate` and `devices` on other machines through SSH: same arguments, evidence comes back."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec

from edgecnn.bundle import Bundle
from edgecnn.datasets import open_dataset
from edgecnn.flow.boards import (
    OnBoard,
    Status,
    artifacts_to_send,
    as_options,
    ask_boards,
    board_addresses,
    extras_for,
)
from edgecnn.flow.evaluation import Evaluation
from edgecnn.formats import FORMATS
from edgecnn.formats.devices import parse_device
from edgecnn.measure.devices_report import DevicesReport
from edgecnn.measure.latency import BenchReport
from edgecnn.measure.latency_evidence import record_latency
from edgecnn.measure.timed_pictures import PICTURE_SIZE_PX
from edgecnn.measure.timing import DEFAULT_TIMEOUT_S
from edgecnn.runners.choose import choose_artifact
from edgecnn.runners.remote import answers
from edgecnn.runners.remote.board import LONGEST_S, Answer, Work
from edgecnn.runners.remote.parcel import bundle_items, dataset_items, picture_items
from edgecnn.runners.trusted import Keys, private_bundle

_REPORT = "report.json"
_SLOWEST_PICTURE_S = 60.0  # of `eval`, on the slowest board
LONGEST_LOOK_S = 3600.0  # of `devices`


def bench_on(
    bundle: str | Path | Bundle,
    on: str | Sequence[str],
    *,
    device: str = "cpu",
    format: str | None = None,  # noqa: A002 - the command line's word
    precision: str | None = None,
    threads: int | Sequence[int] | None = None,
    data: str | Path | None = None,
    picture_size_px: tuple[int, int] = PICTURE_SIZE_PX,
    profile: str = "quick",
    iterations: int | None = None,
    duration_s: float | None = None,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    record: bool = True,
    layers: bool = False,
    trusted_keys: Keys | None = None,
    status: Status | None = None,
) -> list[OnBoard[BenchReport]]:
    """Measure the latency of a bundle's artifacts on boards, several at once; the other arguments are those of `bench`.

    Each board gets an environment with the runtimes of the bundle's formats, this edgecnn, and the bundle's files. It
    keeps them for the next time (in ~/.cache/edgecnn); unchanged files are not sent again.

    Args:
        bundle: a NAME.edge folder.
        on: ssh://[user@]host[:port] of a board, or of several. Keys and known hosts are those of ~/.ssh.
        record: write the figures, which name the board, into the local bundle.
        trusted_keys: as for `open_runner`; what is sent was verified here.
        status: called with a board's address and what happens there, from several threads.

    Returns:
        For each board, in order, its report or its error.

    Raises:
        SpecError: an invalid address.
        BundleError: damaged, or has no such artifact.
        DataError: `data` cannot be read.
    """
    addresses = board_addresses(on)
    with _to_send(bundle, trusted_keys) as opened:  # until the boards have all of its files
        artifacts = artifacts_to_send(opened, device=device, format=format, precision=precision)
        folder = f"bundle/{opened.folder.name}"
        items = bundle_items(opened, artifacts, folder=folder)
        counts = [threads] if isinstance(threads, int) else threads
        words = {
            "device": device,
            "format": format,
            "precision": precision,
            "threads": None if counts is None else ",".join(map(str, counts)),
            "picture-size": f"{picture_size_px[0]}x{picture_size_px[1]}",
            "profile": profile,
            "iterations": iterations,
            "duration": duration_s,
            "timeout": timeout_s,
            "report": _REPORT,
        }
        if data is not None:
            pictures, place = picture_items(Path(data), folder="data")
            items += pictures
            words["data"] = f"../{place}"
        work = Work(
            words=("bench", f"../{folder}", "--no-record", *(["--layers"] if layers else []), *as_options(words)),
            items=tuple(items),
            extras=extras_for([artifact.format for artifact in artifacts]),
            report=_REPORT,
            longest_s=LONGEST_S + len(artifacts) * len(counts or (1,)) * (2 * (duration_s or 0) + timeout_s),
        )
        outcomes = ask_boards(addresses, work, _read_report, status)
    return [_recorded(bundle, outcome) for outcome in outcomes] if record else outcomes


def evaluate_on(
    bundle: str | Path | Bundle,
    data: str | Path,
    on: str | Sequence[str],
    *,
    format: str | None = None,  # noqa: A002 - the command line's word
    precision: str | None = None,
    device: str = "cpu",
    threads: int | None = None,
    ignore_label: str | int | None = None,
    split: str | None = None,
    limit: int | None = None,
    score: float | None = None,
    nms_iou: float | None = None,
    trusted_keys: Keys | None = None,
    status: Status | None = None,
) -> list[OnBoard[Evaluation]]:
    """Measure accuracy on boards, several at once; the other arguments are those of `evaluate`.

    Labels and the pictures to use are sent; see `bench_on` for the rest. Without `format`, the same artifact runs on
    every board: the default if all runtimes were installed.

    Args:
        bundle: a NAME.edge folder.
        data: labelled pictures.
        on: ssh://[user@]host[:port] of a board, or of several.
        trusted_keys: as for `open_runner`; what is sent was verified here.
        status: called with a board's address and what happens there, from several threads.

    Returns:
        For each board, in order, its evaluation or its error.

    Raises:
        SpecError: an invalid address.
        BundleError: damaged, or has no such artifact.
        DataError: see `open_dataset`.
    """
    addresses = board_addresses(on)
    with _to_send(bundle, trusted_keys) as opened:  # until the boards have all of its files
        choice = choose_artifact(opened, device=device, format=format, precision=precision, here=False)
        artifact = choice.artifact
        task = opened.manifest.task
        dataset = open_dataset(data, task=task.name, labels=task.labels, split=split)
        used = dataset if limit is None else dataset.limited(limit)
        data_items, place = dataset_items(Path(data), dataset, used, folder="data")
        folder = f"bundle/{opened.folder.name}"
        words = {
            "data": f"../{place}",
            "format": artifact.format,
            "precision": choice.precision,
            "device": device,
            "threads": threads,
            "ignore-label": ignore_label,
            "split": split,
            "limit": limit,
            "score": score,
            "nms-iou": nms_iou,
        }
        metric_packages = frozenset({*task.metric_packages, "pyyaml"})
        work = Work(
            words=("eval", f"../{folder}", "--json", *as_options(words)),
            items=(*bundle_items(opened, [artifact], folder=folder), *data_items),
            extras=(*extras_for([artifact.format]), "eval"),
            only={"eval": metric_packages},
            longest_s=LONGEST_S + _SLOWEST_PICTURE_S * len(used),
        )

        def read(answer: Answer) -> Evaluation | None:
            if not answer.out.strip():
                return None
            evaluation = msgspec.json.decode(answer.out, type=Evaluation)
            return replace(evaluation, data=str(dataset.path))  # not where it lay there

        return ask_boards(addresses, work, read, status)


def devices_on(
    on: str | Sequence[str], device: str | None = None, *, status: Status | None = None
) -> list[OnBoard[DevicesReport]]:
    """Show what boards have for computing, and which runtime really runs on which device; see `devices`.

    Each board gets an environment with all formats' runtimes, as `bench_on` makes it.

    Args:
        on: ssh://[user@]host[:port] of a board, or of several.
        device: test only this.
        status: called with a board's address and what happens there, from several threads.

    Returns:
        For each board, in order, its report or its error.

    Raises:
        SpecError: an invalid address.
    """
    addresses = board_addresses(on)
    if device is not None:
        parse_device(device)
    words = ("devices", *([device] if device is not None else []), "--json")
    work = Work(words=words, extras=extras_for(FORMATS.built_in()), longest_s=LONGEST_LOOK_S)

    def read(answer: Answer) -> DevicesReport | None:
        return msgspec.json.decode(answer.out, type=DevicesReport) if answer.out.strip() else None

    return ask_boards(addresses, work, read, status)


def _to_send(bundle: str | Path | Bundle, keys: Keys | None) -> contextlib.AbstractContextManager[Bundle]:
    """The bundle whose files are sent: where keys are trusted, a private copy of what one of them signed."""
    return Bundle.open_locked(bundle) if keys is None else private_bundle(bundle, keys)


def _read_report(answer: Answer) -> BenchReport | None:
    if not answer.report:
        return None
    report = msgspec.json.decode(answer.report, type=BenchReport)
    for what, found in (("results", report.results), ("failures", report.failures), ("notes", report.notes)):
        answers.check_few(found, what)
    return report


def _recorded(bundle: str | Path | Bundle, outcome: OnBoard[BenchReport]) -> OnBoard[BenchReport]:
    """The same outcome, with its figures recorded in the local bundle."""
    report = outcome.result
    if report is None or not report.results:
        return outcome
    folder = bundle.folder if isinstance(bundle, Bundle) else bundle
    notes = record_latency(folder, report.results, report.machine)
    return replace(outcome, result=msgspec.structs.replace(report, notes=(*report.notes, *notes)))
