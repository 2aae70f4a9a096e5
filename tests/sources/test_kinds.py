"""Networks from the user's own code, from exported programs and from torchvision."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="needs torch: pip install 'edgecnn[convert]'")

import torch
from torch import Tensor, nn

from edgecnn import Classify, FrameSpec, TrainedModel, load_model
from edgecnn.bundle import sha256_of
from edgecnn.converters.deployable.rewrites.batch_norm import ScaleAndShift
from edgecnn.converters.deployable.wrapper import Deployable
from edgecnn.converters.layers import record_layers
from edgecnn.converters.torch_reference import deployed
from edgecnn.errors import DataError, SourceError, SpecError, UnknownNameError, WeightsError
from edgecnn.measure.parity import MAX_LEVELS, MEAN_LEVELS, compare_preprocessing
from edgecnn.photographs import photographs

pytestmark = pytest.mark.torch

NETWORKS = """
import torch
from torch import nn
from edgecnn import Classify, FrameSpec, TrainedModel

word = "not a factory"


def module():
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    return nn.Sequential(*layers)


def model():
    frame = FrameSpec(height_px=24, width_px=32, colour="bgr")
    return TrainedModel(module=module(), frame=frame, task=Classify(labels=("a", "b", "c")))


def raising():
    raise RuntimeError("the disk with the network is not mounted")


def text():
    return "resnet"


def wanting(argument):
    return module()
"""


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with networks in it."""
    (tmp_path / "my_networks.py").write_text(NETWORKS)
    (tmp_path / "broken_networks.py").write_text("import a_package_that_is_not_there\n")
    (tmp_path / "unreadable_networks.py").write_text("def factory(:\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))  # and out of sys.path again, and out of sys.modules' caches
    for name in ("my_networks", "broken_networks", "unreadable_networks"):
        monkeypatch.delitem(__import__("sys").modules, name, raising=False)
    return tmp_path


def classifier(classes: int = 3) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, classes)
    ).eval()


@pytest.mark.usefixtures("workplace")
def test_a_factory_brings_its_own_frame_and_task() -> None:
    model = load_model("my_networks:model")
    assert model.name == "model"
    assert (model.frame.width_px, model.frame.height_px, model.frame.colour) == (32, 24, "bgr")
    assert model.task.labels == ("a", "b", "c")
    assert model.source.model == "my_networks:model"
    assert not model.source.random


