"""The C++ runner under AddressSanitizer and UndefinedBehaviorSanitizer: real pictures, strange answers, hostile files.

An error that a sanitizer sees ends the program. OpenVINO itself and OpenCV are not built with them: of these, only what
they do with memory through malloc and free is seen.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecnn import open_runner
from edgecnn.bundle.shipped import shipped_bundle
from edgecnn.results import UInt8Array
from tests.builders.cpp_runner import PROBE, a_hundred_pictures, bits, build_sanitized, copied, what_is_missing
from tests.builders.repository import REPOSITORY
from tests.builders.strange_networks import list_again, strange_bundles

pytestmark = [pytest.mark.slow, pytest.mark.runtime]

SUPPRESSED = REPOSITORY / "runners" / "cpp" / "tests" / "openvino.lsan"
FUZZ_S = 5
ENVIRONMENT = {
    **os.environ,
    "TBB_ENABLE_SANITIZERS": "1",  # otherwise OpenVINO's TBB binds libraries in a way that AddressSanitizer refuses
    "ASAN_OPTIONS": "detect_leaks=1:detect_stack_use_after_return=1:check_initialization_order=1",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "LSAN_OPTIONS": f"suppressions={SUPPRESSED}:print_suppressions=0",
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if missing := what_is_missing():
        pytest.skip(f"the C++ runner is built here, which needs {missing}")
    pytest.importorskip("openvino")
    return build_sanitized(tmp_path_factory.mktemp("sanitized"))


def ran(*words: object, **environment: str) -> str:
    """What a program printed; it must end well."""
    done = subprocess.run(
        list(map(str, words)),
        capture_output=True,
        text=True,
        errors="replace",
        timeout=300,
        env={**ENVIRONMENT, **environment},
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    return done.stdout


def answers(
    built: Path, folder: Path, pictures: list[UInt8Array], bundles: list[Path], **environment: str
) -> tuple[list[tuple[int, str]], bytes]:
    """Status and words of opening each bundle, and all that was answered."""
    with (folder / "pictures").open("wb") as file:
        for picture in pictures:
            height, width, _ = picture.shape
            stride = picture.strides[0]
            rows = np.lib.stride_tricks.as_strided(picture, (height, 3 * width), (stride, 1))
            padded = np.zeros((height, stride), np.uint8)
            padded[:, : 3 * width] = rows
            file.write(np.array([height, width, stride], np.int32).tobytes())
            file.write(padded.tobytes()[: stride * (height - 1) + 3 * width])
    lines = ran(built / "answers", folder / "pictures", folder / "answers", *bundles, **environment).splitlines()
    opened = [(int(status), words) for status, words in (line.split(" ", 1) for line in lines)]
    assert len(opened) == len(bundles)
    return opened, (folder / "answers").read_bytes()


def of_python(pictures: list[UInt8Array], bundles: list[Path]) -> bytes:
    """The same answers, from Python."""
    said = []
    for bundle in bundles:
        with open_runner(bundle, format="openvino", threads=1, verify=False) as runner:
            for picture in pictures:
                said += [np.int32(0).tobytes(), *bits(runner(picture))]
    return b"".join(said)


@pytest.fixture(scope="module")
def pictures() -> list[UInt8Array]:
    """Real ones, a part of one (rows with gaps), and the smallest and narrowest that there can be."""
    real = a_hundred_pictures()
    thin = [np.full((1, 1, 3), 7, np.uint8), np.full((1, 900, 3), 200, np.uint8), np.full((700, 2, 3), 90, np.uint8)]
    return [*real[:6], real[6][10:-20, 5:-30], *thin]


def test_pictures_are_answered_as_in_python(built: Path, pictures: list[UInt8Array], tmp_path: Path) -> None:
    shipped = [shipped_bundle(f"default-{name}") for name in ("detector", "segmenter")]
    frames: list[dict[str, Any]] = [
        {"fit": "letterbox", "antialias": True},
        {"fit": "centre-crop", "resize_short_px": 37, "antialias": True, "interpolation": "bicubic"},
        {"fit": "centre-crop", "resize_short_px": 128},
        {"interpolation": "nearest"},
        {"interpolation": "area", "fit": "letterbox", "alignment": "top-left"},
    ]
    fitted = [copied(PROBE, tmp_path, **{f"frame.{name}": value for name, value in f.items()}) for f in frames]
    bundles = [bundle for bundle in (*shipped, *fitted) if bundle is not None]
    opened, found = answers(built, tmp_path, pictures, bundles)
    assert [status for status, _ in opened] == [0] * len(bundles)
    assert found == of_python(pictures, bundles)


def test_strange_answers_become_what_they_become_in_python(
    built: Path, pictures: list[UInt8Array], tmp_path: Path
) -> None:
    bundles = strange_bundles(tmp_path)
    opened, found = answers(built, tmp_path, pictures[-4:], list(bundles.values()))
    assert [status for status, _ in opened] == [0] * len(bundles)
    for name, bundle in bundles.items():
        with np.errstate(all="ignore"):
            expected = of_python(pictures[-4:], [bundle])
        assert found[: len(expected)] == expected, name
        found = found[len(expected) :]
    assert found == b""


# --- bundles that lie about their network: consistent in themselves, so that only the network can show it

LIES: dict[str, dict[str, Any]] = {
    "more classes": {"task.labels": list("abcdef"), "outputs.0.shape": [1, 6]},
    "fewer classes": {"task.labels": ["a"], "outputs.0.shape": [1, 1]},
    "a larger frame": {"frame.height_px": 4096, "frame.width_px": 4096, "inputs.0.shape": [1, 4096, 4096, 3]},
    "a smaller frame": {"frame.height_px": 1, "frame.width_px": 1, "inputs.0.shape": [1, 1, 1, 3]},
    "a batch": {"batch": 3, "inputs.0.shape": [3, 32, 32, 3], "outputs.0.shape": [3, 5]},
    "a class map": {
        "task": {"kind": "segment", "labels": ["a"]},
        "outputs": [{"name": "scores", "dtype": "float32", "shape": [1, 5]}],
    },
    "boxes": {
        "task": {"kind": "detect", "labels": ["a"]},
        "outputs": [
            {"name": "boxes", "dtype": "float32", "shape": [1, 1 << 20, 4]},
            {"name": "scores", "dtype": "float32", "shape": [1, 1 << 20, 1]},
        ],
    },
}


def damaged(name: str, change: Callable[[bytes], bytes], bundle: Path) -> None:
    """A file of OpenVINO's changed, and listed as it is now."""
    (path,) = bundle.glob(f"openvino-*{name}")
    before = path.read_bytes()
    path.write_bytes(change(before))
    assert path.read_bytes() != before
    list_again(bundle)


