"""The table of sources: which words mean which kind, ours and other packages'."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from edgecnn.errors import SpecError, UnknownNameError
from edgecnn.options.lists import filled
from edgecnn.registry import Part
from edgecnn.sources.kind import SourceKind
from edgecnn.sources.table import SOURCES, is_network_path, source_of


@pytest.fixture
def toy() -> Iterator[SourceKind]:
    """One more kind, in this process."""
    kind = SourceKind(name="toy", form="toy:NAME", prefix="toy", suffix=".toy", loads=Part("nowhere:load"))
    with SOURCES.temporarily(kind):
        yield kind


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("torchvision:resnet18", "torchvision"),
        ("torchvision:no such", "torchvision"),  # it says itself what is near
        ("yolox-nano", "zoo"),
        ("runs/net.model", "saved"),
        ("runs/net.model/", "saved"),
        ("net.pt2", "exported"),
        ("package.module:factory", "factory"),
    ],
)
def test_each_kind_takes_its_words(words: str, name: str) -> None:
    assert source_of(words).name == name


@pytest.mark.parametrize("words", ["", ":", "a:", ":b", "yolox-nanno", "a:b:c", "C:/nets/a.onnx", ".modelled"])
def test_other_words_are_not_networks(words: str) -> None:
    with pytest.raises(UnknownNameError, match="no model is called"):
        source_of(words)


def test_near_misses_come_from_every_kind(toy: SourceKind) -> None:
    with pytest.raises(UnknownNameError, match="did you mean yolox-nano"):
        source_of("yolox-nanno")
    with pytest.raises(UnknownNameError, match="did you mean toy:NAME"):
        source_of("toy-NAME")
    with pytest.raises(UnknownNameError, match="default-detector"):
        source_of("default-detektor")


def test_weights_and_networks_are_distinguished() -> None:
    with pytest.raises(SpecError, match=r"yolox\.pth holds weights, not a network"):
        source_of("yolox.pth")


def test_another_packages_words_go_before_a_factorys(toy: SourceKind) -> None:
    assert source_of("toy:small") is toy
    assert source_of("toys:small").name == "factory"
    assert is_network_path("nets/a.toy")
    assert filled("{networks}") == (
        "torchvision:NAME, a name of the zoo, a NAME.model folder, a .pt2 file, toy:NAME or package.module:factory"
    )


@pytest.mark.parametrize("words", [{"prefix": "torchvision"}, {"suffix": ".model"}, {"prefix": "toy"}])
def test_words_that_are_taken_are_refused(toy: SourceKind, words: dict[str, str]) -> None:
    row = SourceKind(name="other", form="other", loads=Part("nowhere:load"), **words)  # type: ignore[arg-type]
    (word,) = words
    assert f"its {word}, {words[word]!r}, already belongs to" in SOURCES.refuse(row)


def test_the_table_imports_neither_torch_nor_torchvision() -> None:
    code = "import sys, edgecnn.sources.table as t; t.forms(); t.source_of('yolox-nano'); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
