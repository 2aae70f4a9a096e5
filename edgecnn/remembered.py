"""What edgecnn remembers of this machine between runs: small JSON files in `$XDG_CACHE_HOME/edgecnn`.

Nothing there is needed: a file that is missing, not ours or in another form counts as empty, and what cannot be written
is found out again the next time.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

from edgecnn.atomic import write_whole
from edgecnn.errors import StorageError

_LARGEST_BYTES = 1 << 20
_log = logging.getLogger(__name__)


def recall(name: str) -> Any:
    """The content of a file; None where it is missing, larger than expected, or others may write to it."""
    try:
        with path_of(name).open("rb") as file:
            state = os.fstat(file.fileno())
            if hasattr(os, "geteuid") and (state.st_uid != os.geteuid() or state.st_mode & 0o022):
                return None
            return json.loads(file.read(_LARGEST_BYTES))
    except (OSError, ValueError, RecursionError):
        return None


def keep(name: str, content: Any) -> bool:
    """Replace a file by this content, as a whole; returns whether that was possible."""
    try:
        path = path_of(name)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_whole(path, json.dumps(content).encode())
    except (OSError, StorageError) as failed:
        _log.debug("%s is not remembered: %s", name, failed)
        return False
    return True


def path_of(name: str) -> Path:
    """Where a file of this name is.

    Raises:
        OSError: there is no home folder.
    """
    given = os.environ.get("XDG_CACHE_HOME")
    try:
        home = Path(given) if given else Path.home() / ".cache"
    except RuntimeError as homeless:
        raise OSError("there is no home folder") from homeless
    return home / "edgecnn" / name
