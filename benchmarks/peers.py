"""What a frame costs beyond bare inference, here and in two peers: python -m benchmarks.peers [--rounds 30].

The same network (YOLOv8n, random weights, 640x640), the same 1080p pictures, the same thresholds; each side runs its
own export and is compared with the bare loop over its own file, in ONNX Runtime and in OpenVINO. Each side is a process
of its own, rounds go over all of them, and ratios are taken round by round. Ultralytics (AGPL) and OpenVINO Model API
live in environments that this script makes under `build/peers`; edgecnn never imports them.

Results go to `results/peers.json`, the table to `docs/peers.md`; exit code 1 where it is not shown that edgecnn
costs at most half: a busy machine shows nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any, Self

import msgspec
import numpy as np

import edgecnn
from benchmarks.overhead import children_cpu_s
from edgecnn.measure.machine import describe_machine, read_core_times
from edgecnn.measure.timed_pictures import default_pictures
from edgecnn.measure.timing import others_share

REPOSITORY = Path(__file__).resolve().parents[1]
BUILD = REPOSITORY / "build" / "peers"
RESULTS = REPOSITORY / "benchmarks" / "results" / "peers.json"
TABLE = REPOSITORY / "docs" / "peers.md"
SIDES = {  # Model API 0.4.7 refuses its YOLOv8 wrapper over ONNX Runtime ("only supported for Classification, … SSD …")
    "onnx": ("edgecnn", "ultralytics"),
    "openvino": ("edgecnn", "ultralytics", "model-api"),
}
LIMIT = 0.5
PICTURE_SIZE_PX = (1920, 1080)
REQUIREMENTS = {
    "ultralytics": ["ultralytics==8.4.190", "torch", "torchvision", "onnx", "onnxslim", "onnxruntime", "openvino"],
    "model-api": ["openvino-model-api==0.4.7", "openvino"],
}
_DRAWS = 4000
UNDISTURBED = 10  # percentile of a round's calls that others who use the machine hardly touch
# Neither installs anything by itself, nor looks for updates, nor sends anything.
QUIET = {"YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false", "YOLO_VERBOSE": "false"}


def environment_of(side: str) -> Path:
    """The Python of a side; makes the environment of a peer where it is not there yet."""
    if side == "edgecnn":
        return Path(sys.executable)
    folder = BUILD / side
    python = folder / "bin" / "python"
    done = folder / "installed.json"
    if not done.is_file() or json.loads(done.read_bytes()) != REQUIREMENTS[side]:
        venv.create(folder, with_pip=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*install, "-c", _versions(), *REQUIREMENTS[side]], check=True)
        done.write_text(json.dumps(REQUIREMENTS[side]))
    return python


def _versions() -> Path:
    """Constraints: the runtimes and torch that are installed here, so that versions are the same on all sides."""
    from importlib.metadata import version

    names = ("torch", "torchvision", "onnx", "onnxruntime", "openvino", "numpy")
    file = BUILD / "constraints.txt"
    file.write_text("".join(f"{name}=={version(name)}\n" for name in names), encoding="utf-8")
    return file


def child_environment(side: str) -> dict[str, str]:
    """What a side's process sees."""
    environment = {**os.environ, **QUIET, "YOLO_CONFIG_DIR": str(BUILD / "settings")}
    environment.pop("PYTHONPATH", None)
    if side == "edgecnn":
        environment["PYTHONPATH"] = str(REPOSITORY)
    return environment


