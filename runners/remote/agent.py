"""The program that runs on a board while it works for another machine; uses only the standard library.

Its source is sent through the SSH connection (see `connection`), so that it is not stored on the board. It answers
requests on standard input, one at a time: a line of JSON, followed by `bytes` bytes if the line says so. Answers
have the same form.

A job's files are in a folder of their own. A second process, the keeper, holds a lease on it: if the other
machine sends nothing for `lease_s` seconds, the job is ended, and the folder and everything that the job added to the
store are removed. Until then, a new connection can continue the job.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import shutil
import signal
import site
import subprocess
import sys
import sysconfig
import threading
import time
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

UNUSED_DAYS = 30  # after this time, unused files in the store are removed
_ENDING_S = 10.0  # time for a program to end normally
_CHUNK = 1 << 20


class Refused(Exception):
    """A request that cannot be done: its kind (`kind`), and a sentence."""

    def __init__(self, kind: str, reason: str) -> None:
        self.kind = kind
        super().__init__(reason)


class Agent:
    """Answers requests; each method named in `REQUESTS` answers one."""

    REQUESTS = (
        "hello",
        "begin",
        "have",
        "put",
        "store",
        "make_folder",
        "unpack",
        "adopt",
        "start",
        "poll",
        "read",
        "end",
    )

    def __init__(self) -> None:
        self.root = cache_folder() / "edgecnn" / "boards"
        self.job: Path | None = None

    # ------------------------------------------------------------------ the board
    def hello(self, _: dict[str, Any], __: bytes) -> dict[str, Any]:
        """The board, its Python, and the content of the store; nothing is written."""
        libc = ""
        with contextlib.suppress(ValueError, OSError):
            libc = os.confstr("CS_GNU_LIBC_VERSION") or ""
        board = ""
        with contextlib.suppress(OSError):
            board = Path("/sys/firmware/devicetree/base/model").read_text(errors="replace").strip("\0 \n")
        environments = {path.name: installed(path) for path in self.root.glob("env-*")}
        return {
            "board": board,
            "host": platform.node(),
            "platform": platform_of_programs(sysconfig.get_platform(), sys.maxsize),
            "python": platform.python_version(),
            "executable": sys.executable,
            "libc": libc,
            "packages": installed(None),
            "root": str(self.root),
            "environments": environments,
            "edgecnns": [path.name for path in self.root.glob("edgecnn-*")],
        }

    # ------------------------------------------------------------------ a job's life
    def begin(self, request: dict[str, Any], _: bytes) -> dict[str, Any]:
        """Make the job's folder and start its keeper, or continue a job that is still alive."""
        job = self.root / "jobs" / request["job"]
        resumed = job.is_dir()
        if request["resume"] and not resumed:
            raise Refused("gone", "the board has given up the job")
        if not resumed:
            self._remove_unused()
            job.mkdir(parents=True)
            (job / "incoming").mkdir()
            (job / "tmp").mkdir()
            (job / "lease").touch()
            keep_alive(job, float(request["lease_s"]))
        self.job = job
        before = read_number(job / "agent.pid")
        if before is not None:  # the process of a lost connection must not continue to write
            with contextlib.suppress(OSError):
                os.kill(before, signal.SIGKILL)
        (job / "agent.pid").write_text(str(os.getpid()))
        threading.Thread(target=self._renew_while_busy, daemon=True).start()
        return {"folder": str(job)}

    def end(self, request: dict[str, Any], _: bytes) -> dict[str, Any]:
        """Remove the job's folder; with `failed`, also what it added to the store."""
        if self.job is not None:
            clean_up(self.job, failed=bool(request["failed"]))
        return {}

    def _renew_while_busy(self) -> None:
        """Keeps the lease during a long request."""
        while True:
            time.sleep(1.0)
            if self.busy:
                self.renew()

    busy = False

    def renew(self) -> None:
        """Tell the keeper that the other machine is still there."""
        if self.job is not None:
            with contextlib.suppress(OSError):
                os.utime(self.job / "lease")

    def _remove_unused(self) -> None:
        """Remove files unused for a month, and folders of jobs whose keeper was killed."""
        now = time.time()
        for path in [*self.root.glob("env-*"), *self.root.glob("edgecnn-*"), *self.root.glob("files/*")]:
            with contextlib.suppress(OSError):
                if now - path.stat().st_mtime > UNUSED_DAYS * 86400:
                    remove(path)
        for job in self.root.glob("jobs/*"):
            keeper = read_number(job / "keeper.pid")
            with contextlib.suppress(OSError):
                silent_s = now - (job / "lease").stat().st_mtime
                if silent_s > 60 and (keeper is None or not is_alive(keeper)):
                    clean_up(job, failed=True)

    # ------------------------------------------------------------------ files
    def have(self, request: dict[str, Any], _: bytes) -> dict[str, Any]:
        """Number of bytes of each file (name: its SHA-256) that are here."""
        offsets = {}
        for sha256, size in request["files"]:
            stored = self.root / "files" / sha256
            if stored.is_file() and stored.stat().st_size == size and sha256_of(stored) == sha256:
                os.utime(stored)
                offsets[sha256] = size
            else:
                partial = self._job / "incoming" / sha256
                offsets[sha256] = partial.stat().st_size if partial.is_file() else 0
        return {"offsets": offsets}

    def put(self, request: dict[str, Any], payload: bytes) -> dict[str, Any]:
        """Append bytes to a file; returns its size, so that an interrupted transfer can continue."""
        partial = self._job / "incoming" / request["sha256"]
        with partial.open("ab") as file:
            if file.tell() == request["offset"]:
                file.write(payload)
        return {"bytes_there": partial.stat().st_size}

    def store(self, request: dict[str, Any], _: bytes) -> dict[str, Any]:
        """Move a complete file into the store, after a check of its hash."""
        sha256 = request["sha256"]
        partial, stored = self._job / "incoming" / sha256, self.root / "files" / sha256
        if partial.is_file():
            found = sha256_of(partial)
            if found != sha256:
                partial.unlink()
                raise Refused("damaged", f"a file was sent with SHA-256 {sha256[:12]}… but arrived with {found[:12]}…")
            self._brought(stored)
            stored.parent.mkdir(exist_ok=True)
            os.replace(partial, stored)
        return {}

    def make_folder(self, request: dict[str, Any], _: bytes) -> dict[str, Any]:
        """Make a folder from stored files: (path in it, SHA-256) each; an empty file where there is no hash."""
        for name, sha256 in request["files"]:
            path = self._inside(self._job, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            if not sha256:
                path.touch()
                continue
            stored = self.root / "files" / sha256
            try:
                os.link(stored, path)
            except OSError as failed:
                if failed.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.EXDEV):
                    raise
                shutil.copyfile(stored, path)
        return {}

    # ------------------------------------------------------------------ the environment
    def unpack(self, request: dict[str, Any], _: bytes) -> dict[str, Any]:
        """Install the wheels in `incoming` into an environment (`environment`: a venv that also sees the board's own
        packages), or into a plain folder.
        """
        into = self._inside(self._job, request["into"])
        remove(into)
        if request["environment"]:
            venv.create(into, symlinks=True, with_pip=False)
            packages = site_packages(into)
            # Not --system-site-packages: if this Python is itself in a venv, that would mean another one's packages.
            own = [*site.getsitepackages(), *([site.getusersitepackages()] if site.ENABLE_USER_SITE else [])]
            packages.mkdir(parents=True, exist_ok=True)
            (packages / "board.pth").write_text("".join(f"{path}\n" for path in own))
        else:
            packages = into
            packages.mkdir()
        for sha256 in request["wheels"]:
            wheel = self._job / "incoming" / sha256
            if sha256_of(wheel) != sha256:
                raise Refused("damaged", "a wheel was changed on its way")
            with zipfile.ZipFile(wheel) as opened:
                opened.extractall(packages)
            wheel.unlink()
        for data in packages.glob("*.data"):  # PEP 427: its purelib and platlib belong with the other packages
            for part in (data / "purelib", data / "platlib"):
                if part.is_dir():
                    shutil.copytree(part, packages, dirs_exist_ok=True)
            remove(data)
        return {}

    def adopt(self, request: dict[str, Any], _: bytes) -> dict[str, Any]:
        """Move a finished folder of the job into the store."""
        source, place = self._inside(self._job, request["folder"]), self._inside(self.root, request["name"])
        if source.is_dir():
            if place.is_dir():
                remove(source)
            else:
                self._brought(place)
                os.replace(source, place)
        os.utime(place)
        return {"path": str(place)}

    # ------------------------------------------------------------------ programs
    def start(self, request: dict[str, Any], _: bytes) -> dict[str, Any]:
        """Start a program, unless it was already started: a lost connection does not end it."""
        place = self._job / request["name"]
        if not place.is_dir():
            staged = self._job / f"{request['name']}.new"
            staged.mkdir(exist_ok=True)
            keep = 'cd "$1"; shift; "$@" >out 2>err </dev/null; echo $? >code.new; mv code.new code'
            os.replace(staged, place)
            own = str(self._job / "tmp")
            program = subprocess.Popen(
                ["sh", "-c", keep, "sh", str(place), *request["words"]],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                # Caches of runtimes are removed with the job (ONNX Runtime keeps a device id there).
                env={**os.environ, **request["environment"], "TMPDIR": own, "XDG_CACHE_HOME": own},
                start_new_session=True,
            )
            (place / "pid").write_text(str(program.pid))
        return {}

    def poll(self, request: dict[str, Any], _: bytes) -> dict[str, Any]:
        """The program's exit code; None while it runs."""
        place = self._job / request["name"]
        pid = read_number(place / "pid")
        runs = pid is not None and is_alive(pid)  # checked first: the code is written before the program ends
        code = read_number(place / "code")
        if code is None and not runs:
            raise Refused("killed", "the program was ended from outside: killed, or out of memory")
        return {"code": code}

    def read(self, request: dict[str, Any], _: bytes) -> dict[str, Any]:
        """A file of the job, completely; empty where there is none."""
        path = self._inside(self._job, request["path"])
        return {"payload": path.read_bytes() if path.is_file() else b""}

    # ------------------------------------------------------------------
    @property
    def _job(self) -> Path:
        if self.job is None or not self.job.is_dir():
            raise Refused("gone", "the board has given up the job")
        return self.job

    def _brought(self, path: Path) -> None:
        """Record what this job is about to add to the store."""
        with (self._job / "brought").open("a") as file:
            file.write(f"{path}\n")

    @staticmethod
    def _inside(folder: Path, name: str) -> Path:
        path = Path(os.path.normpath(folder / name))
        if folder not in path.parents:
            raise Refused("outside", f"{name} lies outside {folder}")
        return path


