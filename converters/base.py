"""What a converter owes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edgecnn.converters.deployable import Deployable


@dataclass(frozen=True)
class Converted:
    """Files that a converter wrote.

    Attributes:
        files: the one to open first, then those beside it.
        tool: what wrote it, with versions and settings.
        transposes: how many transposes the graph holds; None where they cost nothing or cannot be counted.
    """

    files: Sequence[Path]
    tool: str
    transposes: int | None = None


class Converter(Protocol):
    """Writes a Deployable in one format.

    Attributes:
        precisions: what it can write.
    """

    precisions: Sequence[str]

    def __init__(self, deployable: Deployable, *, batch: int) -> None: ...

    def write(self, precision: str, folder: Path) -> Converted:
        """Write one artifact into `folder`; several precisions of one converter share the conversion.

        Raises:
            ConversionError: the tool failed on this graph.
        """
        ...
