"""Starts a worker, watches its time and memory, and begins anew where an input ended it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.fuzz.outcome import Blackboard, Tally
from tests.fuzz.target import Target
from tests.fuzz.worker import LONGEST_S, MOST_BYTES

_ROOT = Path(__file__).parents[2]
_START_S = 180.0  # for its imports
_HANG_S = 3 * LONGEST_S
_LOOK_S = 0.1


def fuzz(target: Target, *, engine: str, seconds: float, seed: int, failures: Path) -> Tally:
    """Try inputs for so long.

    Args:
        target: what reads them.
        engine: "mutation" or "atheris".
        seconds: of trying; the start of the process comes on top.
        seed: of the generator; mutation tries the same inputs with the same seed.
        failures: a folder for inputs that are faults.

    Raises:
        RuntimeError: the worker does not start.
    """
    total, left_s, start = Tally(), seconds, 0
    while left_s > 0:
        with _folder() as folder:
            began, tally = _one_worker(target, engine, left_s, seed + 1000 * start, failures, folder)
        total, start = total + tally, start + 1
        left_s -= time.monotonic() - began
        if left_s < 1:
            break
    return total


def _one_worker(
    target: Target, engine: str, seconds: float, seed: int, failures: Path, folder: Path
) -> tuple[float, Tally]:
    """When the first input was tried, and what came of all until the time was over, or one ended the process."""
    board, corpus = Blackboard(folder / "board"), folder / "corpus"
    corpus.mkdir()
    words = [target.name, "--engine", engine, "--seconds", str(seconds), "--seed", str(seed)]
    words += ["--board", str(folder / "board"), "--failures", str(failures.absolute()), "--corpus", str(corpus)]
    places = os.pathsep.join([str(_ROOT), os.environ.get("PYTHONPATH", "")])
    # A cache of its own: what was opened before is not opened in a child again, and is not the user's.
    environment = {**os.environ, "PYTHONPATH": places, "XDG_CACHE_HOME": str(folder / "cache")}
    with (folder / "said").open("w+b") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.worker", *words],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
        try:
            began = _await_start(process, board, said)
            why = _watch(process, board, began + seconds)
        finally:
            _end(process)
        said.seek(max(said.seek(0, os.SEEK_END) - 4000, 0))
        text = said.read().decode(errors="replace")
    tally = board.tally
    if why == "other" and not board.began_ns and process.returncode:
        raise RuntimeError(f"the worker of {target.name} ended between two inputs: {text[-3000:]}")
    if board.began_ns:  # in the middle of an input
        if why == "time":
            tally.inputs -= 1
        else:
            setattr(tally, why, getattr(tally, why) + 1)
            _keep(target, board.content, f"{why}-{process.returncode}", failures, text)
    return began, tally


def _await_start(process: subprocess.Popen[bytes], board: Blackboard, said: object) -> float:
    deadline = time.monotonic() + _START_S
    while not board.ready:
        if process.poll() is not None or time.monotonic() > deadline:
            said.seek(0)  # type: ignore[attr-defined]
            text = said.read().decode(errors="replace")  # type: ignore[attr-defined]
            raise RuntimeError(f"the worker did not start: {text[-3000:]}")
        time.sleep(0.05)
    return time.monotonic()


def _watch(process: subprocess.Popen[bytes], board: Blackboard, deadline: float) -> str:
    """Wait for its end; "other" where it ended by itself, "slow" or "large" where it is to be ended, "time"."""
    at_start = _memory(process.pid)
    while process.poll() is None:
        time.sleep(_LOOK_S)
        began_ns = board.began_ns
        if began_ns and time.monotonic_ns() - began_ns > _HANG_S * 1e9:
            return "slow"
        if board.tally.inputs <= 1:
            at_start = max(at_start, _memory(process.pid))
        elif began_ns and _memory(process.pid) - at_start > 2 * MOST_BYTES and board.began_ns == began_ns:
            return "large"
        if time.monotonic() > deadline + LONGEST_S:
            return "time"
    return "other"


def _memory(pid: int) -> int:
    """Bytes that a process and all below it hold."""
    import psutil

    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        total = 0
        for one in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                total += one.memory_info().rss
        return total
    return 0


def _end(process: subprocess.Popen[bytes]) -> None:
    import psutil

    below: list[psutil.Process] = []
    with contextlib.suppress(psutil.Error):
        below = psutil.Process(process.pid).children(recursive=True)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    for one in below:  # children in sessions of their own
        with contextlib.suppress(psutil.Error):
            one.kill()
    process.wait()


def _keep(target: Target, content: bytes, name: str, failures: Path, text: str) -> None:
    folder = failures / target.name
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / f"{name}-{hashlib.sha256(content).hexdigest()[:10]}"
    stem.with_suffix(".bin").write_bytes(content)
    stem.with_suffix(".txt").write_text(text)


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="fuzz-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)
