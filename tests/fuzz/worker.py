"""The process in which inputs are tried: `python -m tests.fuzz.worker`, started and watched by `watch`."""

from __future__ import annotations

import argparse
import contextlib
import gc
import hashlib
import os
import random
import resource
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

from edgecnn.measure.machine import peak_rss_mb
from tests.fuzz.mutate import mutated
from tests.fuzz.outcome import Blackboard
from tests.fuzz.target import Attempt, Target
from tests.fuzz.targets import TARGETS

LONGEST_S = 10.0
MOST_BYTES = 1 << 30
_KEPT = 300  # mutated inputs that were accepted, to go on from
_ADDRESS_SPACE = 6 << 30  # beyond what is mapped at the start: a bomb ends in a MemoryError, not in the machine's end


class Trial:
    """Tries inputs, counts, and keeps what is a fault.

    Args:
        target: whose attempt it is.
        attempt: reads bytes.
        board: where the counts go.
        failures: a folder for inputs that are faults.
    """

    def __init__(self, target: Target, attempt: Attempt, board: Blackboard, failures: Path) -> None:
        from edgecnn.errors import EdgeCnnError, InternalError

        self._family, self._internal = EdgeCnnError, InternalError
        self._target, self._attempt, self._board, self._failures = target, attempt, board, failures
        self._tally, self._known = board.tally, set[str]()
        self._place = Path(tempfile.mkdtemp(prefix=f"fuzz-{target.name}-", dir=_memory_disk()))
        self._peak_mb = peak_rss_mb()

    def __call__(self, content: bytes) -> bool:
        """Whether it was accepted."""
        content = content[: self._target.largest_bytes]
        tally = self._tally
        tally.inputs += 1
        began_ns, outcome = time.monotonic_ns(), "other"
        self._board.write(tally, began_ns=began_ns, content=content)
        folder = self._place / str(tally.inputs)
        folder.mkdir()
        try:
            with silenced():
                self._attempt(content, folder)
            outcome = "accepted"
        except self._family as refused:
            if isinstance(refused, self._internal):
                self._keep(content, "internal", traceback.format_exc())
            else:
                outcome = "refused"
                str(refused).encode()  # it can be printed
        except BaseException as other:
            if isinstance(other, KeyboardInterrupt):
                raise
            self._keep(content, _name(other), traceback.format_exc())
        seconds = (time.monotonic_ns() - began_ns) / 1e9
        if outcome == "other":
            tally.other += 1
        elif seconds > LONGEST_S:
            tally.slow, outcome = tally.slow + 1, "slow"
            self._keep(content, "slow", f"{seconds:.1f} s\n")
        elif self._took_mb() > MOST_BYTES / 1e6:
            tally.large, outcome = tally.large + 1, "large"
            self._keep(content, "large", "more than 1 GB\n")
        else:
            setattr(tally, outcome, getattr(tally, outcome) + 1)
        self._board.write(tally, began_ns=0)
        shutil.rmtree(folder, ignore_errors=True)
        return outcome == "accepted"

    def _took_mb(self) -> float:
        """How far the most memory that this process ever had was raised; the mark is then set anew."""
        peak = peak_rss_mb()
        took, self._peak_mb = peak - self._peak_mb, max(peak, self._peak_mb)
        if took > MOST_BYTES / 4e6:
            gc.collect()
            with contextlib.suppress(OSError):
                Path("/proc/self/clear_refs").write_text("5")
                self._peak_mb = peak_rss_mb()
        return took

    def _keep(self, content: bytes, name: str, text: str) -> None:
        if name in self._known and len(self._known) > 50:
            return
        self._known.add(name)
        folder = self._failures / self._target.name
        folder.mkdir(parents=True, exist_ok=True)
        if sum(path.name.startswith(name) for path in folder.glob("*.txt")) >= 3:
            return
        stem = folder / f"{name}-{hashlib.sha256(content).hexdigest()[:10]}"
        stem.with_suffix(".bin").write_bytes(content)
        stem.with_suffix(".txt").write_text(text, errors="replace")


