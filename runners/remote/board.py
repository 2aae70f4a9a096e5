"""Runs a piece of work on boards: each gets an environment and the files, runs edgecnn, and returns the answer."""

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
from typing import TypeVar

from edgecnn.errors import BoardError, EdgeCnnError
from edgecnn.printable import shortened
from edgecnn.runners.remote import answers
from edgecnn.runners.remote.address import BoardAddress
from edgecnn.runners.remote.answers import Greeting
from edgecnn.runners.remote.connection import Connection, RefusedByBoard
from edgecnn.runners.remote.packages import fetch_wheels, missing_on, needed, platform_tags
from edgecnn.runners.remote.parcel import Item
from edgecnn.runners.remote.wheel import own_wheel

# Time that a board waits for us before it ends a job and removes what was sent.
LEASE_S = 60.0
LONGEST_S = 6 * 3600.0  # of a program on a board, where nothing says that it takes longer
_CHUNK = 256 * 1024
_SLOWEST_POLL_S = 1.0
_MOST_TRIES = 20

T = TypeVar("T")

Status = Callable[[BoardAddress, str], None]


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a board is asked to do.

    Attributes:
        words: arguments of the program, after `edgecnn`; paths start with `../`, the job's folder.
        items: files for the job's folder.
        extras: the extras of edgecnn that it needs.
        only: extra → the packages of it that are needed; by default, all.
        report: a file that it writes in its working folder and that is returned; "" for none.
        module: the program, as `python -m` takes it.
        longest_s: how long it may run: a board that never says that it is done is given up.
    """

    words: tuple[str, ...]
    items: tuple[Item, ...] = ()
    extras: tuple[str, ...] = ()
    only: dict[str, frozenset[str]] = field(default_factory=dict)
    report: str = ""
    module: str = "edgecnn"
    longest_s: float = LONGEST_S


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A board's answer.

    Attributes:
        board: the model in its device tree, otherwise its host's name.
        code: edgecnn's exit code there.
        out, err: its output.
        report: the requested file; empty if it wrote none.
    """

    board: str
    code: int
    out: bytes
    err: str
    report: bytes


def on_boards(
    addresses: Sequence[BoardAddress], work: Work, *, status: Status, lease_s: float | None = None
) -> list[Answer | EdgeCnnError]:
    """Let boards do the same work at the same time; a board that fails has an error instead of an answer.

    Args:
        addresses: the boards' addresses.
        work: what each is asked to do.
        status: called with progress messages, from several threads.
        lease_s: see LEASE_S.
    """
    own_wheel()  # made only once, before the threads start
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
        except BaseException:  # Ctrl-C: the boards are cleaned up before the program ends
            stop.set()
            raise
    return [future.result() for future in futures]


