"""The run on the board that uses a deployed bundle: told of a new version, and asked whether frames flow."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from edgecnn.errors import DeviceError
from edgecnn.printable import shortened
from edgecnn.runners.deployed.order import Place

_LARGEST_ANSWER: Final = 4 << 20
_ASK_S: Final = 0.2
_RELOAD_S: Final = 60.0


@dataclass(frozen=True)
class RunState:
    """What the page of a run says.

    Attributes:
        state: "live", or that of the first source that isn't.
        bundle: the versions that run, in words.
        rate_fps, age_ms: over all sources; None where nothing came.
    """

    state: str
    bundle: str
    rate_fps: float | None
    age_ms: float | None


class RunHere:
    """The run of a place on this board; does nothing where neither a service nor a page is known."""

    def __init__(self, where: Place) -> None:
        self._service, self._page = where.service, where.page

    def reload(self) -> None:
        """Tell the service to read its file again.

        Raises:
            DeviceError: it can't be told.
        """
        if not self._service:
            return
        systemctl = shutil.which("systemctl")
        if systemctl is None:
            raise DeviceError("systemctl is not installed here: the service can't be told")
        root = hasattr(os, "geteuid") and os.geteuid() == 0
        command = [
            *([] if root else ["sudo", "-n"]),
            systemctl,
            "reload",
            f"{self._service.removesuffix('.service')}.service",
        ]
        try:
            done = subprocess.run(
                command, check=False, capture_output=True, text=True, timeout=_RELOAD_S, stdin=subprocess.DEVNULL
            )
        except (OSError, subprocess.TimeoutExpired) as failed:
            raise DeviceError(f"{' '.join(command)} failed: {failed}") from failed
        if done.returncode:
            raise DeviceError(f"{' '.join(command)} failed: {shortened((done.stderr or done.stdout).strip())}")

    def state(self) -> RunState | None:
        """What its page says; None where there is no page, or no answer."""
        if not self._page:
            return None
        with contextlib.suppress(OSError, ValueError, msgspec.DecodeError, TypeError, AttributeError, KeyError):
            said: dict[str, Any] = msgspec.json.decode(_asked(f"{self._page}/status?since=999999999"))
            states = [str(each["state"]) for each in said["sources"]]
            odd = [state for state in states if state not in ("live", "file")]
            rate, age = said["rate_fps"], said["age"]["p50_ms"]
            return RunState(
                state=shortened((odd or states or ["no source"])[0], length=40),
                bundle=str(said["run"].get("bundle", "")),
                rate_fps=float(rate) if isinstance(rate, int | float) else None,
                age_ms=float(age) if isinstance(age, int | float) else None,
            )
        return None

    def why_not(self, version: str, *, wait_s: float) -> str:
        """Why frames of a version don't flow after so long; "" as soon as they do, or where there is no page to ask."""
        if not self._page:
            return ""
        end_s = time.monotonic() + wait_s
        why = "its page does not answer"
        while time.monotonic() < end_s:
            state = self.state()
            if state is None:
                why = f"{self._page} does not answer"
            elif version not in state.bundle:
                why = f"the run still has {shortened(state.bundle) or 'another bundle'}: see its log"
            else:
                why = _unready(self._page)
                if not why:
                    return ""
            time.sleep(_ASK_S)
        return why


def _unready(page: str) -> str:
    try:
        _asked(f"{page}/readyz")
    except urllib.error.HTTPError as refused:
        return shortened(refused.read(500).decode(errors="replace").strip()) or f"code {refused.code}"
    except OSError as failed:
        return str(failed)
    return ""


def _asked(url: str) -> bytes:
    # Nobody's proxy: the page is on this board.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=5) as answer:
        content: bytes = answer.read(_LARGEST_ANSWER)
        return content
