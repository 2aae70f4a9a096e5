"""Make the network that `edgecnn devices` tries devices with: python benchmarks/probe.py.

A few seeded convolutions in every format, a few kilobytes each, and what torch answers to a photograph that ships; and
the same with every operator quantized, for NPUs that compute in integers.
"""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import msgspec
import onnx
import torch
from torch import Tensor, nn

import edgecnn
from edgecnn.bundle import Artifact, commit, staged, store_files
from edgecnn.converters.deployable.wrapper import open_reference
from edgecnn.converters.int8.onnx.calibration import collect
from edgecnn.converters.int8.onnx.graph import Graph
from edgecnn.converters.int8.onnx.whole_graph import quantized_whole, tensors_with_ranges
from edgecnn.frame import FrameFitter
from edgecnn.photographs import photographs
from edgecnn.targets import load_target

ASSETS = Path(edgecnn.__file__).resolve().parent / "assets"
PHOTOGRAPH = "cat"
CLASSES = tuple("abcde")
TARGET = "qualcomm-htp"
FRAME = edgecnn.FrameSpec(height_px=32, width_px=32, fit="stretch", mean=(0.5,) * 3, std=(0.25,) * 3, scale=1 / 255)


class Probe(nn.Module):
    """Logits [N, 5], of three convolutions and a matrix product."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in ((3, 8), (8, 8), (8, 16)):
            convolution = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1)
            nn.init.normal_(convolution.weight, 0, math.sqrt(2 / (9 * inputs)))
            layers += [convolution, nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(16, len(CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        """Float NCHW, normalised."""
        return self.head(2 * self.body(x).mean(dim=(2, 3)))  # type: ignore[no-any-return]


def add_quantized(folder: Path) -> None:
    """Add an ONNX file whose every operator is quantized, which only Qualcomm's NPU is to open."""
    bundle = edgecnn.Bundle.open(folder)
    graph = Graph(onnx.load(bundle.folder / bundle.artifact("onnx", "fp32").path))
    fitter = FrameFitter(bundle.manifest.frame)
    frames = [fitter(picture)[0].copy() for picture in photographs().values()]
    seen = collect(graph, tensors_with_ranges(graph), frames, threads=1)
    model = quantized_whole(graph, activation_bits=16, range_of=lambda name, bits: (seen[name].low, seen[name].high))
    with staged(folder) as staging:
        file = staging / "quantized.onnx"
        file.write_bytes(model.SerializeToString())
        artifact = Artifact(
            format="onnx",
            precision="int8-a16",
            target=TARGET,
            device=load_target(TARGET).device,
            files=store_files(staging, "onnx-int8-a16", [file]),
            tool="edgecnn QDQ",
        )
        kept = [old for old in bundle.manifest.artifacts if old.key != artifact.key]
        for record in (file for old in kept for file in old.files):
            shutil.copyfile(folder / record.path, staging / record.path)
        commit(staging, folder, msgspec.structs.replace(bundle.manifest, artifacts=(*kept, artifact)))


def main() -> None:
    """Write assets/probe.edge and assets/probe.json."""
    torch.manual_seed(6)
    model = edgecnn.TrainedModel(
        name="probe",
        module=Probe().eval(),
        frame=FRAME,
        task=edgecnn.Classify(labels=CLASSES, top=len(CLASSES)),
    )
    folder = ASSETS / "probe.edge"
    shutil.rmtree(folder, ignore_errors=True)
    made = edgecnn.convert(model, out=folder, precision=("fp32",))
    assert not made.refused, made.refused
    add_quantized(folder)
    with open_reference(model) as runner:
        answer = runner(photographs()[PHOTOGRAPH])
    assert isinstance(answer, edgecnn.Classification)
    by_class = dict(zip(answer.class_ids.tolist(), answer.scores.tolist(), strict=True))
    scores = [round(by_class[index], 6) for index in range(len(CLASSES))]
    (ASSETS / "probe.json").write_text(json.dumps({"photograph": PHOTOGRAPH, "scores": scores}) + "\n")
    print(f"{folder}: {sum(file.stat().st_size for file in folder.iterdir())} bytes; {scores}")


if __name__ == "__main__":
    main()
