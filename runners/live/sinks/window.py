"""A window that shows annotated frames."""

from __future__ import annotations

import os
import subprocess
import sys
from types import TracebackType
from typing import Final, Self

import cv2

from edgecnn.errors import DeviceError
from edgecnn.results import Result
from edgecnn.runners.live.frames import Frame
from edgecnn.runners.live.sinks import Annotated, EndOfRun

_TITLE: Final = "edgecnn"
_QUIT_KEYS: Final = {ord("q"), ord("Q"), 27}
_INSTEAD: Final = "use --record FILE or --jsonl FILE instead"
_PROBE: Final = "import cv2; cv2.namedWindow('edgecnn'); cv2.destroyAllWindows()"


class WindowSink:
    """Shows frames; q, Esc or closing the window ends the run.

    Args:
        by_source: each source has a window of its own.

    Raises:
        DeviceError: OpenCV here has no windows, or there is no display.
    """

    def __init__(self, *, by_source: bool = False) -> None:
        _check_display()
        self._by_source = by_source
        self._shown: set[str] = set()

    def deliver(self, frame: Frame, result: Result, annotated: Annotated) -> None:
        """Show one frame."""
        title = f"{_TITLE}: {frame.source}" if self._by_source else _TITLE
        if title not in self._shown:
            cv2.namedWindow(title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
            height, width = annotated.picture.shape[:2]
            cv2.resizeWindow(title, width, height)
            self._shown.add(title)
        cv2.imshow(title, annotated.picture)
        if (cv2.waitKey(1) & 0xFF) in _QUIT_KEYS:
            raise EndOfRun("a key was pressed")
        if not self._visible():
            raise EndOfRun("the window was closed")

    def _visible(self) -> bool:
        return bool(self._shown) and all(
            cv2.getWindowProperty(title, cv2.WND_PROP_VISIBLE) >= 1 for title in self._shown
        )

    def hold(self) -> None:
        """Keep the last picture until a key is pressed or the window is closed."""
        while self._visible():
            if cv2.waitKey(100) >= 0:
                return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for title in self._shown:
            cv2.destroyWindow(title)


def _check_display() -> None:
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise DeviceError(f"no window can be shown: no display here ($DISPLAY is not set); {_INSTEAD}")
    if not sys.executable:
        return
    # Qt ends the whole process when it can't reach the display, so another process tries first.
    probe = subprocess.run([sys.executable, "-c", _PROBE], capture_output=True, text=True, timeout=30, check=False)
    if probe.returncode == 0:
        return
    if "not implemented" in probe.stderr.lower():
        raise DeviceError(
            "no window can be shown: OpenCV here was built without windows (opencv-python-headless); "
            f"install opencv-python in its place, or {_INSTEAD}"
        )
    raise DeviceError(
        f"no window can be shown: the display {os.environ.get('DISPLAY', '')!r} does not answer; {_INSTEAD}"
    )
