"""A task of another package, as the how-to has it, through the program: installed, converted, measured, run."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgecnn.bundle import Bundle
from edgecnn.errors import UnknownTaskError
from tests.builders.formats import require_format
from tests.builders.plug_in import Session, edgecnn_beside, file_in

pytestmark = pytest.mark.torch


@dataclass(frozen=True)
class World:
    """A working folder, and an environment in which the package is installed (or is not)."""

    folder: Path
    session: Session

    def edgecnn(self, *words: str, installed: bool = True, code: int = 0) -> subprocess.CompletedProcess[str]:
        if installed:
            return self.session.edgecnn(*words, cwd=self.folder, code=code)
        return edgecnn_beside(None, *words, cwd=self.folder, code=code)


@pytest.fixture(scope="module")
def world(toys: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The how-to's task is installed; beside it, its network and labelled pictures."""
    require_format("onnx")
    folder = tmp_path_factory.mktemp("crowd")
    (folder / "crowd_network.py").write_text(file_in("add-a-task.md", "crowd_network.py"), encoding="utf-8")
    rng = np.random.default_rng(0)
    images, labels = folder / "labelled" / "images", folder / "labelled" / "labels"
    for place in (images, labels):
        place.mkdir(parents=True)
    for index in range(3):
        cv2.imwrite(str(images / f"{index}.png"), rng.integers(0, 255, (48, 64, 3), np.uint8))
        (labels / f"{index}.txt").write_text("0 0.5 0.5 0.2 0.2\n" * index, encoding="utf-8")
    (folder / "labelled" / "classes.txt").write_text("cat\ndog\n", encoding="utf-8")
    (folder / "picture.png").write_bytes((images / "0.png").read_bytes())
    with Session(toys) as session:
        made = World(folder, session)
        made.edgecnn("convert", "crowd_network:crowd", "--to", "onnx", "--out", "crowd.edge")
        yield made


def test_it_passes_the_gate_and_its_bundle_names_its_package(world: World) -> None:
    manifest = json.loads((world.folder / "crowd.edge" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["task"] == {"kind": "crowd", "labels": ["cat", "dog"]}
    assert [output["name"] for output in manifest["outputs"]] == ["density"]
    assert manifest["artifacts"][0]["evidence"]["parity"]["ok"]
    assert manifest["source"]["versions"]["edgecnn-toys"] == "1.0"


def test_it_is_measured(world: World) -> None:
    measured = json.loads(world.edgecnn("eval", "crowd.edge", "--data", "labelled", "--json").stdout)
    measured = measured[0] if isinstance(measured, list) else measured
    assert measured["metric"] == "counted"
    assert 0 < measured["value"] <= 1
    assert measured["n"] == 3
    lines = world.edgecnn("eval", "crowd.edge", "--data", "labelled").stdout.splitlines()
    assert any("counted" in line for line in lines)
    assert "classes" not in lines  # no table of nothing: this metric has no figure of one class


def test_its_results_go_to_sinks_of_files(world: World) -> None:
    done = world.edgecnn("run", "crowd.edge", "picture.png", "--jsonl", "-", "--record", "seen")
    record = json.loads(done.stdout.splitlines()[0])
    assert record["task"] == "crowd"
    assert set(record["crowd"]) == {"cat", "dog"}
    words = world.edgecnn("run", "crowd.edge", "picture.png").stdout
    assert re.search(r"picture\.png: \d+ (cat|dog)", words)


def test_it_is_inspected_and_named_in_help(world: World) -> None:
    assert "crowd: cat, dog" in world.edgecnn("inspect", "crowd.edge").stdout
    assert "crowd" in world.edgecnn("convert", "--help").stdout
    assert "crowd" not in world.edgecnn("convert", "--help", installed=False).stdout


def test_it_has_no_threshold(world: World) -> None:
    failed = world.edgecnn("run", "crowd.edge", "picture.png", "--score", "0.5", code=2)
    assert "the task crowd has no such threshold" in failed.stderr


def test_where_the_package_is_missing_it_is_named(world: World) -> None:
    failed = world.edgecnn("inspect", "crowd.edge", installed=False, code=2)
    printed = " ".join(failed.stderr.split())
    assert "'crowd' is not known here" in printed
    assert "edgecnn-toys 1.0, not installed here" in printed
    with pytest.raises(UnknownTaskError, match="edgecnn-toys"):
        Bundle.open(world.folder / "crowd.edge")
