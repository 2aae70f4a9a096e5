"""Saved networks: words and tensors, whole or not at all."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs torch: pip install 'edgecnn[convert]'")

import torch

import edgecnn
from edgecnn.bundle.evidence import Stage
from edgecnn.errors import SourceError, SpecError
from edgecnn.sources import TrainedModel
from edgecnn.sources.classes import with_classes
from edgecnn.sources.saved import describe, save

pytestmark = pytest.mark.torch

NAME, SIZE = "torchvision:squeezenet1_1", (64, 64)


def network(labels: tuple[str, ...] = ("cat", "dog", "owl")) -> TrainedModel:
    return edgecnn.load_model(NAME, labels=labels, size=SIZE)


def answer(model: TrainedModel) -> torch.Tensor:
    x = torch.randn(1, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model.module.eval()(x)  # type: ignore[no-any-return]


def test_a_saved_network_answers_as_before_and_knows_where_it_came_from(tmp_path: Path) -> None:
    model = dataclasses.replace(network(), stages=(Stage(what="train", settings={"epochs": 3}),))
    with torch.no_grad():
        next(model.module.parameters()).mul_(2)
    folder = save(model, tmp_path / "net.model", more={"note.csv": b"a,b\n"})
    assert sorted(path.suffix for path in folder.iterdir()) == [".csv", ".json", ".safetensors"]
    again = edgecnn.load_model(folder)
    assert torch.equal(answer(again), answer(model))
    assert (again.task, again.frame, again.blueprint, again.stages) == (
        model.task,
        model.frame,
        model.blueprint,
        model.stages,
    )


def test_half_the_bytes_hold_the_weights_to_eleven_bits_and_vectors_whole(tmp_path: Path) -> None:
    model = network()
    whole, halved = (save(model, tmp_path / f"{half}.model", half=half) for half in (False, True))
    assert describe(halved).weights.bytes < 0.55 * describe(whole).weights.bytes
    expected = {
        name: tensor.half().float() if tensor.dim() > 1 else tensor
        for name, tensor in model.module.state_dict().items()
    }
    again = edgecnn.load_model(halved).module.state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in expected.items())
    assert {tensor.dtype for tensor in again.values()} == {torch.float32}


def test_a_weight_that_half_cannot_hold_stays_whole(tmp_path: Path) -> None:
    model = network()
    with torch.no_grad():
        first = next(model.module.parameters())
        first[0, 0, 0, 0] = 1e6
    again = edgecnn.load_model(save(model, tmp_path / "net.model", half=True))
    assert torch.equal(next(again.module.parameters()), first)


def test_a_saved_network_can_be_read_by_all(tmp_path: Path) -> None:
    folder = save(network(), tmp_path / "net.model")
    assert {path.name: path.stat().st_mode & 0o444 for path in folder.glob("weights-*")} == {
        describe(folder).weights.path: 0o444
    }


def test_saving_again_replaces_what_was_saved_and_nothing_else(tmp_path: Path) -> None:
    folder = save(network(), tmp_path / "net.model", more={"training.csv": b"old"})
    (folder / "LICENSE").write_text("the user's")
    model = network(("a", "b"))
    save(model, folder)
    assert torch.equal(answer(edgecnn.load_model(folder)), answer(model))
    (weights,) = folder.glob("*.safetensors")
    assert {path.name for path in folder.iterdir()} == {"LICENSE", "model.json", weights.name}


def test_weights_that_were_changed_are_refused(tmp_path: Path) -> None:
    folder = save(network(), tmp_path / "net.model")
    file = folder / describe(folder).weights.path
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(SourceError, match="was changed after it was saved"):
        edgecnn.load_model(folder)


def test_a_folder_that_is_not_a_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"not a saved network: it has no model\.json"):
        edgecnn.load_model(str(tmp_path / "absent.model"))
    folder = save(network(), tmp_path / "net.model")
    (folder / "model.json").write_text("{")
    with pytest.raises(SourceError, match=r"model\.json is damaged"):
        edgecnn.load_model(folder)


def test_a_network_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    folder = save(network(), tmp_path / "net.model")
    document = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(document | {"schema": 99, "edgecnn": "9.0"}))
    with pytest.raises(SourceError, match=r"written by a newer edgecnn \(9\.0\)"):
        edgecnn.load_model(folder)


def test_a_saved_network_brings_its_own_weights(tmp_path: Path) -> None:
    folder = save(network(), tmp_path / "net.model")
    with pytest.raises(SpecError, match="has its own weights"):
        edgecnn.load_model(folder, weights="other.pth")


def test_another_ending_and_another_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"expected a path NAME\.model"):
        save(network(), tmp_path / "net.pth")
    (tmp_path / "mine.model").mkdir()
    with pytest.raises(SpecError, match="exists and is not a saved network"):
        save(network(), tmp_path / "mine.model")


def test_other_classes_keep_what_was_learned_of_those_in_common() -> None:
    old = network(("cat", "dog", "owl"))
    new, names = with_classes(old, ("Owl", "yak"))
    assert names == {"classifier.1.weight", "classifier.1.bias"}
    before, after = old.module.state_dict(), new.module.state_dict()
    assert torch.equal(after["classifier.1.weight"][0], before["classifier.1.weight"][2])
    assert all(torch.equal(after[name], before[name]) for name in before if name not in names)
    assert new.task.labels == ("Owl", "yak")


def test_the_same_classes_leave_a_network_as_it_is() -> None:
    model = network()
    assert with_classes(model, model.task.labels) == (model, frozenset())


def test_a_network_without_words_cannot_have_other_classes() -> None:
    model = dataclasses.replace(network(), blueprint=None)
    with pytest.raises(SpecError, match=r"cannot be built for other classes: it has 3 .* the data 1 "):
        with_classes(model, ("yak",))
