"""An emulated Raspberry Pi: a Debian arm64 root with real aarch64 runtimes, and an SSH server on loopback."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

CACHE_VARIABLE = "EDGECNN_PI_CACHE"  # a folder in which the root file system is kept from run to run
_TOOLS = ("apt-get", "unshare", "chroot", "mount")


def why_not() -> str:
    """What stands in the way of emulating one here; "" where nothing does."""
    absent = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if os.getuid() != 0 or absent:
        return f"an emulated Raspberry Pi wants root and {', '.join(absent or _TOOLS)}"
    return ""


@dataclass
class EmulatedPi:
    """The board, made by the script `setup` in `folder`.

    Attributes:
        suite: Debian release: "bookworm" (Python 3.11) or "trixie" (3.13).
    """

    setup: Path
    folder: Path
    suite: str = "bookworm"
    port: int = 0

    @property
    def url(self) -> str:
        return f"ssh://pi@127.0.0.1:{self.port}"

    @property
    def home(self) -> Path:
        """pi's home folder, seen from here."""
        return self.folder / "root" / "home" / "pi"

    @property
    def boards(self) -> Path:
        """Where --on keeps what it sent, seen from here."""
        return self.home / ".cache" / "edgecnn" / "boards"

    def build(self) -> None:
        """Make the root file system, or take the one that an earlier run kept."""
        kept = Path(os.environ[CACHE_VARIABLE]) / f"pi-{self.suite}.tar.zst" if CACHE_VARIABLE in os.environ else None
        if kept is not None and kept.is_file():
            self._do("unpack", str(kept))
        else:
            self._do("build")
        if kept is not None and not kept.is_file():
            kept.parent.mkdir(parents=True, exist_ok=True)
            partial = kept.with_suffix(".partial")
            self._do("pack", str(partial))
            partial.rename(kept)
        self._write_certificates()

    def _write_certificates(self) -> None:
        """What the package ca-certificates would have written; without it, pip of trixie does not start."""
        root = self.folder / "root"
        single = sorted((root / "usr" / "share" / "ca-certificates").rglob("*.crt"))
        together = root / "etc" / "ssl" / "certs" / "ca-certificates.crt"
        together.parent.mkdir(parents=True, exist_ok=True)
        together.write_text("".join(path.read_text() for path in single))

    def start(self, model: str) -> None:
        """Boot as "pi5", "pi4" or "pi3"."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._do("start", str(self.port), model)

    def stop(self) -> None:
        """End it; its files stay."""
        self._do("stop")

    def put(self, *paths: Path) -> None:
        """Copy files and folders into pi's home."""
        self._do("put", *map(str, paths), ".")

    def run(self, command: str) -> str:
        """Run a command there; gives what it prints, and fails where it does."""
        return self._do("ssh", command)

    def write_client_settings(self, path: Path) -> None:
        """What ~/.ssh/config says for people."""
        path.write_text(
            f"Host 127.0.0.1\n  IdentitiesOnly yes\n  IdentityAgent none\n  IdentityFile {self.folder}/id_ed25519\n"
            f"  UserKnownHostsFile {self.folder}/known_hosts\n"
        )

    def _do(self, verb: str, *words: str) -> str:
        # All of this machine's cores: of fewer, it would show the first ones, and this process may run on the others.
        environment = {**os.environ, "PI_SUITE": self.suite, "PI_CORES": str(os.cpu_count())}
        command = ["bash", str(self.setup), verb, str(self.folder), *words]
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
        return done.stdout
