"""The user's own code runs at the user's own word, and its folder serves nobody else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.builders.repository import REPOSITORY

pytest.importorskip("torch")

import edgecnn
from edgecnn._verbs.compress import compress
from edgecnn.errors import SourceError
from edgecnn.sources import own_code
from edgecnn.sources.own_code import allow, check_allowed, names_code

pytestmark = pytest.mark.torch

FACTORY = """
from torch import nn
def net():
    return nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
"""


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_code, "_allowed", set())


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith("own_"):
            del sys.modules[name]


OPTIONS: dict[str, Any] = {"task": "classify", "size": (16, 16), "labels": ("a", "b")}


@pytest.mark.parametrize("name", ["a:b", "package.module:factory", "os:system", "größe:netz"])
def test_names_of_code(name: str) -> None:
    assert names_code(name)
    with pytest.raises(SourceError, match="--factory"):
        check_allowed(name, by="a file")
    allow(name)
    check_allowed(name, by="a file")


@pytest.mark.parametrize(
    "name", ["yolox-nano", "torchvision:resnet18", "net.model", "a/b:c", "net.pt2", "a b:c", ":", ""]
)
def test_names_of_no_code(name: str) -> None:
    assert not names_code(name)


# ---------------------------------------------------------------------------- saved networks
@pytest.fixture
def saved(here: Path) -> Path:
    """A network that was trained from the user's own factory, in another process."""
    from edgecnn.sources.saved import save

    (here / "own_net.py").write_text(FACTORY)
    folder = save(edgecnn.load_model("own_net:net", **OPTIONS), here / "net.model")
    own_code._allowed.clear()
    return folder


def edited(folder: Path, **changes: Any) -> None:
    file = folder / "model.json"
    description = json.loads(file.read_text())
    for place, value in changes.items():
        *way, last = place.split("__")
        part = description
        for name in way:
            part = part[name]
        part[last] = value
    file.write_text(json.dumps(description))


def test_a_saved_network_of_ones_own_opens_at_ones_word(saved: Path) -> None:
    with pytest.raises(SourceError, match=r"net\.model names code, own_net:net.*--factory own_net:net"):
        edgecnn.load_model(saved)
    assert edgecnn.load_model(saved, factory="own_net:net").task.labels == ("a", "b")
    assert edgecnn.load_model(saved).task.labels == ("a", "b"), "said once is said for the process"


def test_what_a_description_names_is_not_imported(saved: Path, here: Path) -> None:
    (here / "own_evil.py").write_text("import pathlib; pathlib.Path('ran').touch()\ndef f(): pass\n")
    edited(saved, blueprint__model="own_evil:f")
    with pytest.raises(SourceError, match="names code, own_evil:f"):
        edgecnn.load_model(saved)
    edgecnn.load_model(saved, factory="own_net:net")  # the user's word, not the file's
    assert not (here / "ran").exists()


@pytest.mark.parametrize("model", ["other.model", "../net.pt2", "/etc/passwd", "weights.pth", ""])
def test_a_description_that_names_a_file_is_refused(model: str, saved: Path) -> None:
    edited(saved, blueprint__model=model)
    with pytest.raises(SourceError, match="expected a network that edgecnn builds from its name"):
        edgecnn.load_model(saved)


@pytest.mark.parametrize("path", ["../outside.safetensors", "/etc/passwd", "a/b", "..", ""])
def test_weights_outside_the_folder_are_refused(path: str, saved: Path) -> None:
    edited(saved, weights__path=path)
    with pytest.raises(SourceError, match=r"weights\.path must be the name of a file"):
        edgecnn.load_model(saved, factory="own_net:net")


def test_a_recipe_names_no_code(here: Path) -> None:
    (here / "own_evil.py").write_text("import pathlib; pathlib.Path('ran').touch()\ndef f(): pass\n")
    (here / "recipe.toml").write_text('model = "own_evil:f"\nsize = 16\ntask = "classify"\n')
    with pytest.raises(SourceError, match=r"recipe\.toml names code, own_evil:f.*--factory own_evil:f"):
        compress(here / "recipe.toml")
    with pytest.raises(SourceError, match=r"names code, own_evil:f"):
        compress(here / "recipe.toml", factory="own_net:net")
    assert not (here / "ran").exists()


