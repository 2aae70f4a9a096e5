"""What all cameras of ours do alike, whatever they read."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any

from edgecnn.printable import shortened

if TYPE_CHECKING:
    from typing import Self


class CameraBase:
    """What all our cameras do alike: they are iterators and context managers, and their `repr` says what they are.

    `repr` is as in "<VideoCamera street.mp4: 795 frames, 10 frames/s>".
    """

    def close(self) -> None:
        """Release the device or file; a second call does nothing."""
        raise NotImplementedError

    def __iter__(self) -> Self:
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        name = shortened(getattr(self, "name", "?"), length=100)
        return f"<{type(self).__name__} {name}: {', '.join(_facts(self)) or 'open'}>"


def _facts(camera: Any) -> list[str]:
    total, fps = getattr(camera, "frames_total", None), getattr(camera, "fps", None)
    state, dropped = getattr(camera, "state", None), getattr(camera, "dropped", 0)
    thing = "picture" if getattr(camera, "stills", False) else "frame"
    facts = [str(state)] if state else []
    facts += [f"{total} {thing}{'' if total == 1 else 's'}"] if total is not None else []
    facts += [f"{fps:g} frames/s"] if fps else []
    return facts + ([f"{dropped} dropped"] if dropped else [])
