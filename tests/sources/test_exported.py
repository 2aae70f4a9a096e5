"""Exported programs: what they hold is never run, and what they are is said."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

import edgecnn  # noqa: E402
from edgecnn.errors import SourceError  # noqa: E402
from edgecnn.sources.program_archive import load_program  # noqa: E402

pytestmark = pytest.mark.torch

OPTIONS: dict[str, Any] = {"task": "classify", "labels": ("a", "b", "c")}


class Net(nn.Module):
    def __init__(self, rate: float = 0.5) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 4, 3, 2), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )
        self.head = nn.Sequential(nn.Dropout(rate), nn.Linear(4, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(x))  # type: ignore[no-any-return]


def export(path: Path, *, net: nn.Module | None = None, x: Any = None, train: bool = False, **how: Any) -> Path:
    made = net if net is not None else Net()
    inputs = x if isinstance(x, tuple) else (torch.zeros(1, 3, 16, 16) if x is None else x,)
    program = torch.export.export(made.train() if train else made.eval(), inputs, **how)
    torch.export.save(program, path)
    return path


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(tmp_path_factory.mktemp("pt2") / "net.pt2")


def with_parts(source: Path, target: Path, change: Callable[[str, bytes], bytes | None], **more: bytes) -> Path:
    """The archive again, with parts changed, left out or added."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        root = old.namelist()[0].partition("/")[0]
        for name in old.namelist():
            content = change(name.partition("/")[2], old.read(name))
            if content is not None:
                new.writestr(name, content)
        for name, content in more.items():
            new.writestr(f"{root}/{name}", content)
    return target


