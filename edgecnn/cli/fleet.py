"""`edgecnn fleet`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgecnn import options
from edgecnn.cli import _on_options, _output
from edgecnn.cli._verb import Verb
from edgecnn.cli.deploy import moment, tell, version_of
from edgecnn.printable import shortened

if TYPE_CHECKING:
    from edgecnn.runners.deployed.slots import Change

VERB = "edgecnn._verbs.fleet:fleet"


def command(verb: Verb, *, json: options.Json = False) -> int:
    """Show which version of a bundle boards run, and how it goes; or let them go back to the version before."""
    outcomes = verb(status=_on_options.print_status)
    if verb["action"] != "history" or json:
        return tell(outcomes, as_json=json)
    changes = [(name, change) for name, each in outcomes.items() if each.result for change in each.result.history]
    _output.print_table("", ("board", "when (UTC)", "what", "version", "why"), [_row(*each) for each in changes])
    code: int = _on_options.print_errors(list(outcomes.values()))
    return code


def _row(name: str, change: Change) -> tuple[str, ...]:
    version = version_of(change.slot, change.release)
    said = (change.what, version, change.why)
    return (name, moment(change.at_unix_s), *(shortened(word, length=60) for word in said))
