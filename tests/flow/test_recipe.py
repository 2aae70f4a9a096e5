"""Recipes: what they may say, and how they tell that it cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgecnn.errors import DataError, SpecError, UnknownNameError
from edgecnn.flow.recipe import Bench, Convert, Data, FineTune, Prune, Recipe, Train, words_of
from edgecnn.flow.recipe_file import read_recipe
from edgecnn.flow.stage_journal import StageJournal

WHOLE = """
model = "yolox-nano"
weights = "nano.pth"
size = "416x320"
labels = "names.txt"
[data]
train = "cells"
validate_on = "/elsewhere/held"
[train]
epochs = 40
[train.augmentation]
mosaic = 0.0
[prune]
latency = 0.5
importance = "taylor"
steps = 3
[prune.train]
epochs = 5
[fine-tune]
epochs = 20
distill = true
replace_activations = "relu6"
[quantize-aware]
quantize_for = "tflite"
epochs = 10
[convert]
to = ["onnx", "tflite"]
[quantize]
to = ["tflite"]
max_drop = 0.005
"""


def read(text: str, folder: Path) -> Recipe:
    (folder / "cells.toml").write_text(text)
    return read_recipe(folder / "cells.toml")


def test_a_recipe_has_the_settings_of_each_stage(tmp_path: Path) -> None:
    recipe = read(WHOLE, tmp_path)
    assert recipe.train is not None and recipe.prune is not None and recipe.fine_tune is not None
    assert (recipe.train.epochs, recipe.train.augmentation.mosaic, recipe.train.augmentation.flip) == (40, 0.0, 0.5)
    assert recipe.prune.cost == ("latency", 0.5) and recipe.prune.train is not None and recipe.prune.trains
    assert recipe.fine_tune.distill and recipe.fine_tune.replace_activations == "relu6"
    assert recipe.convert.formats == ("onnx", "tflite")
    assert [name for name, _ in recipe.tables()] == [
        "data", "train", "prune", "fine-tune", "quantize-aware", "convert", "quantize", "bench",
    ]  # fmt: skip


def test_paths_start_from_the_recipes_folder(tmp_path: Path) -> None:
    recipe = read(WHOLE, tmp_path)
    assert recipe.model_options == {
        "weights": str(tmp_path / "nano.pth"),
        "size": (320, 416),
        "labels": tmp_path / "names.txt",
    }
    assert (recipe.data.train, recipe.data.validate_on) == (tmp_path / "cells", Path("/elsewhere/held"))
    saved = read('model = "mine.model"\nweights = "DEFAULT"', tmp_path)
    assert (saved.model, saved.weights) == (str(tmp_path / "mine.model"), "DEFAULT")


def test_a_table_that_is_left_out_is_a_stage_that_is_left_out(tmp_path: Path) -> None:
    recipe = read('model = "yolox-nano"', tmp_path)
    assert (recipe.train, recipe.prune, recipe.fine_tune, recipe.quantize) == (None, None, None, None)
    assert (recipe.convert.precision, recipe.bench.profile) == (("fp32",), "quick")
    assert read('model = "yolox-nano"\n[prune]', tmp_path).table("prune").cost == ("macs", 0.5)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ('modle = "a"', UnknownNameError, "no key of the recipe cells.toml is called 'modle'; did you mean model"),
        ('model = "a"\n[data]\ntrain = "."\n[quantize-aware]\nepochs = 1', SpecError, "needs a format"),
        ('model = "a"\n[fine_tune]', UnknownNameError, "did you mean fine-tune"),
        ('model = "a"\n[train]\nepoches = 3', UnknownNameError, r"no key of \[train\] is called 'epoches'.*epochs"),
        ('model = "a"\n[train.augmentation]\nmosaik = 1', UnknownNameError, r"key of \[train\.augmentation\].*mosaic"),
        ('model = "a"\n[prune.train]\nbacth = 1', UnknownNameError, r"no key of \[prune\.train\] is called 'bacth'"),
        ('size = "64"', SpecError, "missing required field `model`"),
        ("model =", DataError, r"cells\.toml is not TOML"),
        ('model = "a"\nsize = "64x"', SpecError, "size must be a number or WIDTHxHEIGHT"),
        ('model = "a"\nprune = 3', SpecError, "Expected `object"),
        ('model = "a"\n[train]\nepochs = 3', SpecError, r"\[train\] needs training pictures"),
        ('model = "a"\n[data]\ntrain = "d"\n[train]\nepochs = 0', SpecError, r"\[train\] epochs must be at least 1"),
        ('model = "a"\n[data]\ntrain = "d"\n[train]\nepochs = "3"', SpecError, r"\[train\] Expected `int`"),
        ('model = "a"\n[data]\ntrain = 3', SpecError, r"\[data\] Expected a path, got `int`"),
        ('model = "a"\n[data]\nvalidate_on = "d"', SpecError, "without train, which it belongs to"),
        ('model = "a"\n[data]\nevaluate_split = "test"', SpecError, "without evaluate_on"),
        ('model = "a"\n[prune]\nmacs = 1.5', SpecError, r"\[prune\] Expected `float` < 1\.0 - at `\$\.macs`"),
        ('model = "a"\n[prune]\nmacs = 0.5\nlatency = 0.5', SpecError, "macs and latency are different costs"),
        ('model = "a"\n[prune]\nof = "onnx"', SpecError, "add latency"),
        ('model = "a"\n[prune]\nlatency = 0.5\nof = "onx"', UnknownNameError, "did you mean onnx"),
        ('model = "a"\n[prune]\nimportance = "magic"', SpecError, "Invalid enum value 'magic'"),
        (
            'model = "a"\n[prune]\nsteps = 2',
            SpecError,
            r"\[prune\] with steps, train or taylor needs training pictures",
        ),
        ('model = "a"\n[convert]\nto = ["onx"]', UnknownNameError, "no format is called 'onx'; did you mean onnx"),
        ('model = "a"\n[convert]\nto = []', SpecError, "to is empty"),
        ('model = "a"\n[convert]\nprecision = ["int8"]', SpecError, r"request it in a table \[quantize\]"),
        ('model = "a"\n[convert]\nprecision = ["fp8"]', UnknownNameError, "fp8"),
        ('model = "a"\n[convert]\nmax_drop = 0.1', SpecError, "add data"),
        ('model = "a"\n[quantize]', SpecError, "needs pictures for activation ranges"),
        ('model = "a"\n[quantize]\ncalibration = "d"\nmax_drop = 0.1', SpecError, "labelled pictures to measure"),
        ('model = "a"\n[quantize]\ndata = "d"\n[convert]\nprecision = ["fp16"]', SpecError, "add fp32"),
        ('model = "a"\n[quantize]\ndata = "d"\nto = ["tflite"]\n[convert]\nto = ["onnx"]', SpecError, "add it there"),
    ],
)
def test_an_impossible_value_of_a_recipe_is_reported_with_its_table(
    text: str, error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message) as raised:
        read(text, tmp_path)
    assert type(raised.value) is error


def test_a_recipe_that_is_not_there_is_an_error() -> None:
    with pytest.raises(DataError, match=r"nowhere\.toml does not exist"):
        read_recipe("nowhere.toml")


def test_files_that_are_absent_are_named_with_their_key(tmp_path: Path) -> None:
    (tmp_path / "cells").mkdir()
    for name in ("nano.pth", "names.txt"):
        (tmp_path / name).touch()
    recipe = read(WHOLE, tmp_path)
    with pytest.raises(DataError, match=r"\[data\] validate_on: /elsewhere/held does not exist"):
        recipe.check_files()
    (tmp_path / "names.txt").unlink()
    with pytest.raises(DataError, match=r"labels: .*names\.txt does not exist"):
        recipe.check_files()
    with pytest.raises(DataError, match=r"model: .*mine\.model does not exist"):
        read('model = "mine.model"', tmp_path).check_files()
    read('model = "yolox-nano"\nweights = "DEFAULT"', tmp_path).check_files()


def test_int8_looks_at_pictures_that_were_learned_from_and_is_searched_on_those_that_decided(tmp_path: Path) -> None:
    def places(**said: Any) -> tuple[Path | None, Path | None]:
        recipe = Recipe(model="a", data=Data(**said))
        return recipe.calibration, recipe.search_data

    cells, held = tmp_path / "cells", tmp_path / "held"
    cells.mkdir()
    assert places(train=cells) == (cells, cells)
    (cells / "train").mkdir()
    assert places(train=cells) == (cells / "train", cells / "train")
    (cells / "val").mkdir()
    assert places(train=cells) == (cells / "train", cells / "val")
    assert places(train=cells, validate_on=held) == (cells / "train", held)
    assert places(train=cells, split="val") == (cells / "val", cells / "val")


def test_words_are_what_is_not_the_default() -> None:
    assert words_of(Train(epochs=50, batch=16)) == {}
    assert words_of(FineTune(epochs=3, distill=True)) == {"epochs": 3, "distill": True}
    assert words_of(Prune(train=Train(epochs=3), keep=("head",))) == {"train": {"epochs": 3}, "keep": ("head",)}
    assert words_of(Convert(data=Path("x"), precision=("fp32", "fp16"))) == {"precision": ("fp32", "fp16")}
    assert words_of(Bench()) == {}


def test_a_stage_is_done_only_for_the_words_it_was_done_with(tmp_path: Path) -> None:
    journal = StageJournal(tmp_path / "flow")
    assert journal.finished("prune", "a") is None
    assert not journal.begin("prune", "a")
    assert StageJournal(tmp_path / "flow").begin("prune", "a"), "it was begun before, and a kill came"
    journal = StageJournal(tmp_path / "flow")
    journal.finish("prune", "a", result="net", figures={"macs": 3})
    again = StageJournal(tmp_path / "flow")
    done = again.finished("prune", "a")
    assert done is not None and (done.result, done.figures) == ("net", {"macs": 3})
    assert again.finished("prune", "b") is None
    assert not again.begin("prune", "b")
    assert StageJournal(tmp_path / "flow").finished("prune", "a") is None, "it is being written over"


def test_a_journal_that_is_damaged_or_has_no_room_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").touch()
    with pytest.raises(SpecError, match="mine exists and was not made by `compress`"):
        StageJournal(tmp_path / "mine")
    with pytest.raises(SpecError, match=r"letter\.txt exists and was not made by"):
        StageJournal(tmp_path / "mine" / "letter.txt")
    StageJournal(tmp_path / "flow")
    (tmp_path / "flow" / ".stages.json").write_text("{")
    with pytest.raises(SpecError, match="is damaged"):
        StageJournal(tmp_path / "flow")
