"""Events: an object that stays in a zone becomes a folder with a clip, its best picture and a JSON record."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgecnn.errors import SpecError
from edgecnn.runners.live.sinks.events.limits import KeepLimits
from edgecnn.runners.live.sinks.events.sink import EventSink
from edgecnn.runners.live.sinks.kind import Setting

__all__ = ["EventSink", "KeepLimits", "check_events", "open_events"]


_TIMES = ("event_after", "event_before", "event_apart")


def check_events(folder: str | Path, words: Mapping[str, Any], *, tracks: bool) -> None:
    """Refuse events that can't be.

    Raises:
        SpecError: no objects are tracked, or a limit is not possible.
    """
    if not tracks:
        raise SpecError("--events needs objects that are tracked: give --zone, or --track for the whole picture")
    for word in _TIMES:
        _seconds(words, word)
    KeepLimits.parse(words.get("keep_events"))


def open_events(folder: str | Path, setting: Setting) -> EventSink:
    """The sink that writes a run's events.

    Raises:
        SpecError: the run tracks no objects, or a limit is not possible.
    """
    words = setting.words
    check_events(folder, words, tracks=setting.tracks)
    after_s, before_s, apart_s = (_seconds(words, word) for word in _TIMES)

    def tell(record: dict[str, Any]) -> None:
        for listener in setting.on_event:
            listener(record)

    setting.event_folders.append(Path(folder))
    return EventSink(
        folder,
        name=setting.cameras[0].name,
        live=setting.camera.live,
        after_s=after_s,
        before_s=before_s,
        apart_s=apart_s,
        keep=KeepLimits.parse(words.get("keep_events")),
        report=setting.report,
        on_event=tell,
    )


def _seconds(words: Mapping[str, Any], word: str) -> float:
    value = float(words.get(word, 0.0))
    if not 0 <= value < math.inf:
        raise SpecError(f"--{word.replace('_', '-')}: expected 0 or more seconds, got {value:g}")
    return value
