"""Formats that a test wants, or a reason why it cannot have them."""

from __future__ import annotations

import pytest

from edgecnn.errors import MissingDependencyError
from edgecnn.formats import FORMATS


def require_format(name: str) -> None:
    """Skips, naming the extra, where the format cannot be written or run here."""
    row = FORMATS.get(name)
    for load in (row.load_converter, row.load_backend):
        try:
            load()
        except MissingDependencyError as missing:
            pytest.skip(str(missing))
