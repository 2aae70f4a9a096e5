"""The table of kinds of sources: our own and those of other packages (entry points `edgecnn.cameras`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from edgecnn.errors import SpecError
from edgecnn.registry import Table
from edgecnn.runners.live.cameras.kind import CameraKind, FoundCamera, Source, Words
from edgecnn.runners.live.cameras.urls import redacted, resolved_secret

_ROOM: Final = "edgecnn.runners.live.cameras"
CAMERAS: Final = Table(
    "camera",
    {
        "device": f"{_ROOM}.video_devices:KIND",
        "csi": f"{_ROOM}.csi:KIND",
        "gstreamer": f"{_ROOM}.gstreamer:KIND",
        "network": f"{_ROOM}.network:KIND",
        "file": f"{_ROOM}.files:KIND",
    },
    record=CameraKind,
    group="edgecnn.cameras",
)
_LAST: Final = "file"  # accepts whatever no other kind does, since any text may be a path


def source_of(words: Words) -> Source:
    """The source that SOURCE selects; the first kind that recognises it wins; "env:NAME" and "file:PATH" are read.

    Raises:
        SpecError: no kind recognises it.
    """
    meant = resolved_secret(words) if isinstance(words, str) else words
    for kind in _in_order(meant):
        source = kind.recognise(meant)
        if source is not None:
            return source
    forms = "; ".join(kind.form for kind in CAMERAS)
    raise SpecError(f"{redacted(str(meant))} is not a known source; expected one of: {forms}")


def found_cameras() -> tuple[FoundCamera, ...]:
    """The sources on this machine, kind by kind; opens nothing."""
    return tuple(found for kind in CAMERAS if kind.found is not None for found in kind.found())


# Kind → its forms in help texts, so that no help text imports their modules; other kinds have theirs in the record.
SHORT_FORMS: Final = {
    "device": ("N", "/dev/videoN"),
    "csi": ("csi",),
    "gstreamer": ("'gst: ELEMENT ! ELEMENT'",),
    "network": ("rtsp://…", "http://… (MJPEG)"),
    "file": (),
}


class LiveForms:
    """The forms of the cameras and streams in a table, for help texts."""

    def __init__(self, cameras: Table[CameraKind], short: Mapping[str, Sequence[str]]) -> None:
        self._cameras, self._short = cameras, short

    def names(self) -> list[str]:
        """The short forms, then those of all other kinds."""
        short = [form for name in self._cameras.names() for form in self._short.get(name, ())]
        return [*short, *(kind.form for kind in self._cameras.others(self._short))]


LIVE_FORMS: Final = LiveForms(CAMERAS, SHORT_FORMS)


def _in_order(words: Words) -> Iterator[CameraKind]:
    """Our own kinds, then those of other packages, then files, because any text may be a path."""
    built_in = CAMERAS.built_in()
    if isinstance(words, Path):
        yield CAMERAS.get(_LAST)
    else:
        yield from (CAMERAS.get(name) for name in built_in if name != _LAST)
        yield from (kind for kind in CAMERAS if kind.name not in built_in)
        yield CAMERAS.get(_LAST)