def _in_place_of_the_manifest(make: Callable[[Path], object], bundle: Path) -> None:
    path = bundle / "manifest.json"
    path.unlink()
    make(path)


def _hole(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(65 << 20)


FOLDERS: dict[str, Callable[[Path], object]] = {
    "a cut network": lambda b: damaged(".xml", lambda data: data[:5000], b),
    "an empty network": lambda b: damaged(".xml", lambda _: b"", b),
    "a network of zeros": lambda b: damaged(".xml", lambda _: bytes(9000), b),
    "cut weights": lambda b: damaged(".bin", lambda data: data[:100], b),
    "no weights": lambda b: damaged(".bin", lambda _: b"", b),
    "weights beyond the end": lambda b: damaged(
        ".xml", lambda data: re.sub(rb'offset="\d+"', b'offset="18446744073709551000"', data), b
    ),
    "huge layers": lambda b: damaged(
        ".xml", lambda data: data.replace(b'shape="8, 3, 3, 3"', b'shape="9223372036854775807, 3, 3, 3"'), b
    ),
    "a folder for a manifest": lambda b: _in_place_of_the_manifest(Path.mkdir, b),
    "a pipe for a manifest": lambda b: _in_place_of_the_manifest(os.mkfifo, b),
    "a link to itself": lambda b: _in_place_of_the_manifest(lambda path: path.symlink_to(path), b),
    "an empty manifest": lambda b: (b / "manifest.json").write_bytes(b""),
    "a manifest of zeros": lambda b: (b / "manifest.json").write_bytes(bytes(4096)),
    "a deep manifest": lambda b: (b / "manifest.json").write_bytes(b"[" * 2_000_000),
    "a manifest of 65 MB": lambda b: _in_place_of_the_manifest(_hole, b),
    "no UTF-8": lambda b: (b / "manifest.json").write_bytes(b'{"schema": 1, "name": "\xff\xc0\x80"}'),
    "no manifest": lambda b: (b / "manifest.json").unlink(),
}


def test_hostile_bundles_are_refused(built: Path, pictures: list[UInt8Array], tmp_path: Path) -> None:
    bundles = {name: copied(PROBE, tmp_path, **lie) for name, lie in LIES.items()}
    for name, spoil in FOLDERS.items():
        bundles[name] = copied(PROBE, tmp_path)
        spoil(bundles[name])
    bundles["nothing"], bundles["a file"] = tmp_path / "none.edge", Path(__file__)
    # OpenVINO's readers are unloaded: without the whole stack, nothing would say that what they leave behind is theirs.
    whole = {"ASAN_OPTIONS": f"{ENVIRONMENT['ASAN_OPTIONS']}:fast_unwind_on_malloc=0"}
    opened, _ = answers(built, tmp_path, pictures[-3:], list(bundles.values()), **whole)
    refused = dict(zip(bundles, opened, strict=True))
    assert [name for name, (status, _) in refused.items() if status not in (1, 3)] == []
    assert all(len(words) > 20 for _, words in opened)


def test_mutated_manifests_and_files_are_read_or_refused(built: Path, tmp_path: Path) -> None:
    seeds = REPOSITORY / "tests" / "fuzz" / "seeds"
    files = [*seeds.glob("manifest/*.json"), *seeds.glob("onnx/*.onnx"), *seeds.glob("tflite/*.tflite")]
    files += [bundle / "manifest.json" for bundle in PROBE.parent.glob("*.edge")]
    said = ran(built / "fuzz", FUZZ_S, 19, tmp_path / "mutated", *files)
    assert re.fullmatch(r"[1-9]\d* tried, [1-9]\d* read, [1-9]\d* refused\n", said)
