"""Deploys a bundle to boards, some at a time: a bundle that a board refuses goes no further."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Literal

import msgspec

from edgecnn.bundle import Bundle
from edgecnn.bundle.contents import hash_of, plain_files
from edgecnn.bundle.envelope import SIGNATURE
from edgecnn.bundle.shipped import shipped_bundle
from edgecnn.errors import BoardError, BundleError, EdgeCnnError, SpecError, StorageError
from edgecnn.flow.boards import OnBoard, Status, ask_boards, board_addresses, extras_for
from edgecnn.options.kinds import one_or_more
from edgecnn.options.toml import read_toml
from edgecnn.printable import shortened
from edgecnn.runners.choose import Choice, choose_artifact
from edgecnn.runners.deployed.health import reference_answers
from edgecnn.runners.deployed.order import Deployed, Order, Place
from edgecnn.runners.remote import answers
from edgecnn.runners.remote.address import BoardAddress
from edgecnn.runners.remote.board import Answer, Work
from edgecnn.runners.remote.parcel import Item
from edgecnn.runners.runner import open_runner
from edgecnn.runners.trusted import Keys, trusted_bundle

_ORDER, _REPORT, _REFERENCE = "order.json", "report.json", "reference.npz"
_LONGEST_S: Final = 1800.0
_AWAY: Final = (BoardError, StorageError)  # what says something of the board, not of the bundle


@dataclass(frozen=True)
class Fleet:
    """Boards, and how a bundle is deployed to them.

    Attributes:
        boards: name → address, in the file's order.
        places: name → where it runs there.
        wave: boards at a time, after the first, which goes alone.
    """

    boards: Mapping[str, BoardAddress]
    places: Mapping[str, Place] = field(default_factory=dict)
    wave: int = 4

    def waves(self) -> Iterator[list[str]]:
        """The boards' names: one, then `wave` at a time."""
        names = list(self.boards)
        yield names[:1]
        for start in range(1, len(names), self.wave):
            yield names[start : start + self.wave]


class _Board(msgspec.Struct, forbid_unknown_fields=True):
    address: str
    place: str | None = None
    service: str | None = None
    page: str | None = None


class _File(msgspec.Struct, forbid_unknown_fields=True):
    boards: dict[str, _Board]
    place: str | None = None
    service: str | None = None
    page: str | None = None
    wave: int | None = None


def read_fleet(to: str | Path | Sequence[str], place: Place, *, wave: int | None = None) -> Fleet:
    """The boards of a file, or those of addresses.

    Args:
        to: a TOML file with [boards.NAME] tables, or addresses ssh://[user@]host[:port].
        place: what the file leaves open.
        wave: boards at a time; wins over the file.

    Raises:
        DataError: the file can't be read.
        SpecError: it has errors, or an address that is none, or one twice.
    """
    words = [str(to)] if isinstance(to, Path) else list(one_or_more(to))
    if wave is not None and wave < 1:
        raise SpecError(f"--wave: expected 1 board or more at a time, got {wave}")
    if len(words) != 1 or words[0].startswith("ssh:"):
        place.check()
        addresses = {str(address): address for address in board_addresses(words)}
        return Fleet(addresses, dict.fromkeys(addresses, place), wave or Fleet.wave)
    path = Path(words[0])
    try:
        file = msgspec.convert(read_toml(path, "a TOML file with [boards.NAME] tables"), type=_File)
    except msgspec.ValidationError as wrong:
        raise SpecError(f"{path}: {shortened(wrong)}") from None
    if not file.boards:
        raise SpecError(f'{path} has no board: write [boards.NAME] with address = "ssh://…"')
    addresses = dict(zip(file.boards, board_addresses([each.address for each in file.boards.values()]), strict=True))
    places = {}
    for name, board in file.boards.items():
        given = {
            key: getattr(board, key) or getattr(file, key) or getattr(place, key)
            for key in ("place", "service", "page")
        }
        places[name] = Place(**given)
        try:
            places[name].check()
        except SpecError as wrong:
            raise SpecError(f"{path}: [boards.{name}] {wrong}") from None
    if file.wave is not None and file.wave < 1:
        raise SpecError(f"{path}: wave must be 1 or more, got {file.wave}")
    return Fleet(addresses, places, wave or file.wave or Fleet.wave)


@dataclass(frozen=True)
class Parcel:
    """What a deployment sends.

    Attributes:
        name: the deployed bundle's.
        items: its files, the reference's answers and the trusted keys.
        keys: where these keys lie in the job's folder.
        choice: the artifact that is tried.
    """

    name: str
    items: tuple[Item, ...]
    keys: tuple[str, ...]
    choice: Choice


