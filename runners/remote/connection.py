"""A connection to a board: the system's own ssh, with the agent (see `agent`) at its other end."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from typing import IO, Any

from edgecnn.errors import BoardError
from edgecnn.runners.remote.address import BoardAddress

SSH_VARIABLE = "EDGECNN_SSH"  # another command than `ssh`, as in "ssh -F lab.conf"
_NO_PYTHON = 96
_RETRY_S = 1.0
# Nobody is there to answer a question; what is silent for 30 s is given up. All else is as ssh has it.
_SILENCE = ("ConnectTimeout=30", "ServerAliveInterval=10", "ServerAliveCountMax=3")
_OPTIONS = ("-T", *(word for option in ("BatchMode=yes", *_SILENCE) for word in ("-o", option)))
_BOOT = "import sys;exec(sys.stdin.buffer.read(int(sys.stdin.buffer.readline())))"
# The first Python that is new enough. No single quotes in it: it goes between such.
_FIND_PYTHON = (
    "for p in python3 python3.11 python3.12 python3.13 python3.14; do "
    'if "$p" -c "import sys; sys.exit(sys.version_info < (3, 11))" 2>/dev/null; '
    f'then exec "$p" -c "{_BOOT}"; fi; done; '
    f'echo "found: $(python3 --version 2>&1)" >&2; exit {_NO_PYTHON}'
)


class Lost(Exception):
    """The connection has ended; what ssh said."""


class RefusedByBoard(Exception):
    """The agent refused a request: `kind` is its word for why."""

    def __init__(self, kind: str, reason: str) -> None:
        self.kind = kind
        super().__init__(reason)


@dataclass
class _Channel:
    """One run of ssh."""

    process: subprocess.Popen[bytes]
    said: IO[bytes]

    def ask(self, request: dict[str, Any], payload: bytes) -> tuple[dict[str, Any], bytes]:
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps({**request, "bytes": len(payload)}).encode() + b"\n")
            self.process.stdin.write(payload)
            self.process.stdin.flush()
        except OSError as broken:
            raise Lost(self.last_words()) from broken
        line = self.process.stdout.readline()
        if not line.endswith(b"\n"):
            raise Lost(self.last_words())
        try:
            answer = json.loads(line)
        except ValueError as wrong:
            raise Lost(
                f"the board's shell prints {line[:60]!r} before anything was asked: let its start-up files be "
                "silent where no person is at the terminal"
            ) from wrong
        content = self.process.stdout.read(answer["bytes"])
        if len(content) < answer["bytes"]:
            raise Lost(self.last_words())
        return answer, content

    def last_words(self) -> str:
        """What ssh and the board wrote to standard error, after they have ended."""
        self.close()
        self.said.seek(0)
        text = self.said.read().decode(errors="replace")
        return "\n".join(line.strip() for line in text.splitlines() if line.strip())

    def close(self) -> None:
        """End it; a second call does nothing."""
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Connection:
    """Asks the agent on a board, and connects again where the connection is lost.

    Args:
        address: of the board.
        lease_s: for how long the board waits for us before it gives a job up; so long we try to come back.
        stop: asked between attempts: whether to give up.
        on_lost: called when a connection is lost in the middle of a job.

    Raises:
        BoardError: unreachable, refused, or without a Python that is new enough; or there is no ssh here.
    """

    def __init__(
        self,
        address: BoardAddress,
        *,
        lease_s: float,
        stop: Callable[[], bool] = lambda: False,
        on_lost: Callable[[], None] = lambda: None,
    ) -> None:
        self.address = address
        self._lease_s, self._stop, self._on_lost = lease_s, stop, on_lost
        self._begun: dict[str, Any] | None = None
        self._given_up: BoardError | None = None
        self._channel = self._open()

    def ask(self, do: str, payload: bytes = b"", **words: Any) -> dict[str, Any]:
        """Ask the agent; its answer. A request that was under way as the connection was lost is asked again.

        Raises:
            BoardError: the connection was lost and did not come back, or the board could not do it.
            RefusedByBoard: the agent refused, for a reason that the caller may know a way out of.
        """
        return self._ask(do, payload, words)[0]

    def fetch(self, path: str) -> bytes:
        """A file of the job."""
        return self._ask("read", b"", {"path": path})[1]

    def begin(self, job: str) -> None:
        """Begin a job on the board; from here on a lost connection is taken up again."""
        self.ask("begin", job=job, lease_s=self._lease_s, resume=False)
        self._begun = {"do": "begin", "job": job, "lease_s": self._lease_s, "resume": True}

    def close(self) -> None:
        """End the connection."""
        self._channel.close()
        self._channel.said.close()

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The ssh that runs now."""
        return self._channel.process

    def _ask(self, do: str, payload: bytes, words: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        request = {"do": do, **words}
        while True:
            if self._given_up is not None:
                raise self._given_up
            try:
                answer, content = self._channel.ask(request, payload)
                break
            except Lost as lost:
                if self._begun is None:
                    raise _explain(self.address, self._channel.process.returncode, str(lost)) from lost
                self._on_lost()
                self._come_back(str(lost))
        if "refused" in answer:
            raise RefusedByBoard(answer["refused"], answer["reason"])
        return answer, content

    def _come_back(self, said: str) -> None:
        """Connect again and take up the job.

        Raises:
            BoardError: that did not succeed while the board waits.
        """
        deadline = time.monotonic() + self._lease_s
        tries = 0
        while time.monotonic() < deadline and not self._stop():
            tries += 1
            self._channel.said.close()
            self._channel = self._open()
            try:
                answer, _ = self._channel.ask(self._begun or {}, b"")
            except Lost as lost:
                said = str(lost) or said
                time.sleep(_RETRY_S)
                continue
            if "refused" in answer:
                said = answer["reason"]
                break
            return
        self._given_up = BoardError(
            f"{self.address}: the connection was lost in the middle and {tries} attempts to take it up failed "
            f"({_last_line(said) or 'ssh said nothing'}); the board removes what was sent within "
            f"{self._lease_s:.0f} s. Nothing was recorded: start again when it is back"
        )
        raise self._given_up

    def _open(self) -> _Channel:
        words = shlex.split(os.environ.get(SSH_VARIABLE, "")) or ["ssh"]
        if shutil.which(words[0]) is None:
            raise BoardError(
                f"{self.address}: the program {words[0]!r} is not here: on Debian and Ubuntu, "
                f"apt-get install openssh-client; or name another in {SSH_VARIABLE}"
            )
        said = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        process = subprocess.Popen(
            [*words, *_OPTIONS, *self.address.ssh_words, f"exec sh -c '{_FIND_PYTHON}'"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            start_new_session=True,  # Ctrl-C is ours to answer: the board is to be cleaned up first
        )
        assert process.stdin is not None
        source = files("edgecnn.runners.remote").joinpath("agent.py").read_bytes()
        with contextlib.suppress(OSError):  # it has ended: the missing answer tells
            process.stdin.write(b"%d\n%s" % (len(source), source))
            process.stdin.flush()
        return _Channel(process, said)


def _explain(address: BoardAddress, code: int | None, said: str) -> BoardError:
    """What a connection that never stood means, and what to do."""
    last = _last_line(said)
    if code == _NO_PYTHON:
        found = last.removeprefix("found: ") if last.startswith("found: ") else last
        what = f"no Python 3.11 or newer there ({found}): update its system, or install a newer python3"
    elif "REMOTE HOST IDENTIFICATION HAS CHANGED" in said:
        what = (
            "it shows another host key than the one in known_hosts: it was set up anew, or it is not the board that "
            f"you mean. If you know why: ssh-keygen -R '{_known_as(address)}', then {address.by_hand}"
        )
    elif "Host key verification failed" in said or "host key is known for" in said:
        what = f"its host key is not known here: {address.by_hand} once, and compare the fingerprint that it shows"
    elif "Permission denied" in said or "Too many authentication failures" in said:
        what = (
            f"it refuses the login ({last}): {address.by_hand.replace('ssh ', 'ssh-copy-id ', 1)} puts your key there; "
            "a key with a passphrase must be in the agent (ssh-add), since nobody is asked"
        )
    elif code == 255 or code is None:
        what = f"cannot be reached ({last or 'ssh said nothing'}): is it on, and does {address.by_hand} work?"
    else:
        what = f"its shell ended with code {code} ({last or 'it said nothing'}): does {address.by_hand} true work?"
    return BoardError(f"{address}: {what}")


def _known_as(address: BoardAddress) -> str:
    return address.host if address.port in (None, 22) else f"[{address.host}]:{address.port}"


def _last_line(text: str) -> str:
    return text.splitlines()[-1] if text else ""
