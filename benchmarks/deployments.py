"""Deployments that are disturbed: python -m benchmarks.deployments [--rounds 20]

Five boards (an sshd each on loopback, real keys, real signatures) get version after version of a signed bundle; one of
them has a disk that is soon full. In each round, one thing may go wrong at a random moment: the deploying program is
killed, the program on a board is killed (SIGKILL), all links are cut again and again, or the bundle is refused: changed
after it was signed, or too slow on the boards. After each round, on every board: the link leads to one whole bundle,
which its signature verifies, that is the version before or the one that was deployed, and never a refused one. At the
end, with room on all disks, an undisturbed deployment must bring all boards to the last version.

Results go to `results/deployments.json`; exit code 1 where a board had something else.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

import msgspec
import psutil

import edgecnn
from edgecnn.errors import EdgeCnnError
from edgecnn.measure.machine import describe_machine
from edgecnn.runners.remote.connection import SSH_VARIABLE
from tests.builders.colour_network import write_colour_bundle
from tests.runners.remote.loopback import LoopbackBoard, make_board, write_client_settings

RESULTS = Path(__file__).resolve().parent / "results" / "deployments.json"
BOARDS: Final = 5
DISTURBANCES: Final = ("nothing", "sender killed", "board's program killed", "links cut", "too slow", "changed")
SMALL_BYTES: Final = 60 << 10  # of one board's disk: three versions
NAME: Final = "colour.edge"


class Versions:
    """Signed versions of a bundle, each of which answers otherwise."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.key, self.public = folder / "key.pem", folder / "key.pub"
        make = ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(self.key)]
        subprocess.run(make, check=True, capture_output=True)
        show = ["openssl", "ec", "-in", str(self.key), "-pubout", "-out", str(self.public)]
        subprocess.run(show, check=True, capture_output=True)
        self._count = 0

    def next(self) -> Path:
        """The next version, signed."""
        self._count += 1
        bundle = self._folder / str(self._count) / NAME
        bundle.parent.mkdir()
        write_colour_bundle(bundle, {"fp32": (1.0, 1.0 + self._count / 10, 3.0)})
        edgecnn.sign(bundle, key=self.key, release=self._count)
        return bundle


def manifest_of(bundle: Path) -> bytes:
    """What tells a version from others."""
    return (bundle / "model.sig").read_bytes()


class Fleet:
    """The boards, and what they must have."""

    def __init__(self, folder: Path) -> None:
        self.boards: list[LoopbackBoard] = []
        self.places: list[Path] = []
        for number in range(BOARDS):
            self.boards.append(make_board(folder / f"board{number}"))
            self.places.append(folder / f"place{number}")
        settings = folder / "ssh_config"
        write_client_settings(settings, *self.boards)
        os.environ[SSH_VARIABLE] = f"ssh -F {settings}"
        self.file = folder / "fleet.toml"
        self.file.write_text(
            "wave = 4\n"
            + "".join(
                f'[boards.b{number}]\naddress = "{board.url}"\nplace = "{place}"\n'
                for number, (board, place) in enumerate(zip(self.boards, self.places, strict=True))
            )
        )
        self.has: list[bytes | None] = [None] * BOARDS

    def wrong(self, allowed: bytes | None, public: Path) -> list[str]:
        """Boards that have something else than before, or `allowed`; the others' versions are noted."""
        found = []
        for number, place in enumerate(self.places):
            link = place / NAME
            if not link.exists():
                if self.has[number] is not None:
                    found.append(f"board {number} lost its version")
                continue
            try:
                edgecnn.verify(link, public)
                edgecnn.open_runner(link).close()
                signature = manifest_of(link)
            except (EdgeCnnError, OSError) as failed:
                found.append(f"board {number}: {failed}")
                continue
            if signature not in (self.has[number], allowed):
                found.append(f"board {number} has a version that was never deployed")
            self.has[number] = signature
        return found


def deploying(fleet: Fleet, bundle: Path, public: Path, *, most_latency_ms: float) -> subprocess.Popen[bytes]:
    """`edgecnn deploy`, in a process of its own."""
    words = ["deploy", str(bundle), "--to", str(fleet.file), "--trusted-key", str(public), "--json"]
    words += ["--max-latency", str(most_latency_ms)]
    command = [sys.executable, "-m", "edgecnn", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)


