"""Controls who may name the user's own code, `package.module:callable`.

The user may, on the command line or in Python; this allows it for the process. A name read from a file may
not: a NAME.model folder, a recipe or a `--config` file that names code works only with code that the user has named,
and is refused otherwise.
"""

from __future__ import annotations

from edgecnn.errors import SourceError
from edgecnn.printable import shortened
from edgecnn.sources.table import find_source

_allowed: set[str] = set()


def names_code(model: str) -> bool:
    """Whether a network's name refers to the user's code."""
    kind = find_source(model)
    return kind is not None and kind.runs_own_code


def allow(factory: str) -> None:
    """Record that the user named this code.

    Raises:
        SourceError: it is not a name of code.
    """
    if not names_code(factory):
        raise SourceError(f"expected a factory such as package.module:callable, got {shortened(factory)!r}")
    _allowed.add(factory)


def check_allowed(factory: str, *, by: str) -> None:
    """Check that the user named this code.

    Args:
        factory: the name in a file.
        by: the file, for the message.

    Raises:
        SourceError: the user did not name it.
    """
    if factory not in _allowed:
        name = shortened(factory)
        raise SourceError(
            f"{by} names code, {name}, and code named in a file is not run. If you know and trust that code, give its "
            f"name yourself: --factory {name} (in Python factory={name!r})"
        )