def with_graph(source: Path, target: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    def changed(name: str, content: bytes) -> bytes:
        if not name.startswith("models/"):
            return content
        graph = json.loads(content)
        change(graph)
        return json.dumps(graph).encode()

    return with_parts(source, target, changed)


class Evil:
    """A pickle that leaves a mark when it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


def evil_pickle(mark: Path) -> bytes:
    made = io.BytesIO()
    torch.save(Evil(mark), made)
    return made.getvalue()


def test_a_program_answers_as_torch_loads_it(exported: Path) -> None:
    x = torch.rand(1, 3, 16, 16)
    assert torch.equal(load_program(exported).module()(x), torch.export.load(exported).module()(x))


def test_free_sizes_stay_free(tmp_path: Path) -> None:
    free = torch.export.Dim.AUTO
    path = export(tmp_path / "n.pt2", x=torch.zeros(2, 3, 16, 16), dynamic_shapes=({0: free, 2: free, 3: free},))
    assert load_program(path).module()(torch.rand(3, 3, 24, 40)).shape == (3, 3)
    assert edgecnn.load_model(path, size=(24, 40), **OPTIONS).frame.width_px == 40


# ---------------------------------------------------------------------------- nothing is run
def test_pickled_sample_inputs_are_left_out_unread(exported: Path, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    path = with_parts(
        exported, tmp_path / "n.pt2", lambda n, c: evil_pickle(mark) if n.startswith("data/sample_inputs") else c
    )
    assert edgecnn.load_model(path, **OPTIONS).frame.height_px == 16
    assert not mark.exists()


@pytest.mark.parametrize("flagged", [False, True])
def test_pickled_weights_are_refused_and_not_run(flagged: bool, exported: Path, tmp_path: Path) -> None:
    mark = tmp_path / "ran"

    def change(name: str, content: bytes) -> bytes:
        if name.endswith("weight_0"):
            return evil_pickle(mark)
        if name.endswith("weights_config.json") and flagged:
            document = json.loads(content)
            for entry in document["config"].values():
                entry["use_pickle"] = True
            return json.dumps(document).encode()
        return content

    path = with_parts(exported, tmp_path / "n.pt2", change)
    with pytest.raises(SourceError, match=r"pickle with more than tensors.*safetensors"):
        load_program(path)
    assert not mark.exists()


def test_tensors_that_were_pickled_are_read(exported: Path, tmp_path: Path) -> None:
    weights = torch.export.load(exported).state_dict

    def change(name: str, content: bytes) -> bytes:
        if name.endswith("weight_0"):
            made = io.BytesIO()
            torch.save(nn.Parameter(weights["layers.0.weight"]), made)
            return made.getvalue()
        if name.endswith("weights_config.json"):
            document = json.loads(content)
            document["config"]["layers.0.weight"]["use_pickle"] = True
            return json.dumps(document).encode()
        return content

    path = with_parts(exported, tmp_path / "n.pt2", change)
    x = torch.rand(1, 3, 16, 16)
    assert torch.equal(load_program(path).module()(x), torch.export.load(exported).module()(x))


@pytest.mark.parametrize(
    "part",
    [
        "data/constants/opaque_obj_0",
        "data/constants/custom_obj_0",
        "data/aotinductor/model/model.so",
        "data/weights/../../../outside",
        "anything/else",
    ],
)
def test_parts_that_are_not_networks_are_refused(part: str, exported: Path, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    path = with_parts(exported, tmp_path / "n.pt2", lambda n, c: c, **{part: pickle.dumps(Evil(mark))})
    with pytest.raises(SourceError, match="only be used by running code"):
        load_program(path)
    assert not mark.exists()


def _name_of_first(graph: dict[str, Any], name: str) -> None:
    old = graph["graph_module"]["graph"]["nodes"][0]["outputs"][0]["as_tensor"]["name"]
    text = json.dumps(graph).replace(json.dumps(old), json.dumps(name))
    graph.clear()
    graph.update(json.loads(text))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda g: g["graph_module"]["graph"]["nodes"][2].update(target="torch.os.system"), id="torch.os"),
        pytest.param(lambda g: g["graph_module"]["graph"]["nodes"][2].update(target="torch.hub.load"), id="torch.hub"),
        pytest.param(
            lambda g: g["graph_module"]["graph"]["nodes"][2].update(target="_operator.attrgetter"), id="attrgetter"
        ),
        pytest.param(
            lambda g: g["graph_module"]["graph"]["nodes"][2].update(target="torch.ops.aten.from_file.default"),
            id="from_file",
        ),
        pytest.param(
            lambda g: g["graph_module"]["graph"]["nodes"][2].update(target="#mine.op"), id="an operator of an extension"
        ),
        pytest.param(lambda g: _name_of_first(g, "x\nimport os; os.system('true')\ny"), id="a name that is Python"),
        pytest.param(
            lambda g: g["graph_module"]["graph"]["tensor_values"]["relu"].update(
                sizes=[{"as_expr": {"expr_str": "__import__('os').system('true')", "hint": None}}]
            ),
            id="a size that is Python",
        ),
        pytest.param(
            lambda g: g["graph_module"]["graph"]["tensor_values"]["relu"].update(
                sizes=[{"as_expr": {"expr_str": "Symbol.__class__('x')", "hint": None}}]
            ),
            id="a size that reaches for a class",
        ),
        pytest.param(
            lambda g: g["graph_module"]["graph"]["tensor_values"]["relu"].update(
                sizes=[{"as_expr": {"expr_str": "9**9**9**9", "hint": None}}]
            ),
            id="a size without end",
        ),
        pytest.param(
            lambda g: g["graph_module"]["signature"]["input_specs"][0]["parameter"].update(
                parameter_name='w").__class__("'
            ),
            id="a weight's name that is Python",
        ),
        pytest.param(
            lambda g: g["graph_module"]["module_call_graph"][0]["signature"].update(
                in_spec='[1, {"type": "os.system", "context": "\\"true\\"", "children_spec": []}]'
            ),
            id="a tree of another kind",
        ),
        pytest.param(
            lambda g: g["graph_module"]["module_call_graph"][0]["signature"].update(forward_arg_names=["x=print(1)"]),
            id="an argument that is Python",
        ),
    ],
)
def test_words_of_a_graph_that_would_be_run_are_refused(
    change: Callable[[dict[str, Any]], None], exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[object] = []
    monkeypatch.setattr("os.system", ran.append)
    path = with_graph(exported, tmp_path / "n.pt2", change)
    with pytest.raises(SourceError, match="none of its code was run"):
        load_program(path)
    assert not ran


def test_guards_are_never_compiled(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[object] = []
    monkeypatch.setattr("os.system", ran.append)
    code = "__import__('os').system('true') is None"
    path = with_graph(exported, tmp_path / "n.pt2", lambda graph: graph.update(guards_code=[code]))
    load_program(path).module()(torch.zeros(1, 3, 16, 16))
    assert not ran


def test_weights_that_are_not_there_take_no_memory(exported: Path, tmp_path: Path) -> None:
    def change(name: str, content: bytes) -> bytes:
        if name.endswith("weight_0"):
            return b""
        if name.endswith("weights_config.json"):
            document = json.loads(content)
            document["config"]["layers.0.weight"]["tensor_meta"]["sizes"] = [{"as_int": 1 << 20}, {"as_int": 1 << 20}]
            return json.dumps(document).encode()
        return content

    with pytest.raises(SourceError, match="but has too little data"):
        load_program(with_parts(exported, tmp_path / "n.pt2", change))


def test_a_compressed_bomb_is_refused(exported: Path, tmp_path: Path) -> None:
    path = with_parts(exported, tmp_path / "n.pt2", lambda n, c: c)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("net/data/weights/weight_99", bytes(50_000_000))
    with pytest.raises(SourceError, match="bomb"):
        load_program(path)


@pytest.mark.parametrize("size", [0, 10, 1000, -100])
def test_a_truncated_file_is_reported_as_truncated(size: int, exported: Path, tmp_path: Path) -> None:
    path = tmp_path / "n.pt2"
    path.write_bytes(exported.read_bytes()[:size])
    with pytest.raises(SourceError, match="truncated or not an exported program"):
        load_program(path)


# ---------------------------------------------------------------------------- what it is
@pytest.mark.parametrize("net", [Net(0.0), Net(0.5)], ids=["batch norm", "batch norm and dropout"])
def test_a_program_that_was_exported_in_training_mode_is_refused(net: nn.Module, tmp_path: Path) -> None:
    path = export(tmp_path / "n.pt2", net=net, train=True)
    with pytest.raises(SourceError, match=r"in training mode: batch_norm.*model\.eval\(\)"):
        edgecnn.load_model(path, **OPTIONS)


class OnlyDropout(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x.mean((2, 3)), 0.5, training=True)


class Noisy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        pooled: Tensor = x.mean((2, 3))
        noisy: Tensor = pooled + torch.randn_like(pooled)
        return noisy


class Counting(nn.Module):
    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.seen.add_(1)
        return x.mean((2, 3)) + self.seen


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (OnlyDropout(), "in training mode: dropout"),
        (Noisy(), "random numbers"),
        (Counting(), "changes its buffer 'seen'"),
    ],
)
def test_answers_that_depend_on_more_than_the_picture_are_refused(net: nn.Module, message: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=message):
        edgecnn.load_model(export(tmp_path / "n.pt2", net=net), **OPTIONS)


class Two(nn.Module):
    def forward(self, x: Tensor, depth: Tensor) -> Tensor:
        return x.mean((2, 3)) + depth.mean()


class AnyKind(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.float().mean((2, 3))


@pytest.mark.parametrize(
    ("net", "x", "message"),
    [
        (AnyKind(), torch.zeros(1, 3, 8, 8).half(), r"takes float16 \[1, 3, 8, 8\].*half precision"),
        (AnyKind(), torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "takes uint8 .*own pre-processing"),
        (AnyKind(), torch.zeros(4, 3, 8, 8), "for batches of 4"),
        (AnyKind(), torch.zeros(1, 8, 8, 3), "channels come second"),
        (AnyKind(), torch.zeros(1, 1, 8, 8), r"takes float32 \[1, 1, 8, 8\]"),
        (Two(), (torch.zeros(1, 3, 8, 8), torch.zeros(1, 1, 8, 8)), r"\[1, 1, 8, 8\]; expected one"),
    ],
)
def test_an_input_of_another_kind_is_described(net: nn.Module, x: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=message):
        edgecnn.load_model(export(tmp_path / "n.pt2", net=net, x=x), **OPTIONS)
