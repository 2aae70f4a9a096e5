"""One package that adds a source, a task, a format, a camera and a sink, installed with pip: in every verb and --help.

It is made of the how-tos' own files. Its task has tests of its own in tests/tasks/test_task_from_outside.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgecnn.cli._verb import VERBS
from edgecnn.photographs import photographs
from tests.builders.formats import require_format
from tests.builders.plug_in import Session, edgecnn_beside

pytestmark = pytest.mark.torch

COLUMNS = 80
NAMED_IN_HELP = {
    "convert": ("toy:WIDTH", "crowd", "program"),
    "eval": ("crowd", "program"),
    "bench": ("program",),
    "run": ("drawn:COUNT", "tally", "program"),
    "train": ("toy:WIDTH", "crowd"),
    "prune": ("toy:WIDTH", "crowd"),
    "data": ("crowd",),
}


@pytest.fixture(scope="module")
def session(toys: Path) -> Iterator[Session]:
    """One program for the commands of this file."""
    with Session(toys, columns=COLUMNS) as session:
        yield session


@pytest.fixture(scope="module")
def work(session: Session, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package's network in the package's format, and in ONNX; and pictures of two classes."""
    pytest.importorskip("torch", reason="needs torch: pip install 'edgecnn[convert]'")
    require_format("onnx")
    folder = tmp_path_factory.mktemp("work")
    for part, flip in (("train", 1), ("val", 0)):
        for index, picture in enumerate(photographs().values()):
            place = folder / "pictures" / part / ("cat", "dog")[index % 2]
            place.mkdir(parents=True, exist_ok=True)
            small = cv2.resize(np.ascontiguousarray(picture[:, :: -1 if flip else 1]), (64, 48))
            cv2.imwrite(str(place / f"{part}-{index}.png"), small)
    session.edgecnn("convert", "toy:8", "--to", "program,onnx", "--out", "toy.edge", cwd=folder)
    return folder


@pytest.fixture
def edgecnn(session: Session, work: Path) -> Any:
    """Runs a command there; gives all that it says on one line, or its JSON. It is plain, and its tables fit."""

    def run(*words: str, code: int = 0) -> str:
        done = session.edgecnn(*words, cwd=work, code=code)
        assert "\x1b" not in done.stdout + done.stderr
        rules = [line for line in done.stdout.splitlines() if line.startswith("--") and set(line) <= {"-", " "}]
        assert max(map(len, rules), default=0) <= COLUMNS, done.stdout
        return " ".join((done.stdout if "--json" in words else done.stdout + done.stderr).split())

    return run


def test_inspect_tells_its_artifact_in_a_program_of_its_own(toys: Path, work: Path) -> None:
    done = edgecnn_beside(toys, "inspect", "toy.edge", cwd=work, columns=COLUMNS)
    said = " ".join(done.stdout.split())
    assert "program fp32" in said
    assert "network toy:8 task" in said


def test_run_takes_its_format_camera_and_sink_in_a_program_of_its_own(toys: Path, work: Path) -> None:
    words = ("--format", "program", "--camera", "drawn:5", "--sink", "tally=counts.txt")
    edgecnn_beside(toys, "run", "toy.edge", *words, cwd=work)
    assert (work / "counts.txt").read_text() == "drawn 5: 5\n"


def test_eval_measures_its_format_and_its_network_alike(edgecnn: Any) -> None:
    rows = json.loads(edgecnn("eval", "toy.edge", "--data", "pictures", "--all", "--json"))
    assert {row["format"] for row in rows} == {"program", "onnx"}
    torch = json.loads(edgecnn("eval", "toy:8", "--data", "pictures", "--json"))
    assert {row["value"] for row in rows} == {torch["value"]}


def test_bench_measures_it_and_says_that_it_cannot_tell_layers(edgecnn: Any) -> None:
    words = ("--format", "program", "--iterations", "2", "--layers", "--no-record", "--json")
    (row,) = json.loads(edgecnn("bench", "toy.edge", *words))
    assert (row["format"], row["n"], row["error"]) == ("program", 2, None)
    said = edgecnn("bench", "toy.edge", *words[:-1])
    assert "no layers of program fp32" in said and "no layer timer" in said


def test_devices_finds_its_device_and_its_camera(edgecnn: Any) -> None:
    report = json.loads(edgecnn("devices", "torch-export:cpu", "--json", code=3))  # nothing was proved
    (trial,) = report["trials"]
    assert (trial["word"], trial["works"]) == ("torch-export:cpu", None)
    assert "its format" in trial["why"]
    assert "drawn:COUNT" in {camera["source"] for camera in report["cameras"]}


def test_int8_in_its_format_is_refused_for_want_of_a_writer(edgecnn: Any) -> None:
    pictures = ("--calibration", "pictures/train")
    measured = ("eval", "toy.edge", "--data", "pictures", "--format", "program", "--precision", "int8")
    for words in (("quantize", "toy.edge", "--to", "program", *pictures, "--out", "q.edge"), measured):
        said = edgecnn(*words, code=2)
        assert "program" in said and "Traceback" not in said
    converted = ("convert", "toy:8", "--to", "program", "--precision", "int8", *pictures, "--out", "p.edge")
    assert "program int8: ConversionError" in edgecnn(*converted, code=1)


def test_quantize_leaves_it_out_and_writes_the_other(edgecnn: Any) -> None:
    edgecnn("quantize", "toy.edge", "--calibration", "pictures/train", "--keep-slower", "--out", "int8.edge")
    said = edgecnn("inspect", "int8.edge")
    assert "onnx int8" in said and "program fp32" in said and "program int8" not in said


def test_data_looks_with_its_task(edgecnn: Any, work: Path) -> None:
    boxes = work / "boxes"
    for name in ("images", "labels"):
        (boxes / name).mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(boxes / "images" / "a.png"), np.zeros((48, 64, 3), np.uint8))
    (boxes / "labels" / "a.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (boxes / "classes.txt").write_text("cat\ndog\n")
    assert "labels for: crowd" in edgecnn("data", "boxes", "--task", "crowd")


def test_its_network_is_trained_and_pruned_and_both_are_converted(edgecnn: Any) -> None:
    pytest.importorskip("lightning", reason="needs the extra [train]")
    edgecnn("train", "toy:8", "--data", "pictures", "--epochs", "1", "--out", "trained.model")
    edgecnn("prune", "toy:16", "--macs", "0.6", "--out", "pruned.model")
    for name in ("trained", "pruned"):
        edgecnn("convert", f"{name}.model", "--to", "program", "--out", f"{name}.edge")
        assert "program fp32" in edgecnn("inspect", f"{name}.edge")


@pytest.mark.parametrize("verb", VERBS)
def test_help_names_what_the_verb_takes(edgecnn: Any, verb: str) -> None:
    said = edgecnn(verb, "--help")
    assert [word for word in NAMED_IN_HELP.get(verb, ()) if word not in said] == []
