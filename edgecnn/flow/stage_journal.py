"""Records finished stages of a flow on disk: the same flow continues after them, a changed one where it differs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from edgecnn.atomic import storage_error
from edgecnn.bundle.evidence import Record
from edgecnn.errors import SpecError
from edgecnn.journal import Journal, journal_subject

JOURNAL = ".stages.json"
_ABOUT = "the stages of a flow"
_BEGUN, _FINISHED = "begun", "finished"


class Finished(Record, frozen=True, kw_only=True):
    """A finished stage.

    Attributes:
        key: digest of its settings and inputs.
        result: digest of its output.
        figures: its figures for the closing table.
    """

    key: str
    result: str = ""
    figures: dict[str, Any] = msgspec.field(default_factory=dict)


class StageJournal:
    """The stages of one flow, in a journal in its folder.

    Args:
        folder: the flow's folder; created if needed.

    Raises:
        SpecError: the folder has other content, or the file is damaged.
        StorageError: not writable.
    """

    def __init__(self, folder: Path) -> None:
        file = folder / JOURNAL
        try:
            about = journal_subject(file)
            if about is None and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
                raise SpecError(f"{folder} exists and was not made by `compress`: choose another --out, or remove it")
        except SpecError as damaged:
            if not file.is_file():
                raise
            raise SpecError(f"{damaged}; remove it to repeat the stages") from damaged
        except OSError as failed:
            raise storage_error(folder, failed) from failed
        self._journal = Journal(file, about=_ABOUT)

    def finished(self, stage: str, key: str) -> Finished | None:
        """The record of a stage; None where it isn't finished, or had other settings or inputs."""
        written = self._journal.get(_FINISHED, stage)
        try:
            done = None if written is None else msgspec.convert(written, Finished)
        except msgspec.ValidationError:
            return None
        return done if done is not None and done.key == key else None

    def begin(self, stage: str, key: str) -> bool:
        """Record that a stage begins.

        Returns:
            Whether it began with the same key before: then its partial results can be continued.
        """
        again = bool(self._journal.get(_BEGUN, stage) == key)
        if self._journal.get(_FINISHED, stage) is not None:
            self._journal.put(_FINISHED, stage, None)  # its output is being replaced
        self._journal.put(_BEGUN, stage, key)
        return again

    def finish(self, stage: str, key: str, *, result: str = "", figures: dict[str, Any] | None = None) -> Finished:
        """Record that a stage is finished; its output is already saved."""
        done = Finished(key=key, result=result, figures=figures or {})
        # A kill between the two lines leaves a stage that is both begun and finished: it counts as finished.
        self._journal.put(_FINISHED, stage, msgspec.to_builtins(done))
        self._journal.put(_BEGUN, stage, None)
        return done
