"""One side of the comparison, in a process of its own: python peers_child.py SIDE FORMAT PICTURES.npz FOLDER.

It runs in whatever environment its side needs, so it imports that alone. It obeys one JSON line on stdin with one on
stdout, and waits in between:

  {"calls": 8, "blocks": 4}     blocks of whole calls (a 1080p picture in, boxes out) and of bare inferences take turns;
                                answered with each call's nanoseconds

"outside" is the same calls without the time that they spend in the runtime's own call, where the peer calls it with a
ready tensor (Model API has its pre-processing compiled into the graph, so there it says nothing).

The bare loop is the shortest program that runs the same file: a ready tensor goes in, all outputs can be read.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

SIZE_PX = 640
THRESHOLD, NMS_IOU = 0.3, 0.5
Call = Callable[[Any], Any]


class Inside:
    """Counts the time that is spent in a runtime's call."""

    def __init__(self) -> None:
        self.ns = 0

    def timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same call, counted."""

        def run(*given: Any, **named: Any) -> Any:
            start = time.perf_counter_ns()
            try:
                return call(*given, **named)
            finally:
                self.ns += time.perf_counter_ns() - start

        return run


class Proxy:
    """An object of which some calls are counted."""

    def __init__(self, inner: Any, **counted: Callable[..., Any]) -> None:
        self._inner = inner
        self.__dict__.update(counted)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def __call__(self, *given: Any, **named: Any) -> Any:
        """Of a compiled model of OpenVINO."""
        return self.__dict__["call"](*given, **named)


def tensor(seed: int = 0) -> Any:
    """A ready input as the exports of Ultralytics take it: float32 [1, 3, size, size]."""
    return np.random.default_rng(seed).random((1, 3, SIZE_PX, SIZE_PX), np.float32)


def bare_openvino(compiled: Any) -> Call:
    """A loop over one request, without copies."""
    request = compiled.create_infer_request()
    return lambda ready: request.infer(ready, share_inputs=True, share_outputs=True)


def bare_onnxruntime(session: Any) -> Call:
    """A loop over one session."""
    name = session.get_inputs()[0].name
    return lambda ready: session.run(None, {name: ready})


def open_edgecnn(kind: str, folder: Path, inside: Inside) -> tuple[Call, Call, Any, str]:
    """Whole call, bare call, what the bare call takes, what ran."""
    import edgecnn
    from benchmarks.overhead import bare_call

    runner = edgecnn.open_runner(folder / "ours.edge", format=kind, score=THRESHOLD, nms_iou=NMS_IOU)
    frame = np.random.default_rng(0).integers(0, 255, (1, SIZE_PX, SIZE_PX, 3), np.uint8)
    used = runner.backend.opened

    def whole(picture: Any) -> int:
        found = runner(picture)
        inside.ns += runner.stage_times.infer_ns
        assert isinstance(found, edgecnn.Detections)
        return len(found)

    return whole, bare_call(runner.backend), frame, f"{used.runtime}"


def open_ultralytics(kind: str, folder: Path, inside: Inside) -> tuple[Call, Call, Any, str]:
    """`YOLO(export).predict`, and the session that it has open."""
    import ultralytics
    from ultralytics import YOLO

    name = {"onnx": "yolov8n-random.onnx", "openvino": "yolov8n-random_openvino_model"}[kind]
    yolo = YOLO(str(folder / name), task="detect")

    def whole(picture: Any) -> int:
        found = yolo.predict(
            picture, imgsz=SIZE_PX, conf=THRESHOLD, iou=NMS_IOU, device="cpu", verbose=False, save=False
        )
        return len(found[0].boxes)

    whole(np.zeros((1080, 1920, 3), np.uint8))
    backend = yolo.predictor.model.backend
    if kind == "onnx":
        session = backend.session
        bare = bare_onnxruntime(session)
        counted = {name: inside.timed(getattr(session, name)) for name in ("run", "run_with_iobinding")}
        backend.session = Proxy(session, **counted)
    else:
        compiled = backend.ov_compiled_model
        bare = bare_openvino(compiled)
        backend.ov_compiled_model = Proxy(compiled, call=inside.timed(compiled))
    return whole, bare, tensor(), f"ultralytics {ultralytics.__version__}"


def open_model_api(kind: str, folder: Path, inside: Inside) -> tuple[Call, Call, Any, str]:
    """Its `YOLOv8` wrapper over the export of Ultralytics; the bare loop compiles that file alike."""
    from importlib.metadata import version

    import openvino
    from model_api.models import Model

    configuration = {
        "labels": (folder / "labels.txt").read_text(encoding="utf-8").split("\n")[:-1],
        "confidence_threshold": THRESHOLD,
        "iou_threshold": NMS_IOU,
    }
    path = str(folder / "yolov8n-random_openvino_model" / "yolov8n-random.xml")
    model = Model.create_model(path, model_type="YOLOv8", configuration=configuration, device="CPU")
    # its pre-processing is part of what it compiled, so the bare file is compiled once more, with its settings
    bare = bare_openvino(openvino.Core().compile_model(path, "CPU", {"NUM_STREAMS": "1"}))
    return (lambda picture: len(model(picture).bboxes)), bare, tensor(), f"model-api {version('openvino-model-api')}"


SIDES = {"edgecnn": open_edgecnn, "ultralytics": open_ultralytics, "model-api": open_model_api}


def main() -> None:
    """Obey stdin until it ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")  # what libraries print must not come between
    os.dup2(2, 1)
    side, kind = sys.argv[1:3]
    with np.load(sys.argv[3]) as file:
        pictures = [file[name] for name in file.files]
    inside = Inside()
    whole, bare, ready, version = SIDES[side](kind, Path(sys.argv[4]), inside)
    found = [whole(picture) for picture in pictures]
    around = cycle(pictures)
    outside: list[int] = []

    def block(count: int, call: Call, take: Callable[[], Any]) -> list[int]:
        times = []
        for _ in range(count):
            given = take()
            inside.ns = 0
            start = time.perf_counter_ns()
            call(given)
            times.append(time.perf_counter_ns() - start)
            if call is whole and inside.ns:
                outside.append(times[-1] - inside.ns)
        return times

    def send(answer: dict[str, Any]) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    send({"version": version, "boxes": found})
    for line in sys.stdin:
        asked = json.loads(line)
        block(2, whole, lambda: next(around))
        outside.clear()
        samples: dict[str, list[int]] = {"whole": [], "bare": []}
        for turn in range(asked["blocks"]):
            for name in ("whole", "bare") if turn % 2 == 0 else ("bare", "whole"):
                call, take = (whole, lambda: next(around)) if name == "whole" else (bare, lambda: ready)
                samples[name] += block(asked["calls"], call, take)
        send({**samples, "outside": outside})


if __name__ == "__main__":
    main()
