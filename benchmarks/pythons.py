"""Which Pythons run what a device needs: python benchmarks/pythons.py [--python PATH …] [--root DIR] [--out FILE.json].

On this machine: for each interpreter an environment of its own with edgecnn's wheel and pip's choice of packages, to
which one runtime after the other is added; in it `devices`, `run` on a photograph and `bench`. The first interpreter
has another one with numpy 1 and OpenCV 4. For aarch64, and for Pythons that are not here: whether pip finds a wheel of
each package. What is not tried keeps what an earlier run found.

`--root` is the root file system of another Debian, whose python3 is tried by chroot (as root): where a release has a
Python that is nowhere else, as in `mmdebstrap --variant=minbase
--include=python3-venv,libgl1,libglib2.0-0t64,ca-certificates forky DIR`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
ASSETS = REPOSITORY / "edgecnn" / "assets"
VERSIONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
RUNTIMES = {"onnx": "onnxruntime", "openvino": "openvino", "tflite": "ai-edge-litert", "ncnn": "ncnn"}
PROBED = {"ncnn"}  # of it, only the network that ships for trying devices has a file
OLD = ("numpy<2", "opencv-python<5")
# Of Debian 12 and Ubuntu 22.04 (glibc 2.35), with what older ones call themselves.
PLATFORMS = [f"manylinux_2_{minor}" for minor in (35, 34, 31, 28, 27, 26, 24, 17)] + ["manylinux2014"]
_PIP_INSTALL = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary=:all:"]
_STEP_S = 600


def network_for(extra: str) -> tuple[str, Path, list[str]]:
    """What is run: the network, a photograph, and the classes that it sees there."""
    if extra not in PROBED:
        return "default-detector", ASSETS / "astronaut.jpg", ["person"]
    answer = json.loads((ASSETS / "probe.json").read_text(encoding="utf-8"))
    labels = json.loads((ASSETS / "probe.edge" / "manifest.json").read_text(encoding="utf-8"))["task"]["labels"]
    by_score = sorted(zip(answer["scores"], labels, strict=True), reverse=True)
    return str(ASSETS / "probe.edge"), ASSETS / f"{answer['photograph']}.jpg", [label for _, label in by_score]


def tried_runtime(
    inside: str, wheel: Path, extra: str, pins: tuple[str, ...], folder: str, root: Path | None = None
) -> dict[str, Any]:
    """Install it, and run what a device runs."""
    row: dict[str, Any] = {}
    program = [inside, "-m", "edgecnn"]
    network, photograph, expected = network_for(extra)
    chosen = ["--format", extra]
    steps: dict[str, list[str]] = {
        "install": [inside, *_PIP_INSTALL, f"{wheel}[{extra}]", *pins],
        "devices": [*program, "devices", "--json"],
        "run": [*program, "run", network, str(photograph), *chosen, "--jsonl", "-"],
        "bench": [*program, "bench", network, *chosen, "--iterations", "20", "--no-record", "--json"],
    }
    for name, command in steps.items():
        done = ran(command, folder, root)
        if name == "run" and done.returncode == 0:
            record = json.loads(done.stdout.splitlines()[0])
            row["found"] = [each["label"] for each in record.get("detections") or record.get("classes", ())]
        row[name] = done.returncode == 0
        if done.returncode != 0:
            row["why"] = f"{name}: {(done.stderr.strip().splitlines() or ['no message'])[-1][:300]}"
            break
    if "why" not in row and row["found"] != expected:
        row["why"] = f"run: it sees {', '.join(row['found']) or 'nothing'}, not {', '.join(expected)}"
    row["ok"] = "why" not in row
    return row | ({"packages": packages(inside, folder, extra, root)} if row["install"] else {})


def ran(command: list[str], folder: str, root: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run it without the paths of whoever calls this; in another root file system, which has the folder too."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if root is not None:
        command, folder = ["chroot", str(root), "env", "-C", folder, *command], "/"
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=_STEP_S, check=False
    )


@contextlib.contextmanager
def visible(root: Path | None, folder: str) -> Iterator[None]:
    """Let another root file system see the folder, this repository, the processor and how to reach packages."""
    if root is None:
        yield
        return
    shutil.copyfile("/etc/resolv.conf", root / "etc" / "resolv.conf")
    with contextlib.ExitStack() as mounted:
        for place in ("/proc", "/sys", "/dev", "/etc/ssl/certs", str(REPOSITORY), folder):
            there = root / place.lstrip("/")
            there.mkdir(parents=True, exist_ok=True)
            subprocess.run(["mount", "--bind", place, str(there)], check=True)
            mounted.callback(subprocess.run, ["umount", str(there)], check=True)
        yield


def packages(python: str, folder: str, extra: str, root: Path | None = None) -> dict[str, str]:
    """Versions of what matters."""
    listed = json.loads(ran([python, "-m", "pip", "list", "--format", "json"], folder, root).stdout)
    wanted = {"numpy", "opencv-python", RUNTIMES[extra]}
    return {each["name"].lower(): each["version"] for each in listed if each["name"].lower() in wanted}


def resolved(wheel: Path, version: str, extra: str, machine: str) -> dict[str, Any]:
    """Whether every package has a wheel for a Python and a machine that are not here; nothing is installed."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--dry-run",
            "--quiet",
            "--ignore-installed",
            "--report",
            "-",
        ]
        command += ["--target", folder, "--only-binary=:all:", "--implementation", "cp", "--python-version", version]
        command += [word for name in PLATFORMS for word in ("--platform", f"{name}_{machine}")]
        done = ran([*command, f"{wheel}[{extra}]"], folder)
    row: dict[str, Any] = {"runtime": extra, "python": version, "machine": machine, "ok": done.returncode == 0}
    if done.returncode != 0:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        return {**row, "why": (errors or ["no message"])[-1][:300]}
    found = {
        item["metadata"]["name"].lower(): item["metadata"]["version"] for item in json.loads(done.stdout)["install"]
    }
    return {
        **row,
        "packages": {name: found[name] for name in ("numpy", "opencv-python", RUNTIMES[extra]) if name in found},
    }


