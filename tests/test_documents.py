"""README and how-tos: every command in them is run, every program in them is executed as it stands.

Above each block of shell or Python stands how: `<!-- run -->` runs it here, `<!-- file: NAME -->` saves it for the
commands that follow, `<!-- run by: PATH -->` names what runs it instead.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgecnn._photographs import photographs

REPOSITORY = Path(__file__).resolve().parents[1]
DOCUMENTS = [
    Path("README.md"),
    Path("CONTRIBUTING.md"),
    *(p.relative_to(REPOSITORY) for p in sorted(REPOSITORY.glob("docs/how-to/*.md"))),
]
_BLOCK = re.compile(r"(?:<!-- (?P<mark>[^\n]*?) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)\n```", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """One fenced block, and what stands above it."""

    mark: str
    language: str
    text: str


def blocks(document: Path) -> list[Block]:
    text = (REPOSITORY / document).read_text(encoding="utf-8")
    return [Block(m["mark"] or "", m["language"], m["text"]) for m in _BLOCK.finditer(text)]


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_every_command_and_program_says_what_runs_it(document: Path) -> None:
    for block in blocks(document):
        if block.language in ("bash", "python"):
            assert re.fullmatch(r"run|file: \S+\.py|run by: \S+", block.mark), block
        if by := block.mark.removeprefix("run by: ") if block.mark.startswith("run by: ") else "":
            assert (REPOSITORY / by).is_file(), by


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_every_link_leads_to_a_file(document: Path) -> None:
    text = (REPOSITORY / document).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link]
    assert [link for link in links if not (REPOSITORY / document.parent / link).exists()] == []


def test_ci_runs_the_make_targets_that_documents_name() -> None:
    ci = (REPOSITORY / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    for document in DOCUMENTS:
        for block in blocks(document):
            if block.mark == "run by: .ci/run":
                assert [line for line in block.text.splitlines() if line.partition("#")[0].strip() not in ci] == []


@pytest.mark.slow
@pytest.mark.parametrize("document", [d for d in DOCUMENTS if any(b.mark == "run" for b in blocks(d))], ids=str)
def test_commands_and_programs_run_as_they_stand(document: Path, tmp_path: Path, street: Path) -> None:
    for given in street.iterdir():
        (tmp_path / given.name).symlink_to(given)
    if document.name == "README.md":  # it makes the bundle itself
        (tmp_path / "street.edge").unlink()
    path = f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}"
    ran = 0
    for block in blocks(document):
        if block.mark.startswith("file: "):
            (tmp_path / block.mark.removeprefix("file: ")).write_text(block.text + "\n", encoding="utf-8")
        command = ["bash", "-euo", "pipefail", "-c", block.text]
        if block.mark == "file: embed.py":
            command = [sys.executable, "embed.py"]
        elif block.mark != "run":
            continue
        done = subprocess.run(
            command, cwd=tmp_path, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{block.text}\n{done.stdout}\n{done.stderr}"
        ran += 1
    assert ran


@pytest.fixture(scope="session")
def street(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the documents' reader has at hand: weights of a detector, a bundle of it, pictures, a video, labels.

    The weights are random: they show that the commands run.
    """
    import torch
    from torch import nn

    import edgecnn
    from edgecnn.frame import FrameFitter

    folder = tmp_path_factory.mktemp("street")
    pictures = list(photographs().values())
    torch.manual_seed(0)
    trained = edgecnn.load_model("yolox-nano")
    fitter = FrameFitter(trained.frame)
    frames = np.concatenate([fitter(picture)[0].copy() for picture in pictures])
    for layer in trained.module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None  # the average of all frames
        elif isinstance(layer, nn.Conv2d) and layer.bias is not None:  # the predictions: sure that nothing is there
            nn.init.constant_(layer.bias, -5.0)
            nn.init.normal_(layer.weight, std=1e-3)
    with torch.no_grad():
        rgb = torch.from_numpy(frames).permute(0, 3, 1, 2).flip(1) * trained.frame.scale
        mean, std = (torch.tensor(values)[:, None, None] for values in (trained.frame.mean, trained.frame.std))
        trained.module.train()((rgb - mean) / std)
    torch.save(trained.module.state_dict(), folder / "yolox_nano.pth")
    conversion = edgecnn.convert(
        "yolox-nano", weights=folder / "yolox_nano.pth", to=("onnx", "openvino"), out=folder / "street.edge"
    )
    assert conversion.refused == ()
    cv2.imwrite(str(folder / "street.jpg"), pictures[0])
    writer = cv2.VideoWriter(str(folder / "street.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (320, 240))
    assert writer.isOpened()
    for index in range(20):
        writer.write(cv2.resize(np.roll(pictures[index % 4], 4 * index, axis=1), (320, 240)))
    writer.release()
    _write_coco(folder / "train", [np.ascontiguousarray(picture[:, ::-1]) for picture in pictures])
    _write_coco(folder / "val", pictures)
    return folder


def _write_coco(folder: Path, pictures: list[np.ndarray]) -> None:
    folder.mkdir()
    images, annotations = [], []
    for index, picture in enumerate(pictures):
        cv2.imwrite(str(folder / f"{index}.jpg"), picture)
        height, width = picture.shape[:2]
        images.append({"id": index, "file_name": f"{index}.jpg", "height": height, "width": width})
        box = {"bbox": [width // 4, height // 4, width // 2, height // 2], "area": width * height // 4, "iscrowd": 0}
        annotations.append({"id": index + 1, "image_id": index, "category_id": 1, **box})
    categories = [{"id": 1, "name": "person"}]
    document = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations.json").write_text(json.dumps(document))
