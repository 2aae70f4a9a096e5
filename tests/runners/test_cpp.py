"""The C++ runner gives the answers of the Python package, to the bit, and refuses what it refuses."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgecnn import Bundle, open_runner
from edgecnn.bundle.shipped import shipped_bundle
from edgecnn.errors import BundleError, EdgeCnnError
from edgecnn.photographs import photographs
from edgecnn.results import UInt8Array
from tests.builders.cpp_runner import (
    PROBE,
    CppError,
    Library,
    a_hundred_pictures,
    bits,
    build,
    copied,
    what_is_missing,
)

pytestmark = [pytest.mark.slow, pytest.mark.runtime]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if missing := what_is_missing():
        pytest.skip(f"the C++ runner is built here, which needs {missing}")
    pytest.importorskip("openvino")
    return build(tmp_path_factory.mktemp("cpp"))


@pytest.fixture(scope="module")
def library(built: Path) -> Library:
    return Library(built)


@pytest.fixture(scope="module")
def pictures() -> list[UInt8Array]:
    return a_hundred_pictures()


def differing(
    library: Library, bundle: Path, pictures: list[UInt8Array], **options: Any
) -> tuple[list[int], list[Any]]:
    """Which pictures get other answers, and Python's answers."""
    answers = []
    with (
        open_runner(bundle, format="openvino", threads=1, verify=False, **options) as python,
        library.open(bundle, threads=1, **options) as cpp,
    ):
        assert cpp.labels == python.task.labels
        different = []
        for index, picture in enumerate(pictures):
            answers.append(python(picture))
            if bits(cpp(picture)) != bits(answers[-1]):
                different.append(index)
    return different, answers


@pytest.mark.parametrize("name", ["default-detector", "default-segmenter"])
def test_what_ships_answers_as_in_python_to_the_bit(library: Library, pictures: list[UInt8Array], name: str) -> None:
    bundle = shipped_bundle(name)
    assert bundle is not None
    different, answers = differing(library, bundle, pictures)
    assert different == []
    assert sum(len(answer) for answer in answers) > 20  # something was found


def test_many_boxes_are_selected_as_in_python(library: Library, pictures: list[UInt8Array]) -> None:
    bundle = shipped_bundle("default-detector")
    assert bundle is not None
    different, answers = differing(library, bundle, pictures[:20], score=0.001, nms_iou=0.65)
    assert different == []
    assert max(len(answer) for answer in answers) > 50


FRAMES: dict[str, dict[str, Any]] = {
    "letterbox": {"fit": "letterbox"},
    "letterbox-top-left": {"fit": "letterbox", "alignment": "top-left", "pad_value": 0},
    "letterbox-antialiased": {"fit": "letterbox", "antialias": True},
    "stretch": {"fit": "stretch"},
    "nearest": {"fit": "stretch", "interpolation": "nearest"},
    "area": {"fit": "letterbox", "interpolation": "area"},
    "bicubic": {"fit": "letterbox", "interpolation": "bicubic"},
    "bicubic-antialiased": {"fit": "stretch", "interpolation": "bicubic", "antialias": True},
    "centre-crop": {"fit": "centre-crop", "resize_short_px": 37},
    "centre-crop-antialiased": {"fit": "centre-crop", "resize_short_px": 48, "antialias": True},
    "centre-crop-bicubic-antialiased": {
        "fit": "centre-crop",
        "resize_short_px": 36,
        "interpolation": "bicubic",
        "antialias": True,
    },
}


@pytest.mark.parametrize("frame", FRAMES)
def test_pictures_are_fitted_as_in_python(
    library: Library, pictures: list[UInt8Array], frame: str, tmp_path: Path
) -> None:
    bundle = copied(PROBE, tmp_path, **{f"frame.{name}": value for name, value in FRAMES[frame].items()})
    tiny = [picture[:20, :9] for picture in pictures[:3]]  # enlarged; rows with gaps
    different, answers = differing(library, bundle, pictures + tiny)
    assert different == []
    assert len({tuple(bits(answer)) for answer in answers}) > 50  # the answers tell pictures apart


