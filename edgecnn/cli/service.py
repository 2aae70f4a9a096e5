"""`edgecnn service`."""

from __future__ import annotations

from typing import Annotated

from edgecnn.cli import _output
from edgecnn.cli._verb import Verb
from edgecnn.options import Option

VERB = "edgecnn._verbs.service:service"


def command(
    verb: Verb,
    *,
    print: Annotated[bool, Option(help="For install: print the unit, and change nothing.")] = False,  # noqa: A002
) -> int:
    """Run a file of cameras as a systemd service: hardened, restarted, watched."""
    if not print:
        code: int = verb()
        if verb["action"] == "install":
            _output.print_line(f"{verb['name']} runs, now and at each boot; edgecnn service logs --name {verb['name']}")
        return code
    from edgecnn._verbs.service import service_unit

    unit = service_unit(verb["cameras"], name=verb["name"], user=verb["user"], secrets=verb["secrets"])
    _output.print_document(unit.text().rstrip())
    return 0