def disturb(what: str, fleet: Fleet, process: subprocess.Popen[bytes], chance: random.Random, longest_s: float) -> None:
    """Do it at a random moment; what can be done again, until the deployment ends or three times."""
    for _ in range(3):
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(chance.uniform(0.2, longest_s))
            return
        if what == "sender killed":
            os.killpg(process.pid, signal.SIGKILL)
        elif what == "links cut":
            for board in fleet.boards:
                board.drop_connections()
        elif what == "board's program killed":
            kill_programs(chance)


def kill_programs(chance: random.Random) -> None:
    """End some of the programs that work on boards now, as a kernel without memory would."""
    for process in psutil.process_iter(["cmdline"]):
        if "edgecnn.flow.deployed" in (process.info["cmdline"] or []) and chance.random() < 0.7:
            with contextlib.suppress(psutil.Error):
                process.kill()


def one_round(what: str, fleet: Fleet, versions: Versions, chance: random.Random, longest_s: float) -> dict[str, Any]:
    """Deploy once, disturbed; what is wrong afterwards."""
    bundle = versions.next()
    if what == "changed":
        network = next(bundle.glob("*.onnx"))
        network.write_bytes(network.read_bytes() + b"\0")
    start_s = time.monotonic()
    process = deploying(fleet, bundle, versions.public, most_latency_ms=1e-6 if what == "too slow" else 1e6)
    if what in ("sender killed", "links cut", "board's program killed"):
        disturb(what, fleet, process, chance, longest_s)
    out, _ = process.communicate(timeout=900)
    rows = json.loads(out) if out.strip() else []
    outcomes = Counter(row.get("outcome", row.get("error", "?")) for row in rows)
    wrong = fleet.wrong(None if what in ("too slow", "changed") else manifest_of(bundle), versions.public)
    return {"what": what, "seconds": round(time.monotonic() - start_s, 1), "outcomes": dict(outcomes), "wrong": wrong}


def deployments(rounds: int, *, seed: int) -> dict[str, Any]:
    """Deploy, disturb, look."""
    chance = random.Random(seed)
    with contextlib.ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="edgecnn-fleet-")))
        os.environ["EDGECNN_STATE"] = str(folder / "state")
        fleet, versions = Fleet(folder), Versions(folder)
        for board in fleet.boards:
            opened.callback(board.stop)
        small = fleet.places[-1]
        small.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_BYTES}", "tmpfs", str(small)]
        subprocess.run(mount, check=True, capture_output=True)
        opened.callback(subprocess.run, ["umount", "-l", str(small)], check=False)
        first = one_round("nothing", fleet, versions, chance, 1.0)
        done = [first]
        for number in range(rounds):
            what = DISTURBANCES[number % len(DISTURBANCES)]
            done.append(one_round(what, fleet, versions, chance, max(5.0, first["seconds"])))
            print(json.dumps(done[-1]), flush=True)
        subprocess.run(["mount", "-o", "remount,size=10m", str(small)], check=True, capture_output=True)
        last = one_round("nothing", fleet, versions, chance, 1.0)
        same = len(set(fleet.has)) == 1
    outcomes: dict[str, Counter[str]] = {}
    for each in done:
        outcomes.setdefault(each["what"], Counter()).update(each["outcomes"])
    return {
        "machine": msgspec.to_builtins(describe_machine()),
        "emulated": "five sshd on loopback; one board's folder on a file system of 60 KB",
        "seed": seed,
        "rounds": len(done) + 1,
        "boards_reached": sum(sum(count.values()) for count in outcomes.values()),
        "outcomes": {what: dict(count) for what, count in outcomes.items()},
        "wrong": [text for each in (*done, last) for text in each["wrong"]],
        "all_at_the_last_version": same,
        "last": last["outcomes"],
        "seconds": sorted(each["seconds"] for each in done),
    }


def main() -> int:
    """Deploy, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=18)
    parser.add_argument("--out", type=Path, default=RESULTS)
    chosen = parser.parse_args()
    result = deployments(chosen.rounds, seed=chosen.seed)
    print(json.dumps({name: value for name, value in result.items() if name != "machine"}, indent=1))
    chosen.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0 if not result["wrong"] and result["all_at_the_last_version"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