@contextmanager
def packed(
    bundle: str | Path | Bundle,
    *,
    keys: Keys | None,
    format: str | None,  # noqa: A002
    precision: str | None,
) -> Iterator[Parcel]:
    """The whole bundle, verified here, and how it answers here; the files are there while inside.

    Raises:
        BundleError, SignatureError: damaged, or not signed by a trusted key.
        MissingDependencyError, DeviceError: it can't be opened here, so that there is nothing to compare with.
    """
    folder = bundle.folder if isinstance(bundle, Bundle) else shipped_bundle(bundle) or Path(bundle)
    trusted = [Path(key) for key in one_or_more(keys)] if keys is not None else []
    if trusted:
        with trusted_bundle(folder, trusted):
            pass
    with Bundle.open_locked(folder) as opened, TemporaryDirectory(prefix="edgecnn-deploy-") as made:
        for artifact in opened.manifest.artifacts:
            opened.checked_path(artifact)
        choice = choose_artifact(opened, format=format, precision=precision)
        with open_runner(
            folder,
            format=choice.artifact.format,
            precision=choice.precision,
            trusted_keys=trusted or None,
            remember_release=False,
        ) as runner:
            reference = reference_answers(runner)
        names = [*plain_files(folder), *([SIGNATURE] if (folder / SIGNATURE).exists() else [])]
        paths = {f"bundle/{folder.name}/{name}": folder / name for name in names}
        paths[_REFERENCE] = Path(made) / _REFERENCE
        paths[_REFERENCE].write_bytes(reference)
        paths |= {f"keys/{number}.pem": key for number, key in enumerate(trusted)}
        items = tuple(Item(name, path, hash_of(path), path.stat().st_size) for name, path in paths.items())
        yield Parcel(folder.name, items, tuple(name for name in paths if name.startswith("keys/")), choice)


def deploy_in_waves(
    parcel: Parcel, fleet: Fleet, *, most_latency_ms: float | None, wait_s: float, status: Status | None
) -> Iterator[tuple[str, OnBoard[Deployed]]]:
    """Deploy to one board after the other and tell each outcome; after a board that refuses the bundle, to none.

    A board that is away, or whose disk is full, is told and passed over: deploy again when it is back.
    """
    refused = ""
    for wave in fleet.waves():
        if refused:
            unsent = BundleError(f"not deployed: {refused} refused the bundle; its version there runs on")
            yield from ((name, OnBoard(str(fleet.boards[name]), error=unsent)) for name in wave)
            continue

        def order(place: Place) -> Order:
            return Order(
                do="deploy",
                name=parcel.name,
                where=place,
                bundle=f"../bundle/{parcel.name}",
                reference=f"../{_REFERENCE}",
                keys=tuple(f"../{key}" for key in parcel.keys),
                format=parcel.choice.artifact.format,
                precision=parcel.choice.precision,
                most_latency_ms=most_latency_ms,
                wait_s=wait_s,
            )

        extras = (*extras_for([parcel.choice.artifact.format]), *(["sign"] if parcel.keys else []))
        for name, outcome in _asked(fleet, wave, order, parcel.items, extras, status):
            yield name, outcome
            failed = outcome.error is not None and not isinstance(outcome.error, _AWAY)
            if failed or (outcome.result is not None and outcome.result.outcome == "rolled back"):
                refused = name


def ask_fleet(
    do: Literal["status", "rollback"], name: str, fleet: Fleet, *, wait_s: float, status: Status | None
) -> Iterator[tuple[str, OnBoard[Deployed]]]:
    """Ask all boards at once for their state, or let all go back to the version before."""
    names = list(fleet.boards)

    def order(place: Place) -> Order:
        return Order(do=do, name=name, where=place, wait_s=wait_s)

    yield from _asked(fleet, names, order, (), (), status)


def _asked(
    fleet: Fleet,
    names: Sequence[str],
    order: Any,
    items: tuple[Item, ...],
    extras: tuple[str, ...],
    status: Status | None,
) -> Iterator[tuple[str, OnBoard[Deployed]]]:
    """Boards with the same place get the same order, at the same time."""
    for place, group in groupby(names, key=fleet.places.__getitem__):
        members = list(group)
        content = msgspec.json.encode(order(place))
        digest = hashlib.sha256(content).hexdigest()
        work = Work(
            words=(f"../{_ORDER}", _REPORT),
            items=(*items, Item(_ORDER, Path(_ORDER), digest, len(content), content)),
            extras=extras,
            report=_REPORT,
            module="edgecnn.flow.deployed",
            longest_s=_LONGEST_S,
        )
        found = ask_boards([fleet.boards[member] for member in members], work, _read, status)
        yield from zip(members, found, strict=True)


def _read(answer: Answer) -> Deployed | None:
    if not answer.report:
        return None
    report = msgspec.json.decode(answer.report, type=Deployed)
    answers.check_few(report.history, "changes")
    return report


def failures(outcomes: Sequence[OnBoard[Deployed]]) -> list[EdgeCnnError]:
    """The errors of boards."""
    return [outcome.error for outcome in outcomes if outcome.error is not None]