def _name(error: BaseException) -> str:
    """The error's class, and the line of edgecnn's that it came from."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "/edgecnn/" in frame.filename or "/runners/" in frame.filename] or frames
    return f"{type(error).__name__}-{Path(ours[-1].filename).stem}-{ours[-1].lineno}"


def _memory_disk() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """What is printed inside is formatted, and thrown away."""
    with (
        Path(os.devnull).open("w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        yield


_PROGRAMS = frozenset(
    {"os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "subprocess.Popen"}
)
_forbidden = False


def _watch_programs(event: str, arguments: tuple[object, ...]) -> None:
    if _forbidden and event in _PROGRAMS:
        raise RuntimeError(f"a program was started: {event} {arguments}")


@contextlib.contextmanager
def no_program_starts() -> Iterator[None]:
    """Inside, whatever starts a program is a fault: code from data would."""
    global _forbidden
    if not getattr(_watch_programs, "added", False):
        sys.addaudithook(_watch_programs)
        _watch_programs.added = True  # type: ignore[attr-defined]
    _forbidden = True
    try:
        yield
    finally:
        _forbidden = False


def mutate_for(trial: Trial, target: Target, *, seconds: float, seed: int) -> None:
    """Try the seeds, then mutations of them and of what was accepted."""
    deadline, rng = time.monotonic() + seconds, random.Random(seed)
    seeds, kept = target.seeds(), list[bytes]()
    for content in seeds:
        trial(content)
    while time.monotonic() < deadline:
        corpus = kept if kept and rng.random() < 0.3 else seeds
        content = mutated(rng.choice(corpus), rng, words=target.words, others=seeds)
        if trial(content) and content not in seeds:
            kept.append(content)
            if len(kept) > _KEPT:
                kept.pop(rng.randrange(len(kept)))


def guide_for(trial: Trial, target: Target, *, seconds: float, seed: int, corpus: Path) -> None:
    """Let atheris choose: what reaches new code is kept and changed again. Ends the process."""
    import atheris

    for number, content in enumerate(target.seeds()):
        (corpus / f"seed-{number}").write_bytes(content)

    def change(content: bytes, most: int, number: int) -> bytes:
        rng = random.Random(number)
        if rng.random() < 0.5:
            return bytes(atheris.Mutate(content, most))
        return mutated(content, rng, words=target.words)[:most]

    words = [f"-max_total_time={max(int(seconds), 1)}", f"-seed={seed + 1}", f"-max_len={target.largest_bytes}"]
    words += [
        "-rss_limit_mb=0",
        "-timeout=1200",
        "-detect_leaks=0",
        "-print_final_stats=0",
        "-verbosity=0",
        "-close_fd_mask=0",
    ]
    atheris.Setup([sys.argv[0], *words, str(corpus)], lambda content: int(trial(content)) * 0, custom_mutator=change)
    atheris.Fuzz()


def main() -> None:
    """Try until the time is over."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--engine", choices=("mutation", "atheris"), required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--board", type=Path, required=True)
    parser.add_argument("--failures", type=Path, required=True)
    parser.add_argument("--corpus", type=Path, required=True)
    words = parser.parse_args()
    target, board = TARGETS[words.target], Blackboard(words.board)
    if words.engine == "atheris":
        import atheris

        with atheris.instrument_imports(include=["edgecnn"]):
            attempt = target.prepare()
    else:
        attempt = target.prepare()
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + _ADDRESS_SPACE, resource.RLIM_INFINITY))
    trial = Trial(target, attempt, board, words.failures)
    board.write(board.tally, began_ns=0, ready=True)
    try:
        if words.engine == "atheris":
            guide_for(trial, target, seconds=words.seconds, seed=words.seed, corpus=words.corpus)
        else:
            mutate_for(trial, target, seconds=words.seconds, seed=words.seed)
    finally:
        shutil.rmtree(trial._place, ignore_errors=True)


if __name__ == "__main__":
    main()
