"""A connection to a board: the system's own ssh, with the agent (see `agent`) at the other end."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from typing import IO, Any

from edgecnn.errors import BoardError
from edgecnn.printable import shortened
from edgecnn.runners.remote import answers
from edgecnn.runners.remote.address import BoardAddress

SSH_VARIABLE = "EDGECNN_SSH"  # another command instead of `ssh`, such as "ssh -F lab.conf"
_NO_PYTHON = 96
_RETRY_S = 1.0
_LAST_WORDS_BYTES = 64 << 10
# ssh must not ask questions, and gives up after 30 s of silence. Everything else is ssh's default.
_SILENCE = ("ConnectTimeout=30", "ServerAliveInterval=10", "ServerAliveCountMax=3")
_OPTIONS = ("-T", *(word for option in ("BatchMode=yes", *_SILENCE) for word in ("-o", option)))
_BOOT = "import sys;exec(sys.stdin.buffer.read(int(sys.stdin.buffer.readline())))"
# The first Python that is new enough. It must not contain single quotes, because it is put between them.
_FIND_PYTHON = (
    "for p in python3 python3.11 python3.12 python3.13 python3.14; do "
    'if "$p" -c "import sys; sys.exit(sys.version_info < (3, 11))" 2>/dev/null; '
    f'then exec "$p" -c "{_BOOT}"; fi; done; '
    f'echo "found: $(python3 --version 2>&1)" >&2; exit {_NO_PYTHON}'
)


class Lost(Exception):
    """The connection has ended; holds ssh's message."""


class RefusedByBoard(Exception):
    """The agent refused a request: `kind` is its word for the reason."""

    def __init__(self, kind: str, reason: str) -> None:
        self.kind = kind
        super().__init__(reason)


