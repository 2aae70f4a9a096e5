"""The record that describes a kind of source; each kind has one, in the file that opens it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from edgecnn.runners.live.cameras.capture_spec import CaptureSpec
from edgecnn.runners.live.cameras.reconnect import Reconnect, StateListener

if TYPE_CHECKING:
    from edgecnn.runners.live.cameras.camera import Camera

Words: TypeAlias = "str | int | Path"  # SOURCE, as the user gave it


@dataclass(frozen=True, kw_only=True)
class Opening:
    """How a source is opened.

    Attributes:
        name: `Frame.source` of its frames, without credentials.
        spec: the requested settings; holds only settings that its kind has.
        reconnect: when it counts as silent, how it is opened again, when it is given up.
        on_state: called with a live source's states.
    """

    name: str
    spec: CaptureSpec = field(default_factory=CaptureSpec)
    reconnect: Reconnect = field(default_factory=Reconnect)
    on_state: StateListener | None = None


@dataclass(frozen=True, kw_only=True)
class Source:
    """A source that its kind has recognised; nothing is open yet.

    Attributes:
        name: its name, without credentials.
        title: the kind's name in messages: "a camera of this machine".
        words: the settings that it has: names of `CaptureSpec`.
        open: opens it. Raises DataError for a file that does not exist or can't be read, DeviceError for a camera.
    """

    name: str
    title: str
    words: frozenset[str] = frozenset()
    open: Callable[[Opening], Camera]


class FoundCamera(msgspec.Struct, frozen=True, kw_only=True):
    """A source of one kind on this machine.

    Attributes:
        kind: the kind's name.
        source: what to give as SOURCE: "/dev/video0", or its form: "rtsp://HOST/PATH".
        device_name: the device's own name; "" where it is unknown.
        works: False where something is missing; None where only opening it would show.
        why: what is missing.
        needs: what to install.
    """

    kind: str
    source: str
    device_name: str = ""
    works: bool | None = None
    why: str = ""
    needs: str = ""


@dataclass(frozen=True, kw_only=True)
class CameraKind:
    """A kind of source: one row of the table.

    Attributes:
        name: the row's name.
        form: the text that selects it, for help and pages: "N, /dev/videoN".
        about: a short description: "a camera of this machine".
        recognise: returns the source that a text selects; None where it selects another kind. Raises SpecError where it
            selects this kind but is wrong. Opens nothing.
        found: lists such sources on this machine, for `edgecnn devices`; opens nothing.
        extra: the extra of edgecnn that it needs; "" where it needs none.
    """

    name: str
    form: str
    about: str
    recognise: Callable[[Words], Source | None]
    found: Callable[[], Sequence[FoundCamera]] | None = None
    extra: str = ""
