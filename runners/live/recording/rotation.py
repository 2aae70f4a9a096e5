"""When a recording continues in a new file, the new file's name, and how many files are kept."""

from __future__ import annotations

import contextlib
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgecnn.errors import SpecError

_BYTES: Final = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_SECONDS: Final = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_AMOUNT: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]+)")
_LEFTOVER_S: Final = 60.0


@dataclass(frozen=True)
class Rotation:
    """When the next file begins, and how many files are kept.

    Attributes:
        max_bytes: approximate size limit of one file.
        max_s: longest duration of its content.
        keep: number of files of one name to keep, the newest; None keeps all.
    """

    max_bytes: float = float("inf")
    max_s: float = float("inf")
    keep: int | None = None

    @classmethod
    def parse(cls, rotate: str | None, keep: int | None = None) -> Rotation:
        """From "100MB", "1h", or "100MB,1h": whichever limit is reached first.

        Raises:
            SpecError: it has another form, or `keep` is less than 1.
        """
        if keep is not None and keep < 1:
            raise SpecError(f"keep: expected at least 1 file, got {keep}")
        max_bytes = max_s = float("inf")
        for part in rotate.split(",") if rotate else ():
            found = _AMOUNT.fullmatch(part.strip())
            unit = found[2] if found else ""
            if found and unit.upper() in _BYTES and float(found[1]) > 0:
                max_bytes = float(found[1]) * _BYTES[unit.upper()]
            elif found and unit.lower() in _SECONDS and float(found[1]) > 0:
                max_s = float(found[1]) * _SECONDS[unit.lower()]
            else:
                raise SpecError(
                    f"rotate: expected a size such as 100MB, a time such as 30m, 1h or 1d, or both (100MB,1h), got "
                    f"{rotate!r}"
                )
        return cls(max_bytes, max_s, keep)


def family_of(path: Path) -> dict[int, Path]:
    """The existing files of one name, by number: NAME.mp4 is 1, NAME.2.mp4 is 2."""
    numbered = re.compile(rf"{re.escape(path.stem)}(?:\.(\d+))?{re.escape(path.suffix)}")
    found = {}
    for name in os.listdir(path.parent):
        if match := numbered.fullmatch(name):
            found[int(match[1] or 1)] = path.with_name(name)
    return found


def next_of(path: Path) -> Path:
    """An unused name: the path itself, otherwise with the next number: NAME.2.mp4."""
    numbers = family_of(path)
    return path.with_name(f"{path.stem}.{max(numbers) + 1}{path.suffix}") if numbers else path


def drop_oldest(family: dict[int, Path], keep: int | None) -> None:
    """Delete all but the newest `keep` files."""
    if keep is None:
        return
    for number in sorted(family)[: max(len(family) - keep, 0)]:
        family[number].unlink(missing_ok=True)


def remove_leftovers(folder: Path, of: Path | None = None) -> None:
    """Delete files left by killed runs, of one recording or of all: .NAME.partial-PID.suffix without a writer."""
    name = f".{_plain(of.stem)}.partial-*{_plain(of.suffix)}" if of else ".*.partial-*"
    with contextlib.suppress(OSError):
        for partial in folder.glob(name):
            with contextlib.suppress(OSError, ValueError):
                process = int(partial.name.rpartition(".partial-")[2].partition(".")[0])
                untouched_s = time.time() - partial.stat().st_mtime
                if process == os.getpid() or untouched_s > _LEFTOVER_S or not _is_running(process):
                    partial.unlink()


def _plain(name: str) -> str:
    """The name for glob, with its special characters escaped."""
    return re.sub(r"([\[*?])", r"[\1]", name)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
