"""Has boards do a piece of work: each gets an environment and the files, runs edgecnn, and gives the answer back."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgecnn.errors import BoardError, EdgeCnnError
from edgecnn.runners.remote.address import BoardAddress
from edgecnn.runners.remote.connection import Connection, RefusedByBoard
from edgecnn.runners.remote.packages import fetch_wheels, missing_on, needed, platform_tags
from edgecnn.runners.remote.parcel import Item
from edgecnn.runners.remote.wheel import own_wheel

# For so long a board waits for us before it ends a job and removes what was sent.
LEASE_S = 60.0
_CHUNK = 256 * 1024
_SLOWEST_POLL_S = 1.0

Status = Callable[[BoardAddress, str], None]


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a board is to do.

    Attributes:
        words: behind `edgecnn`; paths start from `../`, which is the job's folder.
        items: files that are laid into the job's folder.
        extras: which extras of edgecnn it takes.
        only: extra → those of its packages that are meant; all of the others.
        report: a file that it writes in its working folder, to be brought home; "" for none.
    """

    words: tuple[str, ...]
    items: tuple[Item, ...] = ()
    extras: tuple[str, ...] = ()
    only: dict[str, frozenset[str]] = field(default_factory=dict)
    report: str = ""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a board gave back.

    Attributes:
        board: what its device tree says, else its host's name.
        code: edgecnn's exit code there.
        out, err: what it printed.
        report: the file that was asked for; empty where it wrote none.
    """

    board: str
    code: int
    out: bytes
    err: str
    report: bytes


def on_boards(
    addresses: Sequence[BoardAddress], work: Work, *, status: Status, lease_s: float | None = None
) -> list[Answer | EdgeCnnError]:
    """Have boards do the same work, all at once; a board's own failure takes its answer's place.

    Args:
        addresses: of the boards.
        work: what each is to do.
        status: called with what happens, from several threads.
        lease_s: see LEASE_S.
    """
    own_wheel()  # made once, before the threads
    stop = threading.Event()

    def one(address: BoardAddress) -> Answer | EdgeCnnError:
        try:
            return on_board(address, work, status=status, stop=stop, lease_s=lease_s or LEASE_S)
        except EdgeCnnError as error:
            return error

    with ThreadPoolExecutor(len(addresses)) as threads:
        futures = [threads.submit(one, address) for address in addresses]
        try:
            wait_for(futures)
        except BaseException:  # Ctrl-C: the boards are cleaned up before it goes on
            stop.set()
            raise
    return [future.result() for future in futures]


def on_board(
    address: BoardAddress, work: Work, *, status: Status, stop: threading.Event, lease_s: float = LEASE_S
) -> Answer:
    """Have one board do it.

    Raises:
        BoardError: unreachable, without what is needed, its disk full, or lost in the middle. What this job brought
            is then removed from the board, at once or, where it is out of reach, by the board itself.
    """
    connection = Connection(
        address,
        lease_s=lease_s,
        stop=stop.is_set,
        on_lost=lambda: status(address, "the connection was lost: taking it up again"),
    )
    try:
        return _Job(connection, work, status=lambda text: status(address, text), stop=stop).run()
    except RefusedByBoard as refused:
        raise BoardError(f"{address}: {_refusal(refused)}") from refused
    finally:
        connection.close()


class _Job:
    """One piece of work on one board."""

    def __init__(
        self, connection: Connection, work: Work, *, status: Callable[[str], None], stop: threading.Event
    ) -> None:
        self._connection, self._work, self._status, self._stop = connection, work, status, stop
        self._to_send_mb = 0.0

    def run(self) -> Answer:
        """From the greeting to the cleaning up."""
        info = self._connection.ask("hello")
        board = info["board"] or info["host"]
        self._status(f"{board}, {info['platform']}, Python {info['python']}")
        with tempfile.TemporaryDirectory(prefix="edgecnn-wheels-") as folder:
            environment, wheels = self._plan(info, Path(folder))
            self._connection.begin(uuid.uuid4().hex)
            try:
                answer = self._do(info, environment, wheels, board)
            except BaseException:
                with contextlib.suppress(BoardError, RefusedByBoard):  # its own keeper does it, later
                    self._connection.ask("end", failed=True)
                raise
        self._connection.ask("end", failed=False)
        return answer

    def _plan(self, info: dict[str, Any], folder: Path) -> tuple[str, list[Item]]:
        """The environment's name, and the wheels that it takes; none where it is there."""
        try:
            tags = platform_tags(info["platform"], info["libc"])
            packages, wanted = info["packages"], needed(self._work.extras, only=self._work.only)
            python = f"env-{_digest(info['python'], info['executable'])}-"
            for name, its_own in sorted(info["environments"].items()):
                if name.startswith(python) and not missing_on({**packages, **its_own}, wanted):
                    return name, []
            missing = missing_on(packages, wanted)
            name = python + _digest(*missing)
            if not missing:
                return name, []
            self._status(f"fetching what it lacks: {', '.join(missing)}")
            wheels = fetch_wheels(missing, into=folder, python=info["python"], tags=tags, board=packages)
        except BoardError as error:
            raise BoardError(f"{self._connection.address}: {error}") from error
        return name, [_file_item(wheel) for wheel in wheels]

    def _do(self, info: dict[str, Any], environment: str, wheels: list[Item], board: str) -> Answer:
        ask = self._connection.ask
        own = own_wheel()
        own_item = Item("", Path(), hashlib.sha256(own).hexdigest(), len(own))
        edgecnn = f"edgecnn-{own_item.sha256[:16]}"
        new_environment, new_edgecnn = environment not in info["environments"], edgecnn not in info["edgecnns"]
        self._send(wheels, [own_item] if new_edgecnn else [], own)
        if new_environment:
            self._status("making its environment")
            ask("unpack", into="env", environment=True, wheels=[wheel.sha256 for wheel in wheels])
            if wheels:
                # So that the first start of a runtime is not timed together with compiling its Python.
                words = ["-m", "compileall", "-q", "-j", "0", "-x", "pygments|/tests?/", "../env/lib"]
                self._program("compile", ["../env/bin/python", *words], {})
        if new_edgecnn:
            ask("unpack", into="edgecnn", environment=False, wheels=[own_item.sha256])
        env_path = ask("adopt", folder="env", name=environment)["path"]
        edgecnn_path = ask("adopt", folder="edgecnn", name=edgecnn)["path"]
        ask("lay", files=[(item.name, item.sha256) for item in self._work.items])
        self._status(f"running edgecnn {self._work.words[0]}")
        words = [f"{env_path}/bin/python", "-m", "edgecnn", *self._work.words]
        code = self._program("run", words, {"PYTHONPATH": edgecnn_path})
        fetch = self._connection.fetch
        return Answer(
            board=board,
            code=code,
            out=fetch("run/out"),
            err=fetch("run/err").decode(errors="replace"),
            report=fetch(f"run/{self._work.report}") if self._work.report else b"",
        )

    # ------------------------------------------------------------------
    def _send(self, wheels: list[Item], own: list[Item], own_content: bytes) -> None:
        """Send what the board hasn't; the bundle's and the data's files go into its store."""
        ask = self._connection.ask
        stored = list({item.sha256: item for item in self._work.items if item.sha256}.values())
        everything = [*wheels, *own, *stored]
        offsets = ask("have", files=[(item.sha256, item.size) for item in everything])["offsets"]
        to_send = [item for item in everything if offsets[item.sha256] < item.size]
        self._to_send_mb = sum(item.size - offsets[item.sha256] for item in to_send) / 1e6
        if to_send:
            total_mb = sum(item.size for item in everything) / 1e6
            there = total_mb - self._to_send_mb
            self._status(
                f"sending {self._to_send_mb:.1f} MB" + (f" ({there:.1f} MB are there)" if there > 0.05 else "")
            )
        for item in to_send:
            try:
                self._send_one(item, own_content if item in own else item.path.read_bytes(), offsets[item.sha256])
            except OSError as failed:
                raise BoardError(f"{item.path} cannot be read: {failed.strerror}") from failed
        for item in stored:
            ask("keep", sha256=item.sha256)

    def _send_one(self, item: Item, content: bytes, offset: int) -> None:
        while offset < len(content):
            self._check_stop()
            chunk = content[offset : offset + _CHUNK]
            offset = self._connection.ask("put", chunk, sha256=item.sha256, offset=offset)["bytes_there"]

    def _program(self, name: str, words: list[str], environment: dict[str, str]) -> int:
        """Run a program on the board to its end; its exit code."""
        self._connection.ask("start", name=name, words=words, environment=environment)
        pause_s = 0.05
        while (code := self._connection.ask("poll", name=name)["code"]) is None:
            self._check_stop()
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _SLOWEST_POLL_S)
        return int(code)

    def _check_stop(self) -> None:
        if self._stop.is_set():
            raise BoardError(f"{self._connection.address}: stopped")


def _file_item(path: Path) -> Item:
    content = path.read_bytes()
    return Item(path.name, path, hashlib.sha256(content).hexdigest(), len(content))


def _digest(*words: str) -> str:
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:12]


def _refusal(refused: RefusedByBoard) -> str:
    if refused.kind == "full":
        return f"its disk is full ({refused}): what was sent is removed again; free some space there and try again"
    if refused.kind == "storage":
        return f"its disk cannot be written ({refused})"
    return str(refused)
