"""`--web`, whose address is optional."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import Final

_DEFAULT: Final = "8088"  # on this machine only
_ADDRESS: Final = re.compile(r"(\[[^\]]*\]:|[^:/\\]*:)?\d{1,5}")


def with_address(words: Sequence[str]) -> list[str]:
    """The command line, with the default address after each `--web` that has none: Typer wants one."""
    written: list[str] = []
    for word, following in itertools.pairwise([*words, ""]):
        written.append(word)
        if word == "--web" and not _ADDRESS.fullmatch(following):
            written.append(_DEFAULT)
    return written
