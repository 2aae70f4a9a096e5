"""Bundles whose networks answer what none should: ties, NaN, infinities, boxes that are none."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.builders.cpp_runner import PROBE, copied

SIDE_PX = 32  # of the probe's frame
_LABELS = ["a", "b", "c"]
_ODD = np.array([np.nan, np.inf, -np.inf, 3e38, -3e38, 0.0, -0.0, 1e-45, 0.5, 1.0], np.float32)


def strange_bundles(folder: Path) -> dict[str, Path]:
    """One for each kind, in OpenVINO's format: the answer is the same whatever the picture."""
    rng = np.random.default_rng(7)
    logits = rng.choice(_ODD, (1, 3, SIDE_PX, SIDE_PX))
    made = {}
    for name, boxes, scores in _detections(rng):
        for multi in (False, True):
            task = {"kind": "detect", "labels": _LABELS, "score_threshold": 0.25, "nms_iou": 0.5, "multi_label": multi}
            outputs = {"boxes": boxes, "scores": scores}
            made[f"{name}{', several labels' if multi else ''}"] = bundle_of(folder, task, outputs)
    made["odd scores"] = bundle_of(
        folder, {"kind": "classify", "labels": list("abcdefghij"), "top": 7}, {"scores": _ODD[None]}
    )
    made["odd logits"] = bundle_of(
        folder, {"kind": "segment", "labels": _LABELS, "decided_in": "finish"}, {"logits": logits}
    )
    classes = rng.integers(0, 256, (1, SIDE_PX, SIDE_PX), np.uint8)
    made["classes without labels"] = bundle_of(folder, {"kind": "segment", "labels": _LABELS}, {"classes": classes})
    return made


def _detections(rng: np.random.Generator) -> list[tuple[str, NDArray[Any], NDArray[Any]]]:
    """Boxes [1, n, 4] and scores [1, n, 3], by name."""
    corners = rng.uniform(-8, 40, (1, 3000, 4)).astype(np.float32)
    levels = rng.integers(0, 8, (1, 3000, 3)).astype(np.float32) / 7
    odd_boxes, odd_scores = rng.choice(_ODD, (1, 400, 4)), rng.choice(_ODD, (1, 3000, 3))
    equal = np.full((1, 1500, 3), 0.5, np.float32)
    return [
        ("boxes of both orientations", corners, levels),
        ("odd scores of boxes", corners, odd_scores),
        ("odd boxes", odd_boxes, levels[:, :400]),
        ("equal scores", corners[:, :1500], equal),
        ("one box again and again", np.tile(np.array([4, 4, 20, 20], np.float32), (1, 1500, 1)), equal),
    ]


def bundle_of(folder: Path, task: dict[str, Any], outputs: dict[str, NDArray[Any]]) -> Path:
    """A bundle whose network answers these."""
    import openvino as ov
    from openvino import opset13

    frame = opset13.parameter([1, SIDE_PX, SIDE_PX, 3], np.uint8, name="frame")
    frame.output(0).get_tensor().set_names({"frame"})
    results = []
    for name, values in outputs.items():
        constant = opset13.constant(np.ascontiguousarray(values))
        constant.output(0).get_tensor().set_names({name})
        results.append(opset13.result(constant))
    described = [
        {"name": name, "dtype": str(values.dtype), "shape": list(values.shape)} for name, values in outputs.items()
    ]
    bundle = copied(PROBE, folder, task=task, outputs=described)
    ov.save_model(ov.Model(results, [frame]), str(bundle / _files(bundle)[0]), compress_to_fp16=False)
    list_again(bundle)
    return bundle


def list_again(bundle: Path) -> None:
    """The manifest with the hashes and sizes that the files of its first artifact, OpenVINO's, have now."""
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    for record in manifest["artifacts"][0]["files"]:
        data = (bundle / record["path"]).read_bytes()
        record |= {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    path.write_text(json.dumps(manifest), encoding="utf-8")


def _files(bundle: Path) -> list[str]:
    manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    return [record["path"] for record in manifest["artifacts"][0]["files"]]
