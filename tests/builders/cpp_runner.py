"""The C++ runner, built here, behind its C functions: what a program in another language sees."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
from ctypes import POINTER, byref, c_char_p, c_float, c_int32, c_int64, c_size_t, c_uint8, c_void_p
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edgecnn.photographs import photographs
from edgecnn.results import Classification, Detections, Result, SegmentationMap, UInt8Array
from tests.builders.repository import REPOSITORY

SOURCE = REPOSITORY / "runners" / "cpp"
STATUS = ("ok", "bundle", "spec", "device", "other")
PROBE = REPOSITORY / "edgecnn" / "assets" / "probe.edge"
_HEADERS = ("opencv4/opencv2/imgproc.hpp", "nlohmann/json.hpp", "openssl/evp.h")


def what_is_missing() -> str:
    """What of the tools and headers is not on this machine; "" where all are."""
    tools = [tool for tool in ("cmake", "g++", "make") if shutil.which(tool) is None]
    headers = [header for header in _HEADERS if not any(Path("/usr/include").glob(header))]
    return ", ".join(tools + headers)


def build(folder: Path) -> Path:
    """Build the library and its programs as the how-to says, of a copy of the sources; the folder of what was made."""
    shutil.copytree(SOURCE, folder, ignore=shutil.ignore_patterns("build"), dirs_exist_ok=True)
    _cmake("--workflow", "--preset", "release", folder=folder)
    return folder / "build"


def build_sanitized(folder: Path) -> Path:
    """Build the library and the programs in `runners/cpp/tests` with AddressSanitizer and UBSan."""
    options = ("EDGECNN_SANITIZE=ON", "EDGECNN_TESTS=ON", "EDGECNN_EXAMPLES=OFF")
    _cmake("-S", str(SOURCE), "-B", str(folder), *(f"-D{option}" for option in options), folder=folder)
    _cmake("--build", str(folder), "--parallel", "2", folder=folder)
    return folder


def _cmake(*words: str, folder: Path) -> None:
    # The python3 that CMake asks where OpenVINO lies.
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(["cmake", *words], cwd=folder, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warning:" not in done.stderr, done.stderr


def a_hundred_pictures() -> list[UInt8Array]:
    """COCO's where they lie beside the repository, otherwise parts of photographs."""
    folder = REPOSITORY.parent / "shared" / "data" / "coco128"
    found = [cv2.imread(str(path)) for path in sorted(folder.rglob("*.jpg"))[:100]]
    rng = np.random.default_rng(19)
    whole = list(photographs().values())
    while len(found) < 100:
        photograph = whole[len(found) % len(whole)]
        height, width = (int(rng.integers(side // 4, side + 1)) for side in photograph.shape[:2])
        found.append(np.ascontiguousarray(photograph[-height:, -width:]))
    return found  # type: ignore[return-value]


def bits(result: Any) -> list[bytes]:
    """What must be equal."""
    kinds = (("classes",), ("boxes_xyxy_px", "scores", "class_ids"), ("scores", "class_ids"))
    names = next(names for names in kinds if hasattr(result, names[0]))
    return [getattr(result, name).tobytes() for name in names]


def copied(bundle: Path, folder: Path, **changes: Any) -> Path:
    """A copy of a bundle with other values in its manifest: "frame.fit" in place of frame → fit."""
    copy = folder / f"{len(list(folder.iterdir()))}.edge"
    shutil.copytree(bundle, copy)
    manifest = json.loads((copy / "manifest.json").read_text(encoding="utf-8"))
    for name, value in changes.items():
        *owners, last = name.split(".")
        place = manifest
        for owner in owners:
            place = place[int(owner) if owner.isdigit() else owner]
        place[last] = value
    (copy / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return copy


class _Options(ctypes.Structure):
    _fields_ = (
        ("size", c_size_t),
        ("format", c_char_p),
        ("precision", c_char_p),
        ("device", c_char_p),
        ("threads", c_int32),
        ("score", c_float),
        ("nms_iou", c_float),
    )


class CppError(Exception):
    """What a C function said: its status and its text."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{STATUS[status]}: {text}")
        self.status = STATUS[status]


class Library:
    """The built library."""

    def __init__(self, folder: Path) -> None:
        self.c = ctypes.CDLL(str(folder / "libedgecnn.so"))
        self.c.edgecnn_options_default.restype = _Options
        self.c.edgecnn_error.restype = c_char_p
        self.c.edgecnn_run.argtypes = [c_void_p, c_void_p, c_int32, c_int32, c_size_t, POINTER(c_void_p)]
        self.c.edgecnn_stage_times.argtypes = [c_void_p, *[POINTER(c_int64)] * 3]
        self.c.edgecnn_label.argtypes, self.c.edgecnn_label.restype = [c_void_p, c_size_t], c_char_p
        self.c.edgecnn_label_count.argtypes, self.c.edgecnn_label_count.restype = [c_void_p], c_size_t
        for name, kind in (
            ("task", c_int32),
            ("count", c_size_t),
            ("boxes", POINTER(c_float)),
            ("scores", POINTER(c_float)),
            ("class_ids", POINTER(c_int64)),
        ):
            function = getattr(self.c, f"edgecnn_result_{name}")
            function.argtypes, function.restype = [c_void_p], kind
        self.c.edgecnn_result_class_map.argtypes = [c_void_p, POINTER(c_int32), POINTER(c_int32)]
        self.c.edgecnn_result_class_map.restype = POINTER(c_uint8)
        self.c.edgecnn_result_free.argtypes = self.c.edgecnn_close.argtypes = [c_void_p]

    def check(self, status: int) -> None:
        if status != 0:
            raise CppError(status, self.c.edgecnn_error().decode("utf-8", "replace"))

    def open(self, bundle: Path, **options: Any) -> CppRunner:
        """A runner; options as the C structure has them."""
        given = self.c.edgecnn_options_default()
        for name, value in options.items():
            setattr(given, name, value.encode() if isinstance(value, str) else value)
        handle = c_void_p()
        self.check(self.c.edgecnn_open(os.fsencode(bundle), byref(given), byref(handle)))
        return CppRunner(self, handle)


class CppRunner:
    """An open runner, whose results are those of the Python package."""

    def __init__(self, library: Library, handle: c_void_p) -> None:
        self.shared, self.handle = library, handle
        count = library.c.edgecnn_label_count(handle)
        self.labels = tuple(library.c.edgecnn_label(handle, i).decode() for i in range(count))

    def __call__(self, picture: UInt8Array) -> Result:
        height, width, _ = picture.shape
        result, c = c_void_p(), self.shared.c
        data = picture.ctypes.data
        self.shared.check(c.edgecnn_run(self.handle, data, height, width, picture.strides[0], byref(result)))
        try:
            return self._copied(result)
        finally:
            c.edgecnn_result_free(result)

    def stage_times_ns(self) -> tuple[int, int, int]:
        """Fit, infer and finish of the last picture."""
        times = c_int64(), c_int64(), c_int64()
        self.shared.c.edgecnn_stage_times(self.handle, *map(byref, times))
        fit, infer, finish = (each.value for each in times)
        return fit, infer, finish

    def close(self) -> None:
        self.shared.c.edgecnn_close(self.handle)
        self.handle = c_void_p()

    def __enter__(self) -> CppRunner:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _copied(self, result: c_void_p) -> Result:
        c = self.shared.c
        task, count = c.edgecnn_result_task(result), c.edgecnn_result_count(result)
        if task == 2:
            height, width = c_int32(), c_int32()
            pixels = c.edgecnn_result_class_map(result, byref(height), byref(width))
            return SegmentationMap(_array(pixels, (height.value, width.value), np.uint8), self.labels)
        scores = _array(c.edgecnn_result_scores(result), (count,), np.float32)
        class_ids = _array(c.edgecnn_result_class_ids(result), (count,), np.int64)
        if task == 1:
            return Classification(class_ids, scores, self.labels)
        return Detections(
            _array(c.edgecnn_result_boxes(result), (count, 4), np.float32), scores, class_ids, self.labels
        )


def _array(pointer: Any, shape: tuple[int, ...], dtype: type) -> Any:
    return np.ctypeslib.as_array(pointer, shape).copy() if pointer else np.zeros(shape, dtype)
