"""`bench`, `evaluate` and `devices` on other machines, through SSH: the same words, and evidence that comes home."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from edgecnn._devices import RUNTIMES, parse_device
from edgecnn._verbs.bench import DEFAULT_TIMEOUT_S, PICTURE_SIZE_PX, record_latency
from edgecnn._verbs.devices import DevicesReport
from edgecnn._verbs.evaluate import Evaluation
from edgecnn.bundle import Artifact, Bundle
from edgecnn.datasets import open_dataset
from edgecnn.errors import BoardError, BundleError, DeviceError, EdgeCnnError, GateError, SpecError
from edgecnn.measure.latency import BenchReport
from edgecnn.registry import BACKENDS
from edgecnn.runners.remote.address import BoardAddress
from edgecnn.runners.remote.board import Answer, Work, on_boards
from edgecnn.runners.remote.parcel import bundle_items, dataset_items, picture_items

T = TypeVar("T")
Status = Callable[[str, str], None]

_REPORT = "report.json"
# Of the extra [eval], what measuring takes; the rest draws.
_METRIC_PACKAGES = {"detect": ("faster-coco-eval",), "instances": ("faster-coco-eval",)}


@dataclass(frozen=True)
class OnBoard(Generic[T]):
    """What one board gave.

    Attributes:
        on: its address, as it was asked for.
        board: what its device tree says of it ("Raspberry Pi 5 Model B Rev 1.0"), else its host's name; "" where it
            could not be asked.
        result: None where there is an error.
        error: why there is no result; its exit code is the one that the command line gives.
    """

    on: str
    board: str = ""
    result: T | None = None
    error: EdgeCnnError | None = None


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
    status: Status | None = None,
) -> list[OnBoard[BenchReport]]:
    """Time a bundle's artifacts on boards, several at once; the other arguments are those of `bench`.

    Each board gets an environment with the runtimes that the bundle's formats take, this edgecnn, and the bundle's
    files; it keeps them for the next time (in ~/.cache/edgecnn), and what has not changed is not sent again.

    Args:
        bundle: a NAME.edge folder.
        on: ssh://[user@]host[:port] of a board, or of several. Keys and known hosts are those of ~/.ssh.
        record: write the figures, which name the board, into the bundle here.
        status: called with a board's address and what happens there, from several threads.

    Returns:
        For each board, in order, its report or the error that stands in its way.

    Raises:
        SpecError: an address that is none.
        BundleError: damaged, or holds nothing of what was asked for.
        DataError: `data` cannot be read.
    """
    addresses = _addresses(on)
    opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    artifacts = _artifacts(opened, device=device, format=format)
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
        words=("bench", f"../{folder}", "--no-record", *(["--layers"] if layers else []), *_flags(words)),
        items=tuple(items),
        extras=_extras(artifacts),
        report=_REPORT,
    )
    outcomes: list[OnBoard[BenchReport]] = []
    for address, answer in zip(addresses, _ask(addresses, work, status), strict=True):
        outcome = _outcome(address, answer, _read_report)
        if record and outcome.result is not None and outcome.result.results:
            report = outcome.result
            notes = record_latency(opened.folder, report.results, report.machine)
            report = msgspec.structs.replace(report, notes=(*report.notes, *notes))
            outcome = OnBoard(outcome.on, outcome.board, report)
        outcomes.append(outcome)
    return outcomes


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
    status: Status | None = None,
) -> list[OnBoard[Evaluation]]:
    """Measure accuracy on boards, several at once; the other arguments are those of `evaluate`.

    Of the data, the labels and the pictures that take part are sent; see `bench_on` for the rest.

    Args:
        bundle: a NAME.edge folder.
        data: labelled pictures.
        on: ssh://[user@]host[:port] of a board, or of several.
        status: called with a board's address and what happens there, from several threads.

    Returns:
        For each board, in order, its evaluation or the error that stands in its way.

    Raises:
        SpecError: an address that is none.
        BundleError: damaged, or holds nothing of what was asked for.
        DataError: see `open_dataset`.
    """
    addresses = _addresses(on)
    opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    artifact = _default_artifact(_artifacts(opened, device=device, format=format), precision)
    task = opened.manifest.task
    dataset = open_dataset(data, task=task.name, labels=task.labels, split=split)
    used = dataset if limit is None else dataset.limited(limit)
    data_items, place = dataset_items(Path(data), dataset, used, folder="data")
    folder = f"bundle/{opened.folder.name}"
    words = {
        "data": f"../{place}",
        "format": artifact.format,
        "precision": precision or artifact.precision,
        "device": device,
        "threads": threads,
        "ignore-label": ignore_label,
        "split": split,
        "limit": limit,
        "score": score,
        "nms-iou": nms_iou,
    }
    metric_packages = frozenset(_METRIC_PACKAGES.get(task.name, ()))
    work = Work(
        words=("eval", f"../{folder}", "--json", *_flags(words)),
        items=(*bundle_items(opened, [artifact], folder=folder), *data_items),
        extras=(*_extras([artifact]), "eval"),
        only={"eval": metric_packages},
    )

    def read(answer: Answer) -> Evaluation | None:
        if not answer.out.strip():
            return None
        evaluation = msgspec.json.decode(answer.out, type=Evaluation)
        return replace(evaluation, data=str(dataset.path))  # not where it lay there

    return [_outcome(a, answer, read) for a, answer in zip(addresses, _ask(addresses, work, status), strict=True)]


def devices_on(
    on: str | Sequence[str], device: str | None = None, *, status: Status | None = None
) -> list[OnBoard[DevicesReport]]:
    """Say what boards compute with, and which runtime really runs on what; see `devices`.

    Each board gets an environment with the three runtimes, as `bench_on` makes it.

    Args:
        on: ssh://[user@]host[:port] of a board, or of several.
        device: try only this.
        status: called with a board's address and what happens there, from several threads.

    Returns:
        For each board, in order, its report or the error that stands in its way.

    Raises:
        SpecError: an address that is none.
    """
    addresses = _addresses(on)
    if device is not None:
        parse_device(device)
    words = ("devices", *([device] if device is not None else []), "--json")
    work = Work(words=words, extras=tuple(BACKENDS.extra(name) for name in BACKENDS.names()))

    def read(answer: Answer) -> DevicesReport | None:
        return msgspec.json.decode(answer.out, type=DevicesReport) if answer.out.strip() else None

    return [_outcome(a, answer, read) for a, answer in zip(addresses, _ask(addresses, work, status), strict=True)]


def _addresses(on: str | Sequence[str]) -> list[BoardAddress]:
    addresses = [BoardAddress.parse(text) for text in ([on] if isinstance(on, str) else on)]
    if not addresses:
        raise SpecError("on which board? As in ssh://pi@192.168.1.20")
    twice = [address for index, address in enumerate(addresses) if address in addresses[:index]]
    if twice:
        raise SpecError(f"{twice[0]} is named twice: measurements on one board would disturb each other")
    return addresses


def _artifacts(bundle: Bundle, *, device: str, format: str | None) -> list[Artifact]:  # noqa: A002
    """Those whose runtimes the board needs."""
    name = parse_device(device)
    wanted = format or RUNTIMES.get(name.runtime)
    if wanted is not None:
        BACKENDS.extra(wanted)  # an unknown name is refused here, with what is near
    held = [artifact for artifact in bundle.manifest.artifacts if wanted in (None, artifact.format)]
    if not held:
        there = ", ".join(f"{a.format} {a.precision}" for a in bundle.manifest.artifacts) or "none"
        raise BundleError(f"{bundle.folder} holds no {wanted or 'artifact'}; it holds: {there}")
    return held


def _default_artifact(held: Sequence[Artifact], precision: str | None) -> Artifact:
    """As `eval` chooses where all runtimes are installed: fp32 of the first format."""

    def rank(artifact: Artifact) -> tuple[bool, int]:
        return artifact.precision != (precision or "fp32"), BACKENDS.names().index(artifact.format)

    return min(held, key=rank)


def _extras(artifacts: Sequence[Artifact]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(BACKENDS.extra(artifact.format) for artifact in artifacts))


def _flags(words: dict[str, Any]) -> list[str]:
    return [text for name, value in words.items() if value is not None for text in (f"--{name}", str(value))]


def _ask(addresses: Sequence[BoardAddress], work: Work, status: Status | None) -> list[Answer | EdgeCnnError]:
    def say(address: BoardAddress, text: str) -> None:
        if status is not None:
            status(str(address), text)

    return on_boards(addresses, work, status=say)


def _read_report(answer: Answer) -> BenchReport | None:
    return msgspec.json.decode(answer.report, type=BenchReport) if answer.report else None


def _outcome(address: BoardAddress, answer: Answer | EdgeCnnError, read: Callable[[Answer], T | None]) -> OnBoard[T]:
    """The answer in its own type, or the error that edgecnn ended with there, of a class with its exit code."""
    if isinstance(answer, EdgeCnnError):
        return OnBoard(str(address), error=answer)
    try:
        result = read(answer)
    except (msgspec.DecodeError, SpecError) as wrong:
        error: EdgeCnnError = BoardError(f"{address}: its answer cannot be read: {wrong}")
        return OnBoard(str(address), answer.board, error=error)
    if result is not None:
        return OnBoard(str(address), answer.board, result)
    said = [line for line in answer.err.splitlines() if line.strip()]
    kind = {1: GateError, 2: SpecError}.get(answer.code, DeviceError)
    error = kind(f"on {address}: {said[-1] if said else f'edgecnn ended with code {answer.code} and said nothing'}")
    return OnBoard(str(address), answer.board, error=error)