class _ErrorOutput:
    """The last part of a program's standard error, however long that is."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe, self._kept = pipe, b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            while more := self._pipe.read1(1 << 16):  # type: ignore[attr-defined]
                self._kept = (self._kept + more)[-_LAST_WORDS_BYTES:]

    def text(self) -> str:
        """Its lines, printable; call it after the program has ended."""
        self._reader.join(2.0)
        lines = self._kept.decode(errors="replace").splitlines()
        return "\n".join(shortened(line.strip(), length=500) for line in lines if line.strip())

    def close(self) -> None:
        self._reader.join(2.0)
        if not self._reader.is_alive():  # otherwise a child of ssh still holds it
            self._pipe.close()


@dataclass
class _Channel:
    """One run of ssh."""

    process: subprocess.Popen[bytes]
    errors: _ErrorOutput

    def ask(self, request: dict[str, Any], payload: bytes) -> tuple[dict[str, Any], bytes]:
        too_slow = threading.Timer(answers.LONGEST_REQUEST_S, self.process.kill)
        too_slow.daemon = True
        too_slow.start()
        try:
            return self._answer(request, payload)
        finally:
            too_slow.cancel()

    def _answer(self, request: dict[str, Any], payload: bytes) -> tuple[dict[str, Any], bytes]:
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps({**request, "bytes": len(payload)}).encode() + b"\n")
            self.process.stdin.write(payload)
            self.process.stdin.flush()
        except OSError as broken:
            raise Lost(self.error_output()) from broken
        line = self.process.stdout.readline(answers.MOST_LINE_BYTES)
        if len(line) >= answers.MOST_LINE_BYTES and not line.endswith(b"\n"):
            raise self._refused(f"an answer of more than {answers.MOST_LINE_BYTES >> 20} MB")
        if not line.endswith(b"\n"):
            raise Lost(self.error_output())
        try:
            answer = json.loads(line)
        except (ValueError, RecursionError) as wrong:
            raise Lost(
                f"the board's shell prints {line[:60]!r} at login: make its start-up files silent "
                "when there is no terminal"
            ) from wrong
        if not isinstance(answer, dict):
            raise self._refused(f"an invalid answer: {shortened(line[:60])}")
        size = answer.get("bytes", 0)
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= answers.MOST_FILE_BYTES:
            raise self._refused(f"an answer of {shortened(size, length=40)} bytes")
        content = self.process.stdout.read(size)
        if len(content) < size:
            raise Lost(self.error_output())
        return answer, content

    def _refused(self, what: str) -> BoardError:
        self.process.kill()
        return BoardError(f"it gives {what}; expected an answer of edgecnn: check that this is the right board")

    def error_output(self) -> str:
        """What ssh and the board wrote to standard error, after they have ended."""
        self.close()
        return self.errors.text()

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
    """Sends requests to the agent on a board, and reconnects if the connection is lost.

    Args:
        address: the board's address.
        lease_s: how long the board waits for us before it gives up a job, and how long we try to reconnect.
        stop: called between attempts; True to give up.
        on_lost: called when a connection is lost during a job.

    Raises:
        BoardError: unreachable, refused, or without a Python that is new enough; or ssh is not installed here.
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
        """Send a request to the agent; returns its answer. A request during which the connection was lost is repeated.

        Raises:
            BoardError: the connection was lost and could not be restored, or the board failed.
            RefusedByBoard: the agent refused, for a reason that the caller may be able to solve.
        """
        return self._ask(do, payload, words)[0]

    def fetch(self, path: str) -> bytes:
        """A file of the job."""
        return self._ask("read", b"", {"path": path})[1]

    def begin(self, job: str) -> None:
        """Begin a job on the board; from now on, a lost connection is restored."""
        self.ask("begin", job=job, lease_s=self._lease_s, resume=False)
        self._begun = {"do": "begin", "job": job, "lease_s": self._lease_s, "resume": True}

    def close(self) -> None:
        """End the connection."""
        self._channel.close()
        self._channel.errors.close()

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The ssh process that runs now."""
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
                    raise explain(self.address, self._channel.process.returncode, str(lost)) from lost
                self._on_lost()
                self._reconnect(str(lost))
        if "refused" in answer:
            raise RefusedByBoard(answers.text(answer, "refused"), answers.text(answer, "reason", most=100_000))
        return answer, content

    def _reconnect(self, errors: str) -> None:
        """Reconnect and continue the job.

        Raises:
            BoardError: that failed for as long as the board waits.
        """
        deadline = time.monotonic() + self._lease_s
        tries = 0
        while time.monotonic() < deadline and not self._stop():
            tries += 1
            self._channel.errors.close()
            self._channel = self._open()
            try:
                answer, _ = self._channel.ask(self._begun or {}, b"")
            except Lost as lost:
                errors = str(lost) or errors
                time.sleep(_RETRY_S)
                continue
            if "refused" in answer:
                errors = answers.text(answer, "reason", most=100_000)
                break
            return
        self._given_up = BoardError(
            f"{self.address}: the connection was lost during the job, and {tries} attempts to reconnect failed "
            f"({_last_line(errors) or 'no message from ssh'}); the board removes what was sent within "
            f"{self._lease_s:.0f} s. Nothing was recorded: start again when the board is reachable"
        )
        raise self._given_up

    def _open(self) -> _Channel:
        words = shlex.split(os.environ.get(SSH_VARIABLE, "")) or ["ssh"]
        if shutil.which(words[0]) is None:
            raise BoardError(
                f"{self.address}: the program {words[0]!r} is not installed here: on Debian and Ubuntu, "
                f"apt-get install openssh-client; or give another command in {SSH_VARIABLE}"
            )
        process = subprocess.Popen(
            [*words, *_OPTIONS, *self.address.ssh_words, f"exec sh -c '{_FIND_PYTHON}'"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C goes to us: the board must be cleaned up first
        )
        assert process.stdin is not None and process.stderr is not None
        errors = _ErrorOutput(process.stderr)
        source = files("edgecnn.runners.remote").joinpath("agent.py").read_bytes()
        with contextlib.suppress(OSError):  # ssh has ended: the missing answer will show it
            process.stdin.write(b"%d\n%s" % (len(source), source))
            process.stdin.flush()
        return _Channel(process, errors)


def explain(address: BoardAddress, code: int | None, errors: str) -> BoardError:
    """The meaning of a failed connection, and what to do."""
    last = _last_line(errors)
    if code == _NO_PYTHON:
        found = last.removeprefix("found: ") if last.startswith("found: ") else last
        what = f"no Python 3.11 or newer there ({found}): update its system, or install a newer python3"
    elif "REMOTE HOST IDENTIFICATION HAS CHANGED" in errors:
        what = (
            "its host key differs from the one in known_hosts: it was reinstalled, or it is not the board that "
            f"you mean. If you know the reason: ssh-keygen -R '{_known_as(address)}', then {address.by_hand}"
        )
    elif "Host key verification failed" in errors or "host key is known for" in errors:
        what = f"its host key is not known here: run {address.by_hand} once and compare its fingerprint"
    elif "Permission denied" in errors or "Too many authentication failures" in errors:
        what = (
            f"it refuses the login ({last}): {address.by_hand.replace('ssh ', 'ssh-copy-id ', 1)} puts your key there; "
            "a key with a passphrase must be in the agent (ssh-add), because edgecnn does not ask for it"
        )
    elif code == 255 or code is None:
        what = f"cannot be reached ({last or 'no message from ssh'}): check that it is on and try {address.by_hand}"
    else:
        what = f"its shell ended with code {code} ({last or 'no message'}): try {address.by_hand} true"
    return BoardError(f"{address}: {what}")


def _known_as(address: BoardAddress) -> str:
    return address.host if address.port in (None, 22) else f"[{address.host}]:{address.port}"


def _last_line(text: str) -> str:
    return shortened(text.splitlines()[-1]) if text else ""
