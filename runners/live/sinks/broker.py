"""Where results are published: a broker's address, read from a URL."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote, urlsplit

from edgecnn.errors import SpecError
from edgecnn.runners.live.cameras.urls import redacted, resolved_secret

_PORTS: Final = {"mqtt": 1883, "mqtts": 8883}
_DEFAULT_PREFIX: Final = "edgecnn"


@dataclass(frozen=True, kw_only=True)
class Broker:
    """Where to publish, parsed from mqtt://USER:PASSWORD@HOST:PORT/TOPIC/PREFIX.

    Attributes:
        encrypted: True for mqtts://; checked with the system's certificates (SSL_CERT_FILE names others).
        prefix: prefix of all topics, without slashes at its ends.
    """

    host: str
    port: int
    encrypted: bool
    prefix: str
    username: str | None = field(repr=False)
    password: str | None = field(repr=False)

    @property
    def name(self) -> str:
        """Host and port: may be printed and logged."""
        return f"{self.host}:{self.port}"


def parse_broker(url: str) -> Broker:
    """Parse a URL; "env:NAME" and "file:PATH" name where it is stored.

    Raises:
        SpecError: it is not a URL for MQTT; the message contains no login.
    """
    form = "expected mqtt://USER:PASSWORD@HOST:1883/TOPIC/PREFIX or mqtts://…"
    url = resolved_secret(url)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # its message may contain the password
        raise SpecError(
            f"{redacted(url)} is not the URL of a broker: {form}; in a password, write @ : / ? # % as %40 and so on"
        ) from None
    if parts.scheme not in _PORTS or not parts.hostname:
        raise SpecError(f"{redacted(url)} is not the URL of a broker: {form}")
    prefix = unquote(parts.path).strip("/") or _DEFAULT_PREFIX
    if parts.query or parts.fragment or any(wrong in prefix for wrong in "#+@\0") or prefix.startswith("$"):
        raise SpecError(
            f"{redacted(url)} has no topic that can be published to: {form}; a topic has no # + @ and does not "
            "begin with $, and in a password @ : / ? # % are written as %40 and so on"
        )
    return Broker(
        host=parts.hostname,
        port=port or _PORTS[parts.scheme],
        encrypted=parts.scheme == "mqtts",
        prefix=prefix,
        username=None if parts.username is None else unquote(parts.username),
        password=None if parts.password is None else unquote(parts.password),
    )