def edgecnn_says(here: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edgecnn", *words],
        cwd=here,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize("key", ["model", "factory"])
def test_a_file_of_options_names_no_code(key: str, here: Path) -> None:
    (here / "own_evil.py").write_text("import pathlib; pathlib.Path('ran').touch()\ndef f(): pass\n")
    (here / "options.toml").write_text(f'{key} = "own_evil:f"\nout = "n.edge"\n')
    done = edgecnn_says(here, "convert", *([] if key == "model" else ["n.model"]), "--config", "options.toml")
    assert done.returncode == 2
    assert "options.toml names code, own_evil:f" in " ".join(done.stderr.split())
    assert not (here / "ran").exists()


# ---------------------------------------------------------------------------- the factory's folder
def test_files_next_to_the_factory_do_not_replace_packages(here: Path) -> None:
    for name in ("onnx", "torch", "numpy", "cv2", "openvino", "msgspec", "onnxruntime", "litert_torch", "rich"):
        (here / f"{name}.py").write_text("import pathlib; pathlib.Path(f'shadowed-{__name__}').touch()\n")
    (here / "own_layers.py").write_text("SIZE = 4\n")
    (here / "own_factory.py").write_text("import own_layers" + FACTORY.replace("4,", "own_layers.SIZE,", 1))
    words = ("--task", "classify", "--size", "16", "--to", "onnx", "--out", "n.edge")
    done = edgecnn_says(here, "convert", "own_factory:net", *words)
    assert done.returncode in (0, 1), done.stderr  # a random network may be blind
    assert (here / "n.edge").exists() or "blind" in done.stderr.lower(), done.stderr
    assert not list(here.glob("shadowed-*"))


def test_the_path_is_as_before_when_the_factory_has_returned(here: Path) -> None:
    (here / "own_path.py").write_text(FACTORY)
    before = list(sys.path)
    edgecnn.load_model("own_path:net", **OPTIONS)
    assert sys.path == before
    (here / "own_broken.py").write_text("def net():\n    raise RuntimeError('no')\n")
    with pytest.raises(SourceError, match=r"raised RuntimeError: no \(.*own_broken\.py, line 2\)"):
        edgecnn.load_model("own_broken:net", **OPTIONS)
    assert sys.path == before


def test_a_factory_in_a_file_with_a_packages_name_is_refused(here: Path) -> None:
    (here / "onnx.py").write_text(FACTORY)
    with pytest.raises(SourceError, match=r"name of an installed package, 'onnx'.*rename it"):
        edgecnn.load_model("onnx:net", **OPTIONS)


def test_a_package_of_ones_own_is_found_with_what_lies_in_it(here: Path) -> None:
    (here / "own_package" / "nets").mkdir(parents=True)
    (here / "own_package" / "__init__.py").write_text("")
    (here / "own_package" / "nets" / "__init__.py").write_text("from ..layers import net\n")
    (here / "own_package" / "layers.py").write_text(FACTORY)
    assert edgecnn.load_model("own_package.nets:net", **OPTIONS).frame.height_px == 16


# ---------------------------------------------------------------------------- what a network may hold
MODULE = "import math, threading, torch\nfrom torch import nn\nclass Net(nn.Module):\n    def __init__(self):\n"
FORWARD = "    def forward(self, x):\n        return self.conv(x).mean((2, 3))\ndef net():\n    return Net()\n"
BODY = "        super().__init__()\n        self.conv = nn.Conv2d(3, 2, 3)\n"


@pytest.mark.parametrize("line", ["self.math = math", "self.holds = {'a': [math, torch.nn.functional]}"])
def test_a_network_that_holds_a_python_module_can_be_copied(line: str, here: Path) -> None:
    import copy
    import math

    (here / "own_holding.py").write_text(f"{MODULE}{BODY}        {line}\n{FORWARD}")
    model = edgecnn.load_model("own_holding:net", **OPTIONS)
    held: Any = copy.deepcopy(model.module)
    assert (held.math if "self.math" in line else held.holds["a"][0]) is math


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("self.modules = []", r"attribute 'modules', which hides torch\.nn\.Module\.modules: rename it in Net"),
        ("self.children = 3", r"attribute 'children'"),
        ("self.lock = threading.Lock()", r"Net\.lock holds lock, which cannot be copied"),
        ("self.steps = (i for i in range(3))", r"Net\.steps holds generator"),
    ],
)
def test_an_attribute_that_is_in_the_way_is_named(line: str, message: str, here: Path) -> None:
    (here / "own_odd.py").write_text(f"{MODULE}{BODY}        {line}\n{FORWARD}")
    with pytest.raises(SourceError, match=message):
        edgecnn.load_model("own_odd:net", **OPTIONS)


def test_torch_script_is_refused_with_the_way_out(here: Path) -> None:
    (here / "own_script.py").write_text(f"{MODULE}{BODY}{FORWARD}def scripted():\n    return torch.jit.script(Net())\n")
    with (
        pytest.warns(FutureWarning, match="deprecated"),
        pytest.raises(SourceError, match=r"is TorchScript.*torch\.export"),
    ):
        edgecnn.load_model("own_script:scripted", **OPTIONS)
