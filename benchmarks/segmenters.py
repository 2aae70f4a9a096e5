"""Would another segmenter be a better default? python benchmarks/segmenters.py

DeepLabv3 with MobileNetV2, trained for uint8 (a TFLite file, Apache-2.0), beside the segmenter that ships: mean IoU on
`coco128/val`, pixels without a label left out, and the time of an inference in LiteRT, in turns, one thread. Writes
`results/segmenters.json`.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from ai_edge_litert.interpreter import Interpreter

import edgecnn
from edgecnn.processor import processor_name

HERE = Path(__file__).resolve().parent
SHARED = HERE.parents[1] / "shared"
RESULTS = HERE / "results" / "segmenters.json"
DEEPLAB = SHARED / "models" / "deeplabv3-mnv2" / "deeplabv3_mnv2_pascal_quant.tflite"
VAL = SHARED / "data" / "coco128" / "val"
CLASSES = 21
WARM_UP, ROUNDS, EACH = 3, 8, 5


class Network:
    """A TFLite file with one uint8 picture as its input."""

    def __init__(self, path: Path, *, rgb: bool) -> None:
        self.path, self.rgb = path, rgb
        self.interpreter = Interpreter(model_path=str(path), num_threads=1)
        self.interpreter.allocate_tensors()
        self.given = self.interpreter.get_input_details()[0]
        self.answered = self.interpreter.get_output_details()[0]

    def __call__(self, frame: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """The answer to a uint8 frame [1, H, W, 3]."""
        self.interpreter.set_tensor(self.given["index"], frame)
        self.interpreter.invoke()
        answer: np.ndarray[Any, Any] = self.interpreter.get_tensor(self.answered["index"])
        return answer

    def times_ms(self) -> list[float]:
        """Of a few inferences."""
        frame = np.zeros(self.given["shape"], np.uint8)
        times = []
        for _ in range(EACH):
            start = time.perf_counter_ns()
            self(frame)
            times.append((time.perf_counter_ns() - start) / 1e6)
        return times


def mean_iou(network: Network) -> tuple[float, int]:
    """Over the classes that occur in the labels; and the number of pictures."""
    height, width = network.given["shape"][1:3]
    counts = np.zeros((CLASSES, CLASSES), np.int64)
    masks = sorted((VAL / "masks_voc21").glob("*.png"))
    for path in masks:
        truth = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        picture = cv2.imread(str(VAL / "images" / f"{path.stem}.jpg"))
        assert truth is not None and picture is not None
        frame = cv2.resize(picture, (int(width), int(height)))
        frame = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB) if network.rgb else frame
        answer = network(np.ascontiguousarray(frame[None]))[0]
        classes = answer if answer.ndim == 2 else answer.argmax(axis=-1 if answer.shape[-1] == CLASSES else 0)
        fitted = cv2.resize(classes.astype(np.uint8), truth.shape[::-1], interpolation=cv2.INTER_NEAREST)
        known = (truth > 0) & (truth < CLASSES)
        np.add.at(counts, (truth[known].astype(np.intp), fitted[known].astype(np.intp)), 1)
    hits, union = np.diag(counts), counts.sum(0) + counts.sum(1) - np.diag(counts)
    there = counts.sum(1) > 0
    return round(float((hits[there] / union[there]).mean()), 4), len(masks)


def shipped_files() -> dict[str, Path]:
    """The TFLite artifacts of the segmenter that ships, by precision."""
    bundle = edgecnn.Bundle.open("default-segmenter")
    return {a.precision: bundle.folder / a.path for a in bundle.manifest.artifacts if a.format == "tflite"}


def main() -> None:
    """Measure and write."""
    networks = {f"default-segmenter {name}": Network(path, rgb=False) for name, path in shipped_files().items()}
    networks["deeplabv3-mnv2 uint8"] = Network(DEEPLAB, rgb=True)
    times: dict[str, list[float]] = {name: [] for name in networks}
    for turn in range(WARM_UP + ROUNDS):
        for name, network in networks.items():
            measured = network.times_ms()
            times[name] += measured if turn >= WARM_UP else []
    rows: dict[str, Any] = {}
    for name, network in networks.items():
        rows[name] = {
            "p50_ms": round(float(np.median(times[name])), 2),
            "file_bytes": network.path.stat().st_size,
            "frame": [int(side) for side in network.given["shape"][1:3]],
        }
        rows[name]["miou"], rows[name]["n"] = mean_iou(network)
    RESULTS.write_text(json.dumps({"machine": processor_name(), "threads": 1, "networks": rows}, indent=1) + "\n")
    print(RESULTS.read_text())


if __name__ == "__main__":
    main()
