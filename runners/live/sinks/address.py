"""Where a sink serves: "[HOST:]PORT"."""

from __future__ import annotations

import os

from edgecnn.errors import DeviceError, SpecError


def parse_address(address: str | int, what: str) -> tuple[str, int]:
    """Host and port of "[HOST:]PORT"; without a host, this machine only.

    Raises:
        SpecError: it is neither; names `what` is to be served.
    """
    host, _, port = str(address).rpartition(":")
    if not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise SpecError(f"{what}: served on PORT or HOST:PORT (9109, 0.0.0.0:9109, [::]:9109), got {address!r}")
    return host.strip("[]") or "127.0.0.1", int(port)


def url_of(host: str, port: int) -> str:
    """Its address for a browser, with a slash at the end."""
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def not_served(what: str, host: str, port: int, failed: OSError) -> DeviceError:
    """What to say when the system gives no such port."""
    code = failed.errno or 0  # a name that is not found has a negative one
    why = os.strerror(code) if code > 0 else failed.strerror or failed
    return DeviceError(
        f"{what} cannot be served on {host}:{port}: {why}; choose another port, or a host that is this machine"
    )