@pytest.mark.usefixtures("workplace")
def test_what_the_user_says_changes_the_factorys_frame() -> None:
    model = load_model("my_networks:model", size=(48, 64), mean=(1.0, 2.0, 3.0), fit="stretch", color="rgb", scale=1.0)
    assert model.frame == FrameSpec(height_px=48, width_px=64, mean=(1.0, 2.0, 3.0), fit="stretch", scale=1.0)


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my_networks:raising", r"raising\(\) raised RuntimeError: the disk with the network is not mounted"),
        ("my_networks:text", r"must return an edgecnn\.TrainedModel or a torch\.nn\.Module, got str"),
        ("my_networks:wanting", r"raised TypeError: .*missing 1 required positional argument"),
        ("my_networks:word", r"'word' is not callable; my_networks has: .*model"),
        ("my_networks:modell", r"'modell' does not exist; my_networks has: .*model"),
        ("my_netwroks:model", r"there is no module 'my_netwroks' \(looked in the working folder /"),
        ("broken_networks:factory", r"importing 'broken_networks' failed: No module named 'a_package_that_is_not"),
        ("unreadable_networks:factory", r"importing 'unreadable_networks' raised SyntaxError"),
    ],
)
def test_a_factory_that_does_not_deliver_is_refused(name: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        load_model(name)


@pytest.mark.usefixtures("workplace")
def test_a_bare_module_needs_words() -> None:
    with pytest.raises(SpecError, match="give its input size with --size"):
        load_model("my_networks:module", task="classify")
    with pytest.raises(SpecError, match="give its task with --task"):
        load_model("my_networks:module", size=(32, 32))
    with pytest.raises(SpecError, match="no task is called 'clasify'"):
        load_model("my_networks:module", size=(32, 32), task="clasify")


@pytest.mark.usefixtures("workplace")
def test_a_bare_module_with_words_is_a_network() -> None:
    model = load_model("my_networks:module", task="classify", size=(24, 32), labels=["x", "y", "z"])
    assert (model.frame.height_px, model.frame.width_px) == (24, 32)
    assert Deployable(model).task.labels == ("x", "y", "z")
    nameless = load_model(classifier(), task="classify", size=(24, 32))
    assert Deployable(nameless).task.labels == ("class 0", "class 1", "class 2")


@pytest.mark.usefixtures("workplace")
def test_weights_are_fitted_to_what_a_factory_returns(workplace: Path) -> None:
    trained = classifier()
    with torch.no_grad():
        trained[0].weight.fill_(0.5)  # type: ignore[operator]
    torch.save({"state_dict": trained.state_dict()}, workplace / "net.pth")
    model = load_model("my_networks:model", weights=workplace / "net.pth")
    assert torch.equal(model.module.state_dict()["0.weight"], trained.state_dict()["0.weight"])
    assert model.source.weights == "net.pth"
    assert model.source.weights_sha256 == sha256_of(workplace / "net.pth")
    torch.save(classifier(5).state_dict(), workplace / "other.pth")
    with pytest.raises(WeightsError, match=r"2 of another shape, first '4\.weight'"):
        load_model("my_networks:model", weights=workplace / "other.pth")


def labelled(count: int, labels: Any) -> TrainedModel:
    frame = FrameSpec(height_px=32, width_px=32)
    model = TrainedModel(module=classifier(count), frame=frame, task=Classify(labels=tuple("abc")))
    return load_model(model, labels=labels)


def test_a_label_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_text("Katze\n  Hündchen \n\nMaus\n", encoding="utf-8")
    assert labelled(3, path).task.labels == ("Katze", "Hündchen", "Maus")
    assert labelled(3, str(path)).task.labels == ("Katze", "Hündchen", "Maus")


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (b"a\nb\n", SpecError, r"has 3 classes, but 2 labels were given \(a, b, …\): give one name for each class"),
        (b"a\nb\nc\nd\n", SpecError, "has 3 classes, but 4 labels were given"),
        (b"\n \n", DataError, r"labels\.txt is empty: expected one class name per line"),
        (b"", DataError, "is empty"),
        (b"caf\xe9\nb\nc\n", DataError, r"labels\.txt is not UTF-8 text"),
        (None, DataError, r"labels\.txt cannot be read: .*No such file"),
    ],
    ids=["too few", "too many", "blank", "empty", "no UTF-8", "absent"],
)
def test_a_label_file_that_does_not_fit_is_refused(
    content: bytes | None, error: type[Exception], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "labels.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(error, match=message):
        labelled(3, path)


class Answering(nn.Module):
    """Answers what it was given."""

    def __init__(self, answer: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x: Tensor) -> Any:
        return self.answer(x)


def boxes_and_scores(x: Tensor, *, shape: tuple[int, ...] = (5, 4), size: float = 1.0) -> tuple[Tensor, Tensor]:
    return x.new_ones(1, *shape) * 9, x.new_full((1, 5, 2), size)


@pytest.mark.parametrize(
    ("task", "answer", "message"),
    [
        ("classify", lambda x: x, r"must answer scores \[batch, C\].*it answers \[1, 3, 32, 32\] in \[0"),
        ("classify", lambda x: "cat", r"must answer scores \[batch, C\].*it answers str"),
        ("classify", lambda x: None, r"it answers NoneType"),
        ("segment", lambda x: x.mean((2, 3)), r"must answer logits \[batch, C, h, w\]; it answers \[1, 3\]"),
        ("segment", lambda x: {"logits_of_mine": x, "b": x}, r"answers a dict with 'logits_of_mine', 'b'"),
        ("detect", lambda x: x, r"must answer boxes .*--head NAME or TrainedModel\(decode=…\)"),
        ("detect", lambda x: boxes_and_scores(x, size=1.5), r"scores .*in \[0, 1\]; it answers .*in \[1\.5, 1\.5\]"),
        ("detect", lambda x: boxes_and_scores(x, shape=(5, 5)), r"it answers \[1, 5, 5\]"),
        ("detect", lambda x: boxes_and_scores(x, shape=(6, 4)), r"it answers \[1, 6, 4\]"),
        ("detect", lambda x: boxes_and_scores(x)[::-1], "must answer boxes"),
        ("instances", boxes_and_scores, r"must answer boxes .*prototypes .*it answers \[1, 5, 4\]"),
        ("detect", lambda x: [{"boxes": x, "scores": x, "labels": x}], "must answer boxes"),
    ],
)
def test_an_answer_in_another_form_is_refused_with_what_was_expected(
    task: str, answer: Callable[[Tensor], Any], message: str
) -> None:
    model = load_model(Answering(answer), task=task, size=(32, 32))
    with pytest.raises(SourceError, match=message):
        Deployable(model)


def test_a_decoding_that_does_not_fit_the_answer_is_refused() -> None:
    maps = load_model(Answering(lambda x: x), task="detect", size=(32, 32), head="yolox")
    with pytest.raises(SourceError, match=r"the raw answer of answering cannot be decoded: IndexError: .*--head"):
        Deployable(maps)


@pytest.mark.parametrize("answer", [lambda x: (x,), lambda x: [x], lambda x: {"out": x, "aux": x}, lambda x: x])
def test_the_usual_wrappings_of_one_tensor_are_taken(answer: Callable[[Tensor], Any]) -> None:
    deployable = Deployable(load_model(Answering(answer), task="segment", size=(32, 32)))
    (classes,) = deployable(deployable.example())
    assert classes.shape == (1, 32, 32)
    assert classes.dtype == torch.uint8


def test_logits_and_probabilities_are_distinguished() -> None:
    logits = Deployable(load_model(classifier(), task="classify", size=(32, 32)))
    assert "softmax" in logits.in_graph
    sure = nn.Sequential(classifier(), nn.Softmax(dim=1))
    probabilities = Deployable(load_model(sure, task="classify", size=(32, 32)))
    assert "softmax" not in probabilities.in_graph
    frame = logits.example()
    torch.testing.assert_close(logits(frame)[0], probabilities(frame)[0])
    assert float(logits(frame)[0].sum()) == pytest.approx(1)


class NeedsEightTimesEight(nn.Module):
    """A head that knows the size of the frame."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3 * 64 * 64, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.flatten(1))  # type: ignore[no-any-return]


def test_a_size_that_the_network_cannot_take_is_refused() -> None:
    assert Deployable(load_model(NeedsEightTimesEight(), task="classify", size=(64, 64)))
    with pytest.raises(SpecError, match=r"cannot take a frame of 32x48 px: RuntimeError: .*; try another --size"):
        Deployable(load_model(NeedsEightTimesEight(), task="classify", size=(48, 32)))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported classifier for 40x32 px."""
    path = tmp_path_factory.mktemp("exported") / "net.pt2"
    torch.export.save(torch.export.export(classifier(), (torch.zeros(1, 3, 32, 40),)), path)
    return path


def test_an_exported_program_answers_as_the_network_did(exported: Path) -> None:
    model = load_model(str(exported), task="classify", labels=["a", "b", "c"])
    assert (model.name, model.frame.height_px, model.frame.width_px) == ("net", 32, 40)
    assert model.source.weights_sha256 == sha256_of(exported)
    x = torch.rand(1, 3, 32, 40)
    torch.testing.assert_close(model.module(x), classifier()(x))
    assert Deployable(model).task.labels == ("a", "b", "c")


def test_an_exported_program_keeps_its_size_and_weights(exported: Path) -> None:
    with pytest.raises(SpecError, match="was exported for 40x32 px: leave out --size"):
        load_model(str(exported), task="classify", size=(64, 64))
    with pytest.raises(SpecError, match="has its own weights"):
        load_model(str(exported), task="classify", weights="x.pth")
    with pytest.raises(SpecError, match="--task"):
        load_model(str(exported))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_truncated_exported_program_is_reported_as_truncated(share: float, exported: Path, tmp_path: Path) -> None:
    data = exported.read_bytes()
    (tmp_path / "cut.pt2").write_bytes(data[: int(share * len(data))])
    with pytest.raises(SourceError, match=r"cut\.pt2 is truncated or not an exported program"):
        load_model(str(tmp_path / "cut.pt2"), task="classify")


def test_an_exported_program_with_other_inputs_is_refused(tmp_path: Path) -> None:
    program = torch.export.export(nn.Linear(4, 2), (torch.zeros(1, 4),))
    torch.export.save(program, tmp_path / "net.pt2")
    with pytest.raises(SourceError, match=r"takes float32 \[1, 4\]; expected one float32 \[1, 3, height, width\]"):
        load_model(str(tmp_path / "net.pt2"), task="classify")


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("yolox-nona", UnknownNameError, "did you mean yolox-nano"),
        (
            "torchvision:resnet81",
            UnknownNameError,
            r"no torchvision network is called 'resnet81'; did you mean resnet18",
        ),
        ("torchvision:", UnknownNameError, "no torchvision network is called ''"),
        ("net.pth", SpecError, r"holds weights, not a network.*--weights net\.pth"),
        ("absent.pt2", SourceError, r"there is no file absent\.pt2"),
    ],
)
def test_a_name_that_names_nothing_is_refused(name: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        load_model(name)


torchvision = pytest.mark.parametrize(
    ("name", "short", "side", "interpolation"),
    [
        ("resnet18", 256, 224, "bilinear"),
        ("resnet50", 232, 224, "bilinear"),  # its newer weights
        ("mobilenet_v3_small", 256, 224, "bilinear"),
        ("efficientnet_b0", 256, 224, "bicubic"),
        ("shufflenet_v2_x0_5", 256, 224, "bilinear"),
    ],
)


@torchvision
def test_a_torchvision_networks_frame_comes_from_its_weights_metadata(
    name: str, short: int, side: int, interpolation: str
) -> None:
    model = load_model(f"torchvision:{name}")
    assert model.frame == FrameSpec(
        height_px=side,
        width_px=side,
        fit="centre-crop",
        resize_short_px=short,
        interpolation=interpolation,  # type: ignore[arg-type]
        antialias=True,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    )
    assert len(model.task.labels) == 1000
    assert model.task.labels[0] == "tench"
    assert model.source.random, "no --weights: it knows nothing"


@torchvision
def test_our_preprocessing_is_torchvisions(name: str, short: int, side: int, interpolation: str) -> None:
    model = load_model(f"torchvision:{name}")
    assert model.reference is not None
    pictures = list(photographs().values())[:2]
    evidence = compare_preprocessing(
        model.frame, pictures, model.reference.apply, name=model.reference.name, square_only=False
    )
    assert evidence.compared
    assert evidence.reference == "torchvision ImageClassification"
    assert evidence.max_levels is not None
    assert evidence.max_levels <= MAX_LEVELS
    assert evidence.mean_levels is not None
    assert evidence.mean_levels <= MEAN_LEVELS


def test_a_torchvision_segmenter_takes_its_size_and_is_compared_on_squares() -> None:
    model = load_model("torchvision:lraspp_mobilenet_v3_large")
    assert (model.frame.height_px, model.frame.width_px, model.frame.fit) == (520, 520, "letterbox")
    assert (len(model.task.labels), model.task.labels[0]) == (21, "__background__")
    assert model.reference is not None
    assert model.reference.square_only
    picture = photographs()["coffee"]
    evidence = compare_preprocessing(
        model.frame, [picture], model.reference.apply, name=model.reference.name, square_only=True
    )
    assert evidence.compared
    assert (evidence.max_levels or 0) <= MAX_LEVELS


def test_a_frame_that_the_user_changed_has_no_reference() -> None:
    model = load_model("torchvision:shufflenet_v2_x0_5", size=(96, 128))
    assert model.reference is None
    assert (model.frame.height_px, model.frame.width_px, model.frame.resize_short_px) == (96, 128, 146)


def test_torchvision_weights_from_a_file_are_fitted(tmp_path: Path) -> None:
    trained = load_model("torchvision:shufflenet_v2_x0_5").module
    torch.save(trained.state_dict(), tmp_path / "shuffle.pth")
    model = load_model("torchvision:shufflenet_v2_x0_5", weights=tmp_path / "shuffle.pth")
    assert not model.source.random
    assert model.source.weights == "shuffle.pth"
    assert torch.equal(model.module.state_dict()["fc.weight"], trained.state_dict()["fc.weight"])
    with pytest.raises(WeightsError, match=r"does not fit this network.*missing, first"):
        load_model("torchvision:mobilenet_v3_small", weights=tmp_path / "shuffle.pth")


def test_a_random_network_gets_statistics_and_a_warning() -> None:
    model = load_model("torchvision:shufflenet_v2_x0_5", size=(64, 64))
    prepared, _, samples = deployed(model, list(photographs().values())[:2])
    assert len(samples) == 2
    assert len(prepared.warnings) == 1
    assert "shufflenet_v2_x0_5 has random weights" in prepared.warnings[0]
    assert float(prepared.module.state_dict()["conv1.1.running_mean"].abs().max()) > 0
    assert not prepared.module.training
    assert not model.module.state_dict()["conv1.1.running_mean"].any(), "the user's own network is not changed"


def test_a_task_that_is_not_the_networks_own_is_refused() -> None:
    with pytest.raises(SpecError, match="is a network to classify, not to segment"):
        load_model("torchvision:shufflenet_v2_x0_5", task="segment")


def test_activations_that_quantize_badly_can_be_replaced_with_a_note() -> None:
    original = load_model("torchvision:mobilenet_v3_small")
    replaced = load_model(original, replace_activations="relu6")
    kinds = {type(module).__name__ for module in replaced.module.modules()}
    assert "Hardswish" not in kinds
    assert any(isinstance(module, torch.nn.Hardswish) for module in original.module.modules()), "a copy was changed"
    assert list(replaced.module.state_dict()) == list(original.module.state_dict()), "weights load as before"
    assert any("replaced by ReLU6" in warning and "fine-tune" in warning for warning in replaced.warnings)


def test_a_network_without_such_activations_has_nothing_to_replace() -> None:
    with pytest.raises(SourceError, match=r"no SiLU, .* to replace; its activations are ReLU"):
        load_model("torchvision:resnet18", replace_activations="relu")
    with pytest.raises(UnknownNameError, match=r"known: relu|did you mean relu"):
        load_model("torchvision:mobilenet_v3_small", replace_activations="relu7")


@pytest.mark.parametrize("name", ["torchvision:squeezenet1_1", "efficientnet-lite0"])
def test_random_weights_are_the_same_every_time(name: str) -> None:
    torch.manual_seed(1)
    first = load_model(name).module.state_dict()
    drawn = torch.rand(1)
    torch.manual_seed(2)
    second = load_model(name).module.state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), drawn), "the caller's own random numbers went on as they were"


@pytest.mark.slow
def test_batch_norms_of_a_random_network_are_fused_however_wildly_it_answers_noise() -> None:
    """Squeeze and excitation hand what noise does to batch norms that know photographs on to all channels."""
    _, deployable, _ = deployed(load_model("torchvision:efficientnet_b4"), list(photographs().values())[:2])
    layers = {layer.name for layer in record_layers(deployable, deployable.example())}
    assert "features.0.0" in layers
    assert not [type(module) for module in deployable.modules() if isinstance(module, ScaleAndShift)]
