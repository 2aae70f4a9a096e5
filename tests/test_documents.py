"""README and how-tos: every command in them is run, every program in them is executed as it stands.

Above each block of shell or Python stands how: `<!-- run -->` runs it here, `<!-- file: NAME -->` saves it for the
commands that follow, `<!-- run by: PATH -->` names what runs it instead. How-tos are run where a bundle, a video and
labelled pictures lie; README in a clone, where nothing lies but what is in the repository, until
`<!-- run with: NAME, NAME -->` names what its reader has fetched.
"""

from __future__ import annotations

import importlib.util
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

from edgecnn.photographs import photographs
from tests.builders.repository import REPOSITORY

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
            assert re.fullmatch(r"run|run with: [\w.]+(, [\w.]+)*|file: \S+\.py|run by: \S+", block.mark), block
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


def test_the_wheel_is_built_by_a_package_that_is_installed_first() -> None:
    for document in DOCUMENTS:
        lines = [line for block in blocks(document) for line in block.text.splitlines() if block.language == "bash"]
        for line, before in zip(lines, ["", *lines], strict=False):
            assert not line.startswith("python -m build") or before == "pip install build", document


def test_the_support_page_has_a_figure_only_where_something_ran() -> None:
    spec = importlib.util.spec_from_file_location("support_page", REPOSITORY / "docs" / "support_page.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    machine = {"cpu_model": "a chip", "cores_allowed": 2, "os": "an OS", "versions": {"torch": "2", "absent": ""}}
    ran = {"devices": {"rt:cpu": {"ran_on": "here", "agreement": 1.0}}, "max_rel_err": 2e-6, "snr_db": None}
    nearly = {**ran, "devices": {"rt:cpu": {"ran_on": "here", "agreement": 0.99999}}}
    few = {
        "devices": {"rt:cpu": {"ran_on": "here", "agreement": 0.75}},
        "max_rel_err": 0.2,
        "snr_db": {"a": 9, "b": 31},
    }
    page = module.support(
        {
            "machine": machine,
            "tasks": {"classify": "small", "detect": "other", "instances": None},
            "runtimes": {"kind": "rt"},
            "devices": [
                {"word": "rt:cpu", "why": "", "needs": ""},
                {"word": "rt:gpu", "why": "", "needs": "a GPU"},
                {"word": "else:cpu", "why": "", "needs": ""},
            ],
            "rows": [
                {"task": "classify", "format": "kind", "precision": "fp32", **ran},
                {"task": "classify", "format": "kind", "precision": "fp16", "refused": "too far|off"},
                {"task": "detect", "format": "kind", "precision": "fp32", **nearly},
                {"task": "detect", "format": "kind", "precision": "int8", **few},
            ],
        }
    )
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert rows == [
        "| `rt:cpu` | fp32 | 2.0e-06 | 2.0e-06, 99.99 % agree | not tried here |",
        "| `rt:cpu` | fp16 | refused (1) | not tried here | not tried here |",
        "| `rt:cpu` | int8 | not tried here | 9 dB, 75 % agree | not tried here |",
        "| `rt:gpu` | all | not tried here (2) | not tried here | not tried here |",
    ]
    assert "1. too far\\|off\n2. a GPU\n" in page


@pytest.mark.slow
@pytest.mark.parametrize("document", [d for d in DOCUMENTS if any(b.mark == "run" for b in blocks(d))], ids=str)
def test_commands_and_programs_run_as_they_stand(document: Path, tmp_path: Path, street: Path) -> None:
    is_readme = document.name == "README.md"
    for given in _in_a_clone() if is_readme else street.iterdir():
        (tmp_path / given.name).symlink_to(given)
    path = f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}"
    ran = 0
    for block in blocks(document):
        if block.mark.startswith("file: "):
            (tmp_path / block.mark.removeprefix("file: ")).write_text(block.text + "\n", encoding="utf-8")
        command = ["bash", "-euo", "pipefail", "-c", block.text]
        if block.mark == "file: embed.py":
            command = [sys.executable, "embed.py"]
        elif block.mark.startswith("run with: "):
            for name in block.mark.removeprefix("run with: ").split(", "):
                (tmp_path / name).symlink_to(street / name)
        elif block.mark != "run":
            continue
        done = subprocess.run(
            command, cwd=tmp_path, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{block.text}\n{done.stdout}\n{done.stderr}"
        ran += 1
    assert ran


def _in_a_clone() -> list[Path]:
    """What lies at the top of a fresh clone."""
    told = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    return [REPOSITORY / name for name in sorted({line.partition("/")[0] for line in told.splitlines()})]


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
