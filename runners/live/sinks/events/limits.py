"""How long events are kept, and how much of the disk they may take."""

from __future__ import annotations

import contextlib
import math
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgecnn.errors import SpecError
from edgecnn.runners.live.recording.rotation import Rotation

BEGAN: Final = "????-??-??T??-??-??.???Z"  # how the names of events begin, for glob


@dataclass(frozen=True)
class KeepLimits:
    """Limits for a folder of events; the oldest go first.

    Attributes:
        max_age_s: longest time that one is kept.
        max_bytes: largest size of all together.
    """

    max_age_s: float = math.inf
    max_bytes: float = math.inf

    @classmethod
    def parse(cls, text: str | None) -> KeepLimits:
        """From "7d", "2GB", or "7d,2GB".

        Raises:
            SpecError: another form.
        """
        try:
            limits = Rotation.parse(text)
        except SpecError:
            raise SpecError(
                f"keep-events: expected an age such as 7d, a size such as 2GB, or both, got {text!r}"
            ) from None
        return cls(limits.max_s, limits.max_bytes)

    def apply(self, folder: Path, name: str) -> int:
        """Delete the oldest events of a camera beyond the limits, but never the newest; returns how many.

        Args:
            folder: the folder of events.
            name: the camera's: other cameras' and other files are not touched.
        """
        events = sorted(events_of(folder, name), reverse=True)  # a name begins with the time
        left_bytes, oldest_s, deleted = self.max_bytes, time.time() - self.max_age_s, 0
        for position, event in enumerate(events):
            with contextlib.suppress(OSError):
                began_s = (event / "event.json").stat().st_mtime
                left_bytes -= sum(file.stat().st_size for file in event.iterdir())
                if position and (left_bytes < 0 or began_s < oldest_s):
                    gone = event.with_name(f".{event.name}.partial-gone")
                    event.rename(gone)  # never half an event, whatever happens meanwhile
                    shutil.rmtree(gone, ignore_errors=True)
                    deleted += 1
        return deleted


def events_of(folder: Path, name: str) -> list[Path]:
    """The whole events of a camera."""
    return [path for path in folder.glob(f"{BEGAN}_{name}") if (path / "event.json").is_file()]