class Side:
    """A process that measures one side in one format."""

    def __init__(self, side: str, kind: str, pictures: Path, network: Path) -> None:
        self.side, self.kind = side, kind
        command = [str(environment_of(side)), str(REPOSITORY / "benchmarks" / "peers_child.py"), side, kind]
        self._process = subprocess.Popen(
            [*command, str(pictures), str(network)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=child_environment(side),
        )
        opened = self._read()
        self.version, self.boxes = opened["version"], opened["boxes"]
        self.rounds: list[dict[str, list[int]]] = []

    def measure(self, **asked: int) -> None:
        """One round."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        self.rounds.append(self._read())

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.side} in {self.kind} ended early: exit code {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    @property
    def times_the_call_itself(self) -> bool:
        """Whether it calls the runtime with a ready tensor, so that what lies outside of that call can be told."""
        return all(r["outside"] for r in self.rounds)

    def each_ms(self, name: str, percent: float = 50) -> np.ndarray:
        """A percentile of the calls of each round."""
        values: np.ndarray = np.array([np.percentile(r[name], percent) for r in self.rounds]) / 1e6
        return values

    def beyond_ms(self, percent: float = 50) -> np.ndarray:
        """What a frame costs beyond bare inference, round by round."""
        difference: np.ndarray = self.each_ms("whole", percent) - self.each_ms("bare", percent)
        return difference

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.communicate()


def median_and_interval(values: np.ndarray) -> dict[str, float]:
    """The median, and its 95 % interval from drawing the rounds again."""
    rng = np.random.default_rng(0)
    drawn = np.median(values[rng.integers(len(values), size=(_DRAWS, len(values)))], axis=1)
    low, high = np.percentile(drawn, (2.5, 97.5)).tolist()
    return {"value": round(float(np.median(values)), 4), "low": round(low, 4), "high": round(high, 4)}


def ratio_and_interval(ours: np.ndarray, theirs: np.ndarray) -> dict[str, float]:
    """Ratio of the medians, and its 95 % interval from drawing whole rounds again."""
    rng = np.random.default_rng(0)
    draw = rng.integers(len(ours), size=(_DRAWS, len(ours)))
    drawn = np.median(ours[draw], axis=1) / np.median(theirs[draw], axis=1)
    low, high = np.percentile(drawn, (2.5, 97.5)).tolist()
    value = float(np.median(ours) / np.median(theirs))
    return {"value": round(value, 4), "low": round(low, 4), "high": round(high, 4)}


def prepare() -> tuple[Path, Path]:
    """The pictures and the network's files; made once."""
    BUILD.mkdir(parents=True, exist_ok=True)
    pictures, network = BUILD / "pictures.npz", BUILD / "network"
    first = default_pictures(PICTURE_SIZE_PX)[0]  # of one photograph, for a random network to find as many in each
    np.savez(pictures, *(np.roll(first, 60 * index, axis=1) for index in range(8)))
    if not (network / "ours.edge").is_dir():
        network.mkdir(exist_ok=True)
        command = [environment_of("ultralytics"), REPOSITORY / "benchmarks" / "peers_network.py", pictures, network]
        subprocess.run([str(word) for word in command], check=True, env=child_environment("ultralytics"))
        conversion = edgecnn.convert(
            str(network / "yolov8n-random.pt2"),
            out=network / "ours.edge",
            to=tuple(SIDES),
            task="detect",
            labels=network / "labels.txt",
        )
        if conversion.refused:
            raise SystemExit(f"the network did not convert: {conversion.refused}")
    return pictures, network


def measure(kind: str, pictures: Path, network: Path, *, rounds: int) -> dict[str, Any]:
    """One format: all sides in turns."""
    with contextlib.ExitStack() as stack:
        sides: dict[str, Side] = {}
        names = list(SIDES[kind])
        for name in names:
            sides[name] = stack.enter_context(Side(name, kind, pictures, network))
            print(f"{kind}: {sides[name].version}, boxes {sides[name].boxes}", flush=True)
        for turn in range(rounds + 1):
            first = turn % len(names)
            for name in names[first:] + names[:first]:
                sides[name].measure(calls=6, blocks=4)
        for side in sides.values():
            del side.rounds[0]  # the first warms up
        ours, theirs = sides["edgecnn"], {name: sides[name] for name in names[1:]}
        return {
            "format": kind,
            "sides": {
                name: {
                    "version": side.version,
                    "boxes": side.boxes,
                    "whole_ms": median_and_interval(side.each_ms("whole")),
                    "bare_ms": median_and_interval(side.each_ms("bare")),
                    "beyond_ms": median_and_interval(side.beyond_ms()),
                    "beyond_undisturbed_ms": median_and_interval(side.beyond_ms(UNDISTURBED)),
                    "outside_ms": median_and_interval(side.each_ms("outside")) if side.times_the_call_itself else None,
                    "rounds_ns": side.rounds,
                }
                for name, side in sides.items()
            },
            "of_peer": {name: ratio_and_interval(ours.beyond_ms(), side.beyond_ms()) for name, side in theirs.items()},
            "of_peer_undisturbed": {
                name: ratio_and_interval(ours.beyond_ms(UNDISTURBED), side.beyond_ms(UNDISTURBED))
                for name, side in theirs.items()
            },
            "of_peer_outside": {
                name: ratio_and_interval(ours.each_ms("outside"), side.each_ms("outside"))
                for name, side in theirs.items()
                if side.times_the_call_itself
            },
        }


def table(result: dict[str, Any]) -> str:
    """`docs/peers.md`."""
    lines = [
        "# Time of a frame beyond inference, here and in other packages",
        "",
        "Written by `python -m benchmarks.peers` from `benchmarks/results/peers.json`. The same network (YOLOv8n with",
        "random weights, 640x640), the same 1080p pictures and thresholds. Each side runs its own export.",
        '"Beyond" is the time of a whole call (picture in, boxes out) minus that of a bare loop over the same file.',
        "",
        "| runtime | | whole ms | bare ms | beyond ms (95 %) | our share | outside ms (95 %) | our share |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in result["rows"]:
        for name, side in row["sides"].items():
            beyond, of = side["beyond_ms"], row["of_peer"].get(name)
            outside, of_rest = side["outside_ms"], row["of_peer_outside"].get(name)
            label = f"edgecnn, {side['version']}" if name == "edgecnn" else side["version"]
            share = f"{of['value']:.2f} ({of['low']:.2f} to {of['high']:.2f})" if of else ""
            figures = f"{side['whole_ms']['value']:.2f} | {side['bare_ms']['value']:.2f}"
            interval = f"{beyond['value']:.2f} ({beyond['low']:.2f} to {beyond['high']:.2f})"
            rest = f"{outside['value']:.2f} ({outside['low']:.2f} to {outside['high']:.2f})" if outside else ""
            low_to_high = f"({of_rest['low']:.2f} to {of_rest['high']:.2f})" if of_rest else ""
            share_of_rest = f"{of_rest['value']:.2f} {low_to_high}" if of_rest else ""
            cells = (row["format"], label, figures, interval, share, rest, share_of_rest)
            lines.append(f"| {' | '.join(cells)} |")
    machine = result["machine"]
    busy = ", ".join(f"{row['others_busy_cores']:.1f} in {row['format']}" for row in result["rows"])
    lines += [
        "",
        f"{machine['cpu_model']}, {machine['cores_allowed']} cores; cores kept busy by other programs: {busy}.",
    ]
    lines += [
        '"Outside" is the time of the same calls minus the time in the runtime\'s own call. Other programs do not',
        "change it by slowing down the inference, so on a busy machine it is the better figure. Model API compiles its",
        "pre-processing into the graph, so this cannot be measured there. The bare times differ because each side has",
        "its own file and its own precision: fp32 in edgecnn, OpenVINO's default in the others, which is bf16 if the",
        "processor supports it.",
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args()
    pictures, network = prepare()
    result: dict[str, Any] = {"machine": msgspec.to_builtins(describe_machine()), "rows": []}
    for kind in SIDES:
        before, cpu_before = read_core_times(), children_cpu_s()
        row = measure(kind, pictures, network, rounds=asked.rounds)
        others, _ = others_share(before, read_core_times(), own_cpu_s=children_cpu_s() - cpu_before)
        result["rows"].append({**row, "others_busy_cores": others})
        print(
            kind,
            json.dumps({name: row[name] for name in ("of_peer", "of_peer_undisturbed", "of_peer_outside")}),
            flush=True,
        )
    for kind in ("of_peer", "of_peer_outside"):  # shown only where the interval's upper end is below the limit
        shares = [of for row in result["rows"] for of in row[kind].values()]
        result[f"{kind}_within_limit"] = all(of["high"] <= LIMIT for of in shares)
    asked.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if asked.out == RESULTS:
        TABLE.write_text(table(result), encoding="utf-8")
    return 0 if result["of_peer_within_limit"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
