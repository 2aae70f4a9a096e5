"""`--on`, for the verbs that can work on another machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from edgecnn.cli import _output
from edgecnn.errors import SpecError

if TYPE_CHECKING:
    from edgecnn.flow.boards import OnBoard


def print_status(address: str, text: str) -> None:
    """Print a status message of a board."""
    _output.print_remark(f"{address}: {text}", "dim")


def print_errors(outcomes: Sequence[OnBoard[Any]]) -> int:
    """Print the errors of boards; the highest exit code, 0 without errors."""
    failed = [outcome.error for outcome in outcomes if outcome.error is not None]
    for error in failed:
        _output.print_error(f"{type(error).__name__}: {error}")
    return max((error.exit_code for error in failed), default=0)


def error_row(outcome: OnBoard[Any]) -> dict[str, Any]:
    """The `--json` object of a board with an error."""
    error = outcome.error
    return {"on": outcome.on, "board": outcome.board, "error": type(error).__name__, "reason": str(error)}


def rows(outcomes: Sequence[OnBoard[Any]]) -> list[dict[str, Any]]:
    """What `--json` prints about boards: one object for each."""
    import msgspec

    return [
        error_row(outcome)
        if outcome.result is None
        else {"on": outcome.on, "board": outcome.board, **msgspec.to_builtins(outcome.result)}
        for outcome in outcomes
    ]


def refuse_here_only(**given: object) -> None:
    """Refuse options that have a meaning only on this machine; options with a true value count as given.

    Raises:
        SpecError: one of them was given together with --on.
    """
    if wrong := _named(given):
        raise SpecError(f"{wrong} cannot be used together with --on")


def refuse_with_several_boards(**given: object) -> None:
    """Refuse options that name one file, to which several boards would write.

    Raises:
        SpecError: one of them was given.
    """
    if wrong := _named(given):
        raise SpecError(f"{wrong} works with one board only: give --on once, or leave it out")


def _named(given: dict[str, object]) -> str:
    return ", ".join(f"--{name.replace('_', '-')}" for name, value in given.items() if value)
