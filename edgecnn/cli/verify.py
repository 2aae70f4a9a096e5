"""`edgecnn verify`."""

from __future__ import annotations

from edgecnn import options
from edgecnn.cli import _output
from edgecnn.cli._verb import Verb
from edgecnn.cli.sign import described

VERB = "edgecnn._verbs.verify:verify"


def command(verb: Verb, *, json: options.Json = False) -> int:
    """Verify a bundle: exit code 0 if a trusted key signed it and nothing was changed, otherwise 1."""
    signed = verb()
    if json:
        _output.print_json(signed)
    else:
        _output.print_line(f"{verb['bundle']}: {described(signed)}")
    return 0
