"""The RTSP server of the tests as a process that can be killed, frozen and started again."""

from __future__ import annotations

import functools
import signal
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

PYTHON = "/usr/bin/python3"
NEEDS = "needs gir1.2-gst-rtsp-server-1.0 python3-gi and GStreamer's plug-ins (good, ugly): apt-get install"
_PROGRAM = Path(__file__).with_name("rtsp_server.py")
_PROBE = """
import gi
for name in ("Gst", "GstRtsp", "GstRtspServer"): gi.require_version(name, "1.0")
from gi.repository import Gst, GstRtspServer
Gst.init(None)
assert all(Gst.ElementFactory.find(name) for name in ("x264enc", "rtph264pay", "jpegenc", "appsrc"))
"""


@functools.cache
def rtsp_is_here() -> bool:
    """Whether the server can run on this machine."""
    if not Path(PYTHON).exists():
        return False
    return subprocess.run([PYTHON, "-c", _PROBE], capture_output=True, check=False).returncode == 0


class RtspServer:
    """A running server.

    Args:
        words: its options, without dashes: size="320x240", codec="jpeg", transport="udp", user="me".

    Attributes:
        port: where it listens, also after it was killed.
        start_s: how long it took to start.
        accepted_s: time.monotonic() when it said that it accepts.
    """

    def __init__(self, *, port: int = 0, **words: str | int) -> None:
        self.words = words
        self.port = port
        self.start()

    def start(self) -> None:
        """Start; returns when it accepts."""
        options = [f"--{name.replace('_', '-')}={value}" for name, value in {**self.words, "port": self.port}.items()]
        began_s = time.monotonic()
        self._process = subprocess.Popen([PYTHON, str(_PROGRAM), *options], stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        address = self._process.stdout.readline().strip()
        self.accepted_s = time.monotonic()
        assert address.startswith("rtsp://"), f"the server did not start: {address!r}"
        self.start_s = self.accepted_s - began_s
        self.port = int(address.rpartition(":")[2].partition("/")[0])

    def url(self, *, login: str = "", path: str = "clock") -> str:
        """Where its stream is."""
        return f"rtsp://{login}127.0.0.1:{self.port}/{path}"

    def kill(self) -> None:
        """End at once, as a power cut does, but that the connections are closed."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def freeze(self) -> None:
        """Keep all connections, and send nothing."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Go on."""
        self._process.send_signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.returncode is None:
            self.kill()