# ---------------------------------------------------------------------- the keeper
def keep_alive(job: Path, lease_s: float) -> None:
    """Start the keeper: an independent process that ends when the job's folder is gone."""
    first = os.fork()
    if first:
        os.waitpid(first, 0)
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        nothing = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):  # otherwise the connection would not end before us
            os.dup2(nothing, descriptor)
        (job / "keeper.pid").write_text(str(os.getpid()))
        renewed, heard_s = 0, time.monotonic()
        while job.is_dir():
            time.sleep(min(1.0, lease_s / 4))
            # A clock that no time server changes: a board without a battery starts with a time in the past.
            if (seen := (job / "lease").stat().st_mtime_ns) != renewed:
                renewed, heard_s = seen, time.monotonic()
            elif time.monotonic() - heard_s > lease_s:
                agent = read_number(job / "agent.pid")
                if agent is not None:
                    with contextlib.suppress(OSError):
                        os.kill(agent, signal.SIGKILL)
                clean_up(job, failed=True)
    except OSError:  # its folder was removed, or is being removed
        pass
    finally:
        os._exit(0)


def clean_up(job: Path, *, failed: bool) -> None:
    """End the job's programs, remove its folder and, if it failed, what it added; then remove empty folders."""
    for pid_file in job.glob("*/pid"):
        end_group(read_number(pid_file))
    if failed:
        with contextlib.suppress(OSError):
            for line in (job / "brought").read_text().splitlines():
                remove(Path(line))
    remove(job)
    boards = job.parent.parent
    for folder in (job.parent, boards / "files", boards, boards.parent, boards.parent.parent):
        with contextlib.suppress(OSError):
            folder.rmdir()  # fails if it is not empty


