"""Which stages of a flow are done, on disk: the same flow goes on after them, another one from where it differs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from edgecnn._staging import storage_error, write_whole
from edgecnn.errors import SpecError
from edgecnn.evidence import Record

JOURNAL = ".stages.json"


class Finished(Record, frozen=True, kw_only=True):
    """A stage that is done.

    Attributes:
        key: digest of what it was told and given.
        result: digest of what it wrote.
        figures: what the closing table wants of it.
    """

    key: str
    result: str = ""
    figures: dict[str, Any] = msgspec.field(default_factory=dict)


class _Document(Record, frozen=True, kw_only=True):
    begun: dict[str, str] = msgspec.field(default_factory=dict)
    finished: dict[str, Finished] = msgspec.field(default_factory=dict)


class StageJournal:
    """The stages of one flow, in a file of its folder that is replaced as a whole.

    Args:
        folder: of the flow; made where it isn't there.

    Raises:
        SpecError: there is something else in the folder, or the file is damaged.
        StorageError: not writable.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / JOURNAL
        try:
            if not self._file.exists():
                if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
                    raise SpecError(f"{folder} is there and not of `compress`: choose another --out, or remove it")
                folder.mkdir(parents=True, exist_ok=True)
                self._document = _Document()
                self._write()
            self._document = msgspec.json.decode(self._file.read_bytes(), type=_Document)
        except msgspec.DecodeError as damaged:
            raise SpecError(
                f"{self._file} is damaged: {damaged}; remove it, and the stages are done again"
            ) from damaged
        except OSError as failed:
            raise storage_error(folder, failed) from failed

    def finished(self, stage: str, key: str) -> Finished | None:
        """What is known of a stage; None where it isn't done, or was told or given something else."""
        done = self._document.finished.get(stage)
        return done if done is not None and done.key == key else None

    def begin(self, stage: str, key: str) -> bool:
        """Note that a stage begins.

        Returns:
            Whether it began with the same words before: what it left half-done is worth taking up.
        """
        again = self._document.begun.get(stage) == key
        self._document.begun[stage] = key
        self._document.finished.pop(stage, None)
        self._write()
        return again

    def finish(self, stage: str, key: str, *, result: str = "", figures: dict[str, Any] | None = None) -> Finished:
        """Note that a stage is done; what it wrote lies there already."""
        done = Finished(key=key, result=result, figures=figures or {})
        self._document.finished[stage] = done
        self._document.begun.pop(stage, None)
        self._write()
        return done

    def _write(self) -> None:
        write_whole(self._file, msgspec.json.format(msgspec.json.encode(self._document), indent=1))