def on_board(
    address: BoardAddress, work: Work, *, status: Status, stop: threading.Event, lease_s: float = LEASE_S
) -> Answer:
    """Let one board do it.

    Raises:
        BoardError: unreachable, missing something that it needs, disk full, or connection lost. What this job sent
            is then removed from the board, at once or, if the board is unreachable, by the board itself.
    """
    connection = Connection(
        address,
        lease_s=lease_s,
        stop=stop.is_set,
        on_lost=lambda: status(address, "the connection was lost: reconnecting"),
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
        """The whole job, from the greeting to the clean-up."""
        needed(())  # reports what is missing here before the board is contacted
        info = self._naming_board(lambda: answers.greeting(self._connection.ask("hello")))
        self._status(f"{info.board}, {info.platform}, Python {info.python}")
        with tempfile.TemporaryDirectory(prefix="edgecnn-wheels-") as folder:
            environment, wheels = self._plan(info, Path(folder))
            self._connection.begin(uuid.uuid4().hex)
            try:
                answer = self._naming_board(lambda: self._do(info, environment, wheels))
            except BaseException:
                with contextlib.suppress(BoardError, RefusedByBoard):  # the board's keeper does it later
                    self._connection.ask("end", failed=True)
                raise
        self._connection.ask("end", failed=False)
        return answer

    def _naming_board(self, check: Callable[[], T]) -> T:
        """The result of a check of the board's values; an error names the board."""
        try:
            return check()
        except BoardError as error:
            address = str(self._connection.address)
            raise error if str(error).startswith(address) else BoardError(f"{address}: {error}") from error

    def _plan(self, info: Greeting, folder: Path) -> tuple[str, list[Item]]:
        """The environment's name, and the wheels that it needs; none if it exists already."""
        try:
            tags = platform_tags(info.platform, info.libc)
            packages, wanted = info.packages, needed(self._work.extras, only=self._work.only)
            python = f"env-{_digest(info.python, info.executable)}-"
            for name, its_own in sorted(info.environments.items()):
                if name.startswith(python) and not missing_on({**packages, **its_own}, wanted):
                    return name, []
            missing = missing_on(packages, wanted)
            name = python + _digest(*missing)
            if not missing:
                return name, []
            self._status(f"fetching missing packages: {', '.join(missing)}")
            wheels = fetch_wheels(missing, into=folder, python=info.python, tags=tags, board=packages)
        except BoardError as error:
            raise BoardError(f"{self._connection.address}: {error}") from error
        return name, [_file_item(wheel) for wheel in wheels]

    def _do(self, info: Greeting, environment: str, wheels: list[Item]) -> Answer:
        ask = self._connection.ask
        own = own_wheel()
        own_item = Item("", Path(), hashlib.sha256(own).hexdigest(), len(own))
        edgecnn = f"edgecnn-{own_item.sha256[:16]}"
        new_environment, new_edgecnn = environment not in info.environments, edgecnn not in info.edgecnns
        self._send(wheels, [own_item] if new_edgecnn else [], own)
        if new_environment:
            self._status("making its environment")
            ask("unpack", into="env", environment=True, wheels=[wheel.sha256 for wheel in wheels])
            if wheels:
                # So that the first start of a runtime is not timed together with compiling its Python files.
                words = ["-m", "compileall", "-q", "-j", "0", "-x", "pygments|/tests?/", "../env/lib"]
                self._program("compile", ["../env/bin/python", *words], {})
        if new_edgecnn:
            ask("unpack", into="edgecnn", environment=False, wheels=[own_item.sha256])
        env_path = answers.text(ask("adopt", folder="env", name=environment), "path")  # used only on the board
        edgecnn_path = answers.text(ask("adopt", folder="edgecnn", name=edgecnn), "path")
        ask("make_folder", files=[(item.name, item.sha256) for item in self._work.items])
        self._status(f"running edgecnn {self._work.words[0]}")
        words = [f"{env_path}/bin/python", "-m", self._work.module, *self._work.words]
        code = self._program("run", words, {"PYTHONPATH": edgecnn_path})
        fetch = self._connection.fetch
        return Answer(
            board=info.board,
            code=code,
            out=fetch("run/out"),
            err=fetch("run/err")[-answers.MOST_ERROR_BYTES :].decode(errors="replace"),
            report=fetch(f"run/{self._work.report}") if self._work.report else b"",
        )

    # ------------------------------------------------------------------
    def _send(self, wheels: list[Item], own: list[Item], own_content: bytes) -> None:
        """Send what the board does not have; the bundle's and the data's files go into its store."""
        ask = self._connection.ask
        stored = list({item.sha256: item for item in self._work.items if item.sha256}.values())
        everything = [*wheels, *own, *stored]
        there_now = answers.table(ask("have", files=[(item.sha256, item.size) for item in everything]), "offsets")
        offsets = {
            i.sha256: answers.number(there_now, i.sha256, least=0, most=max(i.size, 1 << 40)) for i in everything
        }
        to_send = [item for item in everything if offsets[item.sha256] < item.size]
        self._to_send_mb = sum(item.size - offsets[item.sha256] for item in to_send) / 1e6
        if to_send:
            total_mb = sum(item.size for item in everything) / 1e6
            there = total_mb - self._to_send_mb
            self._status(
                f"sending {self._to_send_mb:.1f} MB" + (f" ({there:.1f} MB are already there)" if there > 0.05 else "")
            )
        for item in to_send:
            try:
                self._send_one(item, own_content if item in own else item.read(), offsets[item.sha256])
            except OSError as failed:
                raise BoardError(f"{item.path} cannot be read: {failed.strerror}") from failed
        for item in stored:
            ask("store", sha256=item.sha256)

    def _send_one(self, item: Item, content: bytes, offset: int) -> None:
        tries = 0  # a board that keeps nothing of what it gets must not be sent the same for ever
        while offset < len(content):
            self._check_stop()
            chunk = content[offset : offset + _CHUNK]
            answer = self._connection.ask("put", chunk, sha256=item.sha256, offset=offset)
            there = answers.number(answer, "bytes_there", least=0, most=1 << 40)
            tries = tries + 1 if there <= offset else 0
            if tries > _MOST_TRIES:
                raise BoardError(f"it keeps reporting {there} bytes of {item.name or 'edgecnn'}: nothing is stored")
            offset = there

    def _program(self, name: str, words: list[str], environment: dict[str, str]) -> int:
        """Run a program on the board to its end; returns its exit code."""
        self._connection.ask("start", name=name, words=words, environment=environment)
        pause_s, deadline = 0.05, time.monotonic() + self._work.longest_s
        while (code := answers.exit_code(self._connection.ask("poll", name=name))) is None:
            self._check_stop()
            if time.monotonic() > deadline:
                raise BoardError(
                    f"{self._connection.address}: edgecnn {self._work.words[0]} still runs there after "
                    f"{self._work.longest_s:.0f} s and is given up: is the board busy with something else?"
                )
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _SLOWEST_POLL_S)
        return code

    def _check_stop(self) -> None:
        if self._stop.is_set():
            raise BoardError(f"{self._connection.address}: stopped")


def _file_item(path: Path) -> Item:
    content = path.read_bytes()
    return Item(path.name, path, hashlib.sha256(content).hexdigest(), len(content))


def _digest(*words: str) -> str:
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:12]


def _refusal(refused: RefusedByBoard) -> str:
    reason = shortened(refused)
    if refused.kind == "full":
        return f"its disk is full ({reason}): what was sent is removed again; free some space there and try again"
    if refused.kind == "storage":
        return f"its disk cannot be written ({reason})"
    return reason