def version_of(python: str, root: Path | None = None) -> str:
    """As in "3.10.13"."""
    return ran([python, "-c", "import platform; print(platform.python_version())"], "/", root).stdout.strip()


def built_wheel(folder: str) -> Path:
    """edgecnn's own wheel."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, str(REPOSITORY)]
    subprocess.run(command, check=True)
    return next(Path(folder).glob("edgecnn-*.whl"))


def main() -> int:
    """Try them all; 1 where one that has its wheels fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", action="append", default=[], help="an interpreter; repeat it for several")
    parser.add_argument("--root", type=Path, help="another Debian's root file system, with python3")
    parser.add_argument("--runtime", action="append", choices=list(RUNTIMES), help="only these")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "pythons.json")
    options = parser.parse_args()
    runtimes, pythons = options.runtime or list(RUNTIMES), options.python or [sys.executable]
    versions = [version_of(python) for python in pythons] + (
        [version_of("python3", options.root)] if options.root else []
    )
    here = set(map(_minor, versions))
    earlier = json.loads(options.out.read_text(encoding="utf-8")) if options.out.is_file() else {}
    if earlier.get("machine") != platform.machine():
        earlier = {}
    result: dict[str, Any] = {
        "machine": platform.machine(),
        "system": platform.platform(),
        "tried": [row for row in earlier.get("tried", ()) if not _tried_again(row, runtimes, here)],
        "resolved": [row for row in earlier.get("resolved", ()) if row["runtime"] not in runtimes],
    }
    known = {(row["runtime"], _minor(row["python"])) for row in result["tried"]}
    elsewhere = [
        (version, extra, machine)
        for machine in ("x86_64", "aarch64")
        for version in VERSIONS
        for extra in runtimes
        if machine != platform.machine() or (version not in here and (extra, version) not in known)
    ]
    with (
        tempfile.TemporaryDirectory() as folder,
        visible(options.root, folder),
        ThreadPoolExecutor(1) as beside,
    ):
        wheel = built_wheel(folder)
        resolving = beside.submit(lambda: result["resolved"].extend(resolved(wheel, *each) for each in elsewhere))
        places = [(str(Path(folder) / str(i)), *each) for i, each in enumerate(wanted(pythons, options.root))]
        for where, python, _, root in places:
            ran([python, "-m", "venv", where], folder, root)
        for extra in runtimes:
            for where, python, pins, root in places:
                row = {"python": version_of(python, root), "runtime": extra, "pins": list(pins)}
                row |= tried_runtime(f"{where}/bin/python", wheel, extra, pins, folder, root)
                result["tried"].append(row)
                print(json.dumps(row), flush=True)
                write(options.out, result)  # it takes long: what is there is kept
        resolving.result()
    write(options.out, result)
    return 0 if all(row["ok"] for row in result["tried"] if row["install"]) else 1


def _tried_again(row: dict[str, Any], runtimes: list[str], here: set[str]) -> bool:
    return row["runtime"] in runtimes and _minor(row["python"]) in here


def _minor(version: str) -> str:
    """Without the third number, as in "3.10"."""
    return ".".join(version.split(".")[:2])


def wanted(pythons: list[str], root: Path | None) -> list[tuple[str, tuple[str, ...], Path | None]]:
    """Each interpreter with pip's choice, the rarest first, and one with older packages."""
    plain: list[tuple[str, tuple[str, ...], Path | None]] = [(python, (), None) for python in pythons]
    elsewhere: list[tuple[str, tuple[str, ...], Path | None]] = [("python3", (), root)] if root else []
    return [*elsewhere, *plain, (pythons[0], OLD, None)]


def write(out: Path, result: dict[str, Any]) -> None:
    """Write what there is."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
