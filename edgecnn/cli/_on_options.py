"""`--on`, of the verbs that can work on another machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgecnn.cli import _output
from edgecnn.errors import SpecError

if TYPE_CHECKING:
    from edgecnn._verbs.on_boards import OnBoard

On = Annotated[
    list[str] | None,
    typer.Option(
        "--on",
        help="Do it on ssh://[user@]host[:port], a board or another machine; several times for several at once.",
        metavar="URL",
        show_default=False,
    ),
]


def say_status(address: str, text: str) -> None:
    """Print what happens on a board."""
    _output.people.print(f"{address}: {text}", style="dim", markup=False, soft_wrap=True)


def say_errors(outcomes: Sequence[OnBoard[Any]]) -> int:
    """Print why boards gave nothing; the highest exit code, 0 where all gave something."""
    failed = [outcome.error for outcome in outcomes if outcome.error is not None]
    for error in failed:
        _output.people.print(f"{type(error).__name__}: {error}", style="red", markup=False, soft_wrap=True)
    return max((error.exit_code for error in failed), default=0)


def error_row(outcome: OnBoard[Any]) -> dict[str, Any]:
    """The object of `--json` for a board that gave nothing."""
    error = outcome.error
    return {"on": outcome.on, "board": outcome.board, "error": type(error).__name__, "reason": str(error)}


def refuse_here_only(**given: object) -> None:
    """Options that mean something on this machine alone; those count whose value is true.

    Raises:
        SpecError: one of them was given together with --on.
    """
    if wrong := _named(given):
        raise SpecError(f"{wrong} cannot be had together with --on")


def refuse_with_several_boards(**given: object) -> None:
    """Options that name one file, into which several boards would write.

    Raises:
        SpecError: one of them was given.
    """
    if wrong := _named(given):
        raise SpecError(f"{wrong} is for one board: give --on once, or leave it out")


def _named(given: dict[str, object]) -> str:
    return ", ".join(f"--{name.replace('_', '-')}" for name, value in given.items() if value)
