"""A window that shows annotated frames."""

from __future__ import annotations

import os
import subprocess
import sys
from types import TracebackType
from typing import TYPE_CHECKING, Final

import cv2

from edgecnn.errors import DeviceError
from edgecnn.results import Result
from edgecnn.runners.live.frame import Frame
from edgecnn.runners.live.sinks import Annotated, EndOfRun
from edgecnn.runners.live.sinks.kind import Setting

if TYPE_CHECKING:
    from typing import Self

_TITLE: Final = "edgecnn"
_QUIT_KEYS: Final = {ord("q"), ord("Q"), 27}
_INSTEAD: Final = "use --record FILE or --jsonl FILE instead"
_PROBE: Final = "import cv2; cv2.namedWindow('edgecnn'); cv2.destroyAllWindows()"


class WindowSink:
    """Shows frames; q, Esc or closing the window ends the run.

    Args:
        by_source: True for one window per source.

    Attributes:
        in_main_thread: True: on most systems, windows belong to the main thread.

    Raises:
        DeviceError: this OpenCV has no windows, or there is no display.
    """

    in_main_thread = True

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
        """Keep the last picture, if there is one, until a key is pressed or the window is closed."""
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


def open_window(_: object, setting: Setting) -> WindowSink:
    """A window, or one for each source."""
    return WindowSink(by_source=len(setting.cameras) > 1 and not setting.camera.stills)


def _check_display() -> None:
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise DeviceError(f"no window can be shown: there is no display ($DISPLAY is not set); {_INSTEAD}")
    if not sys.executable:
        return
    # Qt ends the whole process when it can't reach the display, so a child process tries first.
    probe = subprocess.run([sys.executable, "-c", _PROBE], capture_output=True, text=True, timeout=30, check=False)
    if probe.returncode == 0:
        return
    if "not implemented" in probe.stderr.lower():
        raise DeviceError(
            "no window can be shown: this OpenCV was built without windows (opencv-python-headless); "
            f"install opencv-python instead, or {_INSTEAD}"
        )
    raise DeviceError(
        f"no window can be shown: the display {os.environ.get('DISPLAY', '')!r} does not answer; {_INSTEAD}"
    )
