"""The table of kinds of sources: our own and those of other packages (entry points `edgecnn.cameras`)."""

from __future__ import annotations

from collections.abc import Iterator
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


class _LiveForms:
    """The forms of cameras and streams, for help texts; ours are listed without an import of their modules."""

    def names(self) -> list[str]:
        built_in = CAMERAS.built_in()
        return [*OUR_FORMS, *(kind.form for kind in CAMERAS if kind.name not in built_in)]


OUR_FORMS: Final = ("N", "/dev/videoN", "csi", "'gst: ELEMENT ! ELEMENT'", "rtsp://…", "http://… (MJPEG)")
LIVE_FORMS: Final = _LiveForms()


def _in_order(words: Words) -> Iterator[CameraKind]:
    """Our own kinds, then those of other packages, then files, because any text may be a path."""
    built_in = CAMERAS.built_in()
    if isinstance(words, Path):
        yield CAMERAS.get(_LAST)
    else:
        yield from (CAMERAS.get(name) for name in built_in if name != _LAST)
        yield from (kind for kind in CAMERAS if kind.name not in built_in)
        yield CAMERAS.get(_LAST)