def end_group(leader: int | None) -> None:
    """End a program and the ones that it started: first with SIGTERM, so that they can clean up."""
    if leader is None:
        return
    for how, wait_s in ((signal.SIGTERM, _ENDING_S), (signal.SIGKILL, 1.0)):
        deadline = time.monotonic() + wait_s
        try:
            os.killpg(leader, how)
            while time.monotonic() < deadline:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(leader, os.WNOHANG)
                os.killpg(leader, 0)
                time.sleep(0.05)
        except OSError:  # no process is left
            return


def is_alive(pid: int) -> bool:
    """Whether one of our processes has this number."""
    with contextlib.suppress(OSError):
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        os.kill(pid, 0)
        return True
    return False


def read_number(path: Path) -> int | None:
    """The number in a file; None where there is none."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def platform_of_programs(of_kernel: str, largest_index: int) -> str:
    """The platform of programs: a 32-bit Raspberry Pi OS has a 64-bit kernel, which reports its own."""
    if largest_index > 2**32:
        return of_kernel
    return of_kernel.replace("aarch64", "armv7l").replace("x86_64", "i686")


def installed(environment: Path | None) -> dict[str, str]:
    """Name → version of the packages installed in an environment; None: of those that this Python sees."""
    where = sys.path if environment is None else [str(site_packages(environment))]
    found = importlib.metadata.distributions(path=where)
    return {re.sub(r"[-_.]+", "-", one.name).lower(): one.version for one in found if one.name and one.version}


def site_packages(environment: Path) -> Path:
    """The folder for packages in a venv of this Python."""
    base = {"base": str(environment), "platbase": str(environment)}
    return Path(sysconfig.get_path("purelib", "venv", base))


def cache_folder() -> Path:
    """The folder for caches."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()  # hashlib.file_digest is of Python 3.11, and boards have 3.10
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


