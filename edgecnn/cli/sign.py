"""`edgecnn sign`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgecnn import options
from edgecnn.cli import _output
from edgecnn.cli._verb import Verb

if TYPE_CHECKING:
    from edgecnn.bundle.signature import Signed

VERB = "edgecnn._verbs.sign:sign"


def command(verb: Verb, *, json: options.Json = False) -> int:
    """Sign every file of a bundle with your key, so that devices refuse foreign or changed bundles."""
    signed = verb()
    if json:
        _output.print_json(signed)
    else:
        _output.print_line(f"{verb['bundle']}: {described(signed)}")
    return 0


def described(signed: Signed) -> str:
    """Who signed, when, and until when."""
    until = f", until {signed.expires_utc}" if signed.expires_utc else ""
    when = f" on {signed.signed_utc}" if signed.signed_utc else ""
    return f"signed as {signed.name}, release {signed.release}{when}{until}, by key {signed.key}"
