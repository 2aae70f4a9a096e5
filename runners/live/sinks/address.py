"""The address on which a sink serves: "[HOST:]PORT"."""

from __future__ import annotations

import os
import socket
from typing import Final

from edgecnn.errors import DeviceError, SpecError

BACKLOG: Final = 64
_SEND_BUFFER_BYTES: Final = 128 * 1024  # system buffer per connection: data in it becomes old


def parse_address(address: str | int, what: str) -> tuple[str, int]:
    """Host and port from "[HOST:]PORT"; without a host, this machine only.

    Raises:
        SpecError: another form; the message names `what` is served.
    """
    host, _, port = str(address).rpartition(":")
    if not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise SpecError(f"{what}: expected PORT or HOST:PORT (9109, 0.0.0.0:9109, [::]:9109), got {address!r}")
    return host.strip("[]") or "127.0.0.1", int(port)


def url_of(host: str, port: int) -> str:
    """The address for a browser, with a slash at the end."""
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def not_served(what: str, host: str, port: int, failed: OSError) -> DeviceError:
    """The error when the system does not give this port."""
    code = failed.errno or 0  # negative for an unknown host name
    why = os.strerror(code) if code > 0 else failed.strerror or failed
    return DeviceError(
        f"{what} cannot be served on {host}:{port}: {why}; choose another port, or an address of this machine"
    )


def listen(host: str, port: int, what: str) -> socket.socket:
    """A listening socket; port 0 takes a free one.

    Raises:
        DeviceError: the port is in use or not allowed, or the host is not this machine; the message names `what` is
            served.
    """
    try:
        places = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as failed:
        raise not_served(what, host, port, failed) from failed
    failure = OSError("no address")
    for family, _, _, _, place in places:
        both = family == socket.AF_INET6 and place[0] == "::" and socket.has_dualstack_ipv6()
        try:
            listening = socket.create_server(place[:2], family=family, backlog=BACKLOG, dualstack_ipv6=both)
        except OSError as failed:
            failure = failed
        else:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)  # inherited by connections
            return listening
    raise not_served(what, host, port, failure) from failure
