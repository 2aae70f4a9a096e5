"""The address of a board: ssh://[user@]host[:port]."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from edgecnn.errors import SpecError

_FORM = "expected a board such as ssh://pi@192.168.1.20 or ssh://pi@raspberrypi.local:2222"


@dataclass(frozen=True)
class BoardAddress:
    """A machine that is reachable with SSH.

    Attributes:
        host: a name, an address, or a Host of ~/.ssh/config.
        user, port: None leaves them to ~/.ssh/config and ssh's own rules.
    """

    host: str
    user: str | None = None
    port: int | None = None

    @classmethod
    def parse(cls, text: str) -> BoardAddress:
        """Read ssh://[user@]host[:port].

        Raises:
            SpecError: another form.
        """
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError as wrong:
            raise SpecError(f"{_FORM}; in {text!r}: {wrong}") from wrong
        if parts.scheme != "ssh" or not parts.hostname:
            raise SpecError(f"{_FORM}; got {text!r}")
        if parts.password is not None:
            raise SpecError(f"{_FORM}, without a password (use ssh's keys and agent); got one for {parts.hostname}")
        if parts.path not in ("", "/") or parts.query or parts.fragment:
            raise SpecError(f"{_FORM}, and nothing after it; got {text!r}")
        # Not parts.hostname, which is in lower case: a Host of ~/.ssh/config may not be.
        host = parts.netloc.rpartition("@")[2]
        host = host[1 : host.index("]")] if host.startswith("[") else host.partition(":")[0]
        for word in (host, parts.username or ""):
            if word.startswith("-") or any(letter.isspace() for letter in word):
                raise SpecError(f"{_FORM}; {word!r} is not a valid name")
        return cls(host, parts.username or None, port)

    def __str__(self) -> str:
        user = f"{self.user}@" if self.user else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"ssh://{user}{host}" + (f":{self.port}" if self.port is not None else "")

    @property
    def ssh_words(self) -> list[str]:
        """The arguments for ssh."""
        port = ["-p", str(self.port)] if self.port is not None else []
        user = ["-l", self.user] if self.user else []
        return [*port, *user, "--", self.host]

    @property
    def by_hand(self) -> str:
        """The command for a person to try."""
        port = f"-p {self.port} " if self.port is not None else ""
        return f"ssh {port}{self.user + '@' if self.user else ''}{self.host}"
