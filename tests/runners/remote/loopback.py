"""A real SSH server on 127.0.0.1 that plays the board: its own keys, its own cache folder, nothing of ~/.ssh."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil

PATH = f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin"
USER = pwd.getpwuid(os.getuid()).pw_name


def find_sshd() -> str | None:
    """sshd's absolute path, which it wants to be called by."""
    return shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


@dataclass
class LoopbackBoard:
    """The server, and what a client needs to know of it.

    Attributes:
        folder: of keys and settings; gone with the test.
        port: on 127.0.0.1.
        cache: where the board keeps what was sent.
    """

    folder: Path
    port: int
    environment: dict[str, str] = field(default_factory=dict)
    server: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"ssh://{USER}@127.0.0.1:{self.port}"

    @property
    def cache(self) -> Path:
        return Path(self.environment["XDG_CACHE_HOME"])

    @property
    def boards(self) -> Path:
        return self.cache / "edgecnn" / "boards"

    @property
    def known_hosts(self) -> Path:
        return self.folder / "known_hosts"

    def left(self) -> list[str]:
        """All that lies in the board's cache."""
        found = []
        for place, below, names in os.walk(self.cache):  # which may be going while we look
            found += [str(Path(place, name).relative_to(self.cache)) for name in (*below, *names)]
        return sorted(found)

    def jobs(self) -> list[Path]:
        return list(self.boards.glob("jobs/*"))

    def start(self) -> None:
        """Start the server, and wait until it listens."""
        # Not SetEnv: the shell's start-up files of whoever runs the tests come after it.
        sets = " ".join(f"{name}='{value}'" for name, value in self.environment.items())
        settings = self.folder / "sshd_config"
        settings.write_text(
            f"ListenAddress 127.0.0.1\nPort {self.port}\nHostKey {self.folder}/host_key\nPidFile none\nUsePAM no\n"
            f"PermitRootLogin prohibit-password\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
            f"AuthorizedKeysFile {self.folder}/authorized_keys\nStrictModes no\n"
            f'ForceCommand exec env {sets} sh -c "$SSH_ORIGINAL_COMMAND"\n'
        )
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        sshd = find_sshd()
        assert sshd is not None
        with (self.folder / "sshd.log").open("ab") as log:
            self.server = subprocess.Popen([sshd, "-D", "-e", "-f", settings], stderr=log, stdin=subprocess.DEVNULL)
        while True:
            assert self.server.poll() is None, (self.folder / "sshd.log").read_text()
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return
            time.sleep(0.02)

    def drop_connections(self) -> int:
        """Kill the server's processes for connections that stand; says how many there were."""
        assert self.server is not None
        dropped = 0
        for process in psutil.Process(self.server.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.name().startswith("sshd"):
                    process.kill()
                    dropped += 1
        return dropped

    def stop(self) -> None:
        """End the server and its connections."""
        if self.server is not None:
            self.drop_connections()
            self.server.kill()
            self.server.wait()
            self.server = None


def make_board(folder: Path, *, python_path: str = PATH, **environment: str) -> LoopbackBoard:
    """A board that runs; its keys are made here."""
    folder.mkdir()
    (folder / "cache").mkdir()
    for name in ("host_key", "id"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(folder / name)]
        subprocess.run(command, check=True)
    shutil.copy(folder / "id.pub", folder / "authorized_keys")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    given = {"PATH": python_path, "XDG_CACHE_HOME": str(folder / "cache"), **environment}
    board = LoopbackBoard(folder, port, given)
    kind, key, *_ = (folder / "host_key.pub").read_text().split()
    board.known_hosts.write_text(f"[127.0.0.1]:{port} {kind} {key}\n")
    board.start()
    return board


def write_client_settings(path: Path, *boards: LoopbackBoard) -> None:
    """What ~/.ssh/config says for people, for these boards alone."""
    keys = "".join(f"  IdentityFile {board.folder}/id\n" for board in boards)
    hosts = " ".join(str(board.known_hosts) for board in boards)
    path.write_text(
        f"Host *\n  IdentitiesOnly yes\n  IdentityAgent none\n  GlobalKnownHostsFile none\n"
        f"  UserKnownHostsFile {hosts}\n{keys}"
    )