# ---------------------------------------------------------------------- requests and answers
def answer(agent: Agent, request: dict[str, Any], payload: bytes) -> dict[str, Any]:
    """The answer to a request; never raises."""
    if request["do"] not in Agent.REQUESTS:
        return {"refused": "unknown", "reason": f"unknown request {request['do']!r}"}
    method: Callable[[dict[str, Any], bytes], dict[str, Any]] = getattr(agent, request["do"])
    agent.renew()
    agent.busy = True
    try:
        return method(request, payload)
    except Refused as refused:
        return {"refused": refused.kind, "reason": str(refused)}
    except OSError as failed:
        full = failed.errno in (errno.ENOSPC, errno.EDQUOT)
        kind = "full" if full else "storage"
        return {"refused": kind, "reason": f"{failed.filename or agent.root}: {failed.strerror or failed}"}
    finally:
        agent.busy = False


def serve() -> None:
    """Answer requests until the other side closes the connection."""
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    agent = Agent()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    for line in requests:
        request = json.loads(line)
        reply = answer(agent, request, requests.read(request.get("bytes", 0)))
        payload = reply.pop("payload", b"")
        answers.write(json.dumps({**reply, "bytes": len(payload)}).encode() + b"\n" + payload)
        answers.flush()


if __name__ == "__main__":
    serve()
