"""Runs a verb on other machines: what is sent there, and what is returned."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec

from edgecnn.bundle import Artifact, Bundle
from edgecnn.errors import BoardError, EdgeCnnError, Fault, SpecError
from edgecnn.formats import FORMATS
from edgecnn.options.kinds import one_or_more
from edgecnn.printable import shortened
from edgecnn.runners.choose import choose_artifact, find_fitting
from edgecnn.runners.remote.address import BoardAddress
from edgecnn.runners.remote.board import Answer, Work, on_boards

T = TypeVar("T")
Status = Callable[[str, str], None]


@dataclass(frozen=True)
class OnBoard(Generic[T]):
    """The result from one board.

    Attributes:
        on: its address, as the user gave it.
        board: the model in its device tree ("Raspberry Pi 5 Model B Rev 1.0"), otherwise its host's name; "" where it
            could not be reached.
        result: None where there is an error.
        error: why there is no result; its class decides the exit code of the command line.
    """

    on: str
    board: str = ""
    result: T | None = None
    error: EdgeCnnError | None = None


def board_addresses(on: str | Sequence[str]) -> list[BoardAddress]:
    """The addresses of the boards.

    Raises:
        SpecError: no board, an invalid address, or one board twice.
    """
    addresses = [BoardAddress.parse(text) for text in one_or_more(on)]
    if not addresses:
        raise SpecError("no board given: give an address such as ssh://pi@192.168.1.20")
    twice = [address for index, address in enumerate(addresses) if address in addresses[:index]]
    if twice:
        raise SpecError(f"{twice[0]} is named twice: measurements on one board would disturb each other")
    return addresses


def artifacts_to_send(bundle: Bundle, *, device: str, format: str | None, precision: str | None) -> list[Artifact]:  # noqa: A002
    """The artifacts to measure there, whatever runtimes are here; where there are none, the board reports why."""
    for wanted in (precision, None):
        found = find_fitting(bundle, device=device, format=format, precision=wanted, here=False)
        if found.fitting:
            return [choice.artifact for choice in found.fitting]
    return [choose_artifact(bundle, device=device, format=format, here=False).artifact]  # raises with the reason


def extras_for(formats: Iterable[str]) -> tuple[str, ...]:
    """The extras of edgecnn that the board needs for these formats.

    Raises:
        SpecError: a format from another package, which is not sent to boards.
    """
    extras = []
    for name in formats:
        runtime = FORMATS.get(name).runtime
        if not runtime.extra:
            raise SpecError(f"format {name!r} comes from another package, which --on does not send: choose others")
        extras.append(runtime.extra)
    return tuple(dict.fromkeys(extras))


def as_options(words: dict[str, Any]) -> list[str]:
    """Options as typed on the command line; None means not given."""
    return [text for name, value in words.items() if value is not None for text in (f"--{name}", str(value))]


def ask_boards(
    addresses: Sequence[BoardAddress], work: Work, read: Callable[[Answer], T | None], status: Status | None
) -> list[OnBoard[T]]:
    """The results of the boards, in order.

    Args:
        addresses: the boards' addresses.
        work: what is done there.
        read: parses a board's answer; None where it has no result.
        status: called with a board's address and a progress message, from several threads.
    """

    def report(address: BoardAddress, text: str) -> None:
        if status is not None:
            status(str(address), text)

    found = on_boards(addresses, work, status=report)
    return [_outcome(address, answer, read) for address, answer in zip(addresses, found, strict=True)]


def _outcome(address: BoardAddress, answer: Answer | EdgeCnnError, read: Callable[[Answer], T | None]) -> OnBoard[T]:
    """The parsed answer, or the error with which edgecnn ended there, of the class with that exit code."""
    if isinstance(answer, EdgeCnnError):
        return OnBoard(str(address), error=answer)
    try:
        result = read(answer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, SpecError, BoardError) as wrong:
        error: EdgeCnnError = BoardError(f"{address}: its answer cannot be read: {shortened(wrong)}")
        return OnBoard(str(address), answer.board, error=error)
    if result is not None:
        return OnBoard(str(address), answer.board, result)
    messages = [line for line in answer.err.splitlines() if line.strip()]
    last = (
        shortened(messages[-1], length=2000) if messages else f"edgecnn ended with code {answer.code} without a message"
    )
    fault = Fault.of_line(last, answer.code)
    error = dataclasses.replace(fault, reason=f"on {address}: {fault.reason}").as_error()
    return OnBoard(str(address), answer.board, error=error)