REFUSED: dict[str, dict[str, Any]] = {
    "a newer schema": {"schema": 2},
    "a path that leaves the bundle": {"artifacts.0.files.0.path": "../probe.edge/openvino-fp32-68e32ecd35.xml"},
    "an absolute path": {"artifacts.0.files.0.path": "/etc/hostname"},
    "another hash": {"artifacts.0.files.0.sha256": "0" * 64},
    "another size": {"artifacts.0.files.1.bytes": 7},
    "an unlisted file": {"artifacts.0.files": None},
    "a missing file": {"artifacts.0.files.1.path": "weights.bin"},
    "a frame of another size": {"frame.height_px": 64},
    "an unknown field of the frame": {"frame.contrast": 2},
    "too few labels": {"task.labels": ["a"]},
    "a threshold beyond 1": {"task.top": 0},
    "an unknown task": {"task.kind": "dream"},
    "another output": {"outputs.0.name": "logits"},
    "a huge batch": {"batch": 1 << 40},
    "a number in place of a text": {"name": 7},
    "a std of zero": {"frame.std": [1, 0, 1]},
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_python_refuses_is_refused(library: Library, what: str, tmp_path: Path) -> None:
    changes: dict[str, Any] = dict(REFUSED[what])
    if what == "an unlisted file":
        (openvino,) = (a for a in Bundle.open(PROBE).manifest.artifacts if a.format == "openvino")
        record = openvino.files[0]
        changes = {"artifacts.0.files": [{"path": record.path, "sha256": record.sha256, "bytes": record.bytes}]}
    bundle = copied(PROBE, tmp_path, **changes)
    with pytest.raises(EdgeCnnError) as python:
        open_runner(bundle, format="openvino", verify=False).close()
    with pytest.raises(CppError) as cpp:
        library.open(bundle)
    assert isinstance(python.value, BundleError) and cpp.value.status == "bundle", (str(python.value), str(cpp.value))


@pytest.fixture
def probe(library: Library) -> Iterator[Any]:
    with library.open(PROBE) as runner:
        yield runner


def test_what_is_no_picture_is_refused_and_the_runner_stays_usable(library: Library, probe: Any) -> None:
    picture = next(iter(photographs().values()))
    before = bits(probe(picture))
    for height, width, stride in ((0, 10, 0), (10, 0, 0), (-1, -1, 0), (10, 10, 29), (1 << 30, 1 << 30, 0)):
        data = picture.ctypes.data
        with pytest.raises(CppError, match="picture must be"):
            library.check(library.c.edgecnn_run(probe.handle, data, height, width, stride, _nowhere()))
    with pytest.raises(CppError, match="picture must be"):
        library.check(library.c.edgecnn_run(probe.handle, None, 10, 10, 0, _nowhere()))
    assert bits(probe(picture)) == before


def test_no_result_has_nothing_in_it(library: Library) -> None:
    assert library.c.edgecnn_result_count(None) == 0
    for values in (library.c.edgecnn_result_boxes, library.c.edgecnn_result_scores, library.c.edgecnn_result_class_ids):
        assert not values(None)
    assert not library.c.edgecnn_result_class_map(None, None, None)
    library.c.edgecnn_result_free(None)


def _nowhere() -> Any:
    from ctypes import byref, c_void_p

    return byref(c_void_p())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"format": "onnxx"}, "format must be"),
        ({"precision": "fp64"}, "holds no openvino fp64"),
        ({"device": "npu"}, "not available"),
        ({"threads": -1}, "threads"),
        ({"score": 0.5}, "has no such threshold"),
        ({"size": 1}, "sizeof"),
    ],
)
def test_impossible_options_are_refused(library: Library, options: dict[str, Any], says: str) -> None:
    with pytest.raises(CppError, match=says):
        library.open(PROBE, **options)


# --- the examples: what the how-to shows, as programs


def run_program(program: Path, *words: object, frames: list[UInt8Array] | None = None) -> tuple[int, list[str], str]:
    """Exit code, lines, and what it said of failures; frames are piped into it."""
    raw = b"".join(frame.tobytes() for frame in frames or [])
    done = subprocess.run([program, *map(str, words)], input=raw, capture_output=True, timeout=120)
    return done.returncode, done.stdout.decode().splitlines(), done.stderr.decode()


def test_the_example_in_c_prints_what_python_finds(built: Path, tmp_path: Path) -> None:
    detector = shipped_bundle("default-detector")
    assert detector is not None
    picture = photographs()["astronaut"]
    height, width, _ = picture.shape
    (tmp_path / "picture.ppm").write_bytes(b"P6\n%d %d\n255\n%b" % (width, height, picture[..., ::-1].tobytes()))
    code, lines, said = run_program(built / "detect", detector, tmp_path / "picture.ppm")
    assert (code, said) == (0, "")
    with open_runner(detector, format="openvino", verify=False) as runner:
        found: Any = runner(picture)
    values = zip(found.names, found.scores, found.boxes_xyxy_px, strict=True)
    assert [line.split() for line in lines] == [
        [*label.split(), f"{score:.4f}", *(f"{edge:.2f}" for edge in box)] for label, score, box in values
    ]
    assert lines


def test_the_camera_example_answers_each_frame_of_a_pipe(built: Path) -> None:
    detector = shipped_bundle("default-detector")
    picture = photographs()["cat"]
    height, width, _ = picture.shape
    code, lines, said = run_program(built / "camera", detector, width, height, frames=[picture] * 3)
    assert (code, said) == (0, "")
    assert [line.split(" ms: ")[1].split()[0] for line in lines] == ["cat"] * 3


def test_the_robot_turns_while_it_sees_and_ends_with_the_reason_when_it_cannot(built: Path) -> None:
    picture = photographs()["astronaut"]
    height, width, _ = picture.shape
    detector, segmenter = shipped_bundle("default-detector"), shipped_bundle("default-segmenter")
    code, lines, said = run_program(built / "robot_loop", detector, width, height, frames=[picture] * 12)
    assert (code, said) == (0, "")
    turns = [line for line in lines if not line.endswith("(nothing fresh is known)")]
    with open_runner("default-detector", format="openvino", verify=False) as runner:
        found: Any = runner(picture)
    left, _, right, _ = found.boxes_xyxy_px[found.names.index("person")]
    assert set(turns) == {f"turn {(left + right) / width - 1:+.2f}"}
    assert set(lines) - set(turns) <= {"turn +0.00 (nothing fresh is known)"}
    code, _, said = run_program(built / "robot_loop", segmenter, width, height, frames=[picture])
    assert code == 1 and said


@pytest.mark.parametrize("program", ["detect", "camera", "robot_loop"])
def test_an_example_says_what_it_wants_and_what_it_cannot_open(built: Path, program: str, tmp_path: Path) -> None:
    assert run_program(built / program)[0] == 2
    (tmp_path / "dot.ppm").write_bytes(b"P6 1 1 255\n\0\0\0")
    words = [tmp_path / "dot.ppm"] if program == "detect" else [1, 1]
    code, _, said = run_program(built / program, tmp_path / "none.edge", *words)
    assert code == 1 and "does not exist" in said
