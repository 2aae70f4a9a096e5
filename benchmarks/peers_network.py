"""Makes the network that the peers are compared on; runs in the environment of Ultralytics, which it needs.

    python peers_network.py PICTURES.npz FOLDER

YOLOv8n with random weights, its batch-norm statistics taken from the pictures and its class biases set so that a
plausible number of boxes passes the threshold. FOLDER then holds Ultralytics' own exports, and the same network as an
exported program (.pt2) in the form that `edgecnn convert` takes.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from ultralytics import YOLO

SIZE_PX = 640
PASSING = 40  # anchors of a picture whose best class passes
THRESHOLD = 0.3


class BoxesAndScores(nn.Module):
    """The network with its answer as `edgecnn` wants it: corners of boxes, and scores, as two tensors."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes [batch, N, 4] xyxy in pixels, scores [batch, N, C] in 0..1."""
        raw = self.network(x)
        raw = raw[0] if isinstance(raw, list | tuple) else raw
        rows = raw.transpose(1, 2)  # [batch, N, x y width height and C scores]
        centres, halves = rows[..., :2], rows[..., 2:4] / 2
        return torch.cat((centres - halves, centres + halves), -1), rows[..., 4:]


def letterboxed(pictures: list[np.ndarray]) -> Tensor:
    """The pictures as the network eats them, roughly: what statistics are taken from."""
    import cv2

    batch = np.full((len(pictures), SIZE_PX, SIZE_PX, 3), 114, np.uint8)
    for frame, picture in zip(batch, pictures, strict=True):
        height = picture.shape[0] * SIZE_PX // picture.shape[1]
        top = (SIZE_PX - height) // 2
        frame[top : top + height] = cv2.resize(picture, (SIZE_PX, height))
    return torch.from_numpy(batch[..., ::-1].copy()).permute(0, 3, 1, 2).float() / 255


def make_network(pictures: list[np.ndarray]) -> Any:
    """A YOLO whose answers differ from picture to picture, and are of a plausible number."""
    torch.manual_seed(0)
    yolo = YOLO("yolov8n.yaml")
    network = yolo.model
    batch = letterboxed(pictures)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.reset_running_stats()
            layer.momentum = None  # the average of all that it sees
    head = network.model[-1]
    with torch.no_grad():
        for branch in head.cv3:
            nn.init.normal_(branch[-1].weight, std=0.05)
            nn.init.zeros_(branch[-1].bias)
        network.train()(batch)
        network.eval()
        scores = BoxesAndScores(network)(batch)[1].amax(-1).logit()
        passing = scores.topk(PASSING, dim=1).values[:, -1].mean()
        for branch in head.cv3:
            branch[-1].bias += torch.tensor(THRESHOLD).logit() - passing
    return yolo


def main() -> None:
    """Make, export, say where things are."""
    pictures_file, folder = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    with np.load(pictures_file) as file:
        pictures = [file[name] for name in file.files]
    os.chdir(folder)
    yolo = make_network(pictures)
    yolo.save("yolov8n-random.pt")
    yolo = YOLO("yolov8n-random.pt")
    network = yolo.model.eval()
    for kind in ("onnx", "openvino"):
        yolo.export(format=kind, imgsz=SIZE_PX)
    exported = YOLO("yolov8n-random.pt").model.fuse().eval()
    program = torch.export.export(BoxesAndScores(exported), (torch.zeros(1, 3, SIZE_PX, SIZE_PX),), strict=False)
    torch.export.save(program, "yolov8n-random.pt2")
    Path("labels.txt").write_text("\n".join(str(name) for name in network.names.values()) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
