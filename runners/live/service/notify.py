"""Tells systemd that the service is ready, alive, reloading or stopping; does nothing elsewhere.

The protocol is that of sd_notify(3): datagrams of VARIABLE=VALUE lines to the socket that $NOTIFY_SOCKET names.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from typing import Final

_WORDS: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class ServiceNotifier:
    """The connection to systemd, if it started this process and listens.

    A message that does not arrive is no error: systemd restarts a service whose watchdog it does not hear.

    Attributes:
        watchdog_s: time within which systemd wants to hear of it; None where it doesn't.
    """

    def __init__(self) -> None:
        place, timeout_us, process = (os.environ.get(word, "") for word in _WORDS)
        # "@" stands for the zero byte of Linux's abstract sockets.
        self._address = "\0" + place[1:] if place.startswith("@") else place
        mine = process in ("", str(os.getpid()))
        self.watchdog_s = int(timeout_us) / 1e6 if mine and timeout_us.isdecimal() and int(timeout_us) else None
        self._next_s = 0.0

    def ready(self, status: str) -> None:
        """The service runs; `status` is shown by `systemctl status`."""
        self._send(f"READY=1\nSTATUS={' '.join(status.split())}")

    def reloading(self) -> None:
        """The service reads its configuration again; `ready` ends it."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The service ends."""
        self._send("STOPPING=1")

    def alive(self) -> None:
        """The service works; may be called often, and sends three times as often as needed."""
        if self.watchdog_s is not None and time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + self.watchdog_s / 3
            self._send("WATCHDOG=1")

    def _send(self, text: str) -> None:
        if not self._address or not hasattr(socket, "AF_UNIX"):
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.settimeout(1.0)
            sender.sendto(text.encode(), self._address)
