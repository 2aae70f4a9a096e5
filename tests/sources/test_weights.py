"""Weights files: what is read, what is refused, and that nothing in them runs."""

from __future__ import annotations

import os
import pickle
import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="needs torch: pip install 'edgecnn[convert]'")

import torch
from torch import Tensor, nn

from edgecnn import load_model
from edgecnn.errors import WeightsError
from edgecnn.sources.weights import fit_weights, read_weights

pytestmark = pytest.mark.torch


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(OrderedDict(stem=nn.Conv2d(3, 4, 3), norm=nn.BatchNorm2d(4), head=nn.Conv2d(4, 2, 1))).eval()


class Marking:
    """A pickle that leaves a folder behind when it is run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.path),))


def prefixed(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


WRAPPED: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "bare": lambda tensors: tensors,
    "ordered": OrderedDict,
    "model": lambda tensors: {"model": tensors, "epoch": 3, "optimizer": {"state": {}}},
    "state_dict": lambda tensors: {"state_dict": tensors, "arch": "net", "best_acc1": torch.tensor(0.5)},
    "model_state_dict": lambda tensors: {"epoch": 1, "model_state_dict": tensors, "loss": 0.1},
    "two deep": lambda tensors: {"ema": {"state_dict": tensors}},
    "module.": lambda tensors: prefixed(tensors, "module."),
    "module. in state_dict": lambda tensors: {"state_dict": prefixed(tensors, "module.")},
    "module.module.": lambda tensors: prefixed(tensors, "module.module."),
    "model. of a training wrapper": lambda tensors: {"state_dict": prefixed(tensors, "model.")},
    "without counters": lambda tensors: {n: t for n, t in tensors.items() if "num_batches" not in n},
}


@pytest.mark.parametrize("how", WRAPPED)
def test_a_state_dict_is_found_however_it_is_wrapped(how: str, tmp_path: Path) -> None:
    source = network()
    torch.save(WRAPPED[how](source.state_dict()), tmp_path / "net.pth")
    target = network()
    with torch.no_grad():
        for parameter in target.parameters():
            parameter.zero_()
    fit_weights(target, read_weights(tmp_path / "net.pth"), origin="net.pth")
    for name, tensor in source.state_dict().items():
        assert torch.equal(target.state_dict()[name], tensor), name


def test_safetensors_are_read(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch", reason="needs safetensors: pip install 'edgecnn[convert]'")
    source = network()
    safetensors.save_file(source.state_dict(), tmp_path / "net.safetensors")
    tensors = read_weights(tmp_path / "net.safetensors")
    assert set(tensors) == set(source.state_dict())
    data = (tmp_path / "net.safetensors").read_bytes()
    for name, content in (("cut.safetensors", data[: len(data) // 2]), ("empty.safetensors", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(WeightsError, match=rf"{name} is truncated or not a safetensors file"):
            read_weights(tmp_path / name)


def test_a_missing_file_is_answered_with_those_of_a_near_name(tmp_path: Path) -> None:
    (tmp_path / "yolox_nano.pth").write_bytes(b"")
    with pytest.raises(WeightsError, match=r"there is no weights file .*yolox_nan\.pth; beside it there is yolox_nano"):
        read_weights(tmp_path / "yolox_nan.pth")
    with pytest.raises(WeightsError, match=r"there is no weights file .*nowhere/net\.pth$"):
        read_weights(tmp_path / "nowhere" / "net.pth")
    with pytest.raises(WeightsError, match="there is no weights file"):
        read_weights(tmp_path)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.2, 0.3, 0.5, 0.97])
def test_a_truncated_file_is_reported_as_truncated(share: float, zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    torch.save(network().state_dict(), path, _use_new_zipfile_serialization=zipped)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(WeightsError, match=r"net\.pth is truncated or not a torch file"):
        read_weights(path)


@pytest.mark.parametrize("content", [b"<html>404</html>", b"version https://git-lfs.github.com/spec/v1\n", b"\0" * 999])
def test_anything_but_a_torch_file_is_reported_as_such(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "net.pth").write_bytes(content)
    with pytest.raises(WeightsError, match=r"truncated or not a torch file"):
        read_weights(tmp_path / "net.pth")


def test_a_whole_pickled_module_is_refused_with_the_way_out(tmp_path: Path) -> None:
    torch.save(network(), tmp_path / "net.pth")
    with pytest.raises(WeightsError, match=r"is a pickled module.*would run code.*safetensors\.torch\.save_file"):
        read_weights(tmp_path / "net.pth")


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_code_in_a_file_does_not_run(wrapped: bool, zipped: bool, tmp_path: Path) -> None:
    mark = tmp_path / "it ran"
    content: Any = Marking(mark)
    if wrapped:
        content = {"state_dict": network().state_dict(), "args": content}
    torch.save(content, tmp_path / "net.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError, match="would run code from the file"):
        read_weights(tmp_path / "net.pth")
    assert not mark.exists()
    torch.load(tmp_path / "net.pth", weights_only=False)  # what we never do
    assert mark.exists(), "the file would have run it"


def test_code_in_a_plain_pickle_does_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "it ran"
    (tmp_path / "net.pth").write_bytes(pickle.dumps(Marking(mark)))
    with pytest.raises(WeightsError, match="would run code from the file"):
        read_weights(tmp_path / "net.pth")
    assert not mark.exists()


def test_a_torchscript_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated; files of it are still about
        torch.jit.script(nn.ReLU()).save(str(path))  # type: ignore[no-untyped-call]
    with pytest.raises(WeightsError, match=r"is a TorchScript archive.*safetensors\.torch\.save_file"):
        read_weights(path)


@pytest.mark.parametrize("content", [{"epoch": 3}, {}, [1, 2], 7, {"model": {"lr": 0.1}}], ids=str)
def test_a_file_without_tensors_is_refused_and_says_what_it_holds(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "net.pth")
    with pytest.raises(WeightsError, match=r"holds no state dict \(found a "):
        read_weights(tmp_path / "net.pth")


def test_a_misfit_names_the_first_missing_and_unexpected_keys_and_similar_networks() -> None:
    tensors = dict(network().state_dict())
    tensors["heads.weight"] = tensors.pop("head.weight")
    tensors["more"] = torch.zeros(1)
    with pytest.raises(WeightsError) as refused:
        fit_weights(network(), tensors, origin="net.pth")
    text = str(refused.value)
    assert "net.pth does not fit this network" in text
    assert "1 missing, first 'head.weight'" in text
    assert "2 unexpected, first 'heads.weight'" in text
    assert "'heads.weight' may be meant to be 'head.weight'" in text


def test_a_tensor_of_another_shape_is_named_with_both_shapes() -> None:
    tensors = dict(network().state_dict())
    tensors["head.weight"] = torch.zeros(9, 4, 1, 1)
    with pytest.raises(
        WeightsError,
        match=r"1 of another shape, first 'head\.weight': \[9, 4, 1, 1\] in the file, \[2, 4, 1, 1\] in the network",
    ):
        fit_weights(network(), tensors, origin="net.pth")


@pytest.mark.parametrize(("bias", "is_reported"), [(9, True), (5, False)])
def test_weights_for_another_count_of_classes_are_reported_as_such(bias: int, is_reported: bool) -> None:
    tensors = {**network().state_dict(), "head.weight": torch.zeros(9, 4, 1, 1), "head.bias": torch.zeros(bias)}
    with pytest.raises(WeightsError) as refused:
        fit_weights(network(), tensors, origin="net.pth")
    assert ("for 9 classes, but the network has 2: see --labels" in str(refused.value)) is is_reported


def test_a_misfit_changes_nothing() -> None:
    target = network()
    before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    tensors = {name: tensor + 1 for name, tensor in before.items() if name != "head.bias"}
    with pytest.raises(WeightsError):
        fit_weights(target, tensors, origin="net.pth")
    assert all(torch.equal(tensor, before[name]) for name, tensor in target.state_dict().items())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_broken_numbers_are_refused(value: float) -> None:
    tensors = dict(network().state_dict())
    tensors["norm.running_var"] = torch.full((4,), value)
    with pytest.raises(
        WeightsError, match=r"NaN or infinite values, first in 'norm\.running_var': save the weights again"
    ):
        fit_weights(network(), tensors, origin="net.pth")


def test_half_precision_weights_become_the_networks_own_precision(tmp_path: Path) -> None:
    source = network()
    torch.save(
        {n: t.half() if t.is_floating_point() else t for n, t in source.state_dict().items()}, tmp_path / "h.pth"
    )
    target = network()
    fit_weights(target, read_weights(tmp_path / "h.pth"), origin="h.pth")
    assert {p.dtype for p in target.parameters()} == {torch.float32}
    torch.testing.assert_close(target.stem.weight, source.stem.weight, rtol=1e-3, atol=1e-4)  # type: ignore[union-attr]


def test_weights_of_a_sister_network_name_the_sister(shared: Path) -> None:
    path = next((shared / "models").rglob("espnetv2_s_2.0*.pth"), None)
    if path is None:
        pytest.skip("needs ESPNetv2-2.0's weights in ../shared")
    with pytest.raises(WeightsError) as refused:
        load_model("espnetv2-1.0", weights=path)
    text = str(refused.value)
    assert "of another shape, first" in text
    assert "they are the weights of espnetv2-2.0" in text


def test_weights_of_a_foreign_network_do_not_fit(shared: Path) -> None:
    path = shared / "models" / "yolox-nano" / "yolox_nano.pth"
    if not path.is_file():
        pytest.skip("needs YOLOX-nano's weights in ../shared")
    with pytest.raises(WeightsError, match=r"does not fit this network; \d+ missing, first .*unexpected, first"):
        load_model("efficientnet-lite0", weights=path)


MORE_WRAPPED: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "beside one tensor": lambda tensors: {"state_dict": tensors, "best_acc1": torch.tensor(0.5)},
    "beside more tensors than wrappers": lambda t: {"model": t, "a": torch.zeros(1), "b": torch.zeros(2), "c": 3},
    "two prefixes": lambda tensors: prefixed(tensors, "model._orig_mod."),
    "two prefixes, the other way": lambda tensors: {"state_dict": prefixed(tensors, "module._orig_mod.")},
    "three prefixes": lambda tensors: prefixed(tensors, "module.model._orig_mod."),
    "compiled within": lambda t: {n.replace(".", "._orig_mod.", 1): v for n, v in t.items()},
    "lightning with a loss and a metric": lambda tensors: {
        "state_dict": {
            **prefixed(tensors, "model."),
            "criterion.weight": torch.ones(3),
            "val_metric.total": torch.tensor(3),
        },
        "pytorch-lightning_version": "2.5",
        "hparams_name": "x",
    },
    "lightning with a teacher": lambda t: {
        "state_dict": {**prefixed(t, "student.net."), "teacher.fc.weight": torch.ones(9)}
    },
    "an average": lambda tensors: {"n_averaged": torch.tensor(3), **prefixed(tensors, "module.")},
}


@pytest.mark.parametrize("how", MORE_WRAPPED)
def test_what_training_put_around_a_state_dict_is_taken_off(how: str, tmp_path: Path) -> None:
    source = network(seed=1)
    torch.save(MORE_WRAPPED[how](source.state_dict()), tmp_path / "net.pth")
    target = network(seed=2)
    fit_weights(target, read_weights(tmp_path / "net.pth"), origin="net.pth")
    for name, tensor in source.state_dict().items():
        assert torch.equal(target.state_dict()[name], tensor), name


@pytest.mark.parametrize(
    ("raw", "averaged"), [("model", "model_ema"), ("state_dict", "state_dict_ema"), ("net", "ema")]
)
def test_of_raw_and_averaged_weights_it_says_which(raw: str, averaged: str, tmp_path: Path) -> None:
    first, second = network(seed=1).state_dict(), network(seed=2).state_dict()
    path = tmp_path / "net.pth"
    torch.save({averaged: second, raw: first, "epoch": 3}, path)
    taken = read_weights(path)
    name = next(iter(first))
    assert torch.equal(taken[name], first[name])
    assert taken.notes == (
        f"net.pth holds several sets of weights: those under {raw!r} are used; the others are net.pth#{averaged}",
    )
    other = read_weights(f"{path}#{averaged}")
    assert torch.equal(other[name], second[name])
    assert other.notes == ()


def test_a_key_that_is_not_there_is_reported(tmp_path: Path) -> None:
    torch.save({"model": network(seed=1).state_dict()}, tmp_path / "net.pth")
    with pytest.raises(WeightsError, match="has nothing under 'ema'; found a mapping with the keys 'model'"):
        read_weights(tmp_path / "net.pth#ema")
