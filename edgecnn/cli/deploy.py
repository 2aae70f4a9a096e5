"""`edgecnn deploy`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from edgecnn import options
from edgecnn.cli import _on_options, _output
from edgecnn.cli._verb import Verb
from edgecnn.errors import GateError
from edgecnn.printable import shortened

if TYPE_CHECKING:
    from edgecnn.flow.boards import OnBoard
    from edgecnn.runners.deployed.order import Deployed

VERB = "edgecnn._verbs.deploy:deploy"


def command(verb: Verb, *, json: options.Json = False) -> int:
    """Deploy a bundle to boards through SSH: tried there beside what runs, then switched to, or not."""
    return tell(verb(status=_on_options.print_status), as_json=json)


def tell(outcomes: Mapping[str, OnBoard[Deployed]], *, as_json: bool) -> int:
    """Print one table for all boards, and their errors; returns the exit code."""
    if as_json:
        rows = _on_options.rows(list(outcomes.values()))
        _output.print_json([{"name": name, **row} for name, row in zip(outcomes, rows, strict=True)])
    else:
        columns = ("board", "outcome", "version", "state", "frames/s", "age, ms", "°C")
        rows_of = [_row(name, outcome) for name, outcome in outcomes.items()]
        _output.print_table("", columns, rows_of, numeric=columns[4:])
    code = _on_options.print_errors(list(outcomes.values()))
    for name, outcome in outcomes.items():
        if outcome.result is not None and outcome.result.why:
            _output.print_error(f"{name}: went back to the version before: {shortened(outcome.result.why, length=500)}")
            code = max(code, GateError.exit_code)
    return code


def version_of(slot: str, release: int) -> str:
    """A version in a few letters: its slot, and the release of a signed one."""
    return f"{slot[:8] or 'none'}" + (f", release {release}" if release else "")


def moment(unix_s: int) -> str:
    """A moment of a board's clock, UTC."""
    try:
        return datetime.fromtimestamp(unix_s, timezone.utc).strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, OSError, ValueError):
        return "?"


def _row(name: str, outcome: OnBoard[Deployed]) -> tuple[Any, ...]:
    said = outcome.result
    if said is None:
        return (name, type(outcome.error).__name__, "", "", "", "", "")
    figures = (said.rate_fps, said.age_ms, said.temperature_c)
    shown = ["" if value is None else f"{value:.1f}" for value in figures]
    version = shortened(version_of(said.slot, said.release), length=40)
    return (name, said.outcome, version, shortened(said.state, length=20), *shown)
